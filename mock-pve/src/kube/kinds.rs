//! The kinds of objects that this API serves.

use serde_json::{Value, json};

/// A kind of objects.
#[expect(clippy::struct_field_names, reason = "`kind` is what Kubernetes calls it")]
pub(super) struct Kind {
    /// Empty for the core group.
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    /// As in paths: `nodes`.
    pub(super) plural: &'static str,
    /// As in etcd's keys, where nodes are `minions`.
    pub(super) stored: &'static str,
    pub(super) kind: &'static str,
    short: &'static [&'static str],
    pub(super) namespaced: bool,
}

macro_rules! kind {
    ($group:literal, $version:literal, $plural:literal, $stored:literal, $kind:literal, $short:expr, $namespaced:literal) => {
        Kind {
            group: $group,
            version: $version,
            plural: $plural,
            stored: $stored,
            kind: $kind,
            short: &$short,
            namespaced: $namespaced,
        }
    };
}

pub(super) const KINDS: &[Kind] = &[
    kind!("", "v1", "configmaps", "configmaps", "ConfigMap", ["cm"], true),
    kind!("", "v1", "endpoints", "services/endpoints", "Endpoints", ["ep"], true),
    kind!("", "v1", "events", "events", "Event", ["ev"], true),
    kind!("", "v1", "namespaces", "namespaces", "Namespace", ["ns"], false),
    kind!("", "v1", "nodes", "minions", "Node", ["no"], false),
    kind!("", "v1", "persistentvolumeclaims", "persistentvolumeclaims", "PersistentVolumeClaim", ["pvc"], true),
    kind!("", "v1", "persistentvolumes", "persistentvolumes", "PersistentVolume", ["pv"], false),
    kind!("", "v1", "pods", "pods", "Pod", ["po"], true),
    kind!("", "v1", "secrets", "secrets", "Secret", [], true),
    kind!("", "v1", "serviceaccounts", "serviceaccounts", "ServiceAccount", ["sa"], true),
    kind!("", "v1", "services", "services/specs", "Service", ["svc"], true),
    kind!("apps", "v1", "daemonsets", "daemonsets", "DaemonSet", ["ds"], true),
    kind!("apps", "v1", "deployments", "deployments", "Deployment", ["deploy"], true),
    kind!("apps", "v1", "replicasets", "replicasets", "ReplicaSet", ["rs"], true),
    kind!("apps", "v1", "statefulsets", "statefulsets", "StatefulSet", ["sts"], true),
    kind!("coordination.k8s.io", "v1", "leases", "leases", "Lease", [], true),
    kind!("policy", "v1", "poddisruptionbudgets", "poddisruptionbudgets", "PodDisruptionBudget", ["pdb"], true),
    kind!("storage.k8s.io", "v1", "storageclasses", "storageclasses", "StorageClass", ["sc"], false),
];

impl Kind {
    pub(super) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.group == group && kind.version == version && kind.plural == plural)
    }

    /// `apps/v1`, `v1`.
    pub(super) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `nodes "x"`, `deployments.apps "x"`: as messages name an object's kind.
    pub(super) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

/// `/apis`.
pub(super) fn groups() -> Value {
    let mut names: Vec<&str> = KINDS.iter().map(|kind| kind.group).filter(|group| !group.is_empty()).collect();
    names.dedup();
    let groups: Vec<Value> = names
        .into_iter()
        .map(|name| {
            let version = json!({ "groupVersion": format!("{name}/v1"), "version": "v1" });
            json!({ "name": name, "versions": [version], "preferredVersion": version })
        })
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/api/v1`, `/apis/apps/v1`; `None` when there is no such group.
pub(super) fn resources(group: &str, version: &str) -> Option<Value> {
    let mut found = KINDS.iter().filter(|kind| kind.group == group && kind.version == version).peekable();
    let group_version = found.peek()?.api_version();
    let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
    let resources: Vec<Value> = found
        .map(|kind| {
            json!({ "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
                "kind": kind.kind, "verbs": verbs, "shortNames": kind.short })
        })
        .collect();
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

fn root(kind: &Kind) -> String {
    let base = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{base}/{}", kind.api_version())
}

/// `/openapi/v3`: where each group's description is.
pub(super) fn schemas() -> Value {
    let paths: serde_json::Map<String, Value> = KINDS
        .iter()
        .map(|kind| (root(kind), json!({ "serverRelativeURL": format!("/openapi/v3/{}?hash=0", root(kind)) })))
        .collect();
    json!({ "paths": paths })
}

/// A group's description: only that objects can be patched, and that the server looks at their fields itself.
pub(super) fn schema(group: &str, version: &str) -> Option<Value> {
    let mut found = KINDS.iter().filter(|kind| kind.group == group && kind.version == version).peekable();
    found.peek()?;
    let query = |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
    let paths: serde_json::Map<String, Value> = found
        .map(|kind| {
            let namespace = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
            let patch = json!({ "x-kubernetes-action": "patch", "parameters": [query("dryRun"), query("fieldValidation")],
                "x-kubernetes-group-version-kind": { "group": group, "version": version, "kind": kind.kind },
                "responses": { "200": { "description": "OK" } } });
            (format!("/{}/{namespace}{}/{{name}}", root(kind), kind.plural), json!({ "patch": patch }))
        })
        .collect();
    Some(json!({ "openapi": "3.0.0", "info": { "title": "Kubernetes", "version": "unversioned" }, "paths": paths,
        "components": { "schemas": {} } }))
}
