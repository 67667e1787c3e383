//! Made-up names, addresses, MACs, serials and notes in the place of the real ones.
//!
//! Purpose: an inventory that can be shown to anybody and still behaves like the site: the same thing becomes the same
//! thing everywhere, numbers and hardware stay. What isn't known to be harmless goes. Pure. Start reading at [`redact`].

mod address;
mod names;
mod network;
mod storage;
#[cfg(test)]
mod tests;
mod vm;

use mock_pve::world::seed::Seed;
use serde_json::{Map, Value, json};

use names::Names;

/// What an inventory looks like to anybody.
pub fn redact(seed: Seed) -> Seed {
    let mut names = Names::default();
    // In the order of the file, so that numbers follow it.
    for node in &seed.nodes {
        names.of("node", &node.name);
    }
    for storage in &seed.storages {
        names.of("storage", &storage.storage);
    }
    Redact { names }.seed(seed)
}

struct Redact {
    names: Names,
}

impl Redact {
    fn seed(&mut self, seed: Seed) -> Seed {
        Seed {
            description: Some("written by recast inventory --redact".to_owned()),
            nodes: seed
                .nodes
                .into_iter()
                .map(|mut node| {
                    node.name = self.names.of("node", &node.name);
                    node.ip = node.ip.map(|ip| self.address(ip));
                    node.network = node.network.into_iter().map(|one| self.interface(one)).collect();
                    node
                })
                .collect(),
            cluster_name: seed.cluster_name.map(|name| self.names.of("cluster", &name)),
            cluster_options: seed
                .cluster_options
                .into_iter()
                .filter(|(key, _)| ["keyboard", "migration", "ha", "next-id", "mac_prefix"].contains(&key.as_str()))
                .filter(|(key, _)| key != "migration")
                .collect(),
            sdn_zones: Vec::new(),
            ha_resources: seed.ha_resources.into_iter().map(|one| self.job(one)).collect(),
            replication_jobs: seed.replication_jobs.into_iter().map(|one| self.job(one)).collect(),
            backup_jobs: seed.backup_jobs.into_iter().map(|one| self.job(one)).collect(),
            pools: seed
                .pools
                .into_iter()
                .map(|mut pool| {
                    pool.poolid = self.names.of("pool", &pool.poolid);
                    pool.comment = None;
                    pool.storages = pool.storages.iter().map(|id| self.names.of("storage", id)).collect();
                    pool
                })
                .collect(),
            vms: seed.vms.into_iter().map(|vm| self.vm(vm)).collect(),
            storages: seed.storages.into_iter().map(|storage| self.storage(storage)).collect(),
            volumes: seed
                .volumes
                .into_iter()
                .map(|mut volume| {
                    volume.volid = self.volume(&volume.volid);
                    volume.node = volume.node.map(|node| self.names.of("node", &node));
                    volume
                })
                .collect(),
            guest: seed.guest.map(|guest| self.guests(guest)),
            networks: seed
                .networks
                .into_iter()
                .map(|mut network| {
                    network.bridge = self.names.of("bridge", &network.bridge);
                    network.subnet = self.net(network.subnet);
                    network.gateway = network.gateway.map(|ip| self.address(ip));
                    network
                })
                .collect(),
            // Users, roles and rights are the double's own from the start.
            ..seed
        }
    }

    /// Jobs and resources: what they are about stays, what was written about them goes.
    fn job(&mut self, real: Map<String, Value>) -> Map<String, Value> {
        let mut made = Map::new();
        for (key, value) in real {
            let name = |this: &mut Self, kind| json!(this.names.of(kind, value.as_str().unwrap_or_default()));
            let value = match key.as_str() {
                "node" | "target" | "source" => name(self, "node"),
                "storage" => name(self, "storage"),
                "pool" => name(self, "pool"),
                "group" => name(self, "group"),
                "id" | "sid" | "state" | "type" | "guest" | "jobnum" | "schedule" | "enabled" | "all" | "vmid"
                | "mode" | "compress" | "max_restart" | "max_relocate" | "rate" | "disable" | "prune-backups" => value,
                _ => continue,
            };
            made.insert(key, value);
        }
        made
    }

    fn guests(&mut self, real: Value) -> Value {
        let Value::Object(real) = real else { return Value::Null };
        let mut made = Map::new();
        for (key, facts) in real {
            let text = |key: &str| facts[key].as_str().unwrap_or_default().to_owned();
            let name = self.host(&text("hostname"));
            let shown = json!({
                "address": self.host(&text("address")), "hostname": name, "context": self.names.of("context", &text("context")),
                "talos": facts["talos"], "kubernetes": facts["kubernetes"], "role": facts["role"],
            });
            made.insert(if key.parse::<u32>().is_ok() { key } else { self.host(&key) }, shown);
        }
        Value::Object(made)
    }
}
