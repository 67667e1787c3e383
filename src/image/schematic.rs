//! What an image is made from, and its ID computed here.
//!
//! Purpose: the Image Factory names a schematic by the SHA-256 of its canonical YAML (siderolabs/image-factory,
//! `pkg/schematic`): computing it locally lets a plan be made, and a lock be compared, without asking.
//! Must not know: networks. The factory has the last word: it gets the schematic once anyway, and answers with the ID.
//!
//! The canonical form is written by hand: fixed order of keys, four spaces, only what isn't empty. How that YAML library
//! quotes is not reproduced: a text that would need quotes makes the ID [`NotLocal`], and the factory's answer counts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::types::{SchematicId, Sha256};

/// What an image is made from, beyond platform and version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schematic {
    /// Board support; not for virtual machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<Overlay>,
    /// Everything else.
    #[serde(default)]
    pub customization: Customization,
}

/// Board support.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overlay {
    /// Image of the overlay.
    pub image: String,
    /// Its name in that image.
    pub name: String,
    /// Options, as the overlay defines them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, serde_json::Value>,
}

/// What differs from a plain image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Customization {
    /// A machine configuration in the image (Talos 1.12 and later).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub embedded_machine_configuration: String,
    /// Kernel arguments, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_kernel_args: Vec<String>,
    /// Initial values of the META partition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub meta: Vec<Meta>,
    /// System extensions.
    #[serde(skip_serializing_if = "is_default")]
    pub system_extensions: SystemExtensions,
    /// The boot loader; the factory chooses when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootloader: Option<Bootloader>,
    /// Secure Boot.
    #[serde(skip_serializing_if = "is_default")]
    pub secureboot: SecureBoot,
    /// The disk's geometry.
    #[serde(skip_serializing_if = "is_default")]
    pub disk_image: DiskImage,
}

/// One initial value of the META partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// The tag.
    pub key: u8,
    /// Its value.
    pub value: String,
}

/// System extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SystemExtensions {
    /// Names such as `siderolabs/qemu-guest-agent`. Their order changes the ID.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub official_extensions: Vec<String>,
}

/// The boot loader of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bootloader {
    /// For BIOS and UEFI, with the kernel on the disk twice.
    DualBoot,
    /// UEFI only.
    SdBoot,
    /// For BIOS and UEFI.
    Grub,
}

/// Secure Boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct SecureBoot {
    /// When the keys are enrolled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enroll_keys: Option<EnrollKeys>,
    /// Whether Microsoft's certificates are enrolled as well.
    #[serde(skip_serializing_if = "is_default")]
    pub include_well_known_certificates: bool,
}

/// When Secure Boot keys are enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EnrollKeys {
    /// Never.
    Off,
    /// When chosen in the boot menu.
    Manual,
    /// In virtual machines.
    IfSafe,
    /// Always.
    Force,
}

/// The disk's geometry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DiskImage {
    /// Bytes of a sector, 512 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sector_size: Option<u32>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Why a text is no schematic.
#[derive(Debug, thiserror::Error)]
#[error("not a schematic")]
pub struct SchematicError(#[source] Box<serde_saphyr::Error>);

/// Why an ID isn't computed locally.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ID of a schematic with {what} is only known to the factory")]
pub struct NotLocal {
    /// What stands in the way, as a noun phrase.
    pub what: String,
}

impl Schematic {
    /// A schematic of extensions alone; sorted and without repetition, so that equal sets have equal IDs.
    pub fn with_extensions(names: impl IntoIterator<Item = String>) -> Self {
        let mut schematic = Self::default();
        let extensions = &mut schematic.customization.system_extensions.official_extensions;
        extensions.extend(names);
        extensions.sort();
        extensions.dedup();
        schematic
    }

    /// Reads a schematic as a user wrote it; unknown keys are refused, as the factory does.
    pub fn from_yaml(text: &str) -> Result<Self, SchematicError> {
        serde_saphyr::from_str(text).map_err(|error| SchematicError(Box::new(error)))
    }

    /// The ID: SHA-256 of the canonical form.
    pub fn id(&self) -> Result<SchematicId, NotLocal> {
        Ok(SchematicId::new(Sha256::of(self.canonical()?.as_bytes()).to_string()))
    }

    /// The canonical YAML.
    pub fn canonical(&self) -> Result<String, NotLocal> {
        let mut out = String::new();
        if let Some(Overlay { image, name, options }) = &self.overlay {
            if !options.is_empty() {
                return Err(NotLocal { what: "overlay options".to_owned() });
            }
            line(&mut out, format_args!("overlay:"));
            line(&mut out, format_args!("    image: {}", plain(image)?));
            line(&mut out, format_args!("    name: {}", plain(name)?));
        }
        if is_default(&self.customization) {
            line(&mut out, format_args!("customization: {{}}"));
        } else {
            line(&mut out, format_args!("customization:"));
            self.customization.write(&mut out)?;
        }
        Ok(out)
    }

    /// What is sent to the factory: the canonical form, or JSON (which is YAML) where that isn't known.
    pub(super) fn body(&self) -> String {
        self.canonical().unwrap_or_else(|_| serde_json::to_string(self).unwrap_or_default())
    }
}

impl Customization {
    fn write(&self, out: &mut String) -> Result<(), NotLocal> {
        if !self.embedded_machine_configuration.is_empty() {
            return Err(NotLocal { what: "an embedded machine configuration".to_owned() });
        }
        list(out, "    ", "extraKernelArgs", &self.extra_kernel_args)?;
        if !self.meta.is_empty() {
            line(out, format_args!("    meta:"));
        }
        for Meta { key, value } in &self.meta {
            line(out, format_args!("        - key: {key}"));
            line(out, format_args!("          value: {}", plain(value)?));
        }
        if !is_default(&self.system_extensions) {
            line(out, format_args!("    systemExtensions:"));
            list(out, "        ", "officialExtensions", &self.system_extensions.official_extensions)?;
        }
        if let Some(bootloader) = self.bootloader {
            let name = match bootloader {
                Bootloader::DualBoot => "dual-boot",
                Bootloader::SdBoot => "sd-boot",
                Bootloader::Grub => "grub",
            };
            line(out, format_args!("    bootloader: {name}"));
        }
        if !is_default(&self.secureboot) {
            line(out, format_args!("    secureboot:"));
            match self.secureboot.enroll_keys {
                // The name is also a truth value, which YAML libraries quote.
                Some(EnrollKeys::Off) => return Err(NotLocal { what: "the text 'off'".to_owned() }),
                Some(EnrollKeys::Manual) => line(out, format_args!("        enrollKeys: manual")),
                Some(EnrollKeys::IfSafe) => line(out, format_args!("        enrollKeys: if-safe")),
                Some(EnrollKeys::Force) => line(out, format_args!("        enrollKeys: force")),
                None => {}
            }
            if self.secureboot.include_well_known_certificates {
                line(out, format_args!("        includeWellKnownCertificates: true"));
            }
        }
        if let Some(bytes) = self.disk_image.sector_size.filter(|bytes| *bytes != 0) {
            line(out, format_args!("    diskImage:"));
            line(out, format_args!("        sectorSize: {bytes}"));
        }
        Ok(())
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(out, "{text}");
}

fn list(out: &mut String, indent: &str, key: &str, items: &[String]) -> Result<(), NotLocal> {
    if !items.is_empty() {
        line(out, format_args!("{indent}{key}:"));
    }
    for item in items {
        line(out, format_args!("{indent}    - {}", plain(item)?));
    }
    Ok(())
}

/// The text, if any YAML library writes it without quotes.
fn plain(text: &str) -> Result<&str, NotLocal> {
    const WORDS: &[&str] = &["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"];
    let starts_safely = text.starts_with(|first: char| first.is_ascii_alphabetic() || "/_".contains(first));
    let printable = text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let structural = text.contains(": ") || text.contains(" #") || text.ends_with([':', ' ']);
    if starts_safely && printable && !structural && !WORDS.contains(&text.to_ascii_lowercase().as_str()) {
        Ok(text)
    } else {
        Err(NotLocal { what: format!("the text '{}'", text.escape_debug()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(yaml: &str) -> String {
        Schematic::from_yaml(yaml).unwrap().id().unwrap().to_string()
    }

    #[test]
    fn ids_are_those_of_the_factory() {
        for (yaml, expected) in [
            ("customization: {}\n", "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"),
            (
                "customization:\n    extraKernelArgs:\n        - noapic\n        - nolapic\n",
                "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c",
            ),
            (
                "customization:\n    meta:\n        - key: 10\n          value: foo\n",
                "d308a2a5ee2277bed5fbaa104fcbc8d59122abfa737df987a95b4ca763459a7f",
            ),
            (
                "customization:\n    secureboot:\n        includeWellKnownCertificates: true\n",
                "fa8e05f142a851d3ee568eb0a8e5841eaf6b0ebc8df9a63df16ac5ed2c04f3e6",
            ),
            (
                "customization:\n    diskImage:\n        sectorSize: 4096\n",
                "92833e9ddd9bb9e11b2464fa5525429f01866306d52ebd882ee08d7918f6d1ea",
            ),
            (
                "overlay:\n    image: siderolabs/sbc-raspberrypi\n    name: rpi_generic\ncustomization: {}\n",
                "ee21ef4a5ef808a9b7484cc0dda0f25075021691c8c09a276591eedb638ea1f9",
            ),
        ] {
            assert_eq!(id(yaml), expected);
            assert_eq!(Schematic::from_yaml(yaml).unwrap().canonical().unwrap(), yaml);
        }
    }

    #[test]
    fn extensions_in_any_order_have_the_same_id() {
        let id = |names: &[&str]| {
            Schematic::with_extensions(names.iter().map(|name| format!("siderolabs/{name}"))).id().unwrap().to_string()
        };
        assert_eq!(id(&["qemu-guest-agent"]), "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515");
        let two = "dc7b152cb3ea99b821fcb7340ce7168313ce393d663740b791c36f6e95fc8586";
        assert_eq!(id(&["iscsi-tools", "qemu-guest-agent"]), two);
        assert_eq!(id(&["qemu-guest-agent", "iscsi-tools", "qemu-guest-agent"]), two);
        assert_eq!(
            id(&["util-linux-tools", "iscsi-tools", "qemu-guest-agent"]),
            "88d1f7a5c4f1d3aba7df787c448c1d3d008ed29cfb34af53fa0df4336a56040b"
        );
        assert_eq!(id(&[]), "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");
    }

    #[test]
    fn spelling_doesnt_matter_but_order_does() {
        let canonical = "customization:\n    extraKernelArgs:\n        - noapic\n        - nolapic\n";
        assert_eq!(
            id("{customization: {systemExtensions: {}, extraKernelArgs: [noapic, \"nolapic\"]}}"),
            id(canonical)
        );
        assert_ne!(id("customization: {extraKernelArgs: [nolapic, noapic]}"), id(canonical));
    }

    #[test]
    fn what_needs_quotes_is_left_to_the_factory() {
        for text in ["", "-selinux", "on", "Null", "1e3", "a: b", "a #b", "a ", "ends:", "line\nline", "é", "'x'", "@x"]
        {
            let mut schematic = Schematic::default();
            schematic.customization.extra_kernel_args = vec![text.to_owned()];
            assert!(schematic.id().is_err(), "{text:?} was taken as plain");
            let sent = Schematic::from_yaml(&schematic.body()).unwrap();
            assert_eq!(sent, schematic, "{text:?} is sent as another text");
        }
        for text in ["console=ttyS0,115200", "talos.platform=nocloud", "net.ifnames=0", "a:b", "/dev/sda"] {
            assert!(plain(text).is_ok(), "{text:?} was not taken as plain");
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = Schematic::from_yaml("customization: {systemExtension: {}}").unwrap_err();
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("systemExtension"));
    }
}
