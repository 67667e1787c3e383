//! One reading of an image for several takers.
//!
//! Purpose: an image that goes to four nodes is decoded once, and the four take the very same bytes in memory. Whoever is
//! slow, late or gone holds nobody back: one that doesn't take its bytes in time is left to decode on its own, from
//! where it is.
//! Must not know: what the bytes are, where they go.
//!
//! Memory stays bounded: takers share their chunks, and the reader is never more than [`AHEAD`] chunks before the slowest
//! taker that it waits for.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// Chunks that may wait for a taker, up to 1 MiB each.
const AHEAD: usize = 4;
/// How long the others are waited for before the reading begins.
const GATHER: Duration = Duration::from_secs(1);
/// How long one that doesn't take its chunks is waited for.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often it is looked whether a slow one takes again.
const LOOK: Duration = Duration::from_millis(2);

/// Gives all chunks in order to a function, and stops when it says so.
pub(super) type Producer = dyn Fn(&mut dyn FnMut(Bytes) -> Result<(), GivenUp>) -> io::Result<()> + Send + Sync;

/// Nobody takes any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp;

/// What several take. Clones are the same.
#[derive(Clone)]
pub struct Fanout {
    shared: Arc<Shared>,
}

struct Shared {
    producer: Box<Producer>,
    /// How many are expected.
    expected: usize,
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<SyncSender<io::Result<Bytes>>>,
    phase: Phase,
    readings: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Gathering,
}

/// The chunks, for one taker. Blocking.
pub struct Chunks {
    shared: Arc<Shared>,
    from: Receiver<io::Result<Bytes>>,
    taken: usize,
    /// The end was reached, or an error told.
    over: bool,
}

impl std::fmt::Debug for Fanout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fanout").field("expected", &self.shared.expected).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Chunks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunks").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl Fanout {
    /// For so many takers. The producer gives the same chunks every time, or an error.
    pub fn new(
        expected: usize,
        producer: impl Fn(&mut dyn FnMut(Bytes) -> Result<(), GivenUp>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let (state, arrived) = (Mutex::default(), Condvar::new());
        Self { shared: Arc::new(Shared { producer: Box::new(producer), expected, state, arrived }) }
    }

    /// A taker. The first one begins to read, as soon as the expected ones are here or a second has passed; one who comes
    /// after that has the image read for itself, with whoever comes at the same time.
    pub fn join(&self) -> io::Result<Chunks> {
        let (send, from) = sync_channel(AHEAD);
        let first = {
            let mut state = self.shared.state();
            state.waiting.push(send);
            let first = state.phase == Phase::Idle;
            state.phase = Phase::Gathering;
            first
        };
        self.shared.arrived.notify_all();
        if first {
            let shared = self.shared.clone();
            std::thread::Builder::new().name("fanout".to_owned()).spawn(move || shared.read())?;
        }
        Ok(Chunks { shared: self.shared.clone(), from, taken: 0, over: false })
    }

    /// How many times the image was read so far.
    pub fn readings(&self) -> usize {
        self.shared.state().readings
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the others, then reads for all that are here.
    fn read(&self) {
        let until = Instant::now() + GATHER;
        let mut state = self.state();
        // After the first reading those who come were left behind or are late: nobody else is expected.
        while state.readings == 0 && state.waiting.len() < self.expected {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.arrived.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let mut takers: Vec<Taker> = state.waiting.drain(..).map(|to| Taker { to, has: false }).collect();
        state.phase = Phase::Idle;
        state.readings += 1;
        drop(state);
        let ended = (self.producer)(&mut |chunk| {
            hand_out(&mut takers, &chunk);
            if takers.is_empty() { Err(GivenUp) } else { Ok(()) }
        });
        if let Err(error) = ended {
            let text = chain(&error);
            for taker in takers {
                // One that is gone needs no error.
                let _unread = taker.to.send(Err(io::Error::other(text.clone())));
            }
        } else {
            for taker in takers {
                // An empty chunk is the end: a channel that just closes is one that was left behind.
                let _unread = taker.to.send(Ok(Bytes::new()));
            }
        }
    }
}

/// An error with its causes in one line: each taker gets its own copy.
fn chain(error: &io::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

struct Taker {
    to: SyncSender<io::Result<Bytes>>,
    has: bool,
}

/// Gives a chunk to all; those who are gone, or don't take it in time while others do, are left out from then on.
fn hand_out(takers: &mut Vec<Taker>, chunk: &Bytes) {
    if let [only] = &takers[..] {
        // It holds nobody back.
        if only.to.send(Ok(chunk.clone())).is_err() {
            takers.clear();
        }
        return;
    }
    let until = Instant::now() + PATIENCE;
    loop {
        takers.retain_mut(|taker| {
            taker.has
                || match taker.to.try_send(Ok(chunk.clone())) {
                    Ok(()) => {
                        taker.has = true;
                        true
                    }
                    Err(TrySendError::Full(_)) => true,
                    Err(TrySendError::Disconnected(_)) => false,
                }
        });
        let served = takers.iter().filter(|taker| taker.has).count();
        if served > 0 && served < takers.len() && Instant::now() >= until {
            takers.retain(|taker| taker.has);
        }
        if takers.iter().all(|taker| taker.has) {
            for taker in &mut takers[..] {
                taker.has = false;
            }
            return;
        }
        std::thread::sleep(LOOK);
    }
}

impl Chunks {
    /// The next chunk; none at the end.
    pub fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if self.over {
                return Ok(None);
            }
            match self.from.recv() {
                Ok(Ok(chunk)) if chunk.is_empty() => self.over = true,
                Ok(Ok(chunk)) => {
                    self.taken += 1;
                    return Ok(Some(chunk));
                }
                Ok(Err(error)) => {
                    self.over = true;
                    return Err(error);
                }
                // Left behind: the image is read once more, and what was taken is passed over.
                Err(_) => {
                    let again = Fanout { shared: self.shared.clone() }.join()?;
                    self.from = again.from;
                    for _ in 0..self.taken {
                        match self.from.recv() {
                            Ok(Ok(chunk)) if !chunk.is_empty() => {}
                            Ok(Err(error)) => return Err(error),
                            _ => return Err(io::Error::other("the image was not read again to where it was left")),
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn numbers(expected: usize, count: u32) -> Fanout {
        Fanout::new(expected, move |each| {
            for number in 0..count {
                if each(Bytes::copy_from_slice(&number.to_le_bytes())).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    fn all(mut chunks: Chunks) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        while let Some(chunk) = chunks.next_chunk()? {
            numbers.push(u32::from_le_bytes(chunk[..].try_into().unwrap()));
        }
        Ok(numbers)
    }

    #[test]
    fn all_who_come_together_get_everything_from_one_reading() {
        let fanout = numbers(4, 100);
        let takers: Vec<_> = (0..4).map(|_| fanout.join().unwrap()).collect();
        let takers: Vec<_> = takers.into_iter().map(|chunks| std::thread::spawn(move || all(chunks))).collect();
        for taker in takers {
            assert_eq!(taker.join().unwrap().unwrap(), (0..100).collect::<Vec<_>>());
        }
        assert_eq!(fanout.readings(), 1);
    }

    #[test]
    fn one_who_leaves_and_one_who_stalls_hold_nobody_back() {
        let fanout = numbers(3, 100);
        let mut stalls = fanout.join().unwrap();
        let leaves = fanout.join().unwrap();
        let goes_on = fanout.join().unwrap();
        drop(leaves);
        assert_eq!(stalls.next_chunk().unwrap().unwrap()[..], 0_u32.to_le_bytes());
        // It takes nothing while the other takes all.
        assert_eq!(all(goes_on).unwrap().len(), 100);
        // And gets all the same, in order.
        assert_eq!(all(stalls).unwrap(), (1..100).collect::<Vec<_>>());
        assert_eq!(fanout.readings(), 2);
    }

    #[test]
    fn one_who_comes_later_has_it_read_again() {
        let fanout = numbers(1, 10);
        for readings in 1..=2 {
            assert_eq!(all(fanout.join().unwrap()).unwrap().len(), 10);
            assert_eq!(fanout.readings(), readings);
        }
    }

    #[test]
    fn an_error_reaches_all_and_a_reading_without_takers_ends() {
        let failing = Fanout::new(2, |each| {
            let _taken = each(Bytes::from_static(b"half"));
            Err(io::Error::other("the image is damaged"))
        });
        let (mut one, mut other) = (failing.join().unwrap(), failing.join().unwrap());
        for taker in [&mut one, &mut other] {
            assert_eq!(taker.next_chunk().unwrap().unwrap()[..], *b"half");
            assert!(taker.next_chunk().unwrap_err().to_string().contains("damaged"));
        }
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        let endless = Fanout::new(1, move |each| {
            while each(Bytes::from_static(b"x")).is_ok() {
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(())
        });
        drop(endless.join().unwrap());
        let (ended, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut chunks = endless.join().unwrap();
            let _some = ended.send(chunks.next_chunk().is_ok());
        });
        assert!(wait.recv_timeout(Duration::from_secs(20)).unwrap());
    }
}
