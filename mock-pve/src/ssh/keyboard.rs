//! What is typed at a terminal.
//!
//! Purpose: keys are taken while a command runs, so that Ctrl-C ends it, and wait for whoever reads the next line. Must not
//! know: lines, screens. Start at [`Keyboard::new`].

use std::io::Read as _;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use super::pipe::Input;
use super::visit::Visit;

/// Ctrl-C.
pub(super) const INTERRUPT: u8 = 0x03;
/// Exit code of what it ends: as after SIGINT.
const INTERRUPTED: u8 = 130;
/// Keys that may wait: as many as the kernel keeps.
const WAITING: usize = 4095;

/// What Ctrl-C ends.
type Running = Arc<Mutex<Option<Visit>>>;

/// The keys of a terminal.
pub(super) struct Keyboard {
    typed: Receiver<u8>,
    running: Running,
}

impl Keyboard {
    /// Reads keys from there until they end.
    pub(super) fn new(keys: Input) -> Self {
        let (into, typed) = sync_channel(WAITING);
        let running = Running::default();
        let ended = Arc::clone(&running);
        std::thread::spawn(move || watch(keys, &into, &ended));
        Self { typed, running }
    }

    /// The next key; `None`: nobody is there any more.
    pub(super) fn key(&self) -> Option<u8> {
        self.typed.recv().ok()
    }

    /// Lets Ctrl-C end the visit while something runs; says whether it did.
    pub(super) fn watched<T>(&self, visit: &Visit, run: impl FnOnce() -> T) -> (T, bool) {
        let set = |now| *self.running.lock().unwrap_or_else(PoisonError::into_inner) = now;
        set(Some(visit.clone()));
        let made = run();
        set(None);
        let interrupted = visit.is_cut() == Some(INTERRUPTED);
        (made, interrupted)
    }
}

fn watch(mut keys: Input, into: &SyncSender<u8>, running: &Running) {
    let mut block = [0; 512];
    // What can't be read any more is the end.
    while let Ok(read @ 1..) = keys.read(&mut block) {
        for key in &block[..read] {
            let running = running.lock().unwrap_or_else(PoisonError::into_inner);
            if let (INTERRUPT, Some(visit)) = (*key, &*running) {
                visit.cut(INTERRUPTED);
                continue;
            }
            drop(running);
            if into.send(*key).is_err() {
                return;
            }
        }
    }
}
