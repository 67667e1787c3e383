//! What Proxmox VE shows: nodes, storages, VMs, templates, leftovers.

use std::collections::BTreeSet;

use super::Ask;
use super::identity::identity;
use crate::plan::observed::{Known, Leftover, Observed, SeenNode, SeenStorage, SeenTemplate, SeenVm};
use crate::plan::provenance;
use crate::pve::vm::{Guest, GuestKind, VmRef};
use crate::pve::{Pve, PveError, VmConfig};
use crate::types::{NodeName, Role, VmId};

/// Looks at everything that concerns the cluster.
pub async fn observe(pve: &Pve, ask: &Ask) -> Result<Observed, PveError> {
    let mut seen = Observed::default();
    for node in pve.nodes().await? {
        let online = node.is_online();
        let (mut version, mut memory_mb) = (String::new(), 0);
        if online && ask.nodes.contains(&node.node) {
            version = pve.node_version(&node.node).await?.to_string();
            memory_mb = pve.node_status(&node.node).await.map_or(0, |status| status.memory.total >> 20);
            seen.storages.extend(storages(pve, &node.node).await?);
        }
        seen.nodes.push(SeenNode { name: node.node, online, version, memory_mb });
    }
    let guests = pve.guests().await?;
    seen.vmids = guests.iter().map(|guest| guest.vmid).collect();
    let replicated: BTreeSet<VmId> =
        pve.replication_jobs().await?.iter().filter_map(crate::pve::node::ReplicationJob::vmid).collect();
    for guest in guests.iter().filter(|guest| guest.kind == GuestKind::Qemu && concerns(guest, ask)) {
        if seen.nodes.iter().any(|node| node.name == guest.node && !node.online) {
            // Its configuration can't be read; `check` refuses a run that needs the node.
            continue;
        }
        let vm = VmRef::new(guest.node.clone(), guest.vmid);
        let config = match pve.vm_config(&vm).await {
            Ok(config) => config,
            // It went away between the list and the look.
            Err(error) if error.is_missing_vm(guest.vmid) => continue,
            Err(error) => return Err(error),
        };
        sort_in(pve, ask, guest, &vm, &config, &replicated, &mut seen).await?;
    }
    Ok(seen)
}

async fn storages(pve: &Pve, node: &NodeName) -> Result<Vec<SeenStorage>, PveError> {
    let listed = pve.node_storages(node).await?;
    let seen = listed.into_iter().map(|storage| SeenStorage {
        node: node.clone(),
        usable: storage.enabled && storage.active,
        id: storage.storage,
        kind: storage.kind,
        content: storage.content.into_iter().collect(),
        shared: storage.shared,
        free: storage.avail.unwrap_or(0),
    });
    Ok(seen.collect())
}

/// Whether a guest may belong to the cluster, bear its name or number, or be something that recast made.
/// The list lags: a guest without a name in it may be any of these.
fn concerns(guest: &Guest, ask: &Ask) -> bool {
    let tags = guest.tags();
    tags.contains_all(ask.tags.iter().map(String::as_str))
        || tags.contains_all(["template"])
        || tags.contains_all(["recast-canary"])
        || ask.vmids.contains(&guest.vmid)
        || ask.template_ids.contains(&guest.vmid.0)
        || guest.name.as_ref().is_none_or(|name| ask.names.contains(name))
}

async fn sort_in(
    pve: &Pve,
    ask: &Ask,
    guest: &Guest,
    vm: &VmRef,
    config: &VmConfig,
    replicated: &BTreeSet<VmId>,
    seen: &mut Observed,
) -> Result<(), PveError> {
    let tagged = config.tags().contains_all(ask.tags.iter().map(String::as_str));
    let mark = provenance::find_mark(config.description());
    let ours = mark.filter(|mark| provenance::field(mark, "cluster") == Some(ask.cluster.as_str()));
    let name = config.name().unwrap_or_default().to_owned();
    if config.is_template()
        && let (Some(mark), Some(fingerprint)) = (mark, provenance::find_fingerprint(config.description()))
    {
        let template = SeenTemplate {
            node: vm.node.clone(),
            vmid: vm.vmid,
            name: name.clone(),
            mark: mark.to_owned(),
            fingerprint,
        };
        seen.templates.push(template);
    }
    if let Some(mark) = ours
        && !config.is_template()
        && !tagged
        && is_passing(mark)
    {
        seen.leftovers.push(Leftover { node: vm.node.clone(), vmid: vm.vmid, name, mark: mark.to_owned() });
        return Ok(());
    }
    let by_profile = ask.names.contains(&name) || ask.vmids.contains(&vm.vmid);
    if !tagged && !by_profile {
        return Ok(());
    }
    let known = match (by_profile, ours) {
        (true, _) => Known::Profile,
        (false, Some(_)) => Known::Mark,
        (false, None) => Known::No,
    };
    let status = pve.vm_status(vm).await?;
    let template = config.is_template();
    let snapshots = !template && !pve.snapshots(vm).await?.is_empty();
    seen.vms.push(SeenVm {
        identity: identity(vm, config),
        tagged,
        template,
        known,
        role: role(config),
        running: status.is_running(),
        config: config.keys.clone(),
        pool: guest.pool.clone(),
        ha: status.is_ha_managed(),
        replicated: replicated.contains(&vm.vmid),
        snapshots,
    });
    Ok(())
}

/// Whether a mark belongs to something that doesn't outlive its run: a canary, or a template that isn't one yet.
fn is_passing(mark: &str) -> bool {
    provenance::field(mark, "step").is_some_and(|step| step.starts_with("canary/") || step.starts_with("template/"))
}

fn role(config: &VmConfig) -> Option<Role> {
    let tags = config.tags();
    [Role::ControlPlane, Role::Worker].into_iter().find(|role| tags.contains_all([role.to_string().as_str()]))
}
