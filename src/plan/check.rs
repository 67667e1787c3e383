//! The gate before everything: what was seen against what is wanted.
//!
//! Purpose: a pure list of everything that stands in the way, all at once, so that nothing is touched before all of it
//! is settled (design §3 `check`, §4 rules 1 to 4).
//! Must not know: clients.

mod disks;
mod firmware;
mod members;
mod storages;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::observed::{Finding, Known, Observed, SeenVm, Severity};
use super::step::Discovery;
use super::wanted::{DoomedDisk, PlannedVm, Wanted};
use super::{Verb, compatibility};
use crate::types::StorageId;

pub use disks::{boot_disk, carries_only_the_system, lives_on};
pub use storages::import_storage;

/// The part of what is wanted that is known without the factory: what stands against it is found even where there is no
/// image.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The VMs.
    pub vms: &'a [PlannedVm],
    /// The cluster's tags.
    pub tags: &'a [String],
    /// Storage for disks.
    pub storage: &'a StorageId,
    /// Most VMs that may be destroyed.
    pub max_destroy: Option<u32>,
    /// Disks that may be destroyed with their VM.
    pub destroy_disks: &'a BTreeSet<DoomedDisk>,
    /// What is done: a teardown puts nothing in the old cluster's place.
    pub verb: Verb,
}

impl<'a> Scope<'a> {
    /// Of all that is wanted.
    pub fn of(wanted: &'a Wanted) -> Self {
        Self {
            vms: &wanted.vms,
            tags: &wanted.tags,
            storage: &wanted.storage,
            max_destroy: wanted.max_destroy,
            destroy_disks: &wanted.destroy_disks,
            verb: wanted.verb,
        }
    }
}

/// Everything that refuses or should be known, refusals first.
pub fn findings(wanted: &Wanted, seen: &Observed) -> Vec<Finding> {
    let mut found = around(&Scope::of(wanted), seen);
    if wanted.verb.makes_templates() {
        storages::templates(wanted, seen, &mut found);
        firmware::firmware(wanted, seen, &mut found);
        agents(wanted, &mut found);
        versions(wanted, &mut found);
    }
    if wanted.verb != Verb::TemplateBuild {
        downgrade(wanted, seen, &mut found);
    }
    sorted(found)
}

/// What can be found although versions and images aren't known.
pub fn around(scope: &Scope<'_>, seen: &Observed) -> Vec<Finding> {
    let mut found = seen.problems.clone();
    rights(seen, &mut found);
    if scope.verb == Verb::TemplateBuild {
        // What runs is not touched.
        nodes(scope, seen, &mut found);
        storages::storages(scope, seen, &mut found);
        return sorted(found);
    }
    members::members(scope, seen, &mut found);
    disks::disks(scope, seen, &mut found);
    members::most_destroyed(scope, seen, &mut found);
    if scope.verb != Verb::Teardown {
        nodes(scope, seen, &mut found);
        storages::storages(scope, seen, &mut found);
        members::numbers(scope, seen, &mut found);
    }
    cluster(seen, &mut found);
    sorted(found)
}

fn sorted(mut found: Vec<Finding>) -> Vec<Finding> {
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

fn nodes(scope: &Scope<'_>, seen: &Observed, found: &mut Vec<Finding>) {
    let mut asked: Vec<_> = scope.vms.iter().map(|vm| &vm.node).collect();
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

/// Whether machines that are found by their guest agent alone have one.
fn agents(wanted: &Wanted, found: &mut Vec<Finding>) {
    if wanted.discovery != [Discovery::Agent] {
        return;
    }
    let schematics: BTreeSet<_> = wanted.vms.iter().map(|vm| wanted.schematic_of(vm.role)).collect();
    for schematic in schematics {
        if !wanted.hardware_of(schematic).contains_key("agent") {
            found.push(Finding::refusal(
                format!(
                    "machines are to be found by their guest agent, and schematic {schematic} is not known to hold one"
                ),
                "add siderolabs/qemu-guest-agent to the extensions, or let address_discovery.mode be auto or scan",
            ));
        }
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

/// Whether it is this cluster. How it is, is `gates`' to judge: that depends on what becomes of its data.
fn cluster(seen: &Observed, found: &mut Vec<Finding>) {
    for difference in seen.cluster.iter().flat_map(|cluster| &cluster.differing_secrets) {
        found.push(Finding::refusal(
            format!("the secrets file is not this cluster's: {difference} differs"),
            "use the secrets.yaml the cluster was made with",
        ));
    }
}

fn downgrade(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    let Some(cluster) = &seen.cluster else { return };
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
    use super::super::observed::{MissingRight, SeenVolume};
    use super::super::sample::{nodes, seen, vm, wanted};
    use super::*;
    use crate::plan::step::HaCare;
    use crate::types::VmId;

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
        (
            "no template and no right to move",
            |wanted, seen| {
                nodes(wanted, seen, &["pve1", "pve2"]);
                seen.storages[2].content.remove("import");
            },
            "no right to move VMs",
        ),
        ("agent that isn't there", |wanted, _| wanted.discovery = vec![Discovery::Agent], "is not known to hold one"),
        (
            "local volume",
            |_, seen| {
                let volume = SeenVolume {
                    name: "pv1".into(),
                    path: "/var/mnt/db".into(),
                    machines: ["single-cp-01".to_owned()].into(),
                    claim: Some("db/data-0".into()),
                };
                seen.cluster.as_mut().unwrap().local_volumes = Some(vec![volume]);
            },
            "pv1 of db/data-0 (/var/mnt/db) lives on its disk scsi0",
        ),
        (
            "disk that isn't there",
            |wanted, _| {
                wanted.destroy_disks.insert("1100:scsi7".parse().unwrap());
            },
            "--destroy-disk 1100:scsi7 names no disk",
        ),
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

    #[test]
    fn disks_and_volumes_may_go_when_they_are_named() {
        let (mut wanted, mut seen) = (wanted(), seen());
        seen.vms[0].identity.disks.insert("scsi1".to_owned(), "local-lvm:vm-1100-disk-2".into());
        for volume in ["pv1", "pv2"] {
            let machines = if volume == "pv1" { ["single-cp-01".to_owned()].into() } else { BTreeSet::new() };
            let volume = SeenVolume { name: volume.into(), path: "/var/x".into(), machines, claim: None };
            seen.cluster.as_mut().unwrap().local_volumes.get_or_insert_default().push(volume);
        }
        assert_eq!(findings(&wanted, &seen).len(), 3);
        wanted.destroy_disks = ["1100:scsi1", "1100:scsi0"].map(|disk| disk.parse().unwrap()).into();
        assert_eq!(findings(&wanted, &seen), []);
        let fates = crate::plan::make::make(&wanted, &seen).unwrap().fates;
        assert_eq!(fates.len(), 3, "{fates:?}");
    }

    #[test]
    fn what_goes_with_a_vm_is_told_and_stops_nothing() {
        let (wanted, mut seen) = (wanted(), seen());
        seen.vms[0].snapshots = vec!["before-upgrade".to_owned()];
        seen.vms[0].ha = Some(HaCare { state: "started".into(), group: Some("all".into()), ..HaCare::default() });
        seen.vms[0].replicas = vec!["1100-0 to pve2".to_owned()];
        seen.vms[0].backup_jobs = vec!["backup-1".to_owned()];
        assert_eq!(findings(&wanted, &seen), []);
        let plan = crate::plan::make::make(&wanted, &seen).unwrap();
        let fates: Vec<&str> = plan.fates.iter().map(|fate| fate.what.as_str()).collect();
        assert_eq!(
            fates,
            [
                "its snapshots before-upgrade are deleted with it",
                "its HA resource (started, group all) is removed and made again for single-cp-01",
                "its replication is removed with its copies: 1100-0 to pve2",
                "backup jobs that name it lose it: backup-1",
            ]
        );
        let text = crate::plan::show::text(&plan);
        assert!(fates.iter().all(|fate| text.contains(fate)), "{text}");
    }
}
