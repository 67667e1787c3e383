//! What goes wrong on a machine when somebody wants it to: the handle for scenarios and tests.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::disk::{Registry, Schematic, default_versions};
use crate::etcd::Originals;
use crate::world::World;
use crate::world::rights::Caller;

/// Something that goes wrong once, the next time that it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// What the next upgrade installs doesn't boot: the machine falls back to the other slot.
    BootFails,
    /// What the next upgrade installs boots, and the machine never gets ready: it stays there.
    NeverReady,
    /// The machine goes down for its next reboot and isn't heard of again, until somebody pulls the plug.
    NeverComesBack,
    /// The next way down into a reboot hangs at its beginning, until somebody pulls the plug.
    Hangs,
    /// The installer can't write the boot files: the disk is in use. A staged upgrade finds it free.
    DiskBusy,
    /// The next image can't be pulled: its registry doesn't answer.
    RegistryDown,
    /// The next installer image starts and fails.
    InstallerFails,
    /// The kubelet doesn't come up with its next image.
    KubeletFails,
    /// The next static pod that is rendered anew doesn't get ready.
    StaticPodFails,
}

/// A fault of a machine, in a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineFault {
    /// The VM.
    pub vmid: u32,
    /// What goes wrong.
    pub fault: Fault,
}

/// What the machines of a world share.
#[derive(Debug, Default)]
pub(in crate::world) struct Shared {
    faults: Mutex<BTreeMap<u32, Vec<Fault>>>,
    registry: Mutex<Option<Registry>>,
    /// etcd clusters that are told to go down to a version.
    downgrades: Mutex<BTreeMap<u64, String>>,
    quorums: Mutex<Vec<QuorumLoss>>,
    /// The processes of the original etcd, where members run one each.
    pub(super) originals: OnceLock<Originals>,
}

/// An etcd cluster that had a majority until a machine went down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumLoss {
    /// The machine's VM.
    pub vmid: u32,
    /// Members with a vote.
    pub voters: usize,
    /// Those of them that still run.
    pub left: usize,
}

impl World {
    /// Lets something go wrong on the machine in a VM, once.
    pub fn machine_fault(&self, vmid: u32, fault: Fault) {
        let mut faults = self.0.talos.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.entry(vmid).or_default().push(fault);
    }

    /// The faults that haven't happened yet.
    pub fn machine_faults(&self) -> Vec<MachineFault> {
        let faults = self.0.talos.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults
            .iter()
            .flat_map(|(vmid, all)| all.iter().map(|fault| MachineFault { vmid: *vmid, fault: *fault }))
            .collect()
    }

    /// Whether that goes wrong now; it won't a second time.
    pub(in crate::world) fn goes_wrong(&self, vmid: u32, fault: Fault) -> bool {
        let mut faults = self.0.talos.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = faults.get_mut(&vmid) else { return false };
        let Some(at) = all.iter().position(|one| *one == fault) else { return false };
        all.remove(at);
        true
    }

    /// Tells an etcd cluster to go down to a version, or not to any more; whether it had been told to.
    pub fn etcd_downgrade(&self, client: &crate::etcd::Client, to: Option<&str>) -> bool {
        let mut all = self.0.talos.downgrades.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match to {
            Some(version) => all.insert(client.etcd.id(), version.to_owned()),
            None => all.remove(&client.etcd.id()),
        };
        before.is_some()
    }

    /// Every time that an etcd cluster of several members lost its majority, in order.
    pub fn quorum_losses(&self) -> Vec<QuorumLoss> {
        self.0.talos.quorums.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A member is about to stop.
    pub(in crate::world) fn note_quorum(&self, vmid: u32, client: &crate::etcd::Client) {
        let running = client.etcd.running();
        let members = client.etcd.members();
        let voters = members.iter().filter(|member| !member.learner);
        let (voters, up): (usize, Vec<u64>) = voters.fold((0, Vec::new()), |(count, mut up), member| {
            up.extend(running.contains(&member.id).then_some(member.id));
            (count + 1, up)
        });
        let left = up.iter().filter(|id| **id != client.id).count();
        let majority = voters / 2 + 1;
        if voters > 1 && up.len() >= majority && left < majority {
            self.tell(
                &Caller { identity: "etcd".to_owned() },
                "etcd-quorum-lost",
                Some(vmid),
                Some(&format!("{left} of {voters} voters left")),
            );
            let loss = QuorumLoss { vmid, voters, left };
            self.0.talos.quorums.lock().unwrap_or_else(PoisonError::into_inner).push(loss);
        }
    }

    /// The images that machines can pull: those of this world's factory.
    pub fn use_registry(&self, registry: Registry) {
        *self.0.talos.registry.lock().unwrap_or_else(PoisonError::into_inner) = Some(registry);
    }

    /// The images that machines can pull; without a factory, what the seed says that one would offer.
    pub fn registry(&self) -> Registry {
        let mut known = self.0.talos.registry.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get_or_insert_with(|| {
                let seed = &self.seed().factory;
                let versions: Vec<String> = if seed.talos_versions.is_empty() {
                    default_versions()
                } else {
                    let each = seed.talos_versions.iter();
                    each.map(|version| format!("v{}", version.trim_start_matches('v'))).collect()
                };
                Registry::new(versions, seed.schematics.iter().filter_map(|text| Schematic::parse(text).ok()))
            })
            .clone()
    }
}
