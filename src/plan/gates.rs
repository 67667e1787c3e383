//! The gates of `check` that look beyond Proxmox VE: is there a cluster to work on, would recast cut off what it needs
//! itself, can the data go where they shall, can backups be kept, are the programs there.
//!
//! Purpose: a pure list like [`check`](super::check), over what was seen from this computer ([`Here`]).
//! Must not know: clients, files.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::check::{size, victims};
use super::compatibility::{etcd, jump};
use super::observed::{Finding, Known, Observed, SeenCluster};
use super::wanted::Wanted;
use super::{PlannedVm, Verb};
use crate::types::{NodeName, Version, VmId};

/// What was seen from this computer, beside the site and the cluster.
#[derive(Clone, Debug, Default)]
pub struct Here {
    /// What becomes of etcd's data.
    pub data: Source,
    /// Rules between this profile and those beside it that are broken.
    pub siblings: Vec<Finding>,
    /// VMs of the cluster on nodes that are down: nothing can be read or done there.
    pub out_of_reach: Vec<(VmId, String, NodeName)>,
    /// What recast needs while the cluster is away, and where it is.
    pub services: Vec<Service>,
    /// Programs that will be needed and aren't there, with what for.
    pub missing_programs: Vec<(String, String)>,
    /// The profile's repository, where it is to be committed.
    pub repository: Option<Repository>,
    /// Where snapshots go, when there will be any.
    pub backup: Option<Backup>,
}

/// Where the new cluster's data come from.
#[derive(Clone, Debug, Default)]
pub enum Source {
    /// Nowhere, or there is no new cluster and nothing is saved.
    #[default]
    Nothing,
    /// The running cluster.
    Running,
    /// A snapshot file.
    File(Snapshot),
}

/// A snapshot file.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// It.
    pub file: PathBuf,
    /// What its proof found wrong, with hints.
    pub damage: Option<(String, Vec<String>)>,
    /// The UID of `kube-system` in it.
    pub namespace_uid: Option<String>,
    /// etcd's own version of the cluster in it, `3.6.0`.
    pub etcd: Option<String>,
    /// The Kubernetes that wrote it, as far as is known.
    pub kubernetes: Option<Version>,
}

/// Something that recast needs while the cluster is away.
#[derive(Clone, Debug)]
pub struct Service {
    /// What it is: `Proxmox VE`, `the Image Factory`.
    pub what: String,
    /// Where it is; any of these will do.
    pub hosts: Vec<Host>,
}

/// A host with its addresses.
#[derive(Clone, Debug)]
pub struct Host {
    /// As it is written.
    pub name: String,
    /// What it resolves to; none when it doesn't.
    pub addresses: Vec<IpAddr>,
}

/// The repository that the profile is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repository {
    /// There is none.
    Missing,
    /// The profile in it is as it was committed.
    Clean,
    /// Profile or lock have changes that aren't committed.
    Changed,
}

/// Where snapshots go.
#[derive(Clone, Debug, Default)]
pub struct Backup {
    /// The folder.
    pub dir: PathBuf,
    /// Why nothing can be written there.
    pub unusable: Option<String>,
    /// Free bytes there, where that is known.
    pub free: Option<u64>,
    /// Size of etcd's database, where that is known.
    pub database: Option<u64>,
    /// The second copies.
    pub copies: Vec<SecondCopy>,
    /// Whether a run without one is refused.
    pub required: bool,
}

/// Where a second copy goes.
#[derive(Clone, Debug)]
pub struct SecondCopy {
    /// It, for people.
    pub place: String,
    /// Why it can't be used, or doesn't count.
    pub state: CopyState,
}

/// Whether a second copy counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// It does, or will show when it is written.
    Counts,
    /// It lies on the same device as the first.
    SameDevice,
    /// Nothing can read it back.
    Unreadable,
    /// Nothing can be written there.
    Unusable(String),
}

/// Everything that these gates find.
pub fn findings(wanted: &Wanted, seen: &Observed, here: &Here) -> Vec<Finding> {
    let mut found = here.siblings.clone();
    existing(wanted, seen, here, &mut found);
    services(wanted, seen, here, &mut found);
    programs(here, &mut found);
    match &here.data {
        Source::Nothing => not_kept(seen, &mut found),
        Source::Running => running(wanted, seen, &mut found),
        Source::File(snapshot) => {
            not_kept(seen, &mut found);
            file(wanted, seen, snapshot, &mut found);
        }
    }
    if let Some(backup) = &here.backup {
        kept(backup, &mut found);
    }
    found
}

/// Whether there is something to work on, or room for something new.
fn existing(wanted: &Wanted, seen: &Observed, here: &Here, found: &mut Vec<Finding>) {
    for (vmid, name, node) in &here.out_of_reach {
        found.push(Finding::refusal(
            format!("VM {vmid} ({name}) is on PVE node {node}, which is down"),
            "bring the node up: what is on it can't be looked at, shut down or deleted",
        ));
    }
    let old: Vec<String> = victims(seen).map(|vm| format!("{} ({})", vm.identity.vmid, vm.identity.name)).collect();
    match wanted.verb {
        Verb::Create => {
            if !old.is_empty() {
                found.push(Finding::refusal(
                    format!("VMs of cluster {} exist: {}", wanted.cluster, old.join(", ")),
                    "`recast rebuild` replaces them and keeps the data; `recast teardown` removes them",
                ));
            }
            if let (true, Some(cluster)) = (old.is_empty(), &seen.cluster) {
                let names: Vec<&str> = cluster.talos.keys().map(String::as_str).collect();
                found.push(Finding::refusal(
                    format!(
                        "the cluster runs: {} answer at the profile's addresses",
                        or(&names.join(", "), "machines")
                    ),
                    "find out where they run; two clusters with the same addresses and secrets destroy each other",
                ));
            }
        }
        // A guest that merely has a machine's number or name is `check`'s to refuse, which says more.
        Verb::Rebuild if old.is_empty() && seen.vms.iter().any(|vm| !vm.tagged && vm.known == Known::Profile) => {}
        Verb::Rebuild | Verb::Teardown if old.is_empty() && here.out_of_reach.is_empty() => {
            let hint = if wanted.verb == Verb::Teardown {
                "there is nothing to tear down; check the profile's tags"
            } else {
                "`recast create` makes it, and `recast create --restore FILE` brings it back from a snapshot"
            };
            found.push(Finding::refusal(format!("no VM of cluster {} exists", wanted.cluster), hint));
        }
        // What is left of a cluster that a dead rebuild took apart may be nothing at all.
        Verb::Rebuild | Verb::Teardown | Verb::TemplateBuild | Verb::Rollback | Verb::Upgrade | Verb::GoBack => {}
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}

/// Nothing that recast needs while the cluster is away may run in it.
fn services(wanted: &Wanted, seen: &Observed, here: &Here, found: &mut Vec<Finding>) {
    for service in &here.services {
        let inside: Vec<String> =
            service.hosts.iter().filter_map(|host| lives_inside(host, wanted, seen.cluster.as_ref())).collect();
        if inside.is_empty() {
            continue;
        }
        let what = format!("{} lives in the cluster: {}", service.what, inside.join(", "));
        found.push(if inside.len() == service.hosts.len() {
            Finding::refusal(what, "recast needs it while the cluster is away: name one that lives elsewhere")
        } else {
            Finding::warning(what, "it will not answer while the cluster is away; the others are used")
        });
    }
}

/// Why a host goes away with the cluster, in words.
fn lives_inside(host: &Host, wanted: &Wanted, cluster: Option<&SeenCluster>) -> Option<String> {
    let name = host.name.trim_end_matches('.').to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    if labels.ends_with(&["svc"]) || labels.ends_with(&["cluster", "local"]) {
        return Some(format!("{name} is a name of the cluster's own DNS"));
    }
    host.addresses.iter().find_map(|address| {
        let shown = if name == address.to_string() { name.clone() } else { format!("{name} ({address})") };
        let machine = |vm: &&PlannedVm| vm.address == Some(*address);
        if let Some(vm) = wanted.vms.iter().find(machine) {
            return Some(format!("{shown} is {}", vm.name));
        }
        if wanted.config.vip == Some(*address) {
            return Some(format!("{shown} is the control planes' shared address"));
        }
        for (what, net) in [("pod", &wanted.config.pod_cidr), ("service", &wanted.config.service_cidr)] {
            if net.parse::<IpNet>().is_ok_and(|net| net.contains(address)) {
                return Some(format!("{shown} is in the {what} network {net}"));
            }
        }
        let service = cluster.is_some_and(|cluster| cluster.services.contains(address));
        service.then(|| format!("{shown} is a Service of it"))
    })
}

pub(super) fn programs(here: &Here, found: &mut Vec<Finding>) {
    for (program, why) in &here.missing_programs {
        found.push(Finding::refusal(
            format!("there is no program `{program}` on this computer, and {why}"),
            "install it, or take the key out of the profile",
        ));
    }
    match here.repository {
        Some(Repository::Missing) => found.push(Finding::refusal(
            "the profile is in no git repository, and finish.git commits it",
            "put it into one, or take finish.git out of the profile",
        )),
        Some(Repository::Changed) => found.push(Finding::warning(
            "profile or lock have changes that are not committed",
            "the commit at the end will hold them too",
        )),
        Some(Repository::Clean) | None => {}
    }
}

/// The running cluster's data are kept: it has to be there, to be well, and to be able to follow.
fn running(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    if victims(seen).next().is_none() {
        return;
    }
    let Some(cluster) = &seen.cluster else {
        found.push(Finding::refusal(
            "the running cluster does not answer, so its data can't be saved",
            match wanted.verb {
                Verb::Teardown => "bring it up, or say --force to delete it without a backup",
                _ => "bring it up, or rebuild with --restore FILE from a snapshot, or with --fresh without its data",
            },
        ));
        return;
    };
    for complaint in &cluster.unhealthy {
        found.push(Finding::refusal(
            format!("the running cluster is not healthy: {complaint}"),
            "a run that keeps its data needs it to be: mend it first",
        ));
    }
    if wanted.verb == Verb::Teardown {
        return;
    }
    if let Some(kubernetes) = &cluster.kubernetes {
        kubernetes_jump(kubernetes, &wanted.kubernetes, found);
    }
    // The oldest machine names the cluster: etcd's own cluster version is that of its oldest member.
    if let Some((from, talos)) = cluster.talos.values().min().and_then(|talos| Some((etcd(talos)?, talos))) {
        etcd_jump(from, &format!("Talos {talos} runs"), &wanted.talos, found);
    }
}

/// Nothing of the running cluster is kept: how it is, is worth knowing and stops nothing.
fn not_kept(seen: &Observed, found: &mut Vec<Finding>) {
    match &seen.cluster {
        None if victims(seen).any(|vm| vm.running) => found.push(Finding::warning(
            "the running cluster does not answer: its versions and secrets could not be compared",
            "that is survivable, since nothing of it is kept",
        )),
        Some(cluster) => found.extend(cluster.unhealthy.iter().map(|complaint| {
            let what = format!("the running cluster is not healthy: {complaint}");
            Finding::warning(what, "it does not have to be, since nothing of it is kept")
        })),
        None => {}
    }
}

fn kubernetes_jump(from: &Version, to: &Version, found: &mut Vec<Finding>) {
    if let Some(why) = jump(from.minor(), to.minor()) {
        found.push(Finding::refusal(
            format!("the data were written by Kubernetes {from} and would be taken over by {to}"),
            format!("{why}: name a Kubernetes of {}", minors(from.minor())),
        ));
    }
}

fn etcd_jump(from: (u64, u64), who: &str, talos: &Version, found: &mut Vec<Finding>) {
    let Some(to) = etcd(talos) else { return };
    if let Some(why) = jump(from, to) {
        found.push(Finding::refusal(
            format!("{who} etcd {}.{}, and Talos {talos} brings etcd {}.{}", from.0, from.1, to.0, to.1),
            format!("{why}: go through a Talos whose etcd is in between"),
        ));
    }
}

fn minors((major, minor): (u64, u64)) -> String {
    format!("{major}.{minor} or {major}.{}", minor + 1)
}

/// The data come from a file: it has to be sound, of this cluster, and not too far away.
fn file(wanted: &Wanted, seen: &Observed, snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let file = snapshot.file.display();
    if let Some((damage, hints)) = &snapshot.damage {
        let mut finding = Finding::refusal(
            format!("the snapshot {file} can't be restored"),
            hints.first().cloned().unwrap_or_else(|| "`recast snapshot list` shows others".to_owned()),
        );
        finding.causes.push(damage.clone());
        found.push(finding);
        return;
    }
    let running = seen.cluster.as_ref();
    let (live, saved) = (running.and_then(|cluster| cluster.namespace_uid.as_ref()), &snapshot.namespace_uid);
    match (live, saved) {
        (Some(live), Some(saved)) if live != saved => found.push(Finding::refusal(
            format!("the snapshot {file} is of another cluster: its kube-system is {saved}, and this one's {live}"),
            "name a snapshot of this cluster; one of an earlier life of it is restored after `recast teardown` by `recast create --restore`",
        )),
        (_, None) => found.push(Finding::refusal(
            format!("the snapshot {file} holds no namespace kube-system"),
            "it is not a Kubernetes cluster's",
        )),
        _ => {}
    }
    let own = snapshot.etcd.as_deref().and_then(|version| {
        let mut parts = version.split('.').map(str::parse::<u64>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    });
    if let Some(from) = own {
        etcd_jump(from, "the snapshot was written by", &wanted.talos, found);
    }
    match &snapshot.kubernetes {
        Some(from) => kubernetes_jump(from, &wanted.kubernetes, found),
        None => found.push(Finding::warning(
            format!("which Kubernetes wrote the snapshot {file} is not known"),
            format!("make sure that it was {} or one minor older", wanted.kubernetes),
        )),
    }
}

/// Snapshots have to have a place, and room there.
pub(super) fn kept(backup: &Backup, found: &mut Vec<Finding>) {
    let dir = backup.dir.display();
    if let Some(why) = &backup.unusable {
        let mut finding = Finding::refusal(
            format!("no snapshot can be kept in {dir}"),
            "make the folder, or name another in backup.dir of the profile",
        );
        finding.causes.push(why.clone());
        found.push(finding);
    }
    // The proof, the final one, and a proof that has grown too old and is taken again.
    let needed = backup.database.map(|bytes| bytes.saturating_mul(3));
    if let (Some(free), Some(needed)) = (backup.free, needed)
        && free < needed
    {
        found.push(Finding::refusal(
            format!("{dir} has {} free, and three snapshots of etcd need {}", size(free), size(needed)),
            "make room there, or name another folder in backup.dir of the profile",
        ));
    }
    for copy in &backup.copies {
        let place = &copy.place;
        let finding = match &copy.state {
            CopyState::Counts => continue,
            CopyState::SameDevice => Finding::warning(
                format!("the second copy in {place} would be on the same device as {dir}, so it does not count as one"),
                "name a place on another device",
            ),
            CopyState::Unreadable => Finding::warning(
                format!("the second copy {place} can't be read back, so it does not count as one"),
                "give the command a `read` beside its `save`",
            ),
            CopyState::Unusable(why) => {
                let hint = "mend it, or take it out of backup.copies";
                let mut finding = Finding::refusal(format!("no second copy can be kept in {place}"), hint);
                finding.causes.push(why.clone());
                finding
            }
        };
        found.push(finding);
    }
    // One that can't be used is refused already.
    let counts = |copy: &SecondCopy| matches!(copy.state, CopyState::Counts | CopyState::Unusable(_));
    if backup.required && !backup.copies.iter().any(counts) {
        found.push(Finding::refusal(
            "guards.require_copy is set, and no second copy counts as one",
            "name a place on another device, on another host, or commands that save and read in backup.copies",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::refuses;
    use super::super::observed::Severity;
    use super::super::sample::{seen, wanted};
    use super::*;

    struct World {
        wanted: Wanted,
        seen: Observed,
        here: Here,
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn host(name: &str, addresses: &[&str]) -> Host {
        Host { name: name.to_owned(), addresses: addresses.iter().map(|text| text.parse().unwrap()).collect() }
    }

    fn service(what: &str, hosts: Vec<Host>) -> Service {
        Service { what: what.to_owned(), hosts }
    }

    fn cluster(world: &mut World) -> &mut SeenCluster {
        world.seen.cluster.as_mut().unwrap()
    }

    fn world() -> World {
        let mut world = World { wanted: wanted(), seen: seen(), here: Here::default() };
        cluster(&mut world).namespace_uid = Some("live".to_owned());
        world.here.data = Source::Running;
        world.here.services = vec![
            service("Proxmox VE", vec![host("192.168.178.11", &["192.168.178.11"])]),
            service("the Image Factory", vec![host("factory.talos.dev", &["203.0.113.9"])]),
        ];
        world.here.backup = Some(Backup {
            dir: "backups".into(),
            free: Some(10 << 30),
            database: Some(100 << 20),
            copies: vec![SecondCopy { place: "/mnt/nas".to_owned(), state: CopyState::Counts }],
            required: true,
            ..Backup::default()
        });
        world
    }

    fn snapshot() -> Snapshot {
        Snapshot {
            file: "a.snapshot".into(),
            damage: None,
            namespace_uid: Some("live".to_owned()),
            etcd: Some("3.6.0".to_owned()),
            kubernetes: Some(version("1.34.1")),
        }
    }

    fn restoring(world: &mut World, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = snapshot();
        change(&mut snapshot);
        world.here.data = Source::File(snapshot);
        world.here.backup = None;
    }

    /// What is wrong, how it comes about, and words of the refusal.
    type Case = (&'static str, fn(&mut World), &'static str);

    const REFUSED: &[Case] = &[
        (
            "create over a cluster",
            |world| world.wanted.verb = Verb::Create,
            "VMs of cluster single exist: 1100 (single-cp-01)",
        ),
        (
            "create beside a cluster",
            |world| {
                world.wanted.verb = Verb::Create;
                world.seen.vms.clear();
            },
            "the cluster runs: single-cp-01 answer",
        ),
        ("rebuild of nothing", |world| world.seen.vms.clear(), "no VM of cluster single exists"),
        (
            "teardown of nothing",
            |world| {
                world.wanted.verb = Verb::Teardown;
                world.seen.vms.clear();
            },
            "no VM of cluster single exists",
        ),
        (
            "node down",
            |world| world.here.out_of_reach.push((VmId(1101), "single-cp-02".to_owned(), "pve2".into())),
            "VM 1101 (single-cp-02) is on PVE node pve2, which is down",
        ),
        (
            "PVE behind a machine's address",
            |world| world.here.services[0].hosts = vec![host("pve.example.org", &["192.168.178.41"])],
            "Proxmox VE lives in the cluster: pve.example.org (192.168.178.41) is single-cp-01",
        ),
        (
            "factory behind the shared address",
            |world| {
                world.wanted.config.vip = Some("192.168.178.40".parse().unwrap());
                world.here.services[1].hosts = vec![host("factory.home", &["192.168.178.40"])];
            },
            "the Image Factory lives in the cluster",
        ),
        (
            "registry by the cluster's DNS",
            |world| world.here.services.push(service("the registry", vec![host("registry.infra.svc", &[])])),
            "a name of the cluster's own DNS",
        ),
        (
            "git behind a load balancer",
            |world| {
                cluster(world).services.insert("192.168.178.60".parse().unwrap());
                world.here.services.push(service("git", vec![host("git.home", &["192.168.178.60"])]));
            },
            "git lives in the cluster: git.home (192.168.178.60) is a Service of it",
        ),
        (
            "all DNS in the cluster",
            |world| world.here.services.push(service("DNS", vec![host("10.96.0.10", &["10.96.0.10"])])),
            "10.96.0.10 is in the service network 10.96.0.0/12",
        ),
        (
            "no git",
            |world| world.here.missing_programs.push(("git".to_owned(), "finish.git commits the profile".to_owned())),
            "there is no program `git` on this computer",
        ),
        ("no repository", |world| world.here.repository = Some(Repository::Missing), "in no git repository"),
        ("cluster silent", |world| world.seen.cluster = None, "does not answer, so its data can't be saved"),
        (
            "cluster ill",
            |world| cluster(world).unhealthy.push(crate::plan::observed::Complaint::of_cluster("etcd has an alarm")),
            "not healthy: etcd has an alarm",
        ),
        (
            "two minors of Kubernetes",
            |world| world.wanted.kubernetes = version("1.36.0"),
            "written by Kubernetes 1.34.1 and would be taken over by 1.36.0",
        ),
        ("Kubernetes back", |world| world.wanted.kubernetes = version("1.33.9"), "taken over by 1.33.9"),
        (
            "two minors of etcd",
            |world| {
                cluster(world).talos.insert("single-cp-01".to_owned(), version("1.10.6"));
                world.wanted.talos = version("1.14.0");
            },
            "Talos 1.10.6 runs etcd 3.5, and Talos 1.14.0 brings etcd 3.7",
        ),
        (
            "etcd back",
            |world| world.wanted.talos = version("1.10.6"),
            "runs etcd 3.6, and Talos 1.10.6 brings etcd 3.5",
        ),
        (
            "snapshot damaged",
            |world| restoring(world, |snapshot| snapshot.damage = Some(("it is cut off".to_owned(), Vec::new()))),
            "a.snapshot can't be restored",
        ),
        (
            "snapshot of another cluster",
            |world| restoring(world, |snapshot| snapshot.namespace_uid = Some("other".to_owned())),
            "of another cluster: its kube-system is other, and this one's live",
        ),
        (
            "snapshot of something else",
            |world| restoring(world, |snapshot| snapshot.namespace_uid = None),
            "holds no namespace kube-system",
        ),
        (
            "snapshot too old",
            |world| restoring(world, |snapshot| snapshot.kubernetes = Some(version("1.31.0"))),
            "written by Kubernetes 1.31.0",
        ),
        (
            "snapshot of a newer etcd",
            |world| restoring(world, |snapshot| snapshot.etcd = Some("3.7.0".to_owned())),
            "the snapshot was written by etcd 3.7, and Talos 1.13.9 brings etcd 3.6",
        ),
        (
            "no folder for snapshots",
            |world| world.here.backup.as_mut().unwrap().unusable = Some("permission denied".to_owned()),
            "no snapshot can be kept in backups",
        ),
        (
            "no room for snapshots",
            |world| world.here.backup.as_mut().unwrap().free = Some(200 << 20),
            "backups has 200.0 MiB free, and three snapshots of etcd need 300.0 MiB",
        ),
        (
            "the only copy on the same device",
            |world| world.here.backup.as_mut().unwrap().copies[0].state = CopyState::SameDevice,
            "no second copy counts as one",
        ),
        (
            "copy that can't be read back",
            |world| world.here.backup.as_mut().unwrap().copies[0].state = CopyState::Unreadable,
            "no second copy counts as one",
        ),
        (
            "copy to nowhere",
            |world| {
                world.here.backup.as_mut().unwrap().copies[0].state = CopyState::Unusable("no such folder".to_owned());
            },
            "no second copy can be kept in /mnt/nas",
        ),
        (
            "sibling",
            |world| world.here.siblings.push(Finding::refusal("VMIDs 1100 are those of b.yaml as well", "change them")),
            "VMIDs 1100",
        ),
    ];

    #[test]
    fn each_way_in_which_it_can_be_wrong_is_refused_in_its_own_words() {
        let sound = world();
        assert_eq!(findings(&sound.wanted, &sound.seen, &sound.here), []);
        for (name, spoil, words) in REFUSED {
            let mut world = world();
            spoil(&mut world);
            let found = findings(&world.wanted, &world.seen, &world.here);
            let refusals = || found.iter().filter(|finding| finding.severity == Severity::Refusal);
            assert!(refusals().any(|finding| finding.what.contains(words)), "{name}: {found:?}");
            assert_eq!(refusals().count(), 1, "{name}: {found:?}");
        }
    }

    #[test]
    fn what_has_another_way_out_only_warns() {
        let mut world = world();
        let dns = vec![host("10.96.0.10", &["10.96.0.10"]), host("9.9.9.9", &["9.9.9.9"])];
        world.here.services.push(service("DNS", dns));
        world.here.repository = Some(Repository::Changed);
        let same = SecondCopy { place: "/b".to_owned(), state: CopyState::SameDevice };
        world.here.backup.as_mut().unwrap().copies.push(same);
        let found = findings(&world.wanted, &world.seen, &world.here);
        assert_eq!((found.len(), refuses(&found)), (3, false), "{found:?}");
        // A teardown takes no data along, and a fresh rebuild doesn't ask how the old cluster is.
        world.wanted.verb = Verb::Teardown;
        world.wanted.kubernetes = version("1.36.0");
        assert!(!refuses(&findings(&world.wanted, &world.seen, &world.here)));
        world.here.data = Source::Nothing;
        world.seen.cluster = None;
        assert!(!refuses(&findings(&world.wanted, &world.seen, &world.here)));
    }

    #[test]
    fn a_vanished_cluster_may_come_back_from_its_snapshot() {
        let mut world = world();
        world.wanted.verb = Verb::Create;
        world.seen.vms.clear();
        world.seen.cluster = None;
        restoring(&mut world, |snapshot| snapshot.kubernetes = None);
        let found = findings(&world.wanted, &world.seen, &world.here);
        assert!(!refuses(&found) && found.len() == 1, "{found:?}");
        assert!(found[0].what.starts_with("which Kubernetes wrote the snapshot a.snapshot"));
    }
}
