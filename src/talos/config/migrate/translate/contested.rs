//! Keys about which patches have the last word over each other in a way that no document can say.
//!
//! Patches are translated one by one. That is enough where a later one sets what an earlier one set; it isn't where a key
//! switches something that is a document's being there, or where a delete takes out what an earlier patch set and the
//! document calls otherwise. Such keys stay as they are in all patches. Must not know: what they are translated to.

use crate::talos::config::patch::{Part, Patch};

/// When several patches are too many for keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clash {
    /// When more than one says something about them.
    Said,
    /// When one of them takes something out.
    Deleted,
}

const GROUPS: &[(Clash, &[&str])] = &[
    (Clash::Said, &["cluster.allowSchedulingOnControlPlanes", "cluster.allowSchedulingOnMasters"]),
    (Clash::Said, &["machine.features.kubePrism"]),
    (Clash::Said, &["machine.features.stableHostname"]),
    (Clash::Said, &["cluster.network.cni.name", "cluster.network.cni.urls"]),
    (Clash::Said, &["cluster.discovery"]),
    (Clash::Deleted, &["cluster.apiServer.admissionControl"]),
    (Clash::Deleted, &["machine.registries.mirrors"]),
    (Clash::Deleted, &["machine.network.kubespan"]),
];

/// The keys that stay.
#[derive(Clone, Debug, Default)]
pub struct Contested(Vec<&'static str>);

impl Contested {
    /// Those of a machine's patches.
    pub fn of(patches: &[Patch]) -> Self {
        let parts = || patches.iter().flat_map(Patch::parts).filter(|part| part.kind.name == "v1alpha1");
        let of_group = |(clash, keys): &&(Clash, &[&'static str])| {
            let about = parts().filter(|part| keys.iter().any(|key| says(part, key) || deletes(part, key))).count();
            let deleted = *clash == Clash::Said || parts().any(|part| keys.iter().any(|key| deletes(part, key)));
            about > 1 && deleted
        };
        Self(GROUPS.iter().filter(of_group).flat_map(|(_, keys)| keys.iter().copied()).collect())
    }

    /// Whether a key is one of them, or below one.
    pub fn has(&self, path: &str) -> bool {
        self.0.iter().any(|key| is_at_or_below(path, key))
    }
}

fn says(part: &Part, key: &str) -> bool {
    part.says(&key.split('.').collect::<Vec<_>>())
}

fn deletes(part: &Part, key: &str) -> bool {
    let paths = part.deletes().iter().map(|delete| delete.path().join("."));
    paths.into_iter().any(|path| is_at_or_below(&path, key) || is_at_or_below(key, &path))
}

/// Whether a dotted path is another one, or leads further from it.
pub(in crate::talos::config::migrate) fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}
