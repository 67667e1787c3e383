//! What `--pve 9` answers otherwise than 8.4: one line for each difference.

use mock_pve::serve::Options;
use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Form, Site, VMS, two_nodes};

/// An answer in one line: the status, and what is wrong.
fn said((status, reason, body): (u16, String, Value)) -> String {
    match body["errors"].as_object().and_then(|errors| errors.iter().next()) {
        Some((key, text)) => format!("{status} {key}: {}", text.as_str().unwrap_or_default()),
        None => format!("{status} {reason}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_release_refuses_what_it_does_not_know() {
    let (eight, nine) = (Site::begin_as_root(PveVersion::V8).await, Site::begin_as_root(PveVersion::V9).await);
    for site in [&eight, &nine] {
        site.done("POST", VMS, &[("vmid", "100")]).await;
    }
    let config = "/nodes/pve1/qemu/100/config";
    let unknown = "property is not defined in schema";
    let rows: &[(&str, &str, Form<'_>, &str, &str)] = &[
        (
            "POST",
            "/access/roles",
            &[("roleid", "Watch"), ("privs", "VM.Monitor")],
            "200 OK",
            "400 privs: invalid format - invalid privilege 'VM.Monitor'",
        ),
        (
            "POST",
            "/access/roles",
            &[("roleid", "Agent"), ("privs", "VM.GuestAgent.Audit VM.Replicate")],
            "400 privs: invalid format - invalid privilege 'VM.GuestAgent.Audit'",
            "200 OK",
        ),
        (
            "POST",
            "/cluster/ha/groups",
            &[("group", "all"), ("nodes", "pve1")],
            "200 OK",
            "500 cannot create group: ha groups have been migrated to rules",
        ),
        ("GET", "/cluster/ha/groups", &[], "200 OK", "500 cannot index groups: ha groups have been migrated to rules"),
        (
            "POST",
            "/cluster/ha/rules",
            &[("rule", "stay"), ("type", "node-affinity"), ("resources", "vm:100"), ("nodes", "pve1")],
            "501 Method 'POST /cluster/ha/rules' not implemented",
            "200 OK",
        ),
        (
            "POST",
            "/cluster/ha/resources",
            &[("sid", "vm:100"), ("group", "all")],
            "200 OK",
            "500 invalid parameter 'group': ha groups have been migrated to rules",
        ),
        ("PUT", "/cluster/ha/resources/vm:100", &[("failback", "0")], &["400 failback: ", unknown].concat(), "500 "),
        (
            "POST",
            "/pools",
            &[("poolid", "1st")],
            "200 OK",
            "500 create pool failed: pool name must start with a letter",
        ),
        ("PUT", config, &[("allow-ksm", "0")], &["400 allow-ksm: ", unknown].concat(), "200 OK"),
        ("PUT", config, &[("delete", "allow-ksm")], "400 delete: unknown option 'allow-ksm'", "200 OK"),
        ("PUT", config, &[("agent", "1,freeze-fs=0")], "400 agent: invalid format - format error", "200 OK"),
        ("POST", VMS, &[("vmid", "109"), ("ha-managed", "1")], &["400 ha-managed: ", unknown].concat(), "200 OK"),
        (
            "PUT",
            "/access/users/recast@pve/token/ci",
            &[("delete", "comment")],
            &["400 delete: ", unknown].concat(),
            "200 OK",
        ),
        ("GET", "/storage", &[("type", "glusterfs")], "200 OK", "400 type: value 'glusterfs' does not have a value"),
        (
            "GET",
            "/nodes/pve1/capabilities/qemu/migration",
            &[],
            "501 Method 'GET /nodes/pve1/capabilities/qemu/migration' not implemented",
            "200 OK",
        ),
        ("GET", "/nodes/pve1/rrddata", &[("timeframe", "decade")], "400 timeframe: value 'decade'", "200 OK"),
        ("GET", "/nodes/pve1/network", &[("type", "include_sdn")], "400 type: value 'include_sdn'", "200 OK"),
    ];
    for (method, path, form, on_eight, on_nine) in rows {
        for (release, site, expected) in [(8, &eight, on_eight), (9, &nine, on_nine)] {
            let answer = said(site.ask(method, path, form).await);
            assert!(answer.starts_with(expected), "{release}: {method} {path} {form:?}: {answer}, not {expected}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_release_tells_what_it_has() {
    let (eight, nine) = (Site::begin_as_root(PveVersion::V8).await, Site::begin_as_root(PveVersion::V9).await);
    for (site, release, new) in [(&eight, "8.4", false), (&nine, "9.1", true)] {
        let version = site.fine("GET", "/version", &[]).await;
        assert_eq!(version["release"], release);
        assert!(version["version"].as_str().unwrap().starts_with(release), "{version}");
        site.done("POST", VMS, &[("vmid", "100")]).await;
        site.done("POST", &format!("{VMS}/100/status/start"), &[]).await;
        let now = site.fine("GET", &format!("{VMS}/100/status/current"), &[]).await;
        assert_eq!((now["memhost"].is_u64(), now["pressurecpusome"].is_number()), (new, new), "{now}");
        let storages = site.fine("GET", "/nodes/pve1/storage", &[("format", "1"), ("storage", "local-lvm")]).await;
        let formats = json!({"supported": ["raw"], "default": "raw"});
        assert_eq!(storages[0]["formats"], if new { formats } else { Value::Null }, "{storages}");
        let kinds = |list: &Value| {
            let kinds = list.as_array().unwrap().iter().map(|one| one["type"].as_str().unwrap().to_owned());
            kinds.filter(|kind| kind == "sdn" || kind == "network").collect::<Vec<_>>()
        };
        let all = site.fine("GET", "/cluster/resources", &[]).await;
        assert_eq!(kinds(&all), [if new { "network" } else { "sdn" }], "{all}");
        let zones = site.fine("GET", "/cluster/resources", &[("type", "sdn")]).await;
        assert_eq!(kinds(&zones).len(), usize::from(!new), "{zones}");
        let role = site.fine("GET", "/access/roles/PVEVMUser", &[]).await;
        assert_eq!(role["VM.GuestAgent.FileRead"], if new { json!(1) } else { Value::Null }, "{role}");
    }
}

/// A user whose one role can be changed; says the root's login, to go back to.
async fn with_one_role(site: &mut Site) -> String {
    site.fine("POST", "/access/users", &[("userid", "one@pve")]).await;
    site.fine("POST", "/access/roles", &[("roleid", "One"), ("privs", "VM.Audit")]).await;
    site.fine("PUT", "/access/acl", &[("path", "/"), ("roles", "One"), ("users", "one@pve")]).await;
    let token = site.fine("POST", "/access/users/one@pve/token/t1", &[("privsep", "0")]).await;
    let root = site.login.clone();
    site.with_token("one@pve!t1", token["value"].as_str().unwrap());
    std::mem::replace(&mut site.login, root)
}

/// Asks as the user with that one role, once it has these privileges.
async fn ask_with(
    site: &mut Site,
    user: &str,
    privileges: &str,
    request: (&str, &str, &[(&str, &str)]),
) -> (u16, String, Value) {
    site.fine("PUT", "/access/roles/One", &[("privs", privileges)]).await;
    let root = std::mem::replace(&mut site.login, user.to_owned());
    let (method, path, form) = request;
    let answer = site.ask(method, path, form).await;
    site.login = root;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn each_agent_command_needs_the_privilege_of_its_release() {
    const ALL: &str = "VM.GuestAgent.Unrestricted";
    let commands: &[(&str, &str, Form<'_>, &[&str])] = &[
        ("POST", "ping", &[], &["VM.GuestAgent.Audit", ALL]),
        ("GET", "info", &[], &["VM.GuestAgent.Audit", ALL]),
        ("GET", "network-get-interfaces", &[], &["VM.GuestAgent.Audit", ALL]),
        ("GET", "get-osinfo", &[], &["VM.GuestAgent.Audit", ALL]),
        ("GET", "file-read", &[("file", "/etc/hostname")], &["VM.GuestAgent.FileRead", ALL]),
        ("POST", "file-write", &[("file", "/x"), ("content", "y")], &["VM.GuestAgent.FileWrite", ALL]),
        ("POST", "fstrim", &[], &["VM.GuestAgent.FileSystemMgmt", ALL]),
        ("POST", "fsfreeze-freeze", &[], &["VM.GuestAgent.FileSystemMgmt", ALL]),
        ("POST", "fsfreeze-status", &[], &["VM.GuestAgent.Audit", "VM.GuestAgent.FileSystemMgmt", ALL]),
        ("POST", "exec", &[("command", "ls")], &[ALL]),
        ("GET", "exec-status", &[("pid", "1")], &[ALL]),
        ("POST", "set-user-password", &[("username", "root"), ("password", "secret")], &[ALL]),
        ("POST", "shutdown", &[], &["VM.PowerMgmt", ALL]),
    ];
    let nine = [
        "VM.GuestAgent.Audit",
        "VM.GuestAgent.FileRead",
        "VM.GuestAgent.FileWrite",
        "VM.GuestAgent.FileSystemMgmt",
        "VM.PowerMgmt",
        "VM.Audit",
        ALL,
    ];
    for (pve, privileges) in
        [(PveVersion::V8, &["VM.Monitor", "VM.Audit", "VM.PowerMgmt"][..]), (PveVersion::V9, &nine[..])]
    {
        let mut site = Site::begin_as_root(pve).await;
        site.done("POST", VMS, &[("vmid", "100")]).await;
        let user = with_one_role(&mut site).await;
        for (method, command, form, allowing) in commands {
            let path = format!("{VMS}/100/agent/{command}");
            for privilege in privileges {
                let allowed =
                    if pve == PveVersion::V8 { *privilege == "VM.Monitor" } else { allowing.contains(privilege) };
                let (status, reason, _) = ask_with(&mut site, &user, privilege, (method, &path, form)).await;
                // Who may is told that nothing runs there.
                assert_eq!(status, if allowed { 500 } else { 403 }, "{pve:?} {command} with {privilege}: {reason}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replication_takes_the_privilege_of_its_release() {
    let job = ("POST", "/cluster/replication", &[("id", "100-0"), ("type", "local"), ("target", "pve2")][..]);
    for (pve, enough, refused) in [
        (PveVersion::V8, "Datastore.Allocate", "Permission check failed (/storage, Datastore.Allocate)"),
        (PveVersion::V9, "VM.Replicate", "Permission check failed (/vms/100, VM.Replicate)"),
    ] {
        let mut site = Site::serve(Options { seed: two_nodes(), pve, ..Options::default() }).await;
        site.log_in("root@pam", "secret").await;
        site.fine("POST", "/storage", &[("storage", "tank"), ("type", "zfspool"), ("pool", "tank")]).await;
        site.done("POST", VMS, &[("vmid", "100"), ("scsi0", "tank:1")]).await;
        let user = with_one_role(&mut site).await;
        let (status, reason, _) = ask_with(&mut site, &user, "VM.Audit", job).await;
        assert_eq!((status, reason.as_str()), (403, refused), "{pve:?}");
        let (status, reason, _) = ask_with(&mut site, &user, enough, job).await;
        assert_eq!(status, 200, "{pve:?}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_ha_forget_what_is_gone() {
    let mut site = Site::begin_as_root(PveVersion::V9).await;
    let user = with_one_role(&mut site).await;
    let with_ha = [("vmid", "102"), ("ha-managed", "1")];
    let new = "VM.Allocate VM.Config.Options";
    let (status, reason, _) = ask_with(&mut site, &user, new, ("POST", VMS, &with_ha)).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/, Sys.Console)"));
    let log = site.done("POST", VMS, &with_ha).await;
    assert!(log.contains(&"Add as HA resource".to_owned()), "{log:?}");
    assert_eq!(site.fine("GET", "/cluster/ha/resources/vm:102", &[]).await["state"], "stopped");
    for vmid in ["100", "101"] {
        site.done("POST", VMS, &[("vmid", vmid)]).await;
        site.fine("POST", "/cluster/ha/resources", &[("sid", &format!("vm:{vmid}")), ("state", "ignored")]).await;
    }
    let rule =
        |name, resources| [("rule", name), ("type", "node-affinity"), ("resources", resources), ("nodes", "pve1")];
    site.fine("POST", "/cluster/ha/rules", &rule("both", "vm:100,vm:101")).await;
    site.fine("POST", "/cluster/ha/rules", &rule("one", "vm:100")).await;
    let rules = |list: Value| {
        let told = list.as_array().unwrap().iter().map(|one| format!("{} {}", one["rule"], one["resources"]));
        told.collect::<Vec<_>>()
    };
    site.fine("DELETE", "/cluster/ha/resources/vm:102", &[("purge", "0")]).await;
    site.fine("DELETE", "/cluster/ha/resources/vm:100", &[]).await;
    assert_eq!(rules(site.fine("GET", "/cluster/ha/rules", &[]).await), [r#""both" "vm:101""#]);
    site.done("DELETE", &format!("{VMS}/101"), &[("purge", "1")]).await;
    assert_eq!(site.fine("GET", "/cluster/ha/rules", &[]).await, json!([]));
}
