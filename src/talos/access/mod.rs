//! The way in: an administrator's certificate for Talos, and the files in which talosctl and kubectl keep theirs.
//!
//! Purpose: issue the certificate from the cluster's authority, and change `talosconfig` and kubeconfig files without
//! touching what belongs to other clusters. The functions on texts are pure; `file.rs` alone writes. Must not know: which
//! files a user has, or profiles. Start with [`AdminCertificate`], [`talosconfig`] and [`kubeconfig`].

mod admin;
mod file;
pub mod kubeconfig;
mod splice;
pub mod talosconfig;

use std::io;
use std::path::PathBuf;

pub use admin::{AdminCertificate, Roles, YEAR_HOURS};
pub use file::{Written, write_private};

use super::config::yaml::YamlError;
use super::secrets::SecretsError;

/// What can go wrong with certificates and access files. Never holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file is no YAML.
    #[error("{what} is not readable as YAML")]
    Yaml {
        /// Which file.
        what: &'static str,
        /// What is wrong with it.
        #[source]
        source: YamlError,
    },
    /// A file is YAML and not what it should be.
    #[error("{what} is not what it should be: {why}")]
    Shape {
        /// Which file.
        what: &'static str,
        /// What is missing or wrong.
        why: String,
    },
    /// A certificate could not be issued.
    #[error("the administrator's certificate could not be issued")]
    Certificate(#[source] SecretsError),
    /// A file could not be read or written.
    #[error("{path} could not be written")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
