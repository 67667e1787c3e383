//! Whether a namespace's quotas have room for what is about to be written (Kubernetes, apiserver's admission plugin
//! resourcequota).

use http::StatusCode;
use serde_json::Value;

use super::answer::Refusal;
use super::ask::Ask;
use crate::etcd::Client;
use crate::world::cluster::{self, Entry, pods, quota};

/// Kinds whose changes can use more, too: services become others, claims grow.
const GROW: [&str; 2] = ["services", "persistentvolumeclaims"];

/// Refuses an object for which there is no room; `old` is what it was.
pub(super) fn admit(client: &Client, ask: &Ask, new: &Value, old: Option<&Value>) -> Result<(), Refusal> {
    let resource = ask.kind.qualified();
    let Some(namespace) = ask.namespace.as_deref().filter(|_| ask.subresource.is_none()) else { return Ok(()) };
    if old.is_some() && !GROW.contains(&resource.as_str()) {
        return Ok(());
    }
    let quotas = cluster::list(client, &format!("/registry/resourcequotas/{namespace}/")).0;
    if quotas.is_empty() {
        return Ok(());
    }
    let values = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.value).collect::<Vec<_>>();
    let there = values(cluster::list(client, &ask.prefix()).0);
    for one in values(quotas) {
        quota::check(&one, &resource, new, old, &there).map_err(|why| {
            let name = pods::text(new, "/metadata/name");
            let why = format!("{resource} \"{name}\" is forbidden: {why}");
            Refusal::new(StatusCode::FORBIDDEN, "Forbidden", why).with(ask.kind.details(name))
        })?;
    }
    Ok(())
}
