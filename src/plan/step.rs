//! The complete vocabulary of what a run can do, as data.
//!
//! Purpose: a step can be shown, linted, journaled, resumed and tested without a cluster. It holds names, numbers and
//! digests; never a handle, a secret or a time of day.
//! Must not know: clients, clocks, files.
//! Adding a variant makes the compiler list every place that has to know it: `title`, lint, `steps::probe`, `steps::apply`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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

/// How the addresses of machines without a config are found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Discovery {
    /// The machine answers on this address as soon as it boots (a DHCP reservation).
    Static(IpAddr),
    /// Try every host of this network, in CIDR notation, on Talos' port.
    Scan(String),
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
    /// The user's own patches for it, files in the order in which they are applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patches: Vec<PathBuf>,
    /// SHA-256 of the rendered configuration, so that a resumed run applies the very same one.
    pub digest: Sha256,
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
    /// Creates the VM that becomes the template, importing the uploaded disk.
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
        /// The template's number; it lives on the same node.
        template: VmId,
        /// The new VM.
        vm: OurVm,
        /// Where its disks go.
        storage: StorageId,
        /// Pool to create it in.
        pool: Option<String>,
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
    /// Writes the new versions and the template's number into the profile, keeping comments and order.
    EditProfile {
        /// Path of values: `talos.version` and the like.
        set: BTreeMap<String, String>,
    },
    /// Records schematic, image digests and templates in the lock file.
    WriteLock {
        /// The step that fetched the image.
        fetched: StepId,
        /// Template number by node.
        templates: BTreeMap<NodeName, VmId>,
        /// The templates' fingerprint.
        fingerprint: Sha256,
    },
}

impl Step {
    /// What it does, in the imperative, for the plan and the progress lines.
    pub fn title(&self) -> String {
        match self {
            Self::ConfirmFacts => "confirm that nothing changed since the plan was made".to_owned(),
            Self::FetchImage { image } => format!(
                "fetch Talos {} ({})",
                image.version.tag(),
                &image.schematic.as_str()[..8.min(image.schematic.as_str().len())]
            ),
            Self::UploadImage { node, storage, file, .. } => format!("upload {file} to {storage} on {node}"),
            Self::CreateTemplate { vm, .. } => {
                format!("create VM {} ({}) on {} from the image", vm.vmid, vm.name, vm.node)
            }
            Self::SealTemplate { vm, .. } => format!("seal template {} and read it back", vm.vmid),
            Self::RemoveUpload { node, storage, file } => format!("remove {file} from {storage} on {node}"),
            Self::CloneVm { template, vm, .. } => {
                format!("clone template {template} to VM {} ({}) on {}", vm.vmid, vm.name, vm.node)
            }
            Self::SetHardware { vm, .. } => format!("set the hardware of VM {} ({})", vm.vmid, vm.name),
            Self::GrowDisk { vm, disk, gib } => format!("grow {disk} of VM {} to {gib} GiB", vm.vmid),
            Self::StartVm { vm } => format!("start VM {} ({})", vm.vmid, vm.name),
            Self::FindMachine { vm, mac, .. } => format!("find the machine of VM {} by its MAC {mac}", vm.vmid),
            Self::ProveCanary { version, .. } => {
                format!("prove that the canary is Talos {} as the configs expect", version.tag())
            }
            Self::DeleteOurVm { vm } => format!("delete VM {} ({}), made by this run", vm.vmid, vm.name),
            Self::ShutdownMachine { vm, .. } => format!("shut down VM {} ({})", vm.vmid, vm.name),
            Self::RetireVm { vm } => format!("DELETE VM {} ({}) on {} with its disks", vm.vmid, vm.name, vm.node),
            Self::ConfirmGone { vmids } => format!("confirm on all nodes that {} is gone", list(vmids)),
            Self::ApplyConfig { machine, .. } => format!("apply the {} config to {}", machine.role, machine.name),
            Self::AwaitMachine { machine, version, .. } => {
                format!("wait for {machine} to come up with Talos {}", version.tag())
            }
            Self::BootstrapEtcd { machine, .. } => format!("bootstrap etcd on {machine}"),
            Self::SaveAccess { machine, .. } => format!("fetch kubeconfig and talosconfig from {machine}"),
            Self::AwaitHealthy { .. } => "wait for Talos' health checks".to_owned(),
            Self::AwaitNodesReady { machines, steady, .. } => {
                format!("wait until {} Kubernetes node(s) are Ready for {steady} s", machines.len())
            }
            Self::EditProfile { .. } => "write the new versions into the profile".to_owned(),
            Self::WriteLock { .. } => "write the lock file".to_owned(),
        }
    }

    /// Whether it destroys, stops or overwrites something that this run did not make.
    pub fn is_destructive(&self) -> bool {
        matches!(self, Self::ShutdownMachine { .. } | Self::RetireVm { .. })
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
}
