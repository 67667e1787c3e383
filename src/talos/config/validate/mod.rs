//! What a node would say to a configuration, before it is sent.
//!
//! Purpose: everything that is wrong at once, with document, line and path, where a node names the first thing only.
//! Rules are those of siderolabs/talos `pkg/machinery/config/types/v1alpha1/v1alpha1_validation.go` and
//! `config/container/validate.go` (v1.13.9, v1.14.0-rc.1).
//! Must not know: files, profiles. Start reading at [`validate`]; `machine` and `cluster` hold the rules of the main
//! document, `kinds` those of each other one, `documents` those between them.

mod cluster;
mod documents;
mod kinds;
mod links;
mod machine;
mod names;
mod network;
mod runtime;
mod scalars;

use super::decode::{self, Wrong};
use super::kind_of;
use super::yaml::{Document, Spot, Value, YamlError, read};

/// Where a configuration will be used: a disk to install to is needed on metal only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Talos installs itself.
    Metal,
    /// The platform boots an image that is installed already: `nocloud` and the clouds.
    Cloud,
    /// No disks at all.
    Container,
}

/// Something about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where in the text.
    pub spot: Spot,
    /// The document's kind, `v1alpha1` for the main one.
    pub document: String,
    /// The path in it; empty for the document itself.
    pub path: String,
    /// What is wrong, a lower-case fragment.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { spot, document, path, what } = self;
        let at = if path.is_empty() { String::new() } else { format!(" {path}") };
        write!(f, "{spot}, {document}{at}: {what}")
    }
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// A node refuses the configuration because of these.
    pub errors: Vec<Finding>,
    /// A node takes it nevertheless.
    pub warnings: Vec<Finding>,
}

/// The document that is looked at, and what was found so far.
struct Check<'a> {
    document: &'a Document,
    kind: &'a str,
    found: &'a mut Findings,
}

impl<'a> Check<'a> {
    fn finding(&self, path: &str, what: String) -> Finding {
        let spot = self.document.marks.spot(path).unwrap_or(self.document.spot);
        Finding { spot, document: self.kind.to_owned(), path: path.to_owned(), what }
    }

    fn error(&mut self, path: &str, what: impl Into<String>) {
        let finding = self.finding(path, what.into());
        self.found.errors.push(finding);
    }

    fn warning(&mut self, path: &str, what: impl Into<String>) {
        let finding = self.finding(path, what.into());
        self.found.warnings.push(finding);
    }

    /// The value at a dotted path; nothing for null.
    fn at(&self, path: &str) -> Option<&'a Value> {
        let keys: Vec<&str> = path.split('.').collect();
        self.document.root.at(&keys).filter(|value| **value != Value::Null)
    }

    /// The text at a dotted path; nothing for the empty one.
    fn text(&self, path: &str) -> Option<&'a str> {
        self.at(path).and_then(Value::as_text).filter(|text| !text.is_empty())
    }

    /// The list at a dotted path.
    fn list(&self, path: &str) -> &'a [Value] {
        self.at(path).and_then(Value::as_list).unwrap_or_default()
    }

    fn is_true(&self, path: &str) -> bool {
        self.at(path) == Some(&true.into())
    }

    fn is_false(&self, path: &str) -> bool {
        self.at(path) == Some(&false.into())
    }
}

/// Whether documents say what the main one said before contract 1.14.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Documents {
    There,
    Absent,
}

/// Looks at a whole configuration.
///
/// # Errors
/// When the text is no YAML: then nothing else can be said.
pub fn validate(text: &str, mode: Mode) -> Result<Findings, YamlError> {
    let mut documents = read(text)?;
    let mut found = Findings::default();
    if documents.is_empty() {
        let what = "there is nothing in it".to_owned();
        found.errors.push(Finding { spot: Spot::START, document: "v1alpha1".to_owned(), path: String::new(), what });
    }
    for document in &mut documents {
        shape(document, &mut found);
    }
    if found.errors.is_empty() {
        documents::duplicates(&documents, &mut found);
    }
    // A node decodes everything before it looks at anything.
    if !found.errors.is_empty() {
        return Ok(found);
    }
    let main = documents.iter().find(|document| kind_of(&document.root) == "v1alpha1");
    if let Some(main) = main {
        let mut check = Check { document: main, kind: "v1alpha1", found: &mut found };
        let role = machine::machine(&mut check, mode);
        let there = documents.iter().any(|document| kind_of(&document.root) == "KubeClusterConfig");
        cluster::cluster(&mut check, role, if there { Documents::There } else { Documents::Absent });
    }
    for document in &documents {
        let kind = kind_of(&document.root);
        kinds::document(&mut Check { document, kind, found: &mut found });
    }
    documents::between(&documents, mode, &mut found);
    Ok(found)
}

/// Whether a document can be decoded: its kind and its keys are known, and its values fit. It is then in the form that
/// the types give it.
fn shape(document: &mut Document, found: &mut Findings) {
    match decode::decode(document.clone()) {
        Ok(root) => document.root = root,
        Err(wrong) => found.errors.extend(wrong.into_iter().map(|Wrong { spot, path, what, .. }| Finding {
            spot,
            document: kind_of(&document.root).to_owned(),
            path,
            what,
        })),
    }
}
