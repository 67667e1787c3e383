//! The clients against a scripted machine, over real TLS.

use std::io;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tonic::Status;

use super::etcd::{Attempt, Bootstrapped, Recovery};
use super::health::{HealthError, Question};
use super::kubeconfig::tests::pack;
use super::maintenance::{Answers, Maintenance, probe};
use super::testing::{Asks, Fake, Script};
use super::{Access, Disk, Extension, Machine, Stage, TalosError};
use crate::net::testing::connector;
use crate::net::{Silent, SpkiPin};

const WITHIN: Duration = Duration::from_secs(5);

async fn in_maintenance(fake: &Fake) -> Maintenance {
    match probe(&connector(), &fake.address, WITHIN).await.unwrap() {
        Answers::Maintenance(machine) => machine,
        Answers::Configured(_) => panic!("it has no config"),
    }
}

fn nocloud() -> Script {
    let link = |kind: &str, mac: &str| {
        format!("index: 2\ntype: ether\nkind: \"{kind}\"\nhardwareAddr: {mac}\npermanentAddr: {mac}\nmtu: 1500\n")
    };
    let extension = |name: &str, version: &str| {
        format!("image: 000.ghcr.io-x.sqsh\nmetadata:\n    name: {name}\n    version: {version}\n    author: x\n")
    };
    let disk = |path: &str, cdrom: bool| {
        format!(
            "dev_path: {path}\nsize: 8388608\nio_size: 512\nreadonly: {cdrom}\ncdrom: {cdrom}\nmodel: QEMU HARDDISK\n"
        )
    };
    Script {
        resources: vec![
            ("LinkStatuses.net.talos.dev", "ens18", link("", "bc:24:11:00:12:01")),
            ("LinkStatuses.net.talos.dev", "bond0", link("bond", "bc:24:11:00:12:09")),
            ("LinkStatuses.net.talos.dev", "lo", "type: loopback\nkind: \"\"\nhardwareAddr: \"\"\n".to_owned()),
            (
                "SystemInformations.hardware.talos.dev",
                "systeminformation",
                "manufacturer: QEMU\nuuid: 6B9D5C3E-0000-4000-8000-000000001201\n".to_owned(),
            ),
            ("ExtensionStatuses.runtime.talos.dev", "1", extension("schematic", &"ab".repeat(32))),
            ("ExtensionStatuses.runtime.talos.dev", "0", extension("qemu-guest-agent", "10.0.2")),
            ("Versions.runtime.talos.dev", "version", "version: v1.12.4\nname: Talos\n".to_owned()),
            ("Disks.block.talos.dev", "sr0", disk("/dev/sr0", true)),
            ("Disks.block.talos.dev", "sda", disk("/dev/sda", false)),
            ("Disks.block.talos.dev", "loop0", disk("/dev/loop0", true)),
            ("SystemDisks.block.talos.dev", "system-disk", "diskID: sda\ndevPath: /dev/sda\n".to_owned()),
            (
                "MachineStatuses.runtime.talos.dev",
                "machine",
                "stage: maintenance\nstatus:\n    ready: true\n    unmetConditions: []\n".to_owned(),
            ),
        ],
        ..Script::default()
    }
}

#[tokio::test]
async fn a_machine_in_maintenance_says_who_it_is() {
    let fake = Fake::start(Asks::Nothing, nocloud()).await;
    let machine = in_maintenance(&fake).await;
    assert_eq!(Some(machine.pin()), SpkiPin::of(&fake.certificate));
    let facts = machine.facts().await.unwrap();
    let links: Vec<_> = facts.links.iter().map(|link| (link.name.as_str(), link.mac.to_string())).collect();
    assert_eq!(links, [("ens18", "BC:24:11:00:12:01".to_owned())]);
    assert_eq!(facts.uuid.as_deref(), Some("6b9d5c3e-0000-4000-8000-000000001201"));
    assert_eq!(facts.extensions.schematic.unwrap().as_str(), "ab".repeat(32));
    let agent = Extension { name: "qemu-guest-agent".to_owned(), version: "10.0.2".to_owned() };
    assert_eq!(facts.extensions.installed, [agent]);
    assert_eq!(facts.version.unwrap().tag(), "v1.12.4");
    let disks: Vec<_> =
        facts.disks.iter().map(|Disk { path, cdrom, system, .. }| (path.as_str(), *cdrom, *system)).collect();
    assert_eq!(disks, [("/dev/sda", false, true), ("/dev/sr0", true, false)]);
    assert_eq!(facts.status.unwrap().stage, Stage::Maintenance);
}

#[tokio::test]
async fn before_1_10_a_machine_in_maintenance_may_not_tell_its_version() {
    let fake = Fake::start(Asks::Nothing, Script::default()).await;
    assert_eq!(in_maintenance(&fake).await.version().await.unwrap(), None);
    let fake = Fake::start(Asks::Nothing, Script { tag: Some("v1.13.9"), ..Script::default() }).await;
    assert_eq!(in_maintenance(&fake).await.version().await.unwrap().unwrap().tag(), "v1.13.9");
}

#[tokio::test]
async fn a_machine_with_another_key_than_it_was_probed_with_gets_no_config() {
    let fake = Fake::start(Asks::Nothing, Script::default()).await;
    let (address, machine) = (fake.address.clone(), in_maintenance(&fake).await);
    fake.stop().await;
    let other = Fake::start_at(&address, Asks::Nothing, Script::default()).await;
    let error = machine.apply(&SecretString::from("machine: {}")).await.unwrap_err();
    let TalosError::PinChanged { expected, found, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*expected, machine.pin().to_string());
    assert_eq!(*found, SpkiPin::of(&other.certificate).unwrap().to_string());
    assert!(!error.may_have_arrived());
    assert!(other.script.applied.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_configured_machine_is_told_from_one_in_maintenance() {
    let fake = Fake::start(Asks::Certificate, Script::default()).await;
    let found = probe(&connector(), &fake.address, WITHIN).await.unwrap();
    assert!(matches!(found, Answers::Configured(seen) if Some(seen.spki) == SpkiPin::of(&fake.certificate)));
    let pin = SpkiPin::of(&fake.certificate).unwrap();
    let pinned = Maintenance::pinned(&connector(), &fake.address, pin, WITHIN).unwrap();
    let error = pinned.status().await.unwrap_err();
    // The verdict can be lost in a reset; either says that it is worth another look.
    assert!(matches!(error, TalosError::NeedsCertificate { .. } | TalosError::Cut { .. }), "{error:?}");
    let (address, access) = (fake.address.clone(), fake.access());
    fake.stop().await;
    let gone = probe(&connector(), &address, WITHIN).await.unwrap_err();
    assert!(matches!(gone, TalosError::Unreachable { .. }), "{gone:?}");
    let machine = Machine::new(&connector(), &address, &access, WITHIN).unwrap();
    let gone = machine.release().await.unwrap_err();
    assert!(matches!(gone, TalosError::Unreachable { .. }) && !gone.may_have_arrived(), "{gone:?}");
}

#[tokio::test]
async fn a_dry_run_says_so_and_the_mode_is_always_auto() {
    let fake = Fake::start(Asks::Nothing, Script::default()).await;
    let machine = in_maintenance(&fake).await;
    let config = SecretString::from("machine: {}");
    assert_eq!(machine.validate(&config).await.unwrap().warnings, ["a warning"]);
    machine.apply(&config).await.unwrap();
    let applied: Vec<_> =
        fake.script.applied.lock().unwrap().iter().map(|request| (request.dry_run, request.mode)).collect();
    assert_eq!(applied, [(true, 1), (false, 1)]);
    let refused = machine.validate(&SecretString::from("bad")).await.unwrap_err();
    assert!(matches!(&refused, TalosError::Rejected { reason, .. } if reason.starts_with("failed to parse")));
}

#[tokio::test]
async fn mutual_tls_works_with_talos_key_label_and_only_with_the_clusters_authority() {
    let script = || Script { tag: Some("v1.13.9"), ..Script::default() };
    let (ours, theirs) =
        tokio::join!(Fake::start(Asks::Certificate, script()), Fake::start(Asks::Certificate, script()));
    let release = ours.machine().release().await.unwrap();
    assert_eq!((release.version.tag().as_str(), release.platform.as_str()), ("v1.13.9", "nocloud"));
    let lost = Machine::new(&connector(), &ours.address, &theirs.access(), WITHIN).unwrap();
    let error = lost.release().await.unwrap_err();
    assert!(matches!(error, TalosError::WrongCertificate { .. }), "{error:?}");
    // The right authority with somebody else's client certificate.
    let mixed = Access { trust: ours.access().trust, identity: theirs.access().identity };
    let error = Machine::new(&connector(), &ours.address, &mixed, WITHIN).unwrap().release().await.unwrap_err();
    assert!(matches!(error, TalosError::NotAuthorized { .. } | TalosError::Cut { .. }), "{error:?}");
    let refusing = Fake::start(Asks::Certificate, Script { refuses: true, ..script() }).await;
    let error = refusing.machine().release().await.unwrap_err();
    assert!(matches!(&error, TalosError::NotAuthorized { reason, .. } if reason == "not authorized"), "{error:?}");
}

fn bootstraps(answers: impl IntoIterator<Item = Option<Result<(), Status>>>) -> Script {
    Script { bootstraps: std::sync::Mutex::new(answers.into_iter().collect()), ..Script::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "it is an entry of the script like the others")]
fn exists() -> Option<Result<(), Status>> {
    Some(Err(Status::already_exists("etcd data directory is not empty")))
}

#[tokio::test]
async fn bootstrap_repeats_while_the_machine_is_not_ready() {
    let early = || Some(Err(Status::failed_precondition("time is not in sync yet")));
    let fake = Fake::start(Asks::Certificate, bootstraps([early(), early(), Some(Ok(()))])).await;
    let done = fake.machine().bootstrap(Recovery::Database, Attempt::First, Duration::from_secs(20)).await.unwrap();
    assert_eq!(done, Bootstrapped::Now);
    let asked = fake.script.bootstrapped.lock().unwrap();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| request.recover_etcd && request.recover_skip_hash_check));
}

#[tokio::test]
async fn data_that_are_there_already_count_only_when_an_attempt_of_ours_may_have_made_them() {
    let lost = || Some(Err(Status::unavailable("error reading from server: EOF")));
    let early = || Some(Err(Status::failed_precondition("bootstrap is not available yet")));
    let within = Duration::from_secs(20);
    let fake = Fake::start(Asks::Certificate, bootstraps([early(), exists()])).await;
    let error = fake.machine().bootstrap(Recovery::Fresh, Attempt::First, within).await.unwrap_err();
    assert!(matches!(error, TalosError::AlreadyExists { .. }), "{error:?}");
    let fake = Fake::start(Asks::Certificate, bootstraps([lost(), exists()])).await;
    let done = fake.machine().bootstrap(Recovery::Fresh, Attempt::First, within).await.unwrap();
    assert_eq!(done, Bootstrapped::Before);
    let fake = Fake::start(Asks::Certificate, bootstraps([exists()])).await;
    let done = fake.machine().bootstrap(Recovery::Fresh, Attempt::Repeated, within).await.unwrap();
    assert_eq!(done, Bootstrapped::Before);
}

#[tokio::test]
async fn a_bootstrap_that_cannot_work_is_asked_for_once() {
    let worker = Status::unimplemented("bootstrap is only available on control plane nodes");
    let fake = Fake::start(Asks::Certificate, bootstraps([Some(Err(worker))])).await;
    let error = fake.machine().bootstrap(Recovery::Fresh, Attempt::First, WITHIN).await.unwrap_err();
    assert!(matches!(error, TalosError::Unimplemented { .. }), "{error:?}");
}

#[tokio::test]
async fn silence_to_a_bootstrap_is_an_attempt_that_may_have_arrived() {
    let fake = Fake::start(Asks::Certificate, bootstraps([None])).await;
    let short = Duration::from_millis(300);
    let error = fake.machine().bootstrap(Recovery::Fresh, Attempt::First, short).await.unwrap_err();
    assert!(matches!(error, TalosError::NoAnswer { .. }) && error.may_have_arrived(), "{error:?}");
}

#[tokio::test]
async fn the_kubeconfig_comes_out_of_its_unfinished_archive() {
    let text = "apiVersion: v1\nkind: Config\n";
    let fake = Fake::start(Asks::Certificate, Script { packed: pack(text, text.len()), ..Script::default() }).await;
    assert_eq!(fake.machine().kubeconfig().await.unwrap().expose_secret(), text);
}

#[tokio::test]
async fn a_snapshot_is_counted_and_a_break_in_the_middle_is_an_error() {
    let script = |ends| Script { bytes: vec![b"abc", b"de"], ends, ..Script::default() };
    let fake = Fake::start(Asks::Certificate, script(None)).await;
    let mut got = Vec::new();
    let stream = fake.machine().etcd_snapshot().await.unwrap();
    let total = stream
        .pour(&Silent, async |chunk| {
            got.extend_from_slice(&chunk);
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!((total, got.as_slice()), (5, b"abcde".as_slice()));
    let fake = Fake::start(Asks::Certificate, script(Some(Status::unavailable("gone")))).await;
    let stream = fake.machine().etcd_snapshot().await.unwrap();
    let error = stream.pour(&Silent, async |_| Ok(())).await.unwrap_err();
    assert!(matches!(error, super::PourError::Talos(TalosError::Cut { .. })), "{error:?}");
}

#[tokio::test]
async fn a_snapshot_goes_up_whole_or_not_at_all() {
    let fake = Fake::start(Asks::Certificate, Script::default()).await;
    let snapshot = vec![7_u8; 1_000_000];
    let mut uploads = fake.script.recovered.subscribe();
    fake.machine().etcd_recover(snapshot.as_slice(), &Silent).await.unwrap();
    let whole = uploads.wait_for(Option::is_some).await.unwrap().clone();
    assert!(whole == Some((snapshot, true)));
    fake.script.recovered.send_replace(None);
    let error = fake.machine().etcd_recover(breaking(), &Silent).await.unwrap_err();
    assert!(matches!(error, TalosError::Source { .. }), "{error:?}");
    // The machine hears a reset, never an end.
    let (_, whole) = uploads.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(!whole);
}

/// More than is ever under way at once, then an error.
fn breaking() -> impl tokio::io::AsyncRead + Unpin {
    let parts = [Ok(bytes::Bytes::from(vec![7; 8 << 20])), Err(io::Error::other("the disk broke"))];
    tokio_util::io::StreamReader::new(futures_util::stream::iter(parts))
}

#[tokio::test]
async fn the_health_check_tells_its_lines_and_what_it_stood_at() {
    let question =
        Question { control_planes: vec!["10.0.0.11".to_owned()], workers: Vec::new(), within: Duration::from_secs(5) };
    let lines = vec!["discovered nodes: [\"10.0.0.11\"]", "waiting for etcd to be healthy: OK"];
    let fake = Fake::start(Asks::Certificate, Script { health: lines, ..Script::default() }).await;
    let mut heard = Vec::new();
    fake.machine().check_health(&question, |line| heard.push(line.to_string())).await.unwrap();
    assert_eq!(heard, ["discovered nodes: [\"10.0.0.11\"]", "etcd to be healthy: OK"]);
    let health = vec!["waiting for kubelet to be healthy: context deadline exceeded"];
    let ends = Some(Status::deadline_exceeded("context deadline exceeded"));
    let fake = Fake::start(Asks::Certificate, Script { ends, health, ..Script::default() }).await;
    let error = fake.machine().check_health(&question, |_| ()).await.unwrap_err();
    assert!(
        matches!(&error, HealthError::Unhealthy { last } if last.starts_with("kubelet to be healthy")),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_boot_id_must_be_whole() {
    let id = b"5b4f7c9e-23e0-4c53-8f0a-9d4ff6f7f001\n";
    let fake = Fake::start(Asks::Certificate, Script { bytes: vec![id], ..Script::default() }).await;
    assert_eq!(fake.machine().boot_id().await.unwrap(), "5b4f7c9e-23e0-4c53-8f0a-9d4ff6f7f001");
    let cut = Fake::start(Asks::Certificate, Script { bytes: vec![&id[..9]], ..Script::default() }).await;
    assert!(matches!(cut.machine().boot_id().await.unwrap_err(), TalosError::Answer { .. }));
}

#[tokio::test]
async fn a_config_comes_with_all_its_documents() {
    let config = "version: v1alpha1\nmachine:\n    type: worker\n---\nkind: HostnameConfig\n";
    let resources = vec![("MachineConfigs.config.talos.dev", "v1alpha1", config.to_owned())];
    let fake = Fake::start(Asks::Certificate, Script { resources, ..Script::default() }).await;
    assert_eq!(fake.machine().config().await.unwrap().unwrap().expose_secret(), config);
    let empty = vec![("MachineConfigs.config.talos.dev", "v1alpha1", String::new())];
    let fake = Fake::start(Asks::Certificate, Script { resources: empty, ..Script::default() }).await;
    assert!(matches!(fake.machine().config().await.unwrap_err(), TalosError::Answer { .. }));
}
