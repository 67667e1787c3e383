//! What containers say. Nothing runs in them, so it is what is known of them: that they started, and as what.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use hyper::body::Frame;
use serde_json::Value;

use super::answer::{self, Answer, Refusal};
use super::ask::Ask;
use super::dial::container_of;
use super::list::find;
use crate::etcd::Client;
use crate::world::cluster::{self, pods};

pub(super) fn logs(client: &Client, ask: &Ask, name: &str) -> Result<Answer, Refusal> {
    let pod = find(client, ask, name)?.value;
    if pods::node_of(&pod).is_empty() {
        return Err(Refusal::bad(format!("pod {name} does not have a host assigned")));
    }
    let container = container_of(&pod, name, ask.flag("container"))?;
    let status = status_of(&pod, &container);
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
    lines.extend(last_words(&container, &status));
    if let Ok(tail) = ask.flag("tailLines").parse::<usize>() {
        lines.drain(..lines.len().saturating_sub(tail));
    }
    let stamp = if ask.is("timestamps") { format!("{} ", since.replace('Z', ".000000000Z")) } else { String::new() };
    let text: String = lines.iter().map(|line| format!("{stamp}{line}\n")).collect();
    if ask.is("follow") && !ask.is("previous") && state.get("running").is_some() {
        let uid = pods::text(&pod, "/metadata/uid").to_owned();
        return Ok(followed(client.clone(), (ask.key(name), uid), container, stamp, text));
    }
    Ok(answer::text(StatusCode::OK, "text/plain", text))
}

/// What is known of a container, of whichever sort.
fn status_of(pod: &Value, container: &str) -> Value {
    let sorts = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let all = sorts.iter().filter_map(|sort| pod["status"][sort].as_array()).flatten();
    all.into_iter().find(|one| one["name"] == *container).cloned().unwrap_or_default()
}

/// What is said of a container's end.
fn last_words(container: &str, status: &Value) -> Option<String> {
    let end = status.pointer("/state/terminated/finishedAt").and_then(Value::as_str)?;
    Some(format!("{container} ended at {end}"))
}

/// What was said so far, and the rest once the container ends or its pod is gone, be there another of that name.
fn followed(client: Client, (key, uid): (String, String), container: String, stamp: String, text: String) -> Answer {
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    tokio::spawn(async move {
        let mut changes = client.etcd.changes();
        let mut said = Some(text);
        loop {
            if let Some(text) = said.take()
                && sender.send(Ok(Frame::data(Bytes::from(text)))).await.is_err()
            {
                return;
            }
            let Some(pod) = cluster::get(&client, &key).filter(|pod| pods::text(&pod.value, "/metadata/uid") == uid)
            else {
                return;
            };
            let status = status_of(&pod.value, &container);
            if let Some(line) = last_words(&container, &status) {
                // Whoever has left needn't know.
                let _ = sender.send(Ok(Frame::data(Bytes::from(format!("{stamp}{line}\n"))))).await;
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
        }
    });
    let mut answer = answer::stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}
