//! The README's first command, and what a rebuild leaves behind when nothing goes wrong.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::site::{Cluster, Double, End, Folder, assert_deeds, plan, program, repository, secrets};
use crate::told::{document, text};

const PHASES: [&str; 12] = [
    "check",
    "image",
    "template",
    "canary",
    "backup",
    "freeze",
    "retire",
    "provision",
    "configure",
    "bootstrap",
    "verify",
    "finish",
];

/// Name → content of every file below `dir`.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.insert(path.clone(), Vec::new());
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap());
        }
    }
    found
}

fn assert_rebuilt(document: &Value) {
    assert_eq!((&document["outcome"], &document["verb"]), (&"done".into(), &"rebuild".into()), "{document:#}");
    let phases: Vec<&str> =
        document["phases"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(phases, PHASES);
    let versions = &document["versions"];
    assert_eq!((&versions["before"]["talos"], &versions["after"]["talos"]), (&"1.12.4".into(), &"1.13.9".into()));
    assert_eq!(
        (&versions["before"]["kubernetes"], &versions["after"]["kubernetes"]),
        (&"1.34.1".into(), &"1.35.0".into())
    );
    assert_eq!(numbers(&document["destroyed"]), [1100]);
    assert_eq!(numbers(&document["created"]), [100, 1100]);
    assert!(document["api_downtime_seconds"].as_f64().unwrap() > 0.0, "{document:#}");
}

fn numbers(vms: &Value) -> Vec<u64> {
    vms.as_array().unwrap().iter().map(|vm| vm["vmid"].as_u64().unwrap()).collect()
}

/// The lab's addresses are on loopback and can be had once: its rehearsals take turns.
static LAB: Mutex<()> = Mutex::new(());

/// Runs a command of the README's in a folder of profiles beside a home, both of which must stay as they are, as must the
/// folder of backups, whose path in the profile is absolute.
fn rehearse(line: &str, cluster: &str, code: i32) -> Output {
    let _turn = (cluster == "lab").then(|| LAB.lock().unwrap_or_else(PoisonError::into_inner));
    let place = tempfile::tempdir().unwrap();
    let (home, profiles) = (place.path().join("home"), place.path().join("profiles"));
    let configuration = Path::new("profiles").join(cluster);
    fs::create_dir_all(&profiles).unwrap();
    fs::create_dir_all(&home).unwrap();
    fs::create_dir_all(place.path().join(&configuration)).unwrap();
    let beside = ["site.yaml".to_owned(), format!("{cluster}.yaml")].map(|name| Path::new("profiles").join(name));
    for file in beside.into_iter().chain(["site.yaml", "secrets.yaml"].map(|name| configuration.join(name))) {
        if repository().join(&file).exists() {
            fs::copy(repository().join(&file), place.path().join(&file)).unwrap();
        }
    }
    let (profile, backups) = (profiles.join(format!("{cluster}.yaml")), place.path().join("backups"));
    let own = fs::read_to_string(&profile).unwrap();
    assert!(!own.contains("\nbackup:"), "the sample has a folder of its own: {own}");
    fs::write(&profile, format!("{own}backup:\n  dir: {}\n", backups.display())).unwrap();
    fs::create_dir(&backups).unwrap();
    let before = files(place.path());
    let faster = line.replacen("rehearse", "rehearse --time-scale 100", 1);
    let output = program(&home).current_dir(place.path()).args(faster.split(' ')).output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    assert_eq!(files(place.path()), before);
    output
}

/// The README's sample of a plan is what the program prints, but for the name of the run.
fn assert_sample(readme: &str, plan: &str) {
    let sample = readme.split_once("```text\nPlan ").unwrap().1.split_once("\n```").unwrap().0;
    let unnamed = |text: &str| text.split_once(" · ").unwrap().1.to_owned();
    let plan = plan.split_once("Plan ").unwrap_or_else(|| panic!("no plan: {plan}")).1;
    let (sample, plan) = (unnamed(sample), unnamed(plan));
    for (line, told) in sample.lines().zip(plan.lines()) {
        assert_eq!(line, told, "{plan}");
    }
    assert!(sample.lines().count() < plan.lines().count(), "{plan}");
}

#[test]
fn the_readmes_first_command_rebuilds_the_lab_and_every_acknowledged_write_is_there() {
    let line = "rehearse --profile profiles/lab.yaml -- rebuild --to 1.13.9 --kubernetes 1.35.0 --confirm lab";
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    assert!(readme.contains(line));
    assert_sample(&readme, &text(&rehearse(&format!("{line} --dry-run"), "lab", 2).stdout));
    let document = document(&rehearse(&line.replacen("rehearse", "rehearse -o json", 1), "lab", 0));
    assert_eq!(document["outcome"], "done", "{document:#}");
    assert_eq!(numbers(&document["destroyed"]), [1210, 1211, 1200, 1201, 1202]);
    assert_eq!((&document["backup"]["frozen"], &document["window_revisions"]), (&true.into(), &Value::Null));
    assert_eq!(document["restored"]["revision"], document["backup"]["revision"]);
    assert_eq!(document["writes"]["missing"], 0);
    assert!(document["writes"]["acknowledged"].as_u64().unwrap() > 50, "{document:#}");
    assert_eq!(document["regressions"], Value::Array(Vec::new()));
}

#[test]
fn an_upgrade_of_the_lab_is_rehearsed_and_serves_writes_all_the_while() {
    let line = "rehearse --profile profiles/lab.yaml -- upgrade --to 1.13.9 --kubernetes 1.35.4 --confirm lab";
    let document = document(&rehearse(&line.replacen("rehearse", "rehearse -o json", 1), "lab", 0));
    assert_eq!((&document["outcome"], &document["verb"]), (&"done".into(), &"upgrade".into()), "{document:#}");
    assert_eq!(document["versions"]["after"]["talos"], "1.13.9");
    assert_eq!(document["versions"]["after"]["kubernetes"], "1.35.4");
    assert_eq!((numbers(&document["destroyed"]), &document["writes"]["missing"]), (Vec::new(), &0.into()));
    assert!(document["writes"]["acknowledged"].as_u64().unwrap() > 50, "{document:#}");
}

#[test]
fn a_fresh_rebuild_of_one_machine_is_rehearsed_and_touches_nothing_real() {
    let line =
        "rehearse --profile profiles/single.yaml -- rebuild --to 1.13.9 --kubernetes 1.35.0 --fresh --confirm single";
    let document = document(&rehearse(&line.replacen("rehearse", "rehearse -o json", 1), "single", 0));
    assert_eq!((&document["outcome"], &document["backup"]), (&"done".into(), &Value::Null), "{document:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuild_ends_as_planned_and_tells_no_secret_and_the_next_one_uses_its_template() {
    let folder = Folder::new();
    let double = Double::program(&folder, 50.0);
    let run = |args: &[&str]| {
        let mut command = folder.recast(double.site(), args);
        command.arg("--report-dir").arg(folder.path("report")).arg("--events").arg(folder.path("events.jsonl"));
        command.args(["-o", "json", "--log-level", "trace"]).output().unwrap()
    };
    // First only what would be done.
    let profile = fs::read(folder.profile()).unwrap();
    let dry = folder.recast(double.site(), &Cluster::Single.rebuild()).arg("--dry-run").output().unwrap();
    assert_eq!(dry.status.code(), Some(2), "{}", text(&dry.stderr));
    let shown = text(&dry.stdout);
    assert!(shown.contains("1100") && shown.contains("single-cp-01") && shown.contains("1.13.9"), "{shown}");
    assert_eq!(fs::read(folder.profile()).unwrap(), profile);
    assert_eq!((double.deeds(), folder.state().join("single").exists()), (Vec::new(), false));
    let untouched = End::of(&folder, double.site()).await;
    assert_eq!(untouched.versions, ["single-cp-01 1.12.4", "kubernetes 1.34.1"]);
    assert_eq!(untouched.vms, ["101 talos-1-12-4 template", "1100 single-cp-01 running"]);

    let first = run(&Cluster::Single.rebuild());
    assert_eq!(first.status.code(), Some(0), "{}", text(&first.stderr));
    assert_rebuilt(&document(&first));
    assert_eq!(End::of(&folder, double.site()).await, End::rebuilt(folder.cluster()));
    let made = folder.run();
    assert_deeds(&double.deeds(), &plan(&made));
    assert_no_secrets(&folder, &double, &[&dry, &first]);

    let second = run(&["rebuild", "--fresh", "--confirm", "single"]);
    assert_eq!(second.status.code(), Some(0), "{}", text(&second.stderr));
    assert_eq!(numbers(&document(&second)["created"]), [1100]);
    assert_eq!(End::of(&folder, double.site()).await, End::rebuilt(folder.cluster()));
}

/// Looks for every private key and token of the cluster, and for the token of Proxmox VE, in all that a run tells or
/// keeps.
fn assert_no_secrets(folder: &Folder, double: &Double, outputs: &[&Output]) {
    let mut hidden: Vec<String> = double.ready.tokens.values().cloned().collect();
    for line in secrets().lines() {
        let Some((key, value)) = line.split_once(": ") else { continue };
        let value = value.trim().trim_matches('"');
        // Certificates are for everyone; all else is the cluster's own, the opaque values too.
        if key.trim() == "crt" || value.is_empty() {
            continue;
        }
        hidden.push(value.to_owned());
        // A private key is as secret in plain PEM, as documents since 1.14 have it: any whole line of it.
        let pem = STANDARD.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
        let body = pem.lines().filter(|line| !line.starts_with("-----") && line.len() > 40);
        hidden.extend(body.map(str::to_owned));
    }
    assert!(hidden.len() > 20, "{}", hidden.len());
    let mut told: BTreeMap<PathBuf, Vec<u8>> = files(&folder.state());
    told.extend(files(&folder.path("report")));
    told.insert(folder.path("events.jsonl"), fs::read(folder.path("events.jsonl")).unwrap());
    for (number, output) in outputs.iter().enumerate() {
        told.insert(format!("stdout {number}").into(), output.stdout.clone());
        told.insert(format!("stderr {number}").into(), output.stderr.clone());
    }
    for name in ["plan.json", "journal.jsonl", "observed.json", "log.jsonl"] {
        assert!(told.get(&folder.run().join(name)).is_some_and(|content| !content.is_empty()), "{name}");
    }
    let report = told.get(&folder.path("report").join("report.json"));
    assert!(report.is_some_and(|content| !content.is_empty()), "report.json");
    let before = folder.run().join("before");
    for (path, content) in told {
        // The old machines' configurations hold them, for their owner only; nothing publishes them.
        if path.starts_with(&before) {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o077;
            assert_eq!(mode, 0, "{}", path.display());
            continue;
        }
        let content = text(&content);
        for secret in &hidden {
            assert!(!content.contains(secret), "{} holds a secret", path.display());
        }
    }
}
