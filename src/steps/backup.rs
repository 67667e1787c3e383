//! Steps that save the old cluster's etcd and its state (`before`), copy what was saved (`copy`), and bring etcd back from
//! it (`recover`).
//!
//! What a snapshot must hold to be the last word is decided in `freeze::decide`; that it is sound at all is `backup`'s.

mod before;
mod copy;
mod recover;

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};

use super::World;
use super::classify::{by_talos, refused, wrong};
use super::freeze::decide::{Evidence, Way, Worth, judge};
use super::freeze::{Kept, PHASE, kept};
use crate::backup::{self, Proof, SnapshotName, Store, StoreError};
use crate::engine::{Class, Counter, StepCx, StepError};
use crate::net::Meter;
use crate::plan::Output;
use crate::plan::data::{OldMachine, Purpose, SnapshotFrom};
use crate::talos::client::{Download, Machine, TalosError};
use crate::types::{MachineName, StepId};

/// Etcd's database on a control plane (Talos, `pkg/machinery/constants`, and etcd's own layout).
const DATABASE: &str = "/var/lib/etcd/member/snap/db";

/// How often a snapshot is taken again that does not end with the last entry yet: etcd writes its index in batches.
const TAKES: u32 = 10;

/// Between two snapshots. Names hold seconds.
const PAUSE: Duration = Duration::from_millis(1100);

/// Reports bytes to the run's events.
struct Counted<'a>(Counter<'a>);

impl Meter for Counted<'_> {
    fn add(&self, bytes: u64) {
        self.0.add(bytes);
    }

    fn total(&self, bytes: u64) {
        self.0.total(bytes);
    }
}

/// A snapshot that was received and proven.
struct Taken {
    file: PathBuf,
    proof: Proof,
    at: jiff::Timestamp,
    way: Way,
}

impl Taken {
    fn revision(&self) -> u64 {
        u64::try_from(self.proof.revision).unwrap_or_default()
    }

    fn output(&self, machine: &MachineName) -> Output {
        let Proof { sha256, bytes, keys, namespace_uid, consistent_index, .. } = self.proof.clone();
        Output::Snapshot {
            file: self.file.clone(),
            sha256,
            bytes,
            revision: self.revision(),
            keys,
            namespace_uid,
            taken: self.at,
            machine: machine.clone(),
            ends_at: consistent_index,
        }
    }
}

/// Chunk by chunk, until the machine says that it is over.
fn chunks(download: Download) -> impl Stream<Item = Result<Bytes, TalosError>> {
    stream::try_unfold(download, async |mut download| Ok(download.chunk().await?.map(|chunk| (chunk, download))))
}

fn by_store(doing: &str, error: StoreError) -> StepError {
    let class = match &error {
        // The machine went away, or the stream was cut: another attempt begins anew.
        StoreError::Sender { .. } => Class::Transient,
        StoreError::Unproven(_) => Class::Refused,
        _ => Class::Permanent,
    };
    let hints = error.hints();
    hints.into_iter().fold(StepError::new(class, doing, error), StepError::hinted)
}

impl World {
    /// One snapshot from a machine, proven, under a name of its own.
    async fn take(
        &self,
        doing: &str,
        machine: &Machine,
        (dir, purpose, way): (&Path, Purpose, Way),
        cx: &StepCx<'_>,
    ) -> Result<Taken, StepError> {
        let store = Store::open(dir).map_err(|error| by_store(doing, error))?;
        let (taken, run) = (cx.now(), Some(cx.run_id().clone()));
        let purpose = match purpose {
            Purpose::Before => backup::Purpose::Before,
            Purpose::Final => backup::Purpose::Final,
        };
        let mut name = SnapshotName { purpose, taken, run };
        // Names count seconds, and what an attempt of this very second left is not overwritten.
        while store.path_of(&name).exists() {
            name.taken += Duration::from_secs(1);
        }
        let meter = Counted(cx.counter("snapshot"));
        let received = match way {
            Way::Api => {
                let download = machine.etcd_snapshot().await.map_err(|error| by_talos(doing, error))?;
                store.receive(&name, chunks(download), &meter).await
            }
            Way::File => {
                let download = machine.read(DATABASE).await.map_err(|error| by_talos(doing, error))?;
                store.receive_database(&name, chunks(download), &meter).await
            }
        };
        let (file, proof) = received.map_err(|error| by_store(doing, error))?;
        Ok(Taken { file, proof, at: taken, way })
    }

    pub(super) async fn save_snapshot(
        &self,
        purpose: Purpose,
        from: &SnapshotFrom,
        dir: &Path,
        since: Option<&StepId>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        match from {
            SnapshotFrom::Leader(machines) => self.save_first(purpose, machines, dir, cx).await,
            SnapshotFrom::Kept(step) => self.save_last(step, purpose, dir, since, cx).await,
        }
    }

    /// The proof of backup, from etcd's leader: a follower may lag.
    async fn save_first(
        &self,
        purpose: Purpose,
        machines: &[OldMachine],
        dir: &Path,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "save a snapshot of etcd";
        let mut last = wrong(doing, "the address of no control plane is known");
        for old in machines {
            let Some(address) = old.address else { continue };
            let machine = self.machine(doing, address)?;
            match machine.etcd_status().await {
                Ok(status) if status.leader == status.id => {
                    let taken = self.take(doing, &machine, (dir, purpose, Way::Api), cx).await?;
                    if taken.proof.namespace_uid.is_none() {
                        return Err(refused(doing, "it holds no Kubernetes cluster (no namespace kube-system)"));
                    }
                    return Ok(taken.output(&MachineName::new(&old.vm.name)));
                }
                Ok(_) => last = StepError::new(Class::Transient, doing, "no control plane leads etcd right now"),
                Err(error) => last = by_talos(doing, error),
            }
        }
        Err(last)
    }

    /// The last word of etcd: from the kept member, while nothing can be committed, and judged.
    async fn save_last(
        &self,
        step: &StepId,
        purpose: Purpose,
        dir: &Path,
        since: Option<&StepId>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "save the final snapshot of etcd";
        let kept = kept(doing, step, cx)?;
        let machine = self.machine(doing, kept.address)?;
        let (revision_before, uid_before) = match since.and_then(|step| cx.output_of(step)) {
            Some(Output::Snapshot { revision, namespace_uid, .. }) => (*revision, namespace_uid.clone()),
            _ => return Err(wrong(doing, "there is no snapshot from before to compare with")),
        };
        let mut early = String::new();
        for number in 0..TAKES {
            if number > 0 {
                cx.waiting("etcd to write down its last entry", Some(&early));
                cx.sleep(PAUSE).await;
            }
            let taken = self.take_last(doing, &kept, &machine, (dir, purpose), cx).await?;
            let after = self.kept_says(&machine).await.map_err(|error| by_talos(doing, error))?;
            let worth = judge(&Evidence {
                promise: &kept.promise,
                last: (!kept.alone).then_some(kept.promise.applied),
                after: &after,
                way: taken.way,
                ends_at: taken.proof.consistent_index.map(|index| (index, taken.proof.term)),
                revision: taken.revision(),
                revision_before,
                cluster: (uid_before.as_deref(), taken.proof.namespace_uid.as_deref()),
            });
            if worth != Worth::Final {
                // Its name says that it is the last word, and it isn't.
                let _gone = std::fs::remove_file(&taken.file);
            }
            match worth {
                Worth::Final => return Ok(taken.output(kept.machine)),
                Worth::TooEarly(why) => early = why,
                Worth::Broken(why) => return Err(refused(doing, why).reopening(PHASE)),
                Worth::Refused(why) => return Err(refused(doing, why).hinted("what was shut down is started again")),
            }
        }
        Err(wrong(doing, early).hinted("what was shut down is started again"))
    }

    /// By etcd's own call; where the member refuses that without quorum, as a file of its machine.
    async fn take_last(
        &self,
        doing: &str,
        kept: &Kept<'_>,
        machine: &Machine,
        (dir, purpose): (&Path, Purpose),
        cx: &StepCx<'_>,
    ) -> Result<Taken, StepError> {
        let first = match self.take(doing, machine, (dir, purpose, Way::Api), cx).await {
            Ok(taken) => return Ok(taken),
            Err(error) if kept.alone => return Err(error),
            Err(error) => error,
        };
        cx.notice(format!("etcd gives no snapshot without quorum ({}): its database is read as a file", first.source));
        // One second later: the first attempt may have used the name.
        cx.sleep(PAUSE).await;
        self.take(doing, machine, (dir, purpose, Way::File), cx).await
    }
}
