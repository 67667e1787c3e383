//! From a TCP connection to a session with the right host, as the right user. Blocking.

use std::io;
use std::net::TcpStream;
use std::path::Path;

use ssh2::{BlockDirections, MethodType, Session};

use super::Login;
use super::error::SshError;
use super::host_key::{HostKey, Known};

/// How long any one answer may take while a session is set up, a command started or ended; milliseconds.
pub(super) const ANSWER_WITHIN: u32 = 30_000;

/// Seconds between two signs of life.
pub(super) const KEEPALIVE: u32 = 15;

/// AES-GCM first: libssh2 moves about twice as much with it as with its default (487 against 245 MB/s on one core).
const CIPHERS: &str =
    "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes128-ctr,aes256-ctr";

/// Sets the session up, compares the host's key, logs in.
pub(super) fn open(tcp: TcpStream, login: &Login) -> Result<Session, SshError> {
    let failed = |source| SshError::Handshake { host: login.place(), source };
    let known = Known::of(login)?;
    let mut session = Session::new().map_err(failed)?;
    session.set_timeout(ANSWER_WITHIN);
    session.set_tcp_stream(tcp);
    session.method_pref(MethodType::HostKey, &known.preferences()).map_err(failed)?;
    for direction in [MethodType::CryptCs, MethodType::CryptSc] {
        session.method_pref(direction, CIPHERS).map_err(failed)?;
    }
    session.handshake().map_err(failed)?;
    let shown = session.host_key().and_then(|(blob, _)| HostKey::from_blob(blob));
    let shown = shown.ok_or_else(|| failed(ssh2::Error::new(ssh2::ErrorCode::Session(0), "the host shows no key")))?;
    known.judge(login, &shown)?;
    log_in(&session, login)?;
    session.set_keepalive(true, KEEPALIVE);
    tracing::debug!(
        host = login.place(),
        key = shown.fingerprint(),
        cipher = session.methods(MethodType::CryptCs).unwrap_or_default(),
        "SSH session"
    );
    Ok(session)
}

/// The agent's keys, then the files.
fn log_in(session: &Session, login: &Login) -> Result<(), SshError> {
    let mut tried = Vec::new();
    if let Some(socket) = &login.agent {
        match by_agent(session, login, socket) {
            Ok(true) => return Ok(()),
            Ok(false) => tried.push("none of the agent's keys fits".to_owned()),
            Err(error) => tried.push(format!("the agent at {} does not answer ({error})", socket.display())),
        }
    }
    for key in &login.keys {
        if let Err(error) = std::fs::File::open(key) {
            tried.push(format!("the key {} can't be read ({error})", key.display()));
            continue;
        }
        match session.userauth_pubkey_file(&login.user, None, key, None) {
            Ok(()) => return Ok(()),
            Err(error) if is_lost(session, &error) => {
                return Err(SshError::Lost { host: login.place(), source: io::Error::other(error) });
            }
            Err(error) => tried.push(format!("the key {} does not fit ({error})", key.display())),
        }
    }
    if tried.is_empty() {
        tried.push("there is neither a key file nor an agent".to_owned());
    }
    Err(SshError::Denied { login: login.shown(), tried: tried.join("; ") })
}

fn by_agent(session: &Session, login: &Login, socket: &Path) -> Result<bool, ssh2::Error> {
    let mut agent = session.agent()?;
    agent.set_identity_path(socket)?;
    agent.connect()?;
    agent.list_identities()?;
    Ok(agent.identities()?.iter().any(|identity| agent.userauth(&login.user, identity).is_ok()))
}

/// Whether an error is about the connection rather than about the key.
fn is_lost(session: &Session, error: &ssh2::Error) -> bool {
    // LIBSSH2_ERROR_SOCKET_SEND, _TIMEOUT, _SOCKET_DISCONNECT, _SOCKET_RECV.
    let gone = matches!(error.code(), ssh2::ErrorCode::Session(-7 | -9 | -13 | -43));
    gone && !session.authenticated()
}

/// Whether libssh2 waits until it can send the rest of a packet. Nothing else may be sent before that is out.
pub(super) fn is_sending(session: &Session) -> bool {
    matches!(session.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
}
