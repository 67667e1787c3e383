//! `/cluster/ha/…`, `/cluster/replication`.

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::config::digest_of;
use crate::world::refusal::{Refusal, Rule};

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

fn service_id(call: &Call) -> Rule<String> {
    let sid = call.text("sid");
    let vmid = sid.strip_prefix("vm:").unwrap_or(sid);
    if vmid.parse::<u32>().is_err() {
        return Err(Refusal::failed(format!("unable to parse service id '{sid}'\n")));
    }
    Ok(format!("vm:{vmid}"))
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
    let mut state = call.world.state();
    if state.ha.contains_key(&sid) {
        return Err(Refusal::failed(format!("create resource failed: resource ID '{sid}' already defined\n")));
    }
    if !state.vms.contains_key(&number(&sid)) {
        return Err(Refusal::failed(format!("unable to find configuration file for VM {}\n", number(&sid))));
    }
    check_group(call, &state)?;
    let mut resource = json!({"sid": sid, "type": "vm", "state": "started"}).as_object().cloned().unwrap_or_default();
    set_resource(call, &mut resource);
    state.ha.insert(sid.clone(), resource);
    drop(state);
    call.world.forget_service(number(&sid));
    Ok(().into())
}

fn check_group(call: &Call, state: &State) -> Rule<()> {
    match call.params.text("group") {
        Some(group) if !state.ha_groups.contains_key(group) => {
            Err(Refusal::failed(format!("ha group '{group}' does not exist\n")))
        }
        _ => Ok(()),
    }
}

fn set_resource(call: &Call, resource: &mut Object) {
    for key in ["state", "max_restart", "max_relocate", "comment", "group", "failback"] {
        if let Some(value) = call.params.text(key) {
            let value = if value == "enabled" { "started" } else { value };
            let value = value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number));
            resource.insert(key.to_owned(), value);
        }
    }
    for key in call.params.list("delete") {
        resource.remove(&key);
    }
}

/// `PUT /cluster/ha/resources/{sid}`
pub(in crate::pve) fn update_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    let mut state = call.world.state();
    check_group(call, &state)?;
    let Some(resource) = state.ha.get_mut(&sid) else {
        return Err(Refusal::failed(format!("no such resource '{sid}'\n")));
    };
    set_resource(call, resource);
    Ok(().into())
}

/// `DELETE /cluster/ha/resources/{sid}`
pub(in crate::pve) fn delete_resource(call: &Call) -> Result {
    let sid = service_id(call)?;
    if call.world.state().ha.remove(&sid).is_none() {
        return Err(Refusal::failed(format!("cannot delete service '{sid}', not HA managed!\n")));
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
            return Err(Refusal::failed(format!("no such resource '{sid}'\n")));
        }
    }
    call.world.ask_ha_migration(number(&sid), target.clone());
    Ok(json!({"sid": sid, "requested-node": target}).into())
}

/// `GET /cluster/ha/groups`
pub(in crate::pve) fn groups(call: &Call) -> Result {
    let state = call.world.state();
    Ok(state.ha_groups.values().map(|entry| with_digest(&state.ha_groups, entry)).collect::<Vec<_>>().into())
}

fn no_group(name: &str) -> Refusal {
    Refusal::failed(format!("no such ha group '{name}'\n"))
}

/// `GET /cluster/ha/groups/{group}`
pub(in crate::pve) fn group(call: &Call) -> Result {
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
    for key in call.params.list("delete") {
        group.remove(&key);
    }
}

/// `POST /cluster/ha/groups`
pub(in crate::pve) fn create_group(call: &Call) -> Result {
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
    let mut state = call.world.state();
    let name = call.text("group");
    set_group(call, state.ha_groups.get_mut(name).ok_or_else(|| no_group(name))?);
    Ok(().into())
}

/// `DELETE /cluster/ha/groups/{group}`
pub(in crate::pve) fn delete_group(call: &Call) -> Result {
    let mut state = call.world.state();
    let name = call.text("group");
    let used = state.ha.iter().find(|(_, entry)| entry.get("group").and_then(Value::as_str) == Some(name));
    if let Some((sid, _)) = used {
        return Err(Refusal::failed(format!("delete group failed: group '{name}' is used by service '{sid}'\n")));
    }
    state.ha_groups.remove(name).map(|_| ().into()).ok_or_else(|| no_group(name))
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
        for key in ["max_restart", "max_relocate", "group", "comment"] {
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

/// `DELETE /cluster/replication/{id}`: marks the job; it is gone after its next run.
pub(in crate::pve) fn delete_job(call: &Call) -> Result {
    let id = call.text("id").to_owned();
    {
        let mut state = call.world.state();
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
