//! Which privileges the credentials lack for what a rebuild does.

use std::collections::BTreeSet;

use super::Ask;
use crate::plan::check::import_storage;
use crate::plan::observed::{MissingRight, Observed};
use crate::plan::sources::may_need_ssh;
use crate::profile::Inherit;
use crate::pve::{Pve, PveError};
use crate::types::VmId;

/// What is done to every VM of the cluster, its templates and canaries (Proxmox VE, `PVE/API2/Qemu.pm`).
const ON_VMS: &[(&str, &str)] = &[
    ("VM.Allocate", "creating and deleting VMs"),
    ("VM.Audit", "reading VMs"),
    ("VM.Clone", "cloning the template"),
    ("VM.Config.CPU", "setting cores"),
    ("VM.Config.Disk", "growing disks and setting the boot order"),
    ("VM.Config.HWType", "setting the machine type"),
    ("VM.Config.Memory", "setting memory"),
    ("VM.Config.Network", "setting the NIC"),
    ("VM.Config.Options", "setting names and tags"),
    ("VM.PowerMgmt", "starting and stopping VMs"),
];

/// Whether VMs of the cluster may be moved to another node.
pub async fn may_migrate(pve: &Pve, ask: &Ask) -> Result<bool, PveError> {
    for vmid in &ask.vmids {
        if !pve.rights(&format!("/vms/{vmid}")).await?.has("VM.Migrate") {
            return Ok(false);
        }
    }
    Ok(!ask.vmids.is_empty())
}

/// All that is missing.
pub async fn missing(pve: &Pve, ask: &Ask, seen: &Observed) -> Result<Vec<MissingRight>, PveError> {
    let mut missing = Vec::new();
    let mut vmids = ask.vmids.clone();
    // Templates and canaries get their numbers when the plan is made: the first of the range stands for all.
    vmids.extend(ask.template_ids.clone().map(VmId).find(|vmid| !seen.vmids.contains(vmid)));
    for vmid in vmids {
        lacking(pve, &format!("/vms/{vmid}"), ON_VMS, &mut missing).await?;
    }
    let disks = &[("Datastore.AllocateSpace", "creating disks"), ("Datastore.Audit", "reading the storage")];
    lacking(pve, &format!("/storage/{}", ask.storage), disks, &mut missing).await?;
    let uploads = &[
        ("Datastore.AllocateTemplate", "uploading the image"),
        ("Datastore.Audit", "reading the storage"),
        ("Datastore.Allocate", "removing the uploaded image again"),
    ];
    let uploading = ask.nodes.iter().filter(|node| !may_need_ssh(ask.transport, seen, node));
    let mut imports: Vec<_> =
        uploading.filter_map(|node| import_storage(seen, node)).map(|storage| &storage.id).collect();
    imports.sort();
    imports.dedup();
    for storage in imports {
        lacking(pve, &format!("/storage/{storage}"), uploads, &mut missing).await?;
    }
    let victims = || crate::plan::check::victims(seen);
    let mut on_root: Vec<(&str, &str)> = Vec::new();
    if victims().any(|vm| vm.ha.is_some()) {
        on_root.push(("Sys.Console", "changing HA resources"));
        on_root.push(("Sys.Audit", "reading HA resources"));
    }
    if ask.inherits.contains(&Inherit::Startup) && victims().any(|vm| vm.config.contains_key("startup")) {
        on_root.push(("Sys.Modify", "taking over the start order (startup)"));
    }
    if !on_root.is_empty() {
        lacking(pve, "/", &on_root, &mut missing).await?;
    }
    let taken_over = victims().filter(|_| ask.inherits.contains(&Inherit::Pool)).filter_map(|vm| vm.pool.as_ref());
    let pools: BTreeSet<&String> = taken_over.chain(&ask.pool).collect();
    for pool in pools {
        lacking(pve, &format!("/pool/{pool}"), &[("VM.Allocate", "creating VMs in the pool")], &mut missing).await?;
    }
    if ask.cloud_init {
        let needed = [("VM.Config.Cloudinit", "cloud-init drives"), ("VM.Config.CDROM", "cloud-init drives")];
        for vmid in &ask.vmids {
            lacking(pve, &format!("/vms/{vmid}"), &needed, &mut missing).await?;
        }
    }
    if pve.version().await?.checks_bridges() {
        let tag = ask.vlan.map_or_else(String::new, |tag| format!("/{tag}"));
        let bridge = format!("/sdn/zones/localnetwork/{}{tag}", ask.bridge);
        lacking(pve, &bridge, &[("SDN.Use", "plugging NICs into the bridge")], &mut missing).await?;
    }
    missing.sort();
    missing.dedup();
    Ok(missing)
}

async fn lacking(
    pve: &Pve,
    path: &str,
    needed: &[(&str, &str)],
    missing: &mut Vec<MissingRight>,
) -> Result<(), PveError> {
    let held = pve.rights(path).await?;
    missing.extend(needed.iter().filter(|(privilege, _)| !held.has(privilege)).map(|(privilege, why)| MissingRight {
        path: path.to_owned(),
        privilege: (*privilege).to_owned(),
        why: (*why).to_owned(),
        held: held.0.clone(),
    }));
    Ok(())
}
