//! Sockets and TLS: one listener per control plane whose API server runs, and one per shared address.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::FromDer as _;

use super::rbac::User;
use super::routes::{Caller, Server};
use super::scripted;
use crate::scenario::Wire;
use crate::world::machine::pki::PkiError;
use crate::world::machine::{Machine, Room};

/// Go's server gives up on a handshake after that.
const HANDSHAKE: Duration = Duration::from_secs(10);
const PORT: u16 = 6443;
/// How often it looks whether its certificate got old, although it heard of no change.
const LOOK: Duration = Duration::from_mins(1);
const PLAIN: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A task that ends when it is let go.
struct Open(AbortHandle);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One run of an API server, as seen at one address. Another boot, or other authorities, are another run: connections to
/// the one before end with it.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    address: IpAddr,
    vmid: u32,
    boot_id: String,
    authorities: Vec<String>,
}

/// Serves the Kubernetes API of all machines in the room that run one, until the future is dropped.
pub async fn serve(room: Room) {
    let mut changes = room.changes();
    let mut open: BTreeMap<Run, Open> = BTreeMap::new();
    loop {
        let wanted = wanted(&room);
        open.retain(|run, _| wanted.contains_key(run));
        for (run, machine) in wanted {
            let address = run.address;
            open.entry(run).or_insert_with(|| Open(tokio::spawn(listen(address, machine)).abort_handle()));
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Which addresses are to be served, and by which machine: its own, and a shared one while it holds it.
fn wanted(room: &Room) -> BTreeMap<Run, Machine> {
    let mut wanted = BTreeMap::new();
    for machine in room.machines() {
        let found = machine.see(|state| {
            let addresses: Vec<IpAddr> = state.addresses().collect();
            state.kubernetes.then(|| (addresses, state.boot_id.clone(), state.config.clone()))
        });
        let Some((addresses, boot_id, config)) = found else { continue };
        let authorities = config.map(|config| config.kubernetes_authorities()).unwrap_or_default();
        for address in addresses.into_iter().chain(room.shared(machine.vmid())) {
            let (vmid, boot_id, authorities) = (machine.vmid(), boot_id.clone(), authorities.clone());
            wanted.insert(Run { address, vmid, boot_id, authorities }, machine.clone());
        }
    }
    wanted
}

async fn listen(address: IpAddr, machine: Machine) {
    let real = machine.world().dial_map(address);
    if !real.is_loopback() {
        return machine.says(&format!("{address} isn't mapped onto loopback: no API server listens there"));
    }
    let (acceptors, verifier) = match tls(&machine) {
        Ok((tls, verifier)) => (watch::Sender::new(TlsAcceptor::from(Arc::new(tls))), verifier),
        Err(error) => return machine.says(&format!("kube-apiserver can't start: {error}")),
    };
    let listener = loop {
        match TcpListener::bind(SocketAddr::new(real, PORT)).await {
            Ok(listener) => break listener,
            Err(error) => tracing::debug!(%real, %error, "the Kubernetes API can't listen yet"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let server = Arc::new(Server::new(machine.clone()));
    let mut connections = JoinSet::new();
    let hears = async {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let acceptor = acceptors.borrow().clone();
                    connections.spawn(connection(stream, acceptor, verifier.clone(), server.clone()));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    };
    tokio::select! {
        () = hears => {}
        never = renew(&machine, &acceptors) => match never {},
    }
}

/// The server reads its certificate's file again when Talos wrote another, for other names or because it got old (Talos,
/// `KubernetesDynamicCertsController`): it counts from the next connection on.
async fn renew(machine: &Machine, acceptors: &watch::Sender<TlsAcceptor>) -> Infallible {
    let presented = || {
        let config = machine.see(|state| state.config.clone())?;
        machine.api_server_leaf(&config).ok().map(|pem| pem.certificate)
    };
    let mut changes = machine.changes();
    let mut known = presented();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = presented();
        if now != known
            && let Ok((tls, _)) = tls(machine)
        {
            acceptors.send_replace(TlsAcceptor::from(Arc::new(tls)));
            known = now;
        }
    }
    std::future::pending().await
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    verifier: Arc<dyn ClientCertVerifier>,
    server: Arc<Server>,
) {
    // Small answers must not wait for more.
    let _ = stream.set_nodelay(true);
    let mut wire = Wire::new(stream);
    let cut = wire.cut();
    if server.meets_connection().await.breaks_before() {
        return cut.now();
    }
    if let Ok(true) = tokio::time::timeout(HANDSHAKE, wire.begins_as_http()).await {
        // Whoever doesn't read it needn't know.
        let _ = wire.write_all(PLAIN).await;
        return;
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(wire)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake with an API server failed"),
        Err(_) => return tracing::debug!("a TLS handshake with an API server took too long"),
    };
    let caller = caller(stream.get_ref().1.peer_certificates().unwrap_or_default(), verifier.as_ref());
    let breaks = cut.clone();
    let service = hyper::service::service_fn(move |request| {
        let (server, caller, cut) = (server.clone(), caller.clone(), breaks.clone());
        async move { Ok::<_, std::convert::Infallible>(scripted::answer(&server, &caller, request, &cut).await) }
    });
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // As Go writes them.
    builder.http1().title_case_headers(true);
    tokio::select! {
        ended = builder.serve_connection(TokioIo::new(stream), service) => if let Err(error) = ended {
            tracing::debug!(%error, "a connection to an API server broke");
        },
        () = cut.happens() => {}
    }
}

/// Who calls, by a certificate of the cluster's CA: common name and organisations.
fn caller(certificates: &[CertificateDer<'_>], verifier: &dyn ClientCertVerifier) -> Caller {
    let Some((leaf, others)) = certificates.split_first() else { return Caller::Anonymous };
    if verifier.verify_client_cert(leaf, others, UnixTime::now()).is_err() {
        return Caller::Invalid;
    }
    let Ok((_, parsed)) = x509_parser::certificate::X509Certificate::from_der(leaf) else { return Caller::Invalid };
    let text = |value: &x509_parser::x509::AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned).ok();
    let name = parsed.subject().iter_common_name().find_map(text).unwrap_or_default();
    let groups = parsed.subject().iter_organization().filter_map(text).collect();
    let credential = format!("X509SHA256={}", hex::encode(Sha256::digest(leaf)));
    Caller::Known(User { credential, ..User::known(name, groups) })
}

/// Takes any certificate in the handshake, as the original does: whether it is valid is looked at afterwards, and said in an
/// answer that clients understand.
#[derive(Debug)]
struct Patient(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Patient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }
}

type Tls = (rustls::ServerConfig, Arc<dyn ClientCertVerifier>);

fn tls(machine: &Machine) -> Result<Tls, PkiError> {
    let invalid = |error: &dyn std::fmt::Display| PkiError::Authority(error.to_string());
    let config = machine.see(|state| state.config.clone());
    let config = config.ok_or_else(|| PkiError::Authority("no configuration".to_owned()))?;
    let authority = config.kubernetes_ca();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.certificate.as_bytes()).flatten() {
        roots.add(certificate).map_err(|error| invalid(&error))?;
    }
    for trusted in config.kubernetes_authorities() {
        // One that can't be read counts for nobody; the others go on.
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(trusted.as_bytes()).flatten());
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| invalid(&error))?;
    let (certificate, key) = machine.api_server_leaf(&config)?.der()?;
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&error))?
        .with_client_cert_verifier(Arc::new(Patient(verifier.clone())))
        .with_single_cert(vec![certificate], key)
        .map_err(|error| invalid(&error))?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((tls, verifier))
}
