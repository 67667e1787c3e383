//! From the API's answers to a seed.
//!
//! Must not know: Talos, what is redacted. Start reading at [`gather`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use mock_pve::world::seed::{Emulates, NetworkSeed, NodeSeed, PoolSeed, Seed, StorageSeed, VmSeed, VolumeSeed};
use serde_json::{Map, Value};

use crate::property::Disk;
use crate::pve::decode::{as_flag, as_int, as_text};
use crate::pve::vm::VmRef;
use crate::pve::{Pve, PveError};
use crate::types::{NodeName, StorageId};

/// Keys of a VM that hold what isn't for a file.
const SECRET: [&str; 1] = ["cipassword"];
const GIB: f64 = 1_073_741_824.0;

/// Everything that the caller may see. What is refused is told in `notes`; without nodes there is no inventory.
pub(super) async fn gather(pve: &Pve, notes: &mut Vec<String>) -> Result<Seed, PveError> {
    let version = pve.shown(&["version"]).await?;
    let cluster = pve.cluster_status().await?;
    let mut nodes = pve.nodes().await?;
    nodes.sort_by(|one, other| one.node.cmp(&other.node));
    let standard = Seed::single_node();
    let mut seed = Seed {
        description: Some("written by recast inventory".to_owned()),
        emulates: Some(Emulates {
            version: as_text(&version["version"]),
            release: as_text(&version["release"]),
            node: None,
        }),
        cluster_name: cluster.name.clone(),
        realms: standard.realms,
        users: standard.users,
        roles: standard.roles,
        acl: standard.acl,
        ..Seed::default()
    };
    let mut told = Told { notes };
    seed.cluster_options =
        told.or_default("the cluster's options", pve.shown(&["cluster", "options"]).await.map(object));
    seed.ha_resources = told.or_default("the HA resources", pve.listed(&["cluster", "ha", "resources"]).await);
    for resource in &mut seed.ha_resources {
        // What the manager does with it now is no property of it.
        resource.retain(|key, _| key != "status" && key != "type");
    }
    seed.replication_jobs = told.or_default("the replication jobs", pve.listed(&["cluster", "replication"]).await);
    seed.backup_jobs = told.or_default("the backup jobs", pve.listed(&["cluster", "backup"]).await);
    seed.storages = storages(told.or_default("the storages", pve.listed(&["storage"]).await));
    seed.pools = pools(pve, &mut told).await;
    for node in &nodes {
        let name = node.node.clone();
        if !node.is_online() {
            told.say(format!("node {name} is {}: what is on it is left out", node.status));
            continue;
        }
        let ip = cluster.members.iter().find(|member| member.name == name).and_then(|member| member.ip.clone());
        let ip = ip.and_then(|ip| ip.parse::<IpAddr>().ok());
        on_node(pve, &name, ip, &mut seed, &mut told).await?;
    }
    seed.vms.sort_by_key(|vm| vm.vmid);
    seed.volumes.sort_by(|one, other| (&one.node, &one.volid).cmp(&(&other.node, &other.volid)));
    Ok(seed)
}

/// What couldn't be read.
struct Told<'a> {
    notes: &'a mut Vec<String>,
}

impl Told<'_> {
    fn say(&mut self, note: String) {
        self.notes.push(note);
    }

    /// What a refusal leaves out is told, not fatal: rights differ from site to site.
    fn or_default<T: Default>(&mut self, what: &str, answer: Result<T, PveError>) -> T {
        answer.unwrap_or_else(|error| {
            let why = error.reason().map_or_else(|| error.to_string(), str::to_owned);
            self.say(format!("{what} can't be read and are left out: {why}"));
            T::default()
        })
    }
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(mut object) => {
            object.remove("digest");
            object
        }
        _ => Map::new(),
    }
}

fn storages(shown: Vec<Map<String, Value>>) -> Vec<StorageSeed> {
    let mut storages: Vec<StorageSeed> = shown
        .into_iter()
        .map(|mut options| StorageSeed {
            storage: options.remove("storage").map(|id| as_text(&id)).unwrap_or_default(),
            kind: options.remove("type").map(|kind| as_text(&kind)).unwrap_or_default(),
            capacity_gib: None,
            options,
        })
        .collect();
    storages.sort_by(|one, other| one.storage.cmp(&other.storage));
    storages
}

async fn pools(pve: &Pve, told: &mut Told<'_>) -> Vec<PoolSeed> {
    let listed = told.or_default("the pools", pve.listed(&["pools"]).await);
    let mut pools = Vec::new();
    for pool in listed {
        let poolid = pool.get("poolid").map(as_text).unwrap_or_default();
        let shown = told.or_default("a pool's members", pve.shown(&["pools", &poolid]).await);
        let members = shown["members"].as_array().cloned().unwrap_or_default();
        let of = |kind: &'static str| members.iter().filter(move |member| member["type"] == kind);
        pools.push(PoolSeed {
            poolid,
            comment: pool.get("comment").map(as_text),
            vms: of("qemu").filter_map(|member| u32::try_from(as_int(&member["vmid"])?).ok()).collect(),
            storages: of("storage").map(|member| as_text(&member["storage"])).collect(),
        });
    }
    pools
}

async fn on_node(
    pve: &Pve,
    name: &NodeName,
    ip: Option<IpAddr>,
    seed: &mut Seed,
    told: &mut Told<'_>,
) -> Result<(), PveError> {
    let status = told.or_default("a node's processors and memory", pve.node_status(name).await.map(Some));
    let mut network = told.or_default("a node's network", pve.listed(&["nodes", name.as_str(), "network"]).await);
    network.sort_by_key(|one| one.get("iface").map(as_text));
    let subnets = network.iter().filter(|one| one.get("type").is_some_and(|kind| kind == "bridge"));
    for bridge in subnets {
        let text = |key: &str| bridge.get(key).map(as_text);
        let (Some(iface), Some(cidr)) = (text("iface"), text("cidr")) else { continue };
        let Ok(subnet) = cidr.parse::<IpNet>() else { continue };
        if seed.networks.iter().all(|known| known.bridge != iface) {
            let gateway = text("gateway").and_then(|gateway| gateway.parse().ok());
            seed.networks.push(NetworkSeed { bridge: iface, subnet: subnet.trunc(), gateway, dhcp: None });
        }
    }
    seed.nodes.push(NodeSeed {
        name: name.to_string(),
        ip,
        standalone: None,
        cpus: status.as_ref().and_then(|status| u32::try_from(status.cpus()).ok()),
        memory_mb: status.as_ref().map(|status| status.memory.total >> 20),
        network,
    });
    vms(pve, name, seed, told).await?;
    volumes(pve, name, seed, told).await;
    Ok(())
}

async fn vms(pve: &Pve, node: &NodeName, seed: &mut Seed, told: &mut Told<'_>) -> Result<(), PveError> {
    for vm in pve.vms(node).await? {
        let at = VmRef::new(node.clone(), vm.vmid);
        let config = match pve.vm_config(&at).await {
            Ok(config) => config,
            Err(error) if error.is_missing_vm(vm.vmid) => continue,
            Err(error) => return Err(error),
        };
        if let Some(lock) = config.get("lock") {
            told.say(format!("VM {} is locked ({lock}): it is taken as it is at this moment", vm.vmid));
        }
        let snapshots = told.or_default("a VM's snapshots", pve.snapshots(&at).await);
        if !snapshots.is_empty() {
            told.say(format!("VM {} has snapshots, which are left out: {}", vm.vmid, snapshots.join(", ")));
        }
        let keys = config.keys.iter().filter(|(key, _)| !SECRET.contains(&key.as_str()) && *key != "parent");
        seed.vms.push(VmSeed {
            vmid: vm.vmid.0,
            node: Some(node.to_string()),
            name: None,
            status: Some(vm.status.clone()),
            config: keys.map(|(key, value)| (key.clone(), Value::String(value.clone()))).collect(),
        });
    }
    Ok(())
}

async fn volumes(pve: &Pve, node: &NodeName, seed: &mut Seed, told: &mut Told<'_>) {
    let storages = told.or_default("a node's storages", pve.node_storages(node).await);
    let named: BTreeSet<String> = seed
        .vms
        .iter()
        .flat_map(|vm| vm.config.values().filter_map(Value::as_str))
        .filter_map(|value| value.parse::<Disk>().ok())
        .filter(|drive| !drive.holds_medium())
        .map(|drive| drive.file)
        .collect();
    for storage in storages {
        let known = seed.storages.iter_mut().find(|known| known.storage == storage.storage.as_str());
        if let (Some(known), Some(total)) = (known, storage.total)
            && known.capacity_gib.is_none()
        {
            #[expect(clippy::cast_precision_loss, reason = "a capacity")]
            let gib = total as f64 / GIB;
            known.capacity_gib = Some(gib);
        }
        if !(storage.enabled && storage.active) {
            told.say(format!("storage {} doesn't work on {node}: what is on it is left out", storage.storage));
            continue;
        }
        let listed = content(pve, node, &storage.storage).await;
        let listed = told.or_default("a storage's volumes", listed);
        for volume in listed {
            let text = |key: &str| volume.get(key).map(as_text).unwrap_or_default();
            let volid = text("volid");
            let there = |known: &VolumeSeed| {
                known.volid == volid && (storage.shared || known.node.as_deref() == Some(node.as_str()))
            };
            // Disks of VMs come with their VMs.
            if named.contains(&volid) || seed.volumes.iter().any(there) {
                continue;
            }
            seed.volumes.push(VolumeSeed {
                volid,
                node: (!storage.shared).then(|| node.to_string()),
                content: text("content"),
                format: text("format"),
                virtual_size: volume.get("size").and_then(as_int).unwrap_or_default(),
                why: None,
            });
        }
    }
}

async fn content(pve: &Pve, node: &NodeName, storage: &StorageId) -> Result<Vec<BTreeMap<String, Value>>, PveError> {
    let all = pve.listed(&["nodes", node.as_str(), "storage", storage.as_str(), "content"]).await?;
    // Protected or not, a backup is a file.
    Ok(all
        .into_iter()
        .filter(|one| !one.get("subvol").is_some_and(as_flag))
        .map(|one| one.into_iter().collect())
        .collect())
}
