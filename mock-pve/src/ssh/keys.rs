//! Keys: one host key per node, one login key for whoever rehearses.
//!
//! Purpose: made once, kept in the state folder, so that known hosts stay known over restarts. Must not know: sessions.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use russh::keys::ssh_key::private::Ed25519Keypair;
use russh::keys::ssh_key::{self, LineEnding};
use russh::keys::{PrivateKey, PublicKey};

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file can't be read or written.
    #[error("can't use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A key can't be made or read.
    #[error("{} holds no usable key", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: ssh_key::Error,
    },
    /// There is no randomness.
    #[error("there is no randomness for a key")]
    Chance,
}

/// The folder of keys.
#[derive(Clone, Debug)]
pub struct Keys {
    folder: PathBuf,
}

impl Keys {
    /// The keys that a state folder keeps.
    pub fn open(state: &Path) -> Result<Self, KeyError> {
        let folder = state.join("ssh");
        std::fs::create_dir_all(&folder).map_err(|source| KeyError::File { path: folder.clone(), source })?;
        Ok(Self { folder })
    }

    /// The host key of a node.
    pub fn host(&self, node: &str) -> Result<PrivateKey, KeyError> {
        self.kept(&format!("host-{node}"), node)
    }

    /// The key that opens every node; the file is an OpenSSH private key.
    pub fn login(&self) -> Result<PrivateKey, KeyError> {
        self.kept("id_ed25519", "rehearsal")
    }

    /// Where [`Keys::login`] is kept.
    pub fn login_file(&self) -> PathBuf {
        self.folder.join("id_ed25519")
    }

    /// Public keys of others that may log in, one a line as in `authorized_keys`; the file is read at every login.
    pub fn authorized(&self) -> Vec<PublicKey> {
        let text = std::fs::read_to_string(self.folder.join("authorized_keys")).unwrap_or_default();
        text.lines().filter_map(|line| PublicKey::from_openssh(line.trim()).ok()).collect()
    }

    fn kept(&self, name: &str, comment: &str) -> Result<PrivateKey, KeyError> {
        let path = self.folder.join(name);
        let key = |source| KeyError::Key { path: path.clone(), source };
        let file = |source| KeyError::File { path: path.clone(), source };
        if !path.exists() {
            let mut seed = [0; 32];
            aws_lc_rs::rand::fill(&mut seed).map_err(|_| KeyError::Chance)?;
            let mut made = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
            made.set_comment(comment);
            let text = made.to_openssh(LineEnding::LF).map_err(key)?;
            let mut open = std::fs::OpenOptions::new();
            open.write(true).create(true).truncate(true).mode(0o600);
            open.open(&path)
                .and_then(|mut kept| std::io::Write::write_all(&mut kept, text.as_bytes()))
                .map_err(file)?;
            let public = made.public_key().to_openssh().map_err(key)?;
            std::fs::write(self.folder.join(format!("{name}.pub")), format!("{public}\n")).map_err(file)?;
        }
        PrivateKey::from_openssh(std::fs::read(&path).map_err(file)?).map_err(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_the_same_and_nobody_else_can_read_them() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let first = Keys::open(dir.path()).unwrap().host("pve1").unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        assert_eq!(keys.host("pve1").unwrap().public_key(), first.public_key());
        assert_ne!(keys.host("pve2").unwrap().public_key(), first.public_key());
        keys.login().unwrap();
        let mode = std::fs::metadata(keys.login_file()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(keys.authorized().is_empty());
    }
}
