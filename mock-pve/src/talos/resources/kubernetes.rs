//! Resources about Kubernetes: what the machine makes of its configuration, and what it sees of its node.

use serde_json::{Value, json};

use super::wire::Proto;
use super::{Item, Maker, Type};
use crate::world::cluster::{manifests, objects};
use crate::world::machine::{Machine, MachineType, NodeConfig, State, StaticPod, Version, etcd_version};

pub(super) fn list(machine: &Machine, kind: &'static Type) -> Vec<Item> {
    let Some(config) = machine.see(|state| state.config.clone()) else { return Vec::new() };
    let name = machine.see(State::nodename);
    let control_plane = config.machine_type() == MachineType::ControlPlane;
    let maker = Maker(kind);
    let version = machine.see(State::version);
    match kind.name {
        "Nodenames.kubernetes.talos.dev" => {
            let value =
                json!({ "nodename": name, "hostnameVersion": "1", "skipNodeRegistration": config.skips_node() });
            vec![maker.typed(
                "nodename",
                &value,
                Proto::default().text(1, &name).text(2, "1").flag(3, config.skips_node()),
            )]
        }
        "NodeStatuses.kubernetes.talos.dev" => {
            let ready = machine.see(|state| state.node_ready);
            let closed = cordoned(machine, &name);
            let value = json!({ "nodename": name, "nodeReady": ready, "unschedulable": closed,
                "labels": {}, "annotations": {} });
            vec![maker.typed(&name, &value, Proto::default().text(1, &name).flag(2, ready).flag(3, closed))]
        }
        "NodeIPs.kubernetes.talos.dev" => {
            let address: Vec<String> = machine.see(State::address).iter().map(ToString::to_string).collect();
            vec![maker.item("kubelet", &json!({ "addresses": address }))]
        }
        "KubeletSpecs.kubernetes.talos.dev" => {
            let (image, args) = (config.image("kubelet", version), kubelet_args(&config, &name));
            let value = json!({ "image": image, "args": args, "expectedNodename": name, "config": {} });
            let proto = Proto::default().text(1, &image).texts(2, args.iter().map(String::as_str)).text(4, &name);
            vec![maker.typed("kubelet", &value, proto)]
        }
        "KubeletConfigs.kubernetes.talos.dev" => {
            let image = config.image("kubelet", version);
            let args: serde_json::Map<String, Value> =
                config.extra_args("kubelet").into_iter().map(|(name, value)| (name, json!(value))).collect();
            vec![maker.typed(
                "kubelet",
                &json!({ "image": image, "extraArgs": args }),
                Proto::default().text(1, &image),
            )]
        }
        "KubePrismStatuses.kubernetes.talos.dev" => {
            let healthy = machine.see(|state| state.node_ready);
            vec![maker.item("k8s-loadbalancer", &json!({ "host": "127.0.0.1:7445", "healthy": healthy }))]
        }
        "Endpoints.kubernetes.talos.dev" => endpoints(machine, &config, &maker),
        "NodeIPConfigs.kubernetes.talos.dev"
        | "NodeLabelSpecs.k8s.talos.dev"
        | "NodeAnnotationSpecs.k8s.talos.dev"
        | "NodeTaintSpecs.k8s.talos.dev"
        | "KubeletLifecycles.kubernetes.talos.dev"
        | "KubePrismConfigs.kubernetes.talos.dev"
        | "KubePrismEndpoints.kubernetes.talos.dev" => node_list(machine, &config, &maker),
        _ if !control_plane => Vec::new(),
        "EtcdMembers.etcd.talos.dev" => {
            let id = machine.see(|state| state.membership.as_ref().map(|membership| membership.id));
            let id = id.map(|id| format!("{id:016x}"));
            let one = |id: String| maker.typed("local", &json!({ "memberID": id }), Proto::default().text(1, &id));
            id.map(one).into_iter().collect()
        }
        "PKIStatuses.etcd.talos.dev" => vec![maker.item("etcd", &json!({ "ready": true, "version": "1" }))],
        "EtcdConfigs.etcd.talos.dev" => vec![maker.item("etcd", &json!({ "image": etcd_image(version) }))],
        "EtcdSpecs.etcd.talos.dev" => {
            let address: Vec<String> = machine.see(State::address).iter().map(ToString::to_string).collect();
            let value = json!({ "name": name, "advertisedAddresses": address, "listenPeerAddresses": ["::"],
                "listenClientAddresses": ["::"], "image": etcd_image(version) });
            vec![maker.typed("etcd", &value, Proto::default().text(1, &name).text(3, &etcd_image(version)))]
        }
        _ => control_plane_list(machine, &config, &name, &maker),
    }
}

/// Where API servers are, as Kubernetes says it, as discovery says it, and as the configuration says it.
fn endpoints(machine: &Machine, config: &NodeConfig, maker: &Maker) -> Vec<Item> {
    let servers = machine.room().api_servers(&config.cluster_mark());
    let addresses: Vec<String> =
        servers.iter().filter_map(|one| one.see(State::address)).map(|one| one.to_string()).collect();
    let host = config.endpoint_host();
    let (named, fixed) = match host.parse::<std::net::IpAddr>() {
        Ok(_) => (vec![], vec![host]),
        Err(_) => (vec![host], vec![]),
    };
    let mut all = vec![maker.item("controlplane", &json!({ "addresses": fixed, "hosts": named }))];
    if config.discovery() {
        all.push(maker.item("discovery", &json!({ "addresses": addresses, "hosts": [] })));
    }
    if !addresses.is_empty() {
        all.push(maker.item("kube-apiserver", &json!({ "addresses": addresses, "hosts": [] })));
    }
    all
}

/// What the machine wants its node to be like, and how it reaches the API servers.
fn node_list(machine: &Machine, config: &NodeConfig, maker: &Maker) -> Vec<Item> {
    let control_plane = config.machine_type() == MachineType::ControlPlane;
    match maker.0.name {
        "NodeIPConfigs.kubernetes.talos.dev" => {
            let mut excluded = config.strings("/cluster/network/podSubnets");
            excluded.extend(config.strings("/cluster/network/serviceSubnets"));
            let mut value = json!({ "excludeSubnets": excluded });
            let valid = config.strings("/machine/kubelet/nodeIP/validSubnets");
            if !valid.is_empty() {
                value["validSubnets"] = json!(valid);
            }
            vec![maker.item("kubelet", &value)]
        }
        "NodeLabelSpecs.k8s.talos.dev" => {
            let own = match config.machine_type() {
                MachineType::ControlPlane => vec![("node-role.kubernetes.io/control-plane", "")],
                MachineType::Worker => Vec::new(),
            };
            let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
            let all = own.chain(pairs(config, "/machine/nodeLabels"));
            all.map(|(key, value)| maker.item(&key, &json!({ "key": key, "value": value }))).collect()
        }
        "NodeAnnotationSpecs.k8s.talos.dev" => pairs(config, "/machine/nodeAnnotations")
            .map(|(key, value)| maker.item(&key, &json!({ "key": key, "value": value })))
            .collect(),
        "NodeTaintSpecs.k8s.talos.dev" => {
            let closed = control_plane && !config.schedules_on_control_planes();
            let own = closed.then(|| ("node-role.kubernetes.io/control-plane".to_owned(), ":NoSchedule".to_owned()));
            let all = own.into_iter().chain(pairs(config, "/machine/nodeTaints"));
            all.map(|(key, taint)| {
                let (value, effect) = taint.rsplit_once(':').unwrap_or(("", &taint));
                maker.item(&key, &json!({ "key": key, "effect": effect, "value": value }))
            })
            .collect()
        }
        "KubeletLifecycles.kubernetes.talos.dev" => vec![maker.item("kubelet", &json!({}))],
        "KubePrismConfigs.kubernetes.talos.dev" | "KubePrismEndpoints.kubernetes.talos.dev" => {
            let servers = machine.room().api_servers(&config.cluster_mark());
            let mut endpoints: Vec<Value> = vec![json!({ "host": config.endpoint_host(), "port": 6443 })];
            if control_plane {
                endpoints.push(json!({ "host": "localhost", "port": 6443 }));
            }
            let others = servers.iter().filter_map(|one| one.see(State::address));
            endpoints.extend(others.map(|address| json!({ "host": address.to_string(), "port": 6443 })));
            let (id, value) = if maker.0.name.starts_with("KubePrismConfigs") {
                ("k8s-loadbalancer-config", json!({ "host": "127.0.0.1", "port": 7445, "endpoints": endpoints }))
            } else {
                ("k8s-cluster", json!({ "endpoints": endpoints }))
            };
            vec![maker.item(id, &value)]
        }
        _ => Vec::new(),
    }
}

/// The texts of a map in the configuration.
fn pairs<'a>(config: &'a NodeConfig, pointer: &str) -> impl Iterator<Item = (String, String)> + use<'a> {
    let map = config.main().pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
}

fn etcd_image(version: Version) -> String {
    let repository = if version.minor >= 12 { "registry.k8s.io/etcd" } else { "gcr.io/etcd-development/etcd" };
    format!("{repository}:v{}", etcd_version(version))
}

fn control_plane_list(machine: &Machine, config: &NodeConfig, name: &str, maker: &Maker) -> Vec<Item> {
    let (pods, version, up) =
        machine.see(|state| (state.static_pods.clone(), state.version(), state.membership.is_some()));
    let configured = |component: &'static str| {
        // What was rendered, and its count, change together.
        let known = pods.get(component).cloned();
        let (image, args, counter) = match known {
            Some(pod) => (pod.image, pod.args, pod.version),
            None => (config.image(component, version), config.extra_args(component), 1),
        };
        let args: serde_json::Map<String, Value> = args.into_iter().map(|(name, value)| (name, json!(value))).collect();
        let runs = config.runs(component);
        let (value, proto) = if component == "kube-apiserver" {
            let value = json!({ "image": image, "localPort": 6443, "controlPlaneEndpoint": config.endpoint(),
                "extraArgs": args });
            let proto = Proto::default().text(1, &image).text(3, config.endpoint()).number(5, 6443);
            (value, proto)
        } else {
            let value = json!({ "enabled": runs, "image": image, "extraArgs": args });
            (value, Proto::default().flag(1, runs).text(2, &image))
        };
        vec![Item { version: Some(counter), ..maker.typed(component, &value, proto) }]
    };
    match maker.0.name {
        "APIServerConfigs.kubernetes.talos.dev" => configured("kube-apiserver"),
        "ControllerManagerConfigs.kubernetes.talos.dev" => configured("kube-controller-manager"),
        "SchedulerConfigs.kubernetes.talos.dev" => configured("kube-scheduler"),
        "ConfigStatuses.kubernetes.talos.dev" | "SecretStatuses.kubernetes.talos.dev" => {
            vec![maker.item("static-pods", &json!({ "ready": up, "version": "1" }))]
        }
        "BootstrapManifestsConfigs.kubernetes.talos.dev" => {
            let proxy = config.image("kube-proxy", version);
            vec![maker.item("manifests", &json!({ "proxyEnabled": config.has_proxy(), "proxyImage": proxy,
                "server": config.endpoint() }))]
        }
        "Manifests.kubernetes.talos.dev" if up => bootstrap_manifests(config, version, maker),
        "ManifestStatuses.kubernetes.talos.dev" if up => {
            let names: Vec<String> = bootstrap_manifests(config, version, maker).into_iter().map(|item| item.id).collect();
            vec![maker.item("manifests", &json!({ "manifestsApplied": names }))]
        }
        "StaticPods.kubernetes.talos.dev" => pods
            .iter()
            .map(|(component, pod)| {
                let value = static_pod(machine, config, component, pod);
                let proto = Proto::default().object(1, &value);
                Item { version: Some(pod.version), ..maker.typed(component, &value, proto) }
            })
            .collect(),
        "StaticPodStatuses.kubernetes.talos.dev" if machine.see(|state| state.kubernetes) => pods
            .iter()
            .map(|(component, pod)| {
                let status = if pod.ready { "True" } else { "False" };
                let conditions = json!([{ "type": "Initialized", "status": "True" }, { "type": "Ready", "status": status },
                    { "type": "ContainersReady", "status": status }, { "type": "PodScheduled", "status": "True" }]);
                let value = json!({ "phase": "Running", "conditions": conditions,
                    "containerStatuses": [{ "name": component, "image": pod.image, "ready": pod.ready }] });
                maker.typed(&format!("kube-system/{component}-{name}"), &value, Proto::default().object(1, &value))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// A static pod as Talos renders it for the kubelet.
fn static_pod(machine: &Machine, config: &NodeConfig, component: &str, pod: &StaticPod) -> Value {
    let address = machine.see(State::address).map(|one| one.to_string()).unwrap_or_default();
    let mut command = vec![format!("/usr/local/bin/{component}")];
    let own: &[(&str, &str)] = match component {
        "kube-apiserver" => &[
            ("allow-privileged", "true"),
            ("anonymous-auth", "false"),
            ("authorization-mode", "Node,RBAC"),
            ("enable-admission-plugins", "NodeRestriction"),
            ("secure-port", "6443"),
        ],
        "kube-controller-manager" => {
            &[("allocate-node-cidrs", "true"), ("leader-elect", "true"), ("use-service-account-credentials", "true")]
        }
        _ => &[("leader-elect", "true"), ("profiling", "false")],
    };
    let mut args: std::collections::BTreeMap<String, String> =
        own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    if component == "kube-apiserver" {
        args.insert("advertise-address".to_owned(), address);
        args.insert("service-cluster-ip-range".to_owned(), config.strings("/cluster/network/serviceSubnets").join(","));
    }
    args.extend(config.extra_args(component));
    command.extend(args.iter().map(|(name, value)| format!("--{name}={value}")));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": component, "namespace": "kube-system",
            "annotations": { "talos.dev/config-version": pod.version.to_string(), "talos.dev/secrets-version": "1" },
            "labels": { "k8s-app": component, "tier": "control-plane", "app.kubernetes.io/name": component } },
        "spec": { "hostNetwork": true, "priorityClassName": "system-cluster-critical",
            "containers": [{ "name": component, "image": pod.image, "command": command }] },
    })
}

fn kubelet_args(config: &NodeConfig, name: &str) -> Vec<String> {
    let mut args: std::collections::BTreeMap<String, String> = [
        ("bootstrap-kubeconfig", "/etc/kubernetes/bootstrap-kubeconfig"),
        ("cert-dir", "/var/lib/kubelet/pki"),
        ("config", "/etc/kubernetes/kubelet.yaml"),
        ("hostname-override", name),
        ("kubeconfig", "/etc/kubernetes/kubeconfig-kubelet"),
    ]
    .iter()
    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
    .collect();
    args.extend(config.extra_args("kubelet"));
    args.iter().map(|(name, value)| format!("--{name}={value}")).collect()
}

/// What every cluster of this configuration is given, by the names that put it in order.
fn bootstrap_manifests(config: &NodeConfig, version: Version, maker: &Maker) -> Vec<Item> {
    let mut all: Vec<(String, Vec<Value>)> = manifests::manifests(&config.ingredients(version))
        .into_iter()
        .map(|(id, objects)| (id.to_owned(), objects))
        .collect();
    let inline = config.inline_manifests().into_iter();
    all.extend(inline.map(|(name, objects)| (format!("99-inline-manifest-{name}"), objects)));
    all.into_iter()
        .map(|(id, items)| {
            let proto =
                items.iter().fold(Proto::default(), |proto, item| proto.message(1, &Proto::default().object(1, item)));
            maker.typed(&id, &json!(items), proto)
        })
        .collect()
}

fn cordoned(machine: &Machine, name: &str) -> bool {
    let client = machine.see(|state| state.membership.clone()).or_else(|| {
        let mark = machine.see(|state| state.config.as_ref().map(|config| config.cluster_mark()))?;
        machine.room().api_servers(&mark).iter().find_map(|one| one.see(|state| state.membership.clone()))
    });
    let node = client.and_then(|client| crate::world::cluster::get(&client, &objects::key("minions", None, name)));
    node.is_some_and(|node| node.value.pointer("/spec/unschedulable") == Some(&json!(true)))
}
