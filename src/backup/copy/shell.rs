//! Copies by commands: of this machine's shell, or of another machine's.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use super::{Copied, CopyError, Counts, NAME_VARIABLE, Original};

/// How much of what a command says on stderr is kept: its end.
const SAID: usize = 2048;

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// Its exit code; 128 and the signal's number for one that was killed.
    pub status: i32,
    /// The end of what it wrote to stderr.
    pub stderr: String,
}

/// Why a command did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// A file, a pipe or a process of this machine.
    #[error("could not {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sink didn't want more.
    #[error("what the command wrote could not be taken")]
    Sink(#[source] io::Error),
    /// The connection to the other machine.
    #[error("the connection failed")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Runs commands of `sh`, here or elsewhere. A future that is dropped ends its command.
#[expect(async_fn_in_trait, reason = "implemented and awaited within this crate; nobody needs `Send` futures")]
pub trait Shell {
    /// Runs one command with a file, or nothing, on its input, and gives what it writes to `stdout`.
    async fn run(
        &self,
        command: &str,
        stdin: Option<&Path>,
        stdout: Option<&mut (dyn Write + Send)>,
    ) -> Result<Ran, ShellError>;
}

/// `sh -c` on this machine.
#[derive(Clone, Debug)]
pub struct Local {
    folder: PathBuf,
    variables: Vec<(String, String)>,
}

impl Local {
    /// In this working folder, with this process's environment.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), variables: Vec::new() }
    }

    /// With one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With the snapshot's name where the commands of [`Target::Command`](super::Target) look for it.
    #[must_use]
    pub fn of(self, snapshot: &Path) -> Self {
        let name = snapshot.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.with(NAME_VARIABLE, &name)
    }
}

impl Shell for Local {
    async fn run(
        &self,
        command: &str,
        stdin: Option<&Path>,
        stdout: Option<&mut (dyn Write + Send)>,
    ) -> Result<Ran, ShellError> {
        let failed = |doing| move |source| ShellError::Io { doing, source };
        let input = match stdin {
            Some(path) => File::open(path).map_err(failed("open the snapshot"))?.into(),
            None => Stdio::null(),
        };
        let mut child = Command::new("sh")
            .args(["-c", command])
            .current_dir(&self.folder)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(input)
            .stdout(if stdout.is_some() { Stdio::piped() } else { Stdio::null() })
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed("start sh"))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let pour = async {
            let (Some(mut out), Some(to)) = (out, stdout) else { return Ok(()) };
            pour(&mut out, to).await
        };
        let listen = async {
            let Some(mut err) = err else { return Ok(String::new()) };
            tail(&mut err).await.map_err(failed("read what the command says"))
        };
        // A sink that has enough ends the command: it is killed when the child is dropped.
        let ((), stderr) = tokio::try_join!(pour, listen)?;
        let status = child.wait().await.map_err(failed("wait for the command"))?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
        Ok(Ran { status: status.code().or(signal).unwrap_or(-1), stderr })
    }
}

async fn pour(from: &mut (impl AsyncRead + Unpin), to: &mut (dyn Write + Send)) -> Result<(), ShellError> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from
            .read(&mut buffer)
            .await
            .map_err(|source| ShellError::Io { doing: "read what the command writes", source })?;
        if read == 0 {
            return to.flush().map_err(ShellError::Sink);
        }
        to.write_all(&buffer[..read]).map_err(ShellError::Sink)?;
    }
}

/// The end of a text, with bounded memory.
async fn tail(from: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut kept = Vec::new();
    let mut buffer = vec![0; SAID];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(String::from_utf8_lossy(&kept).trim().to_owned());
        }
        kept.extend_from_slice(&buffer[..read]);
        kept.drain(..kept.len().saturating_sub(SAID));
    }
}

/// A shell and the place that it leads to.
pub(super) struct At<'a, S> {
    pub(super) shell: &'a S,
    pub(super) place: &'a str,
}

impl<S: Shell> At<'_, S> {
    pub(super) async fn save(&self, original: &Original, command: &str) -> Result<(), CopyError> {
        let doing = "save";
        let ran = self.shell.run(command, Some(&original.path), None).await;
        let ran = ran.map_err(|source| CopyError::Shell { doing, place: self.place.to_owned(), source })?;
        self.check(doing, ran)
    }

    pub(super) async fn read_back(&self, original: &Original, command: &str) -> Result<Copied, CopyError> {
        let doing = "read back";
        let mut back = original.sink();
        match self.shell.run(command, None, Some(&mut back)).await {
            Ok(ran) => self.check(doing, ran)?,
            // Too much came back: the comparison says so.
            Err(_) if back.is_too_long() => {}
            Err(source) => return Err(CopyError::Shell { doing, place: self.place.to_owned(), source }),
        }
        original.compare(self.place, back, Counts::Yes)
    }

    fn check(&self, doing: &'static str, ran: Ran) -> Result<(), CopyError> {
        if ran.status == 0 {
            return Ok(());
        }
        Err(CopyError::Failed { doing, place: self.place.to_owned(), status: ran.status, stderr: ran.stderr })
    }
}

/// The commands for a folder of another machine: nothing but a POSIX shell, `mkdir`, `cat`, `sync`, `mv` and `rm`.
pub(super) struct Remote {
    folder: String,
    file: String,
}

impl Remote {
    pub(super) fn new(folder: &str, name: &str) -> Self {
        // Sessions begin in the home folder, and a quoted `~` is only a character.
        let folder = match folder.strip_prefix('~') {
            Some("") => ".",
            Some(rest) if rest.starts_with('/') => rest.trim_start_matches('/'),
            _ => folder,
        };
        let folder = if folder.is_empty() { "." } else { folder };
        let file = format!("{}/{name}", folder.trim_end_matches('/'));
        Self { folder: folder.to_owned(), file }
    }

    /// Where the copy lies.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// Whole under its name or not there; an existing one is left alone, and compared when it is read back.
    pub(super) fn save(&self) -> String {
        let (folder, file, part) = (quoted(&self.folder), quoted(&self.file), quoted(&format!("{}.part", self.file)));
        format!(
            "umask 077 && mkdir -p -- {folder} && cat > {part} && sync && mv -n -- {part} {file} && rm -f -- {part} && sync"
        )
    }

    pub(super) fn read(&self) -> String {
        format!("cat -- {}", quoted(&self.file))
    }
}

/// One word for a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
