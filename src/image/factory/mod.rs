//! Asks the Image Factory: what versions there are, what extensions, which image, how large.
//!
//! Purpose: everything about an image that must be known, and refused with the reason, before anything is touched. A
//! first request builds what it asks for, which takes minutes: asking early also warms the factory up.
//! Must not know: caches, profiles, retry policies ([`FactoryError::is_transient`] says what may be asked again).
//!
//! Facts: siderolabs/image-factory, `internal/frontend/http`. Every request carries an `X-Request-ID`, which the factory
//! echoes and logs; errors show it.

mod client;
mod error;

pub use client::{Factory, installer_name};
pub use error::FactoryError;

use serde::Deserialize;

use crate::types::{SchematicId, Version};

/// The processor architecture of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Arch {
    /// `x86_64`.
    #[default]
    Amd64,
    /// `aarch64`.
    Arm64,
}

/// How an image boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Boot {
    /// As its schematic says.
    #[default]
    Plain,
    /// Signed for Secure Boot.
    Secure,
}

/// How a disk image is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `.raw.xz`: the smallest, with checks in it, and of all the one that a factory most likely has already.
    RawXz,
    /// `.qcow2`: what Proxmox VE imports as it is.
    Qcow2,
}

/// What the factory is asked to build: a disk image and the installer that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// What it is made from.
    pub schematic: SchematicId,
    /// The Talos version in it.
    pub version: Version,
    /// For which processors.
    pub arch: Arch,
    /// How it boots.
    pub boot: Boot,
}

/// An extension that can go into an image of one Talos version.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Extension {
    /// Its name in schematics, `siderolabs/qemu-guest-agent`.
    pub name: String,
    /// Its image with tag.
    #[serde(rename = "ref", default)]
    pub reference: String,
    /// Digest of that image.
    #[serde(default)]
    pub digest: String,
    /// Who maintains it.
    #[serde(default)]
    pub author: String,
    /// What it does.
    #[serde(default)]
    pub description: String,
}

/// A schematic that the factory knows now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Its ID, as the factory says.
    pub id: SchematicId,
    /// The canonical YAML; factories before 1.3 don't send it.
    pub canonical: Option<String>,
    /// The ID as computed here, where that can be done. Where the two differ the factory is right.
    pub local: Option<SchematicId>,
}

/// What a HEAD of a disk image told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageHead {
    /// Size of the file in bytes.
    pub bytes: u64,
    /// Name and version of the factory, where it says.
    pub server: Option<String>,
}

/// What a HEAD of an installer's manifest told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallerHead {
    /// Digest of the manifest, `sha256:…`, where the registry says.
    pub digest: Option<String>,
}

#[cfg(test)]
mod tests;
