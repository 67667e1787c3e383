//! Requests that go on as a WebSocket.
//!
//! Purpose: the original's handshake (Proxmox VE 8.4, PVE/APIServer/AnyEvent.pm, `websocket_proxy`), and bytes to and from
//! whoever is behind it. Must not know: who that is. Start at [`Upgrade::asked`].

use ::http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
};
use ::http::header::{HeaderName, UPGRADE};
use ::http::{HeaderValue, Method as Verb, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::super::reply::Reply;

/// What is signed together with a client's key (RFC 6455 §1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The longest message.
const LONGEST: usize = 128 * 1024;

/// A client's wish to go on with another protocol.
pub(super) struct Upgrade {
    protocol: String,
    version: String,
    key: String,
    /// The protocol inside of it, which the client hears again.
    inner: Option<HeaderValue>,
    connection: OnUpgrade,
}

impl Upgrade {
    /// What a request wishes. Only addresses that end so are asked.
    pub(super) fn asked(request: &mut hyper::Request<Incoming>) -> Option<Self> {
        if request.method() != Verb::GET || !request.uri().path().ends_with("websocket") {
            return None;
        }
        let text = |name: &HeaderName| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let protocol = text(&UPGRADE).to_lowercase();
        if protocol.is_empty() {
            return None;
        }
        let (version, key) = (text(&SEC_WEBSOCKET_VERSION), text(&SEC_WEBSOCKET_KEY));
        let inner = request.headers().get(&SEC_WEBSOCKET_PROTOCOL).cloned();
        Some(Self { protocol, version, key, inner, connection: hyper::upgrade::on(request) })
    }

    /// What is wrong with it.
    pub(super) fn refused(&self) -> Option<Reply> {
        let text = if self.protocol != "websocket" {
            format!("unable to upgrade to protocol '{}'", self.protocol)
        } else if self.version != "13" {
            format!("unsupported websocket-version '{}'", self.version)
        } else if self.key.is_empty() {
            "missing websocket-key".to_owned()
        } else {
            return None;
        };
        Some(Reply::text(501, &format!("{text}\n")))
    }

    /// Goes on, with the other end of `behind`.
    pub(super) fn follow(self, behind: DuplexStream) -> Response<Full<Bytes>> {
        let accept = STANDARD.encode(Sha1::digest(format!("{}{MAGIC}", self.key)));
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Ok(accept) = HeaderValue::from_str(&accept) {
            headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        }
        if let Some(inner) = self.inner {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, inner);
        }
        tokio::spawn(pass(self.connection, behind));
        response
    }
}

/// Passes bytes on until one side has enough.
async fn pass(connection: OnUpgrade, behind: DuplexStream) {
    let Ok(connection) = connection.await else { return };
    let bounds = WebSocketConfig::default().max_message_size(Some(LONGEST)).max_frame_size(Some(LONGEST));
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(bounds)).await;
    let (mut to, mut from) = socket.split();
    let (mut read, mut write) = tokio::io::split(behind);
    let inwards = async {
        while let Some(Ok(message)) = from.next().await {
            let bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(text) => text.into(),
                Message::Close(_) => return,
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => continue,
            };
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let outwards = async {
        let mut chunk = vec![0; LONGEST];
        while let Ok(read @ 1..) = read.read(&mut chunk).await {
            if to.send(Message::binary(chunk[..read].to_vec())).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = inwards => {}
        () = outwards => {}
    }
    // Whoever is gone needn't hear that it is over.
    let _ = to.close().await;
}
