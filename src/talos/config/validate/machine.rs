//! The `machine` half of the main document.

use super::names::{is_label_value, is_qualified_name};
use super::scalars::{number, text, texts};
use super::{Check, Mode, network, runtime};
use crate::talos::config::yaml::Value;
use crate::types::Role;

/// Fields of the kubelet's configuration that Talos sets itself.
const KUBELET_OWN: &[&str] = &[
    "apiVersion",
    "authentication",
    "authorization",
    "cgroupRoot",
    "kind",
    "kubeletCgroups",
    "port",
    "protectKernelDefaults",
    "resolvConf",
    "rotateCertificates",
    "staticPodPath",
    "systemCgroups",
];

/// Effects of a taint (Kubernetes, `core/v1`).
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// Checks it; the machine's role, when that can be told.
pub(super) fn machine(check: &mut Check<'_>, mode: Mode) -> Option<Role> {
    if check.is_false("persist") {
        check.error("persist", "must not be off (Talos 1.6 and later)");
    }
    if check.at("machine").is_none() {
        check.error("machine", "is missing");
        return None;
    }
    let role = role(check);
    authorities(check, role);
    node(check, ["machine.nodeLabels", "machine.nodeAnnotations", "machine.nodeTaints"]);
    kubelet_config(check, "machine.kubelet.extraConfig");
    network::filters(check, "machine.kubelet.nodeIP.validSubnets");
    install(check, mode);
    disks(check);
    encryption(check);
    logging(check);
    runtime::overrides(check);
    network::interfaces(check, role);
    network::kubespan(check);
    features(check, mode, role);
    role
}

/// The kubelet's own configuration below a path.
pub(super) fn kubelet_config(check: &mut Check<'_>, path: &str) {
    let Some(Value::Map(extra)) = check.at(path) else { return };
    for key in extra.keys().filter(|key| KUBELET_OWN.contains(key)) {
        check.error(&format!("{path}.{key}"), "is set by Talos itself and can't be changed");
    }
}

/// Roles of Talos' API (siderolabs/talos `pkg/machinery/role`).
const ROLES: [&str; 7] = [
    "os:admin",
    "os:operator",
    "os:reader",
    "os:etcd:backup",
    "os:impersonator",
    "os:image:verifier",
    "os:meta:writer",
];

fn features(check: &mut Check<'_>, mode: Mode, role: Option<Role>) {
    let dns = "machine.features.hostDNS";
    let (on, forwards) =
        (check.is_true(&format!("{dns}.enabled")), check.is_true(&format!("{dns}.forwardKubeDNSToHost")));
    if forwards && !on {
        check.error(dns, "forwardKubeDNSToHost needs enabled: true");
    }
    // In contract 1.14 a document says it.
    if mode == Mode::Container && check.at("cluster.controlPlane").is_some() && !(on && forwards) {
        check.error(dns, "containers need it: enabled and forwardKubeDNSToHost");
    }
    let access = "machine.features.kubernetesTalosAPIAccess";
    if check.is_true(&format!("{access}.enabled")) {
        if role == Some(Role::Worker) {
            check.error(access, "is for control planes only");
        }
        let path = format!("{access}.allowedRoles");
        for (at, given) in texts(check.list(&path)).filter(|(_, given)| !ROLES.contains(given)) {
            check.error(&format!("{path}[{at}]"), format!("'{given}' is no role: {}", ROLES.join(", ")));
        }
    }
    let sort = "machine.features.nodeAddressSortAlgorithm";
    if let Some(given) = check.text(sort).filter(|given| !["v1", "v2"].contains(given)) {
        check.error(sort, format!("unknown algorithm '{given}': v1 or v2"));
    }
}

fn encryption(check: &mut Check<'_>) {
    for partition in ["state", "ephemeral"] {
        let path = format!("machine.systemDiskEncryption.{partition}");
        if check.at(&path).is_none() {
            continue;
        }
        let keys = check.list(&format!("{path}.keys"));
        if keys.is_empty() {
            check.error(&path, "needs keys");
        }
        encryption_keys(check, keys, &format!("{path}.keys"));
    }
}

/// Keys of an encrypted disk: each in a slot of its own, each of a kind.
pub(super) fn encryption_keys(check: &mut Check<'_>, keys: &[Value], path: &str) {
    let mut slots = std::collections::BTreeSet::new();
    for (at, key) in keys.iter().enumerate() {
        let slot = number(key.at(&["slot"]));
        if !slots.insert(slot) {
            check.error(&format!("{path}[{at}].slot"), format!("slot {slot} is taken already"));
        }
        if !["static", "nodeID", "kms", "tpm"].iter().any(|kind| key.at(&[kind]).is_some()) {
            check.error(&format!("{path}[{at}]"), "needs static, nodeID, kms or tpm");
        }
    }
}

fn logging(check: &mut Check<'_>) {
    let path = "machine.logging.destinations";
    for (at, destination) in check.list(path).iter().enumerate() {
        let endpoint = text(destination, &["endpoint"]);
        let host = ["tcp://", "udp://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme));
        if host.is_none_or(|host| host.is_empty() || host.starts_with(['/', '?'])) {
            check.error(&format!("{path}[{at}].endpoint"), "must be tcp://HOST:PORT or udp://HOST:PORT");
        }
        if text(destination, &["format"]) != "json_lines" {
            check.error(&format!("{path}[{at}].format"), "must be json_lines");
        }
    }
}

fn role(check: &mut Check<'_>) -> Option<Role> {
    match check.text("machine.type") {
        Some("controlplane" | "init") => Some(Role::ControlPlane),
        Some("worker") => Some(Role::Worker),
        None | Some("join") => {
            check.warning("machine.type", "is not given: the machine becomes a worker");
            Some(Role::Worker)
        }
        Some(other) => {
            check.error("machine.type", format!("unknown type '{other}': controlplane or worker"));
            None
        }
    }
}

fn authorities(check: &mut Check<'_>, role: Option<Role>) {
    let (certificate, key) = (check.text("machine.ca.crt").is_some(), check.text("machine.ca.key").is_some());
    let accepted = !check.list("machine.acceptedCAs").is_empty();
    match role {
        Some(Role::ControlPlane) if !key || !certificate => {
            check.error("machine.ca", "a control plane needs Talos' CA with its key");
        }
        Some(Role::Worker) if key => check.error("machine.ca.key", "the CA's key belongs on control planes only"),
        Some(Role::Worker) if !certificate && !accepted => {
            check.error("machine.ca", "a worker needs Talos' CA, or acceptedCAs");
        }
        _ => {}
    }
}

/// Labels, annotations and taints of the node, wherever they are.
pub(super) fn node(check: &mut Check<'_>, [labels, annotations, taints]: [&str; 3]) {
    for (path, values_are_names) in [(labels, true), (annotations, false)] {
        let Some(Value::Map(map)) = check.at(path) else { continue };
        for (key, value) in map.iter() {
            let at = format!("{path}.{key}");
            if !is_qualified_name(key) {
                check.error(&at, format!("'{key}' is no name that Kubernetes accepts"));
            }
            if values_are_names && !value.as_text().is_none_or(is_label_value) {
                check.error(&at, "its value is none that Kubernetes accepts for a label");
            }
        }
    }
    let path = taints;
    let Some(Value::Map(taints)) = check.at(path) else { return };
    for (key, value) in taints.iter() {
        let at = format!("{path}.{key}");
        if !is_qualified_name(key) {
            check.error(&at, format!("'{key}' is no name that Kubernetes accepts"));
        }
        let given = value.as_text().unwrap_or_default();
        let (value, effect) = given.rsplit_once(':').unwrap_or(("", given));
        if !EFFECTS.contains(&effect) {
            check.error(&at, format!("'{effect}' is no effect of a taint: {}", EFFECTS.join(", ")));
        }
        if !is_label_value(value) {
            check.error(&at, "its value is none that Kubernetes accepts for a taint");
        }
    }
}

fn install(check: &mut Check<'_>, mode: Mode) {
    if !check.list("machine.install.extensions").is_empty() {
        check.warning(
            "machine.install.extensions",
            "is deprecated: extensions belong into the image (Image Factory schematic)",
        );
    }
    let mut seen = std::collections::BTreeSet::new();
    for (at, extension) in check.list("machine.install.extensions").iter().enumerate() {
        let image = extension.at(&["image"]).and_then(Value::as_text).unwrap_or_default();
        if !seen.insert(image) {
            check.error(&format!("machine.install.extensions[{at}]"), "is there twice");
        }
    }
    let extra = !check.list("machine.install.extraKernelArgs").is_empty();
    if mode != Mode::Metal {
        return;
    }
    if extra && check.is_true("machine.install.grubUseUKICmdline") {
        check.error(
            "machine.install.extraKernelArgs",
            "can't be used together with grubUseUKICmdline: the kernel arguments of the image count; put them into the \
             schematic, or turn grubUseUKICmdline off",
        );
    }
}

fn disks(check: &mut Check<'_>) {
    for (at, disk) in check.list("machine.disks").iter().enumerate() {
        let partitions = disk.at(&["partitions"]).and_then(Value::as_list).unwrap_or_default();
        for (place, partition) in partitions.iter().enumerate() {
            let size = partition.at(&["size"]);
            let has_size = number(size) != 0 || size.and_then(Value::as_text).is_some_and(|size| !size.is_empty());
            if !has_size && place + 1 < partitions.len() {
                let path = format!("machine.disks[{at}].partitions[{place}]");
                check.error(&path, "only the last partition may do without a size");
            }
        }
    }
}
