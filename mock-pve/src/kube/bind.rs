//! `pods/binding`: whoever schedules pods says where one goes (Kubernetes, pkg/registry/core/pod/storage).

use http::StatusCode;
use serde_json::json;

use super::answer::{self, Answer, Cause, Refusal};
use super::ask::{Ask, Run};
use super::decode;
use super::list::find;
use super::write::refuse;
use crate::etcd::{Client, EtcdError};
use crate::world::cluster::{self, pods};

pub(super) async fn bind(client: &Client, ask: &Ask, name: &str, given: &[u8]) -> Result<Answer, Refusal> {
    ask.check("CreateOptions")?;
    let binding = decode::value(&ask.content_type, given)?;
    let node = pods::text(&binding, "/target/name");
    if node.is_empty() {
        let cause = Cause::required("target.name", "");
        return Err(Refusal::invalid_as("Binding", ("", "Binding"), name, &[cause]));
    }
    loop {
        let entry = find(client, ask, name)?;
        let known = pods::node_of(&entry.value);
        if pods::is_going(&entry.value) || !known.is_empty() {
            let why = if known.is_empty() {
                format!("pod {name} is being deleted, cannot be assigned to a host")
            } else {
                format!("pod {name} is already assigned to node \"{known}\"")
            };
            let why = format!("Operation cannot be fulfilled on pods/binding \"{name}\": {why}");
            return Err(Refusal::new(StatusCode::CONFLICT, "Conflict", why)
                .with(json!({ "name": name, "kind": "pods/binding" })));
        }
        let mut value = entry.value.clone();
        value["spec"]["nodeName"] = json!(node);
        pods::set_condition(&mut value, "PodScheduled", "True", "", "");
        if ask.run() == Run::Wet {
            match cluster::put(client, &entry.key, &value, Some(entry.modified)).await {
                Ok(_) => {}
                // Somebody else was faster: what he did is looked at.
                Err(EtcdError::Conflict(_)) => {
                    client.catch_up().await.map_err(|error| refuse(&error))?;
                    continue;
                }
                Err(error) => return Err(refuse(&error)),
            }
        }
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
        return Ok(answer::json(StatusCode::CREATED, &status));
    }
}
