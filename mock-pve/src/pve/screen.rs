//! The first look at a connection.
//!
//! Purpose: request lines and headers that the original's own reader refuses, before a stricter one sees them (Proxmox VE
//! 8.4, PVE/APIServer/AnyEvent.pm, `push_request_header`). Must not know: what is asked. Start at [`screen`].

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Header lines, and bytes of all of them, at which the original stops reading.
const LINES: usize = 64;
const SIZE: usize = 8 * 1024;

/// A refusal of what isn't a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// `HTTP/1.0` until a request says better.
    pub(super) version: String,
    /// Status code.
    pub(super) status: u16,
    /// Reason and body.
    pub(super) text: String,
}

/// What came first on a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Screened {
    /// A request, as far as it was read.
    Pass(Vec<u8>),
    /// Something that is refused.
    Refuse(Refused),
    /// Nothing that anybody would answer.
    Nothing,
}

/// `METHOD target HTTP/x.y`: the last of them. `Err`: status and text.
fn request_line(line: &str) -> Result<&str, (u16, String)> {
    let bad = || (400, "bad request".to_owned());
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = parts.as_slice() else { return Err(bad()) };
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    match version.strip_prefix("HTTP/").and_then(|version| version.split_once('.')) {
        Some((major, minor)) if digits(major) && digits(minor) && !method.is_empty() && !target.is_empty() => {
            if major != "1" {
                return Err((506, format!("http protocol version {major}.{minor} not supported")));
            }
            // Part of it could be taken for the name of another server.
            match target.split('/').next() {
                Some(start) if start.contains('@') => Err((400, "invalid url".to_owned())),
                _ => Ok(version),
            }
        }
        _ => Err(bad()),
    }
}

/// A name and a colon, or the continuation of one.
fn header_line(line: &str) -> bool {
    let name = line.split(':').next().unwrap_or_default().trim_end();
    line.starts_with([' ', '\t']) || (line.contains(':') && !name.is_empty() && !name.contains(char::is_whitespace))
}

/// What is known once `bytes` came; `None`: more is needed.
fn judge(bytes: &[u8]) -> Option<Screened> {
    let text = String::from_utf8_lossy(bytes);
    let mut complete: Vec<&str> = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    // What follows the last line end isn't a line yet.
    complete.pop();
    let mut lines = complete.into_iter().skip_while(|line| line.is_empty());
    let Some(first) = lines.next() else { return (bytes.len() >= SIZE).then_some(Screened::Nothing) };
    let version = match request_line(first) {
        Ok(version) => version,
        Err((status, text)) => {
            return Some(Screened::Refuse(Refused { version: "HTTP/1.0".to_owned(), status, text }));
        }
    };
    let (mut count, mut size) = (0, 0);
    for line in lines {
        count += 1;
        size += line.len();
        if count >= LINES || size >= SIZE {
            return Some(Screened::Nothing);
        }
        if line.is_empty() {
            return Some(Screened::Pass(bytes.to_vec()));
        }
        if !header_line(line) {
            let text = "unable to parse request header".to_owned();
            return Some(Screened::Refuse(Refused { version: version.to_owned(), status: 506, text }));
        }
    }
    (bytes.len() >= 2 * SIZE).then_some(Screened::Nothing)
}

/// Reads the first request of a connection up to its body, at most that long.
pub(super) async fn screen<S: AsyncRead + Unpin>(stream: &mut S, patience: Duration) -> Screened {
    let mut bytes = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        match tokio::time::timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(read)) if read > 0 => bytes.extend_from_slice(&buffer[..read]),
            _ => return Screened::Nothing,
        }
        if let Some(judged) = judge(&bytes) {
            return judged;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_original_cannot_read_is_refused_in_its_words() {
        let refused = |text: &str| match judge(text.as_bytes()) {
            Some(Screened::Refuse(Refused { version, status, text })) => format!("{version} {status} {text}"),
            other => format!("{other:?}"),
        };
        assert_eq!(refused("nonsense\r\n"), "HTTP/1.0 400 bad request");
        assert_eq!(refused("GET  / HTTP/1.1\r\n"), "HTTP/1.0 400 bad request");
        assert_eq!(refused("PRI * HTTP/2.0\r\n\r\nSM"), "HTTP/1.0 506 http protocol version 2.0 not supported");
        assert_eq!(refused("GET a@b/c HTTP/1.1\r\n"), "HTTP/1.0 400 invalid url");
        assert_eq!(refused("GET / HTTP/1.1\r\nno colon\r\n"), "HTTP/1.1 506 unable to parse request header");
        let fine = "GET / HTTP/1.1\r\nHost: x\r\n continued\r\n\r\nbody";
        assert_eq!(judge(fine.as_bytes()), Some(Screened::Pass(fine.as_bytes().to_vec())));
        assert_eq!(judge(b"GET / HTTP/1.1\r\nHost: x\r\n"), None);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(70));
        assert_eq!(judge(many.as_bytes()), Some(Screened::Nothing));
        let long = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(9000));
        assert_eq!(judge(long.as_bytes()), Some(Screened::Nothing));
        assert_eq!(judge(&vec![0xff; 20_000]), Some(Screened::Nothing));
    }
}
