//! The gate before everything: what was seen against what is wanted.
//!
//! Purpose: a pure list of everything that stands in the way, all at once, so that nothing is touched before all of it
//! is settled (design §3 `check`, §4 rules 1 to 4).
//! Must not know: clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::compatibility;
use super::observed::{Finding, Known, Observed, SeenVm, Severity};
use super::wanted::Wanted;
use crate::types::VmId;

/// Everything that refuses or should be known, refusals first.
pub fn findings(wanted: &Wanted, seen: &Observed) -> Vec<Finding> {
    let mut found = seen.problems.clone();
    rights(seen, &mut found);
    nodes(wanted, seen, &mut found);
    storages(wanted, seen, &mut found);
    members(wanted, seen, &mut found);
    numbers(wanted, seen, &mut found);
    versions(wanted, &mut found);
    cluster(wanted, seen, &mut found);
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    found
}

/// Whether any finding stops the run.
pub fn refuses(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Refusal)
}

/// The VMs that make room: known, tagged or named by the profile, and no template.
pub fn victims(seen: &Observed) -> impl Iterator<Item = &SeenVm> {
    seen.vms.iter().filter(|vm| vm.tagged && !vm.template && vm.known != Known::No)
}

/// One refusal for all paths that lack the same, with what to paste. A new entry of PVE's access list replaces what is
/// inherited from above, so the role it names holds what is held already, too.
fn rights(seen: &Observed, found: &mut Vec<Finding>) {
    type Privileges<'a> = BTreeSet<&'a str>;
    let mut by_path: BTreeMap<&str, (Privileges<'_>, Privileges<'_>)> = BTreeMap::new();
    for right in &seen.missing_rights {
        let (missing, held) = by_path.entry(&right.path).or_default();
        missing.insert(&right.privilege);
        held.extend(right.held.iter().map(String::as_str));
    }
    let mut groups: BTreeMap<(Privileges<'_>, Privileges<'_>), Vec<&str>> = BTreeMap::new();
    for (path, rights) in by_path {
        groups.entry(rights).or_default().push(path);
    }
    for (number, ((missing, held), paths)) in groups.iter().enumerate() {
        let list = |privileges: &Privileges<'_>, by: &str| privileges.iter().copied().collect::<Vec<_>>().join(by);
        let role = format!("RecastRights{}", number + 1);
        let mut hint = format!(
            "as root on a PVE node: pveum role add {role} --privs {}",
            list(&missing.union(held).copied().collect(), ",")
        );
        for path in paths {
            let _ = write!(hint, " && pveum acl modify {path} {} --roles {role}", whom(&seen.caller));
        }
        let mut refusal =
            Finding::refusal(format!("{} lacks {} on {}", seen.caller, list(missing, ", "), paths.join(", ")), hint);
        let why = seen.missing_rights.iter().filter(|right| paths.contains(&right.path.as_str()));
        let why: BTreeSet<String> = why.map(|right| format!("{} needs {}", right.why, right.privilege)).collect();
        refusal.causes.extend(why);
        found.push(refusal);
    }
}

/// The options of `pveum acl modify` for a caller. A token has at most the rights of its user, so both get them.
fn whom(caller: &str) -> String {
    match caller.split_once('!') {
        Some((user, _)) => format!("--users {user} --tokens '{caller}'"),
        None => format!("--users {caller}"),
    }
}

fn nodes(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    let mut asked: Vec<_> = wanted.vms.iter().map(|vm| &vm.node).collect();
    asked.sort();
    asked.dedup();
    for name in asked {
        match seen.nodes.iter().find(|node| node.name == *name) {
            None => found.push(Finding::refusal(
                format!("there is no PVE node named {name}"),
                format!(
                    "the nodes are {}",
                    seen.nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>().join(", ")
                ),
            )),
            Some(node) if !node.online => {
                found.push(Finding::refusal(
                    format!("PVE node {name} is down"),
                    "bring it up, or move its machines in the profile",
                ));
            }
            Some(_) => {}
        }
    }
}

fn storages(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    let mut asked: Vec<_> = wanted.vms.iter().map(|vm| &vm.node).collect();
    asked.sort();
    asked.dedup();
    for node in asked.into_iter().filter(|name| seen.nodes.iter().any(|node| node.name == **name && node.online)) {
        let Some(storage) = seen.storages.iter().find(|storage| storage.node == *node && storage.id == wanted.storage)
        else {
            found.push(Finding::refusal(
                format!("storage {} does not exist on {node}", wanted.storage),
                "name one that does in the site's defaults.storage",
            ));
            continue;
        };
        if !storage.usable {
            found.push(Finding::refusal(
                format!("storage {} is not active on {node}", storage.id),
                "enable it, or name another",
            ));
            // What it can hold and how much room it has isn't known.
            continue;
        }
        if !storage.content.contains("images") {
            found.push(Finding::refusal(
                format!("storage {} on {node} does not hold VM images", storage.id),
                format!("add `images` to its content types: pvesm set {} --content …,images", storage.id),
            ));
        }
        // The disks of the VMs that are deleted make room for the new ones; the template and the canary come on top.
        let needed = template_bytes(seen) * 2;
        if storage.free < needed {
            found.push(Finding::refusal(
                format!(
                    "storage {} on {node} has {} free and the template and its canary need {}",
                    storage.id,
                    size(storage.free),
                    size(needed)
                ),
                "make room, or name another storage",
            ));
        }
        if import_storage(seen, node).is_none() {
            found.push(Finding::refusal(
                format!("no storage on {node} takes content type `import`"),
                "add it to a file based one: pvesm set local --content iso,vztmpl,backup,import (PVE 8.4 or later)",
            ));
        }
    }
}

/// The storage that uploads go to: file based, `import` among its content types, the one with most room.
pub fn import_storage<'a>(
    seen: &'a Observed,
    node: &crate::types::NodeName,
) -> Option<&'a super::observed::SeenStorage> {
    seen.storages
        .iter()
        .filter(|storage| storage.node == *node && storage.usable && storage.content.contains("import"))
        .max_by_key(|storage| (storage.free, std::cmp::Reverse(storage.id.clone())))
}

/// What a template's disk takes at most: PVE's import writes the real content only, so the compressed size is a fair
/// lower bound of what must be free and the decoded content stays below three times of it.
fn template_bytes(seen: &Observed) -> u64 {
    seen.image.as_ref().map_or(0, |image| image.bytes.saturating_mul(3))
}

fn members(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    for vm in &seen.vms {
        let identity = &vm.identity;
        let label = format!("VM {} ({}) on {}", identity.vmid, identity.name, identity.node);
        if vm.tagged && vm.template {
            found.push(Finding::warning(
                format!("template {} ({}) carries the cluster's tags and is kept", identity.vmid, identity.name),
                "a template is never part of a cluster",
            ));
            continue;
        }
        if vm.tagged && vm.known == Known::No {
            found.push(Finding::refusal(
                format!(
                    "{label} carries all tags of the cluster ({}) and is not in the profile",
                    wanted.tags.join(", ")
                ),
                "take a tag off it, or add it to the profile: nothing unknown is ever deleted",
            ));
            continue;
        }
        if !vm.tagged && vm.known == Known::Profile {
            continue;
        }
        for (key, what) in [("lock", "is locked"), ("protection", "is protected")] {
            if let Some(value) = vm.config.get(key).filter(|value| *value != "0") {
                found.push(Finding::refusal(
                    format!("{label} {what} ({key}: {value})"),
                    "clear it, if nobody needs it any more",
                ));
            }
        }
        for (flag, what) in
            [(vm.snapshots, "has snapshots"), (vm.ha, "is managed by HA"), (vm.replicated, "has replication jobs")]
        {
            if flag {
                found.push(Finding::refusal(
                    format!("{label} {what}"),
                    "remove that first: this version of recast does not take such a VM apart",
                ));
            }
        }
        for (key, volume) in &identity.disks {
            if !carries_only_the_system(vm, key) {
                found.push(Finding::refusal(
                    format!("{label} has a disk beyond its system: {key} = {volume}"),
                    "detach and move it, or delete it by hand: recast never destroys data it was not told about",
                ));
            }
        }
    }
}

/// Whether a disk key holds what a fresh clone brings anyway: boot disk, EFI variables, TPM state, cloud-init.
fn carries_only_the_system(vm: &SeenVm, key: &str) -> bool {
    let boot = vm.config.get("boot").and_then(|boot| boot.split(['=', ';']).nth(1)).unwrap_or("scsi0");
    let is_cloud_init = vm.identity.disks.get(key).is_some_and(|volume| volume.as_str().contains("cloudinit"));
    key == boot || key.starts_with("efidisk") || key.starts_with("tpmstate") || is_cloud_init
}

fn numbers(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    let going: BTreeSet<VmId> = victims(seen).map(|vm| vm.identity.vmid).collect();
    for vm in &wanted.vms {
        if seen.vmids.contains(&vm.vmid) && !going.contains(&vm.vmid) {
            let owner = seen.vms.iter().find(|other| other.identity.vmid == vm.vmid);
            let named = owner
                .map_or_else(String::new, |other| format!(" ({} on {})", other.identity.name, other.identity.node));
            found.push(Finding::refusal(
                format!(
                    "number {} of {} is taken by a guest that is not part of this cluster{named}",
                    vm.vmid, vm.name
                ),
                "give the machine another vmid, or give that guest all the cluster's tags if it is the old machine",
            ));
        }
        for other in seen
            .vms
            .iter()
            .filter(|other| other.identity.name == vm.name && !going.contains(&other.identity.vmid) && !other.template)
        {
            if other.identity.vmid != vm.vmid {
                found.push(Finding::refusal(
                    format!("VM {} on {} already has the name {}", other.identity.vmid, other.identity.node, vm.name),
                    "rename it, or give it all the cluster's tags if it is the old machine",
                ));
            }
        }
    }
    if let Some(most) = wanted.max_destroy
        && going.len() > most as usize
    {
        found.push(Finding::refusal(
            format!("{} VMs would be destroyed and guards.max_destroy is {most}", going.len()),
            "raise it if that is what you want",
        ));
    }
}

fn versions(wanted: &Wanted, found: &mut Vec<Finding>) {
    let Some(((_, first), (_, last))) = compatibility::kubernetes_range(&wanted.talos) else { return };
    if !compatibility::runs_on(&wanted.kubernetes, &wanted.talos) {
        found.push(Finding::refusal(
            format!("Kubernetes {} does not run on Talos {}", wanted.kubernetes, wanted.talos),
            format!("Talos {} runs Kubernetes 1.{first} to 1.{last}", wanted.talos),
        ));
    }
}

fn cluster(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    let Some(cluster) = &seen.cluster else {
        if victims(seen).any(|vm| vm.running) {
            found.push(Finding::warning(
                "the running cluster does not answer: its versions and secrets could not be compared",
                "with --fresh that is survivable: nothing of it is kept",
            ));
        }
        return;
    };
    for difference in &cluster.differing_secrets {
        found.push(Finding::refusal(
            format!("the secrets file is not this cluster's: {difference} differs"),
            "use the secrets.yaml the cluster was made with",
        ));
    }
    for complaint in &cluster.unhealthy {
        found.push(Finding::warning(
            format!("the running cluster is not healthy: {complaint}"),
            "a fresh rebuild does not need it to be",
        ));
    }
    if let Some((name, newer)) = cluster.talos.iter().find(|(_, running)| running.minor() > wanted.talos.minor()) {
        found.push(Finding::warning(
            format!("{name} runs Talos {newer}, newer than {}", wanted.talos),
            "check that a downgrade is meant",
        ));
    }
}

/// Bytes for people: `4.3 GiB`, `16.1 MiB`.
pub fn size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib < 1024.0 { format!("{mib:.1} MiB") } else { format!("{:.1} GiB", mib / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::super::observed::MissingRight;
    use super::super::sample::{seen, vm, wanted};
    use super::*;

    /// A world in which one thing is wrong, and a word of the refusal it must lead to.
    type Case = (&'static str, fn(&mut Wanted, &mut Observed), &'static str);

    const REFUSED: &[Case] = &[
        (
            "stranger",
            |_, seen| {
                let mut stranger = vm(1150, "experiment", &["single", "talos"]);
                stranger.known = Known::No;
                seen.vms.push(stranger);
            },
            "is not in the profile",
        ),
        (
            "data disk",
            |_, seen| {
                seen.vms[0].identity.disks.insert("scsi1".to_owned(), "local-lvm:vm-1100-disk-2".into());
            },
            "scsi1 = local-lvm:vm-1100-disk-2",
        ),
        (
            "unused disk",
            |_, seen| {
                seen.vms[0].identity.disks.insert("unused0".to_owned(), "local-lvm:vm-1100-disk-3".into());
            },
            "unused0",
        ),
        (
            "taken number",
            |wanted, seen| {
                wanted.vms[0].vmid = VmId(101);
                seen.vmids.insert(VmId(101));
            },
            "number 101 of single-cp-01 is taken",
        ),
        (
            "taken name",
            |_, seen| {
                seen.vms[0] = vm(1100, "single-cp-01", &["controlplane", "single", "talos"]);
                seen.vms.push(vm(500, "single-cp-01", &[]));
            },
            "already has the name",
        ),
        (
            "right",
            |_, seen| {
                seen.missing_rights.push(MissingRight {
                    path: "/vms".into(),
                    privilege: "VM.Clone".into(),
                    why: "cloning".into(),
                    held: BTreeSet::from(["VM.Audit".into()]),
                });
                seen.caller = "recast@pve!ci".into();
            },
            "recast@pve!ci lacks VM.Clone on /vms",
        ),
        ("full", |_, seen| seen.storages[1].free = 1 << 20, "free and the template and its canary need"),
        (
            "no import",
            |_, seen| {
                seen.storages[0].content.remove("import");
            },
            "content type `import`",
        ),
        ("no storage", |wanted, _| wanted.storage = "ceph".into(), "storage ceph does not exist on pve1"),
        ("node down", |_, seen| seen.nodes[0].online = false, "pve1 is down"),
        ("no node", |wanted, _| wanted.vms[0].node = "pve9".into(), "no PVE node named pve9"),
        (
            "other secrets",
            |_, seen| seen.cluster.as_mut().unwrap().differing_secrets.push("the Talos CA".into()),
            "the Talos CA differs",
        ),
        (
            "protected",
            |_, seen| {
                seen.vms[0].config.insert("protection".into(), "1".into());
            },
            "is protected",
        ),
        (
            "locked",
            |_, seen| {
                seen.vms[0].config.insert("lock".into(), "backup".into());
            },
            "is locked (lock: backup)",
        ),
        ("ha", |_, seen| seen.vms[0].ha = true, "managed by HA"),
        (
            "kubernetes out of range",
            |wanted, _| wanted.kubernetes = "1.29.0".parse().unwrap(),
            "does not run on Talos 1.13.9",
        ),
        ("too many", |wanted, _| wanted.max_destroy = Some(0), "guards.max_destroy is 0"),
    ];

    #[test]
    fn each_thing_that_is_wrong_is_one_refusal() {
        assert!(
            !refuses(&findings(&wanted(), &seen())),
            "the world is fine to begin with: {:?}",
            findings(&wanted(), &seen())
        );
        for (name, spoil, word) in REFUSED {
            let (mut wanted, mut seen) = (wanted(), seen());
            spoil(&mut wanted, &mut seen);
            let refusals: Vec<Finding> =
                findings(&wanted, &seen).into_iter().filter(|finding| finding.severity == Severity::Refusal).collect();
            assert!(refusals.iter().any(|finding| finding.what.contains(word)), "{name}: {refusals:?}");
            assert!(refusals.iter().all(|finding| finding.hint.is_some()), "{name}: every refusal says what to do");
        }
    }

    #[test]
    fn everything_wrong_is_reported_at_once() {
        let (mut wanted, mut seen) = (wanted(), seen());
        for (_, spoil, _) in REFUSED {
            spoil(&mut wanted, &mut seen);
        }
        assert!(findings(&wanted, &seen).len() >= 8);
    }

    #[test]
    fn a_template_among_the_tagged_is_kept_and_named() {
        let mut seen = seen();
        let mut template = vm(101, "talos-1-12-4", &["single", "talos"]);
        template.template = true;
        seen.vms.push(template);
        let found = findings(&wanted(), &seen);
        assert!(!refuses(&found));
        assert!(found.iter().any(|finding| finding.what.contains("is kept")));
        assert_eq!(victims(&seen).map(|vm| vm.identity.vmid).collect::<Vec<_>>(), [VmId(1100)]);
    }
}
