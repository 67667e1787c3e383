//! Lists: selected, in pages, and as they were at some revision.

use std::collections::BTreeMap;

use base64::Engine as _;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer, Cause, Refusal};
use super::ask::{Ask, Show};
use super::kinds::Kind;
use super::{events, table};
use crate::etcd::Client;
use crate::world::cluster::{self, Entry};

/// An object with its kind and resource version.
pub(super) fn shown(entry: &Entry, kind: &Kind) -> Value {
    let mut object = entry.value.clone();
    if kind.plural == "events" {
        events::convert(&mut object, &kind.group);
    }
    object["apiVersion"] = json!(kind.api_version());
    object["kind"] = json!(kind.kind);
    // What was only tried has none.
    if entry.modified > 0 {
        object["metadata"]["resourceVersion"] = json!(entry.modified.to_string());
    }
    object
}

/// An item of a list of Kubernetes' own kinds: what it is, the list says.
pub(super) fn listed(mut object: Value, kind: &Kind) -> Value {
    if let Some(map) = object.as_object_mut().filter(|_| kind.custom.is_none()) {
        map.remove("apiVersion");
        map.remove("kind");
    }
    object
}

/// One object in the form that was asked for.
pub(super) fn as_asked(object: Value, ask: &Ask) -> Value {
    match ask.shape {
        Show::Object => object,
        Show::Table => table::of_one(&object, &ask.kind, ask.flag("includeObject")),
        Show::Metadata => metadata_of(&object),
    }
}

fn metadata_of(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

/// A resource version that a caller gave.
pub(super) fn version(text: &str) -> Result<u64, Refusal> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        Refusal::bad(format!(
            "invalid resource version \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

/// Where the next page begins, and as of which revision.
fn token(text: &str) -> Result<(u64, String), Refusal> {
    let invalid = || Refusal::bad("continue key is not valid: illegal base64 data at input byte 0");
    let bytes =
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| invalid())?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| invalid())?;
    let start = value["start"].as_str().ok_or_else(invalid)?;
    Ok((value["rv"].as_u64().ok_or_else(invalid)?, start.to_owned()))
}

/// Objects below a prefix as they were at a revision; `None` when that is forgotten.
fn at(client: &Client, prefix: &str, revision: u64) -> Option<Vec<Entry>> {
    client.view(|store| {
        let mut now: BTreeMap<Vec<u8>, _> =
            store.list(prefix.as_bytes()).into_iter().map(|kv| (kv.key.to_vec(), kv)).collect();
        if revision < store.revision() {
            let mut events = store.since(revision)?;
            events.retain(|event| event.kv.key.starts_with(prefix.as_bytes()));
            for event in events.into_iter().rev() {
                match event.before {
                    Some(before) => now.insert(before.key.to_vec(), before),
                    None => now.remove(&event.kv.key.to_vec()),
                };
            }
        }
        Some(now.values().filter_map(|kv| Entry::of(kv)).collect())
    })?
}

fn expired() -> Refusal {
    let why = "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
               the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
               Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
               deleted between the time the first chunk was returned and now may show up in the list.";
    Refusal::new(StatusCode::GONE, "Expired", why)
}

/// Refuses options of lists and watches that make no sense together.
pub(super) fn check(ask: &Ask) -> Result<(), Refusal> {
    let (version, matching) = (ask.flag("resourceVersion"), ask.flag("resourceVersionMatch"));
    let field = "resourceVersionMatch";
    let mut causes = Vec::new();
    if !matching.is_empty() {
        if ask.is("watch") && ask.flag("sendInitialEvents").is_empty() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            causes.push(Cause::forbidden(field, why));
        } else if !ask.is("watch") && version.is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            causes.push(Cause::forbidden(field, why));
        }
        if !ask.flag("continue").is_empty() {
            causes.push(Cause::forbidden(field, "resourceVersionMatch is forbidden when continue is provided"));
        }
        if !["Exact", "NotOlderThan"].contains(&matching) {
            causes.push(Cause::unsupported(field, &json!(matching), &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(Cause::forbidden(field, why));
        }
    }
    if !ask.flag("sendInitialEvents").is_empty() {
        if !ask.is("watch") {
            causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        } else if matching != "NotOlderThan" {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            causes.push(Cause::forbidden(field, why));
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid_as("ListOptions.meta.k8s.io", ("meta.k8s.io", "ListOptions"), "", &causes))
}

pub(super) fn list(client: &Client, ask: &Ask) -> Result<Answer, Refusal> {
    check(ask)?;
    if !ask.flag("continue").is_empty() && !["", "0"].contains(&ask.flag("resourceVersion")) {
        return Err(Refusal::bad("specifying resource version is not allowed when using continue"));
    }
    let prefix = ask.prefix();
    let now = client.view(crate::etcd::Store::revision).ok_or_else(Refusal::no_etcd)?;
    let wanted = version(ask.flag("resourceVersion"))?;
    let matching = ask.flag("resourceVersionMatch");
    if wanted > now {
        return Err(Refusal::too_large(wanted, now));
    }
    let limit: usize = match ask.flag("limit") {
        "" => 0,
        text => text.parse().map_err(|_| {
            Refusal::bad(format!(
                "limit: Invalid value: \"{text}\": strconv.ParseInt: parsing \"{text}\": invalid syntax"
            ))
        })?,
    };
    let (entries, revision) = if ask.flag("continue").is_empty() {
        let exact = matching == "Exact" && wanted > 0;
        let revision = if exact { wanted } else { now };
        (
            at(client, &prefix, revision).ok_or_else(|| {
                Refusal::new(
                    StatusCode::GONE,
                    "Expired",
                    format!("The resourceVersion for the provided list is too old. ({revision})"),
                )
            })?,
            revision,
        )
    } else {
        let (revision, start) = token(ask.flag("continue"))?;
        let mut entries = at(client, &prefix, revision.min(now)).ok_or_else(expired)?;
        entries.retain(|entry| entry.key[prefix.len()..] >= *start);
        (entries, revision)
    };
    let mut items = Vec::new();
    let mut next = None;
    let mut passed = 0;
    for entry in &entries {
        let object = shown(entry, &ask.kind);
        if ask.wants(&object) {
            if limit > 0 && items.len() == limit {
                next = Some(&entry.key[prefix.len()..]);
                break;
            }
            items.push(object);
        }
        passed += 1;
    }
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if let Some(next) = next {
        let token = json!({ "v": "meta.k8s.io/v1", "rv": revision, "start": next }).to_string();
        metadata["continue"] = json!(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token));
        if ask.selector.is_empty() {
            metadata["remainingItemCount"] = json!(entries.len() - passed);
        }
    }
    let all = match ask.shape {
        Show::Table => table::of_list(&items, &ask.kind, &metadata, ask.flag("includeObject")),
        Show::Metadata => {
            json!({ "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
            "items": items.iter().map(metadata_of).collect::<Vec<_>>() })
        }
        Show::Object => {
            let items: Vec<Value> = items.into_iter().map(|item| listed(item, &ask.kind)).collect();
            json!({ "kind": format!("{}List", ask.kind.kind), "apiVersion": ask.kind.api_version(), "metadata": metadata, "items": items })
        }
    };
    Ok(answer::ok(&all))
}

pub(super) fn find(client: &Client, ask: &Ask, name: &str) -> Result<Entry, Refusal> {
    cluster::get(client, &ask.key(name)).ok_or_else(|| Refusal::not_found(&ask.kind, name))
}

/// One object.
pub(super) fn get(client: &Client, ask: &Ask, name: &str) -> Result<Answer, Refusal> {
    let wanted = version(ask.flag("resourceVersion"))?;
    let now = client.view(crate::etcd::Store::revision).ok_or_else(Refusal::no_etcd)?;
    if wanted > now {
        return Err(Refusal::too_large(wanted, now));
    }
    let object = shown(&find(client, ask, name)?, &ask.kind);
    Ok(answer::ok(&as_asked(object, ask)))
}
