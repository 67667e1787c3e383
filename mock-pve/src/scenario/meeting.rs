//! A request on its way through the scenario.
//!
//! Purpose: what every protocol does the same way: waits as long as the scenario wants, and learns what is to go wrong.
//! Must not know: any protocol. Start at [`Met::with`].

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::world::World;
use crate::world::script::{Answered, Ask, Ends, Fault, When};

/// What is to go wrong with a request, after all waiting.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Met {
    /// That answer, and nothing is done.
    pub status: Option<(u16, String)>,
    /// The connection breaks then.
    pub reset: Option<When>,
    /// The connection is turned away.
    pub refused: bool,
    /// So many bytes of the data are to be changed.
    pub corrupt: u64,
    /// So many messages at the end of a stream are to be missing, and how it ends.
    pub short: Option<(usize, Ends)>,
}

impl Met {
    /// Shows a request or connection to the scenario and waits as it says. At once where there is none.
    pub async fn with(world: &World, ask: &Ask<'_>) -> Self {
        let mut met = Self::default();
        let Some(script) = world.script() else { return met };
        let (faults, latency) = (script.meet(ask), script.latency(ask.service));
        if latency > 0.0 {
            world.clock().sleep(latency).await;
        }
        for fault in faults {
            match fault {
                Fault::Stall(seconds) => world.stall(seconds).await,
                Fault::Status { code, reason } => met.status = met.status.or(Some((code, reason))),
                Fault::Reset(when) => met.reset = met.reset.or(Some(when)),
                Fault::Refuse => met.refused = true,
                Fault::Corrupt(bytes) => met.corrupt += bytes,
                Fault::Short { messages, ends } => met.short = met.short.or(Some((messages, ends))),
                Fault::Task { .. } => {}
            }
        }
        met
    }

    /// The connection breaks before anything is done.
    pub fn breaks_before(&self) -> bool {
        self.refused || self.reset == Some(When::Before)
    }

    /// The connection breaks instead of the answer.
    pub fn breaks_after(&self) -> bool {
        self.reset == Some(When::After)
    }

    /// Changes what is to arrive changed: the last bytes of a piece, which are data in every protocol.
    pub fn touch(&mut self, piece: Bytes) -> Bytes {
        if self.corrupt == 0 || piece.is_empty() {
            return piece;
        }
        let most = 1 + piece.len() / 16;
        let count = usize::try_from(self.corrupt).unwrap_or(most).min(most);
        let mut changed = BytesMut::from(&piece[..]);
        let length = changed.len();
        changed[length - count..].iter_mut().for_each(|byte| *byte ^= 0xA5);
        self.corrupt -= count as u64;
        changed.freeze()
    }
}

/// A request that will be logged.
#[derive(Debug)]
pub struct Meeting {
    /// What is known of it so far.
    pub record: Answered,
    began: Instant,
}

impl Meeting {
    /// Begins now.
    pub fn new(record: Answered) -> Self {
        Self { record, began: Instant::now() }
    }

    /// It was answered: tells the log.
    pub fn ends(mut self, world: &World, status: u16, bytes: u64) {
        (self.record.status, self.record.bytes) = (status, bytes);
        self.record.ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        world.answered(&self.record);
    }
}
