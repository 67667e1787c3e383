//! The client over real TLS sockets, byte for byte.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tokio::net::TcpListener;

use super::client::{Endpoint, Options, Pve};
use super::error::PveError;
use super::ha::HaOrder;
use super::login::Auth;
use super::storage::{Upload, UploadKind};
use super::task::{Ended, Upid, Wait};
use super::vm::{AfterTimeout, Change, CloneKind, CloneOrder, Forget, VmRef, WaitingShutdown};
use crate::net::Silent;
use crate::net::testing::{Heard, Reaction, Server, connector, data};
use crate::net::tls::{Fingerprint, Trust};
use crate::types::{Sha256, VmId};

const UPID: &str = "UPID:pve1:000007DF:000508AF:6B00DC5C:qmstart:100:ci@pve!full:";

fn token() -> Auth {
    Auth::Token { id: "ci@pve!full".to_owned(), secret: "00000000-0000-4000-8000-000000000000".into() }
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint { address: server.address.clone(), trust: server.pinned() }
}

fn pve(server: &Server) -> Pve {
    Pve::new(&connector(), Options::new(vec![endpoint(server)], token())).unwrap()
}

fn vm() -> VmRef {
    VmRef::new("pve1".into(), VmId(100))
}

fn keys(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An address where nobody listens, nor any other test of this process.
async fn dead() -> Endpoint {
    let address = TcpListener::bind("127.88.1.1:0").await.unwrap().local_addr().unwrap().to_string();
    Endpoint { address, trust: Trust::Insecure }
}

async fn answering(json: &'static str) -> Server {
    Server::start(move |_, _| data(json)).await
}

#[tokio::test]
async fn requests_are_written_exactly_as_pve_reads_them() {
    let server = Server::start(
        |heard, _| if heard.line().starts_with("PUT") { data("null") } else { data(&format!("{UPID:?}")) },
    )
    .await;
    let pve = pve(&server);
    let hardware = keys(&[("boot", "order=scsi0;net0"), ("scsi0", "lvm:0,import-from=local:import/t.raw")]);
    let upid = pve.create_vm(&vm(), &hardware, Some("lab")).await.unwrap();
    assert_eq!(upid.as_str(), UPID);
    let change = Change {
        set: keys(&[("tags", "a;b")]),
        delete: vec!["scsi1".to_owned(), "net1".to_owned()],
        digest: Some("f7".to_owned()),
    };
    pve.change_vm_now(&vm(), &change).await.unwrap();
    pve.start_vm(&vm()).await.unwrap();
    pve.shut_down_vm(&vm(), 60, AfterTimeout::GiveUp).await.unwrap();
    pve.stop_vm(&vm(), WaitingShutdown::Overrule).await.unwrap();
    let kind = CloneKind::Full { storage: Some("local-lvm".into()) };
    let order = CloneOrder {
        newid: VmId(101),
        name: "cp-01".into(),
        description: Some("recast: run=r".into()),
        pool: None,
        kind,
        target: None,
    };
    pve.clone_vm(&vm(), &order).await.unwrap();
    pve.resize_disk(&vm(), "scsi0", 20 << 30).await.unwrap();
    pve.delete_vm(&vm(), Forget::References).await.unwrap();
    pve.delete_vm(&vm(), Forget::Nothing).await.unwrap();
    pve.delete_volume(&"pve1".into(), &"local:import/t.raw".into()).await.unwrap();
    let sent: Vec<String> = server
        .heard()
        .iter()
        .map(|heard| format!("{} [{}]", heard.line().replacen("/api2/json/nodes/pve1", "", 1), heard.body))
        .collect();
    assert_eq!(
        sent,
        [
            "POST /qemu [vmid=100&boot=order%3Dscsi0%3Bnet0&scsi0=lvm%3A0%2Cimport-from%3Dlocal%3Aimport%2Ft.raw&pool=lab]",
            "PUT /qemu/100/config [tags=a%3Bb&delete=scsi1%2Cnet1&digest=f7]",
            "POST /qemu/100/status/start []",
            "POST /qemu/100/status/shutdown [timeout=60&forceStop=0]",
            "POST /qemu/100/status/stop [overrule-shutdown=1]",
            "POST /qemu/100/clone [newid=101&name=cp-01&full=1&description=recast%3A%20run%3Dr&storage=local-lvm]",
            "PUT /qemu/100/resize [disk=scsi0&size=20G]",
            "DELETE /qemu/100?purge=1 []",
            "DELETE /qemu/100 []",
            "DELETE /storage/local/content/local%3Aimport%2Ft.raw []",
        ]
    );
    for heard in server.heard() {
        let is_delete = heard.line().starts_with("DELETE");
        let length = (!is_delete).then(|| heard.body.len().to_string());
        assert_eq!(heard.header("content-length"), length.as_deref(), "{}", heard.line());
        assert_eq!(heard.header("transfer-encoding"), None);
        let form = (!heard.body.is_empty()).then_some("application/x-www-form-urlencoded");
        assert_eq!(heard.header("content-type"), form, "{}", heard.line());
        let secret = "PVEAPIToken=ci@pve!full=00000000-0000-4000-8000-000000000000";
        assert_eq!(heard.header("authorization"), Some(secret));
    }
    assert_eq!(pve.requests(), 10);
}

#[tokio::test]
async fn moves_ha_and_firewalls_are_asked_for_as_pve_reads_them() {
    let server = Server::start(|heard, _| match heard.line() {
        line if line.contains("/migrate") => data(&format!("{UPID:?}")),
        "GET /api2/json/cluster/ha/resources" => {
            data(r#"[{"sid":"ct:100"},{"sid":"vm:100","state":"started","group":"all","max_restart":"2"}]"#)
        }
        "GET /api2/json/nodes/pve1/qemu/100/firewall/options" => data(r#"{"enable":1,"policy_in":"DROP","digest":"x"}"#),
        "GET /api2/json/nodes/pve1/qemu/100/firewall/rules" => data(
            r#"[{"pos":1,"type":"in","action":"ACCEPT","dport":"6443"},{"pos":0,"type":"group","action":"web","enable":1}]"#,
        ),
        line if line.ends_with("/aliases") => data("[]"),
        line if line.ends_with("/ipset") => data(r#"[{"name":"admins"}]"#),
        _ => data("null"),
    })
    .await;
    let pve = pve(&server);
    pve.migrate_vm(&vm(), &"pve2".into(), None).await.unwrap();
    let resource = pve.ha_resource(VmId(100)).await.unwrap().unwrap();
    assert_eq!((resource.group.as_deref(), resource.max_restart), (Some("all"), Some(2)));
    assert!(pve.ha_resource(VmId(101)).await.unwrap().is_none());
    let order = HaOrder { state: "started".into(), group: Some("all".into()), ..HaOrder::default() };
    pve.add_ha(VmId(100), &order).await.unwrap();
    pve.set_ha_state(VmId(100), "ignored").await.unwrap();
    pve.remove_ha(VmId(100)).await.unwrap();
    let firewall = pve.vm_firewall(&vm()).await.unwrap();
    assert_eq!(firewall.options, keys(&[("enable", "1"), ("policy_in", "DROP")]));
    assert_eq!(firewall.rules[0], keys(&[("action", "web"), ("enable", "1"), ("type", "group")]));
    assert_eq!(firewall.names, ["admins"]);
    pve.add_firewall_rule(&vm(), &firewall.rules[1]).await.unwrap();
    pve.set_firewall_options(&vm(), &firewall.options).await.unwrap();
    let sent = server.heard();
    let sent = sent.iter().filter(|heard| !heard.line().starts_with("GET"));
    let sent: Vec<String> =
        sent.map(|heard| format!("{} [{}]", heard.line().replacen("/api2/json", "", 1), heard.body)).collect();
    assert_eq!(
        sent,
        [
            "POST /nodes/pve1/qemu/100/migrate [target=pve2&with-local-disks=1]",
            "POST /cluster/ha/resources [sid=vm%3A100&state=started&group=all]",
            "PUT /cluster/ha/resources/vm%3A100 [state=ignored]",
            "DELETE /cluster/ha/resources/vm%3A100 []",
            "POST /nodes/pve1/qemu/100/firewall/rules [action=ACCEPT&dport=6443&type=in]",
            "PUT /nodes/pve1/qemu/100/firewall/options [enable=1&policy_in=DROP]",
        ]
    );
}

#[tokio::test]
async fn an_upload_ends_at_its_closing_delimiter_and_has_its_exact_length() {
    let server = answering("\"UPID:pve1:000010BD:00053CB8:6B00DCE1:imgcopy::ci@pve!full:\"").await;
    let upload = Upload {
        node: "pve1".into(),
        storage: "local".into(),
        kind: UploadKind::Import,
        file: "recast-1.qcow2".to_owned(),
        size: 10,
        sha256: Some(Sha256([0xab; 32])),
    };
    let bytes = |pieces: &'static [&'static str]| {
        stream::iter(pieces.iter().map(|piece| io::Result::Ok(Bytes::from_static(piece.as_bytes()))))
    };
    let pve = pve(&server);
    let upid = pve.upload(&upload, bytes(&["0123", "456789"]), &Silent).await.unwrap();
    assert_eq!(upid.kind, "imgcopy");
    let heard = server.heard().remove(0);
    assert_eq!(heard.line(), "POST /api2/json/nodes/pve1/storage/local/upload");
    let boundary =
        heard.header("content-type").unwrap().strip_prefix("multipart/form-data; boundary=").unwrap().to_owned();
    let sha = "ab".repeat(32);
    let expected = format!(
        "--{boundary}\r\nContent-Disposition: form-data; name=\"content\"\r\n\r\nimport\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"checksum-algorithm\"\r\n\r\nsha256\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"checksum\"\r\n\r\n{sha}\r\n\
         --{boundary}\r\nContent-Disposition: form-data; name=\"filename\"; filename=\"recast-1.qcow2\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n0123456789\r\n--{boundary}--"
    );
    assert_eq!(heard.body, expected);
    assert_eq!(heard.header("content-length"), Some(expected.len().to_string().as_str()));
    assert_eq!(heard.header("transfer-encoding"), None);
    assert_eq!(upload.volume().as_str(), "local:import/recast-1.qcow2");

    for wrong in [bytes(&["0123"]), bytes(&["0123", "45678901"])] {
        let error = pve.upload(&upload, wrong, &Silent).await.unwrap_err();
        assert!(matches!(error, PveError::Upload(_)), "{error:?}");
    }
    let named = Upload { file: "a\"b.raw".to_owned(), ..upload };
    assert!(matches!(pve.upload(&named, bytes(&[]), &Silent).await, Err(PveError::Setup { .. })));
    assert_eq!(server.heard().len(), 1);
}

#[tokio::test]
async fn reads_go_to_the_next_endpoint_and_writes_never_do() {
    let server = answering(r#"{"version":"8.4.21","release":"8.4"}"#).await;
    let options = || async { Options::new(vec![dead().await, endpoint(&server)], token()) };
    let write_first = Pve::new(&connector(), options().await).unwrap();
    let error = write_first.start_vm(&vm()).await.unwrap_err();
    assert!(matches!(error, PveError::Unreachable(_)) && !error.is_ambiguous(), "{error:?}");
    assert!(server.heard().is_empty());
    let read_first = Pve::new(&connector(), options().await).unwrap();
    assert!(read_first.version().await.unwrap().imports_images());
    // The endpoint that answered is the one for what follows, writes too.
    read_first.change_vm_now(&vm(), &Change::default()).await.unwrap();
    assert_eq!(server.lines(), ["GET /api2/json/version", "PUT /api2/json/nodes/pve1/qemu/100/config"]);
}

#[tokio::test]
async fn a_reset_read_is_repeated_once_and_a_reset_write_is_an_unknown_outcome() {
    let server = Server::start(|heard, before| match (heard.line(), before) {
        ("GET /api2/json/version", 1) => data(r#"{"version":"8.4.21"}"#),
        _ => Reaction::Reset,
    })
    .await;
    let pve = pve(&server);
    pve.version().await.unwrap();
    assert_eq!(server.lines(), ["GET /api2/json/version"; 2]);
    let error = pve.start_vm(&vm()).await.unwrap_err();
    assert!(matches!(error, PveError::Unanswered { .. }) && error.is_ambiguous(), "{error:?}");
    assert_eq!(server.heard().len(), 3);
    assert!(matches!(pve.nodes().await, Err(PveError::Unreachable(_))));
    assert_eq!(server.heard().len(), 5);
}

#[tokio::test]
async fn an_answer_lost_between_nodes_is_unknown_for_writes_and_transient_for_reads() {
    let server = Server::start(|_, _| Reaction::Answer("596 Broken pipe", String::new())).await;
    let pve = pve(&server);
    match pve.start_vm(&vm()).await.unwrap_err() {
        PveError::Unanswered { why, .. } => assert_eq!(why, "596 Broken pipe"),
        error => panic!("{error:?}"),
    }
    let error = pve.vm_status(&vm()).await.unwrap_err();
    assert!(matches!(error, PveError::NodeDown { status: 596, .. }) && error.is_transient());
}

#[tokio::test]
async fn a_changed_certificate_is_an_error_and_not_stepped_around() {
    let (changed, other) = (answering("[]").await, answering("[]").await);
    let pinned = Fingerprint(Sha256([1; 32]));
    let first = Endpoint { trust: Trust::Fingerprint(pinned), ..endpoint(&changed) };
    let pve = Pve::new(&connector(), Options::new(vec![first, endpoint(&other)], token())).unwrap();
    match pve.nodes().await.unwrap_err() {
        PveError::Pin { mismatch, .. } => {
            assert_eq!(mismatch.expected, pinned.to_string());
            assert_eq!(mismatch.found, Fingerprint::of(&changed.certificate).to_string());
        }
        error => panic!("{error:?}"),
    }
    let stranger = Endpoint { trust: Trust::Authorities(vec![other.authority.clone()]), ..endpoint(&changed) };
    let pve = Pve::new(&connector(), Options::new(vec![stranger, endpoint(&other)], token())).unwrap();
    let error = pve.nodes().await.unwrap_err();
    assert!(matches!(error, PveError::Untrusted(_)) && !error.is_transient(), "{error:?}");
    assert!(changed.heard().is_empty() && other.heard().is_empty());
    assert_eq!(pve.at(endpoint(&other)).unwrap().nodes().await.unwrap().len(), 0);
}

fn ticket(number: usize) -> Reaction {
    data(&format!(
        r#"{{"ticket":"PVE:root@pam:{number:08X}::sig/+=","CSRFPreventionToken":"csrf{number}","username":"root@pam"}}"#
    ))
}

fn with_password(server: &Server, renew_after: Duration) -> Pve {
    let auth = Auth::Password { user: "root@pam".to_owned(), password: "test-password".into() };
    let options = Options { renew_after, ..Options::new(vec![endpoint(server)], auth) };
    Pve::new(&connector(), options).unwrap()
}

#[tokio::test]
async fn a_login_gives_cookie_and_csrf_and_is_renewed_with_its_ticket() {
    let react = |heard: &Heard, before| if heard.line().ends_with("/ticket") { ticket(before) } else { data("null") };
    let server = Server::start(react).await;
    let pve = with_password(&server, Duration::from_hours(1));
    pve.change_vm_now(&vm(), &Change::default()).await.unwrap();
    pve.change_vm_now(&vm(), &Change::default()).await.unwrap();
    let heard = server.heard();
    assert_eq!(heard.len(), 3, "one login serves many calls");
    assert_eq!(heard[0].body, "username=root%40pam&password=test-password");
    assert_eq!(heard[1].header("cookie"), Some("PVEAuthCookie=PVE:root@pam:00000000::sig/+="));
    assert_eq!(heard[1].header("csrfpreventiontoken"), Some("csrf0"));

    let renewing = with_password(&server, Duration::ZERO);
    renewing.change_vm_now(&vm(), &Change::default()).await.unwrap();
    renewing.change_vm_now(&vm(), &Change::default()).await.unwrap();
    let bodies: Vec<String> = server.heard()[3..]
        .iter()
        .filter(|heard| heard.line().ends_with("/ticket"))
        .map(|heard| heard.body.clone())
        .collect();
    assert_eq!(
        bodies,
        [
            "username=root%40pam&password=test-password",
            "username=root%40pam&password=PVE%3Aroot%40pam%3A00000003%3A%3Asig%2F%2B%3D",
        ]
    );
}

#[tokio::test]
async fn a_refused_ticket_is_replaced_once_by_a_new_login() {
    let server = Server::start(|heard, before| match (heard.line().ends_with("/ticket"), before) {
        (true, _) => ticket(before),
        (false, 3) => data(r#"{"version":"8.4.21"}"#),
        _ => Reaction::Answer("401 Authentication failed!", String::new()),
    })
    .await;
    let pve = with_password(&server, Duration::from_hours(1));
    pve.version().await.unwrap();
    assert_eq!(server.heard()[3].header("cookie"), Some("PVEAuthCookie=PVE:root@pam:00000002::sig/+="));
    assert!(matches!(pve.version().await, Err(PveError::Unauthorized { .. })));
    assert_eq!(server.heard().len(), 7);
}

#[test]
fn calls_can_be_spawned() {
    fn assert_send(_: &impl Send) {}
    let _ = |pve: &Pve, upload: &Upload, upid: &Upid| {
        assert_send(&pve.version());
        assert_send(&pve.wait(upid, quick()));
        assert_send(&pve.upload(upload, stream::empty(), &Silent));
    };
}

#[tokio::test]
async fn a_login_that_gets_lost_is_no_unknown_outcome() {
    let server = Server::start(|_, _| Reaction::Answer("596 Connection timed out", String::new())).await;
    let error = with_password(&server, Duration::from_secs(1)).start_vm(&vm()).await.unwrap_err();
    assert!(matches!(error, PveError::NodeDown { .. }) && !error.is_ambiguous(), "{error:?}");
    assert_eq!(server.lines(), ["POST /api2/json/access/ticket"]);
}

#[test]
fn nothing_that_is_shown_or_logged_holds_a_secret() {
    let secrets = ["test-password", "proxy-password", "00000000-0000"];
    let user = Auth::Password { user: "root@pam".to_owned(), password: "test-password".into() };
    let proxy = crate::net::Proxy { https: "http://me:proxy-password@127.0.0.1:1".to_owned(), no: String::new() };
    let shown = format!("{:?} {:?} {proxy:?}", Options::new(Vec::new(), token()), user);
    assert!(secrets.iter().all(|secret| !shown.contains(secret)), "{shown}");
}

#[tokio::test]
async fn wrong_passwords_and_second_factors_are_told_apart() {
    let wrong =
        Server::start(|_, _| Reaction::Answer("401 authentication failure", r#"{"data":null}"#.to_owned())).await;
    let error = with_password(&wrong, Duration::from_secs(1)).version().await.unwrap_err();
    assert!(matches!(&error, PveError::Unauthorized { reason } if reason == "authentication failure"), "{error:?}");
    let half = answering(r#"{"ticket":"PVE:!tfa!%7B%7D:0::x","NeedTFA":1,"username":"root@pam"}"#).await;
    assert!(matches!(with_password(&half, Duration::from_secs(1)).version().await, Err(PveError::SecondFactor)));
}

fn quick() -> Wait {
    Wait { poll: Duration::from_millis(1), within: Duration::from_secs(20) }
}

fn unknown_task() -> Reaction {
    let body = r#"{"data":null,"errors":{"upid":"no such task"}}"#;
    Reaction::Answer("400 Parameter verification failed.", body.to_owned())
}

#[tokio::test]
async fn waiting_outlives_resets_lost_answers_and_a_task_that_is_not_known_yet() {
    let server = Server::start(|_, before| match before {
        0 => unknown_task(),
        1 => Reaction::Answer("599 Too many redirections", String::new()),
        2..=3 => Reaction::Reset,
        4 => data(r#"{"status":"running"}"#),
        _ => data(r#"{"status":"stopped","exitstatus":"OK"}"#),
    })
    .await;
    let upid: Upid = UPID.parse().unwrap();
    assert_eq!(pve(&server).wait(&upid, quick()).await.unwrap(), Ended::Ok);
    let at = "GET /api2/json/nodes/pve1/tasks/UPID%3Apve1%3A000007DF%3A000508AF%3A6B00DC5C%3Aqmstart%3A100%3Aci%40pve%21full%3A/status";
    assert!(server.lines().iter().all(|line| line == at), "{:?}", server.lines());
}

#[tokio::test]
async fn warnings_are_success_and_failures_carry_meaning_and_log() {
    let scripted = |exit: &'static str, log: &'static str| async move {
        let server = Server::start(move |heard, _| {
            if heard.line().contains("/log") {
                data(log)
            } else {
                data(&format!(r#"{{"status":"stopped","exitstatus":{exit:?}}}"#))
            }
        })
        .await;
        pve(&server).wait(&UPID.parse().unwrap(), quick()).await
    };
    let log = r#"[{"n":1,"t":"start"},{"n":2,"t":"WARN: no space"},{"n":3,"t":"TASK WARNINGS: 1"}]"#;
    assert_eq!(scripted("WARNINGS: 1", log).await.unwrap(), Ended::Warnings(vec!["WARN: no space".to_owned()]));

    let log = r#"[{"n":1,"t":"TASK ERROR: VM 100 already running"}]"#;
    let error = scripted("VM 100 already running", log).await.unwrap_err();
    assert!(matches!(error.meaning(), PveError::Running { .. }));
    assert_eq!(error.to_string(), "task qmstart failed");
    match error {
        PveError::Task(failure) => assert_eq!(failure.log, ["TASK ERROR: VM 100 already running"]),
        error => panic!("{error:?}"),
    }
    // The log of a task that is unknown is an object (PVE 8.4).
    let error = scripted("unexpected status", r#"{"n":1,"t":"unable to open file"}"#).await.unwrap_err();
    assert!(matches!(error.meaning(), PveError::Other { .. }));
}

#[tokio::test]
async fn a_task_that_does_not_end_in_time_is_ambiguous() {
    let server = answering(r#"{"status":"running"}"#).await;
    let wait = Wait { within: Duration::ZERO, ..quick() };
    let error = pve(&server).wait(&UPID.parse().unwrap(), wait).await.unwrap_err();
    assert!(matches!(error, PveError::TaskTimeout { .. }) && error.is_ambiguous());
}

#[tokio::test]
async fn lists_are_read_with_all_their_gaps() {
    let server = Server::start(|heard, _| match heard.line().trim_start_matches("GET /api2/json") {
        "/cluster/resources?type=vm" => data(
            r#"[{"id":"qemu/100","type":"qemu","vmid":100,"node":"pve1","status":"unknown","tags":"B;a"},
                {"id":"lxc/101","type":"lxc","vmid":"101","node":"pve1","name":"ct","template":0}]"#,
        ),
        "/nodes/pve1/qemu" => data(r#"[{"vmid":101,"name":"tpl","status":"stopped","template":1},{"vmid":102,"status":"running"}]"#),
        "/cluster/nextid" => data("\"103\""),
        "/cluster/nextid?vmid=100" => Reaction::Answer(
            "400 Parameter verification failed.",
            r#"{"data":null,"errors":{"vmid":"VM 100 already exists"}}"#.to_owned(),
        ),
        "/access/permissions?path=%2Fvms%2F100" => data(r#"{"/vms/100":{"VM.Audit":1,"VM.Config.Disk":0}}"#),
        "/cluster/status" => data(r#"[{"nodeid":0,"type":"node","id":"node/pve1","ip":"192.0.2.2","online":1,"name":"pve1","local":1}]"#),
        "/nodes/pve1/storage" => data(
            r#"[{"storage":"local","type":"dir","content":"vztmpl,import,iso","shared":0,"enabled":1,"active":1,"avail":75916951552,"total":270553174016}]"#,
        ),
        "/nodes/pve1/qemu/100/status/current" => data(r#"{"vmid":100,"status":"stopped","qmpstatus":"stopped","ha":{"managed":1},"uptime":0}"#),
        "/nodes/pve1/storage/local/content?content=import" => data(r#"[{"volid":"local:import/t.raw","content":"import","format":"raw","size":"1048576","parent":null}]"#),
        "/cluster/replication" => data(r#"[{"id":"100-0","guest":"100","target":"pve2","type":"local"}]"#),
        "/cluster/backup" => data(r#"[{"id":"backup-1","vmid":"100,101","enabled":1}]"#),
        other => panic!("{other}"),
    })
    .await;
    let (pve, node) = (pve(&server), "pve1".into());
    let guests = pve.guests().await.unwrap();
    assert_eq!((guests[0].name.as_deref(), guests[0].template, guests[1].template), (None, None, Some(false)));
    assert!(guests[0].tags().contains_all(["a", "b"]));
    let vms = pve.vms(&node).await.unwrap();
    assert_eq!((vms[0].template, vms[1].template), (true, false));
    assert_eq!(pve.next_vmid().await.unwrap(), VmId(103));
    assert!(!pve.is_free(VmId(100)).await.unwrap());
    let rights = pve.rights("/vms/100").await.unwrap();
    assert_eq!(rights.missing(&["VM.Audit", "VM.Config.Disk", "VM.Clone"]), ["VM.Clone"]);
    let status = pve.cluster_status().await.unwrap();
    assert!(status.quorate && status.name.is_none() && status.members[0].local);
    assert!(pve.node_storages(&node).await.unwrap()[0].takes("import"));
    let status = pve.vm_status(&vm()).await.unwrap();
    assert!(status.is_stopped() && status.is_ha_managed());
    let volumes = pve.volumes(&node, &"local".into(), Some("import"), None).await.unwrap();
    assert_eq!((volumes[0].size, volumes[0].vmid()), (Some(1_048_576), None));
    assert_eq!(pve.replication_jobs().await.unwrap()[0].vmid(), Some(VmId(100)));
    assert!(pve.backup_jobs().await.unwrap()[0].names(VmId(101)));
}
