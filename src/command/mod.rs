//! External programs: git, flux, sops, and whatever the user hangs in (hooks, commands of the bootstrap and for secrets).
//!
//! Purpose: one way to run them: its own process group, a time limit, cancellation that ends all of it, input on stdin
//! (never on the command line, where everybody could read it), the end of what it said in the error. A rehearsal runs
//! none of them: [`Commands::Recorded`] writes them down instead.
//! Must not know: what is run and why, plans, profiles. Start reading at [`Commands::run`].

pub mod git;
mod record;
mod run;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::SecretString;

pub use record::Recorder;
pub use run::Done;

/// Whether programs are run. A rehearsal sets it once, for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are.
    #[default]
    Run,
    /// They are written down.
    Record,
}

/// The one way to run programs.
#[derive(Clone, Debug)]
pub enum Commands {
    /// They are run.
    Real,
    /// They are written down, and nothing else happens.
    Recorded(Recorder),
}

/// What is run.
#[derive(Clone, Debug)]
pub struct Command {
    /// What it is for, as errors and lines name it: `hook before_retire`.
    pub what: String,
    /// The program.
    pub program: Program,
    /// Its working directory; that of this process by default.
    pub folder: Option<PathBuf>,
    /// Variables on top of this process's own. No secrets: `/proc` shows them.
    pub env: Vec<(String, OsString)>,
    /// What it can read on stdin; nothing by default.
    pub stdin: Option<SecretString>,
    /// How long it may take.
    pub within: Duration,
}

/// A program with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Name and arguments, taken as they are.
    Argv(Vec<OsString>),
    /// A line for `sh -c`.
    Shell(String),
}

impl Program {
    /// For people: what would be typed.
    pub fn shown(&self) -> String {
        match self {
            Self::Shell(line) => line.clone(),
            Self::Argv(words) => {
                let words = words.iter().map(|word| word.to_string_lossy());
                let quoted = words.map(|word| {
                    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
                    if !word.is_empty() && word.chars().all(plain) {
                        word.into_owned()
                    } else {
                        format!("'{}'", word.replace('\'', r"'\''"))
                    }
                });
                quoted.collect::<Vec<_>>().join(" ")
            }
        }
    }
}

impl Command {
    /// A program with arguments.
    pub fn argv<I: Into<OsString>>(
        what: impl Into<String>,
        words: impl IntoIterator<Item = I>,
        within: Duration,
    ) -> Self {
        let words = words.into_iter().map(Into::into).collect();
        Self { what: what.into(), program: Program::Argv(words), folder: None, env: Vec::new(), stdin: None, within }
    }

    /// A line for `sh -c`.
    pub fn shell(what: impl Into<String>, line: impl Into<String>, within: Duration) -> Self {
        Self {
            what: what.into(),
            program: Program::Shell(line.into()),
            folder: None,
            env: Vec::new(),
            stdin: None,
            within,
        }
    }

    /// In this folder.
    #[must_use]
    pub fn in_folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// With one more variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// With something to read.
    #[must_use]
    pub fn stdin(mut self, text: SecretString) -> Self {
        self.stdin = Some(text);
        self
    }
}

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It isn't there, or can't be run.
    #[error("{what}: {program} can't be run")]
    Start {
        /// What it was for.
        what: String,
        /// Its name.
        program: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It ended with another status than success.
    #[error("{what} ended with {status}: {tail}")]
    Failed {
        /// What it was for.
        what: String,
        /// `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: String,
        /// The end of what it said.
        tail: String,
        /// Its exit code, where it ended by itself.
        code: Option<i32>,
    },
    /// It took too long and was killed with all that it had started.
    #[error("{what} did not end within {} s and was killed: {tail}", within.as_secs())]
    TooLong {
        /// What it was for.
        what: String,
        /// How long it might take.
        within: Duration,
        /// The end of what it said.
        tail: String,
    },
    /// The run was asked to stop; it was killed with all that it had started.
    #[error("{what} was stopped, since the run was asked to stop")]
    Cancelled {
        /// What it was for.
        what: String,
    },
    /// Talking to it failed.
    #[error("{what}: its input or output broke")]
    Pipe {
        /// What it was for.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It could not be written down.
    #[error("{what} could not be recorded")]
    Record {
        /// What it was for.
        what: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// The file that a name leads to by `path`, a `PATH` variable; none where there is no such program.
pub fn find_program(name: &str, path: &std::ffi::OsStr) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let executable = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path).map(|dir| dir.join(name)).find(executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_path_and_shown_as_typed() {
        assert!(find_program("sh", "/nowhere:/bin:/usr/bin".as_ref()).is_some());
        assert_eq!(find_program("no-such-program", "/bin:/usr/bin".as_ref()), None);
        let command = Command::argv("x", ["git", "commit", "-m", "it's done", ""], Duration::ZERO);
        assert_eq!(command.program.shown(), r"git commit -m 'it'\''s done' ''");
    }
}
