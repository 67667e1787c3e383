//! What there is: groups, versions and kinds, in both forms of discovery, and as `OpenAPI` documents.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::kinds::Kind;
use super::openapi;

/// In which order groups are listed, and thereby which one a short name means.
fn groups(kinds: &[Arc<Kind>]) -> Vec<(String, Vec<String>)> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for kind in kinds.iter().filter(|kind| !kind.group.is_empty()) {
        match groups.iter_mut().find(|(name, _)| *name == kind.group) {
            Some((_, versions)) if !versions.contains(&kind.version) => versions.push(kind.version.clone()),
            Some(_) => {}
            None => groups.push((kind.group.clone(), vec![kind.version.clone()])),
        }
    }
    // Events of the core group come first; those of their own group are the same ones.
    groups.sort_by_key(|(name, _)| name == "events.k8s.io");
    groups
}

fn group(name: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{name}/{version}"), "version": version }))
        .collect();
    json!({ "name": name, "versions": versions, "preferredVersion": versions.first() })
}

/// `/api`.
pub(super) fn core(address: &str) -> Value {
    json!({ "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": address }] })
}

/// `/apis`.
pub(super) fn all(kinds: &[Arc<Kind>]) -> Value {
    let groups: Vec<Value> = groups(kinds).iter().map(|(name, versions)| group(name, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/apps`.
pub(super) fn one(kinds: &[Arc<Kind>], name: &str) -> Option<Value> {
    let found = groups(kinds).into_iter().find(|(known, _)| known == name)?;
    let mut value = group(&found.0, &found.1);
    value["kind"] = json!("APIGroup");
    value["apiVersion"] = json!("v1");
    Some(value)
}

/// What a subresource is made of, and what can be done with it.
fn below(kind: &Kind, name: &str) -> (Value, &'static [&'static str]) {
    let own = json!({ "group": "", "version": "", "kind": kind.kind });
    match name {
        "scale" => (json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" }), &["get", "patch", "update"]),
        "eviction" => (json!({ "group": "policy", "version": "v1", "kind": "Eviction" }), &["create"]),
        "binding" => (json!({ "group": "", "version": "v1", "kind": "Binding" }), &["create"]),
        "token" => (json!({ "group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest" }), &["create"]),
        "log" => (own, &["get"]),
        "exec" | "attach" | "portforward" => {
            let kind = match name {
                "exec" => "PodExecOptions",
                "attach" => "PodAttachOptions",
                _ => "PodPortForwardOptions",
            };
            (json!({ "group": "", "version": "v1", "kind": kind }), &["create", "get"])
        }
        "proxy" => {
            let kind = format!("{}ProxyOptions", kind.kind);
            (json!({ "group": "", "version": "v1", "kind": kind }), &["create", "delete", "get", "patch", "update"])
        }
        "finalize" => (own, &["update"]),
        _ => (own, &["get", "patch", "update"]),
    }
}

/// `/api/v1`, `/apis/apps/v1`; `None` when there is no such version.
pub(super) fn resources(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let mut found = kinds.iter().filter(|kind| kind.group == group && kind.version == version).peekable();
    let group_version = found.peek()?.api_version();
    let mut resources = Vec::new();
    for kind in found {
        let mut one = json!({ "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
            "kind": kind.kind, "verbs": kind.verbs() });
        if !kind.short.is_empty() {
            one["shortNames"] = json!(kind.short);
        }
        if !kind.categories.is_empty() {
            one["categories"] = json!(kind.categories);
        }
        resources.push(one);
        for name in &kind.subresources {
            let (of, verbs) = below(kind, name);
            let mut one = json!({ "name": format!("{}/{name}", kind.plural), "singularName": "",
                "namespaced": kind.namespaced, "kind": of["kind"], "verbs": verbs });
            if of["version"] != "" {
                one["group"] = of["group"].clone();
                one["version"] = of["version"].clone();
            }
            resources.push(one);
        }
    }
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources }),
    )
}

/// Which groups are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    /// The one without a name.
    Core,
    /// Those with one.
    Named,
}

/// All of them in one document (`apidiscovery.k8s.io/v2`).
pub(super) fn aggregated(kinds: &[Arc<Kind>], told: Groups, format: &str) -> Value {
    let groups = match told {
        Groups::Core => vec![(String::new(), vec!["v1".to_owned()])],
        Groups::Named => groups(kinds),
    };
    let items: Vec<Value> = groups
        .iter()
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions.iter().map(|version| version_of(kinds, name, version)).collect();
            let metadata = if name.is_empty() { json!({}) } else { json!({ "name": name }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{format}"), "metadata": {},
        "items": items })
}

fn version_of(kinds: &[Arc<Kind>], group: &str, version: &str) -> Value {
    let mine = kinds.iter().filter(|kind| kind.group == group && kind.version == version);
    let resources: Vec<Value> = mine
        .map(|kind| {
            let scope = if kind.namespaced { "Namespaced" } else { "Cluster" };
            let own = json!({ "group": group, "version": version, "kind": kind.kind });
            let mut one = json!({ "resource": kind.plural, "responseKind": own, "scope": scope,
                "singularResource": kind.singular, "verbs": kind.verbs() });
            if !kind.short.is_empty() {
                one["shortNames"] = json!(kind.short);
            }
            if !kind.categories.is_empty() {
                one["categories"] = json!(kind.categories);
            }
            let subresources: Vec<Value> = kind
                .subresources
                .iter()
                .map(|name| {
                    let (of, verbs) = below(kind, name);
                    let of = if of["version"] == "" { own.clone() } else { of };
                    json!({ "subresource": name, "responseKind": of, "verbs": verbs })
                })
                .collect();
            if !subresources.is_empty() {
                one["subresources"] = json!(subresources);
            }
            one
        })
        .collect();
    json!({ "version": version, "freshness": "Current", "resources": resources })
}

pub(super) fn root(kind: &Kind) -> String {
    let base = if kind.group.is_empty() { "api" } else { "apis" };
    format!("{base}/{}", kind.api_version())
}

/// `/openapi/v3`: where each group's description is.
pub(super) fn documents(kinds: &[Arc<Kind>]) -> Value {
    let paths: Map<String, Value> = kinds
        .iter()
        .map(|kind| (root(kind), json!({ "serverRelativeURL": format!("/openapi/v3/{}?hash=0", root(kind)) })))
        .collect();
    json!({ "paths": paths })
}

/// A group's description.
pub(super) fn document(kinds: &[Arc<Kind>], group: &str, version: &str) -> Option<Value> {
    let mut found = kinds.iter().filter(|kind| kind.group == group && kind.version == version).peekable();
    found.peek()?;
    Some(openapi::document(found))
}
