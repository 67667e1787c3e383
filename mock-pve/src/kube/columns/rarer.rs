//! The columns of kinds that are kept here and that nothing runs.

use serde_json::{Value, json};

use super::{Column, age, ago, column, containers, images, labels, listed, number, size, text};

/// How many of them are shown.
const SHOWN_HOSTS: usize = 3;
const SHOWN_METRICS: usize = 2;

fn truth(object: &Value, pointer: &str) -> Value {
    json!(if object.pointer(pointer) == Some(&json!(true)) { "True" } else { "False" })
}

/// A flag of a driver, which says `false` where it is left out.
fn flag(object: &Value, pointer: &str) -> Value {
    json!(object.pointer(pointer) == Some(&json!(true)))
}

fn hosts(ingress: &Value) -> Value {
    let rules = ingress["spec"]["rules"].as_array().into_iter().flatten();
    let all: Vec<&str> = rules.filter_map(|rule| rule["host"].as_str()).filter(|host| !host.is_empty()).collect();
    match all.len() {
        0 => json!("*"),
        count if count > SHOWN_HOSTS => {
            json!(format!("{} + {} more...", all[..SHOWN_HOSTS].join(","), count - SHOWN_HOSTS))
        }
        _ => json!(all.join(",")),
    }
}

fn balancers(ingress: &Value) -> Value {
    let list = ingress.pointer("/status/loadBalancer/ingress").and_then(Value::as_array);
    let each = list.into_iter().flatten().filter_map(|one| one["ip"].as_str().or_else(|| one["hostname"].as_str()));
    json!(each.collect::<Vec<_>>().join(","))
}

/// What an autoscaler looks at: what is, as far as it is known, and what is to be.
fn metrics(scaler: &Value) -> Value {
    let wanted: Vec<&Value> = scaler["spec"]["metrics"].as_array().into_iter().flatten().collect();
    let one = |metric: &&Value| {
        let resource = &metric["resource"];
        let target = &resource["target"];
        let aim = match target["averageUtilization"].as_u64() {
            Some(percent) => format!("{percent}%"),
            None => text(target, "/averageValue"),
        };
        format!("{}: <unknown>/{aim}", text(resource, "/name"))
    };
    let each: Vec<String> = wanted.iter().take(SHOWN_METRICS).map(one).collect();
    match wanted.len() {
        0 => json!("<none>"),
        count if count > SHOWN_METRICS => json!(format!("{} + {} more...", each.join(", "), count - SHOWN_METRICS)),
        _ => json!(each.join(", ")),
    }
}

/// Used and allowed, of some resources.
fn quota(quota: &Value, wanted: fn(&str) -> bool) -> Value {
    let hard = quota.pointer("/status/hard").or_else(|| quota.pointer("/spec/hard")).and_then(Value::as_object);
    let used = |name: &str| quota["status"]["used"][name].as_str().unwrap_or("0").to_owned();
    let mine = hard.into_iter().flatten().filter(|(name, _)| wanted(name));
    let each: Vec<String> =
        mine.map(|(name, hard)| format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or_default())).collect();
    json!(each.join(", "))
}

/// Who made a revision: `daemonset.apps/kube-proxy`.
fn controller(revision: &Value) -> Value {
    let owners = revision["metadata"]["ownerReferences"].as_array().into_iter().flatten();
    let found = owners.into_iter().find(|owner| owner["controller"] == true);
    let Some(owner) = found else { return json!("<none>") };
    let group = owner["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
    let kind = text(owner, "/kind").to_lowercase();
    let kind = group.map_or_else(|| kind.clone(), |group| format!("{kind}.{group}"));
    json!(format!("{kind}/{}", text(owner, "/name")))
}

/// A text of an event, whichever group it is written as.
fn of_event(event: &Value, pointers: &[&str]) -> String {
    let found = pointers.iter().filter_map(|pointer| event.pointer(pointer)?.as_str()).find(|text| !text.is_empty());
    found.unwrap_or_default().to_owned()
}

/// What events are shown by.
pub(super) fn events() -> Vec<Column> {
    vec![
        column("Last Seen", "string", 0, |event| {
            json!(ago(&of_event(
                event,
                &[
                    "/series/lastObservedTime",
                    "/lastTimestamp",
                    "/deprecatedLastTimestamp",
                    "/eventTime",
                    "/metadata/creationTimestamp"
                ]
            )))
        }),
        column("Type", "string", 0, |event| json!(text(event, "/type"))),
        column("Reason", "string", 0, |event| json!(text(event, "/reason"))),
        column("Object", "string", 0, |event| {
            let kind = of_event(event, &["/involvedObject/kind", "/regarding/kind"]).to_lowercase();
            json!(format!("{kind}/{}", of_event(event, &["/involvedObject/name", "/regarding/name"])))
        }),
        column("Subobject", "string", 1, |event| {
            json!(of_event(event, &["/involvedObject/fieldPath", "/regarding/fieldPath"]))
        }),
        column("Source", "string", 1, |event| {
            let by =
                ["/source/component", "/deprecatedSource/component", "/reportingComponent", "/reportingController"];
            let host = of_event(event, &["/source/host", "/deprecatedSource/host", "/reportingInstance"]);
            let by = of_event(event, &by);
            json!(if host.is_empty() { by } else { format!("{by}, {host}") })
        }),
        column("Message", "string", 0, |event| json!(of_event(event, &["/message", "/note"]).trim())),
        column("First Seen", "string", 1, |event| {
            json!(ago(&of_event(
                event,
                &["/firstTimestamp", "/deprecatedFirstTimestamp", "/eventTime", "/metadata/creationTimestamp"]
            )))
        }),
        column("Count", "integer", 1, |event| {
            let counts = ["/series/count", "/count", "/deprecatedCount"];
            let found = counts.iter().filter_map(|pointer| event.pointer(pointer)?.as_u64()).find(|count| *count > 0);
            json!(found.unwrap_or(1))
        }),
        column("Name", "string", 1, |event| json!(text(event, "/metadata/name"))),
    ]
}

/// The columns of a kind, if it is one of these.
#[expect(clippy::too_many_lines, reason = "one table: what kubectl shows of each kind")]
pub(super) fn columns(plural: &str) -> Option<Vec<Column>> {
    let age_column = || column("Age", "string", 0, age);
    Some(match plural {
        "componentstatuses" => vec![
            column("Status", "string", 0, |object| {
                json!(if object.pointer("/conditions/0/status") == Some(&json!("True")) {
                    "Healthy"
                } else {
                    "Unhealthy"
                })
            }),
            column("Message", "string", 0, |object| {
                object.pointer("/conditions/0/message").cloned().unwrap_or_else(|| json!(""))
            }),
            column("Error", "string", 0, |object| {
                object.pointer("/conditions/0/error").cloned().unwrap_or_else(|| json!(""))
            }),
        ],
        "cronjobs" => vec![
            column("Schedule", "string", 0, |object| json!(text(object, "/spec/schedule"))),
            column("Timezone", "string", 0, |object| json!(text(object, "/spec/timeZone"))),
            column("Suspend", "boolean", 0, |object| truth(object, "/spec/suspend")),
            column("Active", "integer", 0, |object| json!(size(&object["status"]["active"]))),
            column("Last Schedule", "string", 0, |object| {
                json!(object["status"]["lastScheduleTime"].as_str().map_or_else(|| "<none>".to_owned(), ago))
            }),
            age_column(),
            column("Containers", "string", 1, |object| containers(&object["spec"]["jobTemplate"])),
            column("Images", "string", 1, |object| images(&object["spec"]["jobTemplate"])),
        ],
        "horizontalpodautoscalers" => vec![
            column("Reference", "string", 0, |object| {
                let of = &object["spec"]["scaleTargetRef"];
                json!(format!("{}/{}", text(of, "/kind"), text(of, "/name")))
            }),
            column("Targets", "string", 0, metrics),
            column("MinPods", "string", 0, |object| {
                json!(
                    object["spec"]["minReplicas"].as_u64().map_or_else(|| "<unset>".to_owned(), |one| one.to_string())
                )
            }),
            column("MaxPods", "integer", 0, |object| number(object, "/spec/maxReplicas")),
            column("Replicas", "integer", 0, |object| number(object, "/status/currentReplicas")),
            age_column(),
        ],
        "ingresses" => vec![
            column("Class", "string", 0, |object| json!(text(object, "/spec/ingressClassName"))),
            column("Hosts", "string", 0, hosts),
            column("Address", "string", 0, balancers),
            column("Ports", "string", 0, |object| {
                json!(if size(&object["spec"]["tls"]) > 0 { "80, 443" } else { "80" })
            }),
            age_column(),
        ],
        "ingressclasses" => vec![
            column("Controller", "string", 0, |object| json!(text(object, "/spec/controller"))),
            column("Parameters", "string", 0, |object| {
                let of = &object["spec"]["parameters"];
                if !of.is_object() {
                    return json!("<none>");
                }
                let group = of["apiGroup"].as_str().map(|group| format!(".{group}")).unwrap_or_default();
                json!(format!("{}{group}/{}", text(of, "/kind"), text(of, "/name")))
            }),
            age_column(),
        ],
        "networkpolicies" => vec![
            column("Pod-Selector", "string", 0, |object| json!(labels(&object["spec"]["podSelector"]["matchLabels"]))),
            age_column(),
        ],
        "resourcequotas" => vec![
            column("Request", "string", 0, |object| quota(object, |name| !name.starts_with("limits"))),
            column("Limit", "string", 0, |object| quota(object, |name| name.starts_with("limits"))),
            age_column(),
        ],
        "limitranges" => {
            vec![column("Created At", "date", 0, |object| json!(text(object, "/metadata/creationTimestamp")))]
        }
        "replicationcontrollers" => vec![
            column("Desired", "integer", 0, |object| number(object, "/spec/replicas")),
            column("Current", "integer", 0, |object| number(object, "/status/replicas")),
            column("Ready", "integer", 0, |object| number(object, "/status/readyReplicas")),
            age_column(),
            column("Containers", "string", 1, containers),
            column("Images", "string", 1, images),
            column("Selector", "string", 1, |object| json!(labels(&object["spec"]["selector"]))),
        ],
        "podtemplates" => vec![
            column("Containers", "string", 0, |object| listed(&object["template"]["spec"]["containers"], "name")),
            column("Images", "string", 0, |object| listed(&object["template"]["spec"]["containers"], "image")),
            column("Pod Labels", "string", 0, |object| json!(labels(&object["template"]["metadata"]["labels"]))),
        ],
        "controllerrevisions" => vec![
            column("Controller", "string", 0, controller),
            column("Revision", "string", 0, |object| number(object, "/revision")),
            age_column(),
        ],
        "runtimeclasses" => {
            vec![column("Handler", "string", 0, |object| json!(text(object, "/handler"))), age_column()]
        }
        "csinodes" => {
            vec![column("Drivers", "integer", 0, |object| json!(size(&object["spec"]["drivers"]))), age_column()]
        }
        "csidrivers" => vec![
            // Attaching is the one thing that counts as wanted.
            column("AttachRequired", "boolean", 0, |object| json!(object["spec"]["attachRequired"] != false)),
            column("PodInfoOnMount", "boolean", 0, |object| flag(object, "/spec/podInfoOnMount")),
            column("StorageCapacity", "boolean", 0, |object| flag(object, "/spec/storageCapacity")),
            column("TokenRequests", "string", 0, |object| {
                let all = listed(&object["spec"]["tokenRequests"], "audience");
                if all == "<none>" { json!("<unset>") } else { all }
            }),
            column("RequiresRepublish", "boolean", 0, |object| flag(object, "/spec/requiresRepublish")),
            column("Modes", "string", 0, |object| {
                let modes = object["spec"]["volumeLifecycleModes"].as_array().into_iter().flatten();
                let all: Vec<&str> = modes.filter_map(Value::as_str).collect();
                json!(if all.is_empty() { "Persistent".to_owned() } else { all.join(",") })
            }),
            age_column(),
        ],
        _ => return None,
    })
}
