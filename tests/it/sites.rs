//! Sites and profiles of other shapes than the samples': images that only one node takes, storage that all nodes share,
//! other ways to find machines, VMs that don't take everything over.

use std::fs;

use mock_pve::world::seed::{Seed, StorageSeed};
use recast::plan::step::Discovery;
use recast::plan::{Plan, Step};
use recast::pve::vm::VmRef;
use recast::types::VmId;
use serde_json::json;

use crate::site::{Cluster, Double, End, Folder, VM, plan, profile_of};
use crate::told::text;

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 100.0;

/// A control plane on one PVE node and a worker on another.
fn duo() -> Folder {
    let profile = profile_of(&[("pve1", VM, "192.168.178.41")], &[("pve2", 1110, "192.168.178.51")]);
    Folder::with(&(profile + "transport: upload\n"))
}

/// What a rebuild of it must leave, wherever the template serves from.
const REBUILT: [&str; 4] = [
    "pve1 100 talos-1-13-9 template",
    "pve1 101 talos-1-12-4 template",
    "pve1 1100 single-cp-01 running",
    "pve2 1110 single-worker-01 running",
];

fn storage<'a>(seed: &'a mut Seed, name: &str) -> &'a mut StorageSeed {
    seed.storages.iter_mut().find(|storage| storage.storage == name).unwrap()
}

/// Rebuilds the cluster to a good end. The plan that was carried out.
fn rebuild(folder: &Folder, double: &Double) -> Plan {
    let output = folder.recast(double.site(), &Cluster::Single.rebuild()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    plan(&folder.run())
}

/// All VMs, with the nodes that they are on.
async fn placed(folder: &Folder, double: &Double) -> Vec<String> {
    let session = folder.session(double.site());
    let mut placed = Vec::new();
    for node in session.pve.nodes().await.unwrap() {
        for vm in session.pve.vms(&node.node).await.unwrap() {
            let state = if vm.template { "template" } else { vm.status.as_str() };
            let name = vm.name.as_deref().unwrap_or("?");
            placed.push((vm.vmid, format!("{} {} {name} {state}", node.node, vm.vmid)));
        }
    }
    placed.sort();
    placed.into_iter().map(|(_, text)| text).collect()
}

fn moves(plan: &Plan) -> Vec<String> {
    let moved = plan.steps().filter_map(|planned| match &planned.step {
        Step::MigrateVm { vm, target } => Some(format!("{} from {} to {target}", vm.name, vm.node)),
        _ => None,
    });
    moved.collect()
}

fn templates(plan: &Plan) -> usize {
    plan.steps().filter(|planned| matches!(planned.step, Step::CreateTemplate { .. })).count()
}

/// The ways in which the plan looks for the control plane.
fn ways(plan: &Plan) -> Vec<Discovery> {
    let found = plan.steps().find_map(|planned| match &planned.step {
        Step::FindMachine { vm, discovery, .. } if vm.vmid.0 == VM => Some(discovery.clone()),
        _ => None,
    });
    found.unwrap()
}

/// The control plane runs what was asked for, as every rebuild of it must end.
async fn assert_rebuilt(folder: &Folder, double: &Double) {
    let (end, expected) = (End::of(folder, double.site()).await, End::rebuilt(Cluster::Single));
    assert_eq!((&end.vms, &end.versions, &end.members), (&expected.vms, &expected.versions, &expected.members));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_takes_no_images_gets_its_vms_from_another() {
    let folder = duo();
    let one_node = |seed: &mut Seed| {
        storage(seed, "local").options.insert("nodes".to_owned(), json!("pve1"));
    };
    let double = Double::seeded(&folder, TIME_SCALE, one_node).await;
    let made = rebuild(&folder, &double);
    assert_eq!(moves(&made), ["single-canary-pve2 from pve1 to pve2", "single-worker-01 from pve1 to pve2"]);
    assert_eq!(templates(&made), 1);
    assert_eq!(placed(&folder, &double).await, REBUILT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_storage_has_one_template_for_all_nodes() {
    let folder = duo();
    let shared = |seed: &mut Seed| {
        let disks = storage(seed, "local-lvm");
        "rbd".clone_into(&mut disks.kind);
        disks.options = json!({"pool": "rbd", "content": "images,rootdir"}).as_object().cloned().unwrap();
    };
    let double = Double::seeded(&folder, TIME_SCALE, shared).await;
    let made = rebuild(&folder, &double);
    assert_eq!((moves(&made), templates(&made)), (Vec::new(), 1));
    assert_eq!(placed(&folder, &double).await, REBUILT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_are_found_by_their_guest_agents_alone() {
    let folder = Folder::new();
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), profile + "address_discovery: {mode: agent}\n").unwrap();
    let may_ask = |seed: &mut Seed| {
        seed.roles.get_mut("TalosRebuild").unwrap().push("VM.Monitor".to_owned());
    };
    let double = Double::seeded(&folder, TIME_SCALE, may_ask).await;
    let made = rebuild(&folder, &double);
    assert_eq!(ways(&made), [Discovery::Static("192.168.178.41".parse().unwrap()), Discovery::Agent]);
    assert_rebuilt(&folder, &double).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cloud_init_drive_gives_machines_their_addresses() {
    let folder = Folder::new();
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), profile + "address_discovery: {mode: cloud-init}\n").unwrap();
    let double = Double::here(&folder, TIME_SCALE).await;
    let made = rebuild(&folder, &double);
    assert_eq!(ways(&made), [Discovery::Static("192.168.178.41".parse().unwrap())]);
    assert_rebuilt(&folder, &double).await;
    let at = VmRef::new("pve1".into(), VmId(VM));
    let config = folder.session(double.site()).pve.vm_config(&at).await.unwrap();
    assert!(config.get("ipconfig0").is_some_and(|text| text.contains("ip=192.168.178.41/24")), "{config:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_shows_what_a_new_vm_has_otherwise_than_the_old_one() {
    let folder = Folder::new();
    let grown = |seed: &mut Seed| {
        let old = seed.vms.iter_mut().find(|vm| vm.vmid == VM).unwrap();
        let keys = [("cores", json!(4)), ("onboot", json!(1)), ("tags", json!("controlplane;nightly;single;talos"))];
        old.config.extend(keys.map(|(key, value)| (key.to_owned(), value)));
    };
    let double = Double::seeded(&folder, TIME_SCALE, grown).await;
    let shown = || {
        let output = folder.recast(double.site(), &Cluster::Single.rebuild()).arg("--dry-run").output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    // Everything is taken over, and what the profile says otherwise is told.
    let plan = shown();
    assert!(plan.contains("\nWhat changes (the rest is taken over):\n"), "{plan}");
    assert!(plan.contains("\n  single-cp-01  cores: 4 -> 2\n"), "{plan}");
    assert!(!plan.contains("single-cp-01  tags:") && !plan.contains("single-cp-01  onboot:"), "{plan}");

    let profile = fs::read_to_string(folder.profile()).unwrap();
    let less = profile.replacen("    disk: 32G\n", "    disk: 32G\n    vm: {inherit: [mac, nics]}\n", 1);
    assert_ne!(less, profile);
    fs::write(folder.profile(), less).unwrap();
    let plan = shown();
    for line in
        ["cores: 4 -> 2", "onboot: 1 -> -", "tags: controlplane;nightly;single;talos -> controlplane;single;talos"]
    {
        assert!(plan.contains(&format!("\n  single-cp-01  {line}\n")), "{line}: {plan}");
    }
}
