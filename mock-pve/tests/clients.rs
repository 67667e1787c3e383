//! Clients that others wrote: proxmoxer, Ansible's community.proxmox and curl, unmodified.
//!
//! `tests/clients/prepare DIR` makes the Python environment; `RECAST_TEST_PYTHON=DIR` names it.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mock_pve::serve::{self, Options, Running};
use mock_pve::world::seed::Seed;

const PASSWORD: &str = "a password";

/// The Python environment; where it has to be, its absence fails.
fn python() -> Option<PathBuf> {
    let found = std::env::var_os("RECAST_TEST_PYTHON").map(PathBuf::from);
    if found.is_none() {
        real_parts::skipped("RECAST_TEST_PYTHON names no environment with proxmoxer and Ansible");
    }
    found
}

async fn begin() -> Running {
    let mut seed = Seed::single_node();
    seed.users[0].password = Some(PASSWORD.to_owned());
    serve::start(Options { seed, time_scale: 100.0, ..Options::default() }).await.unwrap()
}

fn tour(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name)
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn fine(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn proxmoxer_does_its_tour() {
    let Some(python) = python() else { return };
    let running = begin().await;
    let (id, secret) = running.ready.tokens.iter().next().unwrap();
    let mut command = Command::new(python.join("bin/python"));
    command.arg(tour("proxmoxer_tour.py")).arg(running.ready.pve.trim_start_matches("https://"));
    command.arg(&running.ready.ca_file).args([id, secret, PASSWORD]).env("NO_PROXY", "*");
    assert!(fine(&run(command).await).contains("proxmoxer: done"));
}

/// Ansible with a playbook and its variables; `folder` is its home.
fn ansible(python: &Path, running: &Running, folder: &Path, playbook: &str, variables: &str) -> Command {
    let port = running.ready.pve.rsplit(':').next().unwrap();
    let mut command = Command::new(python.join("bin/ansible-playbook"));
    command.args(["-i", "localhost,", "-e"]).arg(format!("host=127.0.0.1 api_port={port} node=pve1 {variables}"));
    command.arg(tour(playbook)).current_dir(folder).env("HOME", folder);
    command.env("ANSIBLE_COLLECTIONS_PATH", python.join("collections")).env("ANSIBLE_NOCOLOR", "1");
    command.env("ANSIBLE_LOCAL_TEMP", folder.join("local")).env("ANSIBLE_REMOTE_TEMP", folder.join("remote"));
    command.env("ANSIBLE_PYTHON_INTERPRETER", python.join("bin/python"));
    command.env("REQUESTS_CA_BUNDLE", &running.ready.ca_file).env("NO_PROXY", "*");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn ansible_does_its_tour() {
    let Some(python) = python() else { return };
    let running = begin().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ansible.iso");
    std::fs::write(&file, "data").unwrap();
    let secret = &running.ready.tokens["recast@pve!ci"];
    let variables = format!("user=recast@pve token_id=ci token_secret={secret} file={}", file.display());
    let told = fine(&run(ansible(&python, &running, folder.path(), "ansible_tour.yaml", &variables)).await);
    assert!(told.contains("failed=0") && told.contains("unreachable=0"), "{told}");
    let left: Vec<u32> = running.world().state().vms.keys().copied().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ansible_sets_up_what_stands_around_vms() {
    let Some(python) = python() else { return };
    let running = begin().await;
    let folder = tempfile::tempdir().unwrap();
    let variables = format!("password='{PASSWORD}'");
    let told = fine(&run(ansible(&python, &running, folder.path(), "ansible_cluster.yaml", &variables)).await);
    assert!(told.contains("failed=0") && told.contains("unreachable=0"), "{told}");
    let world = running.world();
    let state = world.state();
    assert!(state.pools["decks"].vms.contains(&9300) && state.vms[&9300].snapshots.contains_key("before"));
    assert!(state.volumes.keys().any(|key| key.storage == "dump"), "no backup");
    assert!(state.ha.contains_key("vm:9300") && state.cluster_name.as_deref() == Some("lab"));
}

/// What the README shows, line by line.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_of_the_readme_work() {
    if !real_parts::is_here("curl", "-V") {
        return;
    }
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let block = readme.split("<!-- tested: curl -->").nth(1).unwrap();
    let script = block.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let running = begin().await;
    let folder = tempfile::tempdir().unwrap();
    running.write_ready(&folder.path().join("ready.json")).unwrap();
    let script = script.replace("https://127.0.0.1:8006", &running.ready.pve);
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &script]).current_dir(folder.path());
    command.env("PVE_PASSWORD", PASSWORD).env("NO_PROXY", "*");
    let told = fine(&run(command).await);
    let lines: Vec<&str> = told.lines().filter(|line| !line.is_empty()).collect();
    assert!(lines[0].contains("\"version\":\"8.4"), "{told}");
    assert!(told.contains("qmcreate") && told.contains("\"status\":\"running\""), "{told}");
    assert!(told.contains("property is not defined in schema"), "{told}");
    assert_eq!(running.world().state().vms.len(), 1);
}
