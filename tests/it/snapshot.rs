//! The snapshot verbs that need no cluster: proving files, listing a folder, pruning it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::site::{Folder, program, repository};
use crate::told::{document, text};

/// A snapshot that a real etcd made.
fn fixture() -> PathBuf {
    repository().join("tests/fixtures/etcd/etcd-3.6.snapshot")
}

const UID: &str = "0b0f7f5e-7a3d-4a3f-9a55-1d1f4f1f2c11";

fn verify(home: &Path, files: &[&Path], json: bool) -> Output {
    let mut command = program(home);
    command.args(["snapshot", "verify"]).args(files);
    if json {
        command.args(["-o", "json"]);
    }
    command.output().unwrap()
}

#[test]
fn verify_proves_files_without_anything_else() {
    let root = tempfile::tempdir().unwrap();
    let done = verify(root.path(), &[&fixture()], false);
    let told = text(&done.stdout);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    for part in
        ["proven", "revision 49, compacted up to 20; 40 keys", "etcd 3.6.0", UID, "hash c39c642c", "total keys 58"]
    {
        assert!(told.contains(part), "no {part:?} in {told}");
    }
    assert_eq!(text(&done.stderr), "");

    let damaged = root.path().join("etcd-final-20261120T224501Z-2026-11-20T22-31-05.snapshot");
    let mut bytes = fs::read(fixture()).unwrap();
    bytes[20_000] ^= 1;
    fs::write(&damaged, &bytes).unwrap();
    let missing = root.path().join("missing.snapshot");
    let refused = verify(root.path(), &[&damaged, &fixture(), &missing], true);
    assert_eq!(refused.status.code(), Some(4));
    let document = document(&refused);
    assert_eq!((&document["verb"], &document["outcome"]), (&"snapshot".into(), &"refused".into()));
    let snapshots = document["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), 3, "all of them are looked at");
    assert_eq!((&snapshots[0]["purpose"], &snapshots[0]["run"]), (&"final".into(), &"2026-11-20T22-31-05".into()));
    assert_eq!((&snapshots[0]["holds"], &snapshots[2]["bytes"]), (&Value::Null, &Value::Null));
    let holds = &snapshots[1]["holds"];
    assert_eq!((&holds["revision"], &holds["keys"], &holds["namespace_uid"]), (&49.into(), &40.into(), &UID.into()));
    let problems = document["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0]["where"], damaged.display().to_string());
    assert!(problems[0]["causes"][0].as_str().unwrap().contains("its SHA-256 is"));
    assert!(text(&refused.stderr).contains("take another snapshot, or use another copy"));

    assert_eq!(
        verify(root.path(), &[&missing], false).status.code(),
        Some(1),
        "a file that can't be read proves nothing"
    );
}

/// Five snapshots of a cluster, the second of which a run needs that isn't done.
struct Kept {
    folder: Folder,
    files: Vec<PathBuf>,
}

impl Kept {
    fn new() -> Self {
        let folder = Folder::new();
        let mut profile = fs::read_to_string(folder.profile()).unwrap();
        profile.push_str("backup:\n  dir: ../backups\n  keep: 2\n");
        fs::write(folder.profile(), profile).unwrap();
        fs::create_dir(folder.path("backups")).unwrap();
        let name = |hour: u32| format!("etcd-manual-20261120T1{hour}0000Z.snapshot");
        let files: Vec<PathBuf> = (0..5).map(|hour| folder.path("backups").join(name(hour))).collect();
        for file in &files {
            fs::copy(fixture(), file).unwrap();
        }
        let run = folder.state().join("elsewhere/runs/2026-11-20T22-31-05");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("plan.json"), format!(r#"{{"restore":"/mnt/{}"}}"#, name(1))).unwrap();
        Self { folder, files }
    }

    fn run(&self, args: &[&str]) -> Output {
        self.folder.recast(Path::new("no-site.yaml"), args).output().unwrap()
    }

    fn there(&self) -> Vec<usize> {
        (0..self.files.len()).filter(|index| self.files[*index].exists()).collect()
    }
}

#[test]
fn list_says_what_is_there_and_who_needs_it() {
    let kept = Kept::new();
    let listed = kept.run(&["snapshot", "list"]);
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
    let lines: Vec<String> = text(&listed.stdout).lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 5);
    assert!(lines[0].contains("T140000Z") && lines[4].contains("T100000Z"), "the newest first: {lines:?}");
    assert!(lines[3].ends_with("49184 bytes  needed by 2026-11-20T22-31-05"), "{}", lines[3]);
    let document = document(&kept.run(&["snapshot", "list", "-o", "json"]));
    assert_eq!(document["snapshots"][3]["needed_by"][0], "2026-11-20T22-31-05");
    assert_eq!(document["snapshots"][0]["taken"], "2026-11-20T14:00:00Z");
}

#[test]
fn prune_takes_the_oldest_but_never_what_is_needed() {
    let kept = Kept::new();
    let dry = kept.run(&["snapshot", "prune", "--dry-run"]);
    assert_eq!((dry.status.code(), kept.there().len()), (Some(2), 5), "{}", text(&dry.stderr));
    assert_eq!(text(&dry.stdout).lines().count(), 2);

    let unasked = kept.run(&["snapshot", "prune"]);
    assert_eq!((unasked.status.code(), kept.there().len()), (Some(4), 5));
    assert!(text(&unasked.stderr).contains("this deletes snapshots and nobody is there to confirm it"));
    let wrong = kept.run(&["snapshot", "prune", "--confirm", "lab"]);
    assert_eq!((wrong.status.code(), kept.there().len()), (Some(4), 5));

    let done = kept.run(&["snapshot", "prune", "--confirm", "single", "-o", "json"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    assert_eq!(kept.there(), [1, 3, 4]);
    assert_eq!(document(&done)["snapshots"].as_array().unwrap().len(), 2);

    let journal = kept.folder.state().join("single/runs/2026-11-21T00-00-00/journal.jsonl");
    fs::create_dir_all(journal.parent().unwrap()).unwrap();
    fs::write(journal, "{\"not\": \"a record\"}\n{}\n").unwrap();
    let unknown = kept.run(&["snapshot", "prune", "--keep", "1", "--confirm", "single"]);
    assert_eq!((unknown.status.code(), kept.there()), (Some(4), vec![1, 3, 4]));
    assert!(text(&unknown.stderr).contains("it isn't known which snapshots runs need"));
}

#[test]
fn prune_wants_to_be_told_how_many() {
    let kept = Kept::new();
    let profile = fs::read_to_string(kept.folder.profile()).unwrap().replace("  keep: 2\n", "");
    fs::write(kept.folder.profile(), profile).unwrap();
    let untold = kept.run(&["snapshot", "prune", "--confirm", "single"]);
    assert_eq!((untold.status.code(), kept.there().len()), (Some(3), 5));
    assert_eq!(kept.run(&["snapshot", "prune", "--keep", "0", "--confirm", "single"]).status.code(), Some(3));
}
