//! Sockets and TLS: one listener per machine that has an API to serve, with a certificate of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::body::Watched;
use super::gate::{Method, Peer};
use super::node;
use super::short::Short;
use crate::scenario::{Cut, Meeting, Met, Wire};
use crate::world::machine::pki::{self, PkiError};
use crate::world::machine::{Api, Machine, Room};
use crate::world::rights::Caller;
use crate::world::script::{Answered, Ask, Service, Step};

const PORT: u16 = 50000;
/// Who says nothing isn't listened to for ever.
const HANDSHAKE: Duration = Duration::from_secs(30);

/// So often it is looked whether a certificate got old, where nothing else happens.
const LOOK: Duration = Duration::from_mins(10);

/// What is being answered when an API goes away has so long to come to its end.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// An API that is served.
struct Open {
    task: AbortHandle,
    /// Nobody new is heard; who was heard already gets an answer.
    closing: CancellationToken,
}

/// Opens and closes listeners as machines change.
pub(super) async fn follow(room: Room) {
    let mut changes = room.changes();
    let mut open: BTreeMap<(u32, String, u64, Option<IpAddr>), Open> = BTreeMap::new();
    // They end with this room, whatever they were doing.
    let mut served = JoinSet::new();
    loop {
        let mut wanted = BTreeMap::new();
        let machines = room.machines();
        let powered: BTreeSet<u32> = machines.iter().map(Machine::vmid).collect();
        for machine in machines {
            let found = machine.see(|state| (state.api, state.boot_id.clone(), state.generation));
            if found.0 != Api::Silent {
                let vmid = machine.vmid();
                // A shared address comes and goes without a restart of the API.
                for shared in room.shared(vmid) {
                    wanted.insert((vmid, found.1.clone(), found.2, Some(shared)), (machine.clone(), found.0));
                }
                wanted.insert((vmid, found.1, found.2, None), (machine, found.0));
            }
        }
        open.retain(|key, open| {
            let stays = wanted.contains_key(key);
            if !stays && powered.contains(&key.0) {
                open.closing.cancel();
            } else if !stays {
                open.task.abort();
            }
            stays
        });
        for (key, (machine, api)) in wanted {
            let shared = key.3;
            open.entry(key).or_insert_with(|| {
                let closing = CancellationToken::new();
                let task = served.spawn(serve(machine, api, shared, closing.clone()));
                Open { task, closing }
            });
        }
        while served.try_join_next().is_some() {}
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Serves a machine's own addresses, or one that it shares.
async fn serve(machine: Machine, api: Api, shared: Option<IpAddr>, closing: CancellationToken) {
    // A worker has no certificate before a control plane's trustd answers.
    let mut changes = machine.room().changes();
    let tls = loop {
        match tls(&machine, api) {
            Ok(tls) => break tls,
            Err(error) => machine.says(&format!("[talos] apid can't start: {error}")),
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = closing.cancelled() => return,
        }
    };
    let (acceptors, acceptor) = watch::channel(TlsAcceptor::from(Arc::new(tls)));
    let mut listeners = JoinSet::new();
    let mut nowhere = true;
    let own = || machine.see(|state| state.addresses().collect::<Vec<_>>());
    for address in shared.map_or_else(own, |shared| vec![shared]) {
        let real = machine.world().dial_map(address);
        if !real.is_loopback() {
            machine.says(&format!("[talos] {address} isn't mapped onto loopback: nothing listens there"));
            continue;
        }
        nowhere = false;
        let address = SocketAddr::new(real, PORT);
        listeners.spawn(accept(address, acceptor.clone(), machine.clone(), api, closing.clone()));
    }
    if nowhere {
        machine.update(|state| state.listens = true);
    }
    let over = async { while listeners.join_next().await.is_some() {} };
    tokio::select! {
        () = over => {}
        never = renew(&machine, api, &acceptors) => match never {},
    }
}

/// A configuration may name other authorities, and certificates get old: what it presents, and whom it trusts, count from
/// the next connection on.
async fn renew(machine: &Machine, api: Api, acceptors: &watch::Sender<TlsAcceptor>) -> Infallible {
    let trust = || {
        let config = machine.see(|state| state.config.clone())?;
        let presented = machine.talos_leaf("api", &config).map(|pem| pem.certificate);
        let presented = presented.map_err(|error| error.to_string());
        Some((config.os_ca().certificate, config.accepted_authorities(), presented))
    };
    let mut changes = machine.changes();
    let mut known = trust();
    // To be told is a change, too.
    let mut told = String::new();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(LOOK) => {}
        }
        let now = trust();
        if now == known {
            continue;
        }
        match tls(machine, api) {
            Ok(tls) => {
                acceptors.send_replace(TlsAcceptor::from(Arc::new(tls)));
                known = now;
            }
            Err(error) if told != error.to_string() => {
                told = error.to_string();
                machine.says(&format!("[talos] apid goes on with its certificate: {told}"));
            }
            Err(_) => {}
        }
    }
    std::future::pending().await
}

async fn accept(
    address: SocketAddr,
    acceptor: watch::Receiver<TlsAcceptor>,
    machine: Machine,
    api: Api,
    closing: CancellationToken,
) {
    let mut connections = JoinSet::new();
    let hears = async {
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                // The machine that had the address before is on its way down, or two machines share it.
                Err(error) => tracing::debug!(%address, %error, "the Talos API can't listen yet"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if !machine.see(|state| state.listens) {
            machine.update(|state| state.listens = true);
        }
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let (acceptor, machine, closing) = (acceptor.borrow().clone(), machine.clone(), closing.clone());
                    connections.spawn(connection(stream, acceptor, machine, api, closing));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    };
    tokio::select! {
        () = hears => {}
        () = closing.cancelled() => {}
    }
    let said = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_WORDS, said).await;
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, machine: Machine, api: Api, closing: CancellationToken) {
    // Small answers must not wait for more.
    let _ = stream.set_nodelay(true);
    let wire = Wire::new(stream);
    let cut = wire.cut();
    if Met::with(machine.world(), &ask(&machine, Step::Connect, "", "")).await.breaks_before() {
        return cut.now();
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(wire).into_fallible()).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, wire))) => {
            tracing::debug!(%error, "a TLS handshake with a machine failed");
            return hang_up(wire).await;
        }
        Err(_) => return tracing::debug!("a TLS handshake with a machine took too long"),
    };
    let peer = match api {
        Api::Configured => {
            let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
            match leaf.and_then(|leaf| Peer::from_certificate(leaf)) {
                Some(peer) => peer,
                None => return tracing::debug!("peer certificate: missing the client auth extended key usage"),
            }
        }
        _ => Peer::maintenance(),
    };
    answer(stream, &machine, peer, cut, closing).await;
}

/// Ends a connection so that the caller hears why: what he has sent meanwhile is read, else the kernel would break it off.
async fn hang_up(mut wire: impl AsyncRead + AsyncWrite + Unpin) {
    let mut rest = [0; 4096];
    let said = async {
        wire.shutdown().await?;
        while wire.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LAST_WORDS, said).await;
}

fn ask<'a>(machine: &'a Machine, step: Step, verb: &'a str, who: &'a str) -> Ask<'a> {
    Ask { service: Service::Talos, step, verb, path: verb, who, node: "", vmid: Some(machine.vmid()) }
}

/// Answers a caller on a connection of any kind.
pub(super) async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    machine: &Machine,
    peer: Peer,
    cut: Cut,
    closing: CancellationToken,
) {
    let routes = node::routes(machine);
    let (machine, breaks) = (machine.clone(), cut.clone());
    let answer = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (head, body) = request.into_parts();
        let (body, ended) = Watched::new(body);
        let mut request = http::Request::from_parts(head, body);
        let method = Method(request.uri().path().to_owned());
        request.extensions_mut().insert(method);
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(ended);
        scripted(machine.clone(), routes.clone(), request, peer.name(), breaks.clone())
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let mut served = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), answer));
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = cut.happens() => return,
        () = closing.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to a machine broke");
    }
}

/// Calls that destroy or take down, as the auditor names them.
const DEEDS: [(&str, &str); 8] = [
    ("Reset", "talos-reset"),
    ("Shutdown", "talos-shutdown"),
    ("Reboot", "talos-reboot"),
    ("Upgrade", "talos-upgrade"),
    ("Rollback", "talos-rollback"),
    ("EtcdRemoveMemberByID", "etcd-remove-member"),
    ("EtcdLeaveCluster", "etcd-leave"),
    ("EtcdRecover", "etcd-recover"),
];

/// A call on its way through the scenario, the routes, the auditor and the log.
async fn scripted(
    machine: Machine,
    routes: Routes,
    request: http::Request<Watched>,
    who: String,
    cut: Cut,
) -> Result<http::Response<Body>, std::convert::Infallible> {
    let world = machine.world();
    let mut meeting = Meeting::new(Answered::now(Service::Talos, machine.vmid().to_string()));
    let (room, verb) = request.uri().path().trim_start_matches('/').split_once('/').unwrap_or_default();
    let (room, verb) = (room.to_owned(), verb.to_owned());
    let named: Vec<String> = ["node", "nodes"]
        .iter()
        .flat_map(|key| request.headers().get_all(*key))
        .filter_map(|name| name.to_str().ok().map(str::to_owned))
        .collect();
    // A call that is only passed on is one to the machine that gets it.
    let other = if let [name] = named.as_slice() { machine.room().find(name) } else { None };
    let meant = other.as_ref().unwrap_or(&machine);
    (meeting.record.method, meeting.record.path, meeting.record.who) = (room, verb.clone(), who.clone());
    let mut met = Met::with(world, &ask(meant, Step::Request, &verb, &who)).await;
    if met.breaks_before() {
        return cut.instead_of_an_answer().await;
    }
    if let Some((code, reason)) = met.status.take() {
        meeting.ends(world, code, 0);
        return Ok(tonic::Status::new(i32::from(code).into(), reason).into_http());
    }
    let response = routes.oneshot(request).await?;
    // A refusal that is known before the first message is in the headers.
    let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok()).unwrap_or(0);
    if let (0, Some((_, deed))) = (code, DEEDS.iter().find(|(name, _)| *name == verb)) {
        let forwarded = named.iter().filter_map(|name| machine.room().find(name)).map(|machine| machine.vmid());
        let forwarded: Vec<u32> = forwarded.collect();
        let done_to = if forwarded.is_empty() { vec![machine.vmid()] } else { forwarded };
        for vmid in done_to {
            world.tell(&Caller { identity: who.clone() }, deed, Some(vmid), None);
        }
    }
    meeting.ends(world, code, 0);
    if met.breaks_after() {
        return cut.instead_of_an_answer().await;
    }
    let response = match met.short.take() {
        Some((messages, ends)) => {
            let mut short = Short::new(messages, ends);
            response.map(|body| Body::new(body.map_frame(move |frame| short.pass(frame))))
        }
        None => response,
    };
    if met.corrupt == 0 {
        return Ok(response);
    }
    Ok(response.map(|body| Body::new(body.map_frame(move |frame| frame.map_data(|piece| met.touch(piece))))))
}

fn tls(machine: &Machine, api: Api) -> Result<rustls::ServerConfig, PkiError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let invalid = |error: &dyn std::fmt::Display| PkiError::Authority(error.to_string());
    let config = machine.see(|state| state.config.clone());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(&error))?;
    let (builder, (certificate, key)) = if let Some(config) = config.filter(|_| api == Api::Configured) {
        let authority = config.os_ca();
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authority.certificate.as_bytes()).flatten() {
            roots.add(certificate).map_err(|error| invalid(&error))?;
        }
        for trusted in config.accepted_authorities() {
            // One that can't be read counts for nobody; the others go on.
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(trusted.as_bytes()).flatten());
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| invalid(&error))?;
        (builder.with_client_cert_verifier(verifier), machine.talos_leaf("api", &config)?.der()?)
    } else {
        let names = machine.see(|state| state.addresses().map(|address| address.to_string()).collect());
        let made = pki::throw_away(names)?;
        (builder.with_no_client_auth(), (made.certificate, made.key))
    };
    let mut tls = builder.with_single_cert(vec![certificate], key).map_err(|error| invalid(&error))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    Ok(tls)
}
