//! What stands in the columns of each kind's table (Kubernetes, pkg/printers/internalversion).

mod rarer;

use serde_json::{Value, json};

use super::kinds::Kind;
use crate::world::cluster::{objects, pods};

/// A column: its name, its priority (1: only for `-o wide`), and what stands there.
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) priority: u32,
    pub(super) cell: Cell,
}

/// Where it comes from.
pub(super) enum Cell {
    Made(fn(&Value) -> Value),
    /// By a path, as definitions of other kinds give it.
    Path(String, bool),
}

fn column(name: &str, kind: &'static str, priority: u32, cell: fn(&Value) -> Value) -> Column {
    Column { name: name.to_owned(), kind, priority, cell: Cell::Made(cell) }
}

pub(super) fn text(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        Some(Value::Null | Value::String(_)) | None => "<none>".to_owned(),
        Some(other) => other.to_string(),
    }
}

fn number(object: &Value, pointer: &str) -> Value {
    json!(object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0))
}

fn size(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len) + value.as_array().map_or(0, Vec::len)
}

/// How long ago, as kubectl writes it (apimachinery, util/duration).
pub(super) fn ago(since: &str) -> String {
    let Ok(since) = since.parse::<jiff::Timestamp>() else { return "<unknown>".to_owned() };
    span(jiff::Timestamp::now().duration_since(since).as_secs().max(0))
}

/// A number of seconds, in the same way.
fn span(seconds: i64) -> String {
    let two = |big: i64, unit: char, small: i64, other: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{other}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        _ => two(days / 365, 'y', days % 365, 'd'),
    }
}

fn age(object: &Value) -> Value {
    json!(ago(&text(object, "/metadata/creationTimestamp")))
}

fn node_status(node: &Value) -> Value {
    let ready = node["status"]["conditions"].as_array().into_iter().flatten().find(|one| one["type"] == "Ready");
    let word = match ready {
        Some(_) if objects::is_ready(node) => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = node.pointer("/spec/unschedulable") == Some(&json!(true));
    if cordoned { json!(format!("{word},SchedulingDisabled")) } else { json!(word) }
}

fn roles(node: &Value) -> Value {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let roles: Vec<&str> = labels.filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { json!("<none>") } else { json!(roles.join(",")) }
}

fn pod_ready(pod: &Value) -> Value {
    let all = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    json!(format!("{}/{all}", ready.into_iter().filter(|one| one["ready"] == true).count()))
}

fn pod_status(pod: &Value) -> Value {
    if pods::is_going(pod) {
        return json!("Terminating");
    }
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let reason = statuses.into_iter().find_map(|one| {
        let state = &one["state"];
        state.pointer("/waiting/reason").or_else(|| state.pointer("/terminated/reason")).cloned()
    });
    reason.or_else(|| pod["status"].get("reason").cloned()).unwrap_or_else(|| json!(text(pod, "/status/phase")))
}

fn restarts(pod: &Value) -> Value {
    let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
    let mut last = String::new();
    let count: u64 = statuses
        .map(|one| {
            if let Some(at) = one.pointer("/lastState/terminated/finishedAt").and_then(Value::as_str) {
                last = at.to_owned().max(last.clone());
            }
            one["restartCount"].as_u64().unwrap_or(0)
        })
        .sum();
    if count > 0 && !last.is_empty() {
        json!(format!("{count} ({} ago)", ago(&last)))
    } else {
        json!(count.to_string())
    }
}

fn gates(pod: &Value) -> Value {
    match size(&pod["spec"]["readinessGates"]) {
        0 => json!("<none>"),
        number => json!(format!("0/{number}")),
    }
}

fn replicas(object: &Value) -> Value {
    json!(format!("{}/{}", number(object, "/status/readyReplicas"), number(object, "/spec/replicas")))
}

fn address(kind: &str, node: &Value) -> Value {
    let all = node["status"]["addresses"].as_array().into_iter().flatten();
    let found = all.into_iter().find(|one| one["type"] == kind).and_then(|one| one["address"].as_str());
    json!(found.unwrap_or("<none>"))
}

fn labels(map: &Value) -> String {
    let each: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if each.is_empty() { "<none>".to_owned() } else { each.join(",") }
}

/// How long a job ran, or has run so far.
fn took(job: &Value) -> Value {
    let at = |pointer: &str| job.pointer(pointer).and_then(Value::as_str)?.parse::<jiff::Timestamp>().ok();
    let Some(began) = at("/status/startTime") else { return json!("") };
    let ended = at("/status/completionTime").unwrap_or_else(jiff::Timestamp::now);
    json!(span(ended.duration_since(began).as_secs().max(0)))
}

fn containers(object: &Value) -> Value {
    listed(&object["spec"]["template"]["spec"]["containers"], "name")
}

fn images(object: &Value) -> Value {
    listed(&object["spec"]["template"]["spec"]["containers"], "image")
}

fn listed(list: &Value, field: &str) -> Value {
    let all: Vec<&str> = list.as_array().into_iter().flatten().filter_map(|one| one[field].as_str()).collect();
    if all.is_empty() { json!("<none>") } else { json!(all.join(",")) }
}

fn ports(service: &Value) -> Value {
    let each: Vec<String> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let open = port["nodePort"].as_u64().map_or(String::new(), |number| format!(":{number}"));
            format!("{}{open}/{}", port["port"], port["protocol"].as_str().unwrap_or("TCP"))
        })
        .collect();
    if each.is_empty() { json!("<none>") } else { json!(each.join(",")) }
}

fn modes(object: &Value) -> Value {
    let all = object["spec"]["accessModes"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let each: Vec<&str> = all
        .map(|mode| match mode {
            "ReadWriteOnce" => "RWO",
            "ReadOnlyMany" => "ROX",
            "ReadWriteMany" => "RWX",
            "ReadWriteOncePod" => "RWOP",
            other => other,
        })
        .collect();
    json!(each.join(","))
}

fn budget(object: &Value, field: &str) -> Value {
    match &object["spec"][field] {
        Value::Null => json!("N/A"),
        Value::String(text) => json!(text),
        other => json!(other.to_string()),
    }
}

fn behind(endpoints: &Value) -> Value {
    let mut all = Vec::new();
    for subset in endpoints["subsets"].as_array().into_iter().flatten() {
        for one in subset["addresses"].as_array().into_iter().flatten() {
            for port in subset["ports"].as_array().into_iter().flatten() {
                all.push(format!("{}:{}", one["ip"].as_str().unwrap_or_default(), port["port"]));
            }
        }
    }
    match all.len() {
        0 => json!("<none>"),
        1..=3 => json!(all.join(",")),
        number => json!(format!("{} + {} more...", all[..3].join(","), number - 3)),
    }
}

/// What became of a request for a certificate.
fn verdict(request: &Value) -> String {
    let all = request["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let has = |kind: &str| all.iter().any(|one| one["type"] == kind);
    let mut words = vec![if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }];
    if has("Failed") {
        words.push("Failed");
    }
    if !pods::text(request, "/status/certificate").is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

fn subjects(object: &Value, kind: &str) -> Value {
    let all: Vec<String> = object["subjects"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|one| one["kind"] == kind)
        .map(|one| {
            let name = one["name"].as_str().unwrap_or_default();
            one["namespace"].as_str().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
        })
        .collect();
    json!(all.join(", "))
}

#[expect(clippy::too_many_lines, reason = "one table: what kubectl shows of each kind")]
pub(super) fn columns(kind: &Kind) -> Vec<Column> {
    let age_column = || column("Age", "string", 0, age);
    let mut all: Vec<Column> = match kind.plural.as_str() {
        "nodes" => vec![
            column("Status", "string", 0, node_status),
            column("Roles", "string", 0, roles),
            age_column(),
            column("Version", "string", 0, |node| json!(text(node, "/status/nodeInfo/kubeletVersion"))),
            column("Internal-IP", "string", 1, |node| address("InternalIP", node)),
            column("External-IP", "string", 1, |node| address("ExternalIP", node)),
            column("OS-Image", "string", 1, |node| json!(text(node, "/status/nodeInfo/osImage"))),
            column("Kernel-Version", "string", 1, |node| json!(text(node, "/status/nodeInfo/kernelVersion"))),
            column("Container-Runtime", "string", 1, |node| {
                json!(text(node, "/status/nodeInfo/containerRuntimeVersion"))
            }),
        ],
        "pods" => vec![
            column("Ready", "string", 0, pod_ready),
            column("Status", "string", 0, pod_status),
            column("Restarts", "string", 0, restarts),
            age_column(),
            column("IP", "string", 1, |pod| json!(text(pod, "/status/podIP"))),
            column("Node", "string", 1, |pod| json!(text(pod, "/spec/nodeName"))),
            column("Nominated Node", "string", 1, |pod| json!(text(pod, "/status/nominatedNodeName"))),
            column("Readiness Gates", "string", 1, gates),
        ],
        "deployments" => vec![
            column("Ready", "string", 0, replicas),
            column("Up-to-date", "integer", 0, |object| number(object, "/status/updatedReplicas")),
            column("Available", "integer", 0, |object| number(object, "/status/availableReplicas")),
            age_column(),
            column("Containers", "string", 1, containers),
            column("Images", "string", 1, images),
            column("Selector", "string", 1, |object| json!(labels(&object["spec"]["selector"]["matchLabels"]))),
        ],
        "replicasets" => vec![
            column("Desired", "integer", 0, |object| number(object, "/spec/replicas")),
            column("Current", "integer", 0, |object| number(object, "/status/replicas")),
            column("Ready", "integer", 0, |object| number(object, "/status/readyReplicas")),
            age_column(),
            column("Containers", "string", 1, containers),
            column("Images", "string", 1, images),
            column("Selector", "string", 1, |object| json!(labels(&object["spec"]["selector"]["matchLabels"]))),
        ],
        "statefulsets" => vec![
            column("Ready", "string", 0, replicas),
            age_column(),
            column("Containers", "string", 1, containers),
            column("Images", "string", 1, images),
        ],
        "daemonsets" => vec![
            column("Desired", "integer", 0, |object| number(object, "/status/desiredNumberScheduled")),
            column("Current", "integer", 0, |object| number(object, "/status/currentNumberScheduled")),
            column("Ready", "integer", 0, |object| number(object, "/status/numberReady")),
            column("Up-to-date", "integer", 0, |object| number(object, "/status/updatedNumberScheduled")),
            column("Available", "integer", 0, |object| number(object, "/status/numberAvailable")),
            column("Node Selector", "string", 0, |object| {
                json!(labels(&object["spec"]["template"]["spec"]["nodeSelector"]))
            }),
            age_column(),
            column("Containers", "string", 1, containers),
            column("Images", "string", 1, images),
            column("Selector", "string", 1, |object| json!(labels(&object["spec"]["selector"]["matchLabels"]))),
        ],
        "jobs" => vec![
            column("Status", "string", 0, |job| {
                let conditions = job["status"]["conditions"].as_array().into_iter().flatten();
                let ended =
                    conditions.into_iter().find(|one| matches!(one["type"].as_str(), Some("Complete" | "Failed")));
                json!(ended.and_then(|one| one["type"].as_str()).unwrap_or("Running"))
            }),
            column("Completions", "string", 0, |job| {
                json!(format!("{}/{}", number(job, "/status/succeeded"), number(job, "/spec/completions")))
            }),
            column("Duration", "string", 0, took),
            age_column(),
            column("Containers", "string", 1, containers),
            column("Images", "string", 1, images),
            column("Selector", "string", 1, |object| json!(labels(&object["spec"]["selector"]["matchLabels"]))),
        ],
        "services" => vec![
            column("Type", "string", 0, |object| json!(text(object, "/spec/type"))),
            column("Cluster-IP", "string", 0, |object| json!(text(object, "/spec/clusterIP"))),
            column("External-IP", "string", 0, |object| {
                let balanced = object["spec"]["type"] == "LoadBalancer";
                let ips = listed(&object["status"]["loadBalancer"]["ingress"], "ip");
                if balanced && ips == "<none>" { json!("<pending>") } else { ips }
            }),
            column("Port(s)", "string", 0, ports),
            age_column(),
            column("Selector", "string", 1, |object| json!(labels(&object["spec"]["selector"]))),
        ],
        "endpoints" => vec![column("Endpoints", "string", 0, behind), age_column()],
        "endpointslices" => vec![
            column("AddressType", "string", 0, |object| json!(text(object, "/addressType"))),
            column("Ports", "string", 0, |object| {
                let all: Vec<String> =
                    object["ports"].as_array().into_iter().flatten().map(|port| port["port"].to_string()).collect();
                json!(if all.is_empty() { "<unset>".to_owned() } else { all.join(",") })
            }),
            column("Endpoints", "string", 0, |object| {
                let all = object["endpoints"].as_array().into_iter().flatten();
                let all: Vec<String> = all.filter_map(|one| one["addresses"][0].as_str().map(str::to_owned)).collect();
                json!(if all.is_empty() { "<unset>".to_owned() } else { all.join(",") })
            }),
            age_column(),
        ],
        "namespaces" => {
            vec![column("Status", "string", 0, |object| json!(text(object, "/status/phase"))), age_column()]
        }
        "configmaps" => {
            vec![
                column("Data", "string", 0, |object| json!(size(&object["data"]) + size(&object["binaryData"]))),
                age_column(),
            ]
        }
        "secrets" => vec![
            column("Type", "string", 0, |object| json!(text(object, "/type"))),
            column("Data", "string", 0, |object| json!(size(&object["data"]))),
            age_column(),
        ],
        "poddisruptionbudgets" => vec![
            column("Min Available", "string", 0, |object| budget(object, "minAvailable")),
            column("Max Unavailable", "string", 0, |object| budget(object, "maxUnavailable")),
            column("Allowed Disruptions", "integer", 0, |object| number(object, "/status/disruptionsAllowed")),
            age_column(),
        ],
        "leases" => {
            vec![column("Holder", "string", 0, |object| json!(text(object, "/spec/holderIdentity"))), age_column()]
        }
        "persistentvolumes" => vec![
            column("Capacity", "string", 0, |object| json!(text(object, "/spec/capacity/storage"))),
            column("Access Modes", "string", 0, modes),
            column("Reclaim Policy", "string", 0, |object| json!(text(object, "/spec/persistentVolumeReclaimPolicy"))),
            column("Status", "string", 0, |object| json!(text(object, "/status/phase"))),
            column("Claim", "string", 0, |object| {
                let to = &object["spec"]["claimRef"];
                match (to["namespace"].as_str(), to["name"].as_str()) {
                    (Some(namespace), Some(name)) => json!(format!("{namespace}/{name}")),
                    _ => json!(""),
                }
            }),
            column("StorageClass", "string", 0, |object| json!(pods::text(object, "/spec/storageClassName"))),
            column("VolumeAttributesClass", "string", 0, |_| json!("<unset>")),
            column("Reason", "string", 0, |object| json!(pods::text(object, "/status/reason"))),
            age_column(),
            column("VolumeMode", "string", 1, |object| json!(text(object, "/spec/volumeMode"))),
        ],
        "persistentvolumeclaims" => vec![
            column("Status", "string", 0, |object| json!(text(object, "/status/phase"))),
            column("Volume", "string", 0, |object| json!(pods::text(object, "/spec/volumeName"))),
            column("Capacity", "string", 0, |object| json!(pods::text(object, "/status/capacity/storage"))),
            column("Access Modes", "string", 0, modes),
            column("StorageClass", "string", 0, |object| json!(pods::text(object, "/spec/storageClassName"))),
            column("VolumeAttributesClass", "string", 0, |_| json!("<unset>")),
            age_column(),
            column("VolumeMode", "string", 1, |object| json!(text(object, "/spec/volumeMode"))),
        ],
        "volumeattachments" => vec![
            column("Attacher", "string", 0, |object| json!(text(object, "/spec/attacher"))),
            column("PV", "string", 0, |object| json!(text(object, "/spec/source/persistentVolumeName"))),
            column("Node", "string", 0, |object| json!(text(object, "/spec/nodeName"))),
            column("Attached", "string", 0, |object| json!(text(object, "/status/attached"))),
            age_column(),
        ],
        "storageclasses" => vec![
            column("Provisioner", "string", 0, |object| json!(text(object, "/provisioner"))),
            column("ReclaimPolicy", "string", 0, |object| json!(text(object, "/reclaimPolicy"))),
            column("VolumeBindingMode", "string", 0, |object| json!(text(object, "/volumeBindingMode"))),
            column("AllowVolumeExpansion", "string", 0, |object| json!(object["allowVolumeExpansion"] == true)),
            age_column(),
        ],
        "events" => rarer::events(),
        "clusterroles" | "roles" => {
            vec![column("Created At", "date", 0, |object| json!(text(object, "/metadata/creationTimestamp")))]
        }
        "clusterrolebindings" | "rolebindings" => vec![
            column("Role", "string", 0, |object| {
                json!(format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name")))
            }),
            age_column(),
            column("Users", "string", 1, |object| subjects(object, "User")),
            column("Groups", "string", 1, |object| subjects(object, "Group")),
            column("ServiceAccounts", "string", 1, |object| subjects(object, "ServiceAccount")),
        ],
        "customresourcedefinitions" => {
            vec![column("Created At", "date", 0, |object| json!(text(object, "/metadata/creationTimestamp")))]
        }
        "apiservices" => vec![
            column("Service", "string", 0, |object| {
                let service = &object["spec"]["service"];
                match (service["namespace"].as_str(), service["name"].as_str()) {
                    (Some(namespace), Some(name)) => json!(format!("{namespace}/{name}")),
                    _ => json!("Local"),
                }
            }),
            column("Available", "string", 0, |object| json!(text(object, "/status/conditions/0/status"))),
            age_column(),
        ],
        "priorityclasses" => vec![
            column("Value", "integer", 0, |object| number(object, "/value")),
            column("Global-Default", "boolean", 0, |object| json!(object["globalDefault"] == true)),
            age_column(),
            column("PreemptionPolicy", "string", 0, |object| {
                json!(object["preemptionPolicy"].as_str().unwrap_or("PreemptLowerPriority"))
            }),
        ],
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => {
            vec![column("Webhooks", "integer", 0, |object| json!(size(&object["webhooks"]))), age_column()]
        }
        "certificatesigningrequests" => vec![
            age_column(),
            column("SignerName", "string", 0, |object| json!(text(object, "/spec/signerName"))),
            column("Requestor", "string", 0, |object| json!(text(object, "/spec/username"))),
            column("RequestedDuration", "string", 0, |object| {
                json!(object["spec"]["expirationSeconds"].as_i64().map_or_else(|| "<none>".to_owned(), span))
            }),
            column("Condition", "string", 0, |object| json!(verdict(object))),
        ],
        other => rarer::columns(other).unwrap_or_else(|| vec![age_column()]),
    };
    if let Some(version) = &kind.custom {
        let own = version["additionalPrinterColumns"].as_array().cloned().unwrap_or_default();
        if !own.is_empty() {
            all = own
                .iter()
                .map(|one| Column {
                    name: text(one, "/name"),
                    kind: "string",
                    priority: u32::try_from(one["priority"].as_u64().unwrap_or(0)).unwrap_or(0),
                    cell: Cell::Path(text(one, "/jsonPath").replace('.', "/"), one["type"] == "date"),
                })
                .collect();
        }
    }
    all
}
