//! A world that is left and entered again: all of it is there.

use mock_pve::serve::Options;
use mock_pve::world::PveVersion;
use serde_json::Value;

use crate::site::{Form, Site, VMS, two_nodes};

/// What is there, but for what a start makes anew: certificates, clocks, and what the statistics round has seen.
fn world(site: &Site) -> Value {
    fn without_what_is_new(value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.retain(|key, _| !["fingerprint", "since", "seen", "rng", "unsaved"].contains(&key.as_str()));
                object.values_mut().for_each(without_what_is_new);
            }
            Value::Array(list) => list.iter_mut().for_each(without_what_is_new),
            _ => {}
        }
    }
    let mut state = serde_json::to_value(&*site.running.world().state()).unwrap();
    without_what_is_new(&mut state);
    state
}

/// Everything that a world can hold, made by request.
const REQUESTS: &[(&str, &str, Form<'static>)] = &[
    ("POST", "/access/groups", &[("groupid", "crew"), ("comment", "us")]),
    ("POST", "/access/users", &[("userid", "kept@pve"), ("password", "longenough"), ("groups", "crew")]),
    ("POST", "/access/roles", &[("roleid", "Keeper"), ("privs", "VM.Audit Pool.Audit")]),
    ("PUT", "/access/acl", &[("path", "/pool/kept"), ("roles", "Keeper"), ("groups", "crew"), ("propagate", "0")]),
    ("PUT", "/cluster/options", &[("mac_prefix", "02:AB"), ("registered-tags", "kept")]),
    ("POST", "/storage", &[("storage", "extra"), ("type", "dir"), ("path", "/srv/extra"), ("content", "images,iso")]),
    ("POST", "/pools", &[("poolid", "kept"), ("comment", "a pool")]),
    ("PUT", "/pools/kept", &[("vms", "100"), ("storage", "extra")]),
    ("POST", "/cluster/ha/groups", &[("group", "both"), ("nodes", "pve1,pve2:2")]),
    ("POST", "/cluster/ha/resources", &[("sid", "vm:101"), ("state", "ignored"), ("group", "both")]),
    ("POST", "/cluster/replication", &[("id", "101-0"), ("type", "local"), ("target", "pve2"), ("disable", "1")]),
    ("POST", "/cluster/backup", &[("id", "nightly"), ("schedule", "daily"), ("vmid", "100"), ("storage", "local")]),
    ("PUT", "/cluster/firewall/options", &[("enable", "1")]),
    ("POST", "/cluster/firewall/aliases", &[("name", "office"), ("cidr", "192.0.2.0/24")]),
    ("POST", "/cluster/firewall/ipset", &[("name", "trusted")]),
    ("POST", "/cluster/firewall/ipset/trusted", &[("cidr", "192.0.2.7")]),
    ("POST", "/cluster/firewall/groups", &[("group", "web")]),
    ("POST", "/cluster/firewall/rules", &[("type", "in"), ("action", "ACCEPT"), ("comment", "kept")]),
    ("PUT", "/nodes/pve1/qemu/100/firewall/options", &[("enable", "1")]),
    ("POST", "/nodes/pve1/qemu/100/firewall/rules", &[("type", "in"), ("action", "DROP")]),
    ("POST", "/cluster/mapping/pci", &[("id", "gpu"), ("map", "node=pve1,path=0000:01:00.0,id=10de:1eb8")]),
    ("POST", "/cluster/sdn/zones", &[("zone", "inner"), ("type", "simple")]),
    ("POST", "/cluster/sdn/vnets", &[("vnet", "net1"), ("zone", "inner")]),
    ("POST", "/nodes/pve1/network", &[("iface", "vmbr7"), ("type", "bridge"), ("autostart", "1")]),
    ("PUT", "/nodes/pve1/config", &[("description", "the first")]),
    ("POST", "/cluster/notifications/endpoints/gotify", &[("name", "phone"), ("server", "http://x"), ("token", "t")]),
    ("POST", "/cluster/metrics/server/graph", &[("type", "graphite"), ("server", "x"), ("port", "2003")]),
    ("PUT", "/nodes/pve1/apt/repositories", &[("handle", "no-subscription")]),
    ("PUT", "/nodes/pve1/qemu/101/config", &[("name", "renamed"), ("cores", "4"), ("ciuser", "me")]),
];

/// What is asked before and after.
const LOOKS: &[&str] = &[
    "/access/acl",
    "/access/domains",
    "/access/groups",
    "/access/roles",
    "/access/users?full=1",
    "/cluster/backup",
    "/cluster/firewall/aliases",
    "/cluster/firewall/groups",
    "/cluster/firewall/ipset/trusted",
    "/cluster/firewall/options",
    "/cluster/firewall/rules",
    "/cluster/ha/groups",
    "/cluster/ha/resources",
    "/cluster/mapping/pci",
    "/cluster/metrics/server",
    "/cluster/notifications/targets",
    "/cluster/options",
    "/cluster/replication",
    "/cluster/sdn/vnets",
    "/cluster/sdn/zones",
    "/nodes/pve1/apt/repositories",
    "/nodes/pve1/config",
    "/nodes/pve1/network",
    "/nodes/pve1/qemu/100/config",
    "/nodes/pve1/qemu/100/firewall/options",
    "/nodes/pve1/qemu/100/firewall/rules",
    "/nodes/pve1/qemu/100/snapshot",
    "/nodes/pve1/qemu/101/cloudinit",
    "/nodes/pve1/qemu/101/config?current=1",
    "/nodes/pve1/qemu/101/pending",
    "/nodes/pve1/storage/extra/content",
    "/nodes/pve1/storage/local-lvm/content",
    "/nodes/pve1/storage/local/content",
    "/nodes/pve1/tasks?limit=500",
    "/pools",
    "/pools/kept",
    "/storage",
];

async fn looks(site: &Site) -> Vec<(&'static str, String)> {
    let mut seen = Vec::new();
    for path in LOOKS {
        let (status, reason, body) = site.send("GET", &format!("/api2/json{path}"), "", b"").await;
        assert_eq!(status, 200, "{path}: {reason}");
        seen.push((*path, body));
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let options = || Options {
        seed: two_nodes(),
        state: Some(folder.path().join("state")),
        pve: PveVersion::V8,
        ..Options::default()
    };
    let mut site = Site::serve(options()).await;
    site.log_in("root@pam", "secret").await;
    site.fine("POST", "/storage", &[("storage", "tank"), ("type", "zfspool"), ("pool", "tank")]).await;
    for vmid in ["100", "101"] {
        let form = [
            ("vmid", vmid),
            ("scsi0", "local-lvm:1,replicate=0"),
            ("scsi1", if vmid == "101" { "tank:1" } else { "none,media=cdrom" }),
            ("ide2", "local-lvm:cloudinit"),
            ("net0", "virtio,bridge=vmbr0"),
        ];
        site.done("POST", VMS, &form).await;
    }
    site.done("POST", &format!("{VMS}/100/snapshot"), &[("snapname", "before"), ("description", "as it was")]).await;
    site.done("POST", &format!("{VMS}/101/status/start"), &[]).await;
    for (method, path, form) in REQUESTS {
        site.fine(method, path, form).await;
    }
    let allocated = [("filename", "vm-100-disk-9.raw"), ("vmid", "100"), ("size", "1M")];
    site.fine("POST", "/nodes/pve1/storage/extra/content", &allocated).await;
    let kind = "Content-Type: multipart/form-data; boundary=B\r\n";
    let body = "--B\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\niso\r\n--B\r\nContent-Disposition: \
                form-data; name=\"filename\"; filename=\"kept.iso\"\r\n\r\nDATA\r\n--B--";
    let upload = "/api2/json/nodes/pve1/storage/local/upload";
    let (status, reason, said) = site.send("POST", upload, kind, body.as_bytes()).await;
    assert_eq!(status, 200, "{reason}");
    let said: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(site.ended(said["data"].as_str().unwrap()).await.0, "OK");
    let token = site.fine("POST", "/access/users/kept@pve/token/t1", &[("privsep", "0")]).await;
    let secret = token["value"].as_str().unwrap().to_owned();
    let (before, seen, login) = (world(&site), looks(&site).await, site.login.clone());
    assert!(before["vms"]["101"]["pending"]["cores"].is_string(), "{}", before["vms"]["101"]);
    site.running.stop().await;

    let mut site = Site::serve(options()).await;
    let after = world(&site);
    for (part, was) in before.as_object().unwrap() {
        assert_eq!(&after[part], was, "{part}");
    }
    // The ticket of before still opens everything.
    site.login = login;
    for ((path, was), (_, is)) in seen.iter().zip(looks(&site).await) {
        assert_eq!(&is, was, "{path}");
    }
    let (status, _, body) =
        site.send("GET", "/api2/json/nodes/pve1/storage/local/content/local:iso/kept.iso", "", b"").await;
    assert!(status == 200 && body.contains("\"size\":4"), "{body}");
    site.log_in("kept@pve", "longenough").await;
    site.with_token("kept@pve!t1", &secret);
    assert_eq!(site.fine("GET", "/pools", &[]).await[0]["poolid"], "kept");
}
