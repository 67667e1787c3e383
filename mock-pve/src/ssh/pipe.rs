//! What commands read from and write to.
//!
//! Purpose: byte pipes between commands and the session, with back-pressure, used from ordinary threads. Must not know:
//! commands.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::visit::Visit;

/// Chunks that wait between two commands.
const WAITING: usize = 64;
/// The largest chunk: what fits into one SSH packet.
const CHUNK: usize = 32 * 1024;

/// The longest text that is held at once, in bytes: a line, a script, what `$(…)` stands for.
pub(super) const LONGEST: usize = 16 << 20;

/// A pipe: what is written to the one end comes out of the other.
pub(super) fn pipe() -> (Output, Input) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (Output::Pipe(sender), Input::piped(receiver))
}

struct Piped {
    receiver: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

/// Where a command reads from. Clones share the position, as inherited descriptors do.
#[derive(Clone)]
pub(super) enum Input {
    /// Nothing comes.
    Empty,
    /// What another writes.
    Pipe(Arc<Mutex<PipedBox>>),
    /// A file.
    File(Arc<File>),
    /// A text.
    Text(Arc<Mutex<io::Cursor<Vec<u8>>>>),
    /// Zeros without end, as long as somebody is there.
    Zeros(Visit),
}

/// The reading end of a pipe.
pub(super) struct PipedBox(Piped);

impl Input {
    /// The reading end of a channel.
    pub(super) fn piped(receiver: mpsc::Receiver<Bytes>) -> Self {
        Self::Pipe(Arc::new(Mutex::new(PipedBox(Piped { receiver, rest: Bytes::new() }))))
    }

    /// A text as input.
    pub(super) fn text(text: String) -> Self {
        Self::Text(Arc::new(Mutex::new(io::Cursor::new(text.into_bytes()))))
    }

    /// All of it as a text; `None`: it is too long.
    pub(super) fn whole(self) -> Option<String> {
        let mut bytes = Vec::new();
        // What came before it broke is what there is.
        let _ = self.take(LONGEST as u64 + 1).read_to_end(&mut bytes);
        (bytes.len() <= LONGEST).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Empty => Ok(0),
            Self::Zeros(visit) if visit.breaks() => Ok(0),
            Self::Zeros(_) => {
                buffer.fill(0);
                Ok(buffer.len())
            }
            Self::File(file) => (&**file).read(buffer),
            Self::Text(text) => text.lock().unwrap_or_else(PoisonError::into_inner).read(buffer),
            Self::Pipe(piped) => {
                let piped = &mut piped.lock().unwrap_or_else(PoisonError::into_inner).0;
                while piped.rest.is_empty() {
                    match piped.receiver.blocking_recv() {
                        Some(chunk) => piped.rest = chunk,
                        None => return Ok(0),
                    }
                }
                let taken = piped.rest.len().min(buffer.len());
                buffer[..taken].copy_from_slice(&piped.rest.split_to(taken));
                Ok(taken)
            }
        }
    }
}

/// Where a command writes to.
#[derive(Clone)]
pub(super) enum Output {
    /// Nowhere.
    Null,
    /// Another command, or the session.
    Pipe(mpsc::Sender<Bytes>),
    /// A file, with what still fits.
    File(Arc<Mutex<Limited>>),
    /// A text that is being collected.
    Text(Arc<Mutex<Vec<u8>>>),
}

/// A file that takes no more than its storage has room for.
#[derive(Debug)]
pub(super) struct Limited {
    /// The file, at the place of the next byte.
    pub(super) file: File,
    /// Bytes that still fit.
    pub(super) left: u64,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        if fits == 0 {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        let written = self.file.write(&bytes[..fits])?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Null => Ok(bytes.len()),
            Self::File(file) => file.lock().unwrap_or_else(PoisonError::into_inner).write(bytes),
            Self::Text(text) => {
                let mut text = text.lock().unwrap_or_else(PoisonError::into_inner);
                if text.len() + bytes.len() > LONGEST {
                    return Err(io::Error::from(io::ErrorKind::OutOfMemory));
                }
                text.write(bytes)
            }
            Self::Pipe(sender) => {
                let chunk = &bytes[..bytes.len().min(CHUNK)];
                sender
                    .blocking_send(Bytes::copy_from_slice(chunk))
                    .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
                Ok(chunk.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An error as the C library words it.
pub(super) fn words(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "No such file or directory",
        io::ErrorKind::PermissionDenied => "Permission denied",
        io::ErrorKind::AlreadyExists => "File exists",
        io::ErrorKind::StorageFull => "No space left on device",
        io::ErrorKind::IsADirectory => "Is a directory",
        io::ErrorKind::NotADirectory => "Not a directory",
        io::ErrorKind::DirectoryNotEmpty => "Directory not empty",
        io::ErrorKind::BrokenPipe => "Broken pipe",
        io::ErrorKind::InvalidInput => "Invalid argument",
        io::ErrorKind::OutOfMemory => "Cannot allocate memory",
        _ => "Input/output error",
    }
}
