//! What was destroyed or taken down, and by whom.
//!
//! Purpose: the world tells whoever watches (`audit`) of every destructive act. Must not know: who watches.

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::rights::Caller;
use super::{World, held};

/// A destructive act that was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deed {
    /// Unix time.
    pub time: u64,
    /// `user@realm` or `user@realm!token`.
    pub who: String,
    /// `destroy`, `stop`, `shutdown`, `reset`, `rollback`, `delete-snapshot`, `template`, `free-volume`,
    /// `destroy-disk`, `delete-storage`, `delete-pool`, `node-shutdown`, `node-reboot`, `restore` (over a VM that was there),
    /// `prune`; over SSH `overwrite`, `remove-file`; `talos-reset`, `talos-shutdown`, `talos-reboot`, `talos-upgrade`,
    /// `talos-rollback`, `etcd-remove-member`, `etcd-leave`, `etcd-recover`; `kubernetes-delete`, `kubernetes-evict`; and
    /// `etcd-quorum-lost`, where a machine's end took a majority away.
    pub what: String,
    /// The VM.
    pub vmid: Option<u32>,
    /// Its name at that time.
    pub name: Option<String>,
    /// The volume, snapshot, storage, pool, node or Kubernetes object.
    pub object: Option<String>,
    /// Where the VM came from.
    pub origin: Origin,
}

/// Where a VM came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The seed brought it.
    Seeded,
    /// A request made it.
    Created,
    /// There is no such VM, or the act is about none.
    Unknown,
}

impl World {
    /// All deeds from now on.
    pub fn subscribe_deeds(&self) -> mpsc::UnboundedReceiver<Deed> {
        let (sender, receiver) = mpsc::unbounded_channel();
        held(&self.0.deeds).push(sender);
        receiver
    }

    /// Tells the watchers that somebody logged in on a node writes over a volume's bytes, or removes its file. A path that
    /// is no volume's is nobody's business.
    pub fn tell_of_file(&self, node: &str, path: &str, what: &str) {
        let found = {
            let state = self.state();
            state.volume_at(node, path).map(|key| (key.volid(), state.volumes.get(&key).and_then(|volume| volume.vmid)))
        };
        if let Some((volid, vmid)) = found {
            self.tell(&Caller::root(), what, vmid, Some(&volid));
        }
    }

    /// Tells the watchers of a destructive act.
    pub fn tell(&self, caller: &Caller, what: &str, vmid: Option<u32>, object: Option<&str>) {
        let deed = {
            let state = self.state();
            let vm = vmid.and_then(|vmid| state.vms.get(&vmid));
            Deed {
                time: self.clock().unix(),
                who: caller.identity.clone(),
                what: what.to_owned(),
                vmid,
                name: vm.and_then(|vm| vm.config.get("name").cloned()),
                object: object.map(str::to_owned),
                origin: match vm {
                    Some(vm) if vm.seeded => Origin::Seeded,
                    Some(_) => Origin::Created,
                    None => Origin::Unknown,
                },
            }
        };
        held(&self.0.deeds).retain(|watcher| watcher.send(deed.clone()).is_ok());
    }
}
