//! One machine's gRPC connection: where to, whom to trust, how long to wait.
//!
//! Purpose: everything the calls share. Must not know: what is called.

use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};
use tower::BoxError;
use tower_service::Service;

use super::TalosError;
use crate::net::tls::{self, TlsError};
use crate::net::{Connector, Identity, Meter, Trust};
use crate::talos::proto::common::Data;

/// The port of the Talos API, in maintenance too.
const PORT: u16 = 50000;

/// The largest message Talos sends or takes, as its own client allows (pkg/machinery/constants).
const MESSAGE_LIMIT: usize = 32 << 20;

/// TCP and TLS together; a machine on its way up drops packets for a while.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// Where a machine's API is: `10.0.0.11`, `10.0.0.11:50000`, `fd00::11`, `[fd00::11]:50000` or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Address {
    pub(super) fn parse(given: &str) -> Result<Self, TalosError> {
        let malformed = || TalosError::Address { given: given.to_owned() };
        if let Ok(ip) = given.parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port: PORT });
        }
        let (host, port) = match given.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| malformed())?),
            None => (given, PORT),
        };
        let host = host.strip_prefix('[').map_or(Some(host), |host| host.strip_suffix(']')).ok_or_else(malformed)?;
        let address = Self { host: host.to_owned(), port };
        let named = !address.host.is_empty() && !address.host.contains('/');
        if named && address.uri().is_ok() { Ok(address) } else { Err(malformed()) }
    }

    fn uri(&self) -> Result<Uri, TalosError> {
        format!("https://{self}").parse().map_err(|_| TalosError::Address { given: self.host.clone() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.parse::<Ipv6Addr>().is_ok() {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What opens a cluster's machines: the Talos CA and a client certificate with its roles.
#[derive(Clone, Debug)]
pub struct Access {
    pub(super) trust: Trust,
    pub(super) identity: Identity,
}

impl Access {
    /// From PEM texts, as a talosconfig's context or a secrets bundle has them; `ca` may hold several certificates.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &SecretString) -> Result<Self, TlsError> {
        let identity = Identity::from_pem(certificate, key.expose_secret().as_bytes())?;
        Ok(Self { trust: Trust::authorities(ca)?, identity })
    }
}

/// A connection that is made when first used and again after it broke. Clones share it.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) address: Arc<str>,
    pub(super) patience: Duration,
    channel: Channel,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident => $client:path;)*) => {
        $($(#[$doc])*
        pub(super) fn $name(&self) -> $client {
            <$client>::new(self.channel.clone())
                .max_decoding_message_size(MESSAGE_LIMIT)
                .max_encoding_message_size(MESSAGE_LIMIT)
        })*
    };
}

impl Link {
    /// A link to `address`; must be called inside of a tokio runtime. Nothing is sent yet.
    pub(super) fn new(
        connector: &Connector,
        address: &Address,
        trust: &Trust,
        identity: Option<Identity>,
        patience: Duration,
    ) -> Result<Self, TalosError> {
        let shown = address.to_string();
        let config = tls::client_config(trust, identity)
            .map_err(|source| TalosError::Setup { address: shown.clone(), source })?;
        let connect =
            Handshake { inner: tls::https(connector, config, tls::Versions::Http2), within: HANDSHAKE_WITHIN };
        let channel = Endpoint::from(address.uri()?)
            .initial_stream_window_size(2 << 20)
            .initial_connection_window_size(4 << 20)
            // A machine that lost power sends no FIN: without pings its streams would hang for ever.
            .http2_keep_alive_interval(Duration::from_secs(10))
            .keep_alive_timeout(Duration::from_secs(5))
            .connect_with_connector_lazy(connect);
        Ok(Self { address: shown.into(), patience, channel })
    }

    /// The same connection with another patience.
    pub(super) fn waiting(&self, patience: Duration) -> Self {
        Self { patience, ..self.clone() }
    }

    clients! {
        machine => crate::talos::proto::machine::machine_service_client::MachineServiceClient<Channel>;
        lifecycle => crate::talos::proto::machine::lifecycle_service_client::LifecycleServiceClient<Channel>;
        images => crate::talos::proto::machine::image_service_client::ImageServiceClient<Channel>;
        cluster => crate::talos::proto::cluster::cluster_service_client::ClusterServiceClient<Channel>;
        storage => crate::talos::proto::storage::storage_service_client::StorageServiceClient<Channel>;
        state => crate::talos::proto::cosi::resource::state_client::StateClient<Channel>;
    }

    /// Waits for the answer of a call, at most the link's patience.
    pub(super) async fn answer<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, TalosError> {
        tracing::trace!(address = %self.address, call, "talos call");
        match timeout(self.patience, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.error(call, status)),
            Err(_) => Err(self.silence(call)),
        }
    }

    /// As [`Link::answer`], for the methods that wrap their one reply in a list: exactly one is expected of a machine
    /// that is asked directly.
    pub(super) fn only<T>(&self, call: &'static str, messages: Vec<T>) -> Result<T, TalosError> {
        let mut messages = messages.into_iter();
        match (messages.next(), messages.next()) {
            (Some(message), None) => Ok(message),
            (None, _) => Err(self.answer_is(call, "nothing")),
            (Some(_), Some(_)) => Err(self.answer_is(call, "several messages for one machine")),
        }
    }

    pub(super) fn error(&self, call: &'static str, status: Status) -> TalosError {
        let error = TalosError::of(&self.address, call, status);
        tracing::debug!(address = %self.address, call, %error, "talos call failed");
        error
    }

    pub(super) fn silence(&self, call: &'static str) -> TalosError {
        TalosError::NoAnswer { address: self.address.to_string(), call, after: self.patience }
    }

    pub(super) fn answer_is(&self, call: &'static str, what: &'static str) -> TalosError {
        TalosError::Answer { address: self.address.to_string(), call, what }
    }

    /// Opens a stream of bytes.
    pub(super) async fn download(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<Response<Streaming<Data>>, Status>>,
    ) -> Result<Download, TalosError> {
        let stream = self.answer(call, answer).await?;
        Ok(Download { link: self.clone(), call, stream })
    }
}

/// Bytes a machine sends, chunk by chunk. That it ended well does not prove it is whole: Talos ends a stream with OK even
/// when reading broke on its side, so what matters must carry its own proof (an etcd snapshot does).
pub struct Download {
    link: Link,
    call: &'static str,
    stream: Streaming<Data>,
}

impl Download {
    /// The next chunk, `None` at the end. Waits at most the machine's patience for each.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, TalosError> {
        match timeout(self.link.patience, self.stream.message()).await {
            Ok(Ok(data)) => Ok(data.map(|data| data.bytes.into())),
            Ok(Err(status)) => Err(self.link.error(self.call, status)),
            Err(_) => Err(self.link.silence(self.call)),
        }
    }

    /// All of it, if it has at most `limit` bytes.
    pub(super) async fn whole(mut self, limit: usize) -> Result<Vec<u8>, TalosError> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk().await? {
            if whole.len() + chunk.len() > limit {
                return Err(self.link.answer_is(self.call, "more than it should have"));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }
}

impl Download {
    /// Writes all of it to `sink`, counting; the number of bytes.
    pub async fn pour(
        mut self,
        meter: &dyn Meter,
        mut sink: impl AsyncFnMut(Bytes) -> std::io::Result<()>,
    ) -> Result<u64, PourError> {
        let mut total = 0;
        while let Some(chunk) = self.chunk().await? {
            total += chunk.len() as u64;
            meter.add(chunk.len() as u64);
            sink(chunk).await.map_err(PourError::Sink)?;
        }
        Ok(total)
    }
}

/// Which side of a [`Download::pour`] failed.
#[derive(Debug, thiserror::Error)]
pub enum PourError {
    /// The machine's.
    #[error(transparent)]
    Talos(#[from] TalosError),
    /// This side.
    #[error("could not write what was received")]
    Sink(#[source] std::io::Error),
}

/// A connector whose connections must stand in time, TLS included.
#[derive(Clone)]
struct Handshake<C> {
    inner: C,
    within: Duration,
}

impl<C> Service<Uri> for Handshake<C>
where
    C: Service<Uri, Error = BoxError> + Send,
    C::Future: Send + 'static,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<C::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (opening, within) = (self.inner.call(uri), self.within);
        Box::pin(async move {
            timeout(within, opening)
                .await
                .unwrap_or_else(|_| Err(format!("no TLS session within {} s", within.as_secs()).into()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_take_the_usual_port_unless_they_name_one() {
        for (given, shown) in [
            ("10.0.0.11", "10.0.0.11:50000"),
            ("10.0.0.11:50001", "10.0.0.11:50001"),
            ("fd00::11", "[fd00::11]:50000"),
            ("[fd00::11]:50001", "[fd00::11]:50001"),
            ("cp-01.lan", "cp-01.lan:50000"),
        ] {
            assert_eq!(Address::parse(given).unwrap().to_string(), shown);
        }
        for wrong in ["", "10.0.0.11:", "10.0.0.11:port", "[fd00::11", "https://10.0.0.11", "a b"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }
}
