//! Parameters of a request, decoded the original's way.
//!
//! Purpose: forms, query strings and JSON bodies with all their sharp edges (Proxmox VE 8.4,
//! PVE/APIServer/AnyEvent.pm, `decode_urlencoded`). Must not know: which parameters exist. Start at [`decode_form`].

use std::collections::BTreeMap;

use percent_encoding::percent_decode;

use super::json;

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// One text.
    Text(String),
    /// A key that came several times, or a JSON array.
    List(Vec<String>),
    /// A JSON object: right nowhere, but it has to be refused.
    Object,
    /// A JSON boolean: it fits where a switch is wanted, and nowhere else.
    Flag(bool),
    /// A key without a value: as good as not given, unless nobody knows the key.
    Nothing,
}

/// All parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Params(pub BTreeMap<String, Value>);

impl Params {
    /// The text of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            Value::Text(text) => Some(text),
            Value::Flag(true) => Some("1"),
            Value::Flag(false) => Some("0"),
            Value::List(_) | Value::Object | Value::Nothing => None,
        }
    }

    /// The text of a parameter, owned.
    pub(super) fn owned(&self, name: &str) -> Option<String> {
        self.text(name).map(str::to_owned)
    }

    /// A number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// A number of things; one that is too big for us is as big as we know.
    pub(super) fn count(&self, name: &str) -> Option<usize> {
        let text = self.text(name)?;
        let digits = text.trim_start_matches('+');
        let huge = || (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(usize::MAX);
        digits.parse().ok().or_else(huge)
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.text(name) == Some("1")
    }

    /// The parts of a list.
    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Text(text)) => {
                text.split([',', ';', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect()
            }
            Some(Value::List(list)) => list.clone(),
            _ => Vec::new(),
        }
    }
}

fn decode(raw: &str) -> String {
    let plus = raw.replace('+', " ");
    String::from_utf8_lossy(&percent_decode(plus.as_bytes()).collect::<Vec<u8>>()).into_owned()
}

/// Splits on `&` and `;`, then on every `=`, of which only the first two parts count. A key that comes again makes a
/// list. `_dc` is dropped; nothing between two separators is a key without a name.
pub(super) fn decode_form(raw: &str) -> Params {
    let mut params: BTreeMap<String, Value> = BTreeMap::new();
    for piece in raw.trim_end_matches(['&', ';']).split(['&', ';']) {
        let mut parts = piece.split('=');
        let key = decode(parts.next().unwrap_or_default());
        let Some(value) = parts.next().map(decode) else {
            params.insert(key, Value::Nothing);
            continue;
        };
        match params.get_mut(&key) {
            Some(Value::List(list)) => list.push(value),
            Some(Value::Text(first)) => {
                let list = vec![std::mem::take(first), value];
                params.insert(key, Value::List(list));
            }
            _ => {
                params.insert(key, Value::Text(value));
            }
        }
    }
    params.remove("_dc");
    if raw.trim_end_matches(['&', ';']).is_empty() {
        params.clear();
    }
    Params(params)
}

/// A number as the original's language writes it.
fn plain(number: &serde_json::Number) -> String {
    let Some(float) = number.as_f64().filter(|_| number.is_f64()) else { return number.to_string() };
    if float.abs() >= 1e15 { format!("{float:e}").replace('e', "e+").replace("e+-", "e-") } else { float.to_string() }
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    Some(match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::Bool(flag) => u8::from(*flag).to_string(),
        serde_json::Value::Number(number) => plain(number),
        serde_json::Value::String(text) => text.clone(),
        _ => return None,
    })
}

/// A JSON body. `Err` is the original's text.
pub(super) fn decode_json(raw: &[u8]) -> Result<Params, String> {
    let at = "at /usr/share/perl5/PVE/APIServer/AnyEvent.pm line";
    let object = match json::read(raw).map_err(|complaint| format!("{complaint} {at} 917.\n"))? {
        serde_json::Value::Object(object) => object,
        serde_json::Value::Null => return Ok(Params::default()),
        serde_json::Value::Array(_) | serde_json::Value::Bool(_) => {
            return Err(format!("Not a HASH reference {at} 957.\n"));
        }
        other => {
            let text = scalar(&other).unwrap_or_default();
            let shown: String = text.chars().take(32).collect();
            let more = if shown.len() < text.len() { "..." } else { "" };
            return Err(format!(
                "Can't use string (\"{shown}\"{more}) as a HASH ref while \"strict refs\" in use {at} 957.\n"
            ));
        }
    };
    let mut params = Params::default();
    for (key, value) in object {
        let value = match &value {
            serde_json::Value::Array(list) => Value::List(list.iter().filter_map(scalar).collect()),
            serde_json::Value::Object(_) => Value::Object,
            serde_json::Value::Bool(flag) => Value::Flag(*flag),
            serde_json::Value::Null => Value::Nothing,
            other => Value::Text(scalar(other).unwrap_or_default()),
        };
        params.0.insert(key, value);
    }
    params.0.remove("_dc");
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equals_sign_in_a_value_cuts_it_and_a_semicolon_separates() {
        let params = decode_form("scsi0=l:0,import-from=x&tags=a;b&_dc=1");
        assert_eq!(params.text("scsi0"), Some("l:0,import-from"));
        assert_eq!(params.text("tags"), Some("a"));
        assert_eq!((params.text("b"), params.0.get("b")), (None, Some(&Value::Nothing)));
        assert_eq!(params.0.get("_dc"), None);
        assert_eq!(decode_form("a=%3Bx%3D+%2B").text("a"), Some(";x= +"));
        assert_eq!(decode_form("a=1&a=2&a=3").0["a"], Value::List(vec!["1".into(), "2".into(), "3".into()]));
        assert_eq!(decode_form("a=1&&b=").0.into_keys().collect::<Vec<_>>(), ["", "a", "b"]);
        assert_eq!(decode_form("b=").text("b"), Some(""));
        for nothing in ["", "&", ";;&"] {
            assert_eq!(decode_form(nothing), Params::default(), "{nothing}");
        }
    }

    #[test]
    fn json_values_become_texts() {
        let params = decode_json(br#"{"a":true,"b":2.0,"c":null,"d":["x","y"],"e":{"f":1},"g":1e30}"#).unwrap();
        assert_eq!((params.text("a"), params.text("b"), params.text("c")), (Some("1"), Some("2"), None));
        assert_eq!(
            (&params.0["a"], &params.0["c"], params.text("g")),
            (&Value::Flag(true), &Value::Nothing, Some("1e+30"))
        );
        assert_eq!(decode_json(b"null"), Ok(Params::default()));
        assert_eq!(params.list("d"), ["x", "y"]);
        assert_eq!(params.0["e"], Value::Object);
        for malformed in ["{nonsense", "[1]", "", "\"x"] {
            assert!(decode_json(malformed.as_bytes()).is_err(), "{malformed}");
        }
    }
}
