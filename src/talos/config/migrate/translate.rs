//! Old keys in a patch written as the documents that took their place.
//!
//! Only what says the same afterwards is translated; what is left stays in the patch, where a machine's check, or the
//! finding about it, refuses it. Must not know: where patches come from.

mod contested;
mod deletes;

use crate::talos::config::delete::Delete;
use crate::talos::config::documents::DISCOVERY;
use crate::talos::config::patch::{Part, Patch};
use crate::talos::config::schema::shapes;
use crate::talos::config::yaml::{Map, Spot, Value};
use crate::talos::config::{Contract, schema};
use crate::types::Role;
pub use contested::Contested;
pub(super) use contested::is_at_or_below;

/// A key that has the same value elsewhere: since which minor, from where, to which kind and where in it.
pub(super) const MOVES: &[(u32, &str, &str, &str)] = &[
    (13, "machine.network.kubespan", "KubeSpanConfig", ""),
    (14, "machine.features.hostDNS", "ResolverConfig", "hostDNS"),
    (14, "machine.network.searchDomains", "ResolverConfig", "searchDomains.domains"),
    (14, "machine.network.disableSearchDomain", "ResolverConfig", "searchDomains.disableDefault"),
    (14, "machine.install.image", "UnattendedInstallConfig", "installer.image"),
    (14, "machine.install.wipe", "UnattendedInstallConfig", "provisioning.wipe"),
    (14, "machine.kubelet.image", "KubeletConfig", "image"),
    (14, "machine.kubelet.extraArgs", "KubeletConfig", "extraArgs"),
    (14, "machine.kubelet.extraConfig", "KubeletConfig", "config"),
    (14, "machine.kubelet.clusterDNS", "KubeletConfig", "clusterDNS"),
    (14, "machine.kubelet.defaultRuntimeSeccompProfileEnabled", "KubeletConfig", "defaultRuntimeSeccompProfileEnabled"),
    (14, "machine.kubelet.nodeIP", "KubeNodeConfig", "nodeIP"),
    (14, "machine.kubelet.registerWithFQDN", "KubeNodeConfig", "registerWithFQDN"),
    (14, "machine.kubelet.skipNodeRegistration", "KubeNodeConfig", "skipNodeRegistration"),
    (14, "machine.kubelet.credentialProviderConfig", "KubeCredentialProviderConfig", "configuration"),
    (14, "machine.nodeLabels", "KubeNodeConfig", "labels"),
    (14, "machine.nodeAnnotations", "KubeNodeConfig", "annotations"),
    (14, "machine.nodeTaints", "KubeNodeConfig", "taints"),
    (14, "cluster.network.dnsDomain", "KubeNetworkConfig", "dnsDomain"),
    (14, "cluster.network.podSubnets", "KubeNetworkConfig", "podSubnets"),
    (14, "cluster.network.serviceSubnets", "KubeNetworkConfig", "serviceSubnets"),
    (14, "cluster.proxy.image", "KubeProxyConfig", "image"),
    (14, "cluster.proxy.mode", "KubeProxyConfig", "mode"),
    (14, "cluster.proxy.extraArgs", "KubeProxyConfig", "extraArgs"),
    (14, "cluster.apiServer.image", "KubeAPIServerConfig", "image"),
    (14, "cluster.apiServer.extraArgs", "KubeAPIServerConfig", "extraArgs"),
    (14, "cluster.apiServer.env", "KubeAPIServerConfig", "env"),
    (14, "cluster.apiServer.resources", "KubeAPIServerConfig", "resources"),
    (14, "cluster.apiServer.certSANs", "KubeAPIServerConfig", "certExtraSANs"),
    (14, "cluster.apiServer.auditPolicy", "KubeAuditPolicyConfig", "configuration"),
    (14, "cluster.controllerManager.image", "KubeControllerManagerConfig", "image"),
    (14, "cluster.controllerManager.extraArgs", "KubeControllerManagerConfig", "extraArgs"),
    (14, "cluster.controllerManager.env", "KubeControllerManagerConfig", "env"),
    (14, "cluster.controllerManager.resources", "KubeControllerManagerConfig", "resources"),
    (14, "cluster.scheduler.image", "KubeSchedulerConfig", "image"),
    (14, "cluster.scheduler.extraArgs", "KubeSchedulerConfig", "extraArgs"),
    (14, "cluster.scheduler.env", "KubeSchedulerConfig", "env"),
    (14, "cluster.scheduler.resources", "KubeSchedulerConfig", "resources"),
    (14, "cluster.scheduler.config", "KubeSchedulerConfig", "config"),
    (14, "cluster.coreDNS.image", "KubeCoreDNSConfig", "image"),
    (14, "cluster.network.cni.flannel.extraArgs", "KubeFlannelCNIConfig", "extraArgs"),
    (
        14,
        "cluster.network.cni.flannel.kubeNetworkPoliciesEnabled",
        "KubeFlannelCNIConfig",
        "kubeNetworkPoliciesEnabled",
    ),
    (14, "cluster.controlPlane.localAPIServerPort", "KubeAPIServerConfig", "apiPort"),
    (14, "cluster.controlPlane.endpoint", "KubeClusterConfig", "endpoint"),
    (14, "cluster.clusterName", "KubeClusterConfig", "clusterName"),
];

/// The taint and the label of control planes.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// A machine's patches as a configuration of `contract` wants them, for machines of one role: what an old key said about
/// control planes meant nothing on workers, where the documents of now are refused.
pub fn translate(patches: &[Patch], contract: Contract, role: Role) -> Vec<Patch> {
    let contested = Contested::of(patches);
    patches.iter().map(|patch| one(patch, (contract, role), &contested)).collect()
}

fn one(patch: &Patch, (contract, role): (Contract, Role), contested: &Contested) -> Patch {
    if patch.is_json() {
        return patch.clone();
    }
    let mut parts = Vec::new();
    for part in patch.parts() {
        if part.kind.name == "v1alpha1" {
            let left = part.content().cloned().unwrap_or_default();
            let mut work = Work { contract, role, contested, part, spot: Spot::START, left, made: Vec::new() };
            let deletes = work.deletes();
            work.run();
            let left = (!work.left.is_empty()).then_some(work.left);
            parts.push(part.with_content(left).with_deletes(deletes));
            parts.extend(work.made);
        } else {
            parts.push(part.clone());
        }
    }
    patch.with_parts(parts)
}

struct Work<'a> {
    contract: Contract,
    role: Role,
    contested: &'a Contested,
    /// What is translated.
    part: &'a Part,
    /// Where the key stands that is translated now.
    spot: Spot,
    left: Map,
    made: Vec<Part>,
}

impl Work<'_> {
    fn run(&mut self) {
        if self.has(12) {
            if let Some(name) = self.take("machine.network.hostname") {
                self.put("HostnameConfig", None, &[("auto", "off".into()), ("hostname", name)]);
            }
            if self.take("machine.features.stableHostname") == Some(false.into()) {
                self.put("HostnameConfig", None, &[("auto", "off".into())]);
            }
            self.mirrors();
        }
        if self.has(14) {
            self.lists_and_switches();
            self.install();
            self.cni();
            self.admission();
        }
        for (since, from, kind, to) in MOVES {
            if self.has(*since)
                && let Some(value) = self.take(from)
            {
                match (to.is_empty(), value) {
                    (true, Value::Map(map)) => {
                        let fields: Vec<(String, Value)> = map.into_iter().collect();
                        let fields: Vec<(&str, Value)> =
                            fields.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
                        self.put(kind, None, &fields);
                    }
                    (_, value) => self.put(kind, None, &[(to, value)]),
                }
            }
        }
    }

    fn lists_and_switches(&mut self) {
        if let Some(Value::List(servers)) = self.take("machine.network.nameservers") {
            let servers: Vec<Value> =
                servers.into_iter().map(|server| Map::new().with("address", server).into()).collect();
            self.put("ResolverConfig", None, &[("nameservers", servers.into())]);
        }
        match self.take("machine.features.kubePrism.enabled") {
            Some(enabled) if enabled == false.into() => {
                self.take("machine.features.kubePrism.port");
                self.delete("KubePrismConfig", None, Delete::of(Vec::new()));
            }
            Some(_) | None => {
                if let Some(port) = self.take("machine.features.kubePrism.port") {
                    self.put("KubePrismConfig", None, &[("port", port)]);
                }
            }
        }
        let masters = self.take("cluster.allowSchedulingOnMasters");
        let scheduling = self.take("cluster.allowSchedulingOnControlPlanes").or(masters);
        if scheduling == Some(true.into()) && self.role == Role::ControlPlane {
            let path = vec!["taints".to_owned(), CONTROL_PLANE.to_owned()];
            self.delete("KubeNodeConfig", None, Delete::of(path));
        }
        for (from, kind) in [
            ("cluster.proxy.disabled", "KubeProxyConfig"),
            ("cluster.coreDNS.disabled", "KubeCoreDNSConfig"),
            ("machine.controlPlane.controllerManager.disabled", "KubeControllerManagerConfig"),
            ("machine.controlPlane.scheduler.disabled", "KubeSchedulerConfig"),
        ] {
            if let Some(Value::Bool(disabled)) = self.take(from) {
                self.put(kind, None, &[("enabled", (!disabled.is_on()).into())]);
            }
        }
        self.discovery();
    }

    fn discovery(&mut self) {
        const ENDPOINT: &str = "cluster.discovery.registries.service.endpoint";
        match self.take("cluster.discovery.enabled") {
            Some(enabled) if enabled == false.into() => {
                self.take(ENDPOINT);
                self.delete("DiscoveryServiceConfig", Some("default"), Delete::of(Vec::new()));
            }
            // The document turns it on, also where none is generated: the configurations of profiles have it off.
            Some(_) => {
                let endpoint = self.take(ENDPOINT).unwrap_or_else(|| DISCOVERY.into());
                self.put("DiscoveryServiceConfig", Some("default"), &[("endpoint", endpoint)]);
            }
            None => {}
        }
    }

    fn install(&mut self) {
        if let Some(Value::Text(disk)) = self.take("machine.install.disk") {
            let selector = format!("disk.dev_path == {}", serde_json::Value::from(disk));
            self.put("UnattendedInstallConfig", None, &[("provisioning.diskSelector.match", selector.into())]);
        }
    }

    fn cni(&mut self) {
        let name = self.take("cluster.network.cni.name");
        let urls = self.take("cluster.network.cni.urls");
        match name.as_ref().and_then(Value::as_text) {
            Some("none") => self.delete("KubeFlannelCNIConfig", None, Delete::of(Vec::new())),
            Some("custom") => {
                self.delete("KubeFlannelCNIConfig", None, Delete::of(Vec::new()));
                let urls = urls.as_ref().and_then(Value::as_list).unwrap_or_default().to_vec();
                for (at, url) in urls.into_iter().enumerate() {
                    let name = if at == 0 { "custom-cni".to_owned() } else { format!("custom-cni-{}", at + 1) };
                    self.put("KubeExternalManifestConfig", Some(&name), &[("url", url)]);
                }
            }
            _ => {}
        }
    }

    fn admission(&mut self) {
        let Some(Value::List(plugins)) = self.take("cluster.apiServer.admissionControl") else { return };
        for plugin in plugins {
            if let Some(name) = plugin.at(&["name"]).and_then(Value::as_text).map(str::to_owned) {
                let configuration = plugin.at(&["configuration"]).cloned().unwrap_or_else(|| Map::new().into());
                self.put("KubeAdmissionControlConfig", Some(&name), &[("configuration", configuration)]);
            }
        }
    }

    fn mirrors(&mut self) {
        let Some(Value::Map(mirrors)) = self.take("machine.registries.mirrors") else { return };
        for (host, mirror) in mirrors {
            let flag = |key: &str| mirror.at(&[key]).cloned();
            let endpoint = |url: &Value| {
                Value::Map(Map::new().with("url", url.clone()).with_some("overridePath", flag("overridePath")))
            };
            let urls = mirror.at(&["endpoints"]).and_then(Value::as_list).unwrap_or_default();
            let mut fields = vec![("endpoints", Value::List(urls.iter().map(endpoint).collect()))];
            fields.extend(flag("skipFallback").map(|value| ("skipFallback", value)));
            self.put("RegistryMirrorConfig", Some(&host), &fields);
        }
    }

    fn has(&self, minor: u32) -> bool {
        self.contract >= Contract::minor(minor)
    }

    /// Takes a value out of what is left, with the mappings that are empty then.
    fn take(&mut self, path: &str) -> Option<Value> {
        fn inner(map: &mut Map, keys: &[&str]) -> Option<Value> {
            let (key, rest) = keys.split_first()?;
            if rest.is_empty() {
                return map.remove(key);
            }
            let Some(Value::Map(below)) = map.get_mut(key) else { return None };
            let taken = inner(below, rest)?;
            if below.is_empty() {
                map.remove(key);
            }
            Some(taken)
        }
        if self.contested.has(path) {
            return None;
        }
        let taken = inner(&mut self.left, &path.split('.').collect::<Vec<_>>())?;
        self.spot = self.part.spot_of(path);
        Some(taken)
    }

    /// Sets fields, by their dotted path, in a document of this kind.
    fn put(&mut self, kind: &'static str, name: Option<&str>, fields: &[(&str, Value)]) {
        fn set(map: &mut Map, keys: &[&str], value: Value) {
            match keys {
                [key] => map.set(key, value),
                [key, rest @ ..] => {
                    if map.get(key).is_none() {
                        map.set(key, Map::new());
                    }
                    if let Some(Value::Map(inner)) = map.get_mut(key) {
                        set(inner, rest, value);
                    }
                }
                [] => {}
            }
        }
        let Some(kind) = document(kind).filter(|kind| !kind.control_plane || self.role == Role::ControlPlane) else {
            return;
        };
        let same = |part: &Part| part.kind.name == kind.name && part.name() == name && !part.deletes_whole();
        let at = self.made.iter().position(same);
        let before = at.and_then(|at| self.made[at].content());
        let mut map = before.cloned().unwrap_or_else(|| {
            Map::new().with("apiVersion", "v1alpha1").with("kind", kind.name).with_some("name", name)
        });
        for (path, value) in fields {
            set(&mut map, &path.split('.').collect::<Vec<_>>(), value.clone());
        }
        // Read once more: a value that does not fit there stays out, and the machine's check names it.
        let Ok(map) = schema::read_document(kind.name, map) else { return };
        if let Some(at) = at {
            // One document says all: contracts before 1.14 take it only once in a patch.
            self.made[at] = self.made[at].with_content(Some(map));
        } else {
            let part = Part::made(kind, name.map(str::to_owned), Vec::new(), Some(map));
            self.made.push(part.standing_at(self.spot));
        }
    }
}

fn document(kind: &str) -> Option<&'static shapes::Kind> {
    shapes::document(kind)
}
