//! The two halves of a rebuild alone, with all that a profile may hang into them: hooks, manifests, a commit.
//!
//! One cluster's life: it is torn down with a backup, and comes back from it as a snapshot's restore. Another's: it is
//! given up, and made anew without its data. And a plan that is saved first and carried out later.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use recast::k8s::Client;
use serde_json::Value;

use crate::site::{Cluster, Double, End, Folder, VM, assert_deeds, plan};
use crate::told::{document, text};

/// What the profile asks for beside the cluster.
const ERRANDS: &str = "hooks:
  before_retire: cat > before_retire.json
  after_bootstrap: cat > after_bootstrap.json && test -s \"$KUBECONFIG\" && test -s \"$TALOSCONFIG\"
  finished: cat > finished.json
  failed: cat > failed.json
bootstrap:
  apply:
    - manifests: extra.yaml
    - command: echo \"$RECAST_CLUSTER\" > command.txt
finish:
  git: {commit: true}
";

const EXTRA: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: extra, namespace: kube-system}
data: {a: b}
";

fn words(document: &Value) -> String {
    document["problems"].to_string()
}

/// Runs git in a folder, and answers with what it printed.
pub(crate) fn git(folder: &Path, words: &[&str]) -> String {
    let done = Command::new("git").args(words).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "git {words:?}: {}", text(&done.stderr));
    text(&done.stdout)
}

fn newest(dir: &Path, what: &str) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&format!("etcd-{what}-"));
    let mut found: Vec<PathBuf> = files.filter(named).collect();
    found.sort();
    found.pop().unwrap_or_else(|| panic!("no {what} snapshot in {}", dir.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_torn_down_and_brought_back_from_its_snapshot() {
    let folder = Folder::new();
    let double = Double::here(&folder, 100.0).await;
    let cluster = folder.path("cluster");
    let profile = fs::read_to_string(folder.profile()).unwrap();
    fs::write(folder.profile(), profile + ERRANDS).unwrap();
    fs::write(cluster.join("extra.yaml"), EXTRA).unwrap();
    git(&cluster, &["init", "--quiet", "--initial-branch=main"]);
    for (key, value) in [("user.name", "A Person"), ("user.email", "a@example.org"), ("commit.gpgsign", "false")] {
        git(&cluster, &["config", key, value]);
    }
    git(&cluster, &["add", "single.yaml"]);
    git(&cluster, &["commit", "--quiet", "-m", "first"]);
    let run = |args: &[&str]| folder.recast(double.site(), args).args(["-o", "json"]).output().unwrap();
    let refused = |args: &[&str], said: &str| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(4), "{args:?}: {}", text(&output.stderr));
        assert!(words(&document(&output)).contains(said), "{args:?}: {}", words(&document(&output)));
    };

    // Nothing is done in the wrong place, or without a word.
    refused(&["create", "--confirm", "single"], "VMs of cluster single exist: 1100 (single-cp-01)");
    refused(&["teardown"], "nobody is there to confirm it");
    refused(&["teardown", "--confirm", "other"], "--confirm names other");
    let dry = run(&["teardown", "--dry-run"]);
    assert_eq!(dry.status.code(), Some(2), "{}", text(&dry.stderr));
    assert_eq!(double.deeds(), Vec::new());
    let before = End::of(&folder, double.site()).await;

    let down = run(&["teardown", "--confirm", "single"]);
    assert_eq!(down.status.code(), Some(0), "{}", text(&down.stderr));
    let told = document(&down);
    assert_eq!((&told["verb"], &told["versions"]["after"]), (&"teardown".into(), &Value::Null));
    let (revision, keys) = (told["backup"]["revision"].as_u64().unwrap(), told["backup"]["keys"].as_u64().unwrap());
    assert!(revision > 0 && keys > 100, "{told:#}");
    assert_eq!(told["destroyed"].as_array().unwrap().len(), 1);
    let hook: Value = serde_json::from_slice(&fs::read(cluster.join("before_retire.json")).unwrap()).unwrap();
    assert_eq!((&hook["verb"], &hook["retires"][0]["vmid"]), (&"teardown".into(), &1100.into()));
    refused(&["teardown", "--confirm", "single"], "no VM of cluster single exists");
    refused(&["rebuild", "--confirm", "single"], "`recast create` makes it");

    // A snapshot that was cut off is no snapshot.
    let snapshot = newest(&cluster.join("single"), "final");
    let whole = fs::read(&snapshot).unwrap();
    let cut = folder.path("cut.snapshot");
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    refused(&["create", "--restore", cut.to_str().unwrap(), "--confirm", "single"], "can't be restored");

    let up = run(&["create", "--restore", snapshot.to_str().unwrap(), "--confirm", "single"]);
    assert_eq!(up.status.code(), Some(0), "{}", text(&up.stderr));
    let told = document(&up);
    assert_eq!((&told["verb"], &told["restored"]["revision"]), (&"create".into(), &revision.into()), "{told:#}");
    let after = End::of(&folder, double.site()).await;
    assert_eq!((&after.versions, &after.members), (&before.versions, &before.members));
    for moment in ["after_bootstrap", "finished"] {
        let hook: Value = serde_json::from_slice(&fs::read(cluster.join(format!("{moment}.json"))).unwrap()).unwrap();
        assert_eq!((&hook["moment"], &hook["verb"]), (&moment.into(), &"create".into()));
    }
    assert!(!cluster.join("failed.json").exists());
    assert_eq!(fs::read_to_string(cluster.join("command.txt")).unwrap(), "single\n");
    assert_eq!(git(&cluster, &["log", "--format=%s"]), "feat(talos): upgrade to Talos v1.12.4\nfirst\n");
    assert_eq!(git(&cluster, &["show", "--format=", "--name-only", "HEAD"]), "single.lock\nsingle.yaml\n");
    let kubeconfig = fs::read_to_string(folder.path("kubeconfig")).unwrap();
    let client = Client::new(&folder.session(double.site()).connector, &kubeconfig.into()).unwrap();
    assert!(client.exists("/api/v1/namespaces/kube-system/configmaps/extra").await.unwrap());
    assert!(client.revision().await.unwrap() > i64::try_from(revision).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_plan_is_carried_out_as_it_is_or_refused_where_something_drifted() {
    let folder = Folder::new();
    let double = Double::here(&folder, 100.0).await;
    let run = |args: &[&str]| folder.recast(double.site(), args).args(["-o", "json"]).output().unwrap();
    let ended = |args: &[&str], code: i32| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        document(&output)
    };
    let saved = folder.path("saved");
    fs::create_dir(&saved).unwrap();
    let file = saved.join("plan.json").display().to_string();
    let planned = [&Cluster::Single.rebuild()[..], &["--dry-run", "--plan-out", &file]].concat();
    ended(&planned, 2);
    ended(&["apply", &file, "--dry-run"], 2);

    let named = |name: &str| {
        let mut state = double.world().state();
        state.vms.get_mut(&VM).unwrap().config.insert("name".to_owned(), name.to_owned());
    };
    named("experiment");
    let told = words(&ended(&["apply", &file, "--confirm", "single"], 4));
    assert!(told.contains("this changed since the plan was made") && told.contains("single-cp-01"), "{told}");
    assert_eq!(double.deeds(), Vec::new());

    // Once all is as it was, a new plan can be carried out, once.
    named("single-cp-01");
    ended(&planned, 2);
    assert_eq!(ended(&["apply", &file, "--confirm", "single"], 0)["outcome"], "done");
    assert_eq!(End::of(&folder, double.site()).await, End::rebuilt(folder.cluster()));
    assert_deeds(&double.deeds(), &plan(&saved));
    let before = double.deeds();
    ended(&["apply", &file, "--confirm", "single"], 4);
    assert_eq!(double.deeds(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_is_given_up_and_made_anew_without_its_data_and_both_runs_are_listed() {
    let folder = Folder::new();
    let double = Double::here(&folder, 100.0).await;
    let run = |args: &[&str]| folder.recast(double.site(), args).output().unwrap();
    let finished = |args: &[&str]| {
        let output = folder.recast(double.site(), args).args(["-o", "json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
        document(&output)
    };

    let down = finished(&["teardown", "--force", "--confirm", "single"]);
    assert_eq!((&down["verb"], &down["backup"]), (&"teardown".into(), &Value::Null), "{down:#}");
    assert_eq!(down["destroyed"].as_array().unwrap().len(), 1);
    let mut files = fs::read_dir(folder.path("cluster/single")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!files.any(|name| name.to_string_lossy().starts_with("etcd-")), "nothing was to be saved");

    let up = finished(&["create", "--confirm", "single"]);
    assert_eq!((&up["verb"], &up["restored"]), (&"create".into(), &Value::Null), "{up:#}");
    let end = End::of(&folder, double.site()).await;
    assert_eq!(end.versions, ["single-cp-01 1.12.4", "kubernetes 1.34.1"]);
    assert_eq!(end.members, ["single-cp-01"]);
    assert!(end.vms.contains(&"1100 single-cp-01 running".to_owned()), "{end:?}");
    let kubeconfig = fs::read_to_string(folder.path("kubeconfig")).unwrap();
    let client = Client::new(&folder.session(double.site()).connector, &kubeconfig.into()).unwrap();
    assert!(!client.exists("/api/v1/namespaces/default/configmaps/seeded-0000").await.unwrap());

    let listed = text(&run(&["runs", "list"]).stdout);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    for told in [&down, &up] {
        let id = told["run"].as_str().unwrap();
        assert!(listed.contains(&format!("{id}  done\n")), "{id}: {listed}");
        let shown = run(&["runs", "show", id]);
        assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
        let shown = text(&shown.stdout);
        assert!(shown.starts_with(&format!("run {id} of single: done\n")), "{shown}");
    }
    assert_eq!(run(&["runs", "show", "2026-01-02T03-04-05"]).status.code(), Some(3));
}
