//! The complete vocabulary of what a run can do, as data.
//!
//! Purpose: a step can be shown, linted, journaled, resumed and tested without a cluster. It holds names, numbers and
//! digests; never a handle, a secret or a time of day.
//! Must not know: clients, clocks, files.
//! Adding a variant makes the compiler list every place that has to know it: `title`, lint, `steps::probe`, `steps::apply`.

mod errand;
mod image;
mod machine;
mod output;
mod title;
mod vm;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::compatibility::Runs;
use super::data::{CopyTo, HaState, OldMachine, Purpose, SnapshotFrom, SnapshotSource};
use super::kubernetes::{Component, Leftover, LiveMachine, ManifestWay, NodeImage};
use super::upgrade::{By, Manner, Member, Release};
use crate::types::{Mac, MachineName, NodeName, SchematicId, Sha256, StepId, StorageId, Version, VmId};

pub use errand::{Contexts, ManifestFile, Manifests, Moment};
pub use image::{Image, NodeVolume, Unwritten};
pub use machine::{Discovery, ExpectedMachine, MachineSpec, PatchAt};
pub use output::Output;
pub use vm::{HaCare, Hardware, OurVm, VmIdentity};

/// One thing to do. Its ids, names, numbers and marks are fixed in the plan, so that a repeated step finds its own
/// earlier work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Reads the plan's listed facts again and stops where one has drifted.
    ConfirmFacts,
    /// Brings the image into the cache, whole and verified.
    FetchImage {
        /// What to fetch.
        image: Image,
    },
    /// Sends the image's content to a node as a synthesised qcow2, with content type `import`.
    UploadImage {
        /// The step that fetched it.
        fetched: StepId,
        /// Target node.
        node: NodeName,
        /// A storage there with content type `import`.
        storage: StorageId,
        /// File name there, unique to this run.
        file: String,
    },
    /// Has a node fetch the image from the factory itself, as a qcow2 whose digest is known, with content type `import`.
    PullImage {
        /// What it fetches.
        image: Image,
        /// The step that fetched the same file here, where no digest was known before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<StepId>,
        /// The node.
        node: NodeName,
        /// A storage there with content type `import`.
        storage: StorageId,
        /// File name there, unique to this run.
        file: String,
        /// What is uploaded under that name when the node can't fetch it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        instead: Option<Image>,
    },
    /// Allocates an empty volume for the image on a node, with the node's own tools.
    AllocateVolume {
        /// The step that fetched the image: it knows the disk's size.
        fetched: StepId,
        /// The volume.
        volume: NodeVolume,
    },
    /// Writes the image's content straight into the volume over SSH, and has it read back.
    StreamImage {
        /// The step that fetched it.
        fetched: StepId,
        /// The volume.
        volume: NodeVolume,
        /// What the volume holds before.
        unwritten: Unwritten,
    },
    /// Frees a volume that this run allocated and no VM has.
    FreeVolume {
        /// The volume.
        volume: NodeVolume,
    },
    /// Creates the VM that becomes the template, importing the uploaded disk or taking the volume that was written.
    CreateTemplate {
        /// The VM; its mark names the schematic and version as well.
        vm: OurVm,
        /// Its whole configuration, without the description.
        hardware: Hardware,
    },
    /// Turns the VM into a template and reads it back: flag, disk, boot order, tags, fingerprint.
    SealTemplate {
        /// The VM.
        vm: OurVm,
        /// Fingerprint that its configuration must have (`plan::fingerprint`).
        fingerprint: Sha256,
    },
    /// Marks a template of this run as one whose canaries were right. Only such a template is used by later runs.
    PassTemplate {
        /// The template.
        vm: OurVm,
    },
    /// Removes an uploaded image file again.
    RemoveUpload {
        /// Node.
        node: NodeName,
        /// Storage.
        storage: StorageId,
        /// File name, unique to this run.
        file: String,
    },
    /// Makes a full clone of a template, named and marked in the same call.
    CloneVm {
        /// The template's number.
        template: VmId,
        /// Where the template lives, when that isn't the new VM's node: its disks are on shared storage then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<NodeName>,
        /// The new VM.
        vm: OurVm,
        /// Where its disks go.
        storage: StorageId,
        /// Pool to create it in.
        pool: Option<String>,
    },
    /// Moves a stopped VM of this run to another node with its disks.
    MigrateVm {
        /// The VM, on the node that it leaves.
        vm: OurVm,
        /// Where it goes.
        target: NodeName,
    },
    /// Gives a VM of this run the firewall of the one that it replaces.
    SetFirewall {
        /// The VM.
        vm: OurVm,
        /// `enable`, `policy_in` and the like.
        options: Hardware,
        /// The rules from the first to the last, in PVE's keys.
        rules: Vec<Hardware>,
    },
    /// Puts a VM of this run under the HA manager's care, as the one that it replaces was.
    AddHa {
        /// The VM.
        vm: OurVm,
        /// How.
        care: HaCare,
    },
    /// Sets configuration keys on a VM of this run.
    SetHardware {
        /// The VM.
        vm: OurVm,
        /// Keys to set.
        set: Hardware,
        /// Keys to delete.
        delete: Vec<String>,
    },
    /// Grows a disk to a size; never shrinks one.
    GrowDisk {
        /// The VM.
        vm: OurVm,
        /// Config key of the disk.
        disk: String,
        /// Wanted size in GiB.
        gib: u64,
    },
    /// Starts a VM of this run.
    StartVm {
        /// The VM.
        vm: OurVm,
    },
    /// Finds the machine's address and pins its maintenance certificate: MAC and SMBIOS UUID match the VM's.
    FindMachine {
        /// The VM it runs in.
        vm: OurVm,
        /// Its first NIC.
        mac: Mac,
        /// Where to look.
        discovery: Vec<Discovery>,
    },
    /// Checks that what booted is what the configurations expect, and that they validate there. Nothing is applied.
    ProveCanary {
        /// The step that found its address.
        found: StepId,
        /// Version it must run.
        version: Version,
        /// Schematic it must be made from.
        schematic: SchematicId,
        /// Block device that must be the system disk, `/dev/sda`.
        install_disk: String,
        /// Configurations to validate, in dry run.
        configs: Vec<MachineSpec>,
    },
    /// Stops and deletes a VM that this run made (a canary, a half-made template).
    DeleteOurVm {
        /// The VM.
        vm: OurVm,
    },
    /// Saves what may be needed to understand or repair the old cluster: versions, members, nodes, configurations of
    /// machines and VMs, which workloads are ready. Refuses where etcd is not sound.
    SaveBefore {
        /// The old machines.
        machines: Vec<OldMachine>,
    },
    /// Saves a snapshot of etcd and proves it: trailer, database, revision, keys, cluster.
    SaveSnapshot {
        /// What for.
        purpose: Purpose,
        /// From which machine.
        from: SnapshotFrom,
        /// The directory; the name holds purpose, time and run.
        dir: PathBuf,
        /// The step whose snapshot it must not be older than, nor of another cluster.
        since: Option<StepId>,
    },
    /// Copies a snapshot to another place and reads it back from there.
    CopySnapshot {
        /// The step that saved it.
        snapshot: StepId,
        /// Where to.
        to: CopyTo,
    },
    /// Looks whether the proof of backup is young enough to go on; an older one is taken once more.
    ConfirmProof {
        /// The step that made it.
        snapshot: StepId,
        /// Seconds that it may be old.
        max_age: u64,
    },
    /// Looks whether the old cluster is all there, the one that was planned, and sound, right before it is touched.
    ConfirmOld {
        /// Its machines.
        machines: Vec<OldMachine>,
    },
    /// Makes the HA manager leave the old VMs alone.
    IgnoreHa {
        /// Those that it manages, with what it was told.
        resources: Vec<HaState>,
        /// All old machines.
        machines: Vec<OldMachine>,
    },
    /// Gives the old cluster back: HA as it was, then waits until it is healthy.
    RestoreHa {
        /// What the HA manager was told before.
        resources: Vec<HaState>,
        /// The machines to wait for; none where the cluster was not waited for before.
        machines: Vec<OldMachine>,
    },
    /// Shuts control planes down one by one, etcd's leader last and kept, until no write can be acknowledged any more.
    StopMajority {
        /// The control planes.
        machines: Vec<OldMachine>,
        /// The step that saw etcd's members.
        members: StepId,
        /// Seconds until one is stopped the hard way.
        grace: u64,
    },
    /// Shuts the kept control plane down.
    ShutdownKept {
        /// The step that kept it.
        kept: StepId,
        /// The step that saved the final snapshot from it.
        snapshot: StepId,
        /// The control planes.
        machines: Vec<OldMachine>,
        /// Seconds until it is stopped the hard way.
        grace: u64,
    },
    /// Starts old machines again and waits until they do their part.
    StartOld {
        /// They.
        machines: Vec<OldMachine>,
    },
    /// Looks whether the old cluster is still as it was frozen: all stopped, none started since, every disk as planned.
    ConfirmFrozen {
        /// The step that froze it.
        kept: StepId,
        /// The step that saved the final snapshot.
        snapshot: StepId,
    },
    /// Shuts an old machine down: through Talos first, then PVE's `stop` after the grace period.
    ShutdownMachine {
        /// The old VM.
        vm: VmIdentity,
        /// Its machine's address, where known.
        address: Option<IpAddr>,
        /// Seconds until it is stopped the hard way.
        grace: u64,
    },
    /// Deletes an old VM after comparing identity and disks once more. Refuses any other VM.
    RetireVm {
        /// The old VM as it was seen when the plan was made.
        vm: VmIdentity,
        /// Whether PVE forgets its HA resource and replication, without which it deletes no such VM (`purge=1`).
        #[serde(default)]
        purge: bool,
    },
    /// Waits until none of these numbers exists on any node.
    ConfirmGone {
        /// The numbers.
        vmids: Vec<VmId>,
    },
    /// Sends a machine its configuration over the pinned maintenance connection.
    ApplyConfig {
        /// The step that found its address.
        found: StepId,
        /// The configuration's inputs.
        machine: MachineSpec,
    },
    /// Waits until the machine's authenticated API answers with the cluster's CA and the right version.
    AwaitMachine {
        /// The machine.
        machine: MachineName,
        /// The step that found its first address (where it stays when it has no static one).
        found: StepId,
        /// Its static address.
        address: Option<IpAddr>,
        /// Version it must run.
        version: Version,
    },
    /// Bootstraps etcd, on exactly one machine, once.
    BootstrapEtcd {
        /// The machine.
        machine: MachineName,
        /// The step that waited for it.
        at: StepId,
    },
    /// Recovers etcd from a proven snapshot, on exactly one machine, once.
    RecoverEtcd {
        /// The machine.
        machine: MachineName,
        /// The step that waited for it.
        at: StepId,
        /// The snapshot.
        snapshot: SnapshotSource,
    },
    /// Writes the cluster's kubeconfig and talosconfig to the run directory and merges them into the user's files.
    SaveAccess {
        /// A control plane machine.
        machine: MachineName,
        /// The step that waited for it.
        at: StepId,
    },
    /// Waits until Talos' own health checks pass.
    AwaitHealthy {
        /// The steps that waited for the control planes.
        controlplanes: Vec<StepId>,
        /// The steps that waited for the workers.
        workers: Vec<StepId>,
    },
    /// Waits until these machines' Kubernetes nodes are Ready, with the boot id of the new machine, and stay so.
    AwaitNodesReady {
        /// The machines.
        machines: Vec<MachineName>,
        /// Version that the kubelets must report.
        kubernetes: Version,
        /// Seconds that they must stay Ready without a break.
        steady: u64,
    },
    /// Runs a command of the user's with the run as JSON on its stdin; anything but success stops the run.
    RunHook {
        /// When.
        moment: Moment,
        /// For `sh -c`.
        command: String,
    },
    /// Applies manifests to the new cluster, before its nodes must be Ready.
    ApplyManifests {
        /// Where they are.
        from: Manifests,
    },
    /// Runs a command of the user's on the new cluster, before its nodes must be Ready.
    RunCommand {
        /// For `sh -c`, with `KUBECONFIG` and `TALOSCONFIG` of the new cluster.
        command: String,
    },
    /// Confirms that the restored data are there: the snapshot's `kube-system`, and at least its revision.
    ConfirmData {
        /// The step that restored them.
        restored: StepId,
    },
    /// Removes Node objects and etcd members that came back with the data and belong to no machine of the plan.
    RemoveStale {
        /// The step that waited for a control plane.
        at: StepId,
        /// The machines that must be etcd's members.
        controlplanes: Vec<MachineName>,
        /// All machines.
        machines: Vec<MachineName>,
    },
    /// Confirms version, schematic and extensions of every machine, from the machine itself.
    ConfirmMachines {
        /// What each must be.
        machines: Vec<ExpectedMachine>,
    },
    /// Compares which workloads are ready with those that were before. A difference is told and stops nothing.
    CompareWorkloads,
    /// Removes contexts of this cluster from the user's kubeconfig, and from the talosconfig when it is gone for good.
    CleanContexts {
        /// Which.
        which: Contexts,
    },
    /// Commits the profile and its lock, and nothing else.
    CommitFiles {
        /// The message's first line.
        message: String,
        /// Whether the commit is pushed.
        push: bool,
    },
    /// Bootstraps Flux, unless it is there.
    InstallFlux {
        /// The repository's URL.
        repo: String,
        /// The cluster's folder in it.
        path: String,
        /// The branch.
        branch: Option<String>,
        /// Secrets encrypted with SOPS that are applied before.
        secrets: Vec<PathBuf>,
    },
    /// Tells when the `talosctl` of this computer is older than the cluster now.
    CompareTalosctl {
        /// What the cluster runs.
        version: Version,
    },
    /// Writes the new versions and the template's number into the profile, keeping comments and order.
    EditProfile {
        /// Path of values: `talos.version` and the like.
        set: BTreeMap<String, String>,
    },
    /// Fetches credentials for the Kubernetes API, for this run alone.
    OpenAccess {
        /// The control planes that may give them.
        controlplanes: Vec<Member>,
    },
    /// Looks at a machine before anything is done to it: it runs what the plan says, and in which boot.
    MeetMachine {
        /// The machine.
        machine: Member,
        /// What it must run.
        version: Version,
    },
    /// Looks whether etcd is sound, can spare a member, and all its members have caught up, before any pod has to leave
    /// for a control plane that goes down.
    ConfirmEtcd {
        /// The control planes.
        control: Vec<OldMachine>,
    },
    /// Pulls an installer onto a machine, before anything goes down for it.
    PullInstaller {
        /// The machine.
        machine: Member,
        /// What is installed.
        release: Release,
    },
    /// Writes a release beside the one that runs; the next reboot boots it.
    WriteRelease {
        /// The machine.
        machine: Member,
        /// What is written.
        release: Release,
    },
    /// Takes a machine down and has it come up with another release: drained, quorum kept, and nothing believed but what it
    /// runs afterwards.
    UpgradeMachine {
        /// The machine.
        machine: Member,
        /// The step that saw which boot it was in before.
        before: StepId,
        /// What it runs before.
        from: Version,
        /// What its image is made from before, where that is known.
        #[serde(default)]
        leaves: Option<SchematicId>,
        /// What it must run afterwards.
        release: Release,
        /// How it is done.
        manner: Manner,
        /// The control planes: etcd must be sound before one of them goes down.
        control: Vec<OldMachine>,
        /// Seconds that its drain may take; none where no other machine could take its pods.
        drain: Option<u64>,
    },
    /// Takes a machine down and has it come up with the release that it ran before.
    RollBackMachine {
        /// The machine.
        machine: Member,
        /// The step that saw which boot it was in before.
        before: StepId,
        /// What it runs before.
        from: Version,
        /// What its image is made from before, where that is known.
        #[serde(default)]
        leaves: Option<SchematicId>,
        /// What it must run afterwards, where that is known.
        release: Option<Release>,
        /// By what.
        #[serde(default)]
        by: By,
        /// How it is done, where the installer has to be used.
        manner: Manner,
        /// The control planes: etcd must be sound before one of them goes down.
        control: Vec<OldMachine>,
        /// Seconds that its drain may take; none where no other machine could take its pods.
        drain: Option<u64>,
    },
    /// Waits until a machine's node is Ready in its new boot and stays so, with etcd sound, before the next one goes down.
    AwaitUpgraded {
        /// The machine.
        machine: Member,
        /// The step that saw its new boot.
        upgraded: StepId,
        /// The control planes.
        control: Vec<OldMachine>,
        /// Seconds that it must stay Ready without a break.
        steady: u64,
    },
    /// Records in the lock file what schematics hold.
    LockSchematics {
        /// Their YAML by ID.
        schematics: BTreeMap<SchematicId, String>,
    },
    /// Takes schematics out of the lock file that an earlier run put there.
    ForgetSchematics {
        /// Their IDs.
        schematics: BTreeSet<SchematicId>,
    },
    /// Puts profile and lock back as they were before an earlier run.
    RestoreFiles {
        /// The folder in which that run kept them.
        from: PathBuf,
    },
    /// Records schematic, image digests and templates in the lock file.
    WriteLock {
        /// The step that fetched the image, where one did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fetched: Option<StepId>,
        /// What the templates were made from.
        image: Image,
        /// Template number by node.
        templates: BTreeMap<NodeName, VmId>,
        /// The templates' fingerprint.
        fingerprint: Sha256,
        /// The image's schematic in YAML, where the factory told.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recipe: Option<String>,
    },
    /// Keeps new pods off a machine's Kubernetes node, with a mark that says who did so.
    CordonNode {
        /// The machine.
        machine: LiveMachine,
    },
    /// Evicts the pods of a machine's node and waits until they are gone and their volumes detached.
    DrainNode {
        /// The machine.
        machine: LiveMachine,
        /// Seconds that it may take.
        within: u64,
        /// What happens to pods that are left then.
        #[serde(default)]
        leftover: Leftover,
    },
    /// Lets pods onto a machine's node again, unless somebody else kept them off.
    UncordonNode {
        /// The machine.
        machine: LiveMachine,
    },
    /// Looks once more whether Kubernetes can make a hop, right before it does.
    ConfirmKubernetes {
        /// All machines.
        machines: Vec<LiveMachine>,
        /// The version before.
        from: Version,
        /// The version after.
        to: Version,
        /// What the user's own compatibility table said of the Talos that runs then, where the built-in says otherwise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        runs: Option<Runs>,
    },
    /// Pulls images onto a machine before they are needed.
    PullImages {
        /// The machine.
        machine: LiveMachine,
        /// They.
        images: Vec<NodeImage>,
    },
    /// Gives a control plane's static pod another image and waits until the new pod is Ready.
    SetStaticPod {
        /// The machine.
        machine: LiveMachine,
        /// Which.
        component: Component,
        /// The image.
        image: String,
    },
    /// Writes kube-proxy's image into a control plane's configuration; its pods follow with the manifests.
    SetProxyImage {
        /// The machine.
        machine: LiveMachine,
        /// The image.
        image: String,
    },
    /// Gives a machine's kubelet another image and waits until its node is Ready with the new version.
    SetKubelet {
        /// The machine.
        machine: LiveMachine,
        /// The image.
        image: String,
        /// The version that the node must report.
        version: Version,
    },
    /// Brings the objects that Talos bootstraps (kube-proxy, `CoreDNS`, the CNI, roles) up to what its machines render.
    SyncManifests {
        /// The control plane whose manifests count.
        machine: LiveMachine,
        /// How.
        way: ManifestWay,
        /// The image that kube-proxy's manifest must have reached.
        proxy: String,
        /// Objects that left the manifests and are deleted, by the inventory's keys.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        prune: Vec<String>,
        /// What the server said, when it was asked for the plan, that this will change: to be shown, not to be held to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        expected: Vec<String>,
    },
    /// Waits until the nodes of these machines are Ready with a version and stay so.
    AwaitKubernetes {
        /// The machines.
        machines: Vec<LiveMachine>,
        /// What every kubelet must report.
        version: Version,
        /// Seconds that they must stay Ready without a break.
        steady: u64,
    },
}

impl Step {
    /// Whether it destroys, stops or overwrites something that this run did not make.
    pub fn is_destructive(&self) -> bool {
        matches!(
            self,
            Self::ShutdownMachine { .. }
                | Self::StopMajority { .. }
                | Self::ShutdownKept { .. }
                | Self::RetireVm { .. }
                | Self::UpgradeMachine { .. }
                | Self::RollBackMachine { .. }
                | Self::DrainNode { leftover: Leftover::Delete, .. }
        )
    }

    /// Whether it only looks, and lets its phase go on by what it saw: an answer that grows old.
    pub fn is_gate(&self) -> bool {
        matches!(self, Self::ConfirmProof { .. } | Self::ConfirmOld { .. } | Self::ConfirmFrozen { .. })
    }
}
