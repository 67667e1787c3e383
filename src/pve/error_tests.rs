//! The answers of real servers (8.4 unless said otherwise), and what they must be understood as.

use super::error::{Missing, PveError, Reply};
use crate::types::VmId;

/// A variant's name and what matters in it, for tables.
fn shape(error: &PveError) -> String {
    match error {
        PveError::NotFound { what, .. } => format!("not found: {what}"),
        PveError::Locked { lock, .. } => format!("locked: {}", lock.as_deref().unwrap_or("now")),
        PveError::AlreadyExists { .. } => "already exists".to_owned(),
        PveError::Running { .. } => "running".to_owned(),
        PveError::NotRunning { .. } => "not running".to_owned(),
        PveError::Protected { .. } => "protected".to_owned(),
        PveError::InUse { .. } => "in use".to_owned(),
        PveError::Forbidden { path, privileges, .. } => {
            format!("forbidden: {} {}", path.as_deref().unwrap_or("-"), privileges.join("|"))
        }
        PveError::Unauthorized { .. } => "unauthorized".to_owned(),
        PveError::Invalid { errors, .. } => {
            format!("invalid: {}", errors.keys().cloned().collect::<Vec<_>>().join(","))
        }
        PveError::DigestMismatch { .. } => "digest".to_owned(),
        PveError::StorageFull { .. } => "full".to_owned(),
        PveError::NoQuorum { .. } => "no quorum".to_owned(),
        PveError::NodeDown { status, .. } => format!("node down: {status}"),
        PveError::Other { status, .. } => format!("other: {status}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn texts_of_refusals_are_understood() {
    let table = [
        // Not found is 500.
        ("Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist", "not found: VM 999"),
        ("Configuration file 'nodes/pve1/lxc/100.conf' does not exist", "not found: VM 100"),
        ("unable to find configuration file for VM 999 on node 'pve1'", "not found: VM 999"),
        ("could not find target VM 998", "not found: VM 998"),
        ("storage 'nosuch' does not exist", "not found: storage nosuch"),
        ("delete storage failed: storage 'isoonly' does not exist", "not found: storage isoonly"),
        ("snapshot 'nosuch' does not exist", "not found: snapshot nosuch"),
        ("disk 'scsi9' does not exist", "not found: disk scsi9"),
        ("pool 'nosuch' does not exist", "not found: pool nosuch"),
        ("update pools failed: pool 'nosuch' does not exist", "not found: pool nosuch"),
        ("no such cluster node 'nosuch'", "not found: node nosuch"),
        ("no such resource 'vm:100'", "not found: HA resource vm:100"),
        ("cannot delete service 'vm:100', not HA managed!", "not found: HA resource vm:100"),
        (
            "hostname lookup 'nosuch' failed - failed to get address info for: nosuch: Name or service not known",
            "not found: node nosuch",
        ),
        // These mention absence, but of something else, or prove nothing.
        (
            "unable to create VM 102 - volume 'vmstore:102/vm-102-disk-9.qcow2' does not exist",
            "not found: volume vmstore:102/vm-102-disk-9.qcow2",
        ),
        ("create pool failed: parent 'nosuch' of pool 'nosuch/sub' does not exist", "other: 500"),
        ("ACL update failed: role 'NoSuchRole' does not exist", "other: 500"),
        ("unable to create VM 113 - failed to stat '/var/lib/vmstore/import/nosuch.qcow2'", "other: 500"),
        ("volume_size_info on 'vmstore:import/nosuch.qcow2' failed - no format", "other: 500"),
        ("Agent error: failed to open file '/no/such' (mode: 'r'): No such file or directory", "other: 500"),
        ("storage 'local-lvm' is not available on node 'pve2'", "other: 500"),
        // Locks of the configuration, and locks that pass.
        ("VM is locked (backup)", "locked: backup"),
        ("can't lock file '/var/lock/qemu-server/lock-100.conf' - got timeout", "locked: now"),
        ("cfs-lock 'storage-ceph' error: got lock request timeout", "locked: now"),
        // Taken.
        ("unable to create VM 101 - VM 101 already exists on node 'pve1'", "already exists"),
        ("unable to create VM 100 - CT 100 already exists on node 'pve1'", "already exists"),
        ("unable to create VM 110: config file already exists", "already exists"),
        ("create pool failed: pool 'ci' already exists", "already exists"),
        ("create storage failed: storage ID 'st2' already defined", "already exists"),
        ("create resource failed: resource ID 'vm:100' already defined", "already exists"),
        ("disk image '/var/lib/vmstore/images/777/vm-777-disk-0.qcow2' already exists", "already exists"),
        // Power.
        ("VM 100 is running - destroy failed", "running"),
        ("VM 100 already running", "running"),
        ("you can't convert a VM to template if VM is running", "running"),
        ("VM 100 not running", "not running"),
        ("VM 101 is not running", "not running"),
        ("QEMU guest agent is not running", "other: 500"),
        ("VM quit/powerdown failed - got timeout", "other: 500"),
        // Protection, linked clones, digests, room.
        ("can't remove VM 100 - protection mode enabled", "protected"),
        ("can't remove drive 'scsi0' - protection mode enabled", "protected"),
        ("base volume 'vmstore:101/base-101-disk-0.qcow2' is still in use by linked cloned", "in use"),
        ("base volume '101/base-101-disk-0.qcow2' is still in use by linked clones", "in use"),
        ("checksum mismatch (file change by other user?)", "digest"),
        ("checksum missmatch (file change by other user?)", "digest"),
        ("VM 101: detected modified configuration - file changed by other user? Try again.", "digest"),
        ("checksum mismatch: got 'de20' != expect '0000'", "other: 500"),
        ("cp: error writing '/var/lib/vz/import/x.raw': No space left on device", "full"),
        ("cluster not ready - no quorum?", "no quorum"),
        ("no options specified", "other: 500"),
    ];
    for (text, meant) in table {
        // The body of 8.4 repeats the text with a line break; 7.4 has only the reason phrase.
        let body = serde_json::json!({ "data": null, "message": format!("{text}\n") }).to_string();
        let old = Reply { status: 500, reason: text, body: br#"{"data":null}"# };
        for reply in [Reply { status: 500, reason: text, body: body.as_bytes() }, old] {
            let error = PveError::from_reply(reply);
            assert_eq!(shape(&error), meant, "{text}");
            assert_eq!(error.reason(), Some(text));
        }
    }
}

#[test]
fn statuses_and_bodies_are_understood() {
    let verification = "Parameter verification failed.";
    let table: [(u16, &str, &str, &str); 16] = [
        (401, "No ticket", "", "unauthorized"),
        (401, "Permission denied - invalid csrf token", "", "unauthorized"),
        (401, "authentication failure", r#"{"data":null,"message":"authentication failure\n"}"#, "unauthorized"),
        (403, "Permission check failed (/vms/100, VM.Audit)", "", "forbidden: /vms/100 VM.Audit"),
        (
            403,
            "Permission check failed (/storage/vmstore, Datastore.AllocateSpace|Datastore.Audit)",
            r#"{"data":null,"message":"Permission check failed (/storage/vmstore, Datastore.AllocateSpace|Datastore.Audit)\n"}"#,
            "forbidden: /storage/vmstore Datastore.AllocateSpace|Datastore.Audit",
        ),
        (403, "Permission check failed (/, Sys.Modify for modifying tag 'x')", "", "forbidden: / Sys.Modify"),
        (403, "Permission check failed (, Pool.Allocate)", "", "forbidden: - "),
        (403, "Permission check failed", "", "forbidden: - "),
        (403, "Permission check failed (pool 'nosuch' does not exist)", "", "not found: pool nosuch"),
        (400, verification, r#"{"data":null,"errors":{"upid":"no such task"}}"#, "not found: the task"),
        (400, verification, r#"{"data":null,"errors":{"vmid":"VM 100 already exists"}}"#, "already exists"),
        (400, verification, r#"{"data":null,"errors":{"name":"x","cores":"y"}}"#, "invalid: cores,name"),
        (400, "Bad Request", "", "other: 400"),
        (501, "chunked transfer encoding not supported", "chunked transfer encoding not supported", "other: 501"),
        (595, "No route to host", "", "node down: 595"),
        (596, "Broken pipe", "", "node down: 596"),
    ];
    for (status, reason, body, meant) in table {
        let error = PveError::from_reply(Reply { status, reason, body: body.as_bytes() });
        assert_eq!(shape(&error), meant, "{status} {reason}");
    }
}

#[test]
fn display_is_for_people_and_absence_is_of_the_vm_that_was_asked_for() {
    let reply =
        |status, reason, body: &'static str| PveError::from_reply(Reply { status, reason, body: body.as_bytes() });
    let forbidden = reply(403, "Permission check failed (/vms/100, VM.Clone|VM.Audit)", "");
    assert_eq!(forbidden.to_string(), "needs VM.Clone or VM.Audit on /vms/100");
    let invalid = reply(400, "Parameter verification failed.", r#"{"errors":{"scsi0":"invalid format\n"}}"#);
    assert_eq!(invalid.to_string(), "scsi0: invalid format");
    let gone = reply(500, "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist", "");
    assert!(gone.is_missing_vm(VmId(999)) && !gone.is_missing_vm(VmId(99)));
    assert!(matches!(gone, PveError::NotFound { what: Missing::Vm(VmId(999)), .. }));
}

#[derive(serde::Deserialize)]
struct Recorded {
    status: Option<u16>,
    reason: Option<String>,
    #[serde(default)]
    body: serde_json::Value,
    exit: Option<String>,
    meant: String,
}

#[test]
fn recorded_refusals_and_exit_texts_are_understood() {
    let lines = include_str!("../../tests/fixtures/pve/refusals.jsonl").lines();
    let recorded: Vec<Recorded> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(recorded.len() > 100);
    for Recorded { status, reason, body, exit, meant } in recorded {
        let error = match (status, &reason, exit) {
            (Some(status), Some(reason), None) => {
                let body = body.to_string();
                PveError::from_reply(Reply { status, reason, body: body.as_bytes() })
            }
            (None, None, Some(exit)) => PveError::from_text(500, exit),
            other => panic!("{other:?}"),
        };
        assert_eq!(shape(&error), meant, "{error:?}");
    }
}
