//! The documents of a machine configuration: which kinds a Talos knows, and how it names one that it refuses.

use serde_json::Value;

use super::config_keys;
use super::versions::{self, Version};

/// Since that minor of Talos, errors name the document and its line.
const TELLS_LINES: u32 = 12;
/// Since that minor of Talos, no two documents may have the same name.
const TELLS_DUPLICATES: u32 = 8;

/// What a document is.
enum Part {
    Main,
    Other,
}

/// A document as errors call it.
fn name(document: &Value) -> String {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = Some(text("kind")).filter(|kind| !kind.is_empty()).unwrap_or("v1alpha1");
    format!("{}/{kind}/{}", text("apiVersion"), text("name"))
}

/// What the document is for a Talos of that version, which has to know all its keys.
fn recognized(document: &Value, version: Version) -> Result<Part, String> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let (kind, group) = (text("kind"), text("apiVersion"));
    // Older than kinds are.
    let of_old = ["machine", "cluster", "debug", "persist"].iter().any(|key| document.get(key).is_some());
    match kind {
        "" if of_old || group == "v1alpha1" => match config_keys::unknown(document, version.minor) {
            None => Ok(Part::Main),
            Some(keys) => Err(format!("unknown keys found during decoding:\n{keys}")),
        },
        "" => Err("missing kind".to_owned()),
        _ if group.is_empty() && !of_old && version.minor >= TELLS_LINES => Err("missing apiVersion".to_owned()),
        _ if versions::knows_document(version, kind) && (group == "v1alpha1" || of_old) => Ok(Part::Other),
        _ => Err(format!("\"{kind}\" \"{group}\": not registered")),
    }
}

/// What is wrong with a document about the machine's name (Talos, config/types/network, `HostnameConfig`).
pub(super) fn check_hostname(document: &Value) -> Result<(), String> {
    let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default();
    let (auto, full) = (text("auto"), text("hostname"));
    let mut wrong = Vec::new();
    if auto.is_empty() && full.is_empty() {
        wrong.push("either 'auto' or 'hostname' must be set".to_owned());
    }
    if !matches!(auto, "" | "off") && !full.is_empty() {
        wrong.push("'auto' and 'hostname' cannot be set at the same time".to_owned());
    }
    if !matches!(auto, "" | "off" | "stable") {
        wrong.push(format!("invalid value for 'auto': {auto}"));
    }
    if full.len() > 253 {
        wrong.push(format!("fqdn is too long: {}", full.len()));
    }
    let host = full.split('.').next().unwrap_or_default();
    if !full.is_empty() && !(1..=63).contains(&host.len()) {
        wrong.push(format!("invalid hostname {host:?}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}: {}", name(document), wrong.join("\n"))) }
}

/// The lines on which documents that hold something begin.
fn first_lines(text: &str) -> Vec<usize> {
    let (mut lines, mut inside) = (Vec::new(), false);
    for (number, line) in (1..).zip(text.lines()) {
        let begins = line.strip_prefix("---").filter(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        let rest = begins.unwrap_or(line);
        let says = rest.trim();
        inside = inside && begins.is_none() && line != "...";
        let is_directive = begins.is_none() && line.starts_with('%');
        let holds = !says.is_empty() && !says.starts_with('#') && !is_directive;
        if !inside && holds && !["null", "~", "..."].contains(&says) {
            inside = true;
            lines.push(number);
        }
    }
    lines
}

/// The documents that hold the configuration of old, and all others; `text` is what they were read from.
pub(super) fn sorted(
    documents: impl Iterator<Item = Value>,
    text: &str,
    version: Version,
) -> Result<(Vec<Value>, Vec<Value>), String> {
    let (mut main, mut others, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    let lines = version.minor >= TELLS_LINES;
    // Every document counts, whether or not its line was found.
    for (document, line) in documents.zip(first_lines(text).into_iter().chain(std::iter::repeat(0))) {
        if lines && !document.is_object() {
            return Err(format!("expected a YAML document at line {line}"));
        }
        let name = name(&document);
        if version.minor >= TELLS_DUPLICATES && seen.contains(&name) {
            let place = if lines { format!(" (line {line})") } else { String::new() };
            return Err(format!("duplicate document {name} is not allowed{place}"));
        }
        let part = recognized(&document, version);
        let place = |why| if lines { format!("error decoding document {name} (line {line}): {why}") } else { why };
        match part.map_err(place)? {
            Part::Main => main.push(document),
            Part::Other => others.push(document),
        }
        seen.push(name);
    }
    Ok((main, others))
}

#[cfg(test)]
mod tests {
    use super::super::config::NodeConfig;
    use super::*;

    const MAIN: &str = "# A comment.\nmachine:\n  type: worker\n";

    fn refusal(text: &str, version: &str) -> String {
        NodeConfig::parse(text.as_bytes(), Version::of(version)).unwrap_err().to_string()
    }

    #[test]
    fn an_error_names_the_document_since_1_12() {
        let text = format!("{MAIN}  nope: 1\n");
        let keys = "unknown keys found during decoding:\nmachine:\n    nope: 1\n";
        assert_eq!(refusal(&text, "1.11.0"), keys);
        assert_eq!(refusal(&text, "1.12.0"), format!("error decoding document /v1alpha1/ (line 2): {keys}"));
        let text = format!("{MAIN}---\n\napiVersion: v1alpha1\nkind: VRFConfig\nname: x\n");
        let why = "\"VRFConfig\" \"v1alpha1\": not registered";
        assert_eq!(refusal(&text, "1.12.0"), format!("error decoding document v1alpha1/VRFConfig/x (line 6): {why}"));
        assert_eq!(refusal(&text, "1.11.0"), why);
        let text = format!("{MAIN}---\nkind: VRFConfig\nname: x\n");
        let why = "error decoding document /VRFConfig/x (line 5): missing apiVersion";
        assert_eq!(refusal(&text, "1.13.0"), why);
        assert_eq!(refusal("version: v1alpha1\n", "1.9.0"), "missing kind");
    }

    #[test]
    fn no_document_comes_twice() {
        let text = format!("{MAIN}---\n{MAIN}");
        assert_eq!(refusal(&text, "1.7.0"), "duplicate v1alpha1.Config");
        assert_eq!(refusal(&text, "1.9.0"), "duplicate document /v1alpha1/ is not allowed");
        assert_eq!(refusal(&text, "1.13.0"), "duplicate document /v1alpha1/ is not allowed (line 6)");
    }

    #[test]
    fn documents_begin_where_they_say_something() {
        assert_eq!(first_lines("a: 1\n---\n# no\n\nb: 1\n--- {c: 1}\n---\n---\nd: 1\n"), [1, 5, 6, 9]);
    }
}
