//! A TLS server for tests that shows requests byte for byte and answers as scripted.

use std::sync::{Arc, Mutex};

use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::tls::{self, Fingerprint, Trust};
use super::{Connector, Options};

/// A request as it came over the wire.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// Request line and headers.
    pub(crate) head: String,
    /// The body, by its `Content-Length`.
    pub(crate) body: String,
}

impl Heard {
    /// The request line without the HTTP version.
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap().trim_end_matches(" HTTP/1.1")
    }

    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// What the server does about a request.
pub(crate) enum Reaction {
    /// Status line (without the version) and body.
    Answer(&'static str, String),
    /// Extra header lines, too.
    With(&'static str, &'static str, String),
    /// Closes the connection without a word.
    Reset,
    /// Says nothing and keeps the connection.
    Silence,
}

/// `{"data": …}` with status 200.
pub(crate) fn data(json: &str) -> Reaction {
    Reaction::Answer("200 OK", format!("{{\"data\":{json}}}"))
}

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) authority: CertificateDer<'static>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// Whom the server lets in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Callers {
    Anyone,
    Certified,
}

/// How much of a request the server waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Listens {
    ToTheEnd,
    ToTheHead,
}

pub(crate) struct Pki {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub(crate) fn issue(
        &self,
        names: &[&str],
        key: &KeyPair,
        usage: ExtendedKeyUsagePurpose,
    ) -> CertificateDer<'static> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        params.signed_by(key, &self.issuer).unwrap().der().clone()
    }
}

impl Server {
    /// Starts on a free port and answers as soon as the head of a request is there, then closes, body or no body.
    pub(crate) async fn impatient(answer: &'static str) -> Self {
        Self::serve(&Pki::new(), Callers::Anyone, Listens::ToTheHead, move |_, _| {
            Reaction::Answer(answer, String::new())
        })
        .await
    }

    /// Starts on a free port; `react` is given each request and how many came before it.
    pub(crate) async fn start(react: impl Fn(&Heard, usize) -> Reaction + Send + Sync + 'static) -> Self {
        Self::start_with(&Pki::new(), Callers::Anyone, react).await
    }

    pub(crate) async fn start_with(
        pki: &Pki,
        callers: Callers,
        react: impl Fn(&Heard, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        Self::serve(pki, callers, Listens::ToTheEnd, react).await
    }

    async fn serve(
        pki: &Pki,
        callers: Callers,
        listens: Listens,
        react: impl Fn(&Heard, usize) -> Reaction + Send + Sync + 'static,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = pki.issue(&["127.0.0.1"], &key, ExtendedKeyUsagePurpose::ServerAuth);
        let authority = pki.issuer.der().clone();
        let builder =
            ServerConfig::builder_with_provider(tls::provider()).with_safe_default_protocol_versions().unwrap();
        let builder = if callers == Callers::Certified {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(authority.clone()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), tls::provider()).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        } else {
            builder.with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = builder.with_single_cert(vec![certificate.clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let (noted, react) = (heard.clone(), Arc::new(react));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, noted, react) = (acceptor.clone(), noted.clone(), react.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    while let Some(request) = hear(&mut stream, listens).await {
                        let before = {
                            let mut noted = noted.lock().unwrap();
                            noted.push(request.clone());
                            noted.len() - 1
                        };
                        let (status, headers, body) = match react(&request, before) {
                            Reaction::Answer(status, body) => (status, "", body),
                            Reaction::With(status, headers, body) => (status, headers, body),
                            Reaction::Reset => return,
                            Reaction::Silence => std::future::pending().await,
                        };
                        let length = body.len();
                        let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
                        if stream.write_all(answer.as_bytes()).await.is_err() || stream.flush().await.is_err() {
                            return;
                        }
                        if listens == Listens::ToTheHead {
                            return;
                        }
                    }
                });
            }
        });
        Self { address, certificate, authority, heard }
    }

    /// What it heard so far.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// The request lines it heard so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.heard().iter().map(|heard| heard.line().to_owned()).collect()
    }

    pub(crate) fn pinned(&self) -> Trust {
        Trust::Fingerprint(Fingerprint::of(&self.certificate))
    }

    pub(crate) fn uri(&self, path: &str) -> http::Uri {
        format!("https://{}{path}", self.address).parse().unwrap()
    }
}

async fn hear(stream: &mut (impl tokio::io::AsyncRead + Unpin), listens: Listens) -> Option<Heard> {
    let mut lines = Vec::new();
    while !lines.ends_with(b"\r\n\r\n") {
        lines.push(stream.read_u8().await.ok()?);
    }
    let mut heard = Heard { head: String::from_utf8(lines).unwrap(), body: String::new() };
    if listens == Listens::ToTheHead {
        return Some(heard);
    }
    let length = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    heard.body = String::from_utf8(body).unwrap();
    Some(heard)
}

pub(crate) fn connector() -> Connector {
    Connector::new(Options { reach: super::Reach::LoopbackOnly, ..Options::default() }).unwrap()
}
