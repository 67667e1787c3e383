//! `/cluster/ha/…`, `/cluster/replication`.

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::config::digest_of;
use crate::world::refusal::{Refusal, Rule};
use crate::world::{PveVersion, State};

type Object = Map<String, Value>;

fn with_digest(list: &std::collections::BTreeMap<String, Object>, entry: &Object) -> Value {
    let mut entry = entry.clone();
    let text = serde_json::to_string(list).unwrap_or_default();
    entry.insert("digest".to_owned(), json!(digest_of(&text)));
    Value::Object(entry)
}

/// `GET /cluster/ha/resources`
pub(in crate::pve) fn resources(call: &Call) -> Result {
    let state = call.world.state();
    Ok(state.ha.values().map(|entry| with_digest(&state.ha, entry)).collect::<Vec<_>>().into())
}

/// What is meant by a service id: a bare number is that of a guest that exists.
fn service_id(call: &Call) -> Rule<String> {
    let sid = call.text("sid");
    if let Ok(vmid) = sid.parse::<u32>() {
        if !call.world.state().vms.contains_key(&vmid) {
            let text = format!("unable do detect SID from VMID - VM/CT {vmid} does not exist\n");
            return Err(Refusal::failed(text));
        }
        return Ok(format!("vm:{vmid}"));
    }
    match sid.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() => Ok(sid.to_owned()),
        _ => Err(Refusal::failed(format!("unable to parse service id '{sid}'\n"))),
    }
}

fn number(sid: &str) -> u32 {
    sid.trim_start_matches("vm:").parse().unwrap_or_default()
}

/// `GET /cluster/ha/resources/{sid}`
pub(in crate::pve) fn resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    let state = call.world.state();
    match state.ha.get(&sid) {
        Some(resource) => Ok(with_digest(&state.ha, resource).into()),
        None => Err(Refusal::failed(format!("no such resource '{sid}'\n"))),
    }
}

/// `POST /cluster/ha/resources`
pub(in crate::pve) fn create_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    let (kind, name) = sid.split_once(':').unwrap_or_default();
    check_type(call, kind)?;
    if !matches!(kind, "vm" | "ct") {
        return Err(Refusal::failed(format!("unknown section type '{kind}'\n")));
    }
    if name.len() < 2 || name.starts_with('0') || !name.chars().all(|c| c.is_ascii_digit()) {
        return Err(Refusal::failed("invalid VMID\n"));
    }
    let mut state = call.world.state();
    check_group(call, &state)?;
    if !state.vms.contains_key(&number(&sid)) || kind == "ct" {
        return Err(Refusal::failed(format!("resource '{sid}' does not exist in cluster\n")));
    }
    if state.ha.contains_key(&sid) {
        return Err(Refusal::failed(format!("create resource failed: resource ID '{sid}' already defined\n")));
    }
    let mut resource = json!({"sid": sid, "type": "vm"}).as_object().cloned().unwrap_or_default();
    set_resource(call, &mut resource);
    state.ha.insert(sid.clone(), resource);
    drop(state);
    call.world.forget_service(number(&sid));
    Ok(().into())
}

fn check_type(call: &Call, kind: &str) -> Rule<()> {
    match call.params.text("type") {
        Some(given) if given != kind => Err(Refusal::failed("types does not match\n")),
        _ => Ok(()),
    }
}

fn check_group(call: &Call, state: &State) -> Rule<()> {
    match call.params.text("group") {
        Some(_) if state.pve == PveVersion::V9 => {
            Err(Refusal::failed("invalid parameter 'group': ha groups have been migrated to rules\n"))
        }
        // A new resource may name a group that is yet to come.
        Some(group)
            if call.params.text("sid").is_some_and(|sid| state.ha.contains_key(sid))
                && !state.ha_groups.contains_key(group) =>
        {
            Err(Refusal::failed(format!("HA group '{group}' does not exist\n")))
        }
        _ => Ok(()),
    }
}

fn set_resource(call: &Call, resource: &mut Object) {
    for key in ["state", "max_restart", "max_relocate", "comment", "group", "failback"] {
        if let Some(value) = call.params.text(key) {
            let value = if value == "enabled" { "started" } else { value };
            let number = value.parse::<i64>().ok().filter(|_| !matches!(key, "comment" | "group" | "state"));
            let value = number.map_or_else(|| json!(value), |number| json!(number));
            resource.insert(key.to_owned(), value);
        }
    }
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

fn check_digest(call: &Call, all: &std::collections::BTreeMap<String, Object>) -> Rule<()> {
    let digest = digest_of(&serde_json::to_string(all).unwrap_or_default());
    match call.params.text("digest") {
        Some(wanted) if !wanted.is_empty() && wanted != digest => {
            let text = "detected modified configuration - file changed by other user? Try again.\n";
            Err(Refusal::failed(text))
        }
        _ => Ok(()),
    }
}

/// `PUT /cluster/ha/resources/{sid}`
pub(in crate::pve) fn update_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    check_type(call, sid.split(':').next().unwrap_or_default())?;
    let mut state = call.world.state();
    check_group(call, &state)?;
    let failed = prefixed("update resources config failed");
    check_digest(call, &state.ha).map_err(&failed)?;
    let Some(resource) = state.ha.get_mut(&sid) else {
        return Err(failed(Refusal::failed(format!("no such resource '{sid}'\n"))));
    };
    let known = ["state", "group", "max_restart", "max_relocate", "comment", "failback"];
    let delete = check_delete(call, &known, &[]).map_err(failed)?;
    set_resource(call, resource);
    for key in delete {
        resource.remove(&key);
    }
    Ok(().into())
}

/// `DELETE /cluster/ha/resources/{sid}`
pub(in crate::pve) fn delete_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    {
        let mut state = call.world.state();
        if state.ha.remove(&sid).is_none() {
            return Err(Refusal::failed(format!("cannot delete service '{sid}', not HA managed!\n")));
        }
        if call.params.text("purge") != Some("0") {
            state.forget_in_rules(&sid);
        }
    }
    call.world.forget_service(number(&sid));
    Ok(().into())
}

/// `POST /cluster/ha/resources/{sid}/migrate`, `…/relocate`
pub(in crate::pve) fn migrate_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    let target = call.text("node").to_owned();
    {
        let state = call.world.state();
        state.check_node(&target)?;
        if !state.ha.contains_key(&sid) {
            return Err(Refusal::failed(format!("resource '{sid}' is not HA managed\n")));
        }
    }
    call.world.ask_ha_migration(number(&sid), target.clone());
    Ok(json!({"sid": sid, "requested-node": target}).into())
}

/// There are no groups any more from release 9 on.
fn refuse_groups(call: &Call, doing: &str) -> Rule<()> {
    if call.world.state().pve == PveVersion::V9 {
        return Err(Refusal::failed(format!("cannot {doing}: ha groups have been migrated to rules\n")));
    }
    Ok(())
}

/// `GET /cluster/ha/groups`
pub(in crate::pve) fn groups(call: &Call) -> Result {
    refuse_groups(call, "index groups")?;
    let state = call.world.state();
    Ok(state.ha_groups.values().map(|entry| with_digest(&state.ha_groups, entry)).collect::<Vec<_>>().into())
}

fn no_group(name: &str) -> Refusal {
    Refusal::failed(format!("no such ha group '{name}'\n"))
}

/// `GET /cluster/ha/groups/{group}`
pub(in crate::pve) fn group(call: &Call) -> Result {
    refuse_groups(call, "read group")?;
    let state = call.world.state();
    let name = call.text("group");
    let found = state.ha_groups.get(name).ok_or_else(|| no_group(name))?;
    Ok(with_digest(&state.ha_groups, found).into())
}

fn set_group(call: &Call, group: &mut Object) {
    for key in ["comment", "nodes"] {
        if let Some(value) = call.params.text(key) {
            group.insert(key.to_owned(), json!(value));
        }
    }
    for key in ["nofailback", "restricted"] {
        if let Some(value) = call.params.number::<u8>(key) {
            group.insert(key.to_owned(), json!(value));
        }
    }
}

/// `POST /cluster/ha/groups`
pub(in crate::pve) fn create_group(call: &Call) -> Result {
    refuse_groups(call, "create group")?;
    check_type(call, "group")?;
    let name = call.text("group").to_owned();
    let mut state = call.world.state();
    if state.ha_groups.contains_key(&name) {
        return Err(Refusal::failed(format!("create ha group failed: ha group ID '{name}' already defined\n")));
    }
    let mut group = json!({"group": name, "type": "group"}).as_object().cloned().unwrap_or_default();
    set_group(call, &mut group);
    state.ha_groups.insert(name, group);
    Ok(().into())
}

/// `PUT /cluster/ha/groups/{group}`
pub(in crate::pve) fn update_group(call: &Call) -> Result {
    refuse_groups(call, "update group")?;
    let mut state = call.world.state();
    let name = call.text("group");
    let failed = prefixed("update ha group failed");
    check_digest(call, &state.ha_groups).map_err(&failed)?;
    let group = state.ha_groups.get_mut(name).ok_or_else(|| failed(no_group(name)))?;
    let delete = check_delete(call, &["comment", "nofailback", "restricted"], &["nodes"]).map_err(failed)?;
    set_group(call, group);
    for key in delete {
        group.remove(&key);
    }
    Ok(().into())
}

/// `DELETE /cluster/ha/groups/{group}`
pub(in crate::pve) fn delete_group(call: &Call) -> Result {
    refuse_groups(call, "delete group")?;
    let mut state = call.world.state();
    let name = call.text("group");
    let used = state.ha.iter().find(|(_, entry)| entry.get("group").and_then(Value::as_str) == Some(name));
    if let Some((sid, _)) = used {
        return Err(Refusal::failed(format!("delete ha group failed: ha group is used by service '{sid}'\n")));
    }
    state.ha_groups.remove(name);
    Ok(().into())
}

/// `GET /cluster/ha`
pub(in crate::pve) fn index(call: &Call) -> Result {
    let last = if call.world.state().pve == PveVersion::V9 { "rules" } else { "groups" };
    let names = ["status", "resources", last];
    Ok(names.iter().map(|name| json!({"id": name})).collect::<Vec<_>>().into())
}

/// `GET /cluster/ha/status`
pub(in crate::pve) fn status_index(_: &Call) -> Result {
    Ok(["current", "manager_status"].iter().map(|name| json!({"name": name})).collect::<Vec<_>>().into())
}

fn master(state: &State) -> String {
    state.nodes.keys().find(|name| state.is_online(name)).cloned().unwrap_or_default()
}

/// `GET /cluster/ha/status/current`
pub(in crate::pve) fn status(call: &Call) -> Result {
    let state = call.world.state();
    let quorate = state.is_quorate();
    let mut list = vec![json!({
        "id": "quorum", "type": "quorum", "node": call.local, "quorate": u8::from(quorate),
        "status": if quorate { "OK" } else { "No quorum on node" },
    })];
    let now = call.world.clock().unix();
    if !state.ha.is_empty() {
        let master = master(&state);
        list.push(json!({
            "id": "master", "type": "master", "node": master, "timestamp": now, "status": format!("{master} (active, {})", clock()),
        }));
        for name in state.nodes.keys() {
            let busy = state.vms.iter().any(|(vmid, vm)| vm.node == *name && state.is_ha_managed(*vmid));
            let mood = match (state.is_online(name), busy) {
                (false, _) => "old timestamp - dead?",
                (true, true) => "active",
                (true, false) => "idle",
            };
            list.push(json!({
                "id": format!("lrm:{name}"), "type": "lrm", "node": name, "timestamp": now,
                "status": format!("{name} ({mood}, {})", clock()),
            }));
        }
    }
    for (sid, resource) in &state.ha {
        let vmid = number(sid);
        let node = state.vms.get(&vmid).map(|vm| vm.node.clone()).unwrap_or_default();
        let wanted = state.ha_request(vmid).unwrap_or("started").to_owned();
        let shown = call.world.ha_state(&state, vmid);
        let crm = match shown.as_str() {
            "starting" => "started",
            "disabled" => "stopped",
            other => other,
        };
        let mut entry = json!({
            "id": format!("service:{sid}"), "type": "service", "sid": sid, "node": node, "state": shown,
            "request_state": wanted, "crm_state": crm, "status": format!("{sid} ({node}, {shown})"),
        });
        for key in ["max_restart", "max_relocate", "group", "failback", "comment"] {
            if let Some(value) = resource.get(key) {
                entry[key] = value.clone();
            }
        }
        list.push(entry);
    }
    Ok(list.into())
}

fn clock() -> String {
    jiff::Timestamp::now().strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// `GET /cluster/ha/status/manager_status`
pub(in crate::pve) fn manager(call: &Call) -> Result {
    let state = call.world.state();
    let nodes: Object = state
        .nodes
        .keys()
        .map(|name| (name.clone(), json!(if state.is_online(name) { "online" } else { "unknown" })))
        .collect();
    let services: Object = state
        .ha
        .keys()
        .map(|sid| {
            let vmid = number(sid);
            let node = state.vms.get(&vmid).map(|vm| vm.node.clone()).unwrap_or_default();
            (sid.clone(), json!({"node": node, "state": call.world.ha_state(&state, vmid)}))
        })
        .collect();
    Ok(json!({
        "manager_status": {
            "master_node": master(&state), "node_status": nodes, "service_status": services,
            "timestamp": call.world.clock().unix(),
        },
        "quorum": {"node": call.local, "quorate": u8::from(state.is_quorate())},
    })
    .into())
}

fn guest_of(job: &Object) -> String {
    job.get("guest").map(ToString::to_string).unwrap_or_default().trim_matches('"').to_owned()
}

fn job_id(job: &Object) -> &str {
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

fn no_job(id: &str) -> Refusal {
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
