//! Schematics: what an image is asked to contain, and the id that follows from it.
//!
//! The id is the SHA-256 of the canonical YAML, which is Go's YAML output of a fixed struct (siderolabs/image-factory,
//! pkg/schematic): block style, four spaces, empty fields left out.

use std::fmt::Write as _;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::Recipe;
use super::catalogue::{self, NotAvailable};

/// Why a schematic was refused; the text is what the factory answers with status 400.
#[derive(Debug, thiserror::Error)]
#[error("yaml: construct errors:\n  line {line}: {what}")]
pub struct BadSchematic {
    /// Line of the text, from 1.
    pub line: u64,
    /// What is wrong there.
    pub what: String,
}

/// A schematic as the factory's strict decoder takes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schematic {
    overlay: Option<Overlay>,
    customization: Option<Customization>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Overlay {
    image: String,
    name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Customization {
    embedded_machine_configuration: Option<String>,
    extra_kernel_args: Option<Vec<String>>,
    meta: Option<Vec<Meta>>,
    system_extensions: Option<SystemExtensions>,
    bootloader: Option<String>,
    secureboot: Option<SecureBoot>,
    disk_image: Option<DiskImage>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Meta {
    key: u8,
    value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct SystemExtensions {
    official_extensions: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct SecureBoot {
    enroll_keys: Option<String>,
    include_well_known_certificates: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct DiskImage {
    sector_size: Option<u32>,
}

impl Schematic {
    /// Parses YAML (or JSON, which is YAML); an empty text is the empty schematic.
    pub fn parse(text: &str) -> Result<Self, BadSchematic> {
        if text.trim().is_empty() || text.trim() == "{}" {
            return Ok(Self::default());
        }
        serde_saphyr::from_str::<Option<Self>>(text).map(Option::unwrap_or_default).map_err(|error| {
            let line = error.location().map_or(1, |at| at.line());
            let text = error.to_string();
            let what = match text.split_once("unknown field `").and_then(|(_, rest)| rest.split_once('`')) {
                Some((field, _)) => format!("field {field} not found in type schematic.Schematic"),
                None => text.lines().next().unwrap_or_default().to_owned(),
            };
            BadSchematic { line, what }
        })
    }

    /// The names of the extensions, in the schematic's order.
    pub fn extensions(&self) -> &[String] {
        let wanted = self.customization.as_ref().and_then(|custom| custom.system_extensions.as_ref());
        wanted.and_then(|wanted| wanted.official_extensions.as_deref()).unwrap_or_default()
    }

    /// The canonical YAML.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        if let Some(overlay) = &self.overlay {
            let _ =
                write!(out, "overlay:\n    image: {}\n    name: {}\n", scalar(&overlay.image), scalar(&overlay.name));
        }
        let custom = self.customization.as_ref().map(Customization::canonical).unwrap_or_default();
        if custom.is_empty() {
            out.push_str("customization: {}\n");
        } else {
            out.push_str("customization:\n");
            out.push_str(&custom);
        }
        out
    }

    /// The id: SHA-256 of the canonical YAML.
    pub fn id(&self) -> String {
        hex::encode(Sha256::digest(self.canonical().as_bytes()))
    }

    /// What an image of this schematic is made from.
    pub fn recipe(&self, version: &str, signing: Signing) -> Result<Recipe, NotAvailable> {
        let extensions =
            self.extensions().iter().map(|name| catalogue::resolve(name, version)).collect::<Result<_, _>>()?;
        Ok(Recipe {
            version: version.to_owned(),
            schematic: self.id(),
            extensions,
            kernel_args: self
                .customization
                .as_ref()
                .and_then(|custom| custom.extra_kernel_args.clone())
                .unwrap_or_default(),
            signed: signing == Signing::SecureBoot,
        })
    }
}

/// Whether the boot files carry a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signing {
    /// They don't.
    Plain,
    /// They do: the `-secureboot` images.
    SecureBoot,
}

impl Customization {
    fn canonical(&self) -> String {
        let mut out = String::new();
        if let Some(config) = self.embedded_machine_configuration.as_ref().filter(|config| !config.is_empty()) {
            let _ = writeln!(out, "    embeddedMachineConfiguration: {}", block(config, 8));
        }
        list(&mut out, 4, "extraKernelArgs", self.extra_kernel_args.as_deref());
        if let Some(meta) = self.meta.as_ref().filter(|meta| !meta.is_empty()) {
            out.push_str("    meta:\n");
            for Meta { key, value } in meta {
                let _ = write!(out, "        - key: {key}\n          value: {}\n", scalar(value));
            }
        }
        let names = self.system_extensions.as_ref().and_then(|wanted| wanted.official_extensions.as_deref());
        if names.is_some_and(|names| !names.is_empty()) {
            out.push_str("    systemExtensions:\n");
            list(&mut out, 8, "officialExtensions", names);
        }
        if let Some(bootloader) = &self.bootloader {
            let _ = writeln!(out, "    bootloader: {bootloader}");
        }
        if let Some(secure) = self.secureboot.as_ref().filter(|secure| **secure != SecureBoot::default()) {
            out.push_str("    secureboot:\n");
            if let Some(enroll) = &secure.enroll_keys {
                let _ = writeln!(out, "        enrollKeys: {}", scalar(enroll));
            }
            if secure.include_well_known_certificates == Some(true) {
                out.push_str("        includeWellKnownCertificates: true\n");
            }
        }
        if let Some(size) = self.disk_image.as_ref().and_then(|image| image.sector_size).filter(|size| *size != 0) {
            let _ = write!(out, "    diskImage:\n        sectorSize: {size}\n");
        }
        out
    }
}

fn list(out: &mut String, indent: usize, key: &str, items: Option<&[String]>) {
    let Some(items) = items.filter(|items| !items.is_empty()) else { return };
    let _ = writeln!(out, "{:indent$}{key}:", "");
    for item in items {
        let _ = writeln!(out, "{:indent$}    - {}", "", scalar(item));
    }
}

/// A string as Go's YAML writes it in a block.
fn scalar(text: &str) -> String {
    let first = text.chars().next().unwrap_or(' ');
    let resolves = text.parse::<f64>().is_ok()
        || ["true", "false", "null", "~", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    if resolves || text.is_empty() {
        return format!("\"{text}\"");
    }
    if text.contains('\n') {
        return block(text, 12);
    }
    let special = "?:,[]{}#&*!|>'\"%@` ".contains(first) || text.starts_with("- ");
    if special || text.contains(": ") || text.contains(" #") || text.ends_with([' ', ':']) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    text.to_owned()
}

fn block(text: &str, indent: usize) -> String {
    let mut out = if text.ends_with('\n') { "|".to_owned() } else { "|-".to_owned() };
    for line in text.lines() {
        out.push('\n');
        if !line.is_empty() {
            let _ = write!(out, "{:indent$}{line}", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_the_real_factory() {
        for (text, id) in [
            ("", "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"),
            ("customization: {}\n", "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba"),
            (
                "customization: {extraKernelArgs: [noapic, nolapic]}",
                "9cba8e32753f91a16c1837ab8abf356af021706ef284aef07380780177d9a06c",
            ),
            (
                "customization:\n  meta:\n  - key: 10\n    value: foo",
                "d308a2a5ee2277bed5fbaa104fcbc8d59122abfa737df987a95b4ca763459a7f",
            ),
            (
                "customization: {secureboot: {includeWellKnownCertificates: true}}",
                "fa8e05f142a851d3ee568eb0a8e5841eaf6b0ebc8df9a63df16ac5ed2c04f3e6",
            ),
            (
                "customization: {diskImage: {sectorSize: 4096}}",
                "92833e9ddd9bb9e11b2464fa5525429f01866306d52ebd882ee08d7918f6d1ea",
            ),
            (
                "overlay: {name: rpi_generic, image: siderolabs/sbc-raspberrypi}",
                "ee21ef4a5ef808a9b7484cc0dda0f25075021691c8c09a276591eedb638ea1f9",
            ),
            (
                r#"{"customization":{"systemExtensions":{"officialExtensions":["siderolabs/qemu-guest-agent"]}}}"#,
                "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515",
            ),
        ] {
            assert_eq!(Schematic::parse(text).unwrap().id(), id, "{text}");
        }
    }

    #[test]
    fn unknown_fields_are_refused_with_their_line() {
        let error = Schematic::parse("customization:\n  extensions: []\n").unwrap_err();
        assert!(error.to_string().contains("line 2: field extensions not found"), "{error}");
    }
}
