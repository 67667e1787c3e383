//! The firewall: its files, and that of virtual networks.

use mock_pve::world::PveVersion;
use mock_pve::world::node_files::NodeFile;
use serde_json::json;

use super::site::{Site, VMS};

fn text(site: &Site, path: &str) -> Option<String> {
    match site.running.world().node_file("pve1", path)? {
        NodeFile::Text(text) => Some(text),
        other => panic!("{path}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_set_lies_in_the_files_of_the_node() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    for path in ["/etc/pve/firewall/100.fw", "/etc/pve/local/host.fw", "/etc/pve/firewall/../../passwd"] {
        assert_eq!(text(&site, path), None, "{path}");
    }
    let cluster = "/cluster/firewall";
    site.fine("PUT", &format!("{cluster}/options"), &[("enable", "1"), ("policy_in", "DROP")]).await;
    site.fine("POST", &format!("{cluster}/aliases"), &[("name", "Db"), ("cidr", "10.0.0.9")]).await;
    site.fine("POST", &format!("{cluster}/ipset"), &[("name", "lan"), ("comment", "at home")]).await;
    site.fine("POST", &format!("{cluster}/ipset/lan"), &[("cidr", "10.0.0.0/8")]).await;
    site.fine("POST", &format!("{cluster}/ipset/lan"), &[("cidr", "10.1.0.0/16"), ("nomatch", "1")]).await;
    site.fine("POST", &format!("{cluster}/groups"), &[("group", "web")]).await;
    let rule = [("type", "in"), ("action", "ACCEPT"), ("proto", "tcp"), ("dport", "80"), ("enable", "1")];
    site.fine("POST", &format!("{cluster}/groups/web"), &rule).await;
    let expected = "[OPTIONS]\n\nenable: 1\npolicy_in: DROP\n\n[ALIASES]\n\nDb 10.0.0.9\n\n[IPSET lan] # at home\n\n\
                    10.0.0.0/8\n!10.1.0.0/16\n\n[group web]\n\nIN ACCEPT -p tcp -dport 80\n\n";
    assert_eq!(text(&site, "/etc/pve/firewall/cluster.fw").as_deref(), Some(expected));
    site.done("POST", VMS, &[("vmid", "100")]).await;
    let vm = format!("{VMS}/100/firewall/rules");
    site.fine("POST", &vm, &[("type", "group"), ("action", "web"), ("iface", "net0"), ("enable", "1")]).await;
    site.fine("POST", &vm, &[("type", "in"), ("action", "ACCEPT"), ("macro", "ssh"), ("source", "+lan")]).await;
    assert_eq!(
        text(&site, "/etc/pve/firewall/100.fw").as_deref(),
        Some("[RULES]\n\n|IN SSH(ACCEPT) -source +lan\nGROUP web -i net0\n\n"),
    );
    site.fine("PUT", "/nodes/pve1/firewall/options", &[("nosmurfs", "1")]).await;
    assert_eq!(text(&site, "/etc/pve/nodes/pve1/host.fw").as_deref(), Some("[OPTIONS]\n\nnosmurfs: 1\n\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_network_has_rules_for_what_passes_through() {
    let mut site = Site::begin_as_root(PveVersion::V8).await;
    let rules = "/cluster/sdn/vnets/front/firewall/rules";
    let (status, reason, _) = site.ask("GET", rules, &[]).await;
    assert!(status == 500 && reason.starts_with("invalid vnet specified"), "{status} {reason}");
    site.fine("POST", "/cluster/sdn/zones", &[("zone", "dmz"), ("type", "simple")]).await;
    site.fine("POST", "/cluster/sdn/vnets", &[("vnet", "front"), ("zone", "dmz")]).await;
    for (form, key, text) in [
        (&[("type", "in"), ("action", "DROP")][..], "type", "invalid rule type 'in' for rule_env 'vnet'"),
        (&[("type", "forward"), ("action", "REJECT")][..], "action", "cannot define REJECT rules on forward chain"),
    ] {
        let (status, _, body) = site.ask("POST", rules, form).await;
        assert_eq!((status, &body["errors"][key]), (400, &json!(text)));
    }
    site.fine("POST", rules, &[("type", "forward"), ("action", "DROP"), ("enable", "1")]).await;
    let options = "/cluster/sdn/vnets/front/firewall/options";
    site.fine("PUT", options, &[("enable", "1"), ("policy_forward", "ACCEPT")]).await;
    assert_eq!(site.fine("GET", rules, &[]).await[0]["action"], "DROP");
    assert_eq!(
        text(&site, "/etc/pve/sdn/firewall/front.fw").as_deref(),
        Some("[OPTIONS]\n\nenable: 1\npolicy_forward: ACCEPT\n\n[RULES]\n\nFORWARD DROP\n\n")
    );
    site.fine("POST", "/access/users", &[("userid", "op@pve"), ("password", "longenough")]).await;
    let audit = [("path", "/sdn/zones/dmz"), ("roles", "PVEAuditor"), ("users", "op@pve")];
    site.fine("PUT", "/access/acl", &audit).await;
    site.log_in("op@pve", "longenough").await;
    site.fine("GET", rules, &[]).await;
    let (status, reason, _) = site.ask("PUT", options, &[("enable", "0")]).await;
    assert_eq!((status, reason.as_str()), (403, "Permission check failed (/sdn/zones/dmz/front, SDN.Allocate)"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subnet_waits_until_it_is_applied() {
    let site = Site::begin_as_root(PveVersion::V8).await;
    let subnets = "/cluster/sdn/vnets/front/subnets";
    let subnet = [("type", "subnet"), ("subnet", "192.0.2.0/24")];
    let (status, reason, _) = site.ask("POST", subnets, &subnet).await;
    assert_eq!((status, reason.as_str()), (500, "sdn vnet 'front' does not exist"));
    site.fine("POST", "/cluster/sdn/zones", &[("zone", "dmz"), ("type", "simple")]).await;
    site.fine("POST", "/cluster/sdn/vnets", &[("vnet", "front"), ("zone", "dmz")]).await;
    for (more, key, text) in [
        (&[("gateway", "192.0.3.1")][..], "gateway", "192.0.3.1 is not in subnet 192.0.2.0/24"),
        (
            &[("dhcp-range", "start-address=192.0.2.9,end-address=192.0.2.5")][..],
            "dhcp-range",
            "start-address 192.0.2.9 must be smaller than end-address 192.0.2.5",
        ),
        (
            &[("dhcp-range", "start-address=192.0.2.9,end-address=192.0.9.5")][..],
            "dhcp-range",
            "end-address 192.0.9.5 is not in subnet 192.0.2.0/24",
        ),
    ] {
        let (status, _, body) = site.ask("POST", subnets, &[&subnet[..], more].concat()).await;
        // What stands against a parameter is said under the lock of SDN's configuration, which makes a text of it.
        let wanted = format!("create sdn subnet object failed: 400 Parameter verification failed.\n{key}: {text}\n");
        assert_eq!((status, &body["message"]), (500, &json!(wanted)), "{body}");
    }
    let range = ("dhcp-range", "start-address=192.0.2.5,end-address=192.0.2.9");
    site.fine("POST", subnets, &[&subnet[..], &[("gateway", "192.0.2.1"), ("snat", "1"), range]].concat()).await;
    let (status, reason, _) = site.ask("POST", subnets, &subnet).await;
    let taken = "create sdn subnet object failed: sdn subnet object ID 'dmz-192.0.2.0-24' already defined";
    assert_eq!((status, reason.as_str()), (500, taken));
    let one = format!("{subnets}/dmz-192.0.2.0-24");
    let entry = site.fine("GET", &one, &[]).await;
    assert_eq!((&entry["cidr"], &entry["snat"], &entry["zone"]), (&json!("192.0.2.0/24"), &json!(1), &json!("dmz")));
    assert_eq!(entry["dhcp-range"], json!([{"start-address": "192.0.2.5", "end-address": "192.0.2.9"}]));
    let (status, _, _) = site.ask("GET", &one, &[("running", "1")]).await;
    assert_eq!(status, 500, "nothing runs yet");
    assert_eq!(site.fine("GET", &one, &[("pending", "1")]).await["state"], "new");
    assert_eq!(site.fine("GET", "/nodes/pve1/sdn/zones", &[]).await, json!([]));
    site.done("PUT", "/cluster/sdn", &[]).await;
    assert_eq!(site.fine("GET", "/nodes/pve1/sdn/zones", &[]).await[0]["zone"], "dmz");
    site.fine("PUT", &one, &[("gateway", "192.0.2.2"), ("delete", "snat")]).await;
    let pending = site.fine("GET", &one, &[("pending", "1")]).await;
    assert_eq!((&pending["gateway"], &pending["state"]), (&json!("192.0.2.1"), &json!("changed")));
    assert_eq!(pending["pending"], json!({"gateway": "192.0.2.2", "snat": "deleted"}));
    assert_eq!(site.fine("GET", &one, &[("running", "1")]).await["gateway"], "192.0.2.1");
    site.fine("DELETE", &one, &[]).await;
    assert_eq!(site.fine("GET", subnets, &[]).await, json!([]));
    assert_eq!(site.fine("GET", "/cluster/sdn/vnets", &[("pending", "1")]).await[0].get("state"), None);
}
