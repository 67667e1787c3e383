//! `talosconfig`: talosctl's contexts. Texts in, texts out.
//!
//! Must not know: where the file is. Keys this program doesn't know stay as they are.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use super::splice::{Edit, edit};
use super::{AccessError, AdminCertificate};
use crate::talos::config::yaml::{Layout, Map, Value, document, one};

const WHAT: &str = "the talosconfig";

/// A context: a cluster, how to reach it and the certificate to enter with.
#[derive(Clone, Debug)]
pub struct Context {
    /// Its name, the cluster's.
    pub name: String,
    /// Addresses that calls go to: the control planes.
    pub endpoints: Vec<String>,
    /// Machines that calls are about when none is named.
    pub nodes: Vec<String>,
    /// Authority, certificate and key.
    pub certificate: AdminCertificate,
}

/// The text with `context` added, or put in the place of the one with its name; it becomes the current one. Without a
/// previous text the file holds this context alone.
pub fn merge(previous: Option<&str>, context: &Context) -> Result<SecretString, AccessError> {
    let Some(text) = previous.filter(|text| !text.trim().is_empty()) else {
        let contexts = Map::new().with(&context.name, entry(context, Map::new()));
        let root = Map::new().with("context", context.name.as_str()).with("contexts", contexts);
        return Ok(document(&Value::Map(root)).into());
    };
    let mut root = parse(text)?;
    let mut contexts = contexts(&root)?;
    let old = contexts.get(&context.name).cloned();
    let new = entry(context, old.as_ref().and_then(Value::as_map).cloned().unwrap_or_default());
    contexts.set(&context.name, new.clone());
    root.set("contexts", contexts);
    let put = Edit::Put {
        key: "contexts",
        at: old.map(|_| format!(".{}", context.name)),
        content: Value::Map(Map::new().with(&context.name, new)),
    };
    let text = edit(text, &put, &Value::Map(root.clone()), Layout::Talos);
    root.set("context", context.name.as_str());
    let current = Edit::Scalar { key: "context", value: &context.name };
    Ok(edit(&text, &current, &Value::Map(root), Layout::Talos).into())
}

/// The text without the context `name`; nothing when it has none of that name.
pub fn remove(previous: &str, name: &str) -> Result<Option<SecretString>, AccessError> {
    let mut root = parse(previous)?;
    let mut contexts = contexts(&root)?;
    if contexts.remove(name).is_none() {
        return Ok(None);
    }
    root.set("contexts", contexts);
    let gone = Edit::Remove { key: "contexts", at: format!(".{name}") };
    let mut text = edit(previous, &gone, &Value::Map(root.clone()), Layout::Talos);
    if root.get("context").and_then(Value::as_text) == Some(name) {
        root.set("context", "");
        text = edit(&text, &Edit::Scalar { key: "context", value: "" }, &Value::Map(root), Layout::Talos);
    }
    Ok(Some(text.into()))
}

/// The context `name`, or the current one; nothing when it isn't there.
pub fn find(text: &str, name: Option<&str>) -> Result<Option<Context>, AccessError> {
    let root = parse(text)?;
    let contexts = contexts(&root)?;
    let current = root.get("context").and_then(Value::as_text);
    let Some(name) = name.or(current) else { return Ok(None) };
    let Some(context) = contexts.get(name) else { return Ok(None) };
    let list = |key: &str| -> Vec<String> {
        let list = context.at(&[key]).and_then(Value::as_list).unwrap_or_default();
        list.iter().filter_map(|value| value.as_text().map(str::to_owned)).collect()
    };
    let pem = |key: &str| {
        let text = context.at(&[key]).and_then(Value::as_text).and_then(|text| STANDARD.decode(text).ok());
        text.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| AccessError::Shape {
            what: WHAT,
            why: format!("'{key}' of context '{name}' is not base64 of a PEM text"),
        })
    };
    Ok(Some(Context {
        name: name.to_owned(),
        endpoints: list("endpoints"),
        nodes: list("nodes"),
        certificate: AdminCertificate::from_pem(pem("ca")?, pem("crt")?, pem("key")?.into()),
    }))
}

/// The names of all contexts, in order.
pub fn names(text: &str) -> Result<Vec<String>, AccessError> {
    Ok(contexts(&parse(text)?)?.keys().map(str::to_owned).collect())
}

fn parse(text: &str) -> Result<Map, AccessError> {
    match one(text).map_err(|source| AccessError::Yaml { what: WHAT, source })?.root {
        Value::Map(root) => Ok(root),
        other => Err(AccessError::Shape { what: WHAT, why: format!("it is {}", other.kind()) }),
    }
}

fn contexts(root: &Map) -> Result<Map, AccessError> {
    match root.get("contexts") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Map(contexts)) => Ok(contexts.clone()),
        Some(other) => Err(AccessError::Shape { what: WHAT, why: format!("'contexts' is {}", other.kind()) }),
    }
}

/// The context's keys on top of what was there, in talosctl's order.
fn entry(context: &Context, mut old: Map) -> Map {
    let certificate = &context.certificate;
    let mut entry = Map::new().with("endpoints", Value::texts(&context.endpoints));
    if !context.nodes.is_empty() {
        entry.set("nodes", Value::texts(&context.nodes));
    }
    entry = entry
        .with("ca", STANDARD.encode(certificate.authority_pem()))
        .with("crt", STANDARD.encode(certificate.certificate_pem()))
        .with("key", STANDARD.encode(certificate.key_pem().expose_secret()));
    for key in ["target", "endpoints", "nodes", "ca", "crt", "key"] {
        old.remove(key);
    }
    for (key, value) in old {
        entry.set(&key, value);
    }
    entry
}
