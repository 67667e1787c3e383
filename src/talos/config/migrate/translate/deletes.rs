//! What a patch takes out at an old key, taken out of the document that says it.
//!
//! From contract 1.14 on it is no error when that document isn't there. Where it may be there without what leads to the
//! key, the delete stays as it is, and its finding tells. Must not know: what patches set.

use super::{MOVES, Work, document};
use crate::talos::config::delete::Delete;
use crate::talos::config::patch::Part;
use crate::types::Role;

/// Keys without which something is off, or isn't there: its document goes. The kind, and the name that Talos gives it.
const WHOLE: &[(&str, &str, Option<&str>)] = &[
    ("machine.features.kubePrism", "KubePrismConfig", None),
    ("machine.features.kubePrism.enabled", "KubePrismConfig", None),
    ("cluster.discovery", "DiscoveryServiceConfig", Some("default")),
    ("cluster.discovery.enabled", "DiscoveryServiceConfig", Some("default")),
    ("cluster.apiServer.auditPolicy", "KubeAuditPolicyConfig", None),
    ("cluster.apiServer.admissionControl", ADMISSION, Some("PodSecurity")),
];

/// A document for each plugin, where a list of them was.
const ADMISSION: &str = "KubeAdmissionControlConfig";

/// Keys that did nothing and have no document.
const NOTHING: &[&str] = &["cluster.apiServer.disablePodSecurityPolicy"];

impl Work {
    /// Translates deletes; those that have no translation are left.
    pub(super) fn deletes(&mut self, deletes: &[Delete]) -> Vec<Delete> {
        deletes.iter().filter(|delete| !self.takes_out(delete)).cloned().collect()
    }

    fn takes_out(&mut self, delete: &Delete) -> bool {
        let path = delete.path().join(".");
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
            // An element of the list of plugins says which.
            let element = delete.element().map(|(_, value)| value.as_str());
            self.delete(kind, element.or(*name), Delete::of(Vec::new()));
            return true;
        }
        let moves = MOVES
            .iter()
            .filter(|(since, _, kind, to)| *since == 14 && (!to.contains('.') || *kind == "UnattendedInstallConfig"));
        for (_, from, kind, to) in moves {
            let rest = path.strip_prefix(from).filter(|rest| rest.is_empty() || rest.starts_with('.'));
            if rest.is_some() {
                let below = delete.path().iter().skip(from.split('.').count()).cloned();
                let path = to.split('.').map(str::to_owned).chain(below).collect();
                self.delete(kind, None, delete.with_path(path));
                return true;
            }
        }
        false
    }

    fn delete(&mut self, kind: &'static str, name: Option<&str>, delete: Delete) {
        let Some(kind) = document(kind).filter(|kind| !kind.control_plane || self.role == Role::ControlPlane) else {
            return;
        };
        let same = |part: &&mut Part| part.kind.name == kind.name && part.name() == name && !part.deletes_whole();
        match self.made.iter_mut().find(same) {
            Some(part) if !delete.is_whole() => part.also_deletes(delete),
            _ => self.made.push(Part::made(kind, name.map(str::to_owned), vec![delete], None)),
        }
    }
}
