//! What becomes of a configuration on its way to JSON and back, on which a JSON patch changes it.
//!
//! The real tool goes that way with ghodss/yaml 1.0.0 and gopkg.in/yaml.v2 2.4.0, which can't carry everything. Must not
//! know: operations.

use super::yaml::{Odd, Sort, Value};

/// The longest key that is read again from JSON, with its quotes and escapes.
const LONGEST_KEY: usize = 1024;

/// Which keys a mapping may have on its way to JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// All, as texts.
    Any,
    /// Texts only: a patch with others is refused.
    Texts,
}

/// What to do with control characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controls {
    Taken,
    Refused,
}

/// Numbers, booleans and dates as they come out of JSON, where each has one form; `false` when something has no form there.
pub(super) fn convert(value: &mut Value, keys: Keys) -> bool {
    match value {
        Value::Map(map) => {
            if map.has(Odd::Foreign) {
                if keys == Keys::Texts {
                    return false;
                }
                let Some(texts) = std::mem::take(map).with_text_keys() else { return false };
                *map = texts;
            }
            map.iter_mut().all(|(_, value)| convert(value, keys))
        }
        Value::List(list) => list.iter_mut().all(|value| convert(value, keys)),
        // In a configuration a date is the text that stands there.
        Value::Number(number) if keys == Keys::Any && number.sort() == Sort::Date => {
            *value = number.raw().into();
            true
        }
        Value::Bool(flag) => {
            *flag = flag.is_on().into();
            true
        }
        Value::Number(number) => match number.in_json() {
            Some(form) => {
                *value = form;
                true
            }
            None => false,
        },
        _ => true,
    }
}

/// Whether a character is written to JSON as it is, and refused where that is read as YAML.
pub(super) fn is_control(c: char) -> bool {
    matches!(c, '\x7f'..='\u{84}' | '\u{86}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}')
}

/// The same for a key, which is read from one line only.
pub(super) fn is_control_in_key(c: char) -> bool {
    is_control(c) || c == '\u{85}'
}

/// Whether a text in it, or a key, has a control character.
pub(super) fn has_controls(value: &Value) -> bool {
    match value {
        Value::Text(text) => text.contains(is_control),
        Value::List(list) => list.iter().any(has_controls),
        Value::Map(map) => map.iter().any(|(key, value)| key.contains(is_control_in_key) || has_controls(value)),
        _ => false,
    }
}

const CONTROL: &str = "a control character";
const LONG: &str = "a key of more than a thousand characters";

/// Where something stands that does not come back from JSON, and what it is; the place as a pointer.
pub(super) fn unreadable(value: &Value, controls: Controls) -> Option<(String, &'static str)> {
    let refuses = controls == Controls::Refused;
    let inside = |place: &dyn std::fmt::Display, value| {
        let (rest, what) = unreadable(value, controls)?;
        Some((format!("/{place}{rest}"), what))
    };
    match value {
        Value::Text(text) if refuses && text.contains(is_control) => Some((String::new(), CONTROL)),
        Value::List(list) => list.iter().enumerate().find_map(|(at, value)| inside(&at, value)),
        Value::Map(map) => map.iter().find_map(|(key, value)| {
            if refuses && key.contains(is_control_in_key) {
                Some((String::new(), CONTROL))
            } else if length(key) > LONGEST_KEY {
                Some((String::new(), LONG))
            } else {
                inside(&key, value)
            }
        }),
        _ => None,
    }
}

/// How many characters a text is in JSON, as Go writes it.
fn length(text: &str) -> usize {
    let of = |c| match c {
        '"' | '\\' | '\x08' | '\t' | '\n' | '\x0c' | '\r' => 2,
        '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        _ => 1,
    };
    2 + text.chars().map(of).sum::<usize>()
}

/// A patch in JSON as a text that is YAML as well: there no tab indents, a key's colon stands in its line, Unicode's
/// line separators end a line, and no character is two escapes. In values such pairs are left, and refused: what is made of
/// the patch can't be read again.
pub(super) fn as_yaml(json: &str) -> String {
    let (mut out, mut gap) = (String::with_capacity(json.len()), String::new());
    let (mut quoted, mut escaped) = (false, false);
    let (mut depth, mut pointer) = (0, None);
    for c in json.chars() {
        if !quoted && matches!(c, ' ' | '\t' | '\n' | '\r') {
            gap.push(if c == '\t' { ' ' } else { c });
            continue;
        }
        let mut breaks = String::new();
        if c == ':' && !quoted {
            // They follow the colon, so that all that comes after stands in the line where it stood.
            breaks = gap.chars().filter(|c| matches!(c, '\n' | '\r')).collect();
            gap.retain(|c| c == ' ');
        }
        out.push_str(&gap);
        gap = breaks;
        match c {
            '\u{2028}' => out.push_str("\\L"),
            '\u{2029}' => out.push_str("\\P"),
            _ => out.push(c),
        }
        match c {
            '[' | '{' if !quoted => depth += 1,
            ']' | '}' if !quoted => depth -= 1,
            '"' if !quoted => pointer = (depth == 2 && is_of_pointer(&out)).then(|| out.len() - 1),
            '"' if !escaped => {
                if let Some(at) = pointer.filter(|at| out[*at..].contains("\\u")) {
                    let text = joined(&out[at..]);
                    out.replace_range(at.., &text);
                }
            }
            _ => {}
        }
        quoted = if c == '"' && !escaped { !quoted } else { quoted };
        escaped = quoted && c == '\\' && !escaped;
    }
    out + &gap
}

/// Whether a quote at the end opens the value of an operation's `path` or `from`.
fn is_of_pointer(text: &str) -> bool {
    let key = text[..text.len() - 1].trim_end().strip_suffix(':').map(str::trim_end);
    key.is_some_and(|key| key.ends_with("\"path\"") || key.ends_with("\"from\""))
}

/// A string of JSON with its pairs of escapes as the characters that they stand for.
fn joined(text: &str) -> String {
    let Ok(plain) = serde_json::from_str::<String>(text) else { return text.to_owned() };
    let escaped = |c: char| if u32::from(c) > 0xffff { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) };
    format!("\"{}\"", plain.chars().map(escaped).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::yaml::one;
    use super::*;

    #[test]
    fn what_does_not_come_back_is_found_with_its_place() {
        let of = |text: &str| unreadable(&one(text).unwrap().root, Controls::Refused);
        assert_eq!(of("a: {b: [x, \"y\\x7f\"]}\n"), Some(("/a/b/1".to_owned(), CONTROL)));
        assert_eq!(of("a: {\"b\\x80\": x}\n"), Some(("/a".to_owned(), CONTROL)));
        assert_eq!(of("a: {\"b\\N\": x}\n"), Some(("/a".to_owned(), CONTROL)));
        assert_eq!(of("a: \"\\x01\\t\\N\\uFEFF\\U0001F600\"\n"), None);
        assert_eq!(unreadable(&one("a: \"\\x7f\"\n").unwrap().root, Controls::Taken), None);
        for (key, found) in [("k".repeat(1022), None), ("k".repeat(1023), Some(LONG)), ("<".repeat(171), Some(LONG))] {
            assert_eq!(of(&format!("a:\n  ? {key}\n  : x\n")).map(|(_, what)| what), found, "{}", key.len());
        }
    }

    #[test]
    fn keys_become_the_texts_that_the_real_tool_makes_of_them() {
        let keys = |text: &str| {
            let mut root = one(text).unwrap().root;
            convert(&mut root, Keys::Any).then(|| root.as_map().unwrap().keys().map(str::to_owned).collect::<Vec<_>>())
        };
        let cases = [
            ("3.14159265358979", "3.1415927"),
            ("123456789.5", "1.2345679e+08"),
            ("16777217.5", "1.6777218e+07"),
            ("0.30000000000000004", "0.3"),
            ("18446744073709551616", "1.8446744e+19"),
            ("1e40", ".inf"),
            ("-0", "0"),
            ("0x10", "16"),
            ("true", "true"),
        ];
        for (key, text) in cases {
            assert_eq!(keys(&format!("{key}: x\n")), Some(vec![text.to_owned()]), "{key}");
        }
        assert_eq!(keys("12345678901234567890: x\n"), None);
    }

    #[test]
    fn json_is_yaml_once_its_colons_stand_by_their_keys() {
        let json = "\t[{\"a\"\n :\"b \\\" :\\n\",\t\"c\" : [ 1 ] }\n]\n";
        assert_eq!(as_yaml(json), " [{\"a\" :\n\"b \\\" :\\n\", \"c\" : [ 1 ] }\n]\n");
        assert!(one(&as_yaml(json)).is_ok());
        let pairs = r#"[{"path" : "/\u00e9\ud83d\ude00\\ud83d", "value": {"path": "\ud83d\ude00"}}]"#;
        assert_eq!(
            as_yaml(pairs),
            "[{\"path\" : \"\\u002f\\u00e9\u{1f600}\\u005c\\u0075\\u0064\\u0038\\u0033\\u0064\", \"value\": {\"path\": \"\\ud83d\\ude00\"}}]"
        );
        let marks = one(&as_yaml("[{\n\"a\"\n:\n\"b\",\n\"c\"\r\n: 1}]")).unwrap().marks;
        assert_eq!((marks.line("[0].a"), marks.line("[0].c")), (Some(2), Some(5)));
    }
}
