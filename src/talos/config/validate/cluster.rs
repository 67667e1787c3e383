//! The `cluster` half of the main document.

use std::collections::BTreeSet;

use http::Uri;

use super::names::is_domain;
use super::network::filters;
use super::scalars::{text, texts};
use super::{Check, Documents};
use crate::talos::config::yaml::Value;
use crate::types::Role;

/// Checks it; `documents` tells whether documents say what this half said before contract 1.14.
pub(super) fn cluster(check: &mut Check<'_>, role: Option<Role>, documents: Documents) {
    let documents = documents == Documents::There;
    let Some(_) = check.at("cluster") else {
        // In contract 1.14 most of it is documents, and a node still wants the key.
        return check.error("cluster", "is missing");
    };
    match check.text("cluster.controlPlane.endpoint") {
        Some(endpoint) if !is_url(endpoint) => {
            check.error("cluster.controlPlane.endpoint", "must be a URL such as https://10.0.0.10:6443");
        }
        None if !documents || check.at("cluster.controlPlane").is_some() => {
            check.error("cluster.controlPlane.endpoint", "is missing: the URL of the Kubernetes API");
        }
        _ => {}
    }
    if let Some(domain) = check.text("cluster.network.dnsDomain")
        && !is_domain(domain)
    {
        check.error("cluster.network.dnsDomain", format!("'{domain}' is no DNS name"));
    }
    cloud_provider(check);
    for component in ["apiServer", "controllerManager", "scheduler"] {
        resources(check, &format!("cluster.{component}.resources"));
    }
    authorizers(check);
    match role {
        Some(Role::ControlPlane) => {
            if !documents || check.at("cluster.network").is_some() {
                cni(check);
            }
            etcd(check);
        }
        Some(Role::Worker) => {
            if check.text("cluster.ca.key").is_some() {
                check.error("cluster.ca.key", "the CA's key belongs on control planes only");
            }
            if check.at("cluster.etcd").is_some() {
                check.error("cluster.etcd", "is for control planes only");
            }
        }
        None => {}
    }
    discovery(check);
    manifests(check);
}

/// What Go's `url.Parse` takes for one with a host.
pub(super) fn is_url(text: &str) -> bool {
    text.contains("://") && text.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

fn cni(check: &mut Check<'_>) {
    let urls = check.list("cluster.network.cni.urls");
    let name = check.text("cluster.network.cni.name").unwrap_or("flannel");
    match name {
        "flannel" | "none" if !urls.is_empty() => {
            check.error("cluster.network.cni.urls", format!("must be empty with {name}: say name: custom"));
        }
        "custom" if urls.is_empty() => {
            check.warning("cluster.network.cni", "custom without urls installs nothing");
        }
        "flannel" | "none" => {}
        "custom" => {
            for (at, _) in texts(urls).filter(|(_, url)| !is_url(url)) {
                check.error(&format!("cluster.network.cni.urls[{at}]"), "must be a URL");
            }
        }
        other => check.error("cluster.network.cni.name", format!("unknown CNI '{other}': flannel, custom or none")),
    }
    if ["none", "custom"].contains(&name) {
        if !check.list("cluster.network.cni.flannel.extraArgs").is_empty() {
            check.error("cluster.network.cni.flannel.extraArgs", format!("is for flannel, and the CNI is {name}"));
        }
        let path = "cluster.network.cni.flannel.kubeNetworkPoliciesEnabled";
        if check.is_true(path) {
            check.error(path, format!("is for flannel, and the CNI is {name}"));
        }
    }
}

fn etcd(check: &mut Check<'_>) {
    if check.at("cluster.etcd").is_none() {
        return;
    }
    if check.at("cluster.etcd.ca").is_none() {
        check.error("cluster.etcd.ca", "a control plane needs etcd's CA");
    }
    if check.text("cluster.etcd.subnet").is_some() && !check.list("cluster.etcd.advertisedSubnets").is_empty() {
        check.error("cluster.etcd.subnet", "excludes advertisedSubnets");
    }
    for key in ["advertisedSubnets", "listenSubnets"] {
        filters(check, &format!("cluster.etcd.{key}"));
    }
}

fn cloud_provider(check: &mut Check<'_>) {
    let path = "cluster.externalCloudProvider.manifests";
    let manifests = check.list(path);
    if !manifests.is_empty() && !check.is_true("cluster.externalCloudProvider.enabled") {
        return check.error(path, "needs enabled: true");
    }
    for (at, _) in texts(manifests).filter(|(_, url)| !is_url(url)) {
        check.error(&format!("{path}[{at}]"), "must be a URL");
    }
}

/// Requests and limits of a component's pod.
pub(super) fn resources(check: &mut Check<'_>, path: &str) {
    for kind in ["requests", "limits"] {
        let path = format!("{path}.{kind}");
        let Some(Value::Map(map)) = check.at(&path) else { continue };
        for key in map.keys().filter(|key| !["cpu", "memory"].contains(key)) {
            check.error(&format!("{path}.{key}"), "is no resource that can be set here: cpu and memory are");
        }
    }
}

/// Kinds of authorizers (Kubernetes, `apiserver.config.k8s.io`).
pub(super) const AUTHORIZERS: [&str; 4] = ["Node", "RBAC", "Webhook", "AlwaysAllow"];

fn authorizers(check: &mut Check<'_>) {
    let path = "cluster.apiServer.authorizationConfig";
    let list = check.list(path);
    if list.is_empty() {
        return;
    }
    if let Some(Value::Map(flags)) = check.at("cluster.apiServer.extraArgs") {
        let old = |key: &&str| *key == "authorization-mode" || key.starts_with("authorization-webhook-");
        for key in flags.keys().filter(old) {
            check
                .error(&format!("cluster.apiServer.extraArgs.{key}"), "excludes authorizationConfig: keep one of them");
        }
    }
    for (at, authorizer) in list.iter().enumerate() {
        if text(authorizer, &["name"]).is_empty() {
            check.error(&format!("{path}[{at}].name"), "is missing");
        }
        let kind = text(authorizer, &["type"]);
        if !AUTHORIZERS.contains(&kind) {
            check.error(&format!("{path}[{at}].type"), format!("'{kind}' is none of {}", AUTHORIZERS.join(", ")));
        }
    }
}

fn discovery(check: &mut Check<'_>) {
    if !check.is_true("cluster.discovery.enabled") || check.is_true("cluster.discovery.registries.service.disabled") {
        return;
    }
    for key in ["cluster.id", "cluster.secret"] {
        if check.text(key).is_none() {
            check.error(key, "cluster discovery needs it");
        }
    }
    let path = "cluster.discovery.registries.service.endpoint";
    let Some(endpoint) = check.text(path) else { return };
    if !endpoint.contains("://") && !endpoint.starts_with('/') {
        check.error(path, "must be a URL");
    } else if endpoint.parse::<Uri>().is_ok_and(|uri| !["", "/"].contains(&uri.path())) {
        check.error(path, "must have no path");
    }
}

fn manifests(check: &mut Check<'_>) {
    let mut seen = BTreeSet::new();
    for (at, manifest) in check.list("cluster.inlineManifests").iter().enumerate() {
        let name = manifest.at(&["name"]).and_then(Value::as_text).unwrap_or_default();
        if name.trim().is_empty() {
            check.error(&format!("cluster.inlineManifests[{at}]"), "needs a name");
        } else if !seen.insert(name) {
            check.error(&format!("cluster.inlineManifests[{at}].name"), format!("'{name}' is there twice"));
        }
    }
}
