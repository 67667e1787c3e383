//! kubeconfig: kubectl's clusters, users and contexts. Texts in, texts out.
//!
//! Must not know: where the file is or how an API server is called. Entries of other clusters keep their text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::SecretString;

use super::AccessError;
use super::splice::{Edit, edit};
use crate::talos::config::yaml::{Layout, Map, Value, document_in, one};

const WHAT: &str = "the kubeconfig";
const INCOMING: &str = "the cluster's kubeconfig";

/// The lists of a kubeconfig whose elements have names.
const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// Whether a merged context becomes the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activate {
    /// It does.
    Always,
    /// Only when there is no current context.
    IfNone,
}

/// The text with all entries of `incoming` added; entries of the same name are replaced where they stand.
///
/// `incoming` is what Talos' API gives: cluster `NAME`, user and context `admin@NAME`.
pub fn merge(previous: Option<&str>, incoming: &str, activate: Activate) -> Result<SecretString, AccessError> {
    let incoming = parse(incoming, INCOMING)?;
    let Some(mut text) = previous.filter(|text| !text.trim().is_empty()).map(str::to_owned) else {
        return Ok(document_in(&Value::Map(incoming), Layout::Kubectl).into());
    };
    let mut root = parse(&text, WHAT)?;
    for key in LISTS {
        for element in elements(&incoming, key, INCOMING)? {
            let Some(name) = name_of(&element) else {
                return Err(AccessError::Shape { what: INCOMING, why: format!("an element of '{key}' has no name") });
            };
            let mut list = elements(&root, key, WHAT)?;
            let at = list.iter().position(|old| name_of(old) == Some(name));
            match at {
                Some(at) => list[at] = element.clone(),
                None => list.push(element.clone()),
            }
            root.set(key, list);
            let put =
                Edit::Put { key, at: at.map(|at| format!("[{at}]")), content: Value::List(vec![element.clone()]) };
            text = edit(&text, &put, &Value::Map(root.clone()), Layout::Kubectl);
        }
    }
    let current = root.get("current-context").and_then(Value::as_text).unwrap_or_default();
    let wanted = incoming.get("current-context").and_then(Value::as_text).unwrap_or_default();
    if activate == Activate::Always || current.is_empty() {
        let wanted = wanted.to_owned();
        root.set("current-context", wanted.as_str());
        let scalar = Edit::Scalar { key: "current-context", value: &wanted };
        text = edit(&text, &scalar, &Value::Map(root), Layout::Kubectl);
    }
    Ok(text.into())
}

/// The text without the context `name`, and without its cluster and user when no other context uses them; nothing when
/// there is no such context.
pub fn remove(previous: &str, name: &str) -> Result<Option<SecretString>, AccessError> {
    let mut root = parse(previous, WHAT)?;
    let contexts = elements(&root, "contexts", WHAT)?;
    let Some(context) = contexts.iter().find(|context| name_of(context) == Some(name)) else { return Ok(None) };
    let mut text = previous.to_owned();
    let mut gone = vec![("contexts", name.to_owned())];
    for (key, list) in [("cluster", "clusters"), ("user", "users")] {
        let part = |context: &Value| context.at(&["context", key]).and_then(Value::as_text).map(str::to_owned);
        let others = contexts.iter().filter(|other| name_of(other) != Some(name));
        if let Some(used) = part(context)
            && !others.into_iter().any(|other| part(other).as_deref() == Some(&used))
        {
            gone.push((list, used));
        }
    }
    for (key, name) in gone {
        let mut list = elements(&root, key, WHAT)?;
        while let Some(at) = list.iter().position(|element| name_of(element) == Some(&name)) {
            list.remove(at);
            root.set(key, list.clone());
            let remove = Edit::Remove { key, at: format!("[{at}]") };
            text = edit(&text, &remove, &Value::Map(root.clone()), Layout::Kubectl);
        }
    }
    if root.get("current-context").and_then(Value::as_text) == Some(name) {
        root.set("current-context", "");
        let scalar = Edit::Scalar { key: "current-context", value: "" };
        text = edit(&text, &scalar, &Value::Map(root), Layout::Kubectl);
    }
    Ok(Some(text.into()))
}

/// The names of the contexts of one cluster: what Talos calls them (`admin@NAME`, and `admin@NAME-1` when that was
/// taken), as long as they lead to its endpoint or trust its authority. Another cluster may be called `NAME-1`.
pub fn contexts_of(text: &str, name: &str, endpoint: Option<&str>, ca_pem: &str) -> Result<Vec<String>, AccessError> {
    let root = parse(text, WHAT)?;
    let clusters = elements(&root, "clusters", WHAT)?;
    let own = format!("admin@{name}");
    let numbered = |context: &str| {
        let rest = context.strip_prefix(&own);
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('-').is_some_and(|rest| rest.parse::<u32>().is_ok())
        })
    };
    let leads_there = |context: &Value| {
        let used = context.at(&["context", "cluster"]).and_then(Value::as_text);
        let cluster = clusters.iter().find(|cluster| name_of(cluster).is_some() && name_of(cluster) == used);
        let part = |key: &str| cluster.and_then(|cluster| cluster.at(&["cluster", key])).and_then(Value::as_text);
        let trusted = part("certificate-authority-data").and_then(|data| STANDARD.decode(data.trim()).ok());
        let trusted = trusted.and_then(|pem| String::from_utf8(pem).ok());
        let bare = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
        trusted.is_some_and(|pem| pem.trim() == ca_pem.trim())
            || part("server").is_some_and(|server| endpoint.is_some_and(|endpoint| bare(server) == bare(endpoint)))
    };
    let contexts = elements(&root, "contexts", WHAT)?;
    let found = contexts.iter().filter(|context| name_of(context).is_some_and(numbered) && leads_there(context));
    Ok(found.filter_map(name_of).map(str::to_owned).collect())
}

/// The names of all contexts, in order.
pub fn contexts(text: &str) -> Result<Vec<String>, AccessError> {
    let root = parse(text, WHAT)?;
    let contexts = elements(&root, "contexts", WHAT)?;
    Ok(contexts.iter().filter_map(name_of).map(str::to_owned).collect())
}

fn name_of(element: &Value) -> Option<&str> {
    element.at(&["name"]).and_then(Value::as_text)
}

fn parse(text: &str, what: &'static str) -> Result<Map, AccessError> {
    match one(text).map_err(|source| AccessError::Yaml { what, source })?.root {
        Value::Map(root) => Ok(root),
        other => Err(AccessError::Shape { what, why: format!("it is {}", other.kind()) }),
    }
}

fn elements(root: &Map, key: &str, what: &'static str) -> Result<Vec<Value>, AccessError> {
    match root.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::List(list)) => Ok(list.clone()),
        Some(other) => Err(AccessError::Shape { what, why: format!("'{key}' is {}", other.kind()) }),
    }
}
