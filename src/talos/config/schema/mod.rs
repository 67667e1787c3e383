//! The shape of documents: kinds, keys, their order and types, and how patches join them.
//!
//! Purpose: read a document as the real tool's types do and write it in their form, so that results can be compared line
//! by line, and unknown keys and unfitting values, which a node would refuse, are told to the user.
//! Must not know: how documents were made. Start reading at `shapes.txt`, then [`read_document`].

mod address;
mod duration;
mod read;
mod scalar;
pub(super) mod shapes;
mod size;
mod write;

use super::yaml::{Map, Value};

/// Something a document has that its shape has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    /// Where, as a dotted path.
    pub(super) path: String,
    pub(super) reason: Reason,
}

/// What is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// There is no such key.
    Unknown {
        /// The one that was probably meant.
        nearest: Option<String>,
        /// All keys that there may be.
        known: Vec<&'static str>,
    },
    /// The value is not what belongs there.
    Value {
        /// What is wanted, a lower-case fragment.
        what: String,
    },
    /// `$patch` with something else than `delete`.
    Directive,
}

/// How many keys are named where an unknown one is like none of them.
const FEW: usize = 12;

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown { nearest: Some(nearest), .. } => write!(f, "unknown key, did you mean '{nearest}'?"),
            Self::Unknown { nearest: None, known } if (1..=FEW).contains(&known.len()) => {
                write!(f, "unknown key; correct it, or leave it out (known here: {})", known.join(", "))
            }
            Self::Unknown { nearest: None, .. } => f.write_str("unknown key; correct it, or leave it out"),
            Self::Value { what } => f.write_str(what),
            Self::Directive => f.write_str("$patch must be delete"),
        }
    }
}

/// Whether a document of this kind can be read by the Talos versions this program knows.
pub(super) fn knows_kind(kind: &str) -> bool {
    kind != "v1alpha1" && shapes::document(kind).is_some()
}

/// The kind that was probably meant.
pub(super) fn nearest_kind(kind: &str) -> Option<String> {
    nearest(kind, shapes::kinds())
}

/// The key of the main document that was probably meant.
pub(super) fn nearest_main(key: &str) -> Option<String> {
    nearest(key, shapes::fields("v1alpha1.Config").iter().map(|field| field.key))
}

/// A key that is none of those there may be.
fn unknown(key: &str, known: impl IntoIterator<Item = &'static str>) -> Reason {
    let known: Vec<&'static str> = known.into_iter().collect();
    Reason::Unknown { nearest: nearest(key, known.iter().copied()), known }
}

fn nearest(word: &str, known: impl IntoIterator<Item = &'static str>) -> Option<String> {
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(&known.to_lowercase(), &word.to_lowercase()), known))
        .filter(|(score, _)| *score > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known.to_owned())
}

/// A document of this kind with its values in the form they are written; nulls are taken out.
///
/// # Errors
/// Everything in it that a node would refuse to read.
pub(super) fn read_document(kind: &str, map: Map) -> Result<Map, Vec<Flaw>> {
    let shape = shapes::document(kind).map_or("", |kind| kind.shape);
    let mut flaws = Vec::new();
    let map = read::shape(map, shape, "", &mut flaws);
    if flaws.is_empty() { Ok(map) } else { Err(flaws) }
}

/// Brings a document that was read into the form it is written in.
pub(super) fn arrange(kind: &str, document: &mut Map) {
    if let Some(kind) = shapes::document(kind) {
        write::shape(document, kind.shape);
    }
}

/// A document that was arranged as it goes out: what only its writer can tell by the types.
pub(super) fn bare(kind: &str, document: &mut Map) {
    if let Some(kind) = shapes::document(kind) {
        write::bare(document, kind.shape);
    }
}

/// Sorts the keys of all mappings.
pub(super) fn sort_value(value: &mut Value) {
    match value {
        Value::Map(map) => {
            map.sort();
            for (_, value) in map.iter_mut() {
                sort_value(value);
            }
        }
        Value::List(list) => list.iter_mut().for_each(sort_value),
        _ => {}
    }
}
