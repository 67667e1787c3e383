//! What a rebuild that keeps its data is refused for: the lab's cluster, its snapshots, and what has to be there while it
//! is away.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::RwLock;

use jiff::Timestamp;
use mock_pve::etcd::{Client as Member, with_trailer};
use mock_pve::world::World;
use mock_pve::world::cluster::{self, objects};
use mock_pve::world::members::Outage;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use recast::cli::args::Global;
use recast::cli::env::Env;
use recast::cli::rehearse::{Contents, Order, Rehearsal, start};
use recast::cli::session::{Place, Session};
use recast::command::Mode;
use recast::net::Reach;
use recast::pve::vm::{VmRef, WaitingShutdown};
use recast::talos::config::Contract;
use recast::talos::secrets::Secrets;
use recast::types::VmId;

use super::{Case, Scene, Spoil, Stage, edit_site, misplaced, mutating, recast, replace};

/// What every case asks for, unless it says otherwise.
const ASKED: &[&str] = &["rebuild", "--to", "1.13.9", "--kubernetes", "1.35.0", "--confirm", "lab", "-o", "json"];

/// Adds to the profile.
fn add(scene: &Scene<'_>, text: &str) {
    let path = scene.profile();
    let old = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{old}{text}")).unwrap();
}

/// The stage's snapshot, changed.
fn changed(scene: &Scene<'_>, change: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(scene.snapshot.unwrap()).unwrap();
    change(&mut bytes);
    let path = scene.folder.join("changed.snapshot");
    fs::write(&path, bytes).unwrap();
    path
}

/// Makes a sound snapshot one that etcd 3.4 wrote.
fn older(bytes: &mut Vec<u8>) {
    let mut database = std::mem::take(bytes);
    // Behind the database is its SHA-256.
    database.truncate(database.len() - 32);
    while let Some(at) = database.windows(5).position(|part| part == b"3.6.0") {
        database[at + 2] = b'4';
    }
    *bytes = with_trailer(database);
}

/// Flux is wanted, from where no name has to be looked up.
const FLUX: &str = "finish:\n  flux: true\nflux:\n  repo: ssh://git@192.0.2.1/gitops.git\n  path: clusters/lab\n";

const CASES: &[Case] = &[
    Case {
        name: "two minors of Kubernetes at once",
        spoil: Spoil::Asked(&[("--kubernetes", Some("1.36.0"))]),
        phase: "check",
        code: 4,
        words: &["the data were written by Kubernetes 1.34.1 and would be taken over by 1.36.0"],
    },
    Case {
        name: "Kubernetes back",
        spoil: Spoil::Asked(&[("--kubernetes", Some("1.33.4"))]),
        phase: "check",
        code: 4,
        words: &["the data were written by Kubernetes 1.34.1 and would be taken over by 1.33.4"],
    },
    Case {
        name: "a number twice",
        spoil: Spoil::Files(|scene| replace(&scene.profile(), "vmid: 1211", "vmid: 1210")),
        phase: "check",
        code: 3,
        words: &["lab.yaml:55:", "VMID 1210 is also that of nodes.workers.assignments[0].vmid"],
    },
    Case {
        name: "sibling with the same numbers",
        spoil: Spoil::Files(|scene| {
            let text = fs::read_to_string(scene.profile()).unwrap();
            let text = text.replacen("name: lab\n", "name: other\n", 1).replace("[talos, lab]", "[talos, other]");
            fs::write(scene.profile().with_file_name("other.yaml"), text.replace("127.20.0.", "127.20.1.")).unwrap();
        }),
        phase: "check",
        code: 4,
        words: &["other.yaml", "1200"],
    },
    Case {
        name: "no git",
        spoil: Spoil::Files(|scene| add(scene, "finish:\n  git:\n    commit: true\n")),
        phase: "check",
        code: 4,
        words: &["there is no program `git`"],
    },
    Case {
        name: "no flux",
        spoil: Spoil::Files(|scene| add(scene, FLUX)),
        phase: "check",
        code: 4,
        words: &["there is no program `flux`", "finish.flux bootstraps Flux"],
    },
    Case {
        name: "no sops",
        spoil: Spoil::Files(|scene| {
            add(scene, FLUX);
            let folder = scene.folder.join("cluster/lab/flux");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("age.sops.yaml"), "sops: {}\n").unwrap();
        }),
        phase: "check",
        code: 4,
        words: &["there is no program `flux`", "there is no program `sops`", "the secrets that Flux needs"],
    },
    Case {
        name: "Proxmox VE in the cluster",
        spoil: Spoil::Files(|scene| {
            // The double's API is where the control planes' shared address is said to be.
            replace(&scene.profile(), "    ip: 127.20.0.10 ", "    ip: 127.0.0.1 ");
            replace(&scene.profile(), "prefix: 24", "prefix: 8");
        }),
        phase: "check",
        code: 4,
        words: &["Proxmox VE lives in the cluster: 127.0.0.1 is the control planes' shared address"],
    },
    Case {
        name: "registry in the cluster",
        spoil: Spoil::Files(|scene| {
            edit_site(scene, |site| site["factory"]["registry"] = "127.20.0.11:5000".into());
        }),
        phase: "check",
        code: 4,
        words: &["lives in the cluster: 127.20.0.11 is lab-cp-01"],
    },
    Case {
        name: "no template on a node and no right to move there",
        spoil: Spoil::World(|scene| {
            scene.storage_option("local", "nodes", "pve1,pve3".into());
            for role in scene.world.state().access.roles.values_mut() {
                role.privs.remove("VM.Migrate");
            }
        }),
        phase: "check",
        code: 4,
        words: &["pve2", "VM.Migrate"],
    },
    Case {
        name: "the only copy on the same device",
        spoil: Spoil::Files(|scene| {
            let same = scene.folder.join("copies");
            fs::create_dir(&same).unwrap();
            add(scene, &format!("backup:\n  copies:\n    - path: {}\nguards:\n  require_copy: true\n", same.display()));
        }),
        phase: "check",
        code: 4,
        words: &["guards.require_copy is set, and no second copy counts as one"],
    },
    Case {
        name: "copy that nothing reads back",
        spoil: Spoil::Files(|scene| {
            add(scene, "backup:\n  copies:\n    - command: {save: cat}\nguards:\n  require_copy: true\n");
        }),
        phase: "check",
        code: 4,
        words: &["no second copy counts as one"],
    },
    Case {
        name: "no folder for snapshots",
        spoil: Spoil::Files(|scene| add(scene, "backup:\n  dir: /proc/nowhere\n")),
        phase: "check",
        code: 4,
        words: &["no snapshot can be kept in /proc/nowhere"],
    },
    Case {
        name: "snapshot that is not there",
        spoil: Spoil::Restored(|scene| scene.folder.join("lost.snapshot")),
        phase: "check",
        code: 4,
        words: &["lost.snapshot can't be restored", "No such file"],
    },
    Case {
        name: "snapshot truncated",
        spoil: Spoil::Restored(|scene| changed(scene, |bytes| bytes.truncate(bytes.len() / 2))),
        phase: "check",
        code: 4,
        words: &["changed.snapshot can't be restored"],
    },
    Case {
        name: "snapshot altered",
        spoil: Spoil::Restored(|scene| {
            changed(scene, |bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            })
        }),
        phase: "check",
        code: 4,
        words: &["changed.snapshot can't be restored"],
    },
    Case {
        name: "snapshot of an etcd that is too old",
        spoil: Spoil::Restored(|scene| changed(scene, older)),
        phase: "check",
        code: 4,
        words: &["the snapshot was written by etcd 3.4, and Talos 1.13.9 brings etcd 3.6"],
    },
    Case {
        name: "snapshot of some other cluster",
        spoil: Spoil::Restored(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/etcd/etcd-3.6.snapshot")),
        phase: "check",
        code: 4,
        words: &["is of another cluster: its kube-system is 0b0f7f5e-7a3d-4a3f-9a55-1d1f4f1f2c11"],
    },
];

/// A session of the stage's own, to do what a person would in the PVE interface.
fn session(rehearsal: &Rehearsal) -> Session {
    let place =
        Place { env: Env::only([("HOME", "/nowhere".to_owned())]), reach: Reach::LoopbackOnly, commands: Mode::Record };
    let (profile, site) = (rehearsal.profile().to_owned(), rehearsal.site().to_owned());
    let global = Global { profile: Some(profile), site: Some(site), ..Global::default() };
    Session::open(&place, &global).unwrap_or_else(|stop| panic!("{stop:?}"))
}

/// From now on the cluster keeps data on a worker's own disk.
async fn local_volume(world: &World) {
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "data"},
        "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": "/var/mnt/data"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["lab-worker-01"]},
            ]}]}},
        },
    });
    let (key, value) = objects::given(&volume, "a volume").unwrap();
    let etcd = world.etcds().remove(0);
    let id = etcd.leader().unwrap();
    cluster::put(&Member { etcd, id }, &key, &value, Some(0)).await.unwrap();
}

/// Asks for the rebuild as things are, and says what is missing in the refusal.
fn refused(stage: &Stage, what: &str, more: &[&str], words: &[&str]) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let output = recast(&stage.scene(folder.path()), &[ASKED, more].concat());
    let told = super::flat(&String::from_utf8_lossy(&output.stderr));
    let mut wrong = misplaced(&output, "check", 4);
    let unsaid = words.iter().filter(|word| !told.contains(**word));
    wrong.extend(unsaid.map(|word| format!("it does not say “{word}”")));
    (!wrong.is_empty()).then(|| format!("== {what}: {}\n{told}", wrong.join("; ")))
}

fn order(profile: &str, rng_seed: u64) -> Order {
    Order {
        profile: Path::new(env!("CARGO_MANIFEST_DIR")).join(profile),
        site: None,
        contents: Contents::Running,
        asked: vec!["1.13.9".parse().unwrap()],
        time_scale: 20.0,
        rng_seed,
        inventory: None,
        scenario: None,
    }
}

/// A snapshot of the stage's cluster, saved and verified by the program into `folder`.
fn saved(stage: &Stage, folder: &Path) -> PathBuf {
    let scene = stage.scene(folder);
    let output = recast(&scene, &["snapshot", "save", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let file = PathBuf::from(document["snapshots"][0]["file"].as_str().unwrap());
    let verified = recast(&scene, &["snapshot", "verify", file.to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stderr));
    file
}

#[test]
fn a_rebuild_that_could_not_keep_the_data_is_refused_before_anything_is_touched() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let rehearsal = runtime.block_on(start(order("profiles/lab.yaml", 37))).unwrap();
    let contract = Contract::of(&"1.12.4".parse().unwrap()).unwrap();
    let other_secrets = Secrets::generate(contract, Timestamp::now()).unwrap().to_yaml().expose_secret().to_owned();
    let turn = RwLock::new(());
    let mut stage = Stage { rehearsal, cluster: "lab", asked: ASKED, snapshot: None, other_secrets, turn };

    // Nothing is spoiled: it would be done, and a snapshot can be had.
    let folder = tempfile::tempdir().unwrap();
    let output = recast(&stage.scene(folder.path()), &[ASKED, &["--dry-run"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    stage.snapshot = Some(saved(&stage, folder.path()));
    let other = runtime.block_on(start(order("profiles/single.yaml", 41))).unwrap();
    let turn = RwLock::new(());
    let other =
        Stage { rehearsal: other, cluster: "single", asked: &[], snapshot: None, other_secrets: String::new(), turn };
    let other_folder = tempfile::tempdir().unwrap();
    let others = saved(&other, other_folder.path());
    runtime.block_on(other.rehearsal.stop());

    let mut failed = stage.play_all(CASES);
    assert_eq!(mutating(&stage), Vec::<String>::new());

    failed.extend(refused(
        &stage,
        "snapshot of another cluster",
        &["--restore", others.to_str().unwrap()],
        &["is of another cluster: its kube-system is"],
    ));
    // What can't be put back comes last.
    let _inside = runtime.enter();
    runtime.block_on(local_volume(stage.world()));
    failed.extend(refused(
        &stage,
        "local volume",
        &[],
        &[
            "VM 1210 (lab-worker-01): local volume data (/var/mnt/data) lives on its disk scsi0",
            "--destroy-disk 1210:scsi0",
        ],
    ));
    assert!(stage.world().take_down("pve3", Outage::Off));
    failed.extend(refused(&stage, "node down", &[], &["PVE node pve3, which is down", "bring the node up"]));
    assert!(stage.world().bring_up("pve3"));
    let session = session(&stage.rehearsal);
    let worker = VmRef::new("pve1".into(), VmId(1210));
    runtime.block_on(session.pve.stop_vm(&worker, WaitingShutdown::Overrule)).unwrap();
    failed.extend(refused(&stage, "cluster ill", &[], &["not healthy"]));
    runtime.block_on(stage.rehearsal.stop());
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), CASES.len() + 4, failed.join("\n"));
}
