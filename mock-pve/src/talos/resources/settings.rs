//! Resources that say what the configuration says, in the form that a part of Talos reads.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::wire::Proto;
use super::{Item, Maker, Type, network};
use crate::world::machine::{Hostname, Machine, MachineType, NodeConfig, State};

/// The types that are made here.
pub(super) const NAMES: [&str; 20] = [
    "AcquireConfigSpecs.v1alpha1.talos.dev",
    "AcquireConfigStatuses.v1alpha1.talos.dev",
    "AdmissionControlConfigs.kubernetes.talos.dev",
    "AuditPolicyConfigs.kubernetes.talos.dev",
    "AuthorizationConfigs.kubernetes.talos.dev",
    "DNSResolveCaches.net.talos.dev",
    "DNSUpstreams.net.talos.dev",
    "EncryptionSalts.secrets.talos.dev",
    "EtcdEncryptionConfigs.kubernetes.talos.dev",
    "PlatformConfigs.net.talos.dev",
    "Environments.runtime.talos.dev",
    "EtcFileSpecs.files.talos.dev",
    "EtcFileStatuses.files.talos.dev",
    "KubeletKubeconfigs.kubernetes.talos.dev",
    "KubeletSecrets.secrets.talos.dev",
    "KubeletStatuses.kubernetes.talos.dev",
    "KubernetesAccessConfigs.cluster.talos.dev",
    "RegistryConfigs.cri.talos.dev",
    "SeccompProfiles.cri.talos.dev",
    "StaticPodServerStatuses.kubernetes.talos.dev",
];

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let maker = Maker(kind);
    match kind.name {
        "EtcFileSpecs.files.talos.dev" | "EtcFileStatuses.files.talos.dev" => files(machine, &maker),
        "AcquireConfigSpecs.v1alpha1.talos.dev" => vec![maker.item("machine-config", &json!({}))],
        "PlatformConfigs.net.talos.dev" => vec![maker.item("active", &platform(machine))],
        "DNSUpstreams.net.talos.dev" | "DNSResolveCaches.net.talos.dev" => names(machine, &maker),
        "Environments.runtime.talos.dev" => {
            let config = machine.see(|state| state.config.clone());
            vec![maker.item("machined", &json!({ "variables": environment(config.as_deref()) }))]
        }
        _ => machine.see(|state| state.config.clone()).map_or_else(Vec::new, |config| read(machine, &config, &maker)),
    }
}

fn read(machine: &Machine, config: &NodeConfig, maker: &Maker) -> Vec<Item> {
    let at = |pointer: &str| config.main().pointer(pointer);
    let control_plane = config.machine_type() == MachineType::ControlPlane;
    match maker.0.name {
        "AcquireConfigStatuses.v1alpha1.talos.dev" => vec![maker.item("machine-config", &json!({}))],
        "EncryptionSalts.secrets.talos.dev" => {
            let salt = Sha256::digest(machine.hardware().uuid.as_bytes());
            vec![maker.typed("salt", &json!({ "diskSalt": salt.to_vec() }), Proto::default().bytes(1, &salt))]
        }
        "KubernetesAccessConfigs.cluster.talos.dev" => {
            let base = "/machine/features/kubernetesTalosAPIAccess";
            let enabled = at(&format!("{base}/enabled")).and_then(Value::as_bool) == Some(true);
            let value = json!({ "enabled": enabled, "allowedAPIRoles": config.strings(&format!("{base}/allowedRoles")),
                "allowedKubernetesNamespaces": config.strings(&format!("{base}/allowedKubernetesNamespaces")) });
            vec![maker.item("config", &value)]
        }
        "RegistryConfigs.cri.talos.dev" => {
            let mut value = json!({});
            if let Some(mirrors) = at("/machine/registries/mirrors").and_then(Value::as_object) {
                let one = |mirror: &Value| {
                    let endpoints = mirror.get("endpoints").and_then(Value::as_array).cloned().unwrap_or_default();
                    let path = mirror.get("overridePath").and_then(Value::as_bool) == Some(true);
                    let each: Vec<Value> = endpoints
                        .iter()
                        .map(|endpoint| json!({ "endpoint": endpoint, "overridePath": path }))
                        .collect();
                    let skip = mirror.get("skipFallback").and_then(Value::as_bool) == Some(true);
                    json!({ "mirrorEndpoints": each, "skipFallback": skip })
                };
                let all: serde_json::Map<String, Value> =
                    mirrors.iter().map(|(name, mirror)| (name.clone(), one(mirror))).collect();
                value["mirrors"] = json!(all);
            }
            vec![maker.item("registries", &value)]
        }
        "SeccompProfiles.cri.talos.dev" => at("/machine/seccompProfiles")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|profile| {
                let name = profile.get("name")?.as_str()?;
                Some(maker.item(name, &json!({ "name": name, "value": profile.get("value") })))
            })
            .collect(),
        "KubeletSecrets.secrets.talos.dev" => vec![kubelet(config, maker)],
        "KubeletKubeconfigs.kubernetes.talos.dev" if machine.see(|state| state.node_ready) => {
            // A new certificate comes with every start.
            let hash = Sha256::digest(machine.see(|state| state.boot_id.clone()));
            vec![maker.item("kubelet", &json!({ "hash": hex::encode(hash) }))]
        }
        "KubeletStatuses.kubernetes.talos.dev" => {
            let image = machine.see(|state| state.kubelet.clone());
            image.map(|image| maker.item("kubelet", &json!({ "image": image }))).into_iter().collect()
        }
        "StaticPodServerStatuses.kubernetes.talos.dev" => {
            vec![maker.item("static-pod-server-status", &json!({ "url": "http://127.0.0.1:33127" }))]
        }
        _ if !control_plane => Vec::new(),
        "AdmissionControlConfigs.kubernetes.talos.dev" => {
            let plugins = at("/cluster/apiServer/admissionControl").cloned().unwrap_or_else(|| json!([]));
            vec![maker.item("admission-control", &json!({ "config": plugins }))]
        }
        "AuditPolicyConfigs.kubernetes.talos.dev" => {
            let all = json!({ "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{ "level": "Metadata" }] });
            let policy = at("/cluster/apiServer/auditPolicy").cloned().unwrap_or(all);
            vec![maker.item("audit-policy", &json!({ "config": policy }))]
        }
        "EtcdEncryptionConfigs.kubernetes.talos.dev" => {
            vec![maker.item("k8s", &json!({ "configuration": encryption(config) }))]
        }
        "AuthorizationConfigs.kubernetes.talos.dev" => {
            let image = config.image("kube-apiserver", machine.see(State::version));
            vec![maker.item("authorization", &json!({ "image": image, "config": authorizers(config) }))]
        }
        _ => Vec::new(),
    }
}

/// What the platform says of the network: the machine's name, and nothing else that it would set up.
fn platform(machine: &Machine) -> Value {
    let hardware = machine.hardware();
    let named = hardware.cloud_name.as_deref();
    let each: Vec<Value> =
        named.iter().map(|name| json!({ "hostname": name, "domainname": "", "layer": "platform" })).collect();
    json!({ "addresses": [], "links": [], "routes": [], "hostnames": each,
        "resolvers": [], "timeServers": [], "operators": [], "externalIPs": [],
        "metadata": { "platform": "nocloud", "hostname": named.unwrap_or_default(),
            "instanceId": hardware.vmid.to_string() } })
}

/// How the API server encrypts secrets: by the keys that there are, and not at all what was written before them.
fn encryption(config: &NodeConfig) -> String {
    let mut providers = Vec::new();
    for (field, provider, name) in
        [("secretboxEncryptionSecret", "secretbox", "key2"), ("aescbcEncryptionSecret", "aescbc", "key1")]
    {
        if let Some(secret) = config.str(&format!("/cluster/{field}")).filter(|secret| !secret.is_empty()) {
            providers.push(json!({ provider: { "keys": [{ "name": name, "secret": secret }] } }));
        }
    }
    providers.push(json!({ "identity": {} }));
    let value = json!({ "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfig",
        "resources": [{ "providers": providers, "resources": ["secrets"] }] });
    serde_saphyr::to_string(&value).unwrap_or_default()
}

/// Who decides what is allowed; nodes and roles always do.
fn authorizers(config: &NodeConfig) -> Vec<Value> {
    let wanted = config.main().pointer("/cluster/apiServer/authorizationConfig").and_then(Value::as_array);
    let mut all: Vec<Value> = wanted.cloned().unwrap_or_default();
    for (at, (kind, name)) in [("Node", "node"), ("RBAC", "rbac")].into_iter().enumerate() {
        if !all.iter().any(|one| one.get("type").and_then(Value::as_str) == Some(kind)) {
            all.insert(at, json!({ "type": kind, "name": name }));
        }
    }
    all
}

/// What a kubelet needs to join.
fn kubelet(config: &NodeConfig, maker: &Maker) -> Item {
    let token = config.str("/cluster/token").unwrap_or_default();
    let (id, secret) = token.split_once('.').unwrap_or((token, ""));
    let near = match config.machine_type() {
        MachineType::ControlPlane => "https://localhost:6443",
        MachineType::Worker => config.endpoint(),
    };
    let prism = config.main().pointer("/machine/features/kubePrism/enabled").and_then(Value::as_bool) == Some(true);
    let endpoint = if prism { "https://127.0.0.1:7445" } else { near };
    let mut accepted = Vec::new();
    let issuing = config.str("/cluster/ca/crt").unwrap_or_default();
    if !issuing.is_empty() {
        accepted.push(json!({ "crt": issuing }));
    }
    let others = config.main().pointer("/cluster/acceptedCAs").and_then(Value::as_array);
    accepted.extend(others.into_iter().flatten().cloned());
    let value = json!({ "endpoint": endpoint, "acceptedCAs": accepted, "bootstrapTokenID": id,
        "bootstrapTokenSecret": secret });
    maker.item("kubelet", &value)
}

/// The environment of Talos' first process.
fn environment(config: Option<&NodeConfig>) -> Vec<String> {
    let own = [
        "GRPC_GO_RETRY=on",
        "HOME=/",
        "PATH=/usr/bin:/usr/sbin:/usr/local/sbin:/usr/local/bin",
        "TERM=linux",
        "TMPDIR=/tmp",
        "XDG_RUNTIME_DIR=/run",
    ];
    let wanted = config.and_then(|config| config.main().pointer("/machine/env")).and_then(Value::as_object);
    let wanted = wanted.into_iter().flatten().filter_map(|(name, value)| Some(format!("{name}={}", value.as_str()?)));
    let mut all: Vec<String> = own.iter().map(|one| (*one).to_owned()).chain(wanted).collect();
    all.sort();
    all
}

/// The name servers behind the machine's own, which runs where the configuration wants it.
fn names(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let Some(config) = machine.see(|state| state.config.clone()) else { return Vec::new() };
    let enabled = config.main().pointer("/machine/features/hostDNS/enabled").and_then(Value::as_bool) == Some(true);
    if !enabled {
        return Vec::new();
    }
    if maker.0.name.starts_with("DNSResolveCaches") {
        let one = |id: &str| maker.item(id, &json!({ "status": "running" }));
        return ["tcp-127.0.0.53:53", "udp-127.0.0.53:53"].map(one).into();
    }
    let minor = machine.see(|state| state.version().minor);
    let servers = network::resolvers(config.strings("/machine/network/nameservers"));
    let one = |(at, server): (usize, &String)| {
        let value = json!({ "healthy": true, "addr": format!("{server}:53"), "idx": at });
        let id = if minor < 9 { server.clone() } else { format!("#{at:03} {server}") };
        maker.item(&id, &value)
    };
    servers.iter().enumerate().map(one).collect()
}

/// The files that Talos writes into `/etc`.
fn files(machine: &Machine, maker: &Maker) -> Vec<Item> {
    let named = machine.see(State::named);
    let config = machine.see(|state| state.config.clone());
    let mut all = vec![("hosts", hosts(machine, named.as_ref())), ("resolv.conf", resolvers(config.as_deref()))];
    if config.is_some() {
        let uuid = &machine.hardware().uuid;
        all.push(("cri/conf.d/cri.toml", "version = 3\n".to_owned()));
        let mark: String = uuid.chars().filter(|one| *one != '-').take(12).collect();
        all.push(("iscsi/initiatorname.iscsi", format!("InitiatorName=iqn.1994-05.com.talos:{mark}\n")));
        all.push(("nvme/hostid", uuid.clone()));
        all.push(("nvme/hostnqn", format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}")));
    }
    let status = maker.0.name.starts_with("EtcFileStatuses");
    let one = |(name, text): &(&str, String)| {
        let value = if status {
            json!({ "specVersion": "1" })
        } else {
            json!({ "contents": text, "mode": 420, "selinux_label": "system_u:object_r:etc_t:s0" })
        };
        maker.item(name, &value)
    };
    all.iter().map(one).collect()
}

fn hosts(machine: &Machine, named: Option<&Hostname>) -> String {
    let address = machine.see(State::address).map(|one| one.to_string()).unwrap_or_default();
    let six = "::1 localhost ip6-localhost ip6-loopback\nff02::1 ip6-allnodes\nff02::2 ip6-allrouters\n";
    let own = named.map(|named| {
        let short = if named.domain.is_empty() { String::new() } else { format!(" {}", named.name) };
        format!("{address} {}{short}\n", named.full())
    });
    format!("127.0.0.1 localhost\n{}{six}", own.unwrap_or_default())
}

fn resolvers(config: Option<&NodeConfig>) -> String {
    let own = config.and_then(|config| config.main().pointer("/machine/features/hostDNS/enabled"));
    if own.and_then(Value::as_bool) == Some(true) {
        return "nameserver 127.0.0.53\n".to_owned();
    }
    let set = config.map(|config| config.strings("/machine/network/nameservers")).unwrap_or_default();
    network::resolvers(set).iter().map(|server| format!("nameserver {server}\n")).collect()
}
