//! What recast told: texts, and the document.

use std::fs;
use std::process::Output;

use serde_json::Value;

use crate::site::repository;

/// As people read it.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The document on stdout, which is one that the schema describes.
pub(crate) fn document(output: &Output) -> Value {
    let document = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}\n{}", text(&output.stdout), text(&output.stderr)));
    let schema = fs::read_to_string(repository().join("templates/document.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&serde_json::from_str(&schema).unwrap()).unwrap();
    let problems: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?}\n{document:#}");
    document
}
