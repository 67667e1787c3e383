//! The double against what a real server answered: every recorded scenario, over real sockets.
//!
//! `recordings/` holds the scenarios and the answers of a real Proxmox VE 8.4.21; each scenario runs against a double
//! of its own, seeded with `initial-state.json`. An answer is compared at three levels: status; shape (reason, kind and
//! keys of the body too); exact (all values, after what changes from run to run was made neutral).

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

mod client;
mod compare;
mod run;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mock_pve::serve::{self, Options};
use mock_pve::world::seed::Seed;
use serde_json::Value;

use self::client::Server;
use self::compare::{Equal, compare};
use self::run::{Run, expected};

/// What delays are divided by. Statistics, boots and clones are awaited by the scenarios themselves.
const TIME_SCALE: f64 = 20.0;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn secrets() -> BTreeMap<String, String> {
    let mut secrets: BTreeMap<String, String> =
        BTreeMap::from([("PVE_PASSWORD".to_owned(), "secret-enough".to_owned())]);
    for (number, name) in ["FULL", "SEP", "LIMITED", "NOBODY", "ROOT"].iter().enumerate() {
        secrets.insert(format!("PVE_TOKEN_{name}"), format!("{number:08}-0000-4000-8000-000000000000"));
    }
    secrets
}

/// Runs one recording; the levels of each answer, and what differs.
async fn replay(recording: &Value) -> (Vec<Equal>, String) {
    let mut seed = Seed::load(&folder().join("initial-state.json")).unwrap();
    seed.secrets = secrets();
    let options = Options { seed, time_scale: TIME_SCALE, rng_seed: 11, ..Options::default() };
    let running = serve::start(options).await.unwrap();
    let server = Server::new(&running.ready.pve, &running.ready.ca_file, secrets());
    let scenario = &recording["scenario"];
    let answers = Run::new(&server, scenario).run().await;
    let (mut all, mut notes) = (Vec::new(), String::new());
    for (name, rules) in expected(scenario) {
        let Some(wanted) = recording["answers"].get(&name).filter(|wanted| wanted.get("status").is_some()) else {
            continue;
        };
        let got = answers.get(&name).cloned().unwrap_or_default();
        let (equal, why) = compare(&rules, wanted, &got);
        if !equal.exact {
            let _ = writeln!(notes, "{}: {name}: {why}", scenario["name"].as_str().unwrap_or_default());
        }
        all.push(equal);
    }
    running.stop().await;
    (all, notes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn recorded_scenarios_are_answered_as_by_the_original() {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder().join("recordings")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let only = std::env::var("CONFORMANCE_ONLY").unwrap_or_default();
    let mut running = tokio::task::JoinSet::new();
    for path in paths.into_iter().filter(|path| path.to_string_lossy().contains(&only)) {
        let recording: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        running.spawn(async move { replay(&recording).await });
    }
    let (mut all, mut notes) = (Vec::new(), String::new());
    while let Some(done) = running.join_next().await {
        let (equal, why) = done.unwrap();
        all.extend(equal);
        notes.push_str(&why);
    }
    let count = |level: fn(&Equal) -> bool| all.iter().filter(|equal| level(equal)).count();
    let (exact, shape, status) = (count(|e| e.exact), count(|e| e.shape), count(|e| e.status));
    let total = all.len();
    eprintln!("conformance: {total} answers; exact {exact}, shape {shape}, status {status}\n{notes}");
    assert!(total > 0, "nothing was replayed");
    assert!(exact * 100 >= total * 95, "{exact} of {total} answers are exact\n{notes}");
    assert!(shape * 100 >= total * 99, "{shape} of {total} answers have the right shape\n{notes}");
}
