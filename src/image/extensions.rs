//! Compares a schematic's extensions with those that a Talos version can have.
//!
//! Purpose: the factory takes a schematic with any names and fails only when an image is asked for; we say so before, and
//! which name was probably meant.
//! Must not know: networks.

use super::factory::Extension;
use crate::types::Version;

/// Old names that the factory still resolves (siderolabs/image-factory, `internal/artifacts`). One way: a new name on an
/// old Talos fails. The schematic keeps the name it has, since its ID depends on it.
const ALIASES: &[(&str, &str)] = &[
    ("siderolabs/v4l-uvc", "siderolabs/v4l-uvc-drivers"),
    ("siderolabs/usb-modem", "siderolabs/usb-modem-drivers"),
    ("siderolabs/gasket", "siderolabs/gasket-driver"),
    ("siderolabs/talos-vmtoolsd", "siderolabs/vmtoolsd-guest-agent"),
    ("siderolabs/xe-guest-utilities", "siderolabs/xen-guest-agent"),
    ("siderolabs/nvidia-container-toolkit", "siderolabs/nvidia-container-toolkit-lts"),
    ("siderolabs/nvidia-open-gpu-kernel-modules", "siderolabs/nvidia-open-gpu-kernel-modules-lts"),
    ("siderolabs/nonfree-kmod-nvidia", "siderolabs/nonfree-kmod-nvidia-lts"),
    ("siderolabs/nvidia-fabricmanager", "siderolabs/nvidia-fabric-manager-lts"),
    ("siderolabs/i915-ucode", "siderolabs/i915"),
    ("siderolabs/amdgpu-firmware", "siderolabs/amdgpu"),
];

/// How alike two names must be for one to be offered for the other, 0 to 1.
const ALIKE: f64 = 0.8;

/// An extension that a version doesn't have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Talos {version} has no extension '{name}'{}", nearest.as_ref().map_or_else(String::new, |near| format!("; did you mean '{near}'?")))]
pub struct UnknownExtension {
    /// The name in the schematic.
    pub name: String,
    /// The version.
    pub version: Version,
    /// The name that is most like it, if any is.
    pub nearest: Option<String>,
}

/// The wanted extensions that this version doesn't have, in their order. Old names of existing ones count as theirs.
pub fn check_extensions(wanted: &[String], version: &Version, available: &[Extension]) -> Vec<UnknownExtension> {
    let has = |name: &str| available.iter().any(|extension| extension.name == name);
    let known = |name: &str| has(name) || ALIASES.iter().any(|(old, new)| *old == name && has(new));
    let missing = wanted.iter().filter(|name| !known(name));
    missing
        .map(|name| UnknownExtension {
            name: name.clone(),
            version: version.clone(),
            nearest: nearest(name, available),
        })
        .collect()
}

fn nearest(name: &str, available: &[Extension]) -> Option<String> {
    fn bare(name: &str) -> &str {
        name.rsplit('/').next().unwrap_or(name)
    }
    let rated = available
        .iter()
        .map(|extension| (strsim::jaro_winkler(&bare(name).to_ascii_lowercase(), bare(&extension.name)), extension));
    let best = rated.filter(|(likeness, _)| *likeness >= ALIKE).max_by(|one, other| one.0.total_cmp(&other.0));
    best.map(|(_, extension)| extension.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_extension_is_named_with_the_one_that_was_meant() {
        let available: Vec<Extension> = ["siderolabs/qemu-guest-agent", "siderolabs/iscsi-tools", "siderolabs/i915"]
            .map(|name| serde_json::from_value(serde_json::json!({ "name": name })).unwrap())
            .into();
        let check = |wanted: &str| {
            let missing = check_extensions(&[wanted.to_owned()], &Version::new(1, 13, 9), &available);
            missing.first().map(ToString::to_string)
        };
        assert_eq!(check("siderolabs/qemu-guest-agent"), None);
        assert_eq!(check("siderolabs/i915-ucode"), None, "an old name of an existing extension");
        let expected = "Talos 1.13.9 has no extension 'qemu-guest-agnet'; did you mean 'siderolabs/qemu-guest-agent'?";
        assert_eq!(check("qemu-guest-agnet").as_deref(), Some(expected));
        assert_eq!(check("siderolabs/zfs").as_deref(), Some("Talos 1.13.9 has no extension 'siderolabs/zfs'"));
    }
}
