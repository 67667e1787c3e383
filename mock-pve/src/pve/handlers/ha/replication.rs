//! `/cluster/replication`, `N/replication`.

use serde_json::{Value, json};

use super::{Object, check_delete, prefixed};
use crate::pve::call::{Call, Result};
use crate::world::refusal::{Refusal, Rule};
use crate::world::{PveVersion, State};

fn guest_of(job: &Object) -> String {
    job.get("guest").map(ToString::to_string).unwrap_or_default().trim_matches('"').to_owned()
}

pub(in crate::pve::handlers) fn job_id(job: &Object) -> &str {
    job.get("id").and_then(Value::as_str).unwrap_or_default()
}

/// `GET /cluster/replication`
pub(in crate::pve) fn replication(call: &Call) -> Result {
    let state = call.world.state();
    let jobs = state
        .replication
        .iter()
        .filter(|job| state.may(&call.caller, &format!("/vms/{}", guest_of(job)), &["VM.Audit"]));
    Ok(jobs.cloned().map(Value::Object).collect::<Vec<_>>().into())
}

/// From release 9 on a right over the guest is what it takes to change its jobs.
fn check_replication(call: &Call, state: &State, guest: &str) -> Rule<()> {
    if state.pve == PveVersion::V8 {
        return Ok(());
    }
    state.check(&call.caller, &format!("/vms/{guest}"), &["VM.Replicate"])
}

pub(in crate::pve::handlers) fn no_job(id: &str) -> Refusal {
    Refusal::failed(format!("no such replication job '{id}'\n"))
}

/// `GET /cluster/replication/{id}`
pub(in crate::pve) fn job(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("id");
    let job = state.replication.iter().find(|job| job_id(job) == id).ok_or_else(|| no_job(id))?;
    state.check(&call.caller, &format!("/vms/{}", guest_of(job)), &["VM.Audit"])?;
    Ok(job.clone().into())
}

/// `POST /cluster/replication`
pub(in crate::pve) fn create_job(call: &Call) -> Result {
    let id = call.text("id").to_owned();
    let mut state = call.world.state();
    let guest: u32 = id.split('-').next().and_then(|guest| guest.parse().ok()).unwrap_or_default();
    let target = call.text("target").to_owned();
    check_replication(call, &state, &guest.to_string())?;
    state.check_node(&target)?;
    let Some(vm) = state.vms.get(&guest) else {
        return Err(Refusal::failed(format!("no such guest '{guest}'\n")));
    };
    if vm.node == target {
        return Err(Refusal::failed(format!(
            "create replication job failed: Source and target node are the same: '{target}'\n"
        )));
    }
    if state.replication.iter().any(|job| job_id(job) == id) {
        return Err(Refusal::failed(format!("create replication job failed: replication job '{id}' already exists\n")));
    }
    let number: u64 = id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let mut job = json!({
        "id": id, "type": "local", "guest": guest, "jobnum": number, "target": target, "source": vm.node,
    });
    for key in ["comment", "schedule", "rate"] {
        if let Some(value) = call.params.text(key) {
            job[key] = json!(value);
        }
    }
    if call.params.is_on("disable") {
        job["disable"] = json!(1);
    }
    state.replication.push(job.as_object().cloned().unwrap_or_default());
    Ok(().into())
}

/// `PUT /cluster/replication/{id}`
pub(in crate::pve) fn update_job(call: &Call) -> Result {
    let id = call.text("id");
    let mut state = call.world.state();
    check_replication(call, &state, id.split('-').next().unwrap_or_default())?;
    let failed = prefixed("update replication job failed");
    let job = state.replication.iter_mut().find(|job| job_id(job) == id).ok_or_else(|| failed(no_job(id)))?;
    let known = ["comment", "disable", "rate", "remove_job", "schedule", "source"];
    let delete = check_delete(call, &known, &["target"]).map_err(failed)?;
    for key in known {
        if let Some(text) = call.params.text(key) {
            let number = (key == "disable").then(|| text.parse::<u64>().ok()).flatten();
            job.insert(key.to_owned(), number.map_or_else(|| json!(text), |number| json!(number)));
        }
    }
    for key in delete {
        job.remove(&key);
    }
    Ok(().into())
}

/// `DELETE /cluster/replication/{id}`: marks the job; it is gone after its next run.
pub(in crate::pve) fn delete_job(call: &Call) -> Result {
    let id = call.text("id").to_owned();
    {
        let mut state = call.world.state();
        check_replication(call, &state, id.split('-').next().unwrap_or_default())?;
        let job = state.replication.iter_mut().find(|job| job_id(job) == id).ok_or_else(|| no_job(&id))?;
        job.insert("remove_job".to_owned(), json!("full"));
    }
    let world = call.world.clone();
    let wait = if call.params.is_on("force") { 0.0 } else { 60.0 };
    tokio::spawn(async move {
        world.clock().sleep(wait).await;
        world.state().replication.retain(|job| job_id(job) != id || job.get("remove_job").is_none());
    });
    Ok(().into())
}

/// `GET N/replication`
pub(in crate::pve) fn on_node(call: &Call) -> Result {
    let node = call.node();
    let state = call.world.state();
    let jobs = state.replication.iter().filter(|job| {
        let guest = guest_of(job);
        let here = guest.parse().ok().and_then(|vmid: u32| state.vms.get(&vmid)).is_some_and(|vm| vm.node == node);
        here && state.may(&call.caller, &format!("/vms/{guest}"), &["VM.Audit"])
            && call.params.text("guest").is_none_or(|wanted| wanted == guest)
    });
    Ok(jobs.cloned().map(Value::Object).collect::<Vec<_>>().into())
}
