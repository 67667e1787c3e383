//! Looking at a mock from outside: over HTTP while it runs, else in its state folder.
//!
//! Purpose: the document behind `mock-pve inspect`. Must not know: how it is printed. Start at [`document`].

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use serde_json::Value;

use super::ready::Ready;
use super::view::{self, Depth};
use crate::pve::anybody::Anybody;
use crate::world::state::State;

/// What is looked at.
#[derive(Clone, Copy, Debug)]
pub enum Of<'a> {
    /// A state folder, whether somebody serves it or not.
    Folder(&'a Path),
    /// A mock that runs on this computer.
    Url(&'a str),
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The folder holds no world.
    #[error("there is no world in {}", path.display())]
    Folder {
        /// The file that was looked for.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The state can't be understood.
    #[error("the state in {} can't be read", path.display())]
    Saved {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The URL isn't one of a mock on this computer.
    #[error("{0} is not the URL of a mock on this computer, such as https://127.0.0.1:8006")]
    Url(String),
    /// Nobody answers.
    #[error("no mock answers at {url}")]
    Silent {
        /// Where.
        url: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The world.
pub fn document(of: Of<'_>) -> Result<Value, InspectError> {
    match of {
        Of::Url(url) => over_http(url),
        Of::Folder(dir) => {
            let ready = std::fs::read(dir.join("ready.json")).ok();
            let ready: Option<Ready> = ready.and_then(|text| serde_json::from_slice(&text).ok());
            // Whoever serves the folder knows more than it holds: machines and etcd.
            match ready.map(|ready| over_http(&ready.pve)) {
                Some(Ok(document)) => Ok(document),
                _ => saved(dir),
            }
        }
    }
}

fn saved(dir: &Path) -> Result<Value, InspectError> {
    let path = dir.join("state.json");
    let text = std::fs::read(&path).map_err(|source| InspectError::Folder { path: path.clone(), source })?;
    let state: State = serde_json::from_slice(&text).map_err(|source| InspectError::Saved { path, source })?;
    Ok(view::document(&state, dir, Depth::Everything))
}

fn over_http(url: &str) -> Result<Value, InspectError> {
    let wrong = || InspectError::Url(url.to_owned());
    let authority = url.strip_prefix("https://").ok_or_else(wrong)?.trim_end_matches('/');
    let address = authority.to_socket_addrs().ok().and_then(|mut all| all.find(|one| one.ip().is_loopback()));
    let address = address.ok_or_else(wrong)?;
    let silent = |source| InspectError::Silent { url: url.to_owned(), source };
    let text = get(address, authority).map_err(silent)?;
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(body).map_err(|error| silent(std::io::Error::other(error)))
}

/// One request; the certificate is nobody's who could be somebody else: the address is loopback.
fn get(address: std::net::SocketAddr, host: &str) -> std::io::Result<String> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    let name = ServerName::IpAddress(address.ip().into());
    let connection = ClientConnection::new(Arc::new(config), name).map_err(std::io::Error::other)?;
    let patience = Duration::from_secs(10);
    let socket = TcpStream::connect_timeout(&address, patience)?;
    socket.set_read_timeout(Some(patience))?;
    let mut stream = StreamOwned::new(connection, socket);
    write!(stream, "GET /mock/everything.json HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        // A server that hangs up without a word more has said all.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !bytes.is_empty() => {}
        Err(error) => return Err(error),
    }
    String::from_utf8(bytes).map_err(std::io::Error::other)
}
