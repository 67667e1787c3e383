//! `…/firewall/aliases`, `…/firewall/ipset`, `…/firewall/refs`.

use serde_json::{Value, json};

use super::firewall::{assert_unchanged, file, level, list_digest, load, with_digest};
use crate::pve::call::{Call, Result};
use crate::world::firewall::{Firewall, IpSet, Known, Level, Object, clean_cidr};
use crate::world::refusal::{Refusal, Rule};

fn alias_list(firewall: &Firewall) -> Vec<Object> {
    firewall.aliases.values().cloned().collect()
}

/// `GET …/firewall/aliases`
pub(in crate::pve) fn aliases(call: &Call) -> Result {
    Ok(with_digest(&alias_list(&load(&call.world.state(), &file(call)))).into())
}

fn no_alias() -> Refusal {
    Refusal::param("name", "no such alias")
}

/// `GET …/firewall/aliases/{name}`
pub(in crate::pve) fn alias(call: &Call) -> Result {
    let firewall = load(&call.world.state(), &file(call));
    let alias = firewall.aliases.get(&call.text("name").to_ascii_lowercase()).cloned();
    alias.map(Into::into).ok_or_else(no_alias)
}

fn new_alias(call: &Call, name: &str) -> Object {
    let (cidr, family) = clean_cidr(call.text("cidr")).unwrap_or((call.text("cidr").to_owned(), 4));
    // An alias keeps the host part; only a full prefix goes.
    let cidr = if call.text("cidr").contains('/') && cidr.contains('/') { call.text("cidr").to_owned() } else { cidr };
    let mut alias = Object::new();
    alias.insert("name".to_owned(), json!(name));
    alias.insert("cidr".to_owned(), json!(cidr));
    alias.insert("ipversion".to_owned(), json!(family));
    if let Some(comment) = call.params.text("comment").filter(|text| !text.is_empty()) {
        alias.insert("comment".to_owned(), json!(comment));
    }
    alias
}

fn alias_exists(name: &str) -> Refusal {
    Refusal::param("name", format!("alias '{name}' already exists"))
}

/// `POST …/firewall/aliases`
pub(in crate::pve) fn create_alias(call: &Call) -> Result {
    let name = call.text("name");
    let mut state = call.world.state();
    let aliases = &mut state.firewalls.entry(file(call)).or_default().aliases;
    if aliases.contains_key(&name.to_ascii_lowercase()) {
        return Err(alias_exists(name));
    }
    aliases.insert(name.to_ascii_lowercase(), new_alias(call, name));
    Ok(().into())
}

/// `PUT …/firewall/aliases/{name}`
pub(in crate::pve) fn update_alias(call: &Call) -> Result {
    let name = call.text("name");
    let mut state = call.world.state();
    let firewall = state.firewalls.entry(file(call)).or_default();
    assert_unchanged(call, &list_digest(&alias_list(firewall)))?;
    let key = name.to_ascii_lowercase();
    if !firewall.aliases.contains_key(&key) {
        return Err(no_alias());
    }
    let rename = call.params.text("rename").filter(|to| !to.eq_ignore_ascii_case(name));
    if let Some(to) = rename
        && firewall.aliases.contains_key(&to.to_ascii_lowercase())
    {
        return Err(alias_exists(to));
    }
    firewall.aliases.remove(&key);
    let to = rename.unwrap_or(name);
    firewall.aliases.insert(to.to_ascii_lowercase(), new_alias(call, to));
    Ok(().into())
}

/// `DELETE …/firewall/aliases/{name}`: of none, too.
pub(in crate::pve) fn delete_alias(call: &Call) -> Result {
    let mut state = call.world.state();
    let firewall = state.firewalls.entry(file(call)).or_default();
    assert_unchanged(call, &list_digest(&alias_list(firewall)))?;
    firewall.aliases.remove(&call.text("name").to_ascii_lowercase());
    Ok(().into())
}

fn set_list(firewall: &Firewall) -> Vec<Object> {
    let list = firewall.sets.iter().map(|(name, set)| {
        let mut entry = Object::new();
        entry.insert("name".to_owned(), json!(name));
        if let Some(comment) = &set.comment {
            entry.insert("comment".to_owned(), json!(comment));
        }
        entry
    });
    list.collect()
}

/// `GET …/firewall/ipset`
pub(in crate::pve) fn sets(call: &Call) -> Result {
    Ok(with_digest(&set_list(&load(&call.world.state(), &file(call)))).into())
}

/// `POST …/firewall/ipset`: makes one, or renames one.
pub(in crate::pve) fn create_set(call: &Call) -> Result {
    let name = call.text("name").to_owned();
    let comment = call.params.owned("comment").filter(|text| !text.is_empty());
    let mut state = call.world.state();
    let firewall = state.firewalls.entry(file(call)).or_default();
    let Some(old) = call.params.owned("rename").filter(|old| !old.is_empty()) else {
        if firewall.sets.contains_key(&name) {
            return Err(Refusal::param("name", format!("IPSet '{name}' already exists")));
        }
        firewall.sets.insert(name, IpSet { comment, entries: Vec::new() });
        return Ok(().into());
    };
    assert_unchanged(call, &list_digest(&set_list(firewall)))?;
    if !firewall.sets.contains_key(&old) {
        return Err(Refusal::param("name", format!("IPSet '{old}' does not exist")));
    }
    if old != name && firewall.sets.contains_key(&name) {
        return Err(Refusal::param("name", format!("IPSet '{name}' does already exist")));
    }
    let mut set = firewall.sets.remove(&old).unwrap_or_default();
    if call.params.text("comment").is_some() {
        set.comment = comment;
    }
    firewall.sets.insert(name, set);
    Ok(().into())
}

fn no_set(name: &str) -> Refusal {
    Refusal::failed(format!("no such IPSet '{name}'\n"))
}

fn with_set<T>(call: &Call, run: impl FnOnce(&mut IpSet) -> Rule<T>) -> Rule<T> {
    let mut state = call.world.state();
    let name = call.text("name");
    let set = state.firewalls.get_mut(&file(call)).and_then(|firewall| firewall.sets.get_mut(name));
    run(set.ok_or_else(|| no_set(name))?)
}

/// `GET …/firewall/ipset/{name}`
pub(in crate::pve) fn set(call: &Call) -> Result {
    with_set(call, |set| Ok(with_digest(&set.entries).into()))
}

/// `DELETE …/firewall/ipset/{name}`
pub(in crate::pve) fn delete_set(call: &Call) -> Result {
    let name = call.text("name");
    with_set(call, |set| {
        if !set.entries.is_empty() && !call.params.is_on("force") {
            return Err(Refusal::failed(format!("IPSet '{name}' is not empty\n")));
        }
        Ok(())
    })?;
    if let Some(firewall) = call.world.state().firewalls.get_mut(&file(call)) {
        firewall.sets.remove(name);
    }
    Ok(().into())
}

fn no_address() -> Refusal {
    Refusal::param("cidr", "no such IP/Network")
}

fn is(entry: &Object, cidr: &str) -> bool {
    entry.get("cidr").and_then(Value::as_str) == Some(cidr)
}

fn describe(call: &Call, entry: &mut Object) {
    entry.remove("nomatch");
    entry.remove("comment");
    if call.params.is_on("nomatch") {
        entry.insert("nomatch".to_owned(), json!(1));
    }
    if let Some(comment) = call.params.text("comment").filter(|text| !text.is_empty()) {
        entry.insert("comment".to_owned(), json!(comment));
    }
}

/// `POST …/firewall/ipset/{name}`
pub(in crate::pve) fn add_address(call: &Call) -> Result {
    let given = call.text("cidr");
    let cidr = if let Some((cidr, _)) = clean_cidr(given) {
        cidr
    } else {
        with_set(call, |_| Ok(()))?;
        let state = call.world.state();
        let (cluster, local) = (load(&state, ""), load(&state, &file(call)));
        let local = (level(call) == Level::Vm).then_some(&local);
        if (Known { cluster: &cluster, local }).alias(given).is_none() {
            let name = given.rsplit('/').next().unwrap_or_default();
            return Err(Refusal::failed(format!("no such alias '{name}'\n")));
        }
        given.to_owned()
    };
    with_set(call, |set| {
        if set.entries.iter().any(|entry| is(entry, &cidr)) {
            return Err(Refusal::param("cidr", format!("address '{cidr}' already exists")));
        }
        if cidr.ends_with("/0") {
            return Err(Refusal::param("cidr", "a zero prefix is not allowed in ipset entries"));
        }
        let mut entry = Object::new();
        entry.insert("cidr".to_owned(), json!(cidr));
        describe(call, &mut entry);
        set.entries.push(entry);
        // The file has them in order.
        set.entries.sort_by_key(|entry| entry.get("cidr").and_then(Value::as_str).unwrap_or_default().to_owned());
        Ok(().into())
    })
}

/// `GET …/firewall/ipset/{name}/{cidr}`
pub(in crate::pve) fn address(call: &Call) -> Result {
    with_set(call, |set| {
        let at = set.entries.iter().position(|entry| is(entry, call.text("cidr"))).ok_or_else(no_address)?;
        Ok(with_digest(&set.entries).swap_remove(at).into())
    })
}

/// `PUT …/firewall/ipset/{name}/{cidr}`
pub(in crate::pve) fn update_address(call: &Call) -> Result {
    with_set(call, |set| {
        assert_unchanged(call, &list_digest(&set.entries))?;
        let entry = set.entries.iter_mut().find(|entry| is(entry, call.text("cidr"))).ok_or_else(no_address)?;
        describe(call, entry);
        Ok(().into())
    })
}

/// `DELETE …/firewall/ipset/{name}/{cidr}`: of none, too.
pub(in crate::pve) fn delete_address(call: &Call) -> Result {
    with_set(call, |set| {
        assert_unchanged(call, &list_digest(&set.entries))?;
        set.entries.retain(|entry| !is(entry, call.text("cidr")));
        Ok(().into())
    })
}

fn references(firewall: &Firewall, kind: Option<&str>, scope: &str) -> Vec<Value> {
    let mut list = Vec::new();
    let mut add = |kind: &str, name: &str, reference: String, comment: Option<&Value>| {
        let mut entry = json!({"type": kind, "name": name, "ref": reference, "scope": scope});
        if let Some(comment) = comment {
            entry["comment"] = comment.clone();
        }
        list.push(entry);
    };
    if kind.is_none_or(|kind| kind == "ipset") {
        for (name, set) in &firewall.sets {
            let comment = set.comment.as_ref().map(|text| json!(text));
            add("ipset", name, format!("+{name}"), comment.as_ref());
        }
    }
    if kind.is_none_or(|kind| kind == "alias") {
        for (name, alias) in &firewall.aliases {
            add("alias", name, name.clone(), alias.get("comment"));
        }
    }
    list
}

/// `GET …/firewall/refs`
pub(in crate::pve) fn refs(call: &Call) -> Result {
    let state = call.world.state();
    let kind = call.params.text("type");
    let mut list = references(&load(&state, ""), kind, "dc");
    if level(call) == Level::Vm {
        list.extend(references(&load(&state, &file(call)), kind, "guest"));
    }
    Ok(list.into())
}
