//! Bodies: JSON or YAML into objects of a kind, as strict about fields as the API server is.

use http::StatusCode;
use serde_json::Value;

use super::answer::Refusal;
use super::kinds::Kind;
use super::protobuf;
use super::schema::Shape;
use super::structural;

/// What happens to fields that a kind doesn't have (`fieldValidation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strictness {
    Strict,
    Warn,
    Ignore,
}

/// An object with what was odd about it.
#[derive(Debug)]
pub(super) struct Decoded {
    pub(super) object: Value,
    pub(super) warnings: Vec<String>,
}

fn bad(why: String) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "BadRequest", why)
}

/// A body as a value.
pub(super) fn value(content_type: &str, body: &[u8]) -> Result<Value, Refusal> {
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    match kind {
        "" | "application/json" => {
            let value: Value = serde_json::from_slice(body)
                .map_err(|error| bad(format!("couldn't get version/kind; json parse error: {error}")))?;
            Ok(value)
        }
        "application/yaml" => yaml(body),
        "application/vnd.kubernetes.protobuf" => protobuf::decode(body)
            .ok_or_else(|| bad("the body is no object in protobuf, or none of a kind that is known".to_owned())),
        other => {
            let why = format!(
                "the body of the request was in an unknown format - accepted media types include: application/json, \
                 application/yaml, application/vnd.kubernetes.protobuf (was {other})"
            );
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", why))
        }
    }
}

/// YAML as a value.
pub(super) fn yaml(body: &[u8]) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(body).map_err(|error| bad(format!("error decoding YAML: {error}")))?;
    serde_saphyr::from_str(text)
        .map_err(|error| bad(format!("error decoding YAML: {}", error.to_string().lines().next().unwrap_or_default())))
}

/// Makes sure that a value is an object of a kind.
pub(super) fn object(value: Value, kind: &Kind, strictness: Strictness) -> Result<Decoded, Refusal> {
    let version = kind.api_version();
    let Value::Object(map) = &value else {
        return Err(bad(format!(
            "couldn't get version/kind; json parse error: the body is no object: {}",
            kind_of(&value)
        )));
    };
    let text = |name: &str| map.get(name).and_then(Value::as_str).unwrap_or_default();
    let (found_kind, found_version) = (text("kind"), text("apiVersion"));
    if (!found_kind.is_empty() && found_kind != kind.kind) || (!found_version.is_empty() && found_version != version) {
        let why = format!(
            "{found_kind} in version \"{}\" cannot be handled as a {}: converting ({}) to ({}): unknown conversion",
            found_version.rsplit('/').next().unwrap_or_default(),
            kind.kind,
            gvk(found_version, found_kind),
            gvk(&version, &kind.kind),
        );
        return Err(bad(if found_version == version || found_version.is_empty() {
            why
        } else {
            format!("the API version in the data ({found_version}) does not match the expected API version ({version})")
        }));
    }
    let mut found = Found { kind, unknown: Vec::new(), broken: None };
    let mut object = value;
    found.clean(&mut object, &Shape::of(kind), "");
    if let Some(broken) = found.broken {
        return Err(bad(format!(
            "{} in version \"{}\" cannot be handled as a {}: {broken}",
            kind.kind, kind.version, kind.kind
        )));
    }
    if let Some(schema) = structural::schema(kind) {
        let dropped = structural::prune(&mut object, schema);
        found.unknown.extend(dropped.iter().map(|name| format!("unknown field \"{name}\"")));
    }
    if !found.unknown.is_empty() && strictness == Strictness::Strict {
        let why = found.unknown.join(", ");
        return Err(bad(format!(
            "{} in version \"{}\" cannot be handled as a {}: strict decoding error: {why}",
            kind.kind, kind.version, kind.kind
        )));
    }
    if !object["metadata"].is_object() {
        object["metadata"] = Value::Object(serde_json::Map::new());
    }
    object["apiVersion"] = Value::from(version);
    object["kind"] = Value::from(kind.kind.clone());
    let warnings = if strictness == Strictness::Warn { found.unknown } else { Vec::new() };
    Ok(Decoded { object, warnings })
}

fn gvk(version: &str, kind: &str) -> String {
    match version.rsplit_once('/') {
        Some((group, version)) => format!("{group}/{version}, Kind={kind}"),
        None => format!("/{version}, Kind={kind}"),
    }
}

struct Found<'a> {
    kind: &'a Kind,
    unknown: Vec<String>,
    broken: Option<String>,
}

impl Found<'_> {
    /// Removes what isn't known and what is null, and remembers what is of the wrong type.
    fn clean(&mut self, value: &mut Value, shape: &Shape, path: &str) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match (shape, &mut *value) {
            (Shape::Any | Shape::Deduced, _) => {}
            (Shape::Custom, Value::Object(map)) => {
                for (name, value) in map.iter_mut().filter(|(name, _)| *name == "metadata") {
                    self.clean(value, &Shape::Named("meta.ObjectMeta", super::schema::Presence::Always), name);
                }
            }
            (Shape::Named(..), Value::Object(map)) => {
                let Some(known) = shape.named() else { return };
                map.retain(|name, value| {
                    if value.is_null() {
                        return false;
                    }
                    let is_known = known.fields.contains_key(name.as_str());
                    if !is_known {
                        self.unknown.push(format!("unknown field \"{}\"", below(name)));
                    }
                    is_known
                });
                for (name, value) in map.iter_mut() {
                    if let Some(shape) = known.fields.get(name.as_str()) {
                        self.clean(value, shape, &below(name));
                    }
                }
            }
            (Shape::Map(item) | Shape::WholeMap(item), Value::Object(map)) => {
                for (name, value) in map.iter_mut() {
                    // A map's null is its type's nothing.
                    if value.is_null() && matches!(**item, Shape::Text(_)) {
                        *value = Value::from("");
                    }
                    self.clean(value, item, &below(name));
                }
            }
            (Shape::List(item) | Shape::Set(item) | Shape::Keyed(_, item), Value::Array(list)) => {
                for (number, value) in list.iter_mut().enumerate() {
                    self.clean(value, item, &format!("{path}[{number}]"));
                }
            }
            (Shape::Text(_) | Shape::NumberOrText | Shape::Quantity, Value::String(_))
            | (Shape::Number | Shape::NumberOrText | Shape::Quantity, Value::Number(_))
            | (Shape::Truth, Value::Bool(_)) => {
                if let (Shape::Quantity, Value::Number(number)) = (shape, &*value) {
                    *value = Value::from(number.to_string());
                }
            }
            (shape, value) => {
                let wanted = match shape {
                    Shape::Text(_) => "string",
                    Shape::Number => "int32",
                    Shape::Truth => "bool",
                    Shape::Quantity => "resource.Quantity",
                    Shape::NumberOrText => "intstr.IntOrString",
                    Shape::List(_) | Shape::Set(_) | Shape::Keyed(..) => "[]interface {}",
                    Shape::Map(_) | Shape::WholeMap(_) => "map[string]string",
                    Shape::Named(name, _) => name,
                    _ => "object",
                };
                let what = kind_of(value);
                // Go names struct and field without the numbers of lists.
                let field = format!("{}.{}", self.kind.kind, without_numbers(path));
                self.broken.get_or_insert(format!(
                    "json: cannot unmarshal {what} into Go struct field {field} of type {wanted}"
                ));
            }
        }
    }
}

fn without_numbers(path: &str) -> String {
    let mut inside = false;
    path.chars()
        .filter(|letter| {
            inside = (inside || *letter == '[') && *letter != ']';
            !inside && *letter != ']'
        })
        .collect()
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::kinds;

    fn decode(plural: &str, group: &str, object: Value, strictness: Strictness) -> Result<Decoded, String> {
        let kind = kinds::builtin().iter().find(|kind| kind.plural == plural && kind.group == group).unwrap();
        super::object(object, kind, strictness).map_err(|refusal| refusal.message)
    }

    #[test]
    fn what_a_kind_does_not_have_is_refused_told_or_dropped() {
        let given = json!({ "metadata": { "name": "a" }, "spec": { "replicas": 1, "replica": 2,
            "template": { "spec": { "containers": [{ "name": "a", "imag": "b" }] } } } });
        let error = decode("deployments", "apps", given.clone(), Strictness::Strict).unwrap_err();
        assert_eq!(
            error,
            "Deployment in version \"v1\" cannot be handled as a Deployment: strict decoding error: \
             unknown field \"spec.replica\", unknown field \"spec.template.spec.containers[0].imag\""
        );
        let warned = decode("deployments", "apps", given, Strictness::Warn).unwrap();
        assert_eq!(warned.warnings.len(), 2);
        assert_eq!(warned.object["spec"]["template"]["spec"]["containers"], json!([{ "name": "a" }]));
    }

    #[test]
    fn a_wrong_type_is_named_with_its_field() {
        let wrong = json!({ "metadata": { "name": "a" }, "data": { "a": 1 } });
        let error = decode("configmaps", "", wrong, Strictness::Ignore).unwrap_err();
        assert_eq!(
            error,
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal number into Go struct \
             field ConfigMap.data.a of type string"
        );
        for wrong in [json!([]), json!("x"), json!({ "metadata": [] }), json!({ "kind": "Pod" })] {
            assert!(decode("configmaps", "", wrong.clone(), Strictness::Ignore).is_err(), "{wrong}");
        }
    }
}
