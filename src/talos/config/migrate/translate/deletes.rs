//! What a patch takes out at an old key, taken out of the document that says it.
//!
//! From contract 1.14 on it is no error when that document isn't there. Where it may be there without what leads to the
//! key, the delete stays as it is, and its finding tells. Must not know: what patches set.

use super::{CONTROL_PLANE, MOVES, Work, document, is_at_or_below};
use crate::talos::config::delete::Delete;
use crate::talos::config::patch::Part;
use crate::talos::config::yaml::Map;
use crate::types::Role;

/// Keys without which something is off, or isn't there: its document goes. The kind, and the name that Talos gives it.
const WHOLE: &[(&str, &str, Option<&str>)] = &[
    ("machine.features.kubePrism", "KubePrismConfig", None),
    ("machine.features.kubePrism.enabled", "KubePrismConfig", None),
    ("cluster.discovery", "DiscoveryServiceConfig", Some("default")),
    ("cluster.discovery.enabled", "DiscoveryServiceConfig", Some("default")),
    ("machine.kubelet.credentialProviderConfig", "KubeCredentialProviderConfig", None),
    ("cluster.apiServer.auditPolicy", "KubeAuditPolicyConfig", None),
    ("cluster.apiServer.admissionControl", ADMISSION, Some("PodSecurity")),
];

/// A document for each plugin, where a list of them was.
const ADMISSION: &str = "KubeAdmissionControlConfig";

/// Keys of documents that are nothing without them. What Talos took where nothing was said is generated.
const NEEDED: &[&str] = &["image", "podSubnets", "serviceSubnets", "dnsDomain", "clusterName", "endpoint"];

/// Keys that did nothing and have no document.
const NOTHING: &[&str] = &["cluster.apiServer.disablePodSecurityPolicy"];

impl Work<'_> {
    /// Translates deletes; those that have no translation are left.
    pub(super) fn deletes(&mut self) -> Vec<Delete> {
        let part = self.part;
        part.deletes().iter().filter(|delete| !self.takes_out(delete)).cloned().collect()
    }

    fn takes_out(&mut self, delete: &Delete) -> bool {
        let path = delete.path().join(".");
        if self.contested.has(&path) {
            return false;
        }
        self.spot = self.part.spot_of(&path);
        if self.has(12) && path == "machine.features.stableHostname" {
            self.put("HostnameConfig", None, &[("auto", "off".into())]);
            return true;
        }
        if !self.has(14) {
            return false;
        }
        if NOTHING.contains(&path.as_str()) {
            return true;
        }
        if let Some((_, kind, name)) = WHOLE.iter().find(|(key, ..)| *key == path) {
            if *kind == "KubePrismConfig" {
                // A port alone turns nothing on.
                self.take("machine.features.kubePrism.port");
                self.spot = self.part.spot_of(&path);
            }
            // An element of the list of plugins says which.
            let element = delete.element().map(|(_, value)| value.as_str());
            self.delete(kind, element.or(*name), Delete::of(Vec::new()));
            return true;
        }
        let fits = |to: &str, kind: &str| !to.contains('.') || kind == "UnattendedInstallConfig";
        let moved = MOVES.iter().find(|(since, from, kind, to)| {
            *since == 14 && is_at_or_below(&path, from) && fits(to, kind) && !NEEDED.contains(to)
        });
        let Some((_, from, kind, to)) = moved else { return false };
        let below = delete.path().iter().skip(from.split('.').count()).cloned();
        let new = to.split('.').map(str::to_owned).chain(below).collect();
        self.delete(kind, None, delete.with_path(new));
        // What Talos itself says of control planes stood in no configuration before.
        let own = match path.as_str() {
            "machine.nodeLabels" => Some(""),
            "machine.nodeTaints" => Some("NoSchedule"),
            _ => None,
        };
        if let Some(own) = own.filter(|_| self.role == Role::ControlPlane) {
            self.put(kind, None, &[(to, Map::new().with(CONTROL_PLANE, own).into())]);
        }
        true
    }

    /// Takes something out of a document, or the document itself.
    pub(super) fn delete(&mut self, kind: &'static str, name: Option<&str>, delete: Delete) {
        let Some(kind) = document(kind).filter(|kind| !kind.control_plane || self.role == Role::ControlPlane) else {
            return;
        };
        let same = |part: &&mut Part| part.kind.name == kind.name && part.name() == name && !part.deletes_whole();
        match self.made.iter_mut().find(same) {
            Some(part) if !delete.is_whole() => part.also_deletes(delete),
            _ => {
                let part = Part::made(kind, name.map(str::to_owned), vec![delete], None);
                self.made.push(part.standing_at(self.spot));
            }
        }
    }
}
