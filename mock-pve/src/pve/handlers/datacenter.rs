//! `/cluster/options`: `datacenter.cfg`, key by key.
//!
//! What is shown is what the file's reader makes of what its writer wrote (pve-cluster 8, PVE/DataCenterConfig.pm).

use serde_json::{Map, Value, json};

use crate::pve::call::{Call, Result};
use crate::world::refusal::{Refusal, Rule};

/// The prefix of who has set none; it is never written.
const PREFIX: &str = "BC:24:11";

/// Options that are shown taken apart, with the key of a part that has none.
const STRUCTURED: &[(&str, &str)] = &[
    ("crs", ""),
    ("ha", ""),
    ("migration", "type"),
    ("next-id", ""),
    ("notify", ""),
    ("tag-style", ""),
    ("u2f", ""),
    ("user-tag-access", ""),
    ("webauthn", ""),
];

/// `GET /cluster/options`
pub(in crate::pve) fn options(call: &Call) -> Result {
    let state = call.world.state();
    let mut shown = Map::new();
    if state.may(&call.caller, "/", &["Sys.Audit"]) {
        shown.clone_from(&state.options);
        shown.entry("description".to_owned()).or_insert(json!(""));
        shown.entry("mac_prefix".to_owned()).or_insert(json!(PREFIX));
    } else {
        for key in ["console", "tag-style"] {
            if let Some(value) = state.options.get(key) {
                shown.insert(key.to_owned(), value.clone());
            }
        }
    }
    shown.insert("allowed-tags".to_owned(), json!(state.allowed_tags(&call.caller)));
    Ok(shown.into())
}

/// An option as the file's reader shows it.
fn read(call: &Call, key: &str, text: &str) -> Value {
    // A line of the file is one value; the notes are lines of their own.
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() && key != "description" {
        return json!("");
    }
    if let Some((_, default)) = STRUCTURED.iter().find(|(name, _)| *name == key) {
        let mut parts = call.method.taken_apart(key, line, default);
        if let Some(list) = parts.get_mut("user-allow-list") {
            *list = json!(list.as_str().unwrap_or_default().split(';').collect::<Vec<_>>());
        }
        return parts;
    }
    match key {
        "registered-tags" => json!(line.split(';').collect::<Vec<_>>()),
        "description" => {
            let lines = text.trim_end_matches('\n').lines();
            json!(lines.flat_map(|line| [line, "\n"]).collect::<String>())
        }
        "migration_unsecure" => json!(u8::from(crate::world::property::is_true(line))),
        "console" if line == "applet" => json!("html5"),
        _ => json!(line),
    }
}

/// The lists that a writer puts in order once it has read them.
fn sort_lists(options: &mut Map<String, Value>) {
    let sort = |list: Option<&mut Value>| {
        if let Some(list) = list.and_then(Value::as_array_mut) {
            list.sort_by(|one, other| one.as_str().cmp(&other.as_str()));
        }
    };
    sort(options.get_mut("registered-tags"));
    sort(options.get_mut("user-tag-access").and_then(|access| access.get_mut("user-allow-list")));
}

/// The bounds of the VMIDs that are given out, if they are any.
fn check_range(range: Option<&Value>) -> Rule<()> {
    let bound = |key: &str, default: u64| {
        let bound = range.and_then(|range| range.get(key));
        bound.and_then(|bound| bound.as_u64().or_else(|| bound.as_str()?.parse().ok())).unwrap_or(default)
    };
    let (lower, upper) = (bound("lower", 100), bound("upper", 1_000_000));
    if range.is_some() && lower > upper {
        return Err(Refusal::failed(format!("lower ({lower}) <= upper ({upper}) boundary rule broken\n")));
    }
    Ok(())
}

/// `PUT /cluster/options`
pub(in crate::pve) fn set_options(call: &Call) -> Result {
    let mut state = call.world.state();
    let mut options = state.options.clone();
    sort_lists(&mut options);
    for key in call.params.0.keys().filter(|key| *key != "delete") {
        options.insert(key.clone(), read(call, key, call.text(key)));
    }
    let deleted = call.params.list("delete");
    for key in &deleted {
        options.remove(key);
    }
    // The older word for how guests move is only kept beside the newer one; any text but none and zero means yes.
    let older = call.params.text("migration_unsecure").filter(|_| options.contains_key("migration_unsecure"));
    if let Some(older) = older.filter(|_| !options.contains_key("migration")) {
        let kind = if ["", "0"].contains(&older) { "secure" } else { "insecure" };
        options.remove("migration_unsecure");
        options.insert("migration".to_owned(), json!({"type": kind}));
    }
    if options.get("mac_prefix").and_then(Value::as_str).is_some_and(|prefix| prefix.eq_ignore_ascii_case(PREFIX)) {
        options.remove("mac_prefix");
    }
    if options.get("description").is_some_and(|notes| notes == "") {
        options.remove("description");
    }
    check_range(options.get("next-id"))?;
    state.options = options;
    Ok(().into())
}
