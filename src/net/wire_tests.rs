//! TLS and HTTP over real sockets.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::Method;
use ::http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::http::{Body, Client, HttpError, Request};
use super::testing::{Callers, Pki, Reaction, Server, connector};
use super::tls::{Fingerprint, Identity, Recorder, SpkiPin, Trust, Versions, certificate_error, client_config};
use super::{ConnectError, Connector, Meter, Options, Reach};
use crate::types::Sha256;

fn client(trust: &Trust) -> Client {
    Client::new(&connector(), client_config(trust, None).unwrap(), Versions::Http1)
}

async fn try_get(server: &Server, trust: &Trust) -> Result<String, HttpError> {
    let answer = client(trust).send(Request::get(server.uri("/"))).await?;
    Ok(String::from_utf8(answer.bytes(100).await?.to_vec()).unwrap())
}

#[tokio::test]
async fn trust_is_by_authority_fingerprint_or_key_and_by_nothing_else() {
    let server = Server::start(|_, _| Reaction::Answer("200 OK", "hello".to_owned())).await;
    let other = Fingerprint(Sha256([7; 32]));
    let recorder = Recorder::default();
    for trust in [
        Trust::Authorities(vec![server.authority.clone()]),
        server.pinned(),
        Trust::Spki(SpkiPin::of(&server.certificate).unwrap()),
        Trust::Record(recorder.clone()),
        Trust::Insecure,
    ] {
        assert_eq!(try_get(&server, &trust).await.unwrap(), "hello", "{trust:?}");
    }
    let seen = recorder.seen().unwrap();
    assert_eq!(seen.fingerprint, Fingerprint::of(&server.certificate));
    assert_eq!(seen.spki.to_string().parse::<SpkiPin>().unwrap(), seen.spki);

    let heard = server.heard().len();
    match try_get(&server, &Trust::Fingerprint(other)).await.unwrap_err() {
        HttpError::Pin { source, .. } => {
            assert_eq!((source.expected, source.found), (other.to_string(), seen.fingerprint.to_string()));
        }
        error => panic!("{error:?}"),
    }
    assert!(matches!(try_get(&server, &Trust::Spki(SpkiPin(Sha256([7; 32])))).await, Err(HttpError::Pin { .. })));
    let stranger = Trust::Authorities(vec![Pki::new().issuer.der().clone()]);
    let error = try_get(&server, &stranger).await.unwrap_err();
    assert!(matches!(error, HttpError::Untrusted { .. }) && !error.may_have_arrived(), "{error:?}");
    assert!(certificate_error(&error).is_some());
    assert_eq!(server.heard().len(), heard, "nothing was sent to a server that isn't trusted");
}

#[tokio::test]
async fn a_client_certificate_with_talos_label_is_shown() {
    let pki = Pki::new();
    let server =
        Server::start_with(&pki, Callers::Certified, |_, _| Reaction::Answer("200 OK", "known".to_owned())).await;
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = pki.issue(&[], &key, ExtendedKeyUsagePurpose::ClientAuth);
    let pem =
        |label: &str, der: &[u8]| format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der));
    let certificate = pem("CERTIFICATE", &certificate);
    let key = pem("ED25519 PRIVATE KEY", &key.serialize_der());
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    let known = Client::new(&connector(), client_config(&server.pinned(), Some(identity)).unwrap(), Versions::Http1);
    assert_eq!(known.send(Request::get(server.uri("/"))).await.unwrap().status, 200);
    assert!(try_get(&server, &server.pinned()).await.is_err());
}

#[tokio::test]
async fn reason_phrases_and_limits_are_kept() {
    let server =
        Server::start(|_, _| Reaction::Answer("500 storage 'x' does not exist", "0123456789".to_owned())).await;
    let client = client(&server.pinned());
    let answer = client.send(Request::get(server.uri("/a?b=c"))).await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.reason.as_str()), (500, "storage 'x' does not exist"));
    assert!(matches!(answer.bytes(9).await, Err(HttpError::TooLarge { limit: 9, .. })));
    assert_eq!(client.requests(), 1);
    assert_eq!(server.lines(), ["GET /a?b=c"]);
    assert_eq!(server.heard()[0].header("content-length"), None);
}

#[derive(Default)]
struct Tally(Mutex<u64>);

impl Meter for Tally {
    fn add(&self, bytes: u64) {
        *self.0.lock().unwrap() += bytes;
    }

    fn total(&self, _: u64) {}
}

fn streamed(server: &Server, length: u64) -> Request {
    let pieces = ["abc", "defg"].map(|piece| io::Result::Ok(Bytes::from_static(piece.as_bytes())));
    let body = Body::Stream { length, stream: Box::pin(stream::iter(pieces)) };
    Request { body, ..Request::new(Method::POST, server.uri("/up")) }
}

#[tokio::test]
async fn a_streamed_body_has_its_exact_length_or_is_broken_off() {
    let server = Server::start(|_, _| Reaction::Answer("200 OK", String::new())).await;
    let tally = Tally::default();
    let client = client(&server.pinned());
    client.send_metered(streamed(&server, 7), &tally).await.unwrap();
    let heard = server.heard().remove(0);
    assert_eq!((heard.header("content-length"), heard.header("transfer-encoding")), (Some("7"), None));
    assert_eq!((heard.body.as_str(), *tally.0.lock().unwrap()), ("abcdefg", 7));
    for wrong in [6, 8] {
        let error = client.send(streamed(&server, wrong)).await.unwrap_err();
        assert!(matches!(error, HttpError::Body { .. }), "{wrong}: {error:?}");
    }
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_through_is_not_lost() {
    for _ in 0..20 {
        let server = Server::impatient("403 Permission check failed (/storage/x, Datastore.AllocateTemplate)").await;
        let pieces = std::iter::repeat_with(|| io::Result::Ok(Bytes::from(vec![0; 1 << 16]))).take(128);
        let body = Body::Stream { length: 128 << 16, stream: Box::pin(stream::iter(pieces)) };
        let request = Request { body, ..Request::new(Method::POST, server.uri("/up")) };
        let answer = client(&server.pinned()).send(request).await.unwrap();
        assert_eq!(answer.status, 403);
    }
}

#[tokio::test]
async fn silence_and_resets_are_told_from_what_never_left() {
    let server =
        Server::start(|heard, _| if heard.line() == "GET /quiet" { Reaction::Silence } else { Reaction::Reset }).await;
    let client = client(&server.pinned());
    let quiet = Request { patience: Duration::from_millis(50), ..Request::get(server.uri("/quiet")) };
    let error = client.send(quiet).await.unwrap_err();
    assert!(matches!(error, HttpError::TimedOut { .. }) && error.may_have_arrived());
    let error = client.send(Request::get(server.uri("/reset"))).await.unwrap_err();
    assert!(matches!(error, HttpError::Broken { .. }) && error.may_have_arrived());
    let elsewhere = client.send(Request::get("https://192.0.2.1/".parse().unwrap())).await.unwrap_err();
    assert!(!elsewhere.may_have_arrived());
}

#[tokio::test]
async fn redirects_are_followed_without_the_credentials_of_the_first_host() {
    let store = Server::start(|_, _| Reaction::Answer("200 OK", "image".to_owned())).await;
    let location: &'static str = format!("Location: https://{}/blob\r\n", store.address).leak();
    let pki = Pki::new();
    let factory = Server::start_with(&pki, Callers::Anyone, move |heard, _| match heard.line() {
        "GET /first" => Reaction::With("302 Found", "Location: /second\r\n", String::new()),
        "GET /second" => Reaction::With("302 Found", location, String::new()),
        _ => Reaction::With("302 Found", "Location: /loop\r\n", String::new()),
    })
    .await;
    let trust = Trust::Authorities(vec![factory.authority.clone(), store.authority.clone()]);
    let client = client(&trust);
    let headers: HeaderMap = [(AUTHORIZATION, HeaderValue::from_static("Bearer x"))].into_iter().collect();
    let answer = client.get_following(factory.uri("/first"), headers.clone(), 5).await.unwrap();
    assert_eq!(answer.bytes(100).await.unwrap(), "image");
    assert!(factory.heard().iter().all(|heard| heard.header("authorization").is_some()));
    assert_eq!(store.heard()[0].header("authorization"), None);
    let endless = client.get_following(factory.uri("/loop"), headers, 3).await.unwrap_err();
    assert!(matches!(endless, HttpError::Redirects { .. }));
}

fn serving(certificate: CertificateDer<'static>, key: &KeyPair) -> rustls::ServerConfig {
    rustls::ServerConfig::builder_with_provider(super::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap()
}

#[tokio::test]
async fn an_authority_that_serves_with_its_own_certificate_is_refused_with_a_way_out() {
    let pki = Pki::new();
    let own = pki.issuer.der().clone();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(serving(own.clone(), pki.issuer.key())));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move { acceptor.accept(listener.accept().await.unwrap().0).await.is_err() });

    let error = client(&Trust::Authorities(vec![own])).send(Request::get(uri)).await.unwrap_err();
    assert!(matches!(error, HttpError::Untrusted { .. }), "{error:?}");
    let why = std::error::Error::source(&error).unwrap().to_string();
    assert!(why.contains("give the server one that the authority signed"), "{why}");
    assert!(why.contains("basicConstraints=CA:FALSE"), "{why}");
    assert!(certificate_error(&error).is_some(), "the verifier's own words stay in the chain");
    assert!(server.await.unwrap(), "no session came about");
}

/// Accepts TLS with HTTP/2 offered, and says what the client opened with.
async fn http2_preface(server: tokio::net::TcpListener, config: rustls::ServerConfig) -> String {
    let (stream, _) = server.accept().await.unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let mut stream = acceptor.accept(stream).await.unwrap();
    let mut preface = [0; 24];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut preface).await.unwrap();
    String::from_utf8_lossy(&preface).into_owned()
}

#[tokio::test]
async fn grpc_channels_take_the_connector_with_tls_and_mapping() {
    let (pki, key) = (Pki::new(), KeyPair::generate().unwrap());
    let certificate = pki.issue(&["192.168.178.41"], &key, ExtendedKeyUsagePurpose::ServerAuth);
    let mut config = serving(certificate, &key);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.79.7.41:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(http2_preface(listener, config));

    let dial = super::DialMap::parse([("192.168.178.0/24", "127.79.7.0/24")]).unwrap();
    let mapped = Connector::new(Options { dial, reach: Reach::LoopbackOnly, ..Options::default() }).unwrap();
    let trust = Trust::Authorities(vec![pki.issuer.der().clone()]);
    let tls = super::tls::https(&mapped, client_config(&trust, None).unwrap(), Versions::Http2);
    // The name in the certificate is the one asked for, not the address dialled.
    let endpoint = tonic::transport::Endpoint::from_shared(format!("https://192.168.178.41:{port}")).unwrap();
    let connecting = endpoint.connect_with_connector(tls);
    let (preface, _) = tokio::join!(server, connecting);
    assert_eq!(preface.unwrap(), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}

#[tokio::test]
async fn a_refused_connection_says_so_through_all_layers() {
    let rehearsal = Connector::new(Options { reach: Reach::LoopbackOnly, ..Options::default() }).unwrap();
    let client = Client::new(&rehearsal, client_config(&Trust::Insecure, None).unwrap(), Versions::Http1);
    let error = client.send(Request::get("https://pve.example:8006/".parse().unwrap())).await.unwrap_err();
    let mut causes = std::iter::successors(Some(&error as &(dyn std::error::Error + 'static)), |error| error.source());
    assert!(causes.any(|cause| matches!(cause.downcast_ref(), Some(ConnectError::OutOfReach { .. }))), "{error:?}");
    assert_eq!(rehearsal.refused(), 1);
}
