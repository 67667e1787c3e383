//! What a cluster says of things that nobody set up: ACME, Ceph, notifications, metric servers.
//!
//! Fresh installations answer so; what is there from the beginning is shown, the rest is refused or empty as it is there
//! (Proxmox VE 8.4, PVE/API2/{ACMEAccount,ACMEPlugin}.pm, PVE/API2/Cluster/…).

use serde_json::{Value, json};

use super::ha::{job_id, no_job};
use crate::pve::call::{Answer, Call, Result};
use crate::world::config::digest_of;
use crate::world::refusal::Refusal;

fn index(key: &str, names: &[&str]) -> Result {
    Ok(names.iter().map(|name| json!({key: name})).collect::<Vec<_>>().into())
}

/// `GET /cluster/acme`
pub(in crate::pve) fn acme(_: &Call) -> Result {
    index("name", &["account", "tos", "meta", "directories", "plugins", "challenge-schema"])
}

/// `GET /cluster/acme/account/{name}`
pub(in crate::pve) fn account(call: &Call) -> Result {
    let name = call.text("name");
    Err(Refusal::param("name", format!("ACME account config file '{name}' does not exist.")))
}

/// `GET /cluster/acme/directories`
pub(in crate::pve) fn directories(_: &Call) -> Result {
    let known = [
        ("Let's Encrypt V2", "https://acme-v02.api.letsencrypt.org/directory"),
        ("Let's Encrypt V2 Staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
    ];
    Ok(known.iter().map(|(name, url)| json!({"name": name, "url": url})).collect::<Vec<_>>().into())
}

fn standalone() -> Value {
    json!({"plugin": "standalone", "type": "standalone", "digest": digest_of("")})
}

/// `GET /cluster/acme/plugins`
pub(in crate::pve) fn plugins(call: &Call) -> Result {
    let wanted = call.params.text("type").is_none_or(|kind| kind == "standalone");
    Ok(wanted.then(standalone).into_iter().collect::<Vec<_>>().into())
}

/// `GET /cluster/acme/plugins/{id}`
pub(in crate::pve) fn plugin(call: &Call) -> Result {
    match call.text("id") {
        "standalone" => Ok(standalone().into()),
        other => Err(Refusal::failed(format!("ACME plugin '{other}' not defined\n"))),
    }
}

/// `GET N/certificates/acme`
pub(in crate::pve) fn certificates(_: &Call) -> Result {
    index("name", &["certificate"])
}

/// `GET /cluster/ceph`
pub(in crate::pve) fn ceph(_: &Call) -> Result {
    index("name", &["metadata", "status", "flags"])
}

/// Whatever else is asked of Ceph: it isn't installed.
pub(in crate::pve) fn no_ceph(_: &Call) -> Result {
    Err(Refusal::failed("binary not installed: /usr/bin/ceph-mon\n"))
}

/// `GET /cluster/notifications`
pub(in crate::pve) fn notifications(_: &Call) -> Result {
    index("name", &["endpoints", "matchers", "targets", "matcher-fields", "matcher-field-values"])
}

/// `GET /cluster/notifications/endpoints`
pub(in crate::pve) fn endpoints(_: &Call) -> Result {
    index("name", &["gotify", "sendmail", "smtp", "webhook"])
}

const MAIL: &str = "mail-to-root";
const MAIL_COMMENT: &str = "Send mails to root@pam's email address";

/// `GET /cluster/notifications/endpoints/sendmail`
pub(in crate::pve) fn sendmail(_: &Call) -> Result {
    let one = json!({"name": MAIL, "comment": MAIL_COMMENT, "mailto-user": ["root@pam"], "origin": "builtin"});
    Ok(vec![one].into())
}

/// `GET /cluster/notifications/targets`
pub(in crate::pve) fn targets(_: &Call) -> Result {
    Ok(vec![json!({"name": MAIL, "type": "sendmail", "comment": MAIL_COMMENT, "origin": "builtin"})].into())
}

/// `GET /cluster/notifications/matchers`
pub(in crate::pve) fn matchers(_: &Call) -> Result {
    let comment = "Route all notifications to mail-to-root";
    let one = json!({
        "name": "default-matcher", "comment": comment, "mode": "all", "target": [MAIL], "origin": "builtin",
    });
    Ok(vec![one].into())
}

/// `GET /cluster/notifications/matcher-fields`
pub(in crate::pve) fn matcher_fields(_: &Call) -> Result {
    index("name", &["type", "hostname", "job-id"])
}

/// `GET /cluster/notifications/matcher-field-values`
pub(in crate::pve) fn matcher_values(call: &Call) -> Result {
    let state = call.world.state();
    let types = ["package-updates", "fencing", "replication", "vzdump", "system-mail"];
    let mut list: Vec<Value> = types.iter().map(|kind| json!({"value": kind, "field": "type"})).collect();
    let job = |job: &serde_json::Map<String, Value>| json!({"value": job.get("id"), "comment": job.get("comment"), "field": "job-id"});
    if state.may(&call.caller, "/", &["Sys.Audit"]) {
        list.extend(state.backup.iter().map(job));
    }
    list.extend(state.replication.iter().map(job));
    list.extend(state.nodes.keys().map(|node| json!({"value": node, "field": "hostname"})));
    Ok(list.into())
}

/// `GET /cluster/metrics/server/{id}`
pub(in crate::pve) fn metric_server(call: &Call) -> Result {
    Err(Refusal::failed(format!("status server entry '{}' does not exist\n", call.text("id"))))
}

/// `GET /cluster/jobs/realm-sync/{id}`
pub(in crate::pve) fn realm_sync(call: &Call) -> Result {
    Err(Refusal::param("id", format!("No such job '{}'", call.text("id"))))
}

/// `GET N/hardware/pci/{pci-id-or-mapping}`
pub(in crate::pve) fn device(_: &Call) -> Result {
    index("method", &["mdev"])
}

/// `GET N/sdn/zones/{zone}`
pub(in crate::pve) fn zone(_: &Call) -> Result {
    index("subdir", &["content"])
}

/// `GET N/replication/{id}`
pub(in crate::pve) fn replication(_: &Call) -> Result {
    index("name", &["schedule_now", "log", "status"])
}

/// `GET N/replication/{id}/log`: no job ever ran.
pub(in crate::pve) fn replication_log(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("id");
    let job = state.replication.iter().find(|job| job_id(job) == id).ok_or_else(|| no_job(id))?;
    let guest = job.get("guest").map(ToString::to_string).unwrap_or_default();
    if !state.may(&call.caller, &format!("/nodes/{}", call.node()), &["Sys.Audit"]) {
        state.check(&call.caller, &format!("/vms/{}", guest.trim_matches('"')), &["VM.Audit"])?;
    }
    Ok(Answer { data: json!([{"n": 1, "t": "no content"}]), total: Some(1), ..Answer::default() })
}
