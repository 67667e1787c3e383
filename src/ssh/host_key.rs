//! Which key a host has to show.
//!
//! Purpose: a key and its fingerprint as people see them, OpenSSH's `known_hosts` format (sshd(8), `SSH_KNOWN_HOSTS`
//! file format), and the one decision whether a shown key is the right one. Must not know: connections. Pure but for reading
//! the file.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::Login;
use super::error::SshError;

/// A host's public key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostKey {
    kind: String,
    blob: Vec<u8>,
}

/// Why a text is no public key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAKey {
    /// There is no key type in it.
    #[error("'{given}' is not a public key as in known_hosts, such as `ssh-ed25519 AAAA…`")]
    NoType {
        /// The text.
        given: String,
    },
    /// What follows the type isn't base64 of a key of that type.
    #[error("what follows {kind} is not a key of that type")]
    Damaged {
        /// The type.
        kind: String,
    },
}

impl HostKey {
    /// The key of this blob as it came over the wire. The blob begins with its type (RFC 4253, 6.6).
    pub(super) fn from_blob(blob: &[u8]) -> Option<Self> {
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let kind = std::str::from_utf8(rest.get(..length)?).ok()?;
        is_type(kind).then(|| Self { kind: kind.to_owned(), blob: blob.to_vec() })
    }

    /// `ssh-ed25519` and the like.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// `SHA256:…` as ssh-keygen prints it.
    pub fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(crate::types::Sha256::of(&self.blob).0))
    }

    /// Type and fingerprint.
    fn shown(&self) -> String {
        format!("{} {}", self.kind, self.fingerprint())
    }
}

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, STANDARD.encode(&self.blob))
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl FromStr for HostKey {
    type Err = NotAKey;

    /// Type and base64, as in a `.pub` file; host names in front (a line of `known_hosts` or of ssh-keyscan) and a
    /// comment behind don't matter.
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let mut words = text.split_whitespace().skip_while(|word| !is_type(word));
        let kind = words.next().ok_or_else(|| NotAKey::NoType { given: text.to_owned() })?;
        let damaged = || NotAKey::Damaged { kind: kind.to_owned() };
        let blob = words.next().and_then(|word| STANDARD.decode(word).ok()).ok_or_else(damaged)?;
        Self::from_blob(&blob).filter(|key| key.kind == kind).ok_or_else(damaged)
    }
}

fn is_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|start| word.starts_with(start))
}

/// What is known of one host.
#[derive(Debug)]
pub(super) struct Known {
    keys: Vec<HostKey>,
    revoked: Vec<(HostKey, String)>,
    by: String,
}

impl Known {
    /// From the pinned keys; without any, from the file.
    pub(super) fn of(login: &Login) -> Result<Self, SshError> {
        if !login.host_keys.is_empty() {
            let (keys, by) = (login.host_keys.clone(), "the site file".to_owned());
            return Ok(Self { keys, revoked: Vec::new(), by });
        }
        let nothing = Self { keys: Vec::new(), revoked: Vec::new(), by: String::new() };
        let Some(path) = &login.known_hosts else { return Ok(nothing) };
        match fs::read_to_string(path) {
            Ok(text) => Self::from_file(login, path, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(nothing),
            Err(source) => Err(SshError::KnownHosts { path: path.clone(), source }),
        }
    }

    fn from_file(login: &Login, path: &Path, text: &str) -> Result<Self, SshError> {
        let names = names(&login.host, login.port);
        let mut known = Self { keys: Vec::new(), revoked: Vec::new(), by: String::new() };
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (marker, rest) = match line.split_once(char::is_whitespace) {
                Some((marker, rest)) if marker.starts_with('@') => (marker, rest.trim_start()),
                _ => ("", line),
            };
            let Some((hosts, key)) = rest.split_once(char::is_whitespace) else { continue };
            // Certificates of host keys aren't asked for, so their authorities say nothing here.
            if marker == "@cert-authority" || !names.iter().any(|name| speaks_of(hosts, name)) {
                continue;
            }
            let by = format!("{}, line {}", path.display(), index + 1);
            match (key.parse::<HostKey>(), marker) {
                (Ok(key), "@revoked") => known.revoked.push((key, by)),
                (Ok(key), _) => {
                    if known.keys.is_empty() {
                        known.by = by;
                    }
                    known.keys.push(key);
                }
                (Err(source), _) => {
                    let (path, host) = (path.to_owned(), login.place());
                    return Err(SshError::KnownHostsLine { path, line: index + 1, host, source });
                }
            }
        }
        Ok(known)
    }

    /// Signature algorithms of host keys to ask for: those that known keys can answer, first. A host has keys of several
    /// types and shows the first that is asked for.
    pub(super) fn preferences(&self) -> String {
        const ALL: [&str; 6] = [
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "ecdsa-sha2-nistp521",
            "rsa-sha2-512",
            "rsa-sha2-256",
        ];
        let known = |algorithm: &str| {
            self.keys
                .iter()
                .any(|key| key.kind == algorithm || (key.kind == "ssh-rsa" && algorithm.starts_with("rsa-")))
        };
        let (mut first, others): (Vec<&str>, Vec<&str>) = ALL.iter().partition(|algorithm| known(algorithm));
        first.extend(others);
        first.join(",")
    }

    /// Whether the host may show this key.
    pub(super) fn judge(&self, login: &Login, shown: &HostKey) -> Result<(), SshError> {
        let host = login.place();
        if let Some((_, by)) = self.revoked.iter().find(|(key, _)| key == shown) {
            return Err(SshError::RevokedHostKey { host, found: shown.shown(), by: by.clone() });
        }
        if self.keys.contains(shown) {
            return Ok(());
        }
        if self.keys.is_empty() {
            return Err(SshError::UnknownHostKey {
                host,
                kind: shown.kind.clone(),
                fingerprint: shown.fingerprint(),
                line: format!("host_key: \"{shown}\""),
            });
        }
        let expected = self.keys.iter().map(HostKey::shown).collect::<Vec<_>>().join(" or ");
        Err(SshError::ChangedHostKey { host, expected, found: shown.shown(), by: self.by.clone() })
    }
}

/// How a host is written in the file: plain with the usual port, else `[host]:port`.
fn names(host: &str, port: u16) -> Vec<String> {
    let host = host.to_ascii_lowercase();
    if port == 22 { vec![host.clone(), format!("[{host}]:22")] } else { vec![format!("[{host}]:{port}")] }
}

/// Whether the first field of a line means this host: hashed, or patterns of which one fits and none forbids.
fn speaks_of(hosts: &str, name: &str) -> bool {
    if let Some(hashed) = hosts.strip_prefix("|1|") {
        return is_hash_of(hashed, name);
    }
    let mut fits = false;
    for pattern in hosts.split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if glob(&pattern.to_ascii_lowercase(), name) => return false,
            None if glob(&pattern.to_ascii_lowercase(), name) => fits = true,
            _ => {}
        }
    }
    fits
}

/// `salt|hash`: HMAC-SHA1 of the name, by the salt.
fn is_hash_of(hashed: &str, name: &str) -> bool {
    let Some((salt, hash)) = hashed.split_once('|') else { return false };
    let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else { return false };
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    aws_lc_rs::hmac::verify(&key, name.as_bytes(), &hash).is_ok()
}

/// `*` stands for any text, `?` for one character.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_at_checked(1) {
        None => text.is_empty() && pattern.is_empty(),
        Some(("*", rest)) => (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| glob(rest, &text[at..])),
        Some(("?", rest)) => text.chars().next().is_some_and(|first| glob(rest, &text[first.len_utf8()..])),
        Some((first, rest)) => text.strip_prefix(first).is_some_and(|text| glob(rest, text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnASX";

    fn login(host: &str, port: u16) -> Login {
        Login {
            host: host.to_owned(),
            port,
            user: "root".to_owned(),
            keys: Vec::new(),
            agent: None,
            host_keys: Vec::new(),
            known_hosts: None,
            program: None,
        }
    }

    fn verdict(file: &str, host: &str, port: u16) -> Result<(), SshError> {
        let login = login(host, port);
        Known::from_file(&login, Path::new("known_hosts"), file)?.judge(&login, &KEY.parse().unwrap())
    }

    #[test]
    fn keys_are_read_with_and_without_what_surrounds_them() {
        let key: HostKey = KEY.parse().unwrap();
        assert_eq!(format!("pve1,10.0.0.1 {KEY} root@pve1").parse::<HostKey>().unwrap(), key);
        assert_eq!(key.to_string(), KEY);
        assert_eq!(key.kind(), "ssh-ed25519");
        assert!(key.fingerprint().starts_with("SHA256:") && key.fingerprint().len() == 50, "{}", key.fingerprint());
        assert!(matches!("SHA256:abc".parse::<HostKey>(), Err(NotAKey::NoType { .. })));
        for damaged in ["ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5ob"] {
            assert!(matches!(damaged.parse::<HostKey>(), Err(NotAKey::Damaged { .. })), "{damaged}");
        }
    }

    #[test]
    fn lines_of_known_hosts_are_found_by_name_pattern_port_and_hash() {
        for (file, host, port) in [
            (format!("pve1 {KEY}"), "pve1", 22),
            (format!("# c\n\nother {OTHER}\npve1,10.0.0.1 {KEY} comment"), "10.0.0.1", 22),
            (format!("[pve1]:2222 {KEY}"), "pve1", 2222),
            (format!("*.lan,!bad.lan {KEY}"), "PVE1.lan", 22),
            (format!("10.0.0.? {KEY}"), "10.0.0.7", 22),
            (format!("pve1 {OTHER}\npve1 {KEY}"), "pve1", 22),
            (format!("@cert-authority pve1 {OTHER}\npve1 {KEY}"), "pve1", 22),
        ] {
            verdict(&file, host, port).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        let salt = STANDARD.encode([7; 20]);
        let hmac = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &[7; 20]);
        let hash = STANDARD.encode(aws_lc_rs::hmac::sign(&hmac, b"[pve1]:2222"));
        verdict(&format!("|1|{salt}|{hash} {KEY}"), "pve1", 2222).unwrap();
    }

    #[test]
    fn whoever_is_not_known_is_refused_with_the_line_to_add() {
        for (file, host, port) in [
            (String::new(), "pve1", 22),
            (format!("pve1 {KEY}"), "pve1", 2222),
            (format!("*.lan,!bad.lan {KEY}"), "bad.lan", 22),
        ] {
            let Err(SshError::UnknownHostKey { fingerprint, line, .. }) = verdict(&file, host, port) else {
                panic!("{file} lets {host} in")
            };
            assert_eq!(fingerprint, KEY.parse::<HostKey>().unwrap().fingerprint());
            assert_eq!(line, format!("host_key: \"{KEY}\""));
        }
    }

    #[test]
    fn another_key_is_a_loud_refusal_that_names_both() {
        let error = verdict(&format!("pve1 {OTHER}"), "pve1", 22).unwrap_err();
        let text = error.to_string();
        let of = |key: &str| key.parse::<HostKey>().unwrap().fingerprint();
        assert!(text.contains(&of(KEY)) && text.contains(&of(OTHER)) && text.contains("line 1"), "{text}");
        let error = verdict(&format!("pve1 {KEY}\n@revoked * {KEY}"), "pve1", 22).unwrap_err();
        assert!(matches!(error, SshError::RevokedHostKey { .. }), "{error}");
        let error = verdict("pve1 ssh-ed25519 AAAA", "pve1", 22).unwrap_err();
        assert!(matches!(error, SshError::KnownHostsLine { line: 1, .. }), "{error}");
    }

    #[test]
    fn the_types_of_known_keys_are_asked_for_first() {
        let rsa = HostKey { kind: "ssh-rsa".to_owned(), blob: Vec::new() };
        let known = Known { keys: vec![rsa], revoked: Vec::new(), by: String::new() };
        assert!(known.preferences().starts_with("rsa-sha2-512,rsa-sha2-256,ssh-ed25519"));
    }
}
