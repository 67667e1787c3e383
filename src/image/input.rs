//! A file that is read from anywhere in it, also while it is still being written.
//!
//! Purpose: an image is decoded and verified while it arrives, so that both together take as long as the slower of the
//! two. A reader waits for bytes that are not there yet, and is told when they will never come.
//! Must not know: networks, containers.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How far a file has come, and how far its reader.
#[derive(Debug, Default)]
pub(super) struct Growth {
    state: Mutex<State>,
    moved: Condvar,
    read: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// More may come.
    #[default]
    Open,
    /// That was all.
    Whole,
    /// What was read is not what the file will hold.
    Void,
}

impl Growth {
    /// Of a file that is whole already.
    pub(super) fn whole(bytes: u64) -> Self {
        Self { state: Mutex::new(State { bytes, end: End::Whole }), ..Self::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// That many bytes are there now.
    pub(super) fn reach(&self, bytes: u64) {
        self.state().bytes = bytes;
        self.moved.notify_all();
    }

    /// No more come.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        if state.end == End::Open {
            state.end = End::Whole;
        }
        self.moved.notify_all();
    }

    /// Whoever reads has to stop: the file begins anew, or is given up. A finished one stays as it is.
    pub(super) fn void(&self) {
        let mut state = self.state();
        if state.end == End::Open {
            state.end = End::Void;
        }
        self.moved.notify_all();
    }

    /// Whether what was read of it counts for nothing.
    pub(super) fn is_void(&self) -> bool {
        self.state().end == End::Void
    }

    /// How far it was read.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Waits until there is a byte at `at`; how many there are in all then, which is no more than `at` at the end.
    fn wait(&self, at: u64) -> io::Result<u64> {
        let mut state = self.state();
        loop {
            match state.end {
                End::Void => return Err(io::Error::other("the file is no longer written")),
                End::Open if state.bytes <= at => {
                    state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                End::Open | End::Whole => return Ok(state.bytes),
            }
        }
    }
}

/// A file to be decoded.
#[derive(Clone, Debug)]
pub(super) struct Input {
    path: Arc<PathBuf>,
    file: Arc<File>,
    growth: Arc<Growth>,
    at: u64,
}

impl Input {
    /// A whole file.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let growth = Arc::new(Growth::whole(file.metadata()?.len()));
        Ok(Self { path: Arc::new(path.to_owned()), file: Arc::new(file), growth, at: 0 })
    }

    /// A file that grows as `growth` says.
    pub(super) fn follow(path: &Path, growth: Arc<Growth>) -> io::Result<Self> {
        Ok(Self { path: Arc::new(path.to_owned()), file: Arc::new(File::open(path)?), growth, at: 0 })
    }

    /// Its name.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The same file, to be read on its own from here.
    pub(super) fn from(&self, at: u64) -> Self {
        Self { at, ..self.clone() }
    }

    /// Reads at a place; nothing only at the end.
    pub(super) fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let there = self.growth.wait(at)?.saturating_sub(at);
        let length = usize::try_from(there).unwrap_or(usize::MAX).min(out.len());
        loop {
            match self.file.read_at(&mut out[..length], at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(read) => {
                    self.growth.read.fetch_max(at + read as u64, Ordering::Relaxed);
                    return Ok(read);
                }
                failed => return failed,
            }
        }
    }

    /// Fills `out` as far as the file goes.
    pub(super) fn fill_at(&self, out: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < out.len() {
            match self.read_at(&mut out[filled..], at + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        Ok(filled)
    }
}

impl Read for Input {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.read_at(out, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_reader_waits_for_what_is_still_to_come() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let growth = Arc::new(Growth::default());
        let mut input = Input::follow(file.path(), growth.clone()).unwrap();
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            input.read_to_end(&mut all).map(|_| all)
        });
        for (index, piece) in [b"one ", b"two ", b"tri "].into_iter().enumerate() {
            file.write_all(piece).unwrap();
            growth.reach(4 * (index as u64 + 1));
        }
        growth.finish();
        assert_eq!(reading.join().unwrap().unwrap(), b"one two tri ");
        assert_eq!(growth.read(), 12);
        growth.void();
        assert!(!growth.is_void(), "what is whole stays");
    }

    #[test]
    fn a_reader_of_a_file_that_begins_anew_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let growth = Arc::new(Growth::default());
        let mut input = Input::follow(file.path(), growth.clone()).unwrap();
        let reading = std::thread::spawn(move || input.read_to_end(&mut Vec::new()).is_err());
        growth.void();
        assert!(reading.join().unwrap() && growth.is_void());
    }
}
