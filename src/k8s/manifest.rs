//! Manifests: YAML of one or many documents as the objects in it.
//!
//! Purpose: split, flatten lists, and sort what others stand on to the front. Must not know: servers.

use serde_json::Value;

/// Why a text is no manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is no YAML.
    #[error("it is not YAML")]
    Syntax(#[source] Box<serde_saphyr::Error>),
    /// A document lacks what every object has.
    #[error("document {number} has no {part}")]
    Lacks {
        /// From 1.
        number: usize,
        /// `apiVersion`, `kind`, `metadata.name`.
        part: &'static str,
    },
}

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// `v1`, `apps/v1`.
    pub api_version: String,
    /// `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, where it names one.
    pub namespace: Option<String>,
    /// The whole object.
    pub object: Value,
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// The objects of a text, in the order in which they can be made: namespaces and definitions of kinds first, else as
/// they stand.
pub fn parse(text: &str) -> Result<Vec<Manifest>, ManifestError> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).map_err(|error| ManifestError::Syntax(Box::new(error)))?;
    let mut found = Vec::new();
    for (index, document) in documents.into_iter().enumerate() {
        flatten(index + 1, document, &mut found)?;
    }
    found.sort_by_key(|manifest: &Manifest| rank(&manifest.kind));
    Ok(found)
}

/// The objects of a list, as they stand.
pub fn of_objects(objects: Vec<Value>) -> Result<Vec<Manifest>, ManifestError> {
    let mut found = Vec::new();
    for (index, object) in objects.into_iter().enumerate() {
        flatten(index + 1, object, &mut found)?;
    }
    Ok(found)
}

fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "CustomResourceDefinition" => 1,
        _ => 2,
    }
}

fn flatten(number: usize, document: Value, found: &mut Vec<Manifest>) -> Result<(), ManifestError> {
    if document.is_null() {
        return Ok(());
    }
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let api_version = text("/apiVersion").ok_or(ManifestError::Lacks { number, part: "apiVersion" })?.to_owned();
    let kind = text("/kind").ok_or(ManifestError::Lacks { number, part: "kind" })?.to_owned();
    if kind.ends_with("List")
        && let Some(items) = document.get("items").and_then(Value::as_array)
    {
        return items.clone().into_iter().try_for_each(|item| flatten(number, item, found));
    }
    let name = text("/metadata/name").ok_or(ManifestError::Lacks { number, part: "metadata.name" })?.to_owned();
    let namespace = text("/metadata/namespace").map(str::to_owned);
    found.push(Manifest { api_version, kind, name, namespace, object: document });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_become_objects_with_namespaces_first() {
        let text = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: cilium, namespace: kube-system}\n---\n\
                    # nothing but a comment\n---\napiVersion: v1\nkind: List\nitems:\n\
                    - {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: x}, data: {version: \"1.10\"}}\n\
                    - {apiVersion: v1, kind: Namespace, metadata: {name: x}}\n---\n";
        let found = parse(text).unwrap();
        let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["Namespace x", "DaemonSet kube-system/cilium", "ConfigMap x/a"]);
        assert_eq!(found[2].object["data"]["version"], "1.10");
        assert!(matches!(parse("kind: Pod\n"), Err(ManifestError::Lacks { number: 1, part: "apiVersion" })));
        assert!(matches!(parse("a: [\n"), Err(ManifestError::Syntax(_))));
    }
}
