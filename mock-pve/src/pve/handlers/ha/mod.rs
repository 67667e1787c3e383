//! `/cluster/ha/…`, `/cluster/replication`: one file per noun; here is what they share.

mod groups;
mod replication;
mod resources;
mod status;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(in crate::pve) use self::groups::{create_group, delete_group, group, groups, update_group};
pub(in crate::pve) use self::replication::{
    create_job, delete_job, job, job_index, job_log, job_status, on_node, replication, schedule_now, update_job,
};
pub(in crate::pve) use self::resources::{
    create_resource, delete_resource, migrate_resource, relocate_resource, resource, resources, update_resource,
};
pub(in crate::pve) use self::status::{index, manager, status, status_index};

use crate::pve::call::Call;
use crate::world::config::digest_of;
use crate::world::refusal::{Refusal, Rule};

type Object = Map<String, Value>;

fn with_digest(list: &BTreeMap<String, Object>, entry: &Object) -> Value {
    let mut entry = entry.clone();
    let text = serde_json::to_string(list).unwrap_or_default();
    entry.insert("digest".to_owned(), json!(digest_of(&text)));
    Value::Object(entry)
}

fn check_type(call: &Call, kind: &str) -> Rule<()> {
    match call.params.text("type") {
        Some(given) if given != kind => Err(Refusal::failed("types does not match\n")),
        _ => Ok(()),
    }
}

fn number(sid: &str) -> u32 {
    sid.trim_start_matches("vm:").parse().unwrap_or_default()
}

fn check_delete(call: &Call, known: &[&str], fixed: &[&str]) -> Rule<Vec<String>> {
    let delete = call.params.list("delete");
    for key in &delete {
        if fixed.contains(&key.as_str()) {
            return Err(Refusal::failed(format!("unable to delete required option '{key}'\n")));
        }
        if !known.contains(&key.as_str()) {
            return Err(Refusal::failed(format!("no such option '{key}'\n")));
        }
    }
    Ok(delete)
}

fn prefixed(prefix: &'static str) -> impl Fn(Refusal) -> Refusal {
    move |refusal| match refusal {
        Refusal::Failed(text) => Refusal::failed(format!("{prefix}: {text}")),
        other => other,
    }
}

fn check_digest(call: &Call, all: &BTreeMap<String, Object>) -> Rule<()> {
    let digest = digest_of(&serde_json::to_string(all).unwrap_or_default());
    match call.params.text("digest") {
        Some(wanted) if !wanted.is_empty() && wanted != digest => {
            let text = "detected modified configuration - file changed by other user? Try again.\n";
            Err(Refusal::failed(text))
        }
        _ => Ok(()),
    }
}
