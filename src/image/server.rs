//! A small HTTPS server for tests, on loopback.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::TcpListener;

use crate::net::http::Client;
use crate::net::tls::{self, Trust, Versions};
use crate::net::{Connector, connector};

/// What was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: Method,
    /// With its query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// A body that can break off before its announced end.
pub(super) struct Reply {
    left: Bytes,
    announced: Option<u64>,
    breaks: bool,
    flush: bool,
}

impl Reply {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        let left = bytes.into();
        Self { announced: Some(left.len() as u64), left, breaks: false, flush: false }
    }

    /// Announces all, sends `sent` bytes, breaks the connection.
    pub(super) fn cut(bytes: &Bytes, sent: usize) -> Self {
        Self { announced: Some(bytes.len() as u64), left: bytes.slice(..sent), breaks: sent < bytes.len(), flush: true }
    }

    /// Chunked, without a length.
    pub(super) fn unannounced(bytes: impl Into<Bytes>) -> Self {
        Self { left: bytes.into(), announced: None, breaks: false, flush: false }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if !self.left.is_empty() {
            let next = self.left.len().min(10_000);
            return Poll::Ready(Some(Ok(Frame::data(self.left.split_to(next)))));
        }
        if std::mem::take(&mut self.flush) {
            // Lets the server send what it has buffered, before it drops the connection.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.breaks.then(|| Err(std::io::Error::other("cut"))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// A running server; it ends with the test's runtime.
pub(super) struct Server {
    pub(super) url: String,
    pub(super) client: Client,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers every request with what `reply` says.
    pub(super) async fn start(reply: impl Fn(&Asked) -> Response<Reply> + Send + Sync + 'static) -> Self {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let certificate = signed.cert.der().clone();
        let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, reply) = (asked.clone(), Arc::new(reply));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log, reply) = (acceptor.clone(), log.clone(), reply.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (log, reply) = (log.clone(), reply.clone());
                        async move {
                            let (head, body) = request.into_parts();
                            let asked = Asked {
                                method: head.method,
                                path: head.uri.to_string(),
                                headers: head.headers,
                                body: body.collect().await.unwrap().to_bytes(),
                            };
                            log.lock().unwrap().push(asked.clone());
                            Ok::<_, Infallible>(reply(&asked))
                        }
                    });
                    // Replies that break off on purpose end in an error here.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        let connector = Connector::new(connector::Options::default()).unwrap();
        let trust = tls::client_config(&Trust::Authorities(vec![certificate]), None).unwrap();
        Self { url, client: Client::new(&connector, trust, Versions::Http1), asked }
    }

    /// All requests so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}
