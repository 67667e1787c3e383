//! Virtual machines: lists, configuration, power, clone, template, deletion.
//!
//! Purpose: one method per call. Those that start a task return its [`Upid`] at once. Must not know: why.
//! `/cluster/resources` lags by seconds and may leave `name`, `status` and `template` out (its numbers are a broadcast of
//! each node's pvestatd), so nothing is ever destroyed by what it says: ask [`Pve::vm_config`].

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::client::Pve;
use super::decode;
use super::encode::{Form, path};
use super::error::PveError;
use super::task::Upid;
use super::vm_config::VmConfig;
use crate::property::Tags;
use crate::types::{NodeName, StorageId, VmId};

/// Where a VM is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VmRef {
    /// The node.
    pub node: NodeName,
    /// The number.
    pub vmid: VmId,
}

impl VmRef {
    /// VM `vmid` on `node`.
    pub fn new(node: NodeName, vmid: VmId) -> Self {
        Self { node, vmid }
    }

    pub(super) fn at(&self, rest: &[&str]) -> String {
        let vmid = self.vmid.to_string();
        path(&[&["nodes", self.node.as_str(), "qemu", vmid.as_str()], rest].concat())
    }
}

/// Virtual machine or container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestKind {
    /// A virtual machine.
    Qemu,
    /// A container.
    Lxc,
}

/// A guest as the whole cluster's list has it.
#[derive(Clone, Debug, Deserialize)]
pub struct Guest {
    /// Virtual machine or container.
    #[serde(rename = "type")]
    pub kind: GuestKind,
    /// Its number.
    #[serde(deserialize_with = "decode_vmid")]
    pub vmid: VmId,
    /// Where it is.
    pub node: NodeName,
    /// Its name, once the statistics arrived.
    #[serde(default)]
    pub name: Option<String>,
    /// `running`, `stopped`, or `unknown` as long as no statistics arrived.
    #[serde(default)]
    pub status: Option<String>,
    /// Whether it is a template, once the statistics arrived.
    #[serde(default, deserialize_with = "decode::maybe_flag")]
    pub template: Option<bool>,
    /// Its tags as stored.
    #[serde(default)]
    pub tags: Option<String>,
    /// Its pool.
    #[serde(default)]
    pub pool: Option<String>,
    /// Its state in the HA manager, if it is managed.
    #[serde(default)]
    pub hastate: Option<String>,
    /// Its configuration's lock.
    #[serde(default)]
    pub lock: Option<String>,
}

impl Guest {
    /// Its tags.
    pub fn tags(&self) -> Tags {
        Tags::parse(self.tags.as_deref().unwrap_or_default())
    }
}

/// A VM as its node lists it: current, templates included.
#[derive(Clone, Debug, Deserialize)]
pub struct LocalVm {
    /// Its number.
    #[serde(deserialize_with = "decode_vmid")]
    pub vmid: VmId,
    /// Its name; `VM <id>` without one.
    #[serde(default)]
    pub name: Option<String>,
    /// `running` or `stopped`.
    pub status: String,
    /// Whether it is a template.
    #[serde(default, deserialize_with = "decode::flag")]
    pub template: bool,
    /// Its tags as stored.
    #[serde(default)]
    pub tags: Option<String>,
    /// Its configuration's lock.
    #[serde(default)]
    pub lock: Option<String>,
}

/// What a VM is doing right now.
#[derive(Clone, Debug, Deserialize)]
pub struct VmStatus {
    /// `running` or `stopped`.
    pub status: String,
    /// QEMU's own word: `running`, `paused`, `prelaunch` …
    #[serde(default)]
    pub qmpstatus: Option<String>,
    /// Seconds since its start.
    #[serde(default, deserialize_with = "decode::maybe_int")]
    pub uptime: Option<u64>,
    /// Its configuration's lock.
    #[serde(default)]
    pub lock: Option<String>,
    #[serde(default)]
    ha: Ha,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Ha {
    #[serde(default, deserialize_with = "decode::flag")]
    managed: bool,
}

impl VmStatus {
    /// Whether it is positively stopped.
    pub fn is_stopped(&self) -> bool {
        self.status == "stopped"
    }

    /// Whether it is positively running.
    pub fn is_running(&self) -> bool {
        self.status == "running"
    }

    /// Whether the HA manager looks after it: power calls are then requests to the manager.
    pub fn is_ha_managed(&self) -> bool {
        self.ha.managed
    }
}

/// A change of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Keys to set, values in PVE's own syntax.
    pub set: std::collections::BTreeMap<String, String>,
    /// Keys to delete.
    pub delete: Vec<String>,
    /// Only if the configuration still has this digest.
    pub digest: Option<String>,
}

impl Change {
    fn form(&self) -> Form {
        let delete = (!self.delete.is_empty()).then(|| self.delete.join(","));
        Form::new().with_all(&self.set).with_some("delete", delete).with_some("digest", self.digest.as_deref())
    }
}

/// How a clone's disks come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloneKind {
    /// Copies, on this storage or on the source's.
    Full {
        /// Where the copies go.
        storage: Option<StorageId>,
    },
    /// On top of the template's disks, which they need for life.
    Linked,
}

/// A clone to be made.
#[derive(Clone, Debug)]
pub struct CloneOrder {
    /// The new VM's number.
    pub newid: VmId,
    /// Its name.
    pub name: String,
    /// Its notes.
    pub description: Option<String>,
    /// The pool it is put into.
    pub pool: Option<String>,
    /// Copies or linked disks.
    pub kind: CloneKind,
    /// Another node to put it on; only if all of the source's volumes are shared.
    pub target: Option<NodeName>,
}

/// How hard to try when a VM is to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterTimeout {
    /// The task fails and the VM runs on.
    GiveUp,
    /// It is stopped.
    Stop,
}

/// What a stop does about shutdowns that still wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitingShutdown {
    /// Leaves them: they hold the VM's lock, and the stop fails after ten seconds.
    Respect,
    /// Ends them first. PVE 8.2 and later; refused for HA-managed VMs.
    Overrule,
}

/// What is forgotten together with a deleted VM. Volumes that the configuration doesn't refer to are never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forget {
    /// Nothing; a VM with HA resource or replication job isn't deleted.
    Nothing,
    /// HA resource, replication jobs, and its number in backup jobs.
    References,
}

impl Pve {
    /// All guests of the cluster, containers and templates included, as far as the caller may see them. Lags.
    pub async fn guests(&self) -> Result<Vec<Guest>, PveError> {
        let all: Vec<Value> = self.get("/cluster/resources", &Form::new().with("type", "vm")).await?;
        let guests = all.into_iter().map(serde_json::from_value);
        guests
            .collect::<Result<_, _>>()
            .map_err(|source| PveError::Answer { path: "/cluster/resources".to_owned(), source })
    }

    /// The VMs of a node, templates included. Current.
    pub async fn vms(&self, node: &NodeName) -> Result<Vec<LocalVm>, PveError> {
        self.get(&path(&["nodes", node.as_str(), "qemu"]), &Form::new()).await
    }

    /// A VM's configuration, pending changes applied.
    pub async fn vm_config(&self, vm: &VmRef) -> Result<VmConfig, PveError> {
        let data: Map<String, Value> = self.get(&vm.at(&["config"]), &Form::new()).await?;
        Ok(data.into())
    }

    /// What a VM is doing.
    pub async fn vm_status(&self, vm: &VmRef) -> Result<VmStatus, PveError> {
        self.get(&vm.at(&["status", "current"]), &Form::new()).await
    }

    /// Names of a VM's snapshots.
    pub async fn snapshots(&self, vm: &VmRef) -> Result<Vec<String>, PveError> {
        #[derive(Deserialize)]
        struct Snapshot {
            name: String,
        }
        let listed: Vec<Snapshot> = self.get(&vm.at(&["snapshot"]), &Form::new()).await?;
        // The last entry stands for the present.
        Ok(listed.into_iter().map(|snapshot| snapshot.name).filter(|name| name != "current").collect())
    }

    /// Creates a VM from configuration keys. Refused when the number is taken.
    pub async fn create_vm(
        &self,
        vm: &VmRef,
        keys: &std::collections::BTreeMap<String, String>,
        pool: Option<&str>,
    ) -> Result<Upid, PveError> {
        let form = Form::new().with("vmid", vm.vmid).with_all(keys).with_some("pool", pool);
        self.post(&path(&["nodes", vm.node.as_str(), "qemu"]), &form).await
    }

    /// Changes a configuration in a task: for anything that allocates or imports disks.
    pub async fn change_vm(&self, vm: &VmRef, change: &Change) -> Result<Option<Upid>, PveError> {
        self.post(&vm.at(&["config"]), &change.form()).await
    }

    /// Changes a configuration at once: for everything but disks (PVE answers for 30 seconds only).
    pub async fn change_vm_now(&self, vm: &VmRef, change: &Change) -> Result<(), PveError> {
        self.put(&vm.at(&["config"]), &change.form()).await
    }

    /// Clones a VM or template. The task's id is the source's number.
    pub async fn clone_vm(&self, source: &VmRef, order: &CloneOrder) -> Result<Upid, PveError> {
        let (full, storage) = match &order.kind {
            CloneKind::Full { storage } => (1, storage.as_ref()),
            CloneKind::Linked => (0, None),
        };
        let form = Form::new()
            .with("newid", order.newid)
            .with("name", &order.name)
            .with("full", full)
            .with_some("description", order.description.as_deref())
            .with_some("pool", order.pool.as_deref())
            .with_some("storage", storage)
            .with_some("target", order.target.as_ref());
        self.post(&source.at(&["clone"]), &form).await
    }

    /// Moves a stopped VM to another node with its disks, to storages of the same names or to one that both have. Needs
    /// `VM.Migrate`, and `Datastore.AllocateSpace` there.
    pub async fn migrate_vm(
        &self,
        vm: &VmRef,
        target: &NodeName,
        storage: Option<&StorageId>,
    ) -> Result<Upid, PveError> {
        let form = Form::new().with("target", target).with("with-local-disks", 1).with_some("targetstorage", storage);
        self.post(&vm.at(&["migrate"]), &form).await
    }

    /// Starts a VM. For an HA-managed one the task's end means "asked".
    pub async fn start_vm(&self, vm: &VmRef) -> Result<Upid, PveError> {
        self.post(&vm.at(&["status", "start"]), &Form::new()).await
    }

    /// Asks the guest to shut down and waits `seconds` for it, inside the task.
    pub async fn shut_down_vm(&self, vm: &VmRef, seconds: u64, after: AfterTimeout) -> Result<Upid, PveError> {
        let form = Form::new().with("timeout", seconds).with("forceStop", u8::from(after == AfterTimeout::Stop));
        self.post(&vm.at(&["status", "shutdown"]), &form).await
    }

    /// Pulls the plug.
    pub async fn stop_vm(&self, vm: &VmRef, waiting: WaitingShutdown) -> Result<Upid, PveError> {
        let form = match waiting {
            WaitingShutdown::Respect => Form::new(),
            WaitingShutdown::Overrule => Form::new().with("overrule-shutdown", 1),
        };
        self.post(&vm.at(&["status", "stop"]), &form).await
    }

    /// Turns a stopped VM into a template, its disks into base volumes.
    pub async fn make_template(&self, vm: &VmRef) -> Result<Upid, PveError> {
        self.post(&vm.at(&["template"]), &Form::new()).await
    }

    /// Grows a disk to a size in bytes. PVE never shrinks one. No task on PVE 7: done when this returns.
    pub async fn resize_disk(&self, vm: &VmRef, disk: &str, bytes: u64) -> Result<Option<Upid>, PveError> {
        let form = Form::new().with("disk", disk).with("size", crate::property::print_size(bytes));
        self.put_for(&vm.at(&["resize"]), &form).await
    }

    /// Deletes a stopped VM with the volumes that its configuration names.
    pub async fn delete_vm(&self, vm: &VmRef, forget: Forget) -> Result<Upid, PveError> {
        let query = match forget {
            Forget::Nothing => Form::new(),
            Forget::References => Form::new().with("purge", 1),
        };
        self.delete(&vm.at(&[]), &query).await
    }

    /// Whether all disks of a VM can be cloned as `full` copies or linked.
    pub async fn can_clone(&self, vm: &VmRef) -> Result<bool, PveError> {
        #[derive(Deserialize)]
        struct Feature {
            #[serde(rename = "hasFeature", deserialize_with = "decode::flag")]
            has: bool,
        }
        let feature: Feature = self.get(&vm.at(&["feature"]), &Form::new().with("feature", "clone")).await?;
        Ok(feature.has)
    }

    /// The lowest number that is free, or nothing reserved by it: another caller may be given the same.
    pub async fn next_vmid(&self) -> Result<VmId, PveError> {
        let Number(vmid) = self.get("/cluster/nextid", &Form::new()).await?;
        Ok(vmid)
    }

    /// Whether a number is free in the whole cluster, containers included.
    pub async fn is_free(&self, vmid: VmId) -> Result<bool, PveError> {
        match self.get::<IgnoredAny>("/cluster/nextid", &Form::new().with("vmid", vmid)).await {
            Ok(_) => Ok(true),
            Err(PveError::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[derive(Deserialize)]
struct Number(#[serde(deserialize_with = "decode_vmid")] VmId);

fn decode_vmid<'de, D: serde::Deserializer<'de>>(from: D) -> Result<VmId, D::Error> {
    let number = decode::int(from)?;
    u32::try_from(number).map(VmId).map_err(serde::de::Error::custom)
}
