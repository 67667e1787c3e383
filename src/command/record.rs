//! Programs that a rehearsal would have run, written down.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Command;

/// Writes one JSON line for each command.
#[derive(Clone, Debug)]
pub struct Recorder {
    file: PathBuf,
}

impl Recorder {
    /// Into this file, made when the first comes.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// Where they are.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Writes a command down. What it would read isn't: it may be secret.
    pub fn record(&self, command: &Command) -> io::Result<()> {
        let line = json!({
            "what": command.what,
            "command": command.program.shown(),
            "folder": command.folder,
            "env": command.env.iter().map(|(name, _)| name).collect::<Vec<_>>(),
            "reads": command.stdin.is_some(),
        });
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.file)?;
        writeln!(file, "{line}")
    }
}
