//! Images on their way into templates, and what goes wrong on it: whatever it is, never a template and never a leftover.

use std::fs;
use std::process::Output;

use recast::pve::vm::{Forget, VmRef};
use recast::pve::{Pve, Wait};
use recast::types::{StorageId, VmId};

use crate::site::{Cluster, Double, Folder, KUBERNETES, TALOS};
use crate::told::text;

const BUILD: [&str; 6] = ["template", "build", "--to", TALOS, "--kubernetes", KUBERNETES];

/// A cluster of one machine whose profile asks for this transport.
fn folder(transport: &str) -> Folder {
    let folder = Folder::of(Cluster::Single);
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), format!("{profile}transport: {transport}\n")).unwrap();
    folder
}

fn run(folder: &Folder, double: &Double, words: &[&str]) -> Output {
    folder.recast(double.site(), words).output().unwrap()
}

fn build(folder: &Folder, double: &Double) -> Output {
    run(folder, double, &[&BUILD[..], &["--confirm", "single"]].concat())
}

/// Templates, files among the uploads, and volumes of runs, by name.
async fn left(pve: &Pve) -> Vec<String> {
    let mut left = Vec::new();
    for node in pve.nodes().await.unwrap() {
        let node = node.node;
        for vm in pve.vms(&node).await.unwrap() {
            let config = pve.vm_config(&VmRef::new(node.clone(), vm.vmid)).await.unwrap();
            left.push(format!("{} {}", vm.vmid, config.name().unwrap_or("?")));
        }
        for storage in ["local", "local-lvm"] {
            let volumes = pve.volumes(&node, &StorageId::new(storage), None, None).await.unwrap();
            let names = volumes.iter().map(|volume| volume.volid.to_string());
            left.extend(names.filter(|name| name.contains("import/") || name.contains("recast")));
        }
    }
    left.sort();
    left
}

/// Takes the template away, behind recast's back.
async fn without_template(pve: &Pve) {
    let wait = Wait { poll: std::time::Duration::from_millis(50), within: std::time::Duration::from_mins(1) };
    let upid = pve.delete_vm(&VmRef::new("pve1".into(), VmId(100)), Forget::Nothing).await.unwrap();
    pve.wait(&upid, wait).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_fetches_the_image_itself_and_once_its_digest_is_known_without_being_asked() {
    let folder = folder("pull");
    let double = Double::here(&folder, 100.0).await;
    let pve = folder.session(double.site()).pve;
    let before = left(&pve).await;

    let built = build(&folder, &double);
    let said = text(&built.stderr);
    assert_eq!(built.status.code(), Some(0), "{said}");
    let mut expected = before.clone();
    expected.push("100 talos-1-13-9".to_owned());
    expected.sort();
    assert_eq!(left(&pve).await, expected);
    let lock = fs::read_to_string(folder.profile().with_extension("lock")).unwrap();
    let pinned = lock.lines().position(|line| line.contains(".qcow2")).unwrap_or_else(|| panic!("{lock}"));
    assert!(lock.lines().skip(pinned).any(|line| line.contains("first-use")), "{lock}");

    // From now on `auto` lets the node fetch it: the lock has the digest that Proxmox VE is told to compare.
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), profile.replace("transport: pull\n", "")).unwrap();
    without_template(&pve).await;
    let dry = run(&folder, &double, &[&BUILD[..], &["--dry-run"]].concat());
    let plan = text(&dry.stdout);
    assert_eq!(dry.status.code(), Some(2), "{}", text(&dry.stderr));
    assert!(plan.contains("it reaches the factory, and the lock has the digest"), "{plan}");
    assert!(!plan.contains("fetch Talos"), "nothing comes here: {plan}");
    fs::remove_dir_all(folder.path("cache")).unwrap();
    let built = build(&folder, &double);
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    assert!(!folder.path("cache/sha256").exists(), "the image came here all the same");

    // Another file at the same address is refused, by both digests.
    let other = "0".repeat(64);
    let digests: Vec<&str> = lock.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64).collect();
    let at = lock.lines().skip(pinned).find_map(|line| digests.iter().find(|digest| line.contains(**digest)));
    let right = (*at.unwrap_or_else(|| panic!("{lock}"))).to_owned();
    without_template(&pve).await;
    let locked = fs::read_to_string(folder.profile().with_extension("lock")).unwrap();
    fs::write(folder.profile().with_extension("lock"), locked.replace(&right, &other)).unwrap();
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), format!("{profile}transport: pull\n")).unwrap();
    let refused = build(&folder, &double);
    let said = text(&refused.stderr);
    assert!(!refused.status.success() && said.contains(&other) && said.contains(&right), "{said}");
    assert_eq!(left(&pve).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_systems_own_ssh_brings_the_image_as_well() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let folder = folder("ssh");
    let double = Double::here(&folder, 100.0).await;
    let site = fs::read_to_string(double.site()).unwrap();
    let path = double.site().with_file_name("program.yaml");
    fs::write(&path, site.replacen("ssh:\n  user:", "ssh:\n  program: true\n  user:", 1)).unwrap();
    let built = folder.recast(&path, &BUILD).args(["--confirm", "single"]).output().unwrap();
    assert_eq!(built.status.code(), Some(0), "{}", text(&built.stderr));
    let pve = folder.session(double.site()).pve;
    assert!(left(&pve).await.contains(&"100 talos-1-13-9".to_owned()));
}

/// Something that goes wrong, always, and what is said about it.
struct Case {
    name: &'static str,
    transport: &'static str,
    scenario: &'static str,
    code: i32,
    words: &'static [&'static str],
}

const CASES: &[Case] = &[
    Case {
        name: "the factory serves a damaged file",
        transport: "upload",
        scenario: "faults: [{on: {factory: 'GET /store/**'}, then: {corrupt: 1}}]",
        code: 4,
        words: &["is damaged", "the factory, or a proxy before it, serves a damaged file"],
    },
    Case {
        name: "an upload arrives damaged",
        transport: "upload",
        scenario: "faults: [{on: {pve: 'POST /nodes/*/storage/*/upload'}, then: {corrupt: 1}}]",
        code: 5,
        words: &["checksum"],
    },
    Case {
        name: "the node fetches a damaged file",
        transport: "pull",
        scenario: "faults: [{on: {factory: 'GET /store/**.qcow2'}, nth: 2, times: 99, then: {corrupt: 1}}]",
        code: 5,
        words: &["checksum"],
    },
    Case {
        name: "a stream arrives damaged",
        transport: "ssh",
        scenario: "faults: [{on: {ssh: 'perl -e **'}, then: {corrupt: 1}}]",
        code: 5,
        words: &["write the image to local-lvm:vm-100-recast-"],
    },
    Case {
        name: "the receiver is killed",
        transport: "ssh",
        scenario: "faults: [{on: {ssh: 'perl -e **'}, then: {status: 137, reason: Killed}}]",
        code: 5,
        words: &["the receiver on pve1", "Killed"],
    },
    Case {
        name: "the storage has no room for a volume",
        transport: "ssh",
        scenario: "storages: {local-lvm: 1MiB}",
        code: 4,
        words: &["local-lvm"],
    },
    Case {
        name: "the disk is full while it is written",
        transport: "ssh",
        scenario: "faults: [{on: {ssh: 'perl -e **'}, then: {status: 2, reason: 'recast-receive: /dev/pve/x: No space left on device'}}]",
        code: 5,
        words: &["the receiver on pve1", "No space left on device"],
    },
    Case {
        name: "the import fails",
        transport: "upload",
        scenario: "faults: [{on: {task: qmcreate}, then: {task-error: 'copy failed: No space left on device'}}]",
        code: 5,
        words: &["No space left on device"],
    },
];

async fn play(case: &Case) -> Result<(), String> {
    let folder = folder(case.transport);
    let double = Double::troubled(&folder, 100.0, case.scenario).await;
    let pve = folder.session(double.site()).pve;
    let before = left(&pve).await;
    let built = build(&folder, &double);
    let said = text(&built.stderr);
    if built.status.code() != Some(case.code) {
        return Err(format!("it ends with {:?} instead of {}: {said}", built.status.code(), case.code));
    }
    let unsaid: Vec<&&str> = case.words.iter().filter(|words| !said.contains(**words)).collect();
    if !unsaid.is_empty() {
        return Err(format!("{unsaid:?} is not said: {said}"));
    }
    let after = left(&pve).await;
    if after != before {
        return Err(format!("there is {after:?} now: {said}"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_there_is_no_template_and_nothing_is_left() {
    let mut wrong = Vec::new();
    for case in CASES {
        if let Err(what) = play(case).await {
            wrong.push(format!("{}: {what}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// What goes wrong once, or for a while, is got over without a person.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_once_is_taken_up_again() {
    for (transport, scenario) in [
        ("upload", "faults: [{on: {factory: 'GET /store/**'}, times: 2, then: reset-before}]"),
        ("upload", "faults: [{on: {pve: 'POST /nodes/*/storage/*/upload'}, times: 1, then: reset-before}]"),
        ("ssh", "faults: [{on: {ssh: 'perl -e **'}, times: 1, then: reset-before}]"),
        ("ssh", "faults: [{on: {ssh: 'perl -e **'}, times: 1, then: reset-after}]"),
        ("ssh", "faults: [{on: {ssh: 'pvesm alloc **'}, times: 1, then: reset-after}]"),
    ] {
        let folder = folder(transport);
        let double = Double::troubled(&folder, 100.0, scenario).await;
        let built = build(&folder, &double);
        assert_eq!(built.status.code(), Some(0), "{scenario}: {}", text(&built.stderr));
        let pve = folder.session(double.site()).pve;
        let names = left(&pve).await;
        assert!(names.contains(&"100 talos-1-13-9".to_owned()), "{scenario}: {names:?}");
        assert!(names.iter().all(|name| !name.contains("import/") && !name.contains(":vm-")), "{scenario}: {names:?}");
    }
}
