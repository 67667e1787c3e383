//! What a cluster says of things that nobody can set up here, and indexes of what can be: ACME, Ceph, notifications.
//!
//! Fresh installations answer so (Proxmox VE 8.4, PVE/API2/Cluster/…).

use serde_json::{Value, json};

use crate::pve::call::{Call, Result};
use crate::world::refusal::Refusal;

fn index(key: &str, names: &[&str]) -> Result {
    Ok(names.iter().map(|name| json!({key: name})).collect::<Vec<_>>().into())
}

/// `GET /cluster/acme`
pub(in crate::pve) fn acme(_: &Call) -> Result {
    index("name", &["account", "tos", "meta", "directories", "plugins", "challenge-schema"])
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

/// `GET N/hardware/pci/{pci-id-or-mapping}`
pub(in crate::pve) fn device(_: &Call) -> Result {
    index("method", &["mdev"])
}

/// `GET N/sdn/zones/{zone}`
pub(in crate::pve) fn zone(_: &Call) -> Result {
    index("subdir", &["content"])
}
