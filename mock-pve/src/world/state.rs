//! Everything that exists in a world.
//!
//! Purpose: the data that the rules work on, in one place, behind the one lock of [`super::World`]. Must not know:
//! sockets, files, or how a request looks. Start at [`State`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::access::Access;
use super::firewall::Firewall;
use super::members::Outage;
use super::rng::Rng;
use super::tasks::Tasks;

/// Which release is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PveVersion {
    /// 8.4, the reference.
    V8,
    /// 9.1.
    V9,
}

/// The whole world.
#[derive(Debug, Serialize, Deserialize)]
pub struct State {
    /// The release.
    pub pve: PveVersion,
    /// `8.4.21`.
    pub version: String,
    /// `8.4`.
    pub release: String,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Name of the node that answers requests.
    pub local: String,
    /// Name of the PVE cluster, if it is one.
    pub cluster_name: Option<String>,
    /// `/cluster/options`.
    pub options: Map<String, Value>,
    /// Storages by id.
    pub storages: BTreeMap<String, Storage>,
    /// Volumes.
    #[serde(with = "volume_list")]
    pub volumes: BTreeMap<VolumeKey, Volume>,
    /// Virtual machines by number.
    pub vms: BTreeMap<u32, Vm>,
    /// Users, roles, rights.
    pub access: Access,
    /// Pools by id.
    pub pools: BTreeMap<String, Pool>,
    /// Tasks.
    pub tasks: Tasks,
    /// HA resources by service id (`vm:100`).
    pub ha: BTreeMap<String, Map<String, Value>>,
    /// HA groups by name.
    #[serde(default)]
    pub ha_groups: BTreeMap<String, Map<String, Value>>,
    /// Replication jobs.
    pub replication: Vec<Map<String, Value>>,
    /// Backup jobs.
    pub backup: Vec<Map<String, Value>>,
    /// Cluster firewall options.
    pub firewall: Map<String, Value>,
    /// The other firewall files: the cluster's (empty key), `nodes/…`, `vms/…`.
    #[serde(default)]
    pub firewalls: BTreeMap<String, Firewall>,
    /// Configs that are only written down and read back, by what they are of: `mapping/pci`, `sdn/zones` …
    #[serde(default)]
    pub sections: BTreeMap<String, Sections>,
    /// Chance.
    pub rng: Rng,
}

/// Entries of one config by id.
pub type Sections = BTreeMap<String, Map<String, Value>>;

/// Files of the virtual networks that are in force only once they are applied.
const APPLIED: [&str; 4] = ["sdn/zones", "sdn/vnets", "sdn/controllers", "sdn/subnets"];

impl State {
    /// What is written down of the virtual networks is in force from now on.
    pub fn apply_networks(&mut self) {
        for file in APPLIED {
            let present = self.sections.get(file).cloned().unwrap_or_default();
            self.sections.insert(format!("running/{file}"), present);
        }
    }

    /// What is written down of the virtual networks is what is in force again.
    pub fn roll_networks_back(&mut self) {
        for file in APPLIED {
            let running = self.sections.get(&format!("running/{file}")).cloned().unwrap_or_default();
            self.sections.insert(file.to_owned(), running);
        }
    }

    /// Whether anything of the virtual networks is written down that isn't in force.
    pub fn networks_pending(&self) -> bool {
        let differs = |file: &str| {
            let (written, running) = (self.sections.get(file), self.sections.get(&format!("running/{file}")));
            let nothing = Sections::new();
            written.unwrap_or(&nothing) != running.unwrap_or(&nothing)
        };
        APPLIED.into_iter().any(differs)
    }

    /// A state of before networks had to be applied doesn't say what is in force: all that it has.
    pub(super) fn apply_networks_of_old(&mut self) {
        if APPLIED.iter().all(|file| !self.sections.contains_key(&format!("running/{file}"))) {
            self.apply_networks();
        }
    }
}

/// A node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Position in the cluster, from 1 (0 when standalone).
    pub id: u32,
    /// Its address, as shown.
    pub ip: String,
    /// Logical CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// `N/network`.
    pub network: Vec<Map<String, Value>>,
    /// The same as it is to be once it is applied.
    #[serde(default)]
    pub network_new: Option<Vec<Map<String, Value>>>,
    /// SHA-256 of its certificate, set by whoever serves it.
    pub fingerprint: String,
    /// What is wrong with it, if anything.
    #[serde(default)]
    pub outage: Option<Outage>,
}

/// A storage.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Storage {
    /// `dir`, `lvmthin` …
    pub kind: String,
    /// All options except id and type, as `storage.cfg` holds them.
    pub options: Map<String, Value>,
    /// How many bytes it holds (on each node, when local).
    pub capacity: u64,
}

/// Which volume: a local storage is a different place on every node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct VolumeKey {
    /// Storage id.
    pub storage: String,
    /// Node; empty on shared storages.
    pub node: String,
    /// The part after `:` in the volume id.
    pub name: String,
}

/// A volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Volume {
    /// `images`, `iso`, `import`, `vztmpl`, `snippets`, `backup`, `rootdir`.
    pub content: String,
    /// `raw`, `qcow2`, `vmdk`, `iso`, …
    pub format: String,
    /// Size as listed, in bytes: what a guest sees of an image, the length of any other file.
    pub size: u64,
    /// The VM it belongs to.
    pub vmid: Option<u32>,
    /// The base it is a linked clone of: volume name (on the same storage).
    pub parent: Option<String>,
    /// Unix time of creation.
    pub ctime: u64,
    /// Free text.
    pub notes: Option<String>,
    /// Refuses deletion.
    pub protected: bool,
    /// Snapshots kept in it.
    pub snapshots: BTreeSet<String>,
}

/// A virtual machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Vm {
    /// The node it is on.
    pub node: String,
    /// The lines of its config.
    pub config: Config,
    /// Changes that wait for the next start.
    pub pending: Config,
    /// Keys that vanish at the next start; `true`: the volume too.
    pub pending_delete: BTreeMap<String, bool>,
    /// Values that the cloud-init drive holds in place of the present ones.
    #[serde(default)]
    pub cloudinit: Config,
    /// Snapshots by name.
    pub snapshots: BTreeMap<String, Config>,
    /// Set while it runs.
    pub running: Option<Runtime>,
    /// What the statistics round last told the cluster.
    pub seen: Option<Seen>,
    /// Whether the seed brought it (else a request made it).
    #[serde(default)]
    pub seeded: bool,
    /// Links at the former places of disks that moved while the guest ran; they go when it is off.
    #[serde(default)]
    pub trails: Vec<PathBuf>,
}

/// Whether a VM is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// It has a process.
    On,
    /// It has none.
    Off,
}

impl Vm {
    /// Whether it is on.
    pub fn switch(&self) -> Switch {
        if self.running.is_some() { Switch::On } else { Switch::Off }
    }
}

/// `key: value` lines.
pub type Config = BTreeMap<String, String>;

/// A VM that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Runtime {
    /// Process id.
    pub pid: u32,
    /// [`super::clock::Clock::elapsed`] at its start.
    pub since: f64,
    /// Paused by request.
    pub paused: bool,
    /// It was started with `freeze=1`, and its guest has not begun to boot.
    #[serde(default)]
    pub prelaunch: bool,
    /// The config it was started with.
    pub config: Config,
}

/// What the statistics round knows of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Name.
    pub name: String,
    /// `running` or `stopped`.
    pub running: bool,
    /// Template flag.
    pub template: bool,
    /// Size of the boot disk.
    pub maxdisk: u64,
    /// Memory in bytes.
    pub maxmem: u64,
    /// CPUs.
    pub cpus: u64,
}

/// A resource pool.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Pool {
    /// Free text.
    pub comment: Option<String>,
    /// VMs in it.
    pub vms: BTreeSet<u32>,
    /// Storages in it.
    pub storages: BTreeSet<String>,
}

/// JSON has no maps with structured keys.
mod volume_list {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Volume, VolumeKey};

    pub(super) fn serialize<S: Serializer>(
        volumes: &BTreeMap<VolumeKey, Volume>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        volumes.iter().collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<VolumeKey, Volume>, D::Error> {
        Ok(Vec::<(VolumeKey, Volume)>::deserialize(deserializer)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::world::seed::Seed;
    use crate::world::{PveVersion, Settings, World};

    #[tokio::test]
    async fn networks_of_an_old_folder_are_in_force_and_later_ones_only_when_applied() {
        let dir = tempfile::tempdir().unwrap();
        let begin = || {
            let settings = Settings { dir: dir.path().to_owned(), time_scale: 200.0, rng_seed: 1, pve: PveVersion::V8 };
            World::new(Seed::single_node(), settings).unwrap()
        };
        let zones = |world: &World, file: &str| {
            world.state().sections.get(file).map(|zones| zones.keys().cloned().collect::<Vec<_>>())
        };
        let add = |world: &World, zone: &str| {
            let entry = json!({"zone": zone, "type": "simple"}).as_object().cloned().unwrap();
            world.state().sections.entry("sdn/zones".to_owned()).or_default().insert(zone.to_owned(), entry);
        };
        let world = begin();
        assert_eq!(zones(&world, "running/sdn/zones"), Some(vec![]));
        add(&world, "old");
        world.state().sections.retain(|file, _| !file.starts_with("running/"));
        world.save().unwrap();
        drop(world);
        let world = begin();
        assert_eq!(zones(&world, "running/sdn/zones"), Some(vec!["old".to_owned()]));
        add(&world, "new");
        world.save().unwrap();
        drop(world);
        let world = begin();
        assert_eq!(zones(&world, "running/sdn/zones"), Some(vec!["old".to_owned()]));
    }
}
