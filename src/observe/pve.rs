//! What Proxmox VE shows: nodes, storages, VMs, templates, leftovers.

use super::Ask;
use super::identity::identity;
use crate::plan::data::HaState;
use crate::plan::observed::{
    Finding, Known, Leftover, Observed, SeenFirewall, SeenNode, SeenStorage, SeenTemplate, SeenVm,
};
use crate::plan::step::HaCare;
use crate::plan::{check, provenance};
use crate::pve::node::{BackupJob, HaResource, ReplicationJob};
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
    let jobs = Jobs::read(pve).await?;
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
        sort_in(pve, ask, guest, &vm, &config, &jobs, &mut seen).await?;
    }
    let managed = check::victims(&seen).filter_map(|vm| Some((vm.identity.vmid, vm.ha.as_ref()?)));
    seen.ha = managed.map(|(vmid, care)| HaState { vmid, state: care.state.clone() }).collect();
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
    jobs: &Jobs,
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
            proved: provenance::is_proved(config.description()),
        };
        seen.templates.push(template);
    }
    if let Some(mark) = ours
        && !config.is_template()
        && !tagged
        && (is_passing(mark) || ask.half_made.contains(mark))
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
    let snapshots = if template { Vec::new() } else { pve.snapshots(vm).await? };
    let walled = config.nics().values().any(|nic| nic.options.get("firewall").is_some_and(|flag| flag == "1"));
    let firewall = if walled && !template { firewall(pve, vm, seen).await } else { None };
    seen.vms.push(SeenVm {
        identity: identity(vm, config),
        tagged,
        template,
        known,
        role: role(config),
        running: status.is_running(),
        config: config.keys.clone(),
        pool: guest.pool.clone(),
        ha: status.is_ha_managed().then(|| jobs.care(vm.vmid)),
        replicas: jobs.replicas(vm.vmid),
        backup_jobs: jobs.backups(vm.vmid),
        snapshots,
        firewall,
    });
    Ok(())
}

/// What the cluster's managers are told about guests.
struct Jobs {
    ha: Vec<HaResource>,
    replication: Vec<ReplicationJob>,
    backup: Vec<BackupJob>,
}

impl Jobs {
    /// HA resources and backup jobs need a right of their own: where that isn't held, a VM's own status still tells that
    /// it is managed, and `rights` then asks for it.
    async fn read(pve: &Pve) -> Result<Self, PveError> {
        let unless_forbidden = |error: PveError| match error.meaning() {
            PveError::Forbidden { .. } => Ok(()),
            _ => Err(error),
        };
        let ha = match pve.ha_resources().await {
            Ok(resources) => resources,
            Err(error) => unless_forbidden(error).map(|()| Vec::new())?,
        };
        let backup = match pve.backup_jobs().await {
            Ok(jobs) => jobs,
            Err(error) => unless_forbidden(error).map(|()| Vec::new())?,
        };
        Ok(Self { ha, replication: pve.replication_jobs().await?, backup })
    }

    fn care(&self, vmid: VmId) -> HaCare {
        let resource = self.ha.iter().find(|resource| resource.vmid() == Some(vmid));
        let Some(resource) = resource else {
            return HaCare { state: "started".to_owned(), ..HaCare::default() };
        };
        HaCare {
            state: resource.state.clone().unwrap_or_else(|| "started".to_owned()),
            group: resource.group.clone(),
            max_restart: resource.max_restart,
            max_relocate: resource.max_relocate,
            comment: resource.comment.clone(),
        }
    }

    fn replicas(&self, vmid: VmId) -> Vec<String> {
        let own = self.replication.iter().filter(|job| job.vmid() == Some(vmid));
        own.map(|job| format!("{} to {}", job.id, job.target)).collect()
    }

    fn backups(&self, vmid: VmId) -> Vec<String> {
        self.backup.iter().filter(|job| job.names(vmid)).map(|job| job.id.clone()).collect()
    }
}

/// A VM's own firewall. What can't be read is told: the new VM would be without it.
async fn firewall(pve: &Pve, vm: &VmRef, seen: &mut Observed) -> Option<SeenFirewall> {
    let told = |what: String| Finding::warning(what, "look at it in PVE, and set it on the new VM yourself");
    match pve.vm_firewall(vm).await {
        Ok(firewall) => {
            if !firewall.names.is_empty() {
                let names = firewall.names.join(", ");
                let what =
                    format!("the firewall of VM {} has names of its own ({names}) and is not taken over", vm.vmid);
                seen.problems.push(told(what));
                // Its policy without its rules would shut the machine off.
                return None;
            }
            Some(SeenFirewall { options: firewall.options, rules: firewall.rules })
        }
        Err(error) => {
            seen.problems.push(told(format!("the firewall of VM {} can't be read", vm.vmid)).because(&error));
            None
        }
    }
}

/// Whether a mark belongs to something that doesn't outlive its run: a canary, or a template that isn't one yet.
fn is_passing(mark: &str) -> bool {
    provenance::field(mark, "step").is_some_and(|step| step.starts_with("canary/") || step.starts_with("template/"))
}

fn role(config: &VmConfig) -> Option<Role> {
    let tags = config.tags();
    [Role::ControlPlane, Role::Worker].into_iter().find(|role| tags.contains_all([role.to_string().as_str()]))
}
