//! etcd again, from a snapshot.

use std::path::PathBuf;
use std::time::Duration;

use super::Counted;
use crate::backup::{self, Proof};
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::net::Meter as _;
use crate::plan::data::SnapshotSource;
use crate::plan::{Data, Output};
use crate::steps::World;
use crate::steps::classify::{by_talos, refused, wrong};
use crate::talos::client::etcd::Recovery;
use crate::talos::client::{Attempt, TalosError};
use crate::types::{MachineName, Sha256, StepId};

impl World {
    /// On exactly one machine, once, from a snapshot that is proven right before. As with a fresh bootstrap, data that are
    /// there already are those of an attempt of this run whose answer was lost.
    pub(in crate::steps) async fn recover_etcd(
        &self,
        name: &MachineName,
        at: &StepId,
        source: &SnapshotSource,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("recover etcd on {name}");
        let (file, sha256) = snapshot_of(&doing, source, cx)?;
        let path = file.clone();
        let proof = tokio::task::spawn_blocking(move || backup::prove(&path)).await;
        let proof = proof.map_err(|error| StepError::new(Class::Transient, &doing, error))?.map_err(|error| {
            let hints = error.hints();
            let refusal = StepError::new(Class::Refused, &doing, error);
            hints.into_iter().fold(refusal, StepError::hinted).hinted("put a sound copy of it there, then resume")
        })?;
        if proof.sha256 != sha256 {
            return Err(refused(
                &doing,
                format!(
                    "{} is not the snapshot that was saved: its digest is {}, and was {sha256}",
                    file.display(),
                    proof.sha256
                ),
            )
            .hinted("put the right one back, then resume"));
        }
        let machine = self.machine_at(&doing, at, cx)?;
        let bytes = tokio::fs::File::open(&file).await;
        let bytes = bytes.map_err(|error| StepError::new(Class::Permanent, &doing, error))?;
        let meter = Counted(cx.counter("upload"));
        meter.total(proof.bytes);
        let limit = Duration::from_secs(self.plan.limits.boot);
        match machine.etcd_recover(bytes, &meter).await {
            // In the second case it has data already: an attempt of this run got through, and its answer was lost.
            Ok(()) | Err(TalosError::AlreadyExists { .. }) => {}
            Err(error) => return Err(by_talos(&doing, error)),
        }
        machine
            .bootstrap(Recovery::Snapshot, Attempt::Repeated, limit)
            .await
            .map_err(|error| by_talos(&doing, error))?;
        self.await_etcd(&doing, &machine, limit, cx).await?;
        Ok(restored(&proof))
    }

    /// What the machine was recovered from, when its etcd runs.
    pub(in crate::steps) async fn probe_recovered(
        &self,
        at: &StepId,
        source: &SnapshotSource,
        cx: &StepCx<'_>,
    ) -> Result<Seen, StepError> {
        let doing = "look whether etcd runs";
        match self.probe_bootstrapped(at, cx).await? {
            Seen::Done(_) => {}
            other => return Ok(other),
        }
        let found = match source {
            SnapshotSource::Step(step) => match cx.output_of(step) {
                Some(Output::Snapshot { revision, keys, namespace_uid, .. }) => {
                    Output::Restored { revision: *revision, keys: *keys, namespace_uid: namespace_uid.clone() }
                }
                _ => return Err(wrong(doing, format!("{step} has saved nothing"))),
            },
            SnapshotSource::File { .. } => match &self.plan.data {
                Data::Restore { proof, .. } => Output::Restored {
                    revision: proof.revision,
                    keys: proof.keys,
                    namespace_uid: proof.namespace_uid.clone(),
                },
                _ => return Err(wrong(doing, "the plan restores no file")),
            },
        };
        Ok(Seen::Done(found))
    }
}

fn restored(proof: &Proof) -> Output {
    Output::Restored {
        revision: u64::try_from(proof.revision).unwrap_or_default(),
        keys: proof.keys,
        namespace_uid: proof.namespace_uid.clone(),
    }
}

/// The file to recover from, and the digest it must have.
fn snapshot_of(doing: &str, source: &SnapshotSource, cx: &StepCx<'_>) -> Result<(PathBuf, Sha256), StepError> {
    match source {
        SnapshotSource::File { path, sha256 } => Ok((path.clone(), *sha256)),
        SnapshotSource::Step(step) => match cx.output_of(step) {
            Some(Output::Snapshot { file, sha256, .. }) => Ok((file.clone(), *sha256)),
            _ => Err(wrong(doing, format!("{step} has saved nothing"))),
        },
    }
}
