//! The one connector under all clients.
//!
//! Purpose: every outgoing connection of this program is opened here, so that `dial`, the loopback rule of rehearsals and
//! the proxy can't be forgotten by anyone. It is a cloneable `Service<Uri>`, so that hyper, tonic and kube take it as it is.
//! Must not know: TLS (that is wrapped around it), who calls, what is said.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::Uri;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tower_service::Service;

use super::dial::DialMap;

/// What TCP connections come out as: hyper's own read and write traits around tokio's stream.
pub type Io = TokioIo<TcpStream>;

/// How far connections may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Anywhere.
    #[default]
    Anywhere,
    /// Loopback only, after mapping; names other than `localhost` aren't even resolved. For rehearsals.
    LoopbackOnly,
}

/// The proxy for HTTPS, as the ecosystem's variables spell it. Loopback and mapped addresses never go through it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// `HTTPS_PROXY`: `http://[user:password@]host:port`.
    pub https: String,
    /// `NO_PROXY`: names, domains, addresses and networks, comma-separated; `*` for all.
    pub no: String,
}

impl std::fmt::Debug for Proxy {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("no", &self.no).finish_non_exhaustive()
    }
}

/// What a [`Connector`] goes by.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where connections really go.
    pub dial: DialMap,
    /// How far they may go.
    pub reach: Reach,
    /// The way out, where there is one.
    pub proxy: Option<Proxy>,
    /// How long one address may take to answer.
    pub connect_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { dial: DialMap::default(), reach: Reach::default(), proxy: None, connect_within: Duration::from_secs(10) }
    }
}

/// Why no connection came about. Nothing was sent in any of these cases.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URI names no host.
    #[error("'{uri}' names no host")]
    NoHost {
        /// The URI.
        uri: String,
    },
    /// The name has no address.
    #[error("could not resolve {host}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// A rehearsal asked for something that isn't on this machine.
    #[error("refused to connect to {target}: this is a rehearsal, and it isn't on loopback")]
    OutOfReach {
        /// Host or address, with the port.
        target: String,
    },
    /// Nobody accepted.
    #[error("could not connect to {target}")]
    Connect {
        /// Host and port, with the address that was dialled where it differs.
        target: String,
        /// What the system said of the last address tried.
        #[source]
        source: io::Error,
    },
    /// Nobody answered.
    #[error("no connection to {target} within {} s", after.as_secs_f32())]
    TimedOut {
        /// Host and port, with the address that was dialled where it differs.
        target: String,
        /// How long it was tried.
        after: Duration,
    },
    /// The proxy's URL can't be used.
    #[error("the proxy must be given as http://host:port")]
    ProxyUrl,
    /// The proxy would not.
    #[error("could not reach {target} through the proxy {proxy}")]
    Proxy {
        /// Host and port.
        target: String,
        /// The proxy's host and port, without credentials.
        proxy: String,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

struct Inner {
    options: Options,
    matcher: Option<Matcher>,
    refused: AtomicU64,
}

/// Opens TCP connections by the rules of its [`Options`]. Clones share rules and counters.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("reach", &self.inner.options.reach).finish_non_exhaustive()
    }
}

impl Connector {
    /// A connector that goes by `options`.
    pub fn new(options: Options) -> Result<Self, ConnectError> {
        let matcher = match &options.proxy {
            None => None,
            Some(proxy) => {
                let scheme = proxy.https.split_once("://").map_or("http", |(scheme, _)| scheme);
                if scheme != "http" {
                    return Err(ConnectError::ProxyUrl);
                }
                Some(Matcher::builder().https(proxy.https.as_str()).no(proxy.no.as_str()).build())
            }
        };
        Ok(Self { inner: Arc::new(Inner { options, matcher, refused: AtomicU64::new(0) }) })
    }

    /// How many connections the loopback rule refused.
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// How far connections may go.
    pub fn reach(&self) -> Reach {
        self.inner.options.reach
    }

    /// Opens a plain TCP connection, never through a proxy.
    pub async fn tcp(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let addresses = self.addresses(host, port).await?;
        self.first(host, port, &addresses).await
    }

    /// Opens the connection for a URI, through the proxy where it applies.
    async fn open(&self, uri: &Uri) -> Result<Io, ConnectError> {
        let host = uri.host().ok_or_else(|| ConnectError::NoHost { uri: uri.to_string() })?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        if let Some(way) = self.proxy_for(uri, host) {
            return self.through(&way, uri, host, port).await;
        }
        self.tcp(host, port).await.map(TokioIo::new)
    }

    fn proxy_for(&self, uri: &Uri, host: &str) -> Option<hyper_util::client::proxy::matcher::Intercept> {
        let matcher = self.inner.matcher.as_ref()?;
        if self.inner.options.reach == Reach::LoopbackOnly || is_localhost(host) {
            return None;
        }
        if let Ok(address) = host.parse::<IpAddr>()
            && (address.is_loopback() || self.inner.options.dial.mapped(address).is_some())
        {
            return None;
        }
        matcher.intercept(uri)
    }

    async fn through(
        &self,
        way: &hyper_util::client::proxy::matcher::Intercept,
        uri: &Uri,
        host: &str,
        port: u16,
    ) -> Result<Io, ConnectError> {
        let proxy = way.uri();
        let shown = proxy
            .authority()
            .map_or_else(String::new, |authority| authority.as_str().rsplit('@').next().unwrap_or_default().to_owned());
        let mut tunnel = Tunnel::new(proxy.clone(), Direct(self.clone()));
        if let Some(auth) = way.basic_auth() {
            tunnel = tunnel.with_auth(auth.clone());
        }
        let target = format!("{host}:{port}");
        let within = self.inner.options.connect_within * 2;
        match timeout(within, tunnel.call(uri.clone())).await {
            Ok(Ok(io)) => Ok(io),
            Ok(Err(error)) => Err(ConnectError::Proxy { target, proxy: shown, source: Box::new(error) }),
            Err(_) => Err(ConnectError::TimedOut { target, after: within }),
        }
    }

    /// The addresses behind a name, mapped, and all within reach.
    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
        let options = &self.inner.options;
        let found: Vec<IpAddr> = if let Ok(address) = host.parse() {
            vec![address]
        } else if is_localhost(host) {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else if options.reach == Reach::LoopbackOnly {
            return Err(self.refuse(format!("{host}:{port}")));
        } else {
            let resolved = timeout(options.connect_within, lookup_host((host, port)))
                .await
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the name service")));
            let resolved = resolved.map_err(|source| ConnectError::Resolve { host: host.to_owned(), source })?;
            resolved.map(|address| address.ip()).collect()
        };
        let targets: Vec<SocketAddr> =
            found.into_iter().map(|address| SocketAddr::new(options.dial.target(address), port)).collect();
        if options.reach == Reach::LoopbackOnly
            && let Some(outside) = targets.iter().find(|target| !target.ip().to_canonical().is_loopback())
        {
            return Err(self.refuse(outside.to_string()));
        }
        Ok(targets)
    }

    fn refuse(&self, target: String) -> ConnectError {
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
        ConnectError::OutOfReach { target }
    }

    async fn first(&self, host: &str, port: u16, addresses: &[SocketAddr]) -> Result<TcpStream, ConnectError> {
        let within = self.inner.options.connect_within;
        let asked = format!("{host}:{port}");
        let mut last = ConnectError::Resolve {
            host: host.to_owned(),
            source: io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
        };
        for address in addresses {
            let target =
                if asked == address.to_string() { asked.clone() } else { format!("{asked} (dialled as {address})") };
            match timeout(within, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Small requests and answers: Nagle would add 40 ms to each.
                    if let Err(source) = stream.set_nodelay(true) {
                        last = ConnectError::Connect { target, source };
                        continue;
                    }
                    return Ok(stream);
                }
                Ok(Err(source)) => last = ConnectError::Connect { target, source },
                Err(_) => last = ConnectError::TimedOut { target, after: within },
            }
        }
        Err(last)
    }
}

/// `localhost` is this machine by definition (RFC 6761), whatever the resolver thinks.
fn is_localhost(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
}

type Opening = Pin<Box<dyn Future<Output = Result<Io, ConnectError>> + Send>>;

impl Service<Uri> for Connector {
    type Response = Io;
    type Error = ConnectError;
    type Future = Opening;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Opening {
        let connector = self.clone();
        Box::pin(async move { connector.open(&uri).await })
    }
}

/// The way to the proxy itself.
#[derive(Clone)]
struct Direct(Connector);

impl Service<Uri> for Direct {
    type Response = Io;
    type Error = ConnectError;
    type Future = Opening;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Opening {
        let connector = self.0.clone();
        Box::pin(async move {
            let host = uri.host().ok_or(ConnectError::ProxyUrl)?;
            let port = uri.port_u16().unwrap_or(80);
            connector.tcp(host.trim_start_matches('[').trim_end_matches(']'), port).await.map(TokioIo::new)
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn connector(options: Options) -> Connector {
        Connector::new(options).unwrap()
    }

    #[tokio::test]
    async fn a_rehearsal_reaches_loopback_only_and_names_what_it_refused() {
        let rehearsal = connector(Options { reach: Reach::LoopbackOnly, ..Options::default() });
        for (host, named) in [("192.0.2.7", "192.0.2.7:8006"), ("pve.example", "pve.example:8006")] {
            let error = rehearsal.tcp(host, 8006).await.unwrap_err();
            assert!(matches!(&error, ConnectError::OutOfReach { target } if target == named), "{error}");
        }
        assert_eq!(rehearsal.refused(), 2);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        rehearsal.tcp("localhost", listener.local_addr().unwrap().port()).await.unwrap();
        assert_eq!(rehearsal.refused(), 2);
    }

    #[tokio::test]
    async fn a_mapped_address_is_dialled_elsewhere_and_counts_as_where_it_goes() {
        let listener = TcpListener::bind("127.77.7.41:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dial = DialMap::parse([("192.168.178.0/24", "127.77.7.0/24")]).unwrap();
        let mapped = connector(Options { dial, reach: Reach::LoopbackOnly, ..Options::default() });
        let uri: Uri = format!("https://192.168.178.41:{port}").parse().unwrap();
        let io = mapped.clone().call(uri).await.unwrap();
        assert_eq!(io.inner().peer_addr().unwrap().to_string(), format!("127.77.7.41:{port}"));
        assert!(io.inner().nodelay().unwrap());
    }

    #[tokio::test]
    async fn the_proxy_is_used_for_strangers_and_never_for_loopback_or_mapped_addresses() {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dial = DialMap::parse([("198.51.100.0/24", "127.78.7.0/24")]).unwrap();
        let way = Proxy {
            https: format!("http://user:pw@{}", proxy.local_addr().unwrap()),
            no: "192.0.2.0/24,.lan".to_owned(),
        };
        let mut out = connector(Options { dial, proxy: Some(way), ..Options::default() });
        let accept = tokio::spawn(async move {
            let (mut peer, _) = proxy.accept().await.unwrap();
            let mut seen = vec![0; 1024];
            let got = peer.read(&mut seen).await.unwrap();
            peer.write_all(b"HTTP/1.1 200 fine\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&seen[..got]).into_owned()
        });
        out.call("https://factory.example/x".parse().unwrap()).await.unwrap();
        let asked = accept.await.unwrap();
        assert!(asked.starts_with("CONNECT factory.example:443 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.contains("Proxy-Authorization: Basic "), "{asked}");
        for direct in ["https://127.0.0.1:1/", "https://localhost:1/", "https://198.51.100.4:1/", "https://[::1]:1/"] {
            let uri: Uri = direct.parse().unwrap();
            assert!(out.proxy_for(&uri, uri.host().unwrap().trim_matches(['[', ']'])).is_none(), "{direct}");
        }
        for (no, host) in [("https://192.0.2.9/", "192.0.2.9"), ("https://pve.lan/", "pve.lan")] {
            assert!(out.proxy_for(&no.parse().unwrap(), host).is_none(), "{no}");
        }
    }

    #[test]
    fn only_plain_http_proxies_are_taken() {
        let proxy = Some(Proxy { https: "socks5://127.0.0.1:1".to_owned(), no: String::new() });
        assert!(matches!(Connector::new(Options { proxy, ..Options::default() }), Err(ConnectError::ProxyUrl)));
    }
}
