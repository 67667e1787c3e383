//! One sound world, and each way in which it can be wrong.

use super::{Backup, CopyState, Here, Host, Repository, SecondCopy, Service, Snapshot, Source, findings};
use crate::plan::Verb;
use crate::plan::check::refuses;
use crate::plan::observed::{Finding, Observed, SeenCluster, Severity};
use crate::plan::sample::{seen, wanted};
use crate::plan::wanted::Wanted;
use crate::types::{Version, VmId};

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
    ("etcd back", |world| world.wanted.talos = version("1.10.6"), "runs etcd 3.6, and Talos 1.10.6 brings etcd 3.5"),
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
