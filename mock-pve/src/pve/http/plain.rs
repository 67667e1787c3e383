//! What is said without TLS.
//!
//! Purpose: whoever speaks plain HTTP to the port is sent to the same place behind TLS (pve-http-server,
//! PVE/APIServer/AnyEvent.pm, `ensure_tls_connection`), and the answers that need no request. Must not know: what may be
//! asked. Start at [`Api::redirect`].

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

use super::{Api, IDLE};
use crate::pve::screen::{Refused, Screened, screen};

/// Methods that the original's server knows.
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];

/// The bytes of an answer after which the connection ends. The text is the reason and the body.
pub(super) fn last_word(refused: &Refused, more: &str) -> String {
    let Refused { version, status, text } = refused;
    let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
    format!(
        "{version} {status} {text}\r\nCache-Control: max-age=0\r\nConnection: close\r\nDate: {now}\r\nPragma: no-cache\r\n\
         Server: pve-api-daemon/3.0\r\nContent-Length: {}\r\nExpires: {now}\r\n{more}\r\n{text}",
        text.len()
    )
}

/// What plain HTTP is answered; `None`: nothing, as without the name that it could be sent to.
fn answer(head: &str) -> Option<String> {
    let mut lines = head.split('\n').map(|line| line.trim_end_matches('\r')).skip_while(|line| line.is_empty());
    let mut parts = lines.next()?.split(' ');
    let (method, target, version) = (parts.next()?, parts.next()?, parts.next()?);
    let refused = |status: u16, text: &str| Refused { version: version.to_owned(), status, text: text.to_owned() };
    if !METHODS.contains(&method) {
        return Some(last_word(&refused(501, &format!("method '{method}' not available")), ""));
    }
    let header = |name: &str| {
        let named = |line: &str| {
            let (known, value) = line.split_once(':')?;
            known.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        lines.clone().find_map(named).filter(|value| !value.is_empty())
    };
    match header("Transfer-Encoding") {
        Some(coding) if coding.eq_ignore_ascii_case("chunked") => {
            return Some(last_word(&refused(501, "chunked transfer encoding not supported"), ""));
        }
        Some(coding) => return Some(last_word(&refused(501, &format!("Unknown transfer encoding '{coding}'")), "")),
        None => {}
    }
    let host = header("Host")?;
    let moved = if method == "GET" { refused(301, "Moved Permanently") } else { refused(308, "Permanent Redirect") };
    Some(last_word(&moved, &format!("Location: https://{host}{target}\r\n")))
}

impl Api {
    /// Answers a connection without TLS.
    pub async fn redirect<S: AsyncRead + AsyncWrite + Unpin>(&self, mut stream: S) {
        let said = match screen(&mut stream, IDLE).await {
            Screened::Pass(head) => answer(&String::from_utf8_lossy(&head)),
            Screened::Refuse(refused) => Some(last_word(&refused, "")),
            Screened::Nothing => None,
        };
        // Who doesn't listen needn't be told.
        let _ = stream.write_all(said.unwrap_or_default().as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}
