//! A scripted machine over real TLS, for tests of the clients.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{Stream, StreamExt, stream};
use prost::Message as _;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status, Streaming};

use super::cosi::{Kind, MachineConfigSpec};
use super::{Access, Machine};
use crate::net::testing::{Pki, connector};
use crate::net::tls;
use crate::talos::proto::cluster::cluster_service_server::{ClusterService, ClusterServiceServer};
use crate::talos::proto::cluster::{HealthCheckProgress, HealthCheckRequest};
use crate::talos::proto::common::Data;
use crate::talos::proto::cosi::resource::state_server::{State, StateServer};
use crate::talos::proto::cosi::resource::{
    GetRequest, GetResponse, ListRequest, ListResponse, Metadata, Resource, Spec,
};
use crate::talos::proto::machine::machine_service_server::{MachineService, MachineServiceServer};
use crate::talos::proto::machine::{
    ApplyConfiguration, ApplyConfigurationRequest, ApplyConfigurationResponse, Bootstrap, BootstrapRequest,
    BootstrapResponse, EtcdRecoverResponse, EtcdSnapshotRequest, PlatformInfo, ReadRequest, Version, VersionInfo,
    VersionResponse,
};

/// What the machine does. Fields left at their default make it answer Unimplemented or `NotFound`.
#[derive(Default)]
pub(crate) struct Script {
    /// Its tag; without one, Version is Unimplemented as in maintenance before 1.13.
    pub(crate) tag: Option<&'static str>,
    /// (type, id, yaml) of its resources; any other type is not supported.
    pub(crate) resources: Vec<(&'static str, &'static str, String)>,
    /// Answers to Bootstrap, one after the other; `None` never answers.
    pub(crate) bootstraps: Mutex<VecDeque<Option<Result<(), Status>>>>,
    /// What Bootstrap was asked for.
    pub(crate) bootstrapped: Mutex<Vec<BootstrapRequest>>,
    /// What `ApplyConfiguration` was given; a config named `bad` is refused.
    pub(crate) applied: Mutex<Vec<ApplyConfigurationRequest>>,
    /// The bytes of a stream (kubeconfig, file, snapshot), in chunks, and how it ends.
    pub(crate) bytes: Vec<&'static [u8]>,
    pub(crate) packed: Vec<u8>,
    pub(crate) ends: Option<Status>,
    /// What `EtcdRecover` received, and whether to its end.
    pub(crate) recovered: watch::Sender<Option<(Vec<u8>, bool)>>,
    /// Lines of the health check, and how it ends.
    pub(crate) health: Vec<&'static str>,
    /// Roles refused.
    pub(crate) refuses: bool,
}

type Items<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Script {
    fn stream(&self) -> Response<Items<Data>> {
        let mut parts: Vec<Result<Data, Status>> =
            self.bytes.iter().map(|part| Ok(Data { metadata: None, bytes: part.to_vec() })).collect();
        if !self.packed.is_empty() {
            parts.push(Ok(Data { metadata: None, bytes: self.packed.clone() }));
        }
        parts.extend(self.ends.clone().map(Err));
        Response::new(Box::pin(stream::iter(parts)))
    }
}

/// Notes what arrived of an upload when it is over, one way or the other.
struct Uploaded {
    script: Arc<Script>,
    received: Vec<u8>,
    whole: bool,
}

impl Drop for Uploaded {
    fn drop(&mut self) {
        let _ = self.script.recovered.send(Some((std::mem::take(&mut self.received), self.whole)));
    }
}

/// The service, shared by all connections.
#[derive(Clone)]
struct Served(Arc<Script>);

#[tonic::async_trait]
impl MachineService for Served {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        if self.0.refuses {
            return Err(Status::permission_denied("not authorized"));
        }
        let Some(tag) = self.0.tag else {
            return Err(Status::unimplemented("API is not implemented in maintenance mode"));
        };
        let version = VersionInfo { tag: tag.to_owned(), arch: "amd64".to_owned(), ..VersionInfo::default() };
        let platform = PlatformInfo { name: "nocloud".to_owned(), mode: "cloud".to_owned() };
        let message = Version { version: Some(version), platform: Some(platform), ..Version::default() };
        Ok(Response::new(VersionResponse { messages: vec![message] }))
    }

    async fn apply_configuration(
        &self,
        request: Request<ApplyConfigurationRequest>,
    ) -> Result<Response<ApplyConfigurationResponse>, Status> {
        let request = request.into_inner();
        if request.data == b"bad" {
            return Err(Status::unknown("failed to parse config: not a config"));
        }
        self.0.applied.lock().unwrap().push(request);
        let applied = ApplyConfiguration { warnings: vec!["a warning".to_owned()], ..ApplyConfiguration::default() };
        Ok(Response::new(ApplyConfigurationResponse { messages: vec![applied] }))
    }

    async fn bootstrap(&self, request: Request<BootstrapRequest>) -> Result<Response<BootstrapResponse>, Status> {
        self.0.bootstrapped.lock().unwrap().push(request.into_inner());
        let next = self.0.bootstraps.lock().unwrap().pop_front().expect("a bootstrap that wasn't scripted");
        match next {
            None => std::future::pending().await,
            Some(answer) => answer.map(|()| Response::new(BootstrapResponse { messages: vec![Bootstrap::default()] })),
        }
    }

    async fn kubeconfig(&self, _: Request<()>) -> Result<Response<Items<Data>>, Status> {
        Ok(self.0.stream())
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<Items<Data>>, Status> {
        Ok(self.0.stream())
    }

    async fn etcd_snapshot(&self, _: Request<EtcdSnapshotRequest>) -> Result<Response<Items<Data>>, Status> {
        Ok(self.0.stream())
    }

    async fn etcd_recover(&self, request: Request<Streaming<Data>>) -> Result<Response<EtcdRecoverResponse>, Status> {
        let mut upload = request.into_inner();
        // A reset request drops this future wherever it is, so the note is made on the way out.
        let mut note = Uploaded { script: self.0.clone(), received: Vec::new(), whole: false };
        while let Some(data) = upload.message().await? {
            note.received.extend(data.bytes);
        }
        // tonic's server takes a reset for an end; only a request that really ended lives on past this point.
        tokio::task::yield_now().await;
        note.whole = true;
        drop(note);
        Ok(Response::new(EtcdRecoverResponse { messages: Vec::new() }))
    }
}

#[tonic::async_trait]
impl ClusterService for Served {
    async fn health_check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Items<HealthCheckProgress>>, Status> {
        let line = |text: &&'static str| Ok(HealthCheckProgress { metadata: None, message: (*text).to_owned() });
        let mut lines: Vec<_> = self.0.health.iter().map(line).collect();
        lines.extend(self.0.ends.clone().map(Err));
        Ok(Response::new(Box::pin(stream::iter(lines))))
    }
}

#[tonic::async_trait]
impl State for Served {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let request = request.into_inner();
        let of_type = self.of_type(&request.r#type)?;
        let resource = of_type.into_iter().find(|resource| resource.metadata.as_ref().unwrap().id == request.id);
        let missing = || {
            let GetRequest { namespace, r#type, id, .. } = &request;
            Status::not_found(format!("resource {type}({namespace}/{id}@undefined) doesn't exist"))
        };
        Ok(Response::new(GetResponse { resource: Some(resource.ok_or_else(missing)?) }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Items<ListResponse>>, Status> {
        let of_type = self.of_type(&request.into_inner().r#type)?;
        let items = of_type.into_iter().map(|resource| Ok(ListResponse { resource: Some(resource) }));
        Ok(Response::new(stream::iter(items.collect::<Vec<_>>()).boxed()))
    }
}

impl Served {
    fn of_type(&self, kind: &str) -> Result<Vec<Resource>, Status> {
        let known = self.0.resources.iter().filter(|(name, ..)| *name == kind);
        let found: Vec<Resource> = known
            .filter(|(_, id, _)| !id.is_empty())
            .map(|(name, id, yaml)| Resource {
                metadata: Some(Metadata {
                    r#type: (*name).to_owned(),
                    id: (*id).to_owned(),
                    version: "1".to_owned(),
                    ..Metadata::default()
                }),
                spec: Some(Spec { proto_spec: proto_of(name, yaml), yaml_spec: yaml.clone() }),
            })
            .collect();
        if self.0.resources.iter().any(|(name, ..)| *name == kind) {
            Ok(found)
        } else {
            Err(Status::permission_denied(format!("resource type \"{kind}\" is not supported")))
        }
    }
}

/// Clients read the protobuf form of machine configurations only.
fn proto_of(kind: &str, text: &str) -> Vec<u8> {
    if kind != Kind::MACHINE_CONFIG.name {
        return Vec::new();
    }
    MachineConfigSpec { yaml_marshalled: text.as_bytes().to_vec() }.encode_to_vec()
}

/// Whether the server asks for client certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asks {
    /// As in maintenance.
    Nothing,
    /// As with a config.
    Certificate,
}

/// A machine that listens.
pub(crate) struct Fake {
    pub(crate) address: String,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pki: Pki,
    pub(crate) script: Arc<Script>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    pub(crate) async fn start(asks: Asks, script: Script) -> Self {
        Self::start_at("127.0.0.1:0", asks, script).await
    }

    /// Starts at an address, with a key and an authority of its own as after every boot.
    pub(crate) async fn start_at(address: &str, asks: Asks, script: Script) -> Self {
        let pki = Pki::new();
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = pki.issue(&["127.0.0.1"], &key, ExtendedKeyUsagePurpose::ServerAuth);
        let builder =
            ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
        let builder = match asks {
            Asks::Nothing => builder.with_no_client_auth(),
            Asks::Certificate => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(pki.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let mut config = builder.with_single_cert(vec![certificate.clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let script = Arc::new(script);
        let served = Served(script.clone());
        let incoming = stream::unfold(listener, move |listener| {
            let acceptor = acceptor.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    if let Ok(stream) = acceptor.accept(stream).await {
                        return Some((Ok::<_, io::Error>(Session(stream)), listener));
                    }
                }
            }
        });
        let router = tonic::transport::Server::builder()
            .add_service(MachineServiceServer::new(served.clone()))
            .add_service(ClusterServiceServer::new(served.clone()))
            .add_service(StateServer::new(served));
        let task = tokio::spawn(async move { router.serve_with_incoming(Box::pin(incoming)).await.unwrap() });
        Self { address, certificate, pki, script, task }
    }

    /// Stops listening; connections that stand may live on.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    /// What this machine's cluster gives its admins, with Talos' label on the key.
    pub(crate) fn access(&self) -> Access {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let certificate = self.pki.issue(&[], &key, ExtendedKeyUsagePurpose::ClientAuth);
        let key = pem("ED25519 PRIVATE KEY", key.serialized_der());
        Access::from_pem(
            pem("CERTIFICATE", self.pki.issuer.der()).as_bytes(),
            pem("CERTIFICATE", &certificate).as_bytes(),
            &SecretString::from(key),
        )
        .unwrap()
    }

    /// A client of it.
    pub(crate) fn machine(&self) -> Machine {
        Machine::new(&connector(), &self.address, &self.access(), Duration::from_secs(5)).unwrap()
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// A TLS session as tonic's server wants it.
struct Session(TlsStream<TcpStream>);

impl Connected for Session {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Session {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Session {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
