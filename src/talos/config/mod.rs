//! Machine configurations: generated, patched and rendered as the real generator of each Talos version does.
//!
//! Purpose: from secrets and an [`Input`], the ordered documents of one machine. Pure: no files, no clock, no network.
//! Must not know: profiles, plans or how a configuration is applied. Start with [`render`], which is [`generate`] with patches.

mod contract;
mod decode;
mod delete;
mod diff;
mod documents;
mod generate;
mod images;
mod input;
mod json;
mod json_patch;
mod merge;
pub mod migrate;
mod network;
mod patch;
mod patch_error;
mod render;
mod schema;
mod url;
pub mod validate;
pub mod yaml;

use std::fmt;

use secrecy::SecretString;

pub use contract::{Contract, Feature};
pub use decode::{ConfigError, Wrong};
pub use diff::{Difference, differences};
pub use generate::generate;
pub use input::{Cni, Input, InputError, LegacyEncryption, Mirror, Switch};
pub use json_patch::OperationError;
pub use merge::MergeError;
pub use network::Network;
pub use patch::Patch;
pub use patch_error::PatchError;
pub use render::{Machine, Rendered, render};
pub use url::{Url, UrlError};
use yaml::{Map, Value};

/// The documents of one machine, in order. Secret: `Debug` shows their kinds only.
#[derive(Clone, PartialEq, Default)]
pub struct Config {
    documents: Vec<Value>,
}

impl Config {
    fn push(&mut self, document: Map) {
        self.documents.push(Value::Map(document));
    }

    /// The documents in order.
    pub fn documents(&self) -> &[Value] {
        &self.documents
    }

    /// The text of all documents, as it is applied.
    pub fn to_yaml(&self) -> SecretString {
        let layout = if self.is_of_documents() { yaml::Layout::Talos } else { yaml::Layout::EarlierTalos };
        let written = |document: &Value| {
            let mut document = document.clone();
            let kind = kind_of(&document).to_owned();
            if let Value::Map(map) = &mut document {
                schema::bare(&kind, map);
            }
            yaml::document_in(&document, layout)
        };
        self.documents.iter().map(written).collect::<Vec<_>>().join("---\n").into()
    }

    /// The text with all keys sorted and kubectl's layout: what the real `machineconfig patch` writes after a JSON patch.
    pub fn to_sorted_yaml(&self) -> SecretString {
        let documents: Vec<String> = self
            .documents
            .iter()
            .map(|document| {
                let mut document = document.clone();
                schema::sort_value(&mut document);
                yaml::document_in(&document, yaml::Layout::Kubectl)
            })
            .collect();
        documents.join("---\n").into()
    }
}

/// A document's kind; the one without is `v1alpha1`.
fn kind_of(document: &Value) -> &str {
    document.at(&["kind"]).and_then(Value::as_text).unwrap_or("v1alpha1")
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.documents.iter().map(kind_of)).finish()
    }
}
