//! A real etcd of this machine against this reader: the same facts, the same numbers, and it takes what we made.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::kubernetes::stored_namespace;
use super::proof::{examine, examine_database};
use super::testing::{UID, name};
use super::{Trailer, append_trailer, prove};

/// Whether etcd and its client are here; says so when they aren't.
fn is_here() -> bool {
    real_parts::is_here("etcd", "--version") && real_parts::is_here("etcdctl", "version")
}

/// A running etcd with one member; ends with the value.
struct Etcd {
    child: Child,
    client: String,
    data: PathBuf,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Etcd {
    /// On ports that were free a moment ago: another try where somebody else took one since.
    fn start(data: &Path) -> Self {
        for _ in 0..5 {
            let (client, peer) =
                (format!("http://127.0.0.1:{}", free_port()), format!("http://127.0.0.1:{}", free_port()));
            let child = Command::new("etcd")
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap())
                .env("ETCD_UNSUPPORTED_ARCH", std::env::consts::ARCH.replace("aarch64", "arm64"))
                .args(["--name", "cp-1", "--data-dir"])
                .arg(data)
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &format!("cp-1={peer}"), "--unsafe-no-fsync"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut etcd = Self { child, client, data: data.to_owned() };
            let until = Instant::now() + Duration::from_mins(1);
            while Instant::now() < until && etcd.child.try_wait().unwrap().is_none() {
                if etcd.command(&["endpoint", "health"]).output().unwrap().status.success() {
                    return etcd;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        panic!("etcd does not start");
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = client(args);
        command.arg(format!("--endpoints={}", self.client));
        command
    }

    fn ctl(&self, args: &[&str]) -> String {
        output(&mut self.command(args), b"")
    }

    fn put(&self, key: &str, value: &[u8]) {
        output(&mut self.command(&["put", key]), value);
    }

    /// Puts many keys, 100 in a transaction.
    fn put_many(&self, keys: impl Iterator<Item = (String, String)>) {
        let lines: Vec<String> = keys.map(|(key, value)| format!("put {key} {value}\n")).collect();
        for some in lines.chunks(100) {
            let transaction = format!("\n{}\n\n", some.concat());
            assert!(output(&mut self.command(&["txn"]), transaction.as_bytes()).contains("SUCCESS"));
        }
    }

    /// How many keys live.
    fn count(&self) -> u64 {
        let fields = self.ctl(&["get", "", "--from-key", "--limit=1", "--write-out=fields"]);
        let count = fields.lines().find_map(|line| line.strip_prefix("\"Count\" : ")).unwrap();
        count.parse().unwrap()
    }

    fn revision(&self) -> i64 {
        let status: Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "--write-out=json"])).unwrap();
        status[0]["Status"]["header"]["revision"].as_i64().unwrap()
    }

    fn snapshot(&self, folder: &Path, second: i64) -> PathBuf {
        let path = folder.join(name(second).to_string());
        self.ctl(&["snapshot", "save", path.to_str().unwrap()]);
        path
    }

    /// Ends it like a power cut, and leaves its database file.
    fn stop(self) -> PathBuf {
        self.data.join("member/snap/db")
    }
}

fn client(args: &[&str]) -> Command {
    let mut command = Command::new("etcdctl");
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("ETCDCTL_API", "3").args(args);
    command
}

fn output(command: &mut Command, input: &[u8]) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// `etcdctl snapshot status` of a file.
fn status(path: &Path) -> Value {
    let told = output(&mut client(&["snapshot", "status", path.to_str().unwrap(), "--write-out=json"]), b"");
    serde_json::from_str(&told).unwrap()
}

/// Both say the same of a file.
fn assert_agreed(path: &Path) {
    let (ours, theirs) = (examine(path).unwrap(), status(path));
    assert_eq!(theirs["hash"], ours.contents.hash);
    assert_eq!(theirs["revision"], ours.contents.newest);
    assert_eq!(theirs["totalKey"], ours.contents.entries);
    assert_eq!(theirs["totalSize"], ours.database_bytes);
}

#[test]
fn a_real_etcd_with_history_deletes_leases_and_big_values() {
    if !is_here() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(&root.path().join("data"));
    assert_agreed(&etcd.snapshot(root.path(), 0));

    etcd.put("/registry/namespaces/kube-system", &stored_namespace(UID));
    let key = |index: usize| format!("/registry/configmaps/default/map-{index}");
    etcd.put_many((0..2000).map(|index| (key(index), "x".repeat(index % 300 + 1))));
    etcd.put_many((0..1000).map(|index| (key(index * 2), format!("second-{index}"))));
    for index in 0..20 {
        etcd.ctl(&["del", &key(index * 7)]);
    }
    let lease = etcd.ctl(&["lease", "grant", "86400"]);
    let lease = lease.split_whitespace().nth(1).unwrap();
    etcd.ctl(&["put", &format!("--lease={lease}"), "/registry/leases/kube-node-lease/cp-1", "held"]);
    etcd.put("/registry/secrets/default/big", &vec![b'b'; 1_000_000]);
    etcd.put("/registry/secrets/default/page", &[b'p'; 4096]);
    let full = etcd.snapshot(root.path(), 1);
    assert_agreed(&full);
    let found = examine(&full).unwrap();
    assert_eq!((found.proof.keys, found.proof.revision), (etcd.count(), etcd.revision()));
    assert_eq!(found.proof.namespace_uid.as_deref(), Some(UID));
    assert_eq!((found.proof.trailer, found.contents.leases), (Trailer::Etcd, 1));
    assert_eq!(found.contents.members, ["cp-1"]);
    assert!(found.proof.consistent_index.is_some_and(|index| index > 0));
    assert!(found.proof.cluster_version.is_some());

    let compacted = found.proof.revision - 5;
    etcd.ctl(&["compact", &compacted.to_string(), "--physical"]);
    etcd.ctl(&["del", "/registry/configmaps/default/map-1"]);
    etcd.put("/registry/configmaps/default/map-5000", b"last");
    let smaller = etcd.snapshot(root.path(), 2);
    assert_agreed(&smaller);
    let found = examine(&smaller).unwrap();
    assert_eq!((found.proof.keys, found.proof.revision), (etcd.count(), etcd.revision()));
    assert_eq!(found.contents.compacted, compacted);

    // Deleted and compacted to the end: what etcd goes on from is no record's revision any more.
    etcd.ctl(&["del", "", "--from-key"]);
    let end = etcd.revision();
    etcd.ctl(&["compact", &end.to_string(), "--physical"]);
    let proof = prove(&etcd.snapshot(root.path(), 3)).unwrap();
    assert_eq!((proof.keys, proof.revision, proof.namespace_uid), (0, end, None));
}

#[test]
fn etcd_restores_what_recast_closed() {
    if !is_here() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let etcd = Etcd::start(&root.path().join("data"));
    etcd.put("/registry/namespaces/kube-system", &stored_namespace(UID));
    etcd.put_many((0..300).map(|index| (format!("/registry/configmaps/default/map-{index}"), "x".repeat(200))));
    // A snapshot makes etcd write what it holds back for its next batch.
    let snapshot = etcd.snapshot(root.path(), 1);
    let (keys, revision) = (etcd.count(), etcd.revision());
    let file = root.path().join(name(2).to_string());
    fs::copy(etcd.stop(), &file).unwrap();
    assert_eq!(examine_database(&file).unwrap().keys, keys);
    append_trailer(&file).unwrap();
    let proof = prove(&file).unwrap();
    assert_eq!((proof.trailer, proof.keys, proof.revision), (Trailer::Ours, keys, revision));
    assert_agreed(&file);

    for (path, data) in [(snapshot, "from-snapshot"), (file.clone(), "from-file")] {
        let data = root.path().join(data);
        output(
            client(&["snapshot", "restore", path.to_str().unwrap(), "--name=cp-1"])
                .args(["--initial-cluster=cp-1=http://127.0.0.1:1", "--initial-advertise-peer-urls=http://127.0.0.1:1"])
                .arg(format!("--data-dir={}", data.display())),
            b"",
        );
        let restored = Etcd::start(&data);
        assert_eq!((restored.count(), restored.revision()), (keys, revision));
        restored.put("/registry/configmaps/default/after", b"it takes writes");
        let later = restored.snapshot(root.path(), if data.ends_with("from-file") { 3 } else { 4 });
        assert_agreed(&later);
        assert_eq!(prove(&later).unwrap().revision, revision + 1);
    }

    // Its check of the hash is on: one bit, and it refuses.
    let mut bytes = fs::read(&file).unwrap();
    bytes[9000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let refused = client(&["snapshot", "restore", file.to_str().unwrap()])
        .arg(format!("--data-dir={}", root.path().join("refused").display()))
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(prove(&file).is_err());
}
