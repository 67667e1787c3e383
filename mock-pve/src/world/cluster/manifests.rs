//! What Talos puts into every cluster it bootstraps: its bootstrap manifests, in its order, and the inventory of them
//! (Talos, internal/app/machined/pkg/controllers/k8s/templates).

use serde_json::{Value, json};

use super::objects::{self, Keyed, key, namespaced};
use super::{defaults, roles};
use crate::world::machine::{NodeConfig, Version};

/// Who owns an object of the manifests, since Talos 1.13.
pub const OWNER: &str = "config.k8s.io/owning-inventory";
/// The config map that lists them.
pub const INVENTORY: &str = "talos-bootstrap-manifests-inventory";

/// What the manifests are made of.
#[derive(Clone, Debug)]
pub struct Ingredients {
    /// Talos' minor version.
    pub talos: u32,
    /// kube-proxy's image; none: there is no kube-proxy.
    pub proxy: Option<String>,
    /// The API server's version without `v`.
    pub kubernetes: String,
    /// The cluster's name.
    pub cluster: String,
    /// Its endpoint, `https://…:6443`.
    pub endpoint: String,
    /// The pods' network.
    pub pods: String,
    /// Flannel is the network; else somebody brings another.
    pub flannel: bool,
    /// `cluster.token` of the configuration, `id.secret`.
    pub token: String,
}

impl Ingredients {
    /// Those of a control plane's configuration, under its Talos, for the Kubernetes that it runs.
    pub fn of(config: &NodeConfig, talos: Version, kubernetes: String) -> Self {
        let pods = config.strings("/cluster/network/podSubnets").into_iter().next();
        Self {
            talos: talos.minor,
            proxy: config.has_proxy().then(|| config.image("kube-proxy", talos)),
            kubernetes,
            cluster: config.cluster_name().to_owned(),
            endpoint: config.endpoint().to_owned(),
            pods: pods.unwrap_or_else(|| "10.244.0.0/16".to_owned()),
            flannel: config.str("/cluster/network/cni/name").is_none_or(|name| name == "flannel"),
            token: config.str("/cluster/token").unwrap_or_default().to_owned(),
        }
    }

    /// `CoreDNS` as that Talos brings it.
    fn dns(&self) -> String {
        let version = match self.talos {
            0..=7 => "v1.11.1",
            8 => "v1.11.3",
            9 => "v1.12.0",
            10 => "v1.12.1",
            11 => "v1.12.3",
            12 => "v1.13.1",
            13 => "v1.14.2",
            _ => "v1.14.3",
        };
        let path = if self.talos < 10 { "coredns" } else { "coredns/coredns" };
        format!("registry.k8s.io/{path}:{version}")
    }

    fn flannel_image(&self) -> String {
        let version = match self.talos {
            0..=6 => "v0.22.3",
            7 => "v0.25.1",
            8 => "v0.25.6",
            9 => "v0.26.1",
            10 => "v0.26.7",
            11 => "v0.27.2",
            _ => "v0.27.4",
        };
        format!("ghcr.io/siderolabs/flannel:{version}")
    }
}

/// All manifests with the id of the group that they are in, ids in order.
pub fn manifests(of: &Ingredients) -> Vec<(&'static str, Vec<Value>)> {
    let mut all = vec![
        ("00-kubelet-bootstrapping-token", vec![token(of)]),
        (
            "01-csr-approver-role-binding",
            vec![bound(
                "system-bootstrap-approve-node-client-csr",
                "system:certificates.k8s.io:certificatesigningrequests:nodeclient",
                "g system:bootstrappers:nodes",
            )],
        ),
        (
            "01-csr-node-bootstrap",
            vec![bound(
                "system-bootstrap-node-bootstrapper",
                "system:node-bootstrapper",
                "g system:bootstrappers:nodes",
            )],
        ),
        (
            "01-csr-renewal-role-binding",
            vec![bound(
                "system-bootstrap-node-renewal",
                "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
                "g system:nodes",
            )],
        ),
    ];
    if of.flannel {
        all.push(("05-flannel", flannel(of)));
    }
    if let Some(image) = &of.proxy {
        all.push(("10-kube-proxy", proxy(of, image)));
    }
    all.push(("11-core-dns", dns(of)));
    all.push(("11-core-dns-svc", vec![dns_service()]));
    all.push(("11-kube-config-in-cluster", vec![kubeconfig(of)]));
    if of.talos >= 12 {
        all.push((
            "11-talos-node-rbac-template",
            vec![
                role("system:talos-nodes", &["get,list,watch core nodes", "get core nodes/proxy"]),
                bound("system:talos-nodes", "system:talos-nodes", "g system:nodes"),
            ],
        ));
    }
    all
}

fn bare(version: &str, kind: &str, namespace: Option<&str>, name: &str) -> Value {
    let mut object = namespaced(version, kind, namespace, name, "");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("uid");
        metadata.remove("creationTimestamp");
    }
    object
}

fn stripped((_, mut object): Keyed) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("uid");
        metadata.remove("creationTimestamp");
    }
    object
}

fn bound(name: &str, role: &str, subject: &str) -> Value {
    stripped(roles::binding(name, role, &[roles::subject(subject)], ""))
}

fn bound_account(name: &str, role: &str, account: &str) -> Value {
    let subject = json!({ "kind": "ServiceAccount", "name": account, "namespace": "kube-system" });
    stripped(roles::binding(name, role, &[subject], ""))
}

fn role(name: &str, rules: &[&str]) -> Value {
    stripped(roles::role(name, rules, ""))
}

fn account(name: &str) -> Value {
    bare("v1", "ServiceAccount", Some("kube-system"), name)
}

fn token(of: &Ingredients) -> Value {
    use base64::Engine as _;
    let (id, secret) = of.token.split_once('.').unwrap_or((&of.token, ""));
    let mut object = bare("v1", "Secret", Some("kube-system"), &format!("bootstrap-token-{id}"));
    object["type"] = json!("bootstrap.kubernetes.io/token");
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    object["data"] = json!({ "token-id": encode(id), "token-secret": encode(secret),
        "usage-bootstrap-authentication": encode("true"),
        "auth-extra-groups": encode("system:bootstrappers:nodes") });
    object
}

fn flannel(of: &Ingredients) -> Vec<Value> {
    let mut config = bare("v1", "ConfigMap", Some("kube-system"), "kube-flannel-cfg");
    config["metadata"]["labels"] = json!({ "tier": "node", "k8s-app": "flannel" });
    let net = json!({ "Network": of.pods, "Backend": { "Type": "vxlan", "Port": 4789 } });
    let cni = json!({ "name": "cbr0", "cniVersion": "1.0.0", "plugins": [
        { "type": "flannel", "delegate": { "hairpinMode": true, "isDefaultGateway": true } },
        { "type": "portmap", "capabilities": { "portMappings": true } }] });
    config["data"] = json!({ "cni-conf.json": cni.to_string(), "net-conf.json": net.to_string() });
    let mut set = bare("apps/v1", "DaemonSet", Some("kube-system"), "kube-flannel");
    set["metadata"]["labels"] = json!({ "tier": "node", "k8s-app": "flannel" });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    set["spec"] = json!({ "selector": { "matchLabels": { "tier": "node", "k8s-app": "flannel" } }, "template": {
        "metadata": { "labels": { "tier": "node", "k8s-app": "flannel" } },
        "spec": { "hostNetwork": true, "priorityClassName": "system-node-critical", "serviceAccountName": "flannel",
            "tolerations": [{ "effect": "NoSchedule", "operator": "Exists" }, { "effect": "NoExecute", "operator": "Exists" }],
            "containers": [{ "name": "kube-flannel", "image": of.flannel_image(), "command": ["/opt/bin/flanneld"],
                "args": ["--ip-masq", "--kube-subnet-mgr"],
                "env": [field("POD_NAME", "metadata.name"), field("POD_NAMESPACE", "metadata.namespace"),
                    { "name": "EVENT_QUEUE_DEPTH", "value": "5000" }],
                "resources": { "requests": { "cpu": "100m", "memory": "50Mi" } },
                "securityContext": { "privileged": false, "capabilities": { "add": ["NET_ADMIN", "NET_RAW"] } },
                "volumeMounts": [{ "name": "run", "mountPath": "/run/flannel" },
                    { "name": "flannel-cfg", "mountPath": "/etc/kube-flannel/" }] }],
            "volumes": [{ "name": "run", "hostPath": { "path": "/run/flannel" } },
                { "name": "cni", "hostPath": { "path": "/etc/cni/net.d" } },
                { "name": "flannel-cfg", "configMap": { "name": "kube-flannel-cfg" } }] } } });
    vec![
        role("flannel", &["get core pods", "get,list,watch core nodes", "patch core nodes/status"]),
        bound_account("flannel", "flannel", "flannel"),
        account("flannel"),
        config,
        set,
    ]
}

fn proxy(of: &Ingredients, image: &str) -> Vec<Value> {
    let mut set = bare("apps/v1", "DaemonSet", Some("kube-system"), "kube-proxy");
    set["metadata"]["labels"] = json!({ "tier": "node", "k8s-app": "kube-proxy" });
    let fields = json!({ "fieldRef": { "fieldPath": "spec.nodeName" } });
    set["spec"] = json!({ "selector": { "matchLabels": { "tier": "node", "k8s-app": "kube-proxy" } }, "template": {
        "metadata": { "labels": { "tier": "node", "k8s-app": "kube-proxy" } },
        "spec": { "hostNetwork": true, "priorityClassName": "system-cluster-critical", "serviceAccountName": "kube-proxy",
            "tolerations": [{ "effect": "NoSchedule", "operator": "Exists" }, { "effect": "NoExecute", "operator": "Exists" }],
            "containers": [{ "name": "kube-proxy", "image": image,
                "command": ["/usr/local/bin/kube-proxy", format!("--cluster-cidr={}", of.pods),
                    "--conntrack-max-per-core=0", "--hostname-override=$(NODE_NAME)",
                    "--kubeconfig=/etc/kubernetes/kubeconfig", "--proxy-mode=nftables"],
                "env": [{ "name": "NODE_NAME", "valueFrom": fields }],
                "securityContext": { "privileged": true },
                "volumeMounts": [{ "name": "kubeconfig", "mountPath": "/etc/kubernetes", "readOnly": true }] }],
            "volumes": [{ "name": "kubeconfig", "configMap": { "name": "kubeconfig-in-cluster" } }] } } });
    vec![set, account("kube-proxy"), bound_account("kube-proxy", "system:node-proxier", "kube-proxy")]
}

fn dns(of: &Ingredients) -> Vec<Value> {
    let mut config = bare("v1", "ConfigMap", Some("kube-system"), "coredns");
    let corefile = ".:53 {\n    errors\n    health {\n        lameduck 5s\n    }\n    ready\n    log . {\n        class error\n    }\n    \
                    prometheus :9153\n\n    kubernetes cluster.local in-addr.arpa ip6.arpa {\n        pods insecure\n        \
                    fallthrough in-addr.arpa ip6.arpa\n        ttl 30\n    }\n    forward . /etc/resolv.conf {\n       \
                    max_concurrent 1000\n    }\n    cache 30\n    loop\n    reload\n    loadbalance\n}\n";
    config["data"] = json!({ "Corefile": corefile });
    let labels = json!({ "k8s-app": "kube-dns" });
    let mut deployment = bare("apps/v1", "Deployment", Some("kube-system"), "coredns");
    deployment["metadata"]["labels"] = json!({ "k8s-app": "kube-dns", "kubernetes.io/name": "CoreDNS" });
    let port = |name: &str, number: u16, protocol: &str| json!({ "name": name, "containerPort": number, "protocol": protocol });
    let probe = |path: &str, number: u16| json!({ "httpGet": { "path": path, "port": number, "scheme": "HTTP" } });
    deployment["spec"] = json!({ "replicas": 2, "selector": { "matchLabels": labels },
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1 } },
        "template": { "metadata": { "labels": labels },
            "spec": { "serviceAccountName": "coredns", "priorityClassName": "system-cluster-critical", "dnsPolicy": "Default",
                "tolerations": [{ "key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule" },
                    { "key": "node.cloudprovider.kubernetes.io/uninitialized", "operator": "Exists", "effect": "NoSchedule" }],
                "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [{ "weight": 100,
                    "podAffinityTerm": { "topologyKey": "kubernetes.io/hostname",
                        "labelSelector": { "matchExpressions": [{ "key": "k8s-app", "operator": "In", "values": ["kube-dns"] }] } } }] } },
                "containers": [{ "name": "coredns", "image": of.dns(), "args": ["-conf", "/etc/coredns/Corefile"],
                    "imagePullPolicy": "IfNotPresent",
                    "resources": { "limits": { "memory": "170Mi" }, "requests": { "cpu": "100m", "memory": "70Mi" } },
                    "livenessProbe": probe("/health", 8080), "readinessProbe": probe("/ready", 8181),
                    "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
                    "volumeMounts": [{ "name": "config-volume", "mountPath": "/etc/coredns", "readOnly": true }] }],
                "volumes": [{ "name": "config-volume", "configMap": { "name": "coredns",
                    "items": [{ "key": "Corefile", "path": "Corefile" }] } }] } } });
    vec![
        account("coredns"),
        bound_account("system-coredns", "system:coredns", "coredns"),
        role(
            "system:coredns",
            &[
                "list,watch core endpoints,services,pods,namespaces",
                "get core nodes",
                "list,watch discovery.k8s.io endpointslices",
            ],
        ),
        config,
        deployment,
    ]
}

fn dns_service() -> Value {
    let mut service = bare("v1", "Service", Some("kube-system"), "kube-dns");
    service["metadata"]["labels"] = json!({ "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
        "kubernetes.io/name": "CoreDNS" });
    let port = |name: &str, number: u16, protocol: &str, target: &str| json!({ "name": name, "port": number, "protocol": protocol, "targetPort": target });
    service["spec"] = json!({ "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack", "selector": { "k8s-app": "kube-dns" },
        "ports": [port("dns", 53, "UDP", "dns"), port("dns-tcp", 53, "TCP", "dns-tcp"), port("metrics", 9153, "TCP", "metrics")] });
    service
}

fn kubeconfig(of: &Ingredients) -> Value {
    let mut config = bare("v1", "ConfigMap", Some("kube-system"), "kubeconfig-in-cluster");
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: {0}\n  cluster:\n    certificate-authority: \
         /var/run/secrets/kubernetes.io/serviceaccount/ca.crt\n    server: {1}\nusers:\n- name: service-account\n  user:\n    \
         tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token\ncontexts:\n- context:\n    cluster: {0}\n    user: \
         service-account\n  name: default\ncurrent-context: default\n",
        of.cluster, of.endpoint
    );
    config["data"] = json!({ "kubeconfig": text });
    config
}

/// An object's key in the inventory: `namespace_name_group_kind`.
fn listed(object: &Value) -> String {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let group = text("/apiVersion").split_once('/').map_or("", |(group, _)| group);
    let name = if group == "rbac.authorization.k8s.io" {
        text("/metadata/name").replace(':', "__")
    } else {
        text("/metadata/name").to_owned()
    };
    format!("{}_{name}_{group}_{}", text("/metadata/namespace"), text("/kind"))
}

/// What a node writes when it finds that something is missing: the objects, and since Talos 1.13 the inventory. `known`
/// looks objects up by their key. What is there already is left as it is.
pub fn missing(of: &Ingredients, seed: &str, known: impl Fn(&str) -> Option<Value>) -> Vec<Keyed> {
    let mut writes = Vec::new();
    let mut names = Vec::new();
    for mut object in manifests(of).into_iter().flat_map(|(_, objects)| objects) {
        let at = objects::place(&object);
        names.push(listed(&object));
        if known(&at).is_some() {
            continue;
        }
        if of.talos >= 13 {
            object["metadata"]["annotations"][OWNER] = json!(INVENTORY);
        }
        object["metadata"]["uid"] = json!(objects::uid(&format!("{seed} {at}")));
        object["metadata"]["creationTimestamp"] = json!(objects::now());
        if at.starts_with("/registry/daemonsets/") || at.starts_with("/registry/deployments/") {
            object["metadata"]["generation"] = json!(1);
        }
        defaults::complete(&mut object);
        writes.push((at, object));
    }
    if of.talos >= 13 {
        let at = key("configmaps", Some("kube-system"), INVENTORY);
        let old = known(&at);
        let mut inventory = old
            .clone()
            .unwrap_or_else(|| objects::config_map("kube-system", INVENTORY, json!({}), &format!("{seed} inventory")));
        for name in names {
            inventory["data"][name] = json!("");
        }
        if old.as_ref() != Some(&inventory) {
            writes.push((at, inventory));
        }
    }
    writes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_made_once_and_listed_in_the_inventory() {
        let mut of = Ingredients {
            talos: 13,
            proxy: Some("registry.k8s.io/kube-proxy:v1.35.0".to_owned()),
            kubernetes: "1.35.0".to_owned(),
            cluster: "lab".to_owned(),
            endpoint: "https://127.20.0.10:6443".to_owned(),
            pods: "10.244.0.0/16".to_owned(),
            flannel: true,
            token: "abcdef.0123456789abcdef".to_owned(),
        };
        let made = missing(&of, "s", |_| None);
        let find = |key: &str| made.iter().find(|(known, _)| known == key).map(|(_, object)| object.clone());
        let inventory = find("/registry/configmaps/kube-system/talos-bootstrap-manifests-inventory").unwrap();
        for name in [
            "kube-system_coredns_apps_Deployment",
            "_system__coredns_rbac.authorization.k8s.io_ClusterRole",
            "kube-system_kube-dns__Service",
        ] {
            assert_eq!(inventory["data"][name], "", "{name} of {inventory}");
        }
        let set = find("/registry/daemonsets/kube-system/kube-proxy").unwrap();
        assert_eq!(set["metadata"]["annotations"][OWNER], INVENTORY);
        assert!(missing(&of, "s", find).is_empty());
        of.talos = 12;
        assert!(
            missing(&of, "s", |_| None)
                .iter()
                .all(|(_, object)| object["metadata"]["annotations"].get(OWNER).is_none())
        );
    }
}
