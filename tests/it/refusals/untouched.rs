//! What only shows on the way: a rebuild that is refused by its canary or its backup leaves the old cluster as it was, and
//! nothing of its own but the template.

use std::fs;
use std::process::{Command, Output, Stdio};

use mock_pve::scenario::Scenario;
use mock_pve::world::seed::Seed;

use crate::site::{Cluster, Double, End, Folder, KUBERNETES, TALOS, VM};

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 100.0;

/// A bad world or profile.
struct Case {
    name: &'static str,
    /// Added to the profile.
    profile: &'static str,
    /// Patch of the machine, as its file in the configuration's folder.
    patch: &'static str,
    seed: fn(&mut Seed),
    /// What goes wrong on the way; all of it has to happen.
    scenario: &'static str,
    /// What is spoiled once everything runs.
    spoil: fn(&Folder, &Double),
    /// The phase that refuses, or fails.
    phase: &'static str,
    code: i32,
    words: &'static [&'static str],
}

/// Nothing is bad.
const SOUND: Case = Case {
    name: "",
    profile: "",
    patch: "",
    seed: |_| (),
    scenario: "",
    spoil: |_, _| (),
    phase: "check",
    code: 4,
    words: &[],
};

const CASES: &[Case] = &[
    Case {
        name: "canary without network",
        profile: "timeouts:\n  boot: 3s\n",
        seed: |seed| seed.networks.iter_mut().for_each(|network| network.dhcp = None),
        phase: "canary",
        words: &["no machine in maintenance with MAC", "there is no DHCP server on its bridge"],
        ..SOUND
    },
    Case {
        name: "canary with other NIC names",
        patch: "machine:\n  network:\n    interfaces:\n      - interface: enp0s18\n        addresses: [192.168.178.41/24]\n",
        phase: "canary",
        words: &["the configuration of single-cp-01 names link enp0s18, and it has eth0"],
        ..SOUND
    },
    // A sound image of another release passes every test of bytes.
    Case {
        name: "image of another release",
        spoil: other_release,
        phase: "canary",
        words: &[
            "it runs Talos 1.13.8, not 1.13.9",
            "Created: template 100 (talos-1-13-9) on pve1",
            "delete the template that this run made",
        ],
        ..SOUND
    },
    Case {
        name: "first snapshot altered on its way",
        scenario: "faults: [{on: {talos: EtcdSnapshot}, then: {corrupt: 3}}]",
        phase: "backup",
        words: &["what was received can't be relied on, and was thrown away", "is damaged: its SHA-256 is"],
        ..SOUND
    },
    Case {
        name: "first snapshot without its checksum, and the stream ends well",
        scenario: "faults: [{on: {talos: EtcdSnapshot}, then: {lacks: 1}}]",
        phase: "backup",
        words: &["what was received can't be relied on, and was thrown away", "does not end with a SHA-256"],
        ..SOUND
    },
    // It may come another time, so this is no refusal.
    Case {
        name: "first snapshot broken off each time",
        scenario: "faults: [{on: {talos: EtcdSnapshot}, times: 99, then: {breaks-off: 20}}]",
        phase: "backup",
        code: 5,
        words: &["save a snapshot of etcd", "recast resume"],
        ..SOUND
    },
    Case {
        name: "first snapshot cut off each time",
        scenario: "faults: [{on: {talos: EtcdSnapshot}, times: 99, then: reset-after}]",
        phase: "backup",
        code: 5,
        words: &["save a snapshot of etcd", "recast resume"],
        ..SOUND
    },
    Case {
        name: "second copy that reads back as something else",
        profile: "backup:\n  copies:\n    - command: {save: cat > /dev/null, read: echo nothing}\n",
        phase: "backup",
        words: &["is not the snapshot: it has 8 bytes"],
        ..SOUND
    },
    Case {
        name: "second copy that can't be read back",
        profile: "backup:\n  copies:\n    - command: {save: cat > /dev/null, read: exit 3}\n",
        phase: "backup",
        words: &["could not read back the copy", "the command ended with 3"],
        ..SOUND
    },
];

/// The factory serves another release under the name of the one that is asked for.
fn other_release(folder: &Folder, double: &Double) {
    // Asking for a release makes the factory keep its image.
    for version in ["1.13.8", TALOS] {
        let output =
            folder.recast(double.site(), &["check", "--to", version, "--kubernetes", KUBERNETES]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let files = fs::read_dir(double.world().dir().join("factory/images")).unwrap();
    let mut files = files.map(|file| file.unwrap().path());
    let image =
        files.find(|path| path.to_string_lossy().ends_with("v1.13.9.raw.xz")).expect("the factory made the image");
    fs::copy(image.to_string_lossy().replace("v1.13.9", "v1.13.8"), &image).unwrap();
}

async fn play(case: &Case) -> Result<(), String> {
    let folder = Folder::new();
    let text = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), text + case.profile).unwrap();
    let scenario = (!case.scenario.is_empty()).then(|| Scenario::parse(case.name, case.scenario).unwrap());
    let double = Double::played(&folder, TIME_SCALE, case.seed, scenario).await;
    (case.spoil)(&folder, &double);
    if !case.patch.is_empty() {
        let patches = folder.path("cluster/single/patches");
        fs::create_dir_all(&patches).unwrap();
        fs::write(patches.join("single-cp-01.yaml"), case.patch).unwrap();
        let text = fs::read_to_string(folder.profile()).unwrap();
        fs::write(folder.profile(), text.replacen("  secrets_file:", "  patches_dir: patches\n  secrets_file:", 1))
            .unwrap();
    }
    let before = fs::read_to_string(folder.profile()).unwrap();
    let mut recast = folder.recast(double.site(), &[&Cluster::Single.rebuild()[..], &["-o", "json"]].concat());
    let output: Output = tokio::task::spawn_blocking(move || recast.output().unwrap()).await.unwrap();
    let told = super::flat(&String::from_utf8_lossy(&output.stderr));
    let mut wrong = super::misplaced(&output, case.phase, case.code);
    for words in case.words.iter().chain(&["has not been touched"]) {
        if !told.contains(&super::flat(words)) {
            wrong.push(format!("it does not say “{words}”"));
        }
    }
    let touched = double.deeds().iter().any(|deed| deed.vmid == Some(VM));
    let end = End::of(&folder, double.site()).await;
    let vms: Vec<&str> = end.vms.iter().map(String::as_str).collect();
    if touched || !vms.contains(&"1100 single-cp-01 running") || vms.len() != 3 || !end.uploads.is_empty() {
        wrong.push(format!("something was touched, or is left: {end:?}"));
    }
    if !end.versions.contains(&"single-cp-01 1.12.4".to_owned()) {
        wrong.push(format!("it runs {:?}", end.versions));
    }
    if fs::read_to_string(folder.profile()).unwrap() != before {
        wrong.push("the profile was changed".to_owned());
    }
    wrong.extend(double.never_happened().into_iter().map(|fault| format!("{fault} never happened")));
    if wrong.is_empty() { Ok(()) } else { Err(format!("== {}: {}\n{told}", case.name, wrong.join("; "))) }
}

#[test]
fn what_shows_on_the_way_is_refused_before_the_old_cluster_is_touched() {
    crate::site::secrets();
    let failed: Vec<String> = std::thread::scope(|scope| {
        let cases =
            CASES.iter().map(|case| scope.spawn(|| tokio::runtime::Runtime::new().unwrap().block_on(play(case)).err()));
        let cases: Vec<_> = cases.collect();
        cases.into_iter().filter_map(|case| case.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

/// Snapshots go to a disk that is almost full: told before anything is made. The disk is a small one of this test's own,
/// in a namespace of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_for_snapshots_is_told_before_anything_is_made() {
    let may = Command::new("unshare").args(["-rm", "true"]).stderr(Stdio::null()).status();
    if !may.is_ok_and(|status| status.success()) {
        return real_parts::skipped("no file system can be mounted here (unshare -rm)");
    }
    let folder = Folder::new();
    let full = folder.path("full");
    fs::create_dir(&full).unwrap();
    let text = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), format!("{text}backup:\n  dir: {}\n", full.display())).unwrap();
    let double = Double::here(&folder, TIME_SCALE).await;
    let recast = folder.recast(double.site(), &Cluster::Single.rebuild());
    let mut inside = Command::new("unshare");
    inside.args(["-rm", "sh", "-c", "mount -t tmpfs -o size=40k none \"$0\" && exec \"$@\""]).arg(&full);
    inside.arg(recast.get_program()).args(recast.get_args()).env_clear().stdin(Stdio::null());
    for (name, value) in recast.get_envs() {
        inside.env(name, value.unwrap_or_default());
    }
    let output = tokio::task::spawn_blocking(move || inside.output().unwrap()).await.unwrap();
    let told = super::flat(&String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{told}");
    assert!(told.contains(" free, and three snapshots of etcd need"), "{told}");
    assert!(double.deeds().is_empty(), "{:?}", double.deeds());
}
