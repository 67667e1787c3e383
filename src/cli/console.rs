//! The terminal, or what stands in for it: the only place that writes to stdout and stderr.

use std::io::{self, BufRead as _, IsTerminal as _, Write};
use std::sync::{Arc, Mutex, PoisonError};

use super::args::{Color, Global};
use super::env::Env;

/// A stream that several renderers share.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Box<dyn Write + Send>>>);

impl Shared {
    /// Over any stream.
    pub fn new(stream: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(stream))))
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

/// stdout for data, stderr for people, stdin for their answers.
#[derive(Clone)]
pub struct Console {
    out: Shared,
    err: Shared,
    /// Whether people watch stderr on a terminal.
    pub watched: bool,
    /// Whether someone can type an answer.
    pub asked: bool,
}

impl Console {
    /// The process's own streams.
    pub fn of_process() -> Self {
        Self {
            out: Shared::new(io::stdout()),
            err: Shared::new(io::stderr()),
            watched: io::stderr().is_terminal(),
            asked: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Writes data. A reader that went away is not an error: `recast … | head` is fine.
    pub fn data(&self, text: &str) {
        write(&self.out, text);
    }

    /// Tells people something.
    pub fn tell(&self, text: &str) {
        write(&self.err, text);
    }

    /// The stream for people, for renderers.
    pub fn err(&self) -> Shared {
        self.err.clone()
    }

    /// The stream for data, for events as JSON lines.
    pub fn out(&self) -> Shared {
        self.out.clone()
    }

    /// Asks for a line; none when nobody answers.
    pub fn ask(&self, question: &str) -> Option<String> {
        self.tell(question);
        let mut line = String::new();
        match io::stdin().lock().read_line(&mut line) {
            Ok(read) if read > 0 => Some(line.trim().to_owned()),
            _ => None,
        }
    }

    /// Whether text for people is coloured.
    pub fn is_coloured(&self, global: &Global, env: &Env) -> bool {
        match global.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => self.watched && env.get("NO_COLOR").is_none() && env.get("TERM") != Some("dumb"),
        }
    }
}

fn write(stream: &Shared, text: &str) {
    let mut stream = stream.clone();
    let written = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "nobody reads");
    }
}
