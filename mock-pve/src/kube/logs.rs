//! What containers say. Nothing runs in them, so it is what is known of them: that they started, and as what.

use http::StatusCode;
use serde_json::Value;

use super::answer::{self, Answer, Refusal};
use super::ask::Ask;
use super::dial::container_of;
use super::list::find;
use crate::etcd::Client;
use crate::world::cluster::pods;

pub(super) fn logs(client: &Client, ask: &Ask, name: &str) -> Result<Answer, Refusal> {
    let pod = find(client, ask, name)?.value;
    if pods::node_of(&pod).is_empty() {
        return Err(Refusal::bad(format!("pod {name} does not have a host assigned")));
    }
    let container = container_of(&pod, name, ask.flag("container"))?;
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let status = statuses.into_iter().find(|one| one["name"] == *container).unwrap_or_default();
    let state = &status["state"];
    let since = state.pointer("/running/startedAt").or_else(|| state.pointer("/terminated/startedAt"));
    let Some(since) = since.and_then(Value::as_str) else {
        let why = state.pointer("/waiting/reason").and_then(Value::as_str).unwrap_or("ContainerCreating");
        return Err(Refusal::bad(format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}")));
    };
    if ask.is("previous") && pods::count(&status, "/restartCount") == 0 {
        return Err(Refusal::bad(format!("previous terminated container \"{container}\" in pod \"{name}\" not found")));
    }
    let image = status["image"].as_str().unwrap_or_default();
    let node = pods::node_of(&pod);
    let mut lines = vec![format!("{container} started as {image} on {node}"), format!("{container} is ready")];
    if let Some(end) = state.pointer("/terminated/finishedAt").and_then(Value::as_str) {
        lines.push(format!("{container} ended at {end}"));
    }
    if let Ok(tail) = ask.flag("tailLines").parse::<usize>() {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let stamp = if ask.is("timestamps") { format!("{} ", since.replace('Z', ".000000000Z")) } else { String::new() };
    let text: String = lines.iter().map(|line| format!("{stamp}{line}\n")).collect();
    Ok(answer::text(StatusCode::OK, "text/plain", text))
}
