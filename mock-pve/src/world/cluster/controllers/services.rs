//! What is behind services: endpoints and endpoint slices.

use serde_json::{Value, json};

use super::{Desk, Entry, objects, pods};

impl Desk<'_> {
    pub(super) fn services(&mut self) {
        for service in self.all("/registry/services/specs/") {
            let selector = &service.value["spec"]["selector"];
            if selector.as_object().is_some_and(|labels| !labels.is_empty()) && !pods::is_going(&service.value) {
                self.endpoints(&service);
            }
        }
        self.servers();
    }

    fn endpoints(&mut self, service: &Entry) {
        let namespace = pods::namespace(service).to_owned();
        let selector = json!({ "matchLabels": service.value["spec"]["selector"] });
        let behind: Vec<Value> = self
            .pods_in(&namespace)
            .into_iter()
            .filter(|pod| pods::matches(&selector, &pod.value["metadata"]["labels"]) && pods::is_active(&pod.value))
            .filter(|pod| !pods::text(&pod.value, "/status/podIP").is_empty())
            .map(|pod| pod.value.clone())
            .collect();
        let ports: Vec<Value> = service.value["spec"]["ports"].as_array().cloned().unwrap_or_default();
        let ports: Vec<Value> = ports
            .iter()
            .map(|port| {
                let number = target(port, behind.first());
                let mut known = json!({ "port": number, "protocol": port["protocol"].as_str().unwrap_or("TCP") });
                known["name"] = json!(port["name"].as_str().unwrap_or_default());
                known
            })
            .collect();
        let one = |pod: &Value| {
            json!({ "ip": pod["status"]["podIP"], "nodeName": pod["spec"]["nodeName"], "targetRef": { "kind": "Pod",
                "name": pod["metadata"]["name"], "namespace": namespace, "uid": pod["metadata"]["uid"] } })
        };
        let (ready, not): (Vec<&Value>, Vec<&Value>) = behind.iter().partition(|pod| pods::is_ready(pod));
        let mut subset = json!({ "ports": ports });
        for (name, list) in [("addresses", ready), ("notReadyAddresses", not)] {
            if !list.is_empty() {
                subset[name] = list.into_iter().map(one).collect();
            }
        }
        let subsets = if behind.is_empty() { Value::Null } else { json!([subset]) };
        let key = objects::key("services/endpoints", Some(&namespace), service.name());
        self.place(&key, service, "Endpoints", |object| {
            if subsets.is_null() {
                if let Some(map) = object.as_object_mut() {
                    map.remove("subsets");
                }
            } else {
                object["subsets"] = subsets;
            }
        });
        let endpoints: Vec<Value> = behind
            .iter()
            .map(|pod| {
                let ready = pods::is_ready(pod);
                json!({ "addresses": [pod["status"]["podIP"]], "conditions": { "ready": ready, "serving": ready, "terminating": false },
                    "nodeName": pod["spec"]["nodeName"], "targetRef": { "kind": "Pod", "name": pod["metadata"]["name"],
                    "namespace": namespace, "uid": pod["metadata"]["uid"] } })
            })
            .collect();
        self.slice(service, &namespace, endpoints, &ports);
    }

    fn slice(&mut self, service: &Entry, namespace: &str, endpoints: Vec<Value>, ports: &[Value]) {
        let name = if service.key.ends_with("/default/kubernetes") {
            "kubernetes".to_owned()
        } else {
            format!("{}-{}", service.name(), pods::suffix(&service.key, 5))
        };
        let key = objects::key("endpointslices", Some(namespace), &name);
        let of = service.name().to_owned();
        self.place(&key, service, "EndpointSlice", move |object| {
            object["addressType"] = json!("IPv4");
            object["metadata"]["labels"]["kubernetes.io/service-name"] = json!(of);
            object["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] =
                json!("endpointslice-controller.k8s.io");
            object["endpoints"] = json!(endpoints);
            object["ports"] = json!(ports);
        });
    }

    /// The API servers' own service.
    fn servers(&mut self) {
        let key = objects::key("services/specs", Some("default"), "kubernetes");
        let at = objects::key("services/endpoints", Some("default"), "kubernetes");
        let (Some(service), Some(known)) = (self.view.get(&key).cloned(), self.view.get(&at).cloned()) else { return };
        let addresses =
            known.value.pointer("/subsets/0/addresses").and_then(Value::as_array).cloned().unwrap_or_default();
        let endpoints =
            addresses.iter().map(|one| json!({ "addresses": [one["ip"]], "conditions": { "ready": true } })).collect();
        self.slice(&service, "default", endpoints, &[json!({ "name": "https", "port": 6443, "protocol": "TCP" })]);
    }

    /// Makes an object that belongs to a service be as it should.
    fn place(&mut self, key: &str, service: &Entry, kind: &str, change: impl FnOnce(&mut Value)) {
        let known = self.view.get(key).cloned();
        let namespace = pods::namespace(service);
        let version = if kind == "Endpoints" { "v1" } else { "discovery.k8s.io/v1" };
        let mut value = known.as_ref().map_or_else(
            || {
                let name = key.rsplit('/').next().unwrap_or_default();
                let mut new = objects::namespaced(version, kind, Some(namespace), name, &self.uid(kind, key));
                if kind == "EndpointSlice" {
                    new["metadata"]["ownerReferences"] = json!([pods::reference(&service.value)]);
                    new["metadata"]["generateName"] = json!(format!("{}-", service.name()));
                }
                new
            },
            |entry| entry.value.clone(),
        );
        change(&mut value);
        match known {
            Some(entry) if entry.value != value => self.round.update(&entry, value),
            None => self.round.create(key.to_owned(), value),
            Some(_) => {}
        }
    }
}

/// The port of a pod that a service's port leads to.
fn target(port: &Value, pod: Option<&Value>) -> Value {
    match &port["targetPort"] {
        Value::String(name) => {
            let containers = pod.and_then(|pod| pod["spec"]["containers"].as_array()).into_iter().flatten();
            let mut ports = containers.flat_map(|one| one["ports"].as_array().cloned().unwrap_or_default());
            ports
                .find(|one| one["name"] == *name)
                .map_or_else(|| port["port"].clone(), |one| one["containerPort"].clone())
        }
        Value::Null => port["port"].clone(),
        number => number.clone(),
    }
}
