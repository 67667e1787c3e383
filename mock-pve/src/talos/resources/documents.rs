//! Resources that repeat what a configuration's other documents and lists ask for; nothing without them.

use serde_json::{Value, json};

use super::{Item, Maker, Type};
use crate::world::machine::{Machine, MachineType, NodeConfig};

/// The types that are made here.
pub(super) const NAMES: [&str; 8] = [
    "AuthenticationConfigs.kubernetes.talos.dev",
    "EventSinkConfigs.runtime.talos.dev",
    "ExtensionServiceConfigStatuses.runtime.talos.dev",
    "ExtensionServiceConfigs.runtime.talos.dev",
    "ExtraManifestsConfigs.kubernetes.talos.dev",
    "KmsgLogConfigs.runtime.talos.dev",
    "UnattendedInstallStatuses.runtime.talos.dev",
    "WatchdogTimerConfigs.runtime.talos.dev",
];

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let Some(config) = machine.see(|state| state.config.clone()) else { return Vec::new() };
    let maker = Maker(kind);
    let documents = |kind: &str| {
        let of_kind = |one: &&Value| one.get("kind").and_then(Value::as_str) == Some(kind);
        config.documents().iter().filter(of_kind).cloned().collect::<Vec<_>>()
    };
    let single = |kind: &str, id: &str, spec: fn(&Value) -> Value| -> Vec<Item> {
        documents(kind).first().map(|one| maker.item(id, &spec(one))).into_iter().collect()
    };
    let control_plane = config.machine_type() == MachineType::ControlPlane;
    match kind.name {
        "EventSinkConfigs.runtime.talos.dev" => {
            single("EventSinkConfig", "event-sink", |one| json!({ "endpoint": one["endpoint"] }))
        }
        "KmsgLogConfigs.runtime.talos.dev" => {
            let urls: Vec<Value> =
                documents("KmsgLogConfig").iter().filter_map(|one| Some(url(one.get("url")?.as_str()?))).collect();
            if urls.is_empty() { Vec::new() } else { vec![maker.item("kmsg-log", &json!({ "destinations": urls }))] }
        }
        "WatchdogTimerConfigs.runtime.talos.dev" => single(
            "WatchdogTimerConfig",
            "timer",
            |one| json!({ "device": one["device"], "timeout": one.get("timeout").cloned().unwrap_or_else(|| json!("1m0s")) }),
        ),
        "UnattendedInstallStatuses.runtime.talos.dev" => {
            // Who plays a machine from a disk image plays one that is installed.
            single(
                "UnattendedInstallConfig",
                "unattended-install",
                |one| json!({ "image": one.pointer("/installer/image"), "phase": "installed" }),
            )
        }
        "ExtensionServiceConfigs.runtime.talos.dev" => {
            let spec = |one: &Value| {
                let mut spec = json!({});
                for (from, to) in [("configFiles", "files"), ("environment", "environment")] {
                    if let Some(value) = one.get(from) {
                        spec[to] = value.clone();
                    }
                }
                spec
            };
            documents("ExtensionServiceConfig")
                .iter()
                .filter_map(|one| Some(maker.item(name(one)?, &spec(one))))
                .collect()
        }
        "ExtensionServiceConfigStatuses.runtime.talos.dev" => documents("ExtensionServiceConfig")
            .iter()
            .filter_map(|one| Some(maker.item(name(one)?, &json!({ "specVersion": "1" }))))
            .collect(),
        "ExtraManifestsConfigs.kubernetes.talos.dev" if control_plane => {
            vec![maker.item("extra-manifests", &json!({ "extraManifests": manifests(&config) }))]
        }
        "AuthenticationConfigs.kubernetes.talos.dev" if control_plane => {
            let wanted = config.main().pointer("/cluster/apiServer/authenticationConfig").cloned();
            let one = |mut wanted: Value| {
                wanted["apiVersion"] = json!("apiserver.config.k8s.io/v1beta1");
                wanted["kind"] = json!("AuthenticationConfiguration");
                maker.item("authentication-config", &json!({ "config": wanted }))
            };
            wanted.filter(Value::is_object).map(one).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn name(document: &Value) -> Option<&str> {
    document.get("name")?.as_str()
}

/// What is applied beside Talos' own manifests: a network first, the cloud's after Talos' own, the rest last.
fn manifests(config: &NodeConfig) -> Vec<Value> {
    let far = |url: String, priority: &str, headers: &Value| json!({ "name": url, "url": url, "priority": priority, "extraHeaders": headers, "inlineManifest": "" });
    let none = json!({});
    let headers = config.main().pointer("/cluster/extraManifestHeaders").unwrap_or(&none);
    let mut all: Vec<Value> = Vec::new();
    for (list, priority, headers) in [
        ("/cluster/network/cni/urls", "05", &none),
        ("/cluster/externalCloudProvider/manifests", "30", &none),
        ("/cluster/extraManifests", "99", headers),
    ] {
        all.extend(config.strings(list).into_iter().map(|url| far(url, priority, headers)));
    }
    let near = config.main().pointer("/cluster/inlineManifests").and_then(Value::as_array);
    all.extend(near.into_iter().flatten().map(|one| {
        json!({ "name": one["name"], "url": "", "priority": "99", "extraHeaders": {}, "inlineManifest": one["contents"] })
    }));
    all
}

/// A URL as Go's YAML writes its parts.
pub(super) fn url(text: &str) -> Value {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    json!({ "scheme": scheme, "opaque": "", "user": null, "host": host, "path": path, "rawpath": "", "omithost": false,
        "forcequery": false, "rawquery": query, "fragment": "", "rawfragment": "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let parts = url("udp://10.0.0.1:514/logs?a=b");
        assert_eq!((&parts["scheme"], &parts["host"]), (&json!("udp"), &json!("10.0.0.1:514")));
        assert_eq!((&parts["path"], &parts["rawquery"]), (&json!("/logs"), &json!("a=b")));
        assert_eq!(url("https://localhost:6443")["path"], "");
    }
}
