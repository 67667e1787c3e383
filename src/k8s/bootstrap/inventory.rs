//! The inventory: which objects belong to the bootstrap manifests, so that those that left them can be deleted.
//!
//! A `ConfigMap` with an empty value for each object, under a key that names it. Machines since Talos 1.13 keep it too.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::k8s::manifest::Manifest;

/// Its name, which is also its id.
pub const NAME: &str = "talos-bootstrap-manifests-inventory";

/// Where it lies.
pub const NAMESPACE: &str = "kube-system";

/// The group whose names may hold colons, which a key of a `ConfigMap` may not.
const RBAC: &str = "rbac.authorization.k8s.io";

/// An object as the inventory names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Empty for an object of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Empty for the core group.
    pub group: String,
    /// Its kind.
    pub kind: String,
}

impl Entry {
    /// The entry of an object, given where it is: with its namespace where its kind has one.
    pub fn of(manifest: &Manifest) -> Self {
        let group = manifest.api_version.split_once('/').map_or("", |(group, _)| group);
        Self {
            namespace: manifest.namespace.clone().unwrap_or_default(),
            name: manifest.name.clone(),
            group: group.to_owned(),
            kind: manifest.kind.clone(),
        }
    }

    /// `NAMESPACE_NAME_GROUP_KIND`.
    pub fn key(&self) -> String {
        let name = if self.group == RBAC { self.name.replace(':', "__") } else { self.name.clone() };
        format!("{}_{name}_{}_{}", self.namespace, self.group, self.kind)
    }

    /// Reads a key; none where it isn't one.
    pub fn parse(key: &str) -> Option<Self> {
        let (rest, kind) = key.rsplit_once('_')?;
        let (rest, group) = rest.rsplit_once('_')?;
        let (namespace, name) = rest.split_once('_')?;
        let name = if group == RBAC { name.replace("__", ":") } else { name.to_owned() };
        let named = !kind.is_empty() && !name.is_empty();
        named.then(|| Self { namespace: namespace.to_owned(), name, group: group.to_owned(), kind: kind.to_owned() })
    }
}

impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// The entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// They.
    pub entries: BTreeSet<Entry>,
    /// Keys that name no object: kept as they are.
    strange: BTreeSet<String>,
}

impl Inventory {
    /// From its object.
    pub fn of(object: &Value) -> Self {
        let mut inventory = Self::default();
        for key in object.get("data").and_then(Value::as_object).into_iter().flat_map(Map::keys) {
            match Entry::parse(key) {
                Some(entry) => {
                    inventory.entries.insert(entry);
                }
                None => {
                    inventory.strange.insert(key.clone());
                }
            }
        }
        inventory
    }

    /// Its object.
    pub fn object(&self) -> Manifest {
        let keys = self.entries.iter().map(Entry::key).chain(self.strange.iter().cloned());
        let data: Map<String, Value> = keys.map(|key| (key, json!(""))).collect();
        let mut object = empty();
        object.object["data"] = Value::Object(data);
        object
    }

    /// Those that are no longer wanted.
    pub fn left_over(&self, wanted: &BTreeSet<Entry>) -> Vec<Entry> {
        self.entries.difference(wanted).cloned().collect()
    }
}

/// The object of an empty inventory.
pub(super) fn empty() -> Manifest {
    Manifest {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: NAME.to_owned(),
        namespace: Some(NAMESPACE.to_owned()),
        object: json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": NAMESPACE},
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(namespace: &str, name: &str, group: &str, kind: &str) -> Entry {
        Entry { namespace: namespace.to_owned(), name: name.to_owned(), group: group.to_owned(), kind: kind.to_owned() }
    }

    #[test]
    fn keys_name_objects_as_talos_writes_them() {
        for (entry, key) in [
            (entry("kube-system", "kube-proxy", "apps", "DaemonSet"), "kube-system_kube-proxy_apps_DaemonSet"),
            (entry("kube-system", "coredns", "", "ConfigMap"), "kube-system_coredns__ConfigMap"),
            (
                entry("", "system:coredns", RBAC, "ClusterRole"),
                "_system__coredns_rbac.authorization.k8s.io_ClusterRole",
            ),
            (entry("", "apps", "", "Namespace"), "_apps__Namespace"),
        ] {
            assert_eq!(entry.key(), key);
            assert_eq!(Entry::parse(key), Some(entry));
        }
        assert_eq!((Entry::parse("nonsense"), Entry::parse("a__b_")), (None, None));
    }

    #[test]
    fn what_left_the_manifests_is_left_over_and_strange_keys_stay() {
        let object = json!({"data": {
            "kube-system_kube-proxy_apps_DaemonSet": "", "default_old__ConfigMap": "", "not-an-object": "",
        }});
        let inventory = Inventory::of(&object);
        let wanted = BTreeSet::from([
            entry("kube-system", "kube-proxy", "apps", "DaemonSet"),
            entry("kube-system", "new", "", "ConfigMap"),
        ]);
        assert_eq!(inventory.left_over(&wanted), [entry("default", "old", "", "ConfigMap")]);
        assert_eq!(inventory.object().object["data"], object["data"]);
    }
}
