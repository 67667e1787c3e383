//! `/cluster/replication`, `N/replication`.
//!
//! Rules after Proxmox VE 8.4 (PVE/API2/ReplicationConfig.pm, PVE/API2/Replication.pm).

use serde_json::{Value, json};

use super::{Object, check_delete};
use crate::pve::call::{Answer, Call, Result};
use crate::world::config::digest_of;
use crate::world::refusal::{Refusal, Rule};
use crate::world::replication::guest_of;
use crate::world::{PveVersion, State};

const OPTIONS: [&str; 6] = ["comment", "disable", "rate", "remove_job", "schedule", "source"];

fn job_id(job: &Object) -> &str {
    job.get("id").and_then(Value::as_str).unwrap_or_default()
}

fn no_job(id: &str) -> Refusal {
    Refusal::failed(format!("no such replication job '{id}'\n"))
}

fn find<'a>(state: &'a State, id: &str) -> Option<&'a Object> {
    state.replication.iter().find(|job| job_id(job) == id)
}

fn sees(call: &Call, state: &State, job: &Object) -> bool {
    state.may(&call.caller, &format!("/vms/{}", guest_of(job)), &["VM.Audit"])
}

/// `GET /cluster/replication`
pub(in crate::pve) fn replication(call: &Call) -> Result {
    let state = call.world.state();
    let jobs = state.replication.iter().filter(|job| sees(call, &state, job));
    Ok(jobs.cloned().map(Value::Object).collect::<Vec<_>>().into())
}

/// From release 9 on a right over the guest is what it takes to change its jobs.
fn check_replication(call: &Call, state: &State, guest: &str) -> Rule<()> {
    if state.pve == PveVersion::V8 {
        return Ok(());
    }
    state.check(&call.caller, &format!("/vms/{guest}"), &["VM.Replicate"])
}

fn digest(state: &State) -> String {
    digest_of(&serde_json::to_string(&state.replication).unwrap_or_default())
}

/// `GET /cluster/replication/{id}`
pub(in crate::pve) fn job(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("id");
    let job = find(&state, id).ok_or_else(|| no_job(id))?;
    state.check(&call.caller, &format!("/vms/{}", guest_of(job)), &["VM.Audit"])?;
    let mut shown = job.clone();
    shown.insert("digest".to_owned(), json!(digest(&state)));
    Ok(shown.into())
}

/// An option as the file's reader shows it.
fn option(key: &str, text: &str) -> Value {
    match key {
        "disable" => text.parse::<u64>().map_or_else(|_| json!(text), |number| json!(number)),
        "rate" => match text.parse::<f64>() {
            #[expect(clippy::cast_possible_truncation, reason = "a whole number of megabytes")]
            Ok(rate) if rate.fract() == 0.0 => json!(rate as i64),
            Ok(rate) => json!(rate),
            Err(_) => json!(text),
        },
        _ => json!(text),
    }
}

/// `POST /cluster/replication`
pub(in crate::pve) fn create_job(call: &Call) -> Result {
    let id = call.text("id").to_owned();
    let mut state = call.world.state();
    let guest: u32 = id.split('-').next().and_then(|guest| guest.parse().ok()).unwrap_or_default();
    let target = call.text("target").to_owned();
    check_replication(call, &state, &guest.to_string())?;
    let refuse = |text: String| Err(Refusal::failed(text));
    let Some(vm) = state.vms.get(&guest) else { return refuse(format!("Guest '{guest}' does not exist.\n")) };
    let node = vm.node.clone();
    if !state.nodes.contains_key(&target) {
        return refuse(format!("Target '{target}' does not exist.\n"));
    }
    if let Some(source) = call.params.text("source").filter(|source| *source != node) {
        let text = format!("Source '{source}' does not match current node of guest '{guest}' ({node})\n");
        return refuse(text);
    }
    if node == target {
        return refuse("Source and target must not be identical\n".to_owned());
    }
    if state.replicatable(guest)?.is_empty() {
        return refuse("No replicatable volumes found\n".to_owned());
    }
    if find(&state, &id).is_some() {
        return refuse(format!("replication job '{id}' already exists\n"));
    }
    let number: u64 = id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    let job = json!({"id": id, "type": "local", "guest": guest, "jobnum": number, "target": target, "source": node});
    let mut job = job.as_object().cloned().unwrap_or_default();
    for key in OPTIONS {
        if let Some(text) = call.params.text(key) {
            job.insert(key.to_owned(), option(key, text));
        }
    }
    state.replication.push(job);
    drop(state);
    call.world.reschedule();
    Ok(().into())
}

/// `PUT /cluster/replication/{id}`
pub(in crate::pve) fn update_job(call: &Call) -> Result {
    let id = call.text("id");
    let mut state = call.world.state();
    check_replication(call, &state, id.split('-').next().unwrap_or_default())?;
    if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != digest(&state)) {
        let text = "detected modified configuration - file changed by other user? Try again.\n";
        return Err(Refusal::failed(text));
    }
    let job = state.replication.iter_mut().find(|job| job_id(job) == id);
    let job = job.ok_or_else(|| Refusal::failed(format!("no such job '{id}'\n")))?;
    let delete = check_delete(call, &OPTIONS, &["target"])?;
    for key in OPTIONS {
        if let Some(text) = call.params.text(key) {
            job.insert(key.to_owned(), option(key, text));
        }
    }
    for key in delete {
        job.remove(&key);
    }
    drop(state);
    call.world.reschedule();
    Ok(().into())
}

/// `DELETE /cluster/replication/{id}`: marks the job; it is gone after its next run.
pub(in crate::pve) fn delete_job(call: &Call) -> Result {
    let id = call.text("id").to_owned();
    let mut state = call.world.state();
    check_replication(call, &state, id.split('-').next().unwrap_or_default())?;
    let keep = call.params.is_on("keep");
    if call.params.is_on("force") {
        if keep {
            return Err(Refusal::param("keep", "conflicts with parameter 'force'"));
        }
        state.replication.retain(|job| job_id(job) != id);
        state.forget_replication(&id);
        return Ok(().into());
    }
    let job = state.replication.iter_mut().find(|job| job_id(job) == id);
    let job = job.ok_or_else(|| Refusal::failed(format!("no such job '{id}'\n")))?;
    job.insert("remove_job".to_owned(), json!(if keep { "local" } else { "full" }));
    drop(state);
    let world = call.world.clone();
    tokio::spawn(async move {
        world.clock().sleep(60.0).await;
        let mut state = world.state();
        state.replication.retain(|job| job_id(job) != id || job.get("remove_job").is_none());
        state.forget_replication(&id);
    });
    Ok(().into())
}

/// The jobs of the guests on the node in the path.
fn here<'a>(call: &Call, state: &'a State) -> impl Iterator<Item = &'a Object> {
    let node = call.node();
    let on_node = move |job: &&Object| state.vms.get(&guest_of(job)).is_some_and(|vm| vm.node == node);
    state.replication.iter().filter(on_node)
}

/// `GET N/replication`
pub(in crate::pve) fn on_node(call: &Call) -> Result {
    let state = call.world.state();
    let wanted: Option<u32> = call.params.number("guest");
    let jobs = here(call, &state)
        .filter(|job| sees(call, &state, job) && wanted.is_none_or(|wanted| wanted == guest_of(job)))
        .map(|job| Value::Object(state.replication_status(job)));
    Ok(jobs.collect::<Vec<_>>().into())
}

/// `GET N/replication/{id}`
pub(in crate::pve) fn job_index(_: &Call) -> Result {
    let names = ["schedule_now", "log", "status"];
    Ok(names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into())
}

/// `GET N/replication/{id}/status`
pub(in crate::pve) fn job_status(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("id");
    let job = here(call, &state).find(|job| job_id(job) == id).ok_or_else(|| no_job(id))?;
    if !sees(call, &state, job) {
        return Err(Refusal::forbidden(""));
    }
    Ok(state.replication_status(job).into())
}

/// `GET N/replication/{id}/log`
pub(in crate::pve) fn job_log(call: &Call) -> Result {
    let state = call.world.state();
    let id = call.text("id");
    let job = find(&state, id).ok_or_else(|| no_job(id))?;
    if !sees(call, &state, job) && !state.may(&call.caller, &format!("/nodes/{}", call.node()), &["Sys.Audit"]) {
        return Err(Refusal::forbidden(""));
    }
    let lines = state.replication_log(id);
    if lines.is_empty() {
        return Ok(Answer { data: json!([{"n": 1, "t": "no content"}]), total: Some(1), ..Answer::default() });
    }
    let start = call.params.number("start").unwrap_or(0);
    let limit = call.params.number("limit").filter(|limit| *limit > 0).unwrap_or(50);
    let shown = lines.iter().enumerate().skip(start).take(limit);
    let data: Vec<Value> = shown.map(|(at, line)| json!({"n": at + 1, "t": line})).collect();
    Ok(Answer { data: data.into(), total: Some(lines.len()), ..Answer::default() })
}

/// `POST N/replication/{id}/schedule_now`
pub(in crate::pve) fn schedule_now(call: &Call) -> Result {
    let id = call.text("id");
    let mut state = call.world.state();
    check_replication(call, &state, id.split('-').next().unwrap_or_default())?;
    if find(&state, id).is_none() {
        return Err(no_job(id));
    }
    state.replicate_soon(id);
    drop(state);
    call.world.reschedule();
    Ok(().into())
}
