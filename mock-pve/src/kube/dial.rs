//! What the API server would ask a kubelet or a pod for: a shell, a port, a page. Nothing listens there, and it says so the
//! way the original does when nobody answers (Kubernetes, pkg/registry/core/pod/rest; apimachinery, util/proxy).

use http::StatusCode;
use serde_json::Value;

use super::answer::Refusal;
use super::ask::Ask;
use super::list::find;
use crate::etcd::Client;
use crate::world::cluster::{self, objects, pods};

/// Where a kubelet would listen.
const KUBELET: u16 = 10_250;

/// `exec`, `attach` and `portforward`.
pub(super) fn stream(client: &Client, ask: &Ask, name: &str) -> Result<std::convert::Infallible, Refusal> {
    let pod = find(client, ask, name)?.value;
    if ask.subresource.as_deref() != Some("portforward") {
        container_of(&pod, name, ask.flag("container"))?;
    }
    let node = pods::node_of(&pod);
    if node.is_empty() {
        return Err(Refusal::bad(format!("pod {name} does not have a host assigned")));
    }
    let node = cluster::get(client, &objects::key("minions", None, node));
    let address = node.map_or_else(String::new, |node| address(&node.value));
    Err(Refusal::nameless(format!("error dialing backend: dial tcp {address}:{KUBELET}: connect: connection refused")))
}

/// The container that is meant.
pub(super) fn container_of(pod: &Value, name: &str, asked: &str) -> Result<String, Refusal> {
    let named = |list: &str| -> Vec<&str> {
        pod["spec"][list].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str()).collect()
    };
    if ["initContainers", "ephemeralContainers"].iter().any(|list| named(list).contains(&asked)) {
        return Ok(asked.to_owned());
    }
    match named("containers").as_slice() {
        [one] if asked.is_empty() => Ok((*one).to_owned()),
        all if asked.is_empty() => {
            let why = format!("a container name must be specified for pod {name}, choose one of: [{}]", all.join(" "));
            Err(Refusal::bad(why))
        }
        all if all.contains(&asked) => Ok(asked.to_owned()),
        _ => Err(Refusal::bad(format!("container {asked} is not valid for pod {name}"))),
    }
}

/// `proxy`: a page of a node, a pod or a service.
pub(super) fn proxy(client: &Client, ask: &Ask, name: &str) -> Result<std::convert::Infallible, Refusal> {
    // `NAME:PORT`, `https:NAME:PORT`.
    let parts: Vec<&str> = name.split(':').collect();
    let (name, port) = match parts.as_slice() {
        [name, port] | [_, name, port] => (*name, *port),
        _ => (name, ""),
    };
    let object = find(client, ask, name)?.value;
    let refused = |to: String| {
        let why = format!("error trying to reach service: dial tcp {to}: connect: connection refused");
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why)
    };
    match ask.kind.plural.as_str() {
        "nodes" => {
            let port = if port.is_empty() { KUBELET.to_string() } else { port.to_owned() };
            Err(refused(format!("{}:{port}", address(&object))))
        }
        "pods" => {
            let first = pods::count(&object, "/spec/containers/0/ports/0/containerPort");
            let port = if port.is_empty() { first.max(80).to_string() } else { port.to_owned() };
            Err(refused(format!("{}:{port}", pods::text(&object, "/status/podIP"))))
        }
        _ => {
            let ports = object["spec"]["ports"].as_array().cloned().unwrap_or_default();
            let found = match (port, ports.as_slice()) {
                ("", [one]) => Some(one),
                (port, all) => all.iter().find(|one| one["name"] == port || one["port"].as_u64() == port.parse().ok()),
            };
            let key = objects::key("services/endpoints", ask.namespace.as_deref(), name);
            let behind = cluster::get(client, &key).map(|entry| entry.value).unwrap_or_default();
            let address = pods::text(&behind, "/subsets/0/addresses/0/ip");
            match found {
                Some(_) if !address.is_empty() => {
                    Err(refused(format!("{address}:{}", pods::count(&behind, "/subsets/0/ports/0/port"))))
                }
                _ => {
                    let why = match found {
                        Some(_) => format!("no endpoints available for service \"{name}\""),
                        None => format!("no service port \"{port}\" found for service \"{name}\""),
                    };
                    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", why))
                }
            }
        }
    }
}

/// A node's own address.
fn address(node: &Value) -> String {
    let all = node["status"]["addresses"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|one| one["type"] == "InternalIP").and_then(|one| one["address"].as_str());
    found.unwrap_or_default().to_owned()
}
