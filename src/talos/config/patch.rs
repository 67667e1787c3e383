//! Patches as users write them: configuration documents that are merged into a configuration.
//!
//! Also lists of JSON patch operations, for configurations of one document. Must not know: files; the caller reads them
//! and says where the text came from.

use super::json_patch::{self, Operation, OperationError};
use super::merge::{self, MergeError};
use super::yaml::{Document, Map, Value, YamlError, read};
use super::{Config, kind_of, schema};

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
        "patch {origin} is a JSON patch, which cannot change a configuration of several documents (every one has \
         several since Talos 1.12); write it as a strategic merge patch: the part of the configuration as it should be"
    )]
    JsonPatch {
        /// Where the patch came from.
        origin: String,
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
    /// A kind that no Talos knows.
    #[error("patch {origin}, line {line}: unknown kind '{kind}'{}", hint(.nearest.as_deref()))]
    UnknownKind {
        /// Where the patch came from.
        origin: String,
        /// Its line.
        line: usize,
        /// The kind.
        kind: String,
        /// The kind that was probably meant.
        nearest: Option<String>,
    },
    /// A document that is no mapping.
    #[error("patch {origin}, line {line}: a patch must be a mapping, this is {found}")]
    Shape {
        /// Where the patch came from.
        origin: String,
        /// The line.
        line: usize,
        /// What stands there.
        found: &'static str,
    },
    /// A key that the main document does not have.
    #[error("patch {origin}, line {line}: unknown key {key}{}", hint(.nearest.as_deref()))]
    UnknownKey {
        /// Where the patch came from.
        origin: String,
        /// Its line.
        line: usize,
        /// The key, with the path to it.
        key: String,
        /// The key that was probably meant.
        nearest: Option<String>,
    },
    /// A document with an `apiVersion` and no `kind`.
    #[error("patch {origin}, line {line}: a document with apiVersion needs a kind")]
    NoKind {
        /// Where the patch came from.
        origin: String,
        /// Its line.
        line: usize,
    },
    /// The patch does not fit what it patches.
    #[error("patch {origin} does not fit document {document} at line {line}")]
    Merge {
        /// Where the patch came from.
        origin: String,
        /// The document's kind, with its name.
        document: String,
        /// The line in the patch.
        line: usize,
        /// Why.
        #[source]
        source: MergeError,
    },
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!(", did you mean '{nearest}'?"))
}

/// A patch: one or more documents, or a list of operations.
#[derive(Clone, Debug)]
pub struct Patch {
    origin: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Merge(Vec<Document>),
    Json(Vec<Operation>),
}

impl Patch {
    /// Reads a patch; `origin` names it in errors (a file, a key of the profile).
    ///
    /// # Errors
    /// When the text is no YAML and no patch, or has a kind or a key that no configuration has.
    pub fn parse(text: &str, origin: &str) -> Result<Self, PatchError> {
        let origin = origin.to_owned();
        let documents = match read(text) {
            Ok(documents) => documents,
            Err(source) => return Err(PatchError::Yaml { origin, source }),
        };
        if let [document] = &documents[..]
            && let Value::List(list) = &document.root
            && json_patch::is_patch(&document.root)
        {
            return match json_patch::parse(list) {
                Ok(operations) => Ok(Self { origin, content: Content::Json(operations) }),
                Err(source) => Err(PatchError::Operation { origin, source }),
            };
        }
        for document in &documents {
            check(document, &origin)?;
        }
        Ok(Self { origin, content: Content::Merge(documents) })
    }

    /// A patch made by this program.
    pub(super) fn made(origin: &str, documents: Vec<Map>) -> Self {
        let documents = documents
            .into_iter()
            .map(|map| Document { root: Value::Map(map), line: 1, marks: super::yaml::Marks::default() })
            .collect();
        Self { origin: origin.to_owned(), content: Content::Merge(documents) }
    }

    fn documents(&self) -> &[Document] {
        match &self.content {
            Content::Merge(documents) => documents,
            Content::Json(_) => &[],
        }
    }

    /// Where the patch came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether this is a list of JSON patch operations.
    pub fn is_json(&self) -> bool {
        matches!(self.content, Content::Json(_))
    }

    /// Whether the patch gives machines a host name of the user's choice.
    pub fn sets_hostname(&self) -> bool {
        self.documents().iter().any(|document| {
            document.root.at(&["machine", "network", "hostname"]).is_some()
                || kind_of(&document.root) == "HostnameConfig"
        })
    }

    /// Whether the patch configures network links itself: then none should be generated beside it.
    pub fn sets_links(&self) -> bool {
        let kinds = ["LinkConfig", "DHCPv4Config", "DHCPv6Config", "BondConfig", "BridgeConfig", "VLANConfig"];
        self.documents().iter().any(|document| {
            document.root.at(&["machine", "network", "interfaces"]).is_some()
                || kinds.contains(&kind_of(&document.root))
        })
    }
}

/// Whether a document could belong to a configuration.
fn check(document: &Document, origin: &str) -> Result<(), PatchError> {
    let (origin, line) = (origin.to_owned(), document.line);
    let Value::Map(map) = &document.root else {
        return Err(PatchError::Shape { origin, line, found: document.root.kind() });
    };
    let at = |key: &str| document.marks.line(key).unwrap_or(line);
    match map.get("kind").and_then(Value::as_text) {
        Some(kind) if schema::knows_kind(kind) => Ok(()),
        Some(kind) => Err(PatchError::UnknownKind {
            origin,
            line: at("kind"),
            kind: kind.to_owned(),
            nearest: schema::nearest_kind(kind),
        }),
        None if map.get("apiVersion").is_some() => Err(PatchError::NoKind { origin, line }),
        None => match schema::unknown_key(map) {
            Some(unknown) => Err(PatchError::UnknownKey {
                origin,
                line: at(&unknown.path),
                key: unknown.path,
                nearest: unknown.nearest,
            }),
            None => Ok(()),
        },
    }
}

/// What documents are matched by.
fn identity(document: &Value) -> (Option<&str>, &str, Option<&str>) {
    let text = |key| document.at(&[key]).and_then(Value::as_text);
    (text("apiVersion"), kind_of(document), text("name"))
}

/// A document's kind, with its name.
fn shown(document: &Value) -> String {
    let (_, kind, name) = identity(document);
    name.map_or_else(|| kind.to_owned(), |name| format!("{kind}/{name}"))
}

impl Config {
    /// Reads the documents of a configuration.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        Ok(Self { documents: read(text)?.into_iter().map(|document| document.root).collect() })
    }

    /// Applies the documents of a patch one after the other.
    ///
    /// # Errors
    /// When one does not fit; the configuration is then half patched and must be thrown away.
    pub fn apply(&mut self, patch: &Patch) -> Result<(), PatchError> {
        let origin = || patch.origin.clone();
        match &patch.content {
            Content::Json(operations) => {
                let [only] = &mut self.documents[..] else {
                    return Err(PatchError::JsonPatch { origin: origin() });
                };
                json_patch::apply(only, operations)
                    .map_err(|source| PatchError::Operation { origin: origin(), source })?;
            }
            Content::Merge(documents) => {
                for document in documents {
                    self.apply_document(document).map_err(|source| PatchError::Merge {
                        origin: origin(),
                        document: shown(&document.root),
                        line: document.line,
                        source,
                    })?;
                }
            }
        }
        for document in &mut self.documents {
            let kind = kind_of(document).to_owned();
            if let Value::Map(map) = document {
                schema::arrange(&kind, map);
            }
        }
        Ok(())
    }

    fn apply_document(&mut self, patch: &Document) -> Result<(), MergeError> {
        let Value::Map(map) = &patch.root else { return Ok(()) };
        let kind = kind_of(&patch.root);
        let at = self.documents.iter().position(|document| identity(document) == identity(&patch.root));
        if merge::deletes(&patch.root) {
            return self.delete_document(at, map, kind);
        }
        if let Some(target) = at.and_then(|at| self.documents[at].as_map_mut()) {
            return merge::apply(target, map, kind);
        }
        let mut target = Map::new();
        merge::apply(&mut target, map, kind)?;
        self.documents.push(Value::Map(target));
        Ok(())
    }

    fn delete_document(&mut self, at: Option<usize>, patch: &Map, kind: &str) -> Result<(), MergeError> {
        if patch.get(merge::DIRECTIVE).and_then(Value::as_text) != Some("delete") {
            return Err(MergeError::Directive { path: kind.into() });
        }
        if kind == "v1alpha1" {
            return Err(MergeError::Undeletable { path: kind.into() });
        }
        // The generator of 1.14 goes on when there is no such document, older ones do not.
        let tolerant = self.documents.iter().any(|document| kind_of(document) == "KubeClusterConfig");
        match at {
            Some(at) => {
                self.documents.remove(at);
                Ok(())
            }
            None if tolerant => Ok(()),
            None => Err(MergeError::NothingToDelete { path: kind.into() }),
        }
    }
}
