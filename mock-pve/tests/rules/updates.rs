//! What an update of a config takes, and what it refuses in which words; who sees what of others.

use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Site, VMS};

#[tokio::test(flavor = "multi_thread")]
async fn values_are_taken_apart_as_by_the_original() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    let config = format!("{VMS}/100/config");
    let unknown = "VM-specific CPU flags must be a subset of: pcid, spec-ctrl";
    let wrong = [
        ("agent", "yes", "agent.enabled: type check ('boolean') failed - got 'yes'"),
        ("agent", "1,0", "duplicate key in comma-separated list property: enabled"),
        ("cpu", "custom-none", "Custom cputype 'none' not found"),
        ("cpu", "flags=+aes", "CPU is missing cputype"),
        ("cpu", "host,flags=+nonsense", unknown),
        ("cpu", "nonsense,phys-bits=7", "cpu.phys-bits: invalid format - value must be an integer between 8 and 64"),
        ("net0", "virtio,virtio=02:00:00:00:00:01", "key alias 'model' is already defined"),
        ("scsi1", "32", "unable to parse volume ID '32'"),
        ("bootdisk", "efidisk1", "invalid boot disk 'efidisk1'"),
        ("startup", "0", "unable to parse startup options"),
    ];
    for (key, value, text) in wrong {
        let (status, _, body) = site.ask("PUT", &config, &[(key, value)]).await;
        let found = body["errors"][key].as_str().unwrap_or_default();
        assert!(status == 400 && found.contains(text), "{key}={value}: {status} {body}");
    }
    let (status, reason, _) = site.ask("PUT", &config, &[("scsi1", "local-lvm:1,media=cdrom")]).await;
    assert_eq!((status, reason.as_str()), (500, "unable to parse lvm volume name '1'"));
    let both = [("cores", "2"), ("delete", "cores"), ("revert", "cores")];
    let (_, _, body) = site.ask("PUT", &config, &both).await;
    assert_eq!(body["errors"]["delete"], "you can't use '-cores' and -revert cores' at the same time");
    let (_, _, body) = site.ask("PUT", &config, &[("delete", "scsi31")]).await;
    assert_eq!(body["errors"]["delete"], "unknown option 'scsi31'");
    let (status, reason, _) = site.ask("PUT", &config, &[("delete", "parent")]).await;
    assert_eq!((status, reason.as_str()), (500, "only root can set 'parent' config"));
    site.fine("PUT", &config, &[("net0", "virtio=02:00:00:00:00:01,bridge=vmbr0,firewall=On")]).await;
    assert_eq!(site.config(100, false).await["net0"], "virtio=02:00:00:00:00:01,bridge=vmbr0,firewall=1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_vm_takes_no_more_processors_than_it_may_have() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("cores", "4"), ("vcpus", "2"), ("hotplug", "cpu,memory")]).await;
    let (end, _) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, "NUMA needs to be enabled for memory hotplug");
    let config = format!("{VMS}/100/config");
    site.fine("PUT", &config, &[("numa", "1")]).await;
    let (end, _) = site.task("POST", &format!("{VMS}/100/status/start"), &[]).await;
    assert_eq!(end, "minimum memory must be 1024MB");
    site.fine("PUT", &config, &[("memory", "2048")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    let (status, _, body) = site.ask("PUT", &config, &[("vcpus", "5")]).await;
    assert_eq!(
        (status, &body["errors"]["vcpus"]),
        (400, &json!("hotplug problem - you can't add more vcpus than maxcpus\n"))
    );
    site.fine("PUT", &config, &[("vcpus", "4"), ("memory", "4096")]).await;
    let now = site.config(100, true).await;
    assert_eq!((&now["vcpus"], &now["memory"]), (&json!(4), &json!("4096")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_a_suspended_vm_goes_with_its_lock() {
    let site = Site::begin(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "local-lvm:1")]).await;
    site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
    site.done("POST", &format!("{VMS}/100/status/suspend"), &[("todisk", "1")]).await;
    let config = format!("{VMS}/100/config");
    let (_, reason, _) = site.ask("PUT", &config, &[("cores", "2")]).await;
    assert_eq!(reason, "VM is locked (suspended)");
    let before = site.config(100, true).await;
    assert!(before["vmstate"].is_string() && before["runningmachine"].is_string(), "{before}");
    site.fine("PUT", &config, &[("delete", "vmstate")]).await;
    let after = site.config(100, true).await;
    for key in ["vmstate", "lock", "runningmachine", "runningcpu"] {
        assert_eq!(after[key], Value::Null, "{key}: {after}");
    }
    let content = site.fine("GET", "/nodes/pve1/storage/local-lvm/content", &[]).await;
    assert!(!content.to_string().contains("state-suspend"), "{content}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_kept_as_its_sum() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.log_in("root@pam", "secret").await;
    site.done("POST", VMS, &[("vmid", "100"), ("ide2", "local-lvm:cloudinit")]).await;
    site.fine("PUT", &format!("{VMS}/100/config"), &[("cipassword", "open-sesame")]).await;
    assert_eq!(site.config(100, false).await["cipassword"], "**********");
    let dump = site.fine("GET", &format!("{VMS}/100/cloudinit/dump"), &[("type", "user")]).await;
    let text = dump.as_str().unwrap();
    assert!(text.contains("password: $5$") && !text.contains("open-sesame"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_be_seen_of_pools_and_who_is_missing() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.log_in("root@pam", "secret").await;
    site.fine("POST", "/pools", &[("poolid", "p1"), ("comment", "one")]).await;
    site.done("POST", VMS, &[("vmid", "100"), ("pool", "p1")]).await;
    for action in ["reset", "reboot", "suspend", "resume"] {
        let (status, reason, _) = site.ask("POST", &format!("{VMS}/199/status/{action}"), &[]).await;
        let text = "unable to find configuration file for VM 199 on node 'pve1'";
        assert_eq!((status, reason.as_str()), (500, text), "{action}");
    }
    let (_, reason, _) = site.ask("POST", &format!("{VMS}/100/snapshot"), &[("snapname", "Pending")]).await;
    assert_eq!(reason, "unable to use snapshot name 'pending' (reserved name)");
    assert_eq!(site.fine("PUT", &format!("{VMS}/100/snapshot/none/config"), &[]).await, Value::Null);
    site.fine("POST", "/access/users", &[("userid", "bob@pve"), ("password", "bobs-secret")]).await;
    site.fine("PUT", "/access/acl", &[("path", "/vms/100"), ("roles", "PVEAuditor"), ("users", "bob@pve")]).await;
    site.log_in("bob@pve", "bobs-secret").await;
    let (status, reason, _) = site.ask("GET", "/pools/p1", &[]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/pool/p1, Pool.Audit)"));
    // By query the original asks for the right, but doesn't listen.
    assert_eq!(site.fine("GET", "/pools", &[("poolid", "p1")]).await[0]["comment"], "one");
    let seen = site.fine("GET", "/cluster/resources", &[("type", "vm")]).await;
    assert_eq!((&seen[0]["vmid"], &seen[0]["pool"]), (&json!(100), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn storages_of_other_nodes_are_named_but_not_enabled() {
    let options = mock_pve::serve::Options { seed: crate::site::two_nodes(), ..mock_pve::serve::Options::default() };
    let mut site = Site::serve(options).await;
    site.log_in("root@pam", "secret").await;
    let form = [("storage", "far"), ("type", "dir"), ("path", "/far"), ("content", "images,iso"), ("nodes", "pve2")];
    site.fine("POST", "/storage", &form).await;
    let of = |list: &Value| list.as_array().unwrap().iter().find(|one| one["storage"] == "far").cloned();
    let all = site.fine("GET", "/nodes/pve1/storage", &[]).await;
    let far = of(&all).unwrap();
    assert_eq!((&far["enabled"], &far["active"], &far["total"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(of(&site.fine("GET", "/nodes/pve1/storage", &[("content", "iso")]).await), None);
    assert_eq!(site.fine("GET", "/nodes/pve1/storage/far/status", &[]).await["enabled"], 0);
    let (status, _, body) = site.ask("GET", "/nodes/pve1/storage", &[("storage", "far"), ("content", "iso")]).await;
    assert_eq!((status, &body["errors"]["storage"]), (400, &json!("No such storage.")));
    assert_eq!(of(&site.fine("GET", "/nodes/pve2/storage", &[("content", "iso")]).await).unwrap()["active"], 1);
    let form = [("filename", "vm-100-disk-0.raw"), ("vmid", "100"), ("size", "4M")];
    let volid = site.fine("POST", "/nodes/pve2/storage/far/content", &form).await;
    assert_eq!(volid, "far:100/vm-100-disk-0.raw");
}
