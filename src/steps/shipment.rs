//! Images as they travel: each decoded once for all nodes that take it at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Mutex;

use crate::image::{Cached, Fanout, Inspected, Limits, Qcow2, Qcow2Error, extents};
use crate::types::{Sha256, StepId};

/// The images of a run, by their address, and how they travel, by what is in them.
#[derive(Debug, Default)]
pub struct Looked {
    /// In the cache, with what is in them: decoded once in a process, although several steps need it.
    pub(super) images: Mutex<BTreeMap<String, Arc<(Cached, Inspected)>>>,
    uploads: Mutex<BTreeMap<Sha256, Arc<Upload>>>,
    streams: Mutex<BTreeMap<Sha256, Fanout>>,
    /// How much of each volume is on its node's disk, as its last receiver told.
    settled: std::sync::Mutex<BTreeMap<StepId, u64>>,
}

/// An image as a qcow2 file that several nodes may take at once.
#[derive(Debug)]
pub(super) struct Upload {
    pub(super) qcow2: Qcow2,
    pub(super) fanout: Fanout,
}

impl Looked {
    /// The image as a qcow2, laid out and hashed once.
    pub(super) async fn qcow2(
        &self,
        image: &Arc<(Cached, Inspected)>,
        takers: usize,
    ) -> Result<Arc<Upload>, Qcow2Error> {
        let mut known = self.uploads.lock().await;
        let (cached, inspected) = &**image;
        if let Some(found) = known.get(&cached.sha256) {
            return Ok(found.clone());
        }
        let qcow2 = Qcow2::prepare(&cached.path, inspected.clone(), Limits::default()).await?;
        let fanout = qcow2.fanout(takers);
        let made = Arc::new(Upload { qcow2, fanout });
        known.insert(cached.sha256, made.clone());
        Ok(made)
    }

    /// The image as receivers take it.
    pub(super) async fn extents(&self, image: &Arc<(Cached, Inspected)>, takers: usize) -> Fanout {
        let (cached, inspected) = &**image;
        let mut known = self.streams.lock().await;
        let made = || extents(&cached.path, inspected.content, Limits::default(), takers);
        known.entry(cached.sha256).or_insert_with(made).clone()
    }

    /// Where the receiver of this step may go on.
    pub(super) fn settled(&self, step: &StepId) -> u64 {
        let known = self.settled.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(step).copied().unwrap_or(0)
    }

    /// How far the receiver of this step came; 0 forgets it.
    pub(super) fn settle(&self, step: &StepId, at: u64) {
        self.settled.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(step.clone(), at);
    }
}
