//! Label and field selectors (apimachinery, pkg/labels and pkg/fields).

use serde_json::Value;

use super::answer::Refusal;
use super::kinds::Kind;

/// What objects are wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Term>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    key: String,
    means: Means,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Means {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

/// Fields besides name and namespace that a kind can be selected by.
fn known_fields(kind: &Kind) -> &'static [&'static str] {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "pods") => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
        ("", "nodes") => &["spec.unschedulable"],
        ("", "namespaces") => &["status.phase"],
        ("", "secrets") => &["type"],
        ("", "services") => &["spec.clusterIP", "spec.type"],
        ("", "events") => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        ("events.k8s.io", "events") => &[
            "regarding.kind",
            "regarding.namespace",
            "regarding.name",
            "regarding.uid",
            "reason",
            "reportingController",
            "type",
        ],
        ("apps", "replicasets") => &["status.replicas"],
        ("batch", "jobs") => &["status.successful"],
        ("certificates.k8s.io", "certificatesigningrequests") => &["spec.signerName"],
        _ => &[],
    }
}

impl Selector {
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Refusal> {
        let labels = parse_labels(labels).map_err(|why| Refusal::bad(format!("unable to parse requirement: {why}")))?;
        let mut selected = Vec::new();
        for term in fields.split(',').filter(|term| !term.is_empty()) {
            let invalid = || Refusal::bad(format!("invalid selector: '{fields}'; can't understand '{term}'"));
            let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
                (path, value, false)
            } else {
                let (path, value) = term.split_once('=').ok_or_else(invalid)?;
                (path, value.trim_start_matches('='), true)
            };
            if !["metadata.name", "metadata.namespace"].contains(&path) && !known_fields(kind).contains(&path) {
                let known = known_fields(kind);
                return Err(Refusal::bad(if known.is_empty() {
                    format!("\"{path}\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"")
                } else {
                    format!("field label not supported: {path}")
                }));
            }
            selected.push((path.to_owned(), value.to_owned(), equal));
        }
        Ok(Self { labels, fields: selected })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn wants(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let labelled = self.labels.iter().all(|term| {
            let found = labels.get(&term.key).and_then(Value::as_str);
            match &term.means {
                Means::Exists => found.is_some(),
                Means::Absent => found.is_none(),
                Means::In(values) => found.is_some_and(|found| values.iter().any(|one| one == found)),
                Means::NotIn(values) => !found.is_some_and(|found| values.iter().any(|one| one == found)),
            }
        });
        labelled
            && self.fields.iter().all(|(path, value, equal)| {
                let found = match object.pointer(&format!("/{}", path.replace('.', "/"))) {
                    Some(Value::String(text)) => text.clone(),
                    Some(Value::Bool(truth)) => truth.to_string(),
                    Some(Value::Number(number)) => number.to_string(),
                    _ if path.starts_with("spec.unschedulable") || path == "spec.hostNetwork" => "false".to_owned(),
                    _ if path == "source" => {
                        object.pointer("/source/component").and_then(Value::as_str).unwrap_or_default().to_owned()
                    }
                    _ => String::new(),
                };
                (found == *value) == *equal
            })
    }
}

fn parse_labels(text: &str) -> Result<Vec<Term>, String> {
    let mut terms = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        // A comma inside parentheses belongs to the values.
        let mut depth = 0_usize;
        let end = rest.char_indices().find(|(_, letter)| {
            match letter {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            *letter == ',' && depth == 0
        });
        let (term, after) = match end {
            Some((at, _)) => (&rest[..at], &rest[at + 1..]),
            None => (rest, ""),
        };
        terms.push(parse_term(term.trim())?);
        rest = after.trim();
    }
    Ok(terms)
}

fn parse_term(term: &str) -> Result<Term, String> {
    let new = |key: &str, means: Means| {
        let key = key.trim();
        if is_label_key(key) {
            return Ok(Term { key: key.to_owned(), means });
        }
        Err(format!(
            "<nil>: Invalid value: \"{key}\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start \
             and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ))
    };
    if let Some((key, value)) = term.split_once("!=") {
        return new(key, Means::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once('=') {
        return new(key, Means::In(vec![value.trim_start_matches('=').trim().to_owned()]));
    }
    if let Some(open) = term.find('(') {
        let values =
            term[open + 1..].strip_suffix(')').ok_or_else(|| format!("found '', expected: ',' or ')' in '{term}'"))?;
        let values: Vec<String> = values.split(',').map(|one| one.trim().to_owned()).collect();
        let head = term[..open].trim();
        return match head.rsplit_once(char::is_whitespace) {
            Some((key, "in")) => new(key, Means::In(values)),
            Some((key, "notin")) => new(key, Means::NotIn(values)),
            _ => Err(format!("found '{head}', expected: in, notin, =, ==, !=, gt, lt")),
        };
    }
    match term.strip_prefix('!') {
        Some(key) => new(key, Means::Absent),
        None => new(term, Means::Exists),
    }
}

/// Whether a text can be a label's or annotation's key: an optional domain, and a name.
pub(super) fn is_label_key(key: &str) -> bool {
    let name = match key.split_once('/') {
        Some((domain, name)) if is_subdomain(domain) => name,
        Some(_) => return false,
        None => key,
    };
    !name.is_empty() && is_label_value(name)
}

/// Whether a text can be a label's value.
pub(super) fn is_label_value(value: &str) -> bool {
    let ends = |letter: Option<char>| letter.is_none_or(|letter| letter.is_ascii_alphanumeric());
    value.len() <= 63
        && ends(value.chars().next())
        && ends(value.chars().last())
        && value.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
}

/// Whether a text is a name as DNS has them, in lower case (RFC 1123).
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && !name.is_empty() && name.split('.').all(is_label)
}

/// Whether a text is one part of such a name.
pub(super) fn is_label(name: &str) -> bool {
    let ends =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit());
    name.len() <= 253
        && ends(name.chars().next())
        && ends(name.chars().last())
        && name.chars().all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::kinds;

    fn selector(labels: &str, fields: &str) -> Result<Selector, String> {
        let pods = kinds::builtin().iter().find(|kind| kind.plural == "pods").unwrap();
        Selector::parse(pods, labels, fields).map_err(|refusal| refusal.message)
    }

    #[test]
    fn selectors_take_what_they_say_and_refuse_nonsense() {
        let pod = json!({ "metadata": { "name": "a", "labels": { "app": "x", "tier": "front" } },
            "spec": { "nodeName": "n" }, "status": { "phase": "Running" } });
        for (labels, fields, wanted) in [
            ("app=x,tier in (front, back)", "", true),
            ("app==x,tier notin (front)", "", false),
            ("app,!gone", "spec.nodeName=n,status.phase!=Failed", true),
            ("app!=x", "", false),
            ("", "metadata.name=b", false),
            ("", "spec.hostNetwork=false", true),
        ] {
            assert_eq!(selector(labels, fields).unwrap().wants(&pod), wanted, "{labels} {fields}");
        }
        assert_eq!(selector("", "spec.color=red").unwrap_err(), "field label not supported: spec.color");
        for wrong in ["a in b", "a in (b", "=x", "a b", "-a=b"] {
            assert!(selector(wrong, "").is_err(), "{wrong}");
        }
    }
}
