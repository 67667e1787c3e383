//! What a machine's configuration says, wherever its version of Talos has it.
//!
//! Must not know: profiles.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::talos::config::Config;
use crate::talos::config::yaml::Value;
use crate::types::{Role, Version};

/// A machine's configuration, asked by path.
pub(super) struct View(pub(super) Config);

impl View {
    /// The value at a path of the main document or, since 1.14, of the document of a kind.
    fn at(&self, main: &str, document: Option<(&str, &str)>) -> Option<&Value> {
        let found = |wanted: Option<&str>, path: &str| {
            let keys: Vec<&str> = path.split('.').collect();
            let of = |document: &&Value| document.at(&["kind"]).and_then(Value::as_text) == wanted;
            self.0.documents().iter().filter(of).find_map(|document| document.at(&keys))
        };
        found(None, main).or_else(|| document.and_then(|(kind, path)| found(Some(kind), path)))
    }

    fn text(&self, main: &str, document: Option<(&str, &str)>) -> Option<&str> {
        self.at(main, document)?.as_text()
    }

    fn documents<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0.documents().iter().filter(move |document| document.at(&["kind"]).and_then(Value::as_text) == Some(kind))
    }

    pub(super) fn role(&self) -> Role {
        match self.text("machine.type", None) {
            Some("controlplane" | "init") => Role::ControlPlane,
            _ => Role::Worker,
        }
    }

    pub(super) fn cluster(&self) -> Option<&str> {
        self.text("cluster.clusterName", Some(("KubeClusterConfig", "clusterName")))
    }

    pub(super) fn endpoint(&self) -> Option<&str> {
        self.text("cluster.controlPlane.endpoint", Some(("KubeClusterConfig", "endpoint")))
    }

    pub(super) fn id(&self) -> Option<&str> {
        self.text("cluster.id", Some(("DiscoveryIdentityConfig", "clusterID")))
    }

    pub(super) fn subnet(&self, main: &str, key: &str) -> Option<IpNet> {
        self.at(main, Some(("KubeNetworkConfig", key)))?.as_list()?.first()?.as_text()?.parse().ok()
    }

    /// The version in the tag of an image.
    pub(super) fn version(&self, main: &str, kind: &str) -> Option<Version> {
        let image = self.text(main, Some((kind, "image")))?;
        image.split('@').next()?.rsplit_once(":v")?.1.parse().ok()
    }

    pub(super) fn kubelet(&self) -> Option<Version> {
        self.version("machine.kubelet.image", "KubeletConfig")
    }

    fn interfaces(&self) -> &[Value] {
        self.at("machine.network.interfaces", None).and_then(Value::as_list).unwrap_or_default()
    }

    /// Its static addresses, with their prefix lengths.
    pub(super) fn addresses(&self) -> Vec<IpNet> {
        let listed = |value: &Value, key: &str| -> Vec<Value> {
            value.at(&[key]).and_then(Value::as_list).unwrap_or_default().to_vec()
        };
        let old = self.interfaces().iter().flat_map(|interface| listed(interface, "addresses"));
        let new = self.documents("LinkConfig").flat_map(|link| listed(link, "addresses"));
        let new = new.filter_map(|entry| entry.at(&["address"]).cloned());
        old.chain(new).filter_map(|address| address.as_text()?.parse().ok()).collect()
    }

    pub(super) fn gateway(&self) -> Option<IpAddr> {
        let everywhere = |route: &&Value| {
            let network = ["network", "destination"].iter().find_map(|key| route.at(&[key])?.as_text());
            matches!(network, None | Some("" | "0.0.0.0/0" | "::/0"))
        };
        let routes = |value: &Value| {
            let routes = value.at(&["routes"]).and_then(Value::as_list).unwrap_or_default();
            routes.iter().filter(everywhere).find_map(|route| route.at(&["gateway"])?.as_text()?.parse().ok())
        };
        self.interfaces().iter().find_map(routes).or_else(|| self.documents("LinkConfig").find_map(routes))
    }

    pub(super) fn vip(&self) -> Option<IpAddr> {
        let old = self.interfaces().iter().find_map(|interface| interface.at(&["vip", "ip"])?.as_text()?.parse().ok());
        old.or_else(|| self.documents("Layer2VIPConfig").find_map(|vip| vip.at(&["name"])?.as_text()?.parse().ok()))
    }

    pub(super) fn nameservers(&self) -> Vec<IpAddr> {
        let old = self.at("machine.network.nameservers", None).and_then(Value::as_list).unwrap_or_default();
        let new = self.documents("ResolverConfig").filter_map(|document| document.at(&["nameservers"])?.as_list());
        let new = new.flatten().filter_map(|server| server.at(&["address"]));
        old.iter().chain(new).filter_map(|server| server.as_text()?.parse().ok()).collect()
    }

    pub(super) fn mtu(&self) -> Option<u16> {
        match self.interfaces().first()?.at(&["mtu"])? {
            Value::Number(number) => number.normal().parse().ok().filter(|mtu| *mtu > 0),
            _ => None,
        }
    }

    pub(super) fn install_disk(&self) -> Option<&str> {
        self.text("machine.install.disk", None)
    }
}
