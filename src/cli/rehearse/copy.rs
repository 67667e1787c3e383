//! Copies a folder of configuration, and leaves every secret where it is.
//!
//! Purpose: patches belong into a rehearsal, keys and tokens don't, wherever they lie. Reads only; nothing is written
//! but below the target. Must not know: profiles, rehearsals. Start reading at [`Copy::folder`].

use std::collections::BTreeSet;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// No file of configuration is larger.
const LARGEST: u64 = 1 << 20;

/// Keys under which secrets bundles, machine configurations, talosconfigs and kubeconfigs hold what must not be known.
const SECRET_KEYS: &[&str] = &[
    "aescbcencryptionsecret",
    "bootstraptoken",
    "client-key-data",
    "password",
    "secret",
    "secretboxencryptionsecret",
    "token",
];

/// What can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{} can't be copied", path.display())]
pub struct CopyError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// A copy in the making.
#[derive(Debug, Default)]
pub struct Copy {
    never: Option<(u64, u64)>,
    visited: BTreeSet<(u64, u64)>,
    /// Files that were left out since they hold secrets.
    pub left_out: Vec<PathBuf>,
}

impl Copy {
    /// A copy that never opens `secrets`, by whatever name or link it is met.
    pub fn without(secrets: &Path) -> Self {
        Self { never: fs::metadata(secrets).ok().as_ref().map(identity), ..Self::default() }
    }

    /// Copies what is below `from` to `to`. A missing folder counts as empty; dot files, what is there already, and
    /// files too large for configuration are passed over.
    pub fn folder(&mut self, from: &Path, to: &Path) -> Result<(), CopyError> {
        self.visited.clear();
        self.walk(from, to)
    }

    /// Copies one file, unless it is missing, holds secrets or is too large for configuration.
    pub fn one(&mut self, from: &Path, to: &Path) -> Result<(), CopyError> {
        match fs::metadata(from) {
            Ok(metadata)
                if metadata.is_file() && metadata.len() <= LARGEST && self.never != Some(identity(&metadata)) =>
            {
                self.file(from, to)
            }
            _ => Ok(()),
        }
    }

    fn walk(&mut self, from: &Path, to: &Path) -> Result<(), CopyError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| CopyError { path, source }
        };
        let entries = match fs::read_dir(from) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(error) => return Err(failed(from)(error)),
        };
        // Links may lead round in circles.
        if !self.visited.insert(identity(&fs::metadata(from).map_err(failed(from))?)) {
            return Ok(());
        }
        fs::create_dir_all(to).map_err(failed(to))?;
        for entry in entries {
            let entry = entry.map_err(failed(from))?;
            let (path, name) = (entry.path(), entry.file_name());
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            // A link that leads nowhere is nothing.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            if metadata.is_dir() {
                self.walk(&path, &to.join(name))?;
            } else if metadata.is_file() && metadata.len() <= LARGEST && self.never != Some(identity(&metadata)) {
                self.file(&path, &to.join(name))?;
            }
        }
        Ok(())
    }

    fn file(&mut self, from: &Path, to: &Path) -> Result<(), CopyError> {
        let content = fs::read(from).map_err(|source| CopyError { path: from.to_owned(), source })?;
        if holds_secrets(&content) {
            if !self.left_out.iter().any(|known| known == from) {
                self.left_out.push(from.to_owned());
            }
        } else if !to.exists() {
            fs::write(to, content).map_err(|source| CopyError { path: to.to_owned(), source })?;
        }
        Ok(())
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Whether a file has a private key in it, as PEM or in base64, or a value under a key that names a secret.
fn holds_secrets(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    private_keys().iter().any(|key| text.contains(key.as_str())) || SECRET_KEYS.iter().any(|key| has_value(&text, key))
}

/// The words that mark a private key, plain and as they look in base64 at each of the three ways to stand in it.
fn private_keys() -> [String; 4] {
    const WORDS: &str = "PRIVATE KEY";
    let encoded = |lead: usize| {
        let text = STANDARD.encode(format!("{}{WORDS}", " ".repeat(lead)));
        // The first and last characters mix in bits of what stands before and behind.
        let from = [0, 2, 3][lead];
        let whole = (lead + WORDS.len()) / 3 * 4;
        text[from..whole].to_owned()
    };
    [WORDS.to_owned(), encoded(0), encoded(1), encoded(2)]
}

/// Whether `key` has a value anywhere in a YAML or JSON text.
fn has_value(text: &str, key: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.to_ascii_lowercase().match_indices(key).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + key.len()..].trim_start_matches(['"', '\'']);
        let Some(value) = after.trim_start_matches(' ').strip_prefix(':') else { return false };
        let value = value.lines().next().unwrap_or_default().trim().trim_end_matches([',', '}']).trim_end();
        !before.is_some_and(word) && !matches!(value, "" | "\"\"" | "''" | "null" | "~" | "{")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_are_recognised_in_every_wrapping() {
        let key = "-----BEGIN ED25519 PRIVATE KEY-----\nabc\n-----END ED25519 PRIVATE KEY-----\n";
        for lead in ["", "x", "xy"] {
            let encoded = STANDARD.encode(format!("{lead}{key}"));
            assert!(holds_secrets(format!("k: {encoded}\n").as_bytes()), "{lead:?}");
        }
        for secret in
            [key, "machine:\n  token: abc.def\n", "{\"cluster\": {\"secret\": \"x\"}}", "  bootstraptoken: a.b"]
        {
            assert!(holds_secrets(secret.as_bytes()), "{secret}");
        }
        let harmless = [
            "machine:\n  network: {hostname: a}\n",
            "# the token: see the vault\nca: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t\n",
            "secret: \"\"\ntoken:\nkind: Secret\n",
            "serviceAccountToken: x\nmy-secret: y\n",
        ];
        for text in &harmless[2..] {
            assert!(!holds_secrets(text.as_bytes()), "{text}");
        }
        assert!(!holds_secrets(harmless[0].as_bytes()));
    }

    #[test]
    fn links_neither_smuggle_the_secrets_in_nor_lead_round_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        fs::create_dir_all(from.join("patches")).unwrap();
        fs::write(from.join("secrets.yaml"), "opaque").unwrap();
        fs::write(from.join("patches/a.yaml"), "machine: {}").unwrap();
        fs::write(from.join("old.yaml"), "token: a.b").unwrap();
        fs::write(from.join(".hidden"), "x").unwrap();
        std::os::unix::fs::symlink(from.join("secrets.yaml"), from.join("patches/link.yaml")).unwrap();
        fs::hard_link(from.join("secrets.yaml"), from.join("patches/hard.yaml")).unwrap();
        std::os::unix::fs::symlink(&from, from.join("patches/round")).unwrap();
        let mut copy = Copy::without(&from.join("secrets.yaml"));
        copy.folder(&from, &dir.path().join("to")).unwrap();
        assert_eq!(copy.left_out, [from.join("old.yaml")]);
        assert_eq!(fs::read_dir(dir.path().join("to")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(dir.path().join("to/patches")).unwrap().count(), 1);
        Copy::default().folder(&dir.path().join("nowhere"), &dir.path().join("to2")).unwrap();
    }
}
