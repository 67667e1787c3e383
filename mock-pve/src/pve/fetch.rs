//! What a node fetches by itself.
//!
//! Purpose: the `HEAD` and `GET` that `query-url-metadata` and `download-url` stand for. A double never leaves the
//! machine it runs on: only loopback is reached, anything else is as if the node had no route. Must not know: storages.
//! Start at [`Fetch::head`].

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::anybody::Anybody;

/// Redirections that are followed.
const HOPS: usize = 5;
/// How long a server may be silent.
const SILENCE: Duration = Duration::from_secs(30);

/// Why nothing was fetched, as `wget` and LWP tell it.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The URL can't be one.
    #[error("{0}: Unsupported scheme.")]
    Url(String),
    /// Nobody knows the host.
    #[error("Can't connect to {host}:{port} (Name or service not known)")]
    Unknown {
        /// The host, as the URL has it.
        host: String,
        /// The port there.
        port: u16,
    },
    /// There is no way there.
    #[error("Can't connect to {host}:{} ({reason})", .address.port())]
    Connect {
        /// The host, as the URL has it.
        host: String,
        /// Where that is.
        address: SocketAddr,
        /// Why.
        reason: &'static str,
    },
    /// The host's certificate isn't taken.
    #[error("Can't connect to {host}:{port} (certificate verify failed)")]
    Untrusted {
        /// The host, as the URL has it.
        host: String,
        /// The port there.
        port: u16,
    },
    /// The server said no.
    #[error("{status} {reason}")]
    Status {
        /// The code.
        status: u16,
        /// Its phrase.
        reason: String,
    },
    /// The answer broke off.
    #[error("read timeout")]
    Broken,
    /// The file can't be written.
    #[error("{0}")]
    File(#[from] std::io::Error),
}

impl FetchError {
    /// What follows `invalid server response: `.
    pub(super) fn status_line(&self) -> String {
        match self {
            Self::Status { status, reason } => format!("{status} {reason}"),
            Self::Url(_) => "501 Protocol scheme is not supported".to_owned(),
            other => format!("500 {other}"),
        }
    }
}

/// How certificates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Certificates {
    /// Signed by the CA that this world knows: its own.
    Checked,
    /// Anything goes.
    Ignored,
}

/// What a server says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// `Content-Length`
    pub size: Option<u64>,
    /// `Content-Type`, without its parameters.
    pub kind: Option<String>,
    /// The name in `Content-Disposition`.
    pub name: Option<String>,
}

/// What happens on the way to a file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// A URL is asked for.
    Asks(&'a http::Uri),
    /// Nobody knows the host of that name.
    Unknown(&'a str),
    /// There is a way there.
    Connected {
        /// The host, as the URL has it.
        host: &'a str,
        /// Where that is.
        address: SocketAddr,
    },
    /// The host's certificate is nobody's that is known.
    Untrusted(&'a str),
    /// The server has answered.
    Answered {
        /// The code.
        status: u16,
        /// Its phrase.
        reason: &'a str,
    },
    /// What is asked for is elsewhere.
    Moved(&'a str),
    /// The file comes.
    Begins {
        /// How long it will be.
        size: Option<u64>,
        /// What it is.
        kind: Option<&'a str>,
    },
    /// So many bytes of it have come.
    Came(u64),
    /// That was all of it.
    Ended(u64),
}

/// One URL to fetch.
#[derive(Clone, Debug)]
pub(super) struct Fetch {
    /// The URL.
    pub url: String,
    /// What is asked of its certificate.
    pub certificates: Certificates,
    /// The CA of this world.
    pub ca: PathBuf,
}

/// Who hears of the steps.
type Tell<'a> = &'a mut (dyn for<'b> FnMut(Step<'b>) + Send);

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Scheme, host and port of a URL, and what is asked for there.
fn split(url: &http::Uri) -> Option<(bool, String, u16, String)> {
    let tls = match url.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let host = url.host()?.trim_matches(['[', ']']).to_owned();
    let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = url.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    Some((tls, host, port, path))
}

impl Fetch {
    fn tls(&self) -> Result<ClientConfig, FetchError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(std::io::Error::other)?;
        Ok(match self.certificates {
            Certificates::Ignored => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))).with_no_client_auth()
            }
            Certificates::Checked => {
                let mut roots = RootCertStore::empty();
                // Without a CA no certificate is right.
                if let Ok(Ok(ca)) = std::fs::read(&self.ca).map(|pem| CertificateDer::from_pem_slice(&pem)) {
                    let _ = roots.add(ca);
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
        })
    }

    async fn connect(
        &self,
        (tls, host, port): (bool, &str, u16),
        tell: Tell<'_>,
    ) -> Result<Box<dyn Stream>, FetchError> {
        let address: IpAddr = match host {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host.parse().map_err(|_| {
                tell(Step::Unknown(host));
                FetchError::Unknown { host: host.to_owned(), port }
            })?,
        };
        let address = SocketAddr::new(address, port);
        let refuse = |reason| FetchError::Connect { host: host.to_owned(), address, reason };
        if !address.ip().is_loopback() {
            return Err(refuse("No route to host"));
        }
        let connect = TcpStream::connect(address);
        let stream = match tokio::time::timeout(SILENCE, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(_)) => return Err(refuse("Connection refused")),
            Err(_) => return Err(refuse("Connection timed out")),
        };
        tell(Step::Connected { host, address });
        if !tls {
            return Ok(Box::new(stream));
        }
        let untrusted = || FetchError::Untrusted { host: host.to_owned(), port };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| untrusted())?;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(self.tls()?));
        if let Ok(Ok(stream)) = tokio::time::timeout(SILENCE, connector.connect(name, stream)).await {
            return Ok(Box::new(stream));
        }
        tell(Step::Untrusted(host));
        Err(untrusted())
    }

    async fn send(&self, method: &Method, tell: Tell<'_>) -> Result<Response<Incoming>, FetchError> {
        let mut url: http::Uri = self.url.parse().map_err(|_| FetchError::Url(self.url.clone()))?;
        for _ in 0..HOPS {
            let (tls, host, port, path) = split(&url).ok_or_else(|| FetchError::Url(self.url.clone()))?;
            tell(Step::Asks(&url));
            let stream = self.connect((tls, &host, port), tell).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| FetchError::Broken)?;
            // It ends with the answer's body.
            tokio::spawn(connection);
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .header("host", format!("{host}:{port}"))
                .header("user-agent", "Proxmox VE")
                .header("connection", "close")
                .body(Empty::<Bytes>::new())
                .map_err(|_| FetchError::Url(self.url.clone()))?;
            let Ok(Ok(response)) = tokio::time::timeout(SILENCE, sender.send_request(request)).await else {
                return Err(FetchError::Broken);
            };
            let status = response.status();
            let reason = status.canonical_reason().unwrap_or_default();
            tell(Step::Answered { status: status.as_u16(), reason });
            if status == http::StatusCode::OK {
                return Ok(response);
            }
            let next = response.headers().get("location").and_then(|value| value.to_str().ok());
            match next {
                Some(next) if status.is_redirection() => {
                    tell(Step::Moved(next));
                    let whole = if next.starts_with('/') {
                        format!("{}://{host}:{port}{next}", if tls { "https" } else { "http" })
                    } else {
                        next.to_owned()
                    };
                    url = whole.parse().map_err(|_| FetchError::Url(whole.clone()))?;
                }
                _ => {
                    return Err(FetchError::Status { status: status.as_u16(), reason: reason.to_owned() });
                }
            }
        }
        Err(FetchError::Status { status: 310, reason: "Too many redirections".to_owned() })
    }

    /// Asks what there is.
    pub(super) async fn head(&self) -> Result<Described, FetchError> {
        let response = self.send(&Method::HEAD, &mut |_| {}).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let name = header("content-disposition").and_then(|text| {
            let (_, rest) = text.split_once("filename=")?;
            let name = match rest.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next(),
                None => rest.split(';').next(),
            };
            name.map(str::to_owned)
        });
        Ok(Described {
            size: header("content-length").and_then(|text| text.parse().ok()).filter(|size| *size > 0),
            kind: header("content-type").map(|text| text.split(';').next().unwrap_or_default().to_owned()),
            name,
        })
    }

    /// Writes what there is to a file; how many bytes it was.
    pub(super) async fn get(&self, to: &Path, tell: Tell<'_>) -> Result<u64, FetchError> {
        let response = self.send(&Method::GET, tell).await?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let kind = header("content-type").and_then(|text| text.split(';').next());
        tell(Step::Begins { size: header("content-length").and_then(|text| text.parse().ok()), kind });
        let mut body = response.into_body();
        let mut file = tokio::fs::File::create(to).await?;
        let mut size = 0;
        loop {
            match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(None) => break,
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        size += data.len() as u64;
                        file.write_all(data).await?;
                        tell(Step::Came(size));
                    }
                }
                Ok(Some(Err(_))) | Err(_) => return Err(FetchError::Broken),
            }
        }
        file.flush().await?;
        tell(Step::Ended(size));
        Ok(size)
    }
}
