//! The `cluster` half of the main document.

use std::collections::BTreeSet;

use http::Uri;

use super::Check;
use super::names::is_dns_name;
use crate::talos::config::yaml::Value;
use crate::types::Role;

pub(super) fn cluster(check: &mut Check<'_>, role: Option<Role>) {
    let Some(_) = check.at("cluster") else {
        // In contract 1.14 most of it is documents, and a node still wants the key.
        return check.error("cluster", "is missing");
    };
    if let Some(endpoint) = check.text("cluster.controlPlane.endpoint")
        && !is_url(endpoint)
    {
        check.error("cluster.controlPlane.endpoint", "must be a URL such as https://10.0.0.10:6443");
    }
    if let Some(domain) = check.text("cluster.network.dnsDomain")
        && !is_dns_name(domain)
    {
        check.error("cluster.network.dnsDomain", format!("'{domain}' is no DNS name"));
    }
    cni(check);
    match role {
        Some(Role::ControlPlane) if check.text("cluster.etcd.ca.crt").is_none() => {
            check.error("cluster.etcd.ca", "a control plane needs etcd's CA");
        }
        Some(Role::Worker) => {
            if check.text("cluster.ca.key").is_some() {
                check.error("cluster.ca.key", "the CA's key belongs on control planes only");
            }
            if check.at("cluster.etcd").is_some() {
                check.error("cluster.etcd", "is for control planes only");
            }
        }
        Some(Role::ControlPlane) | None => {}
    }
    discovery(check);
    manifests(check);
}

/// What Go's `url.Parse` takes for one with a host.
fn is_url(text: &str) -> bool {
    text.contains("://") && text.parse::<Uri>().is_ok_and(|uri| uri.host().is_some_and(|host| !host.is_empty()))
}

fn cni(check: &mut Check<'_>) {
    let urls = check.list("cluster.network.cni.urls");
    match check.text("cluster.network.cni.name") {
        Some(name @ ("flannel" | "none")) if !urls.is_empty() => {
            check.error("cluster.network.cni.urls", format!("must be empty with {name}: say name: custom"));
        }
        Some("custom") if urls.is_empty() => {
            check.warning("cluster.network.cni", "custom without urls installs nothing");
        }
        None | Some("flannel" | "none" | "custom") => {}
        Some(other) => {
            check.error("cluster.network.cni.name", format!("unknown CNI '{other}': flannel, custom or none"));
        }
    }
}

fn discovery(check: &mut Check<'_>) {
    if check.is_true("cluster.discovery.enabled") {
        for key in ["cluster.id", "cluster.secret"] {
            if check.text(key).is_none() {
                check.error(key, "cluster discovery needs it");
            }
        }
    }
    if let Some(endpoint) = check.text("cluster.discovery.registries.service.endpoint") {
        let path = endpoint.parse::<Uri>().map(|uri| uri.path().to_owned());
        if path.is_ok_and(|path| !path.is_empty() && path != "/") {
            check.error("cluster.discovery.registries.service.endpoint", "must have no path");
        }
    }
    if check.is_true("machine.network.kubespan.enabled") {
        if check.is_false("cluster.discovery.enabled") || check.at("cluster.discovery").is_none() {
            check.error("machine.network.kubespan", "needs cluster discovery");
        }
        let mtu = check.at("machine.network.kubespan.mtu");
        if let Some(Value::Number(mtu)) = mtu
            && mtu.normal().parse::<u32>().is_ok_and(|mtu| (1..1280).contains(&mtu))
        {
            check.error("machine.network.kubespan.mtu", "must be at least 1280");
        }
    }
}

fn manifests(check: &mut Check<'_>) {
    let mut seen = BTreeSet::new();
    for (at, manifest) in check.list("cluster.inlineManifests").iter().enumerate() {
        let name = manifest.at(&["name"]).and_then(Value::as_text).unwrap_or_default();
        if name.is_empty() {
            check.error(&format!("cluster.inlineManifests[{at}]"), "needs a name");
        } else if !seen.insert(name) {
            check.error(&format!("cluster.inlineManifests[{at}].name"), format!("'{name}' is there twice"));
        }
    }
}
