//! Phase `provision`: the new VMs, cloned, sized, given what they take over, and started.

use std::collections::BTreeMap;

use crate::plan::allocate;
use crate::plan::make::{Draft, planned};
use crate::plan::observed::SeenVm;
use crate::plan::step::{Hardware, MachineSpec, OurVm};
use crate::plan::{Change, Phase, Planned, PlannedVm, Step, provenance};
use crate::profile::Inherit;
use crate::property::{self, Nic, Tags};
use crate::types::{NodeName, StepId};

/// How many clones run at once on one storage: its lock makes more of them time out (Proxmox VE waits 10 s for it).
const CLONES: usize = 4;

/// How many VMs are worked on at once.
const WIDTH: usize = 16;

/// Where a cloud-init drive is plugged in (with q35 and UEFI, IDE works as a CD-ROM).
pub(in crate::plan) const CLOUD_INIT: &str = "ide2";

pub(in crate::plan) fn provision(draft: &Draft<'_>) -> Phase {
    let mut steps = Vec::new();
    let mut lanes: BTreeMap<NodeName, Vec<StepId>> = BTreeMap::new();
    for vm in &draft.vms {
        let id = |what: &str| format!("provision/{}/{what}", vm.name);
        let ours = new_vm(draft, vm);
        let old = draft.replaced(vm);
        let inherits = |what: Inherit| old.filter(|_| draft.wanted.inherits(&vm.name, what));
        let pool = inherits(Inherit::Pool).and_then(|old| old.pool.clone()).or_else(|| draft.wanted.pool.clone());
        let origin = draft.source_of(vm).vm.node.clone();
        let lane = lanes.entry(origin).or_default();
        let behind = lane.len().checked_sub(CLONES).map(|earlier| lane[earlier].clone());
        let made = clone(draft, vm, &ours, pool, behind.as_ref());
        lane.push(made[0].id.clone());
        let last = made.last().map(|planned| planned.id.clone());
        let set = Step::SetHardware { vm: ours.clone(), set: hardware(draft, vm), delete: Vec::new() };
        let set = planned(id("hardware"), set, &last.iter().collect::<Vec<_>>());
        let grow = Step::GrowDisk { vm: ours.clone(), disk: "scsi0".to_owned(), gib: vm.disk_gib };
        let grow = planned(id("grow"), grow, &[&set.id]);
        let mut ready = grow.id.clone();
        steps.extend(made.into_iter().chain([set, grow]));
        if let Some(firewall) = inherits(Inherit::Firewall).and_then(|old| old.firewall.as_ref())
            && !(firewall.options.is_empty() && firewall.rules.is_empty())
        {
            let (options, rules) = (firewall.options.clone(), firewall.rules.clone());
            let wall = Step::SetFirewall { vm: ours.clone(), options, rules };
            let wall = planned(id("firewall"), wall, &[&ready]);
            ready = wall.id.clone();
            steps.push(wall);
        }
        let start = planned(id("start"), Step::StartVm { vm: ours.clone() }, &[&ready]);
        let started = start.id.clone();
        steps.push(start);
        if let Some(care) = inherits(Inherit::Ha).and_then(|old| old.ha.clone()) {
            steps.push(planned(id("ha"), Step::AddHa { vm: ours, care }, &[&started]));
        }
    }
    Phase { name: "provision".to_owned(), steps, width: WIDTH }
}

/// The clone of a VM, and its move where the template is on another node's own storage.
fn clone(
    draft: &Draft<'_>,
    vm: &PlannedVm,
    ours: &OurVm,
    pool: Option<String>,
    behind: Option<&StepId>,
) -> Vec<Planned> {
    let id = |what: &str| format!("provision/{}/{what}", vm.name);
    let cloned = Cloned { ours, spot: &draft.spot_of(vm), pool };
    let (clone, moved) = cloned.steps(draft);
    let clone = planned(id("clone"), clone, &behind.into_iter().collect::<Vec<_>>());
    let moved = moved.map(|step| planned(id("move"), step, &[&clone.id]));
    std::iter::once(clone).chain(moved).collect()
}

/// A VM to be cloned for a spot.
pub(in crate::plan) struct Cloned<'a> {
    pub(in crate::plan) ours: &'a OurVm,
    pub(in crate::plan) spot: &'a crate::plan::sources::Spot,
    pub(in crate::plan) pool: Option<String>,
}

impl Cloned<'_> {
    /// How it is cloned, and how it then comes to its node, where it was cloned on another.
    pub(in crate::plan) fn steps(self, draft: &Draft<'_>) -> (Step, Option<Step>) {
        let template = &draft.source(self.spot).vm;
        let storage = draft.wanted.storage.clone();
        if !draft.sources.moves(self.spot) {
            let from = (template.node != self.ours.node).then(|| template.node.clone());
            let vm = self.ours.clone();
            return (Step::CloneVm { template: template.vmid, from, vm, storage, pool: self.pool }, None);
        }
        let vm = OurVm { node: template.node.clone(), ..self.ours.clone() };
        let clone = Step::CloneVm { template: template.vmid, from: None, vm: vm.clone(), storage, pool: self.pool };
        (clone, Some(Step::MigrateVm { vm, target: self.ours.node.clone() }))
    }
}

/// The new VM of a row of the plan.
pub(in crate::plan) fn new_vm(draft: &Draft<'_>, vm: &PlannedVm) -> OurVm {
    draft.our_vm(&StepId::new(format!("provision/{}/clone", vm.name)), &vm.node, vm.vmid, &vm.name)
}

/// All keys that are set on a new VM beside what its template has.
pub(in crate::plan) fn hardware(draft: &Draft<'_>, vm: &PlannedVm) -> Hardware {
    let wanted = draft.wanted;
    let mut set = Hardware::new();
    set.insert("cores".to_owned(), vm.cores.to_string());
    set.insert("memory".to_owned(), vm.memory_mb.to_string());
    let old = draft.replaced(vm);
    let inherits = |what: Inherit| old.filter(|_| wanted.inherits(&vm.name, what));
    let mut tags: Vec<String> = wanted.tags.iter().cloned().chain([vm.role.to_string()]).collect();
    if let Some(old) = inherits(Inherit::Tags) {
        // The role's tag follows the profile: a machine may have become another.
        let roles = ["controlplane", "worker"];
        let own = Tags::parse(old.config.get("tags").map_or("", String::as_str)).0;
        tags.extend(own.into_iter().filter(|tag| !roles.contains(&tag.as_str())));
    }
    tags.sort();
    tags.dedup();
    set.insert("tags".to_owned(), tags.join(";"));
    for (what, key) in [(Inherit::Onboot, "onboot"), (Inherit::Startup, "startup")] {
        let value = inherits(what).and_then(|old| old.config.get(key));
        set.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    set.extend(nics(draft, vm, old));
    if let Some(notes) = inherits(Inherit::Description).and_then(notes) {
        set.insert("description".to_owned(), format!("{}\n{notes}", new_vm(draft, vm).mark));
    }
    if wanted.cloud_init
        && let Some(machine) = wanted.machines.get(&vm.name.as_str().into())
    {
        set.extend(cloud_init(draft, machine));
    }
    if let Some(extra) = wanted.extra.get(&vm.name) {
        set.extend(extra.clone());
        // Without the mark the VM could not be told to be this run's.
        if let Some(notes) = extra.get("description") {
            set.insert("description".to_owned(), format!("{}\n{notes}", new_vm(draft, vm).mark));
        }
    }
    set
}

/// The NICs: the old VM's, or one as the profile has it. PVE gives a NIC a new MAC on every update that doesn't repeat it
/// (qemu-server, `parse_net`), so each is always named.
fn nics(draft: &Draft<'_>, vm: &PlannedVm, old: Option<&SeenVm>) -> Hardware {
    let wanted = draft.wanted;
    let inherits = |what: Inherit| old.filter(|_| wanted.inherits(&vm.name, what));
    let mut nics: BTreeMap<String, String> = BTreeMap::new();
    if let Some(old) = inherits(Inherit::Nics) {
        nics.extend(
            old.config.iter().filter(|(key, _)| property::is_nic(key)).map(|(key, nic)| (key.clone(), nic.clone())),
        );
    }
    nics.entry("net0".to_owned()).or_insert_with(|| wanted.nic.clone());
    let keeps_mac = inherits(Inherit::Mac).is_some();
    let keeps_wall = inherits(Inherit::Firewall).is_some();
    let kept = nics.into_iter().map(|(key, text)| {
        let Ok(nic) = text.parse::<Nic>() else { return (key, text) };
        let own = (keeps_mac).then_some(nic.mac).flatten();
        let made = || allocate::mac(&wanted.run, &format!("{}/{key}", vm.name));
        let mac = if key == "net0" { vm.mac.or(own) } else { own };
        let nic = nic.addressed(mac.unwrap_or_else(made));
        let nic = if keeps_wall { nic } else { nic.without("firewall") };
        (key, nic.to_string())
    });
    kept.collect()
}

/// What people wrote into a VM's description: everything but the lines of recast.
fn notes(old: &SeenVm) -> Option<String> {
    let text = old.config.get("description")?;
    let own = |line: &&str| {
        !line.trim().starts_with("recast: ")
            && !line.trim().starts_with("recast-template: ")
            && !line.trim().starts_with("recast-proved: ")
    };
    let notes = text.lines().filter(own).collect::<Vec<_>>().join("\n");
    let notes = notes.trim();
    (!notes.is_empty() && provenance::find_mark(notes).is_none()).then(|| notes.to_owned())
}

/// A drive from which the machine learns its address before it has a configuration (Talos' platform `nocloud` reads its
/// `network-config`).
fn cloud_init(draft: &Draft<'_>, machine: &MachineSpec) -> Hardware {
    let mut set = Hardware::new();
    let Some(address) = &machine.address else { return set };
    let kind = if address.contains(':') { "6" } else { "" };
    let gateway = machine.gateway.map(|gateway| format!("gw{kind}={gateway},")).unwrap_or_default();
    set.insert(CLOUD_INIT.to_owned(), format!("{}:cloudinit", draft.wanted.storage));
    set.insert("ipconfig0".to_owned(), format!("{gateway}ip{kind}={address}"));
    if !machine.nameservers.is_empty() {
        let servers: Vec<String> = machine.nameservers.iter().map(ToString::to_string).collect();
        set.insert("nameserver".to_owned(), servers.join(" "));
    }
    set
}

/// How every new VM differs from the one that it replaces, as far as a configuration shows it: what this run sets, and
/// what the old one had beyond that.
pub(in crate::plan) fn changes(draft: &Draft<'_>) -> Vec<Change> {
    let mut changes = Vec::new();
    for vm in &draft.vms {
        let Some(old) = draft.replaced(vm) else { continue };
        let mut note = |key: &str, before: Option<String>, after: Option<String>| {
            if before != after {
                changes.push(Change { vm: vm.name.clone(), key: key.to_owned(), old: before, new: after });
            }
        };
        note("name", Some(old.identity.name.clone()), Some(vm.name.clone()));
        note("vmid", Some(old.identity.vmid.to_string()), Some(vm.vmid.to_string()));
        note("node", Some(old.identity.node.to_string()), Some(vm.node.to_string()));
        let inherits = |what: Inherit| draft.wanted.inherits(&vm.name, what);
        let pool = old.pool.clone().filter(|_| inherits(Inherit::Pool)).or_else(|| draft.wanted.pool.clone());
        note("pool", old.pool.clone(), pool);
        let care = |care: &crate::plan::step::HaCare| {
            care.group.as_ref().map_or_else(|| care.state.clone(), |group| format!("{}, group {group}", care.state))
        };
        note("ha", old.ha.as_ref().map(care), old.ha.as_ref().filter(|_| inherits(Inherit::Ha)).map(care));
        let mut new = draft.source_of(vm).hardware.clone();
        new.extend(hardware(draft, vm));
        new.insert("disk".to_owned(), format!("{} GiB", vm.disk_gib));
        let mut before = old.config.clone();
        let size = old
            .config
            .get(&crate::plan::check::boot_disk(old))
            .and_then(|disk| disk.parse::<property::Disk>().ok()?.size());
        before.extend(size.map(|bytes| ("disk".to_owned(), format!("{} GiB", bytes >> 30))));
        let keys: std::collections::BTreeSet<&String> = before.keys().chain(new.keys()).collect();
        for key in keys.into_iter().filter(|key| is_shown(key)) {
            let (a, b) = (before.get(key), new.get(key));
            let meant = |value: Option<&String>| value.map_or_else(|| unset(key), String::as_str).to_owned();
            if !property::same(key, &meant(a), &meant(b)) {
                note(key, a.cloned(), b.cloned());
            }
        }
    }
    changes
}

/// What PVE takes a key for that isn't set (qemu-server, PVE/QemuServer.pm), as far as recast sets such keys.
fn unset(key: &str) -> &'static str {
    match key {
        "acpi" | "cores" | "kvm" | "sockets" | "tablet" => "1",
        "agent" | "numa" | "onboot" | "protection" => "0",
        "bios" => "seabios",
        "ostype" => "other",
        _ => "",
    }
}

/// Whether a difference in a key says anything: identities, disks and bookkeeping differ always.
fn is_shown(key: &str) -> bool {
    let always = ["boot", "description", "digest", "meta", "name", "smbios1", "vmgenid", "template", "lock"];
    !always.contains(&key) && !property::is_drive(key)
}

#[cfg(test)]
mod tests {
    use super::super::super::make::make;
    use super::super::super::sample::{nodes, seen, wanted};
    use super::*;
    use crate::plan::lint::lint;
    use crate::plan::step::HaCare;
    use crate::plan::{Observed, Plan, Wanted};

    fn set(plan: &Plan, id: &str) -> Hardware {
        let found = plan.steps().find(|planned| planned.id.as_str() == id);
        let Some(Step::SetHardware { set, .. }) = found.map(|planned| &planned.step) else { panic!("no step {id}") };
        set.clone()
    }

    fn old(seen: &mut Observed) -> &mut SeenVm {
        let old = &mut seen.vms[0];
        let keys = [
            ("net0", "virtio=BC:24:11:00:11:00,bridge=vmbr7,firewall=1,tag=20"),
            ("net1", "virtio=BC:24:11:00:11:01,bridge=vmbr8"),
            ("startup", "order=2"),
            ("tags", "controlplane;nightly;single;talos"),
            ("description", "ask Ada first\nrecast: run=a step=b cluster=single\n"),
            ("scsi0", "local-lvm:vm-1100-disk-1,size=20G"),
            ("cores", "4"),
        ];
        old.config.extend(keys.map(|(key, value)| (key.to_owned(), value.to_owned())));
        old.pool = Some("prod".to_owned());
        old.ha = Some(HaCare { state: "started".to_owned(), group: Some("all".to_owned()), ..HaCare::default() });
        old
    }

    #[test]
    fn a_new_vm_takes_over_what_the_profile_says() {
        let (wanted, mut seen) = (wanted(), seen());
        old(&mut seen);
        let plan = make(&wanted, &seen).unwrap();
        assert_eq!(lint(&plan), []);
        let set = set(&plan, "provision/single-cp-01/hardware");
        for (key, value) in [
            ("net0", "virtio=BC:24:11:00:11:00,bridge=vmbr7,firewall=1,tag=20"),
            ("net1", "virtio=BC:24:11:00:11:01,bridge=vmbr8"),
            ("startup", "order=2"),
            ("onboot", "1"),
            ("tags", "controlplane;nightly;single;talos"),
        ] {
            assert_eq!(set.get(key).map(String::as_str), Some(value), "{key}");
        }
        let notes = &set["description"];
        assert!(notes.starts_with("recast: run=2026-11-20T22-31-05 ") && notes.ends_with("\nask Ada first"), "{notes}");
        let pool = plan.steps().find_map(|planned| match &planned.step {
            Step::CloneVm { pool: Some(pool), .. } => Some(pool.clone()),
            _ => None,
        });
        assert_eq!(pool.as_deref(), Some("prod"));
        assert!(
            plan.steps().any(|planned| matches!(&planned.step, Step::AddHa { care, .. } if care.state == "started"))
        );
        let shown: Vec<String> =
            plan.changes.iter().map(|change| format!("{}: {:?} -> {:?}", change.key, change.old, change.new)).collect();
        assert!(shown.contains(&r#"cores: Some("4") -> Some("2")"#.to_owned()), "{shown:?}");
        assert!(shown.contains(&r#"disk: Some("20 GiB") -> Some("32 GiB")"#.to_owned()), "{shown:?}");
        assert!(!shown.iter().any(|line| line.starts_with("net0") || line.starts_with("tags")), "{shown:?}");
    }

    #[test]
    fn what_is_not_to_be_inherited_is_made_anew() {
        let (mut wanted, mut seen) = (wanted(), seen());
        old(&mut seen);
        wanted.inherit.insert("single-cp-01".to_owned(), [Inherit::Mac].into());
        let set = set(&make(&wanted, &seen).unwrap(), "provision/single-cp-01/hardware");
        assert_eq!(set["net0"], "virtio=BC:24:11:00:11:00,bridge=vmbr0");
        assert_eq!(set["tags"], "controlplane;single;talos");
        for key in ["net1", "startup", "onboot", "description"] {
            assert_eq!(set.get(key), None, "{key}");
        }
        wanted.inherit.insert("single-cp-01".to_owned(), [Inherit::Nics].into());
        let plan = make(&wanted, &seen).unwrap();
        let set = self::set(&plan, "provision/single-cp-01/hardware");
        assert!(set["net0"].ends_with(",bridge=vmbr7,tag=20") && !set["net0"].contains("BC:24:11:00:11:00"), "{set:?}");
        assert!(!set["net1"].contains("BC:24:11:00:11:01"), "{set:?}");
        assert!(!plan.steps().any(|planned| matches!(planned.step, Step::AddHa { .. })));
    }

    #[test]
    fn a_cloud_init_drive_gives_the_address() {
        let (mut wanted, seen) = (wanted(), seen());
        wanted.cloud_init = true;
        let set = set(&make(&wanted, &seen).unwrap(), "provision/single-cp-01/hardware");
        assert_eq!(set["ide2"], "local-lvm:cloudinit");
        assert_eq!(set["ipconfig0"], "gw=192.168.178.1,ip=192.168.178.41/24");
        assert_eq!(set["nameserver"], "192.168.178.1");
    }

    fn many() -> (Wanted, Observed) {
        let (mut wanted, mut seen) = (wanted(), seen());
        let names: Vec<&str> = (0..10).map(|at| if at < 7 { "pve1" } else { "pve2" }).collect();
        nodes(&mut wanted, &mut seen, &names);
        (wanted, seen)
    }

    #[test]
    fn clones_are_bounded_per_storage() {
        let (wanted, seen) = many();
        let plan = make(&wanted, &seen).unwrap();
        assert_eq!(lint(&plan), []);
        let phase = plan.phases.iter().find(|phase| phase.name == "provision").unwrap();
        let free = phase.steps.iter().filter(|planned| planned.after.is_empty());
        let free: Vec<&str> = free.map(|planned| planned.id.as_str()).collect();
        assert_eq!(free.len(), CLONES + 3, "{free:?}");
    }

    #[test]
    fn a_vm_of_a_node_without_template_is_moved_there() {
        let (mut wanted, mut seen) = (wanted(), seen());
        nodes(&mut wanted, &mut seen, &["pve1", "pve2"]);
        for storage in seen.storages.iter_mut().filter(|storage| storage.node.as_str() == "pve2") {
            storage.content.remove("import");
        }
        seen.may_migrate = true;
        let plan = make(&wanted, &seen).unwrap();
        assert_eq!(lint(&plan), []);
        let moves = plan.steps().filter_map(|planned| match &planned.step {
            Step::MigrateVm { vm, target } => Some(format!("{} {} {target}", planned.id, vm.node)),
            _ => None,
        });
        assert_eq!(moves.collect::<Vec<_>>(), ["canary/pve2/move pve1 pve2", "provision/single-cp-02/move pve1 pve2"]);
        let set = plan.steps().find(|planned| planned.id.as_str() == "provision/single-cp-02/hardware").unwrap();
        assert_eq!(set.after, ["provision/single-cp-02/move".into()]);
    }
}
