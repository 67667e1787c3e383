//! The profile's cluster on the site that an inventory wrote down.
//!
//! Purpose: a rehearsal among the real neighbours: nodes, storages, other VMs, and the cluster's own VMs with the hardware
//! and disks that they really have. Users, secrets, addresses and versions stay the rehearsal's. Pure. Must not know:
//! files. Start reading at [`onto`].

use std::collections::BTreeSet;

use mock_pve::world::seed::Seed;

use super::seed::Contents;

/// The VMs that are the cluster's.
#[derive(Debug)]
pub struct Cluster {
    /// Their numbers.
    pub vmids: BTreeSet<u32>,
    /// Their names.
    pub names: BTreeSet<String>,
    /// Whether they are there.
    pub contents: Contents,
}

/// The site with the cluster on it; what doesn't fit together is told in `notices`.
pub fn onto(site: Seed, own: Seed, cluster: &Cluster, notices: &mut Vec<String>) -> Seed {
    let mut seed = Seed { emulates: site.emulates, description: own.description.clone(), ..own };
    let named: BTreeSet<String> = site.nodes.iter().map(|node| node.name.clone()).collect();
    for node in seed.nodes.iter().filter(|node| !named.contains(&node.name)) {
        notices.push(format!("node {} isn't in the inventory: it is made up", node.name));
    }
    seed.nodes.retain(|node| !named.contains(&node.name));
    seed.nodes.splice(0..0, site.nodes);
    let several = seed.nodes.len() > 1;
    seed.cluster_name = site.cluster_name.or(seed.cluster_name).or(several.then(|| "rehearsal".to_owned()));
    seed.cluster_options = site.cluster_options;
    let storages: BTreeSet<String> = site.storages.iter().map(|storage| storage.storage.clone()).collect();
    seed.storages.retain(|storage| !storages.contains(&storage.storage));
    seed.storages.splice(0..0, site.storages);
    let pools: BTreeSet<String> = site.pools.iter().map(|pool| pool.poolid.clone()).collect();
    seed.pools.retain(|pool| !pools.contains(&pool.poolid));
    seed.pools.splice(0..0, site.pools);
    for network in site.networks {
        if seed.networks.iter().all(|known| known.bridge != network.bridge) {
            seed.networks.push(network);
        }
    }
    let is_own = |vm: &mock_pve::world::seed::VmSeed| {
        let name = vm.name.as_deref().or(vm.config.get("name").and_then(|name| name.as_str()));
        cluster.vmids.contains(&vm.vmid) || name.is_some_and(|name| cluster.names.contains(name))
    };
    for mut vm in site.vms {
        if is_own(&vm) {
            if cluster.contents == Contents::TemplateOnly {
                continue;
            }
            // It runs, as the profile says; all else is as it really is.
            vm.status = Some("running".to_owned());
        }
        seed.vms.retain(|known| known.vmid != vm.vmid);
        seed.vms.push(vm);
    }
    seed.vms.sort_by_key(|vm| vm.vmid);
    let there: BTreeSet<u32> = seed.vms.iter().map(|vm| vm.vmid).collect();
    let of_vm =
        |sid: &str| sid.rsplit(':').next().and_then(|vmid| vmid.parse().ok()).is_none_or(|vmid| there.contains(&vmid));
    seed.ha_resources = site.ha_resources;
    seed.ha_resources.retain(|one| one.get("sid").and_then(|sid| sid.as_str()).is_none_or(of_vm));
    seed.replication_jobs = site.replication_jobs;
    seed.replication_jobs.retain(|one| one.get("guest").map(ToString::to_string).is_none_or(|guest| of_vm(&guest)));
    seed.backup_jobs = site.backup_jobs;
    seed.volumes = site.volumes;
    for pool in &mut seed.pools {
        pool.vms.retain(|vmid| there.contains(vmid));
    }
    seed
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(seed: serde_json::Value) -> Seed {
        serde_json::from_value(seed).unwrap()
    }

    fn site() -> Seed {
        read(json!({
            "nodes": [{"name": "pve1", "cpus": 64}],
            "storages": [{"storage": "tank", "type": "zfspool", "content": "images"}],
            "pools": [{"poolid": "lab", "vms": [100, 1200]}],
            "ha_resources": [{"sid": "vm:1200"}],
            "vms": [
                {"vmid": 100, "node": "pve1", "config": {"name": "neighbour"}},
                {"vmid": 1200, "node": "pve1", "status": "stopped", "config": {"name": "cp-1", "scsi1": "tank:vm-1200-disk-7,size=1G"}},
            ],
        }))
    }

    fn own() -> Seed {
        read(json!({
            "nodes": [{"name": "pve1", "cpus": 16}, {"name": "pve2"}],
            "storages": [{"storage": "local", "type": "dir", "content": "iso"}],
            "vms": [{"vmid": 1200, "node": "pve1", "status": "running", "config": {"name": "cp-1"}}],
            "machines": [{"vmid": 1200, "cluster": "x", "role": "controlplane", "name": "cp-1", "address": "10.0.0.1/24"}],
        }))
    }

    #[test]
    fn the_cluster_runs_with_its_real_hardware_among_its_real_neighbours() {
        let mut notices = Vec::new();
        let cluster = Cluster { vmids: [1200].into(), names: ["cp-1".to_owned()].into(), contents: Contents::Running };
        let seed = onto(site(), own(), &cluster, &mut notices);
        let vms: Vec<(u32, Option<&str>)> = seed.vms.iter().map(|vm| (vm.vmid, vm.status.as_deref())).collect();
        assert_eq!(vms, [(100, None), (1200, Some("running"))]);
        assert!(seed.vms[1].config.contains_key("scsi1"));
        assert_eq!(
            (seed.nodes[0].cpus, seed.nodes.len(), seed.storages.len(), seed.machines.len()),
            (Some(64), 2, 2, 1)
        );
        assert_eq!(notices, ["node pve2 isn't in the inventory: it is made up"]);
        let gone = Cluster { contents: Contents::TemplateOnly, ..cluster };
        let own = Seed { vms: Vec::new(), machines: Vec::new(), ..own() };
        let seed = onto(site(), own, &gone, &mut notices);
        assert_eq!(seed.vms.iter().map(|vm| vm.vmid).collect::<Vec<_>>(), [100]);
        assert!(seed.ha_resources.is_empty() && seed.pools[0].vms == [100]);
    }
}
