//! The `machine` half of the main document.

use super::names::{is_label_value, is_qualified_name};
use super::{Check, Mode, network};
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
    names(check);
    if let Some(Value::Map(extra)) = check.at("machine.kubelet.extraConfig") {
        for key in extra.keys().filter(|key| KUBELET_OWN.contains(key)) {
            check.error(&format!("machine.kubelet.extraConfig.{key}"), "is set by Talos itself and can't be changed");
        }
    }
    install(check, mode);
    disks(check);
    network::interfaces(check, role);
    if role == Some(Role::Worker) && check.is_true("machine.features.kubernetesTalosAPIAccess.enabled") {
        check.error("machine.features.kubernetesTalosAPIAccess", "is for control planes only");
    }
    role
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

fn names(check: &mut Check<'_>) {
    for (path, values_are_names) in [("machine.nodeLabels", true), ("machine.nodeAnnotations", false)] {
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
    let Some(Value::Map(taints)) = check.at("machine.nodeTaints") else { return };
    for (key, value) in taints.iter() {
        let at = format!("machine.nodeTaints.{key}");
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
        for (number, partition) in partitions.iter().enumerate() {
            let has_size =
                partition.at(&["size"]).is_some_and(|size| *size != Value::Null && size.as_text() != Some("0"));
            if !has_size && number + 1 < partitions.len() {
                let path = format!("machine.disks[{at}].partitions[{number}]");
                check.error(&path, "only the last partition may do without a size");
            }
        }
    }
}
