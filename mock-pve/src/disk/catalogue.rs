//! The official extensions of each Talos version.

use sha2::{Digest as _, Sha256};

use super::{Extension, minor};

/// An extension that a schematic names and this Talos version doesn't have.
#[derive(Debug, thiserror::Error)]
#[error("official extension \"{name}\" is not available for Talos version {version}")]
pub struct NotAvailable {
    name: String,
    version: String,
}

/// Name, first minor that has it, first that hasn't any more, description.
const EXTENSIONS: &[(&str, u32, u32, &str)] = &[
    ("amd-ucode", 0, 99, "This system extension provides AMD microcode binaries."),
    ("amdgpu", 9, 99, "This system extension provides AMD GPU firmware and kernel modules."),
    ("amdgpu-firmware", 0, 9, "This system extension provides AMD GPU firmware binaries."),
    ("btrfs", 0, 99, "This system extension provides the Btrfs kernel module."),
    ("drbd", 0, 99, "This system extension provides the DRBD kernel modules."),
    ("gvisor", 0, 99, "This system extension provides gVisor using containerd's runtime handler."),
    ("i915", 9, 99, "This system extension provides Intel GPU firmware and kernel modules."),
    ("i915-ucode", 0, 9, "This system extension provides Intel GPU microcode binaries."),
    ("intel-ucode", 0, 99, "This system extension provides Intel microcode binaries."),
    ("iscsi-tools", 0, 99, "This system extension provides iscsi-tools."),
    ("nfs-utils", 0, 99, "This system extension provides rpcbind and rpc.statd."),
    ("nvidia-container-toolkit-lts", 8, 99, "This system extension provides the NVIDIA container toolkit."),
    ("nvidia-open-gpu-kernel-modules-lts", 8, 99, "This system extension provides NVIDIA's open kernel modules."),
    ("nvme-cli", 8, 99, "This system extension provides nvme-cli."),
    ("qemu-guest-agent", 0, 99, "This system extension provides the QEMU guest agent."),
    ("tailscale", 0, 99, "This system extension provides Tailscale."),
    ("thunderbolt", 0, 99, "This system extension provides Thunderbolt support."),
    ("util-linux-tools", 0, 99, "This system extension provides linux utilities."),
    ("zfs", 0, 99, "This system extension provides the ZFS kernel module."),
];

/// Names that changed; the old one still works where the new one exists, never the other way round.
const ALIASES: &[(&str, &str)] = &[
    ("nvidia-container-toolkit", "nvidia-container-toolkit-lts"),
    ("nvidia-open-gpu-kernel-modules", "nvidia-open-gpu-kernel-modules-lts"),
    ("i915-ucode", "i915"),
    ("amdgpu-firmware", "amdgpu"),
];

/// All official extensions of a Talos version (`v1.13.9`), sorted by name.
pub fn official(version: &str) -> Vec<Extension> {
    EXTENSIONS
        .iter()
        .filter(|(_, since, until, _)| (*since..*until).contains(&minor(version)))
        .map(|(name, _, _, description)| Extension {
            name: format!("siderolabs/{name}"),
            version: own_version(name, version),
            author: "Sidero Labs".to_owned(),
            description: (*description).to_owned(),
        })
        .collect()
}

/// The extension that a schematic's name stands for in a Talos version.
pub fn resolve(name: &str, version: &str) -> Result<Extension, NotAvailable> {
    let all = official(version);
    let find = |wanted: &str| all.iter().find(|extension| extension.name == wanted).cloned();
    let alias = || {
        let (_, new) = ALIASES.iter().find(|(old, _)| name.strip_prefix("siderolabs/") == Some(*old))?;
        find(&format!("siderolabs/{new}"))
    };
    find(name).or_else(alias).ok_or_else(|| NotAvailable { name: name.to_owned(), version: version.to_owned() })
}

/// Every Talos version pins its own build of an extension, so versions differ between them.
fn own_version(name: &str, talos: &str) -> String {
    match name {
        "qemu-guest-agent" => format!("{}.0.{}", 9 + minor(talos) / 13, minor(talos) % 5),
        "iscsi-tools" => "v0.2.0".to_owned(),
        "util-linux-tools" => "2.41.2".to_owned(),
        _ => talos.to_owned(),
    }
}

/// The digest of an extension's image, made up from its name and version.
pub fn digest(extension: &Extension) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(format!("{} {}", extension.name, extension.version))))
}
