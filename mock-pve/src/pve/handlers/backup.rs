//! `/cluster/backup`, `/cluster/backup-info`, `/cluster/jobs/schedule-analyze`: the jobs, what they take, and when.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::State;
use crate::world::backups::names::moment;
use crate::world::calendar::Calendar;
use crate::world::drive;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};

type Object = Map<String, Value>;

/// Options that are shown taken apart.
const STRUCTURED: &[(&str, &str)] = &[("prune-backups", ""), ("performance", ""), ("fleecing", "enabled")];

fn id_of(job: &Object) -> &str {
    job.get("id").and_then(Value::as_str).unwrap_or_default()
}

fn stored(call: &Call, key: &str) -> Value {
    match STRUCTURED.iter().find(|(name, _)| *name == key) {
        Some((_, default)) => call.taken_apart(key, default),
        None => call.read_back(key),
    }
}

/// A job with the time at which it runs next.
fn shown(call: &Call, job: &Object) -> Value {
    let mut job = job.clone();
    let calendar = job.get("schedule").and_then(Value::as_str).and_then(Calendar::parse);
    if let Some(next) = calendar.and_then(|calendar| calendar.next(call.world.clock().unix())) {
        job.insert("next-run".to_owned(), json!(next));
    }
    Value::Object(job)
}

/// `GET /cluster/jobs/schedule-analyze`
pub(in crate::pve) fn analyze(call: &Call) -> Result {
    let mut at = call.params.number("starttime").unwrap_or_else(|| call.world.clock().unix());
    let Some(calendar) = Calendar::parse(call.text("schedule")) else { return Ok(Vec::new().into()) };
    let mut list = Vec::new();
    for _ in 0..call.params.number("iterations").unwrap_or(10) {
        let Some(next) = calendar.next(at) else { break };
        list.push(json!({"timestamp": next, "utc": moment(next).strftime("%a %b %e %H:%M:%S %Y").to_string()}));
        at = next;
    }
    Ok(list.into())
}

/// `GET /cluster/backup`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    Ok(state.backup.iter().map(|job| shown(call, job)).collect::<Vec<_>>().into())
}

fn no_job(id: &str) -> Refusal {
    Refusal::param("id", format!("No such job '{id}'"))
}

/// `GET /cluster/backup/{id}`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let id = call.text("id");
    let state = call.world.state();
    let job = state.backup.iter().find(|job| id_of(job) == id).ok_or_else(|| no_job(id))?;
    Ok(job.clone().into())
}

/// What only root may set, and what else is asked of others.
pub(super) fn may_set(call: &Call, state: &State) -> Rule<()> {
    if call.caller.is_root() {
        return Ok(());
    }
    for key in ["tmpdir", "dumpdir", "script", "job-id"] {
        if call.params.0.contains_key(key) {
            return Err(Refusal::param(key, "Only root may set this option."));
        }
    }
    if ["bwlimit", "ionice", "performance"].iter().any(|key| call.params.text(key).is_some()) {
        state.check(&call.caller, "/", &["Sys.Modify"])?;
    }
    Ok(())
}

fn check_pool(call: &Call, state: &State) -> Rule<()> {
    let Some(pool) = call.params.text("pool") else { return Ok(()) };
    if !state.pools.contains_key(pool) {
        return Err(Refusal::forbidden(format!("pool '{pool}' does not exist")));
    }
    state.check(&call.caller, &format!("/pool/{pool}"), &["VM.Backup"])
}

/// Whether an option is there and says something.
fn is_set(job: &Object, key: &str) -> bool {
    job.get(key).is_some_and(|value| !matches!(value.as_str(), Some("" | "0")) && *value != json!(0))
}

/// Whether what is said of guests goes together.
fn check_selection(job: &mut Object) -> Rule<()> {
    for key in ["all", "exclude", "pool"] {
        if is_set(job, key) && is_set(job, "vmid") {
            return Err(Refusal::param(key, "option conflicts with option 'vmid'"));
        }
    }
    if job.contains_key("prune-backups") && job.contains_key("maxfiles") {
        return Err(Refusal::param("prune-backups", "option conflicts with option 'maxfiles'"));
    }
    if job.contains_key("exclude") && !is_set(job, "pool") {
        job.insert("all".to_owned(), json!(1));
    }
    Ok(())
}

/// Whether a whole job says of which guests it is, too.
fn check_job(job: &mut Object) -> Rule<()> {
    check_selection(job)?;
    if ["all", "stop", "pool", "vmid"].iter().any(|key| is_set(job, key)) {
        return Ok(());
    }
    Err(Refusal::param("vmid", "property is missing"))
}

/// A time and days become a schedule; `None`: nothing is said of it.
fn schedule(call: &Call) -> Rule<Option<String>> {
    let (schedule, start) = (call.params.owned("schedule"), call.params.text("starttime"));
    match (schedule, start) {
        (Some(_), Some(_)) => Err(Refusal::param("starttime", "'starttime' and 'schedule' cannot both be set")),
        (Some(schedule), None) => Ok(Some(schedule)),
        (None, None) => Ok(None),
        (None, Some(start)) => {
            let days = call.params.list("dow").join(",");
            let plain = days.is_empty() || days == "mon,tue,wed,thu,fri,sat,sun";
            Ok(Some(if plain { start.to_owned() } else { format!("{days} {start}") }))
        }
    }
}

const CONTROL: &[&str] = &["id", "delete", "starttime", "dow", "schedule", "digest"];

fn given(call: &Call) -> Object {
    let keys = call.params.0.keys().filter(|key| !CONTROL.contains(&key.as_str()));
    keys.map(|key| (key.clone(), stored(call, key))).collect()
}

/// `POST /cluster/backup`
pub(in crate::pve) fn create(call: &Call) -> Result {
    let mut state = call.world.state();
    may_set(call, &state)?;
    if !call.caller.is_root() {
        let storage = call.params.text("storage").unwrap_or("local");
        if call.params.text("dumpdir").is_none() {
            state.check(&call.caller, &format!("/storage/{storage}"), &["Datastore.Allocate"])?;
        }
    }
    check_pool(call, &state)?;
    let unsaid = || Refusal::param("schedule", "neither 'starttime' nor 'schedule' were set");
    let schedule = schedule(call)?.ok_or_else(unsaid)?;
    let id = call.params.owned("id").unwrap_or_else(|| state.rng.uuid());
    if state.backup.iter().any(|job| id_of(job) == id) {
        return Err(Refusal::failed(format!("Job '{id}' already exists\n")));
    }
    let mut job = given(call);
    check_job(&mut job)?;
    job.entry("enabled").or_insert(json!(1));
    job.insert("type".to_owned(), json!("vzdump"));
    job.insert("id".to_owned(), json!(id));
    job.insert("schedule".to_owned(), json!(schedule));
    state.backup.push(job);
    call.world.reschedule();
    Ok(().into())
}

/// `PUT /cluster/backup/{id}`
pub(in crate::pve) fn update(call: &Call) -> Result {
    let id = call.text("id");
    let mut state = call.world.state();
    may_set(call, &state)?;
    check_pool(call, &state)?;
    let schedule = schedule(call)?;
    let delete = call.params.list("delete");
    let mut changes = given(call);
    if changes.is_empty() && schedule.is_none() && delete.is_empty() {
        return Err(Refusal::failed("no options specified\n"));
    }
    check_selection(&mut changes)?;
    let at = state.backup.iter().position(|job| id_of(job) == id);
    let at = at.ok_or_else(|| Refusal::failed("no such vzdump job\n"))?;
    let mut job = state.backup[at].clone();
    if !call.caller.is_root() {
        let storage = job.get("storage").and_then(Value::as_str).unwrap_or("local");
        state.check(&call.caller, &format!("/storage/{storage}"), &["Datastore.Allocate"])?;
    }
    for key in delete {
        job.remove(&key);
    }
    let (by_vmid, by_all) = (changes.contains_key("vmid"), is_set(&changes, "all"));
    job.extend(changes);
    if let Some(schedule) = schedule {
        job.insert("schedule".to_owned(), json!(schedule));
    }
    if job.contains_key("exclude") && !job.contains_key("pool") {
        job.insert("all".to_owned(), json!(1));
    }
    let others: &[&str] = if by_vmid {
        &["all", "exclude", "pool"]
    } else if by_all {
        &["vmid", "pool"]
    } else if job.contains_key("pool") {
        &["vmid", "all", "exclude"]
    } else {
        &[]
    };
    for key in others {
        job.remove(*key);
    }
    check_job(&mut job)?;
    state.backup[at] = job;
    call.world.reschedule();
    Ok(().into())
}

/// `DELETE /cluster/backup/{id}`
pub(in crate::pve) fn delete(call: &Call) -> Result {
    let id = call.text("id");
    let mut state = call.world.state();
    let at = state.backup.iter().position(|job| id_of(job) == id).ok_or_else(|| no_job(id))?;
    state.backup.remove(at);
    call.world.reschedule();
    Ok(().into())
}

/// The VMs that a job takes.
fn selected(state: &State, job: &Object) -> BTreeSet<u32> {
    let list = |key: &str| -> BTreeSet<u32> {
        let text = job.get(key).and_then(Value::as_str).unwrap_or_default();
        text.split([',', ';', ' ']).filter_map(|vmid| vmid.parse().ok()).collect()
    };
    let excluded = list("exclude");
    let chosen = if is_set(job, "all") {
        state.vms.keys().copied().collect()
    } else if let Some(pool) = job.get("pool").and_then(Value::as_str) {
        state.pools.get(pool).map(|pool| pool.vms.clone()).unwrap_or_default()
    } else {
        list("vmid")
    };
    chosen.difference(&excluded).copied().collect()
}

/// `GET /cluster/backup/{id}/included_volumes`
pub(in crate::pve) fn included(call: &Call) -> Result {
    let id = call.text("id");
    let state = call.world.state();
    let job = state.backup.iter().find(|job| id_of(job) == id).ok_or_else(|| no_job(id))?;
    let mut children = Vec::new();
    for vmid in selected(&state, job) {
        let Some(vm) = state.vms.get(&vmid) else {
            children.push(json!({"id": vmid, "type": "unknown", "children": []}));
            continue;
        };
        if !state.may(&call.caller, &format!("/vms/{vmid}"), &["VM.Audit"]) {
            continue;
        }
        let disks = crate::world::disks::drive_keys(&vm.config);
        let volumes: Vec<Value> = disks
            .iter()
            .filter_map(|key| {
                let options = Properties::parse(vm.config.get(key)?, "file");
                let bios = vm.config.get("bios").is_some_and(|bios| bios == "ovmf");
                // The original says `no` wherever the option is given at all.
                let (reason, in_it) = match options.get("backup") {
                    _ if drive::is_cdrom(&options) => return None,
                    _ if key == "efidisk0" && !bios => ("efidisk but no OMVF BIOS", 0),
                    Some("0" | "no" | "off") => ("backup=no", 0),
                    Some(_) => ("backup=no", 1),
                    None => ("backup=yes", 1),
                };
                Some(json!({"id": key, "name": options.get("file"), "included": in_it, "reason": reason}))
            })
            .collect();
        children.push(json!({
            "id": vmid, "name": super::views::name(vmid, &vm.config), "type": "qemu", "children": volumes,
        }));
    }
    Ok(json!({"children": children}).into())
}

/// `GET /cluster/backup-info`
pub(in crate::pve) fn info(_: &Call) -> Result {
    Ok(vec![json!({"subdir": "not-backed-up"})].into())
}

/// `GET /cluster/backup-info/not-backed-up`
pub(in crate::pve) fn uncovered(call: &Call) -> Result {
    let state = call.world.state();
    let covered: BTreeSet<u32> = state.backup.iter().flat_map(|job| selected(&state, job)).collect();
    let list = state
        .vms
        .iter()
        .filter(|(vmid, _)| !covered.contains(vmid))
        .filter(|(vmid, _)| state.may(&call.caller, &format!("/vms/{vmid}"), &["VM.Audit"]))
        .map(|(vmid, vm)| json!({"type": "qemu", "vmid": vmid, "name": super::views::name(*vmid, &vm.config)}));
    Ok(list.collect::<Vec<_>>().into())
}
