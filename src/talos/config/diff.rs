//! Two configurations compared, for people: every difference by document and path, secrets masked.
//!
//! A value is shown only when neither its key nor its content says that it is secret. Must not know: where configurations
//! come from.

use std::fmt;

use super::yaml::{Map, Number, Value};
use super::{Config, kind_of};

/// A place where two configurations differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The document's kind, with its name.
    pub document: String,
    /// The path in it; empty for the whole document.
    pub path: String,
    /// What is there, masked; nothing when it is not there.
    pub old: Option<String>,
    /// What is wanted, masked; nothing when it goes.
    pub new: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { document, path, old, new } = self;
        let at = if path.is_empty() { String::new() } else { format!(" {path}") };
        match (old, new) {
            (None, Some(new)) => write!(f, "+ {document}{at}: {new}"),
            (Some(old), None) => write!(f, "- {document}{at}: {old}"),
            (old, new) => {
                let shown = |side: &Option<String>| side.clone().unwrap_or_default();
                write!(f, "~ {document}{at}: {} -> {}", shown(old), shown(new))
            }
        }
    }
}

/// Keys whose values are never shown.
const SECRET_KEYS: &[&str] = &[
    "token",
    "key",
    "secret",
    "id",
    "clusterID",
    "clusterSecret",
    "secretboxEncryptionSecret",
    "aescbcEncryptionSecret",
    "privateKey",
    "privatekey",
    "apiToken",
    "passphrase",
    "password",
    "auth",
    "identityToken",
    "presharedKey",
    "content",
    "contents",
    "manifest",
    "environment",
    "variables",
    "env",
    "headers",
    "extraManifestHeaders",
    "apiUrl",
];

/// Where `has` and `wanted` differ; `is_secret` tells secrets by their content.
pub fn differences(has: &Config, wanted: &Config, is_secret: impl Fn(&str) -> bool) -> Vec<Difference> {
    let mut found = Vec::new();
    let mask = Mask { is_secret: &is_secret };
    for (title, document) in titled(has) {
        match titled(wanted).find(|(other, _)| *other == title) {
            Some((_, other)) => mask.compare(&title, "", (document, other), &mut found),
            None => found.push(Difference {
                document: title,
                path: String::new(),
                old: Some("the document".into()),
                new: None,
            }),
        }
    }
    for (title, _) in titled(wanted) {
        if !titled(has).any(|(other, _)| other == title) {
            found.push(Difference {
                document: title,
                path: String::new(),
                old: None,
                new: Some("the document".into()),
            });
        }
    }
    found
}

fn titled(config: &Config) -> impl Iterator<Item = (String, &Value)> {
    config.documents().iter().map(|document| {
        let name = document.at(&["name"]).and_then(Value::as_text).unwrap_or_default();
        let title =
            if name.is_empty() { kind_of(document).to_owned() } else { format!("{}/{name}", kind_of(document)) };
        (title, document)
    })
}

/// A document as it may be shown: what its key or its content says is secret is masked.
pub(super) fn masked(document: &Value, is_secret: &dyn Fn(&str) -> bool) -> Value {
    Mask { is_secret }.masked(SecretKey::No, document)
}

/// Whether a key above a value says that it is secret.
#[derive(Clone, Copy, PartialEq)]
enum SecretKey {
    Yes,
    No,
}

struct Mask<'a> {
    is_secret: &'a dyn Fn(&str) -> bool,
}

impl Mask<'_> {
    fn compare(&self, document: &str, path: &str, (old, new): (&Value, &Value), found: &mut Vec<Difference>) {
        if old == new {
            return;
        }
        if let (Value::Map(one), Value::Map(two)) = (old, new) {
            let keys = one.keys().chain(two.keys().filter(|key| one.get(key).is_none()));
            for key in keys {
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                let nothing = Value::Null;
                let sides = (one.get(key).unwrap_or(&nothing), two.get(key).unwrap_or(&nothing));
                self.compare(document, &path, sides, found);
            }
            return;
        }
        if let (Value::List(one), Value::List(two)) = (old, new)
            && one.len() == two.len()
            && one.iter().all(|value| value.as_map().is_some())
        {
            for (at, sides) in one.iter().zip(two).enumerate() {
                self.compare(document, &format!("{path}[{at}]"), sides, found);
            }
            return;
        }
        let shown = |value: &Value| (*value != Value::Null).then(|| self.shown(path, value));
        found.push(Difference {
            document: document.to_owned(),
            path: path.to_owned(),
            old: shown(old),
            new: shown(new),
        });
    }

    fn masked(&self, key: SecretKey, value: &Value) -> Value {
        match value {
            Value::Map(map) => {
                let below = |name: &str| if SECRET_KEYS.contains(&name) { SecretKey::Yes } else { key };
                let masked = map.iter().map(|(name, value)| (name.to_owned(), self.masked(below(name), value)));
                masked.collect::<Map>().into()
            }
            Value::List(list) => list.iter().map(|value| self.masked(key, value)).collect::<Vec<_>>().into(),
            Value::Null => Value::Null,
            _ if key == SecretKey::Yes => "(masked)".into(),
            Value::Text(text) if (self.is_secret)(text) || text.contains("PRIVATE KEY") => "(masked)".into(),
            other => other.clone(),
        }
    }

    fn shown(&self, path: &str, value: &Value) -> String {
        let secret_key = path.split(['.', '[', ']']).any(|key| SECRET_KEYS.contains(&key));
        match value {
            Value::Null => String::new(),
            Value::Map(map) => {
                let parts: Vec<String> = map
                    .iter()
                    .map(|(key, value)| format!("{key}: {}", self.shown(&format!("{path}.{key}"), value)))
                    .collect();
                format!("{{{}}}", parts.join(", "))
            }
            Value::List(list) => {
                let parts: Vec<String> = list.iter().map(|value| self.shown(path, value)).collect();
                format!("[{}]", parts.join(", "))
            }
            _ if secret_key => "(masked)".to_owned(),
            Value::Text(text) if (self.is_secret)(text) || text.contains("PRIVATE KEY") => "(masked)".to_owned(),
            Value::Text(text) if text.contains('\n') || text.len() > 120 => {
                format!("({} characters)", text.chars().count())
            }
            Value::Text(text) => text.clone(),
            Value::Number(number) => Number::normal(number).to_owned(),
            Value::Bool(flag) => flag.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_named_and_secrets_are_not_shown() {
        let has = Config::parse(
            "machine: {token: hush, type: worker, certSANs: [a], sysctls: {x: hush}}\n---\napiVersion: v1alpha1\nkind: HostnameConfig\nauto: stable\n",
        )
        .unwrap();
        let wanted =
            Config::parse("machine: {token: other, type: worker, certSANs: [a, b], sysctls: {x: y}, debug: true}\n")
                .unwrap();
        let shown: Vec<String> =
            differences(&has, &wanted, |text| text == "hush").iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "~ v1alpha1 machine.token: (masked) -> (masked)",
                "~ v1alpha1 machine.certSANs: [a] -> [a, b]",
                "~ v1alpha1 machine.sysctls.x: (masked) -> y",
                "+ v1alpha1 machine.debug: true",
                "- HostnameConfig: the document",
            ]
        );
        assert_eq!(differences(&has, &has, |_| false), []);
    }
}
