//! `/pools`.

use serde_json::{Value, json};

use super::views;
use crate::pve::call::{Call, Result};
use crate::pve::permission::may_change_rights;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Pool;
use crate::world::{PveVersion, State};

fn missing(id: &str) -> Refusal {
    Refusal::failed(format!("pool '{id}' does not exist\n"))
}

fn members(call: &Call, state: &State, pool: &Pool) -> Vec<Value> {
    let kind = call.params.text("type");
    let mut list = Vec::new();
    if kind.is_none_or(|kind| kind == "qemu") {
        for vmid in &pool.vms {
            if let Some(vm) = state.vms.get(vmid) {
                let mut entry = views::resource(state, *vmid, vm);
                for key in ["pool", "tags", "lock", "hastate"] {
                    entry.remove(key);
                }
                list.push(Value::Object(entry));
            }
        }
    }
    if kind.is_none_or(|kind| kind == "storage") {
        for storage in &pool.storages {
            list.extend(views::storage_resource(&call.world, state, &state.local, storage));
        }
    }
    list
}

fn shown(call: &Call, state: &State, id: &str) -> Rule<Value> {
    let pool = state.pools.get(id).ok_or_else(|| missing(id))?;
    let mut entry = json!({"poolid": id, "members": members(call, state, pool)});
    if let Some(comment) = &pool.comment {
        entry["comment"] = json!(comment);
    }
    Ok(entry)
}

/// `GET /pools`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    if let Some(id) = call.params.text("poolid") {
        // The original asks for the right on the pool, but not for the answer.
        return Ok(vec![shown(call, &state, id)?].into());
    }
    let list: Vec<Value> = state
        .pools
        .iter()
        .filter(|(id, _)| state.may(&call.caller, &format!("/pool/{id}"), &["Pool.Audit"]))
        .map(|(id, pool)| {
            let mut entry = json!({"poolid": id});
            if let Some(comment) = &pool.comment {
                entry["comment"] = json!(comment);
            }
            entry
        })
        .collect();
    Ok(list.into())
}

/// `GET /pools/{poolid}`
pub(in crate::pve) fn read(call: &Call) -> Result {
    let state = call.world.state();
    Ok(shown(call, &state, call.text("poolid"))?.into())
}

/// `POST /pools`
pub(in crate::pve) fn create(call: &Call) -> Result {
    let id = call.text("poolid").to_owned();
    let mut state = call.world.state();
    if state.pools.contains_key(&id) {
        return Err(Refusal::failed(format!("create pool failed: pool '{id}' already exists\n")));
    }
    if let Some((parent, _)) = id.rsplit_once('/')
        && !state.pools.contains_key(parent)
    {
        return Err(Refusal::failed(format!("create pool failed: parent '{parent}' of pool '{id}' does not exist\n")));
    }
    let last = id.rsplit('/').next().unwrap_or_default();
    if state.pve == PveVersion::V9 && !last.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(Refusal::failed("create pool failed: pool name must start with a letter\n"));
    }
    let comment = call.kept("comment");
    state.pools.insert(id, Pool { comment, ..Pool::default() });
    Ok(().into())
}

/// `PUT /pools`, `PUT /pools/{poolid}`
pub(in crate::pve) fn update(call: &Call) -> Result {
    let id = call.text("poolid").to_owned();
    let failed = |text: String| Refusal::failed(format!("update pools failed: {text}\n"));
    let mut state = call.world.state();
    // Nothing changes unless all of it can.
    let mut pools = state.pools.clone();
    let Some(mut pool) = pools.remove(&id) else { return Err(failed(format!("pool '{id}' does not exist"))) };
    let remove = call.params.is_on("delete");
    if call.params.text("comment").is_some() {
        pool.comment = call.kept("comment");
    }
    let told = |refusal: Refusal| failed(refusal.text());
    for vmid in call.params.list("vms").iter().filter_map(|vmid| vmid.parse::<u32>().ok()) {
        may_change_rights(&state, &call.caller, &format!("/vms/{vmid}")).map_err(told)?;
        let owner = pools.iter().find(|(_, pool)| pool.vms.contains(&vmid)).map(|(id, _)| id.clone());
        match (remove, pool.vms.contains(&vmid), owner) {
            (true, false, _) => return Err(failed(format!("VM {vmid} is not a pool member"))),
            (false, true, _) => return Err(failed(format!("VM {vmid} is already a pool member"))),
            (true, true, _) => {
                pool.vms.remove(&vmid);
            }
            (false, false, Some(owner)) => {
                if !call.params.is_on("allow-move") {
                    return Err(failed(format!(
                        "VM {vmid} belongs already to pool '{owner}' and 'allow-move' is not set"
                    )));
                }
                state.check(&call.caller, &format!("/pool/{owner}"), &["Pool.Allocate"]).map_err(told)?;
                if let Some(owner) = pools.get_mut(&owner) {
                    owner.vms.remove(&vmid);
                }
                pool.vms.insert(vmid);
            }
            (false, false, None) => {
                pool.vms.insert(vmid);
            }
        }
    }
    for storage in call.params.list("storage") {
        may_change_rights(&state, &call.caller, &format!("/storage/{storage}")).map_err(told)?;
        let is_member = pool.storages.contains(&storage);
        if remove && !is_member {
            return Err(failed(format!("Storage '{storage}' is not a pool member")));
        }
        if !remove && is_member {
            return Err(failed(format!("Storage '{storage}' is already a pool member")));
        }
        if remove {
            pool.storages.remove(&storage);
        } else {
            pool.storages.insert(storage);
        }
    }
    pools.insert(id, pool);
    state.pools = pools;
    Ok(().into())
}

/// `DELETE /pools`, `DELETE /pools/{poolid}`
pub(in crate::pve) fn delete(call: &Call) -> Result {
    let id = call.text("poolid").to_owned();
    let failed = |text: String| Refusal::failed(format!("delete pool failed: {text}\n"));
    {
        let mut state = call.world.state();
        let Some(pool) = state.pools.get(&id) else { return Err(failed(format!("pool '{id}' does not exist"))) };
        let nested = state.pools.keys().find(|other| other.starts_with(&format!("{id}/")));
        // Members that don't exist don't count.
        let vm = pool.vms.iter().find(|vmid| state.vms.contains_key(vmid));
        let storage = pool.storages.iter().find(|storage| state.storages.contains_key(*storage));
        let inside = nested
            .map(|nested| format!("pool '{nested}'"))
            .or_else(|| vm.map(|vmid| format!("VM {vmid}")))
            .or_else(|| storage.map(|storage| format!("storage '{storage}'")));
        if let Some(inside) = inside {
            return Err(failed(format!("pool '{id}' is not empty (contains {inside})")));
        }
        state.pools.remove(&id);
        let path = format!("/pool/{id}");
        state.access.acl.retain(|acl| acl.path != path);
    }
    call.world.tell(&call.caller, "delete-pool", None, Some(&id));
    Ok(().into())
}
