//! Why a patch cannot be read or applied.
//!
//! Must not know: how patches are applied.

use super::decode::{self, Wrong};
use super::json_patch::OperationError;
use super::merge::MergeError;
use super::yaml::{Spot, YamlError};

/// A patch that cannot be read or applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The text is no YAML.
    #[error("patch {origin} is not readable as YAML")]
    Yaml {
        /// Where the patch came from.
        origin: String,
        /// What is wrong with it.
        #[source]
        source: YamlError,
    },
    /// A JSON patch for a configuration of several documents.
    #[error(
        "patch {origin}, {spot}, path '{path}': this is a JSON patch, which cannot change a configuration of several \
         documents (every one has several since Talos 1.12); write it as a strategic merge patch: the part of the \
         configuration as it should be"
    )]
    JsonPatch {
        /// Where the patch came from.
        origin: String,
        /// Where its first operation stands.
        spot: Spot,
        /// The path of that operation.
        path: String,
    },
    /// Nothing at all, which is a JSON patch without operations.
    #[error("patch {origin} has nothing in it: leave it out, or write the part of the configuration as it should be")]
    Empty {
        /// Where the patch came from.
        origin: String,
    },
    /// What a JSON patch cannot change.
    #[error(
        "patch {origin} is a JSON patch, and the configuration has something in it that JSON has not (a key that is no \
         text, .inf or .nan): quote it, or write a strategic merge patch"
    )]
    NoJson {
        /// Where the patch came from.
        origin: String,
    },
    /// What no path leads into.
    #[error("patch {origin} is a JSON patch, and the configuration is {kind}: it must be a mapping")]
    NoMapping {
        /// Where the patch came from.
        origin: String,
        /// What the configuration is.
        kind: &'static str,
    },
    /// What is lost on the way back from JSON.
    #[error(
        "after JSON patch {origin} the configuration has {what} at {path}, which is not read again: leave it out, or \
         write a strategic merge patch"
    )]
    Unreadable {
        /// Where the patch came from.
        origin: String,
        /// Where, as a pointer.
        path: String,
        /// What.
        what: &'static str,
    },
    /// A JSON patch that cannot be read or carried out.
    #[error("JSON patch {origin} cannot be applied")]
    Operation {
        /// Where the patch came from.
        origin: String,
        /// Why.
        #[source]
        source: OperationError,
    },
    /// Documents that no configuration could have.
    #[error("patch {origin}, {}", decode::shown(.wrong))]
    Documents {
        /// Where the patch came from.
        origin: String,
        /// Everything that is wrong with them.
        wrong: Vec<Wrong>,
    },
    /// What a JSON patch made of the configuration is none any more.
    #[error("after patch {origin} the configuration is none any more: {}", decode::shown(.wrong))]
    Result {
        /// Where the patch came from.
        origin: String,
        /// Everything that is wrong with it.
        wrong: Vec<Wrong>,
    },
    /// Documents that exclude each other.
    #[error("with patch {origin} the configuration has {what}")]
    Conflict {
        /// Where the patch came from.
        origin: String,
        /// Which ones.
        what: String,
    },
    /// The patch does not fit what it patches.
    #[error("patch {origin}, {spot}, does not fit document {document}")]
    Merge {
        /// Where the patch came from.
        origin: String,
        /// The document's kind, with its name.
        document: String,
        /// Where in the patch.
        spot: Spot,
        /// Why.
        #[source]
        source: MergeError,
    },
}
