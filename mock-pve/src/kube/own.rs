//! What the API server says of the control plane and of itself: component statuses, and its metrics.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer, Refusal};
use super::ask::{Ask, Show};
use super::kinds::{self, Kind};
use super::table;
use crate::etcd::Client;
use crate::world::cluster;

/// Those whom it asks how they are.
const COMPONENTS: [&str; 3] = ["scheduler", "controller-manager", "etcd-0"];

/// `componentstatuses`.
pub(super) fn components(ask: &Ask) -> Result<Answer, Refusal> {
    let one = |name: &str| {
        json!({ "kind": "ComponentStatus", "apiVersion": "v1", "metadata": { "name": name },
            "conditions": [{ "type": "Healthy", "status": "True", "message": "ok" }] })
    };
    if let Some(name) = &ask.name {
        if !COMPONENTS.contains(&name.as_str()) {
            return Err(Refusal::not_found(&ask.kind, name));
        }
        return Ok(answer::ok(&match ask.shape {
            Show::Table => table::of_list(&[one(name)], &ask.kind, &json!({}), ask.flag("includeObject")),
            _ => one(name),
        }));
    }
    let all: Vec<Value> = COMPONENTS.iter().map(|name| one(name)).filter(|one| ask.wants(one)).collect();
    Ok(answer::ok(&match ask.shape {
        Show::Table => table::of_list(&all, &ask.kind, &json!({}), ask.flag("includeObject")),
        _ => json!({ "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {}, "items": all }),
    }))
}

/// What a caller is told of a kind that has a successor.
pub(super) fn outdated(kind: &Kind, minor: u32) -> Option<String> {
    match (kind.group.as_str(), kind.kind.as_str()) {
        ("", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+".to_owned()),
        ("", "Endpoints") if minor >= 33 => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".to_owned())
        }
        _ => None,
    }
}

/// `/metrics`: what is known of this server, in Prometheus' text format.
pub(super) fn metrics(client: &Client, version: &str) -> Answer {
    let minor = version.split('.').nth(1).unwrap_or_default();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for kind in kinds::all(client).iter().filter(|kind| kind.is_stored() && kind.group != "events.k8s.io") {
        counts.insert(kind.qualified(), cluster::list(client, &format!("/registry/{}/", kind.stored)).0.len());
    }
    let size = client.view(crate::etcd::Store::bytes).unwrap_or_default();
    let mut text = format!(
        "# HELP kubernetes_build_info [BETA] What is running.\n# TYPE kubernetes_build_info gauge\n\
         kubernetes_build_info{{git_version=\"v{version}\",major=\"1\",minor=\"{minor}\",platform=\"linux/amd64\"}} 1\n\
         # HELP apiserver_storage_size_bytes [STABLE] Size of the storage in bytes.\n\
         # TYPE apiserver_storage_size_bytes gauge\n\
         apiserver_storage_size_bytes{{storage_cluster_id=\"etcd-0\"}} {size}\n\
         # HELP apiserver_storage_objects [STABLE] Number of stored objects of each kind.\n\
         # TYPE apiserver_storage_objects gauge\n"
    );
    for (resource, count) in counts {
        text.push_str(&format!("apiserver_storage_objects{{resource=\"{resource}\"}} {count}\n"));
    }
    answer::text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text)
}
