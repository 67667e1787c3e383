//! TLS, or not: by the first byte of a connection.

use std::time::Duration;

use tokio::net::TcpStream;

/// How long somebody may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// With a TLS record, as of SSL 2 or 3.
    Tls,
    /// With anything else.
    Plain,
}

impl Opening {
    /// Looks at the first byte and leaves it; `None`: none came.
    pub(super) async fn of(stream: &TcpStream) -> Option<Self> {
        let mut first = [0];
        match tokio::time::timeout(PATIENCE, stream.peek(&mut first)).await {
            Ok(Ok(1)) if matches!(first[0], 0x16 | 0x80..) => Some(Self::Tls),
            Ok(Ok(1)) => Some(Self::Plain),
            _ => None,
        }
    }
}
