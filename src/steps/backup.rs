//! Steps that save the old cluster's state, its etcd, and copies of that.
//!
//! What a snapshot must hold to be the last word is decided in `freeze::decide`; that it is sound at all is `backup`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use secrecy::SecretString;
use serde::Serialize;

use super::World;
use super::classify::{by_talos, refused, wrong};
use super::freeze::decide::{Evidence, Way, Worth, judge};
use super::freeze::{Kept, PHASE, kept};
use crate::backup::copy::{self, CopyError, Counts, Local};
use crate::backup::{self, Proof, SnapshotName, Store, StoreError, Target};
use crate::command::{Command, Program};
use crate::engine::{Class, Counter, StepCx, StepError};
use crate::k8s;
use crate::net::Meter;
use crate::plan::data::{CopyTo, OldMachine, Purpose, SnapshotFrom, SnapshotSource};
use crate::plan::{Data, Output};
use crate::pve::vm::VmRef;
use crate::talos::access;
use crate::talos::client::etcd::Recovery;
use crate::talos::client::{Attempt, Download, Machine, TalosError};
use crate::types::{MachineName, Role, Sha256, StepId};

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

    pub(super) async fn copy_snapshot(
        &self,
        snapshot: &StepId,
        to: &CopyTo,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("copy the snapshot to {to}");
        let Some(Output::Snapshot { file, .. }) = cx.output_of(snapshot) else {
            return Err(wrong(doing, format!("{snapshot} has saved nothing")));
        };
        if self.commands.are_recorded() && !matches!(to, CopyTo::Path(_)) {
            return self.record_copy(&doing, to, cx).await;
        }
        let target = match to.clone() {
            CopyTo::Path(path) => Target::Path(path),
            CopyTo::Ssh { host, path } => Target::Ssh { host, path },
            CopyTo::Command { save, read } => Target::Command { save, read },
        };
        let folder = self.files.profile.parent().filter(|folder| !folder.as_os_str().is_empty());
        let local = Local::new(folder.unwrap_or(Path::new("."))).of(file);
        let remote = match &target {
            Target::Ssh { host, .. } => {
                let opened = self.shells.host(&self.connector, host).await;
                Some(opened.map_err(|error| super::classify::by_ssh(&doing, error))?)
            }
            _ => None,
        };
        let way = copy::Way { devices: self.devices, local: &local, remote: remote.as_ref() };
        let copied = copy::copy(file, &target, way).await.map_err(|error| by_copy(&doing, error))?;
        let required = matches!(&self.plan.data, Data::Keep(keep) if keep.require_copy);
        match copied.counts {
            Counts::Yes => {}
            Counts::SameDevice => {
                return Err(refused(doing, format!("{} lies on the same device as the snapshot", copied.place))
                    .hinted("one disk fails once: name a folder on another disk in backup.copies"));
            }
            Counts::NotReadBack if required => {
                return Err(refused(doing, "it can't be read back, and guards.require_copy wants a copy that was")
                    .hinted("give the copy a `read` command"));
            }
            Counts::NotReadBack => cx.notice(format!("{to} can't be read back: it doesn't count as a second copy")),
        }
        Ok(Output::Copy { place: copied.place })
    }

    /// A rehearsal reaches nobody's shell: what would be run is written down.
    async fn record_copy(&self, doing: &str, to: &CopyTo, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let command = Command {
            what: doing.to_owned(),
            program: Program::Shell(to.to_string()),
            folder: None,
            env: Vec::new(),
            stdin: None,
            within: Duration::from_secs(1),
        };
        let recorded = self.commands.run(&command, cx.cancelled()).await;
        recorded.map_err(|error| StepError::new(Class::Permanent, doing, error))?;
        Ok(Output::Copy { place: format!("{to} (recorded, not made)") })
    }

    /// Versions, members, nodes, configurations, readiness: 0600, for whoever has to repair something later.
    pub(super) async fn save_before(&self, machines: &[OldMachine], cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "save the state of the old cluster";
        let dir = self.files.run.join("before");
        let control: Vec<OldMachine> = machines.iter().filter(|old| old.role == Role::ControlPlane).cloned().collect();
        let members = self.sound(doing, &control, None, cx).await?;
        let listed: BTreeMap<&str, String> =
            members.iter().map(|member| (member.name.as_str(), format!("{:016x}", member.id))).collect();
        keep_json(&dir.join("members.json"), &listed)?;
        let mut versions = BTreeMap::new();
        for old in machines {
            let name = &old.vm.name;
            let at = VmRef::new(old.vm.node.clone(), old.vm.vmid);
            let config = self.pve.vm_config(&at).await.map_err(|error| super::classify::by_pve(doing, error))?;
            keep_json(&dir.join("vms").join(format!("{}.json", old.vm.vmid)), &config.keys)?;
            let Some(address) = old.address else { continue };
            let machine = self.machine(doing, address)?;
            let release = machine.release().await.map_err(|error| by_talos(doing, error))?;
            versions.insert(name.clone(), release.version.to_string());
            if let Some(config) = machine.config().await.map_err(|error| by_talos(doing, error))? {
                keep(&dir.join("machines").join(format!("{name}.yaml")), &config)?;
            }
        }
        self.save_kubernetes(doing, &control, &dir, &mut versions).await?;
        keep_json(&dir.join("versions.json"), &versions)?;
        let members = members.iter().map(|member| format!("{:016x}", member.id)).collect();
        Ok(Output::Before { dir, members })
    }

    async fn save_kubernetes(
        &self,
        doing: &str,
        control: &[OldMachine],
        dir: &Path,
        versions: &mut BTreeMap<String, String>,
    ) -> Result<(), StepError> {
        let by_api = |error: k8s::K8sError| {
            let class = if error.is_transient() { Class::Transient } else { Class::Permanent };
            StepError::new(class, doing, error)
        };
        let Some(address) = control.iter().find_map(|old| old.address) else { return Ok(()) };
        let kubeconfig = self.machine(doing, address)?.kubeconfig().await.map_err(|error| by_talos(doing, error))?;
        let client = k8s::Client::new(&self.connector, &kubeconfig).map_err(by_api)?;
        versions.insert("kubernetes".to_owned(), client.version().await.map_err(by_api)?.to_string());
        let nodes = client.nodes().await.map_err(by_api)?;
        let nodes: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                serde_json::json!({
                    "name": node.name,
                    "ready": node.ready.is_ok(),
                    "kubelet": node.kubelet,
                    "boot_id": node.boot_id,
                    "unschedulable": node.unschedulable,
                })
            })
            .collect();
        keep_json(&dir.join("nodes.json"), &nodes)?;
        keep_json(&dir.join("workloads.json"), &client.workloads().await.map_err(by_api)?)
    }

    /// On exactly one machine, once, from a snapshot that is proven right before. As with a fresh bootstrap, data that are
    /// there already are those of an attempt of this run whose answer was lost.
    pub(super) async fn recover_etcd(
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
    pub(super) async fn probe_recovered(
        &self,
        at: &StepId,
        source: &SnapshotSource,
        cx: &StepCx<'_>,
    ) -> Result<crate::engine::Seen, StepError> {
        use crate::engine::Seen;
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

fn by_copy(doing: &str, error: CopyError) -> StepError {
    let class = match &error {
        // The proof of backup includes its second copy: without it nothing goes on.
        CopyError::Differs { .. } | CopyError::Failed { .. } => Class::Refused,
        CopyError::Shell { .. } => Class::Transient,
        _ => Class::Permanent,
    };
    let hints = error.hints();
    hints.into_iter().fold(StepError::new(class, doing, error), StepError::hinted)
}

fn keep(path: &Path, text: &SecretString) -> Result<(), StepError> {
    let failed = |error| StepError::new(Class::Permanent, format!("write {}", path.display()), error);
    access::write_private(path, text).map(drop).map_err(failed)
}

fn keep_json(path: &Path, content: &impl Serialize) -> Result<(), StepError> {
    let text = serde_json::to_string_pretty(content)
        .map_err(|error| StepError::new(Class::Permanent, format!("write {}", path.display()), error))?;
    keep(path, &SecretString::from(text + "\n"))
}
