//! What is set up once for a whole cluster or node: who is told, metric servers, authorities, second factors, package
//! sources, templates.

use mock_pve::world::PveVersion;
use serde_json::{Value, json};

use crate::site::{Form, Site, VMS};

/// Asks one after the other, and compares status and reason.
async fn answers(site: &Site, rows: &[(&str, &str, Form<'_>, u16, &str)]) {
    for (method, path, form, status, reason) in rows {
        let (got, said, body) = site.ask(method, path, form).await;
        assert_eq!((got, said.as_str()), (*status, *reason), "{method} {path} {form:?}: {body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sections_are_written_checked_and_refused_by_type() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let graph: Form<'_> = &[("type", "graphite"), ("server", "x"), ("port", "2003")];
    let flux: Form<'_> = &[("type", "influxdb"), ("server", "x"), ("port", "8089"), ("mtu", "1400")];
    let lookup = "cannot lookup undefined type! at /usr/share/perl5/PVE/API2/Cluster/MetricServer.pm line 295.";
    let within = "create sdn vnet object failed: 400 Parameter verification failed.";
    let line = "zone inner is used by vnet net1 at /usr/share/perl5/PVE/Network/SDN/Zones/Plugin.pm line 158.";
    let used = format!("delete sdn zone object failed: {line}");
    let sync: Form<'_> = &[("realm", "pve"), ("schedule", "daily"), ("scope", "both")];
    let map = ("map", "node=pve1,path=/a");
    answers(
        &site,
        &[
            ("POST", "/cluster/metrics/server/graph", graph, 200, "OK"),
            ("POST", "/cluster/metrics/server/graph", graph, 500, "Metric server 'graph' already exists"),
            ("POST", "/cluster/metrics/server/flux", flux, 200, "OK"),
            (
                "PUT",
                "/cluster/metrics/server/graph",
                &[("server", "y"), ("port", "1"), ("bucket", "b")],
                500,
                "unexpected property 'bucket'",
            ),
            (
                "PUT",
                "/cluster/metrics/server/flux",
                &[("server", "y"), ("port", "1"), ("delete", "server")],
                500,
                "unable to delete required option 'server'",
            ),
            ("PUT", "/cluster/metrics/server/flux", &[("server", "y"), ("port", "1"), ("delete", "mtu")], 200, "OK"),
            ("PUT", "/cluster/metrics/server/none", graph.get(1..).unwrap(), 500, "no such server 'none'"),
            ("DELETE", "/cluster/metrics/server/graph", &[], 200, "OK"),
            ("DELETE", "/cluster/metrics/server/graph", &[], 500, lookup),
            (
                "POST",
                "/cluster/acme/plugins",
                &[("id", "names"), ("type", "dns")],
                500,
                "missing value for required option 'api'",
            ),
            ("POST", "/cluster/acme/plugins", &[("id", "names"), ("type", "dns"), ("api", "cf")], 200, "OK"),
            ("DELETE", "/cluster/acme/plugins/never", &[], 200, "OK"),
            ("POST", "/cluster/jobs/realm-sync/job", sync, 500, "400 Parameter verification failed."),
            ("GET", "/cluster/jobs/realm-sync/job", &[], 400, "Parameter verification failed."),
            (
                "POST",
                "/cluster/sdn/zones",
                &[("zone", "inner"), ("type", "vlan")],
                500,
                "missing value for required option 'bridge'",
            ),
            ("POST", "/cluster/sdn/zones", &[("zone", "inner"), ("type", "vlan"), ("bridge", "vmbr0")], 200, "OK"),
            ("POST", "/cluster/sdn/vnets", &[("vnet", "net1"), ("zone", "inner")], 500, within),
            ("POST", "/cluster/sdn/vnets", &[("vnet", "net1"), ("zone", "inner"), ("tag", "7")], 200, "OK"),
            ("POST", "/cluster/sdn/vnets", &[("vnet", "net2"), ("zone", "inner"), ("tag", "7")], 500, within),
            ("DELETE", "/cluster/sdn/zones/inner", &[], 500, &used),
            ("POST", "/cluster/mapping/dir", &[("id", "share"), map, map], 500, "Node 'pve1' is specified 2 times."),
        ],
    )
    .await;
    let flux = site.fine("GET", "/cluster/metrics/server/flux", &[]).await;
    assert_eq!(flux, json!({"type": "influxdb", "server": "y", "port": 1}));
    let ipams = site.fine("GET", "/cluster/sdn/ipams", &[]).await;
    assert_eq!((&ipams[0]["ipam"], &ipams[0]["type"]), (&json!("pve"), &json!("pve")));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_is_named_once_and_kept_while_he_is_needed() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let phone: Form<'_> = &[("name", "phone"), ("server", "http://x"), ("token", "t")];
    let hook: Form<'_> =
        &[("name", "hook"), ("method", "post"), ("url", "http://x"), ("secret", "name=key,value=Zm9v")];
    let changed = "detected modified configuration - file changed by other user? Try again.";
    let twice = "Cannot create 'phone', an entity with the same name already exists";
    let nobody = "must at least provide one recipient, either in mailto or in mailto-user";
    let statement = "could not apply filter: invalid match-field statement: x";
    let gotify = "/cluster/notifications/endpoints/gotify";
    let matchers = "/cluster/notifications/matchers";
    let test = "/cluster/notifications/targets/none/test";
    answers(
        &site,
        &[
            ("POST", gotify, phone, 200, "OK"),
            ("POST", gotify, phone, 400, twice),
            ("POST", "/cluster/notifications/endpoints/webhook", hook, 200, "OK"),
            ("POST", "/cluster/notifications/endpoints/sendmail", &[("name", "mail")], 400, nobody),
            ("PUT", &format!("{gotify}/phone"), &[("digest", "00")], 400, changed),
            (
                "PUT",
                &format!("{gotify}/phone"),
                &[("delete", "server")],
                500,
                "unknown variant `server`, expected `comment` or `disable`",
            ),
            ("GET", &format!("{gotify}/hook"), &[], 404, "endpoint 'hook' not found"),
            ("POST", matchers, &[("name", "all"), ("target", "none")], 404, "endpoint 'none' does not exist"),
            ("POST", matchers, &[("name", "all"), ("match-field", "x")], 500, statement),
            ("POST", matchers, &[("name", "all"), ("match-severity", "loud")], 500, "invalid severity loud"),
            ("POST", matchers, &[("name", "all"), ("target", "phone"), ("match-calendar", "mon..fri 8-17")], 200, "OK"),
            ("DELETE", &format!("{gotify}/phone"), &[], 400, "cannot delete 'phone', referenced by: all"),
            ("POST", test, &[], 404, "endpoint 'none' does not exist"),
            ("POST", "/cluster/notifications/targets/mail-to-root/test", &[], 200, "OK"),
            ("PUT", &format!("{matchers}/default-matcher"), &[("disable", "1")], 200, "OK"),
        ],
    )
    .await;
    let shown = site.fine("GET", "/cluster/notifications/endpoints/webhook", &[]).await;
    assert_eq!(shown[0]["secret"], json!(["name=key"]), "the secret itself is never told");
    let phone = site.fine("GET", &format!("{gotify}/phone"), &[]).await;
    assert_eq!((&phone["token"], &phone["origin"]), (&Value::Null, &json!("user-created")));
    let origin = |all: &Value| {
        all.as_array().unwrap().iter().find(|one| one["name"] == "default-matcher").unwrap()["origin"].clone()
    };
    assert_eq!(origin(&site.fine("GET", matchers, &[]).await), "modified-builtin");
    site.fine("DELETE", &format!("{matchers}/default-matcher"), &[]).await;
    assert_eq!(origin(&site.fine("GET", matchers, &[]).await), "builtin");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_factor_is_asked_for_and_a_recovery_key_is_good_once() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    site.fine("POST", "/access/users", &[("userid", "two@pve"), ("password", "longenough")]).await;
    let own = "/access/tfa/two@pve";
    let made = site.fine("POST", own, &[("type", "recovery")]).await;
    let key = made["recovery"][3].as_str().unwrap().to_owned();
    let uri = "otpauth://totp/x:two?secret=GEZDGNBVGY3TQOJQ";
    let code: Form<'_> = &[("type", "totp"), ("totp", uri), ("value", "none"), ("description", "d")];
    answers(
        &site,
        &[
            ("POST", own, &[("type", "recovery")], 500, "user already has recovery keys"),
            ("POST", own, code, 500, "failed to verify TOTP challenge"),
            ("GET", &format!("{own}/none"), &[], 404, "No such tfa entry 'none'"),
            ("DELETE", &format!("{own}/none"), &[], 500, "no such entry"),
        ],
    )
    .await;
    let login = [("username", "two@pve"), ("password", "longenough")];
    let asked = site.fine("POST", "/access/ticket", &login).await;
    assert_eq!((&asked["NeedTFA"], &asked["cap"]), (&json!(1), &Value::Null), "{asked}");
    let question = asked["ticket"].as_str().unwrap();
    let answer = format!("recovery:{key}");
    let second = [("username", "two@pve"), ("password", answer.as_str()), ("tfa-challenge", question)];
    let root = [("username", "root@pam"), ("password", answer.as_str()), ("tfa-challenge", question)];
    assert_eq!(site.ask("POST", "/access/ticket", &root).await.0, 401, "it was asked of somebody else");
    let ticket = site.fine("POST", "/access/ticket", &second).await;
    assert!(ticket["cap"].is_object(), "{ticket}");
    assert_eq!(site.ask("POST", "/access/ticket", &second).await.0, 401, "the key is used up");
    site.fine("DELETE", &format!("{own}/recovery"), &[]).await;
    assert_eq!(site.fine("POST", "/access/ticket", &login).await["NeedTFA"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_takes_templates_sources_and_certificates() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let list = site.fine("GET", "/nodes/pve1/aplinfo", &[]).await;
    let debian = list.as_array().unwrap().iter().find(|one| one["package"] == "debian-12-standard").unwrap();
    let template = debian["template"].as_str().unwrap();
    let form = [("storage", "local"), ("template", template)];
    let log = site.done("POST", "/nodes/pve1/aplinfo", &form).await;
    assert!(log.iter().any(|line| line == "calculating checksum...OK, checksum verified"), "{log:?}");
    let content = site.fine("GET", "/nodes/pve1/storage/local/content", &[("content", "vztmpl")]).await;
    assert_eq!(content[0]["volid"], format!("local:vztmpl/{template}"));
    let sources = "/nodes/pve1/apt/repositories";
    let blocks = "storage 'local-lvm' does not support templates";
    let custom = "/nodes/pve1/certificates/custom";
    let order = "/nodes/pve1/certificates/acme/certificate";
    let ca = std::fs::read_to_string(&site.running.ready.ca_file).unwrap();
    let kept = "Custom certificate file exists but force flag is not set.";
    let key = std::fs::read_to_string(site.running.world().dir().join("tls/ca.key")).unwrap();
    let whole = [("certificates", ca.as_str()), ("key", key.as_str())];
    let invalid = "Parameter verification failed.";
    answers(
        &site,
        &[
            ("POST", "/nodes/pve1/aplinfo", &[("storage", "local"), ("template", "none")], 400, invalid),
            ("POST", "/nodes/pve1/aplinfo", &[("storage", "local-lvm"), ("template", template)], 500, blocks),
            ("PUT", sources, &[("handle", "no-subscription")], 200, "OK"),
            ("POST", sources, &[("path", "/etc/apt/sources.list"), ("index", "3"), ("enabled", "0")], 200, "OK"),
            ("POST", sources, &[("path", "/etc/apt/sources.list"), ("index", "9")], 500, "invalid index - 9"),
            ("POST", custom, &whole[..1], 400, invalid),
            ("POST", custom, &whole, 200, "OK"),
            ("POST", custom, &whole[..1], 500, kept),
            ("PUT", order, &[], 400, invalid),
            ("DELETE", custom, &[], 200, "OK"),
            ("PUT", order, &[], 500, "No current (custom) certificate found, please order a new certificate!"),
            ("POST", order, &[], 500, "ACME domain list in node configuration is missing!"),
            (
                "PUT",
                "/nodes/pve1/disks/wipedisk",
                &[("disk", "/dev/sda")],
                500,
                "disk/partition '/dev/sda3' has a holder",
            ),
            (
                "POST",
                "/nodes/pve1/disks/lvm",
                &[("name", "vg1"), ("device", "/dev/sda")],
                500,
                "device '/dev/sda' is already in use",
            ),
            (
                "GET",
                "/nodes/pve1/scan/nfs",
                &[("server", "192.0.2.9")],
                500,
                "command '/sbin/showmount --no-headers --exports 192.0.2.9' failed: exit code 1",
            ),
        ],
    )
    .await;
    let shown = site.fine("GET", sources, &[]).await;
    let status = |handle: &str| {
        let all = shown["standard-repos"].as_array().unwrap();
        all.iter().find(|one| one["handle"] == handle).unwrap()["status"].clone()
    };
    assert_eq!((status("enterprise"), status("no-subscription"), status("test")), (json!(1), json!(0), Value::Null));
    let pools = site.fine("GET", "/nodes/pve1/scan/lvmthin", &[("vg", "pve")]).await;
    assert_eq!(pools[0]["lv"], "data", "{pools}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_made_changed_and_put_aside() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let accounts = "/cluster/acme/account";
    let form = [("name", "lab"), ("contact", "a@example.com"), ("tos_url", "https://x")];
    let log = site.done("POST", accounts, &form).await;
    assert!(
        log[2].starts_with("Registration successful, account URL: 'https://acme-v02.api.letsencrypt.org/acme/acct/"),
        "{log:?}"
    );
    assert_eq!(site.ask("POST", accounts, &form).await.0, 400);
    site.done("PUT", &format!("{accounts}/lab"), &[("contact", "b@example.com")]).await;
    let account = site.fine("GET", &format!("{accounts}/lab"), &[]).await;
    assert_eq!(account["account"]["contact"], json!(["mailto:b@example.com"]));
    site.done("DELETE", &format!("{accounts}/lab"), &[]).await;
    assert_eq!(site.fine("GET", accounts, &[]).await, json!([]));
    let elsewhere = [("contact", "a@example.com"), ("directory", "https://ca.example.com/directory")];
    let (end, _) = site.task("POST", accounts, &elsewhere).await;
    assert!(end.starts_with("Registration failed: Error: GET to https://ca.example.com/directory"), "{end}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_guests_without_such_hardware_get_no_screen() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    site.done("POST", VMS, &[("vmid", "100"), ("memory", "64")]).await;
    site.done("POST", VMS, &[("vmid", "101"), ("memory", "64"), ("vga", "qxl")]).await;
    let spice = |vmid: u32| format!("{VMS}/{vmid}/spiceproxy");
    answers(&site, &[("POST", &spice(100), &[], 500, "VM 100 not running")]).await;
    site.fine("PUT", &format!("{VMS}/100/config"), &[("freeze", "1")]).await;
    for vmid in [100, 101] {
        site.done("POST", &format!("{VMS}/{vmid}/status/start"), &[]).await;
    }
    let current = format!("{VMS}/100/status/current");
    assert_eq!(site.fine("GET", &current, &[]).await["qmpstatus"], "prelaunch");
    site.done("POST", &format!("{VMS}/100/status/resume"), &[]).await;
    assert_eq!(site.fine("GET", &current, &[]).await["qmpstatus"], "running");
    answers(&site, &[("POST", &spice(100), &[], 500, "no spice port")]).await;
    let viewer = site.fine("POST", &spice(101), &[]).await;
    assert_eq!((&viewer["type"], &viewer["title"]), (&json!("spice"), &json!("VM 101")), "{viewer}");
    let token = site.fine("POST", "/access/users/root@pam/token/shell", &[("privsep", "0")]).await;
    site.with_token("root@pam!shell", token["value"].as_str().unwrap());
    let refused = "value 'root@pam!shell' does not look like a valid user name";
    for shell in ["termproxy", "vncshell", "spiceshell"] {
        answers(&site, &[("POST", &format!("/nodes/pve1/{shell}"), &[], 500, refused)]).await;
    }
}
