//! The complete vocabulary of what a run can do, as data.
//!
//! Purpose: a step can be shown, linted, journaled, resumed and tested without a cluster. It holds names, numbers and
//! digests; never a handle, a secret or a time of day.
//! Must not know: clients, clocks, files.
//! Adding a variant makes the compiler list every place that has to know it: `title`, lint, `steps::probe`, `steps::apply`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::compatibility::Runs;
use super::data::{CopyTo, HaState, OldMachine, Purpose, SnapshotFrom, SnapshotSource};
use super::kubernetes::{Component, Leftover, LiveMachine, ManifestWay, NodeImage};
use super::upgrade::{Manner, Member, Release};
use crate::types::{Mac, MachineName, NodeName, Role, SchematicId, Sha256, StepId, StorageId, Version, VmId, VolumeId};

/// PVE configuration keys with their values in PVE's own syntax (qemu-server, `PVE/QemuServer.pm`).
pub type Hardware = BTreeMap<String, String>;

/// One disk image of the Image Factory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Where it is fetched.
    pub url: String,
    /// What it was made from.
    pub schematic: SchematicId,
    /// The Talos version in it.
    pub version: Version,
    /// The digest of the bytes at the URL, when the lock has one. Without it the first download is pinned.
    pub sha256: Option<Sha256>,
    /// Size at the URL as a HEAD answered.
    pub bytes: u64,
}

/// A VM that this run makes, or that an earlier run of recast made: recognised by its mark, never by its number alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OurVm {
    /// The PVE host it lives on.
    pub node: NodeName,
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// The line in its description that proves that this run made it: `recast: run=… step=… cluster=…`.
    pub mark: String,
}

/// A volume that this run allocates itself. Its name holds the run's id: whoever finds it knows whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeVolume {
    /// The node it is reached from.
    pub node: NodeName,
    /// The VM it is meant for, which need not exist yet.
    pub vmid: VmId,
    /// Its id: `local-lvm:vm-101-recast-<run>`, `local:101/vm-101-recast-<run>.raw`.
    pub volume: VolumeId,
}

impl NodeVolume {
    /// The storage it lies on.
    pub fn storage(&self) -> &str {
        self.volume.as_str().split(':').next().unwrap_or_default()
    }

    /// Its name as `pvesm alloc` takes it: without storage and folder.
    pub fn name(&self) -> &str {
        self.volume.as_str().rsplit(['/', ':']).next().unwrap_or_default()
    }
}

/// What a new volume holds where nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unwritten {
    /// Zeros: thin volumes, new files.
    Zeros,
    /// What was on the disk before: thick LVM.
    Garbage,
}

/// All that tells one VM from another that took its number: compared with what runs right before anything is destroyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmIdentity {
    /// The PVE host it lives on.
    pub node: NodeName,
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// SMBIOS UUID, lower case.
    pub uuid: String,
    /// The VM generation id, where it has one.
    pub vmgenid: Option<String>,
    /// Its tags, lower case, sorted.
    pub tags: Vec<String>,
    /// `ctime` of the `meta` key: Unix seconds of its creation.
    pub created: Option<u64>,
    /// Every volume it refers to, by config key (`scsi0`, `efidisk0`, `unused0` …).
    pub disks: BTreeMap<String, VolumeId>,
}

/// How the HA manager looks after a VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HaCare {
    /// Requested state: `started`, `stopped`, `disabled`, `ignored`.
    pub state: String,
    /// Its group, before PVE 9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Restarts on a node before it is moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_restart: Option<u64>,
    /// Moves before it is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_relocate: Option<u64>,
    /// A person's note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// How the addresses of machines without a config are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// The machine answers on this address as soon as it boots (a DHCP reservation).
    Static(IpAddr),
    /// Ask the guest agent, through PVE, for the addresses of the NIC with the machine's MAC.
    Agent,
    /// Try every host of this network, in CIDR notation, on Talos' port.
    Scan(String),
}

/// Where a patch of a machine's configuration stands. Its text may hold a secret, so it is never in the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PatchAt {
    /// In this file.
    File(PathBuf),
    /// In the profile, inline.
    Profile {
        /// The profile's file.
        profile: PathBuf,
        /// The index in `talos.config_patches`.
        index: usize,
    },
}

/// What a machine's configuration is made from, secrets aside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Host name.
    pub name: MachineName,
    /// Machine type.
    pub role: Role,
    /// The NIC whose network is configured.
    pub mac: Mac,
    /// The static address with its prefix length, `192.168.178.41/24`; without one the machine stays on DHCP.
    pub address: Option<String>,
    /// Default route.
    pub gateway: Option<IpAddr>,
    /// DNS servers.
    pub nameservers: Vec<IpAddr>,
    /// Reference of its installer image, where it isn't the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installer: Option<String>,
    /// The user's own patches for it, in the order in which they are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PatchAt>,
    /// The whole configuration, as an earlier run found it on the machine: nothing is generated or patched then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<PathBuf>,
    /// SHA-256 of the rendered configuration, so that a resumed run applies the very same one.
    pub digest: Sha256,
}

/// A point of a run at which the user may hang something in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Everything is proven and the old cluster is frozen; nothing is destroyed yet.
    BeforeRetire,
    /// The new cluster's API answers.
    AfterBootstrap,
    /// Everything is verified.
    Finished,
    /// The run failed.
    Failed,
}

impl std::fmt::Display for Moment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::BeforeRetire => "before_retire",
            Self::AfterBootstrap => "after_bootstrap",
            Self::Finished => "finished",
            Self::Failed => "failed",
        })
    }
}

/// Where Kubernetes manifests are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manifests {
    /// Files, in this order.
    Files(Vec<ManifestFile>),
    /// A URL.
    Url(String),
}

/// A file of manifests as it was when the plan was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestFile {
    /// It.
    pub path: PathBuf,
    /// Digest of its text: a run applies what was planned.
    pub sha256: Sha256,
}

/// What a machine must be when all is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedMachine {
    /// Its name.
    pub machine: MachineName,
    /// The step that waited for it.
    pub at: StepId,
    /// The version it runs.
    pub version: Version,
    /// What its image was made from.
    pub schematic: SchematicId,
}

/// Contexts of one cluster in a user's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contexts {
    /// Those that stand beside the current one, such as `admin@lab-1`, which talosctl made when the name was taken.
    Superseded,
    /// All: the cluster is gone.
    All,
}

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
        /// What it must run afterwards, where that is known.
        release: Option<Release>,
        /// How it is done, where the machine has no other release and the installer has to be used.
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
    /// What it does, in the imperative, for the plan and the progress lines.
    #[expect(clippy::too_many_lines, reason = "one line for each step: a table")]
    pub fn title(&self) -> String {
        match self {
            Self::ConfirmFacts => "confirm that nothing changed since the plan was made".to_owned(),
            Self::FetchImage { image } => format!(
                "fetch Talos {} ({})",
                image.version.tag(),
                &image.schematic.as_str()[..8.min(image.schematic.as_str().len())]
            ),
            Self::UploadImage { node, storage, file, .. } => format!("upload {file} to {storage} on {node}"),
            Self::PullImage { node, storage, file, .. } => format!("let {node} fetch {file} to {storage}"),
            Self::AllocateVolume { volume, .. } => format!("allocate {} on {}", volume.volume, volume.node),
            Self::StreamImage { volume, unwritten, .. } => match unwritten {
                Unwritten::Zeros => format!("write the image to {} on {}", volume.volume, volume.node),
                Unwritten::Garbage => format!("zero {} on {} and write the image to it", volume.volume, volume.node),
            },
            Self::FreeVolume { volume } => format!("free {} on {}", volume.volume, volume.node),
            Self::CreateTemplate { vm, .. } => {
                format!("create VM {} ({}) on {} from the image", vm.vmid, vm.name, vm.node)
            }
            Self::SealTemplate { vm, .. } => format!("seal template {} and read it back", vm.vmid),
            Self::PassTemplate { vm } => format!("mark template {} as one whose canary was right", vm.vmid),
            Self::RemoveUpload { node, storage, file } => format!("remove {file} from {storage} on {node}"),
            Self::CloneVm { template, vm, .. } => {
                format!("clone template {template} to VM {} ({}) on {}", vm.vmid, vm.name, vm.node)
            }
            Self::MigrateVm { vm, target } => format!("move VM {} ({}) from {} to {target}", vm.vmid, vm.name, vm.node),
            Self::SetFirewall { vm, rules, .. } => {
                format!("give VM {} ({}) its firewall, {} rule(s)", vm.vmid, vm.name, rules.len())
            }
            Self::AddHa { vm, care } => format!("put VM {} ({}) under HA, {}", vm.vmid, vm.name, care.state),
            Self::SetHardware { vm, .. } => format!("set the hardware of VM {} ({})", vm.vmid, vm.name),
            Self::GrowDisk { vm, disk, gib } => format!("grow {disk} of VM {} to {gib} GiB", vm.vmid),
            Self::StartVm { vm } => format!("start VM {} ({})", vm.vmid, vm.name),
            Self::FindMachine { vm, mac, .. } => format!("find the machine of VM {} by its MAC {mac}", vm.vmid),
            Self::ProveCanary { version, .. } => {
                format!("prove that the canary is Talos {} as the configs expect", version.tag())
            }
            Self::DeleteOurVm { vm } => format!("delete VM {} ({}), made by this run", vm.vmid, vm.name),
            Self::SaveBefore { .. } => {
                "save versions, members, configurations and readiness of the old cluster".to_owned()
            }
            Self::SaveSnapshot { purpose, .. } => format!("save etcd's {purpose} snapshot and prove it"),
            Self::CopySnapshot { to, .. } => format!("copy the snapshot to {to} and read it back"),
            Self::ConfirmProof { max_age, .. } => format!("confirm that the backup is younger than {max_age} s"),
            Self::ConfirmOld { .. } => "confirm that the old cluster is all there and sound".to_owned(),
            Self::IgnoreHa { resources, .. } if resources.is_empty() => {
                "confirm that HA leaves the old VMs alone".to_owned()
            }
            Self::IgnoreHa { resources, .. } => format!("make HA ignore {} old VM(s)", resources.len()),
            Self::RestoreHa { .. } => "wait until the old cluster is healthy again".to_owned(),
            Self::StopMajority { machines, .. } if machines.len() == 1 => "look at etcd's only member".to_owned(),
            Self::StopMajority { machines, .. } => {
                format!("shut down {} of {} control planes, etcd's leader stays", machines.len() - 1, machines.len())
            }
            Self::ShutdownKept { .. } => "shut down the last control plane".to_owned(),
            Self::StartOld { machines } => {
                format!("start {} again", list(&machines.iter().map(|machine| machine.vm.vmid).collect::<Vec<_>>()))
            }
            Self::ConfirmFrozen { .. } => {
                "confirm that no old VM was started or changed since the final snapshot".to_owned()
            }
            Self::ShutdownMachine { vm, .. } => format!("shut down VM {} ({})", vm.vmid, vm.name),
            Self::RetireVm { vm, .. } => format!("DELETE VM {} ({}) on {} with its disks", vm.vmid, vm.name, vm.node),
            Self::ConfirmGone { vmids } => format!("confirm on all nodes that {} is gone", list(vmids)),
            Self::ApplyConfig { machine, .. } => format!("apply the {} config to {}", machine.role, machine.name),
            Self::AwaitMachine { machine, version, .. } => {
                format!("wait for {machine} to come up with Talos {}", version.tag())
            }
            Self::BootstrapEtcd { machine, .. } => format!("bootstrap etcd on {machine}"),
            Self::RecoverEtcd { machine, snapshot: SnapshotSource::Step(_), .. } => {
                format!("recover etcd on {machine} from the final snapshot")
            }
            Self::RecoverEtcd { machine, snapshot: SnapshotSource::File { path, .. }, .. } => {
                format!("recover etcd on {machine} from {}", path.display())
            }
            Self::SaveAccess { machine, .. } => format!("fetch kubeconfig and talosconfig from {machine}"),
            Self::AwaitHealthy { .. } => "wait for Talos' health checks".to_owned(),
            Self::AwaitNodesReady { machines, steady, .. } => {
                format!("wait until {} Kubernetes node(s) are Ready for {steady} s", machines.len())
            }
            Self::RunHook { moment, command } => format!("run the hook {moment}: {command}"),
            Self::ApplyManifests { from: Manifests::Url(url) } => format!("apply {url}"),
            Self::ApplyManifests { from: Manifests::Files(files) } => {
                let names = files.iter().map(|file| file.path.display().to_string());
                format!("apply {}", names.collect::<Vec<_>>().join(", "))
            }
            Self::RunCommand { command } => format!("run {command}"),
            Self::ConfirmData { .. } => "confirm that the snapshot's data are back".to_owned(),
            Self::RemoveStale { .. } => "remove nodes and etcd members that are no machine of the profile".to_owned(),
            Self::ConfirmMachines { machines } => {
                format!("confirm version and extensions of {} machine(s)", machines.len())
            }
            Self::CompareWorkloads => "compare the workloads with those from before".to_owned(),
            Self::CleanContexts { which: Contexts::Superseded } => "clean old contexts from the kubeconfig".to_owned(),
            Self::CleanContexts { which: Contexts::All } => {
                "remove the cluster's contexts from kubeconfig and talosconfig".to_owned()
            }
            Self::CommitFiles { message, push } => {
                format!("commit{} profile and lock: {message}", if *push { " and push" } else { "" })
            }
            Self::InstallFlux { repo, path, .. } => format!("bootstrap Flux from {repo}, {path}"),
            Self::CompareTalosctl { version } => {
                format!("look whether this computer's talosctl is older than {version}")
            }
            Self::EditProfile { .. } => "write the new versions into the profile".to_owned(),
            Self::RestoreFiles { .. } => "put the profile and its lock back as they were".to_owned(),
            Self::WriteLock { .. } => "write the lock file".to_owned(),
            Self::OpenAccess { .. } => "fetch credentials for the Kubernetes API".to_owned(),
            Self::MeetMachine { machine, version } => format!("see {} run Talos {version}", machine.name),
            Self::ConfirmEtcd { .. } => "confirm that etcd is sound and its members have caught up".to_owned(),
            Self::PullInstaller { machine, release } => {
                format!("pull the installer of Talos {} onto {}", release.version, machine.name)
            }
            Self::WriteRelease { machine, release } => {
                format!("write Talos {} beside what {} runs", release.version, machine.name)
            }
            Self::UpgradeMachine { machine, from, release, .. } if *from == release.version => {
                format!("REBOOT {} into Talos {from} of another schematic", machine.name)
            }
            Self::UpgradeMachine { machine, from, release, .. } => {
                format!("REBOOT {} from Talos {from} into {}", machine.name, release.version)
            }
            Self::RollBackMachine { machine, from, release: Some(release), .. } => {
                format!("REBOOT {} from Talos {from} back into {}", machine.name, release.version)
            }
            Self::RollBackMachine { machine, from, release: None, .. } => {
                format!("REBOOT {} from Talos {from} back into what it ran before", machine.name)
            }
            Self::AwaitUpgraded { machine, steady, .. } => {
                format!("wait until {} is Ready for {steady} s and etcd is sound", machine.name)
            }
            Self::LockSchematics { .. } => "write the schematics into the lock file".to_owned(),
            Self::CordonNode { machine } => format!("cordon {}", machine.name),
            Self::DrainNode { machine, leftover: Leftover::Stay, .. } => format!("drain {}", machine.name),
            Self::DrainNode { machine, leftover: Leftover::Delete, within } => {
                format!("drain {}, and delete what is left after {within} s", machine.name)
            }
            Self::UncordonNode { machine } => format!("uncordon {}", machine.name),
            Self::ConfirmKubernetes { from, to, .. } => format!("confirm that Kubernetes can go from {from} to {to}"),
            Self::PullImages { machine, images } => format!("pull {} image(s) onto {}", images.len(), machine.name),
            Self::SetStaticPod { machine, image, .. } | Self::SetKubelet { machine, image, .. } => {
                format!("move {} to {image}", machine.name)
            }
            Self::SetProxyImage { machine, image } => {
                format!("write {image} into the configuration of {}", machine.name)
            }
            Self::SyncManifests { machine, prune, .. } if prune.is_empty() => {
                format!("bring the bootstrap manifests to those of {}", machine.name)
            }
            Self::SyncManifests { machine, prune, .. } => format!(
                "bring the bootstrap manifests to those of {}, and DELETE what left them: {}",
                machine.name,
                prune.join(", ")
            ),
            Self::AwaitKubernetes { machines, version, steady } => {
                format!("wait until {} node(s) are Ready with {} for {steady} s", machines.len(), version.tag())
            }
        }
    }

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

fn list(vmids: &[VmId]) -> String {
    vmids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What a step found out that later steps or the report need. Journaled, so it must hold no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Output {
    /// Nothing beyond the fact that it is done.
    #[default]
    Nothing,
    /// An image that lies in the cache.
    Image {
        /// Digest of the file as fetched.
        sha256: Sha256,
        /// Its size in bytes.
        bytes: u64,
        /// Size of the disk in it, in bytes.
        disk_bytes: u64,
        /// Digest of the disk's content: the same for every encoding (`image::content`).
        content: Sha256,
    },
    /// Where a machine answers.
    Machine {
        /// Its address.
        address: IpAddr,
        /// Base64 of the SHA-256 over the public key of its maintenance certificate, when it was in maintenance.
        pin: Option<String>,
        /// Its boot id, when it was configured.
        boot_id: Option<String>,
    },
    /// What was saved of the old cluster.
    Before {
        /// The directory.
        dir: PathBuf,
        /// Ids of etcd's members, 16 hex digits each.
        members: Vec<String>,
    },
    /// A proven snapshot.
    Snapshot {
        /// The file.
        file: PathBuf,
        /// Digest of the database in it.
        sha256: Sha256,
        /// Size of the file in bytes.
        bytes: u64,
        /// Etcd's revision in it.
        revision: u64,
        /// Keys that are there at that revision.
        keys: u64,
        /// The UID of the namespace `kube-system`.
        namespace_uid: Option<String>,
        /// When it was taken.
        taken: Timestamp,
        /// From which machine.
        machine: MachineName,
        /// The last raft entry in it.
        #[serde(default)]
        ends_at: Option<u64>,
    },
    /// A second copy that was read back.
    Copy {
        /// Where it lies, for people.
        place: String,
    },
    /// The control plane that holds the last word of etcd.
    Kept {
        /// It.
        machine: MachineName,
        /// Where it answers.
        address: IpAddr,
        /// Its etcd member, 16 hex digits.
        member: String,
        /// The raft term in which it was the leader and quorum was taken away.
        term: u64,
        /// The last raft index that it applied, which is the last that was ever committed.
        index: u64,
        /// Whether it is the only member: then writes go on until it is shut down.
        alone: bool,
        /// Tasks that had ever started an old VM when the freeze began: any other one was started since.
        starts: Vec<String>,
    },
    /// What the only control plane wrote between its final snapshot and its shutdown.
    Window {
        /// Etcd's revisions, at most.
        revisions: u64,
    },
    /// What etcd was recovered from.
    Restored {
        /// The snapshot's revision.
        revision: u64,
        /// Keys that are there at that revision.
        keys: u64,
        /// The UID of the namespace `kube-system` in it.
        namespace_uid: Option<String>,
    },
    /// What came back with the data and belonged to no machine.
    Removed {
        /// Names of Node objects that were deleted.
        nodes: Vec<String>,
        /// Names of etcd members that were removed.
        members: Vec<String>,
    },
    /// What became of the bootstrap manifests.
    Manifests {
        /// Objects that were made, as `Kind namespace/name`.
        created: Vec<String>,
        /// Objects that were changed.
        changed: Vec<String>,
        /// Objects that were deleted, as they left the manifests.
        pruned: Vec<String>,
    },
    /// What is not as ready as it was before.
    Workloads {
        /// In words.
        regressions: Vec<String>,
    },
    /// A commit.
    Commit {
        /// Its id.
        id: String,
    },
}
