//! A document against the schema: everything that is wrong with it, at once.
//!
//! Purpose: the committed JSON Schema is what editors and this module check by, so that neither knows more than the
//! other. Only the words that the schema uses are understood. Must not know: what scenarios mean. Start at [`check`].

use regex::Regex;
use serde_json::Value;

use super::Problem;
use super::tree::{At, Data, Node};

/// How alike two keys are that are taken for the same one with a slip in it.
const ALIKE: f64 = 0.6;

/// What is wrong with a document.
pub(super) fn check(schema: &Value, root: &Node) -> Vec<Problem> {
    let mut check = Check { schema, found: Vec::new() };
    check.node(schema, root, "the scenario");
    check.found
}

struct Check<'a> {
    schema: &'a Value,
    found: Vec<Problem>,
}

impl<'a> Check<'a> {
    /// The rules behind a `$ref`, with what stands beside it left to readers.
    fn resolve(&self, rules: &'a Value) -> &'a Value {
        match rules["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
            Some(path) => self.schema.pointer(path).unwrap_or(rules),
            None => rules,
        }
    }

    fn say(&mut self, at: At, what: String, hint: Option<String>) {
        self.found.push(Problem { line: at.line, column: at.column, what, hint });
    }

    fn node(&mut self, rules: &'a Value, node: &Node, name: &str) {
        let rules = self.resolve(rules);
        let kinds: Vec<&str> = match &rules["type"] {
            Value::String(kind) => vec![kind],
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
            _ => return,
        };
        let title = rules["title"].as_str();
        let wanted = || {
            title.map_or_else(|| kinds.iter().map(|kind| spoken(kind)).collect::<Vec<_>>().join(" or "), str::to_owned)
        };
        match &node.data {
            Data::Map(entries) if kinds.contains(&"object") => self.map(rules, node, entries, name),
            Data::List(items) if kinds.contains(&"array") => {
                for item in items {
                    self.node(&rules["items"], item, name);
                }
            }
            Data::Text(text, _) if kinds.contains(&"integer") && node.integer().is_some() => {
                let number = node.integer().unwrap_or_default();
                let low = rules["minimum"].as_u64().is_some_and(|least| number < least);
                let high = rules["maximum"].as_u64().is_some_and(|most| number > most);
                if low || high {
                    let (least, most) = (&rules["minimum"], &rules["maximum"]);
                    let range = if most.is_null() { format!("at least {least}") } else { format!("{least} to {most}") };
                    self.say(node.at, format!("`{name}` is {text}, and must be {range}"), None);
                }
            }
            Data::Text(text, _) if kinds.contains(&"string") && !node.is_null() => {
                self.text(rules, node.at, text, name, &wanted());
            }
            _ => {
                let is = match &node.data {
                    Data::Text(text, _) if text.is_empty() => "nothing".to_owned(),
                    Data::Text(text, _) => format!("`{text}`"),
                    Data::List(_) => "a list".to_owned(),
                    Data::Map(_) => "a mapping".to_owned(),
                };
                self.say(node.at, format!("`{name}` is {is}, and must be {}", wanted()), None);
            }
        }
    }

    fn text(&mut self, rules: &Value, at: At, text: &str, name: &str, wanted: &str) {
        // Where more than text is possible, its words are behind `if: {type: string}`.
        if let Some(words) = rules["enum"].as_array().or(rules["then"]["enum"].as_array()) {
            let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
            if !words.contains(&text) {
                let what = format!("`{name}` is `{text}`, and must be one of {}", words.join(", "));
                self.say(at, what, nearest(text, words.iter().copied()));
            }
        }
        let fits = |pattern: &str| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text));
        if rules["pattern"].as_str().is_some_and(|pattern| !fits(pattern)) {
            self.say(at, format!("`{name}` is `{text}`, and must be {wanted}"), None);
        }
    }

    fn map(&mut self, rules: &'a Value, node: &Node, entries: &[(String, At, Node)], name: &str) {
        let known = rules["properties"].as_object();
        for (key, at, value) in entries {
            if let Some(rules) = known.and_then(|known| known.get(key)) {
                self.node(rules, value, key);
            } else if rules["additionalProperties"].is_object() {
                self.node(&rules["additionalProperties"], value, key);
            } else {
                let keys = known.into_iter().flat_map(serde_json::Map::keys).map(String::as_str);
                let hint = nearest(key, keys.clone());
                let all = keys.collect::<Vec<_>>().join(", ");
                let hint = hint.or_else(|| Some(format!("there are: {all}")));
                self.say(*at, format!("there is no key `{key}` in {}", spoken_name(name)), hint);
            }
        }
        let is_there = |key: &str| entries.iter().any(|(known, ..)| known == key);
        for key in rules["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !is_there(key) {
                self.say(node.at, format!("{} needs `{key}`", spoken_name(name)), None);
            }
        }
        let count = entries.len() as u64;
        if rules["minProperties"].as_u64().is_some_and(|least| count < least) {
            self.say(node.at, format!("{} says nothing", spoken_name(name)), None);
        }
        if rules["maxProperties"].as_u64().is_some_and(|most| count > most) {
            self.say(node.at, format!("{} says several things, and must say one", spoken_name(name)), None);
        }
    }
}

fn spoken(kind: &str) -> &'static str {
    match kind {
        "object" => "a mapping",
        "array" => "a list",
        "integer" => "a whole number",
        _ => "text",
    }
}

fn spoken_name(name: &str) -> String {
    if name.starts_with("the ") { name.to_owned() } else { format!("`{name}`") }
}

/// The known word that somebody may have meant.
fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let scored = known.map(|word| (strsim::normalized_damerau_levenshtein(given, word), word));
    let best = scored.max_by(|one, other| one.0.total_cmp(&other.0))?;
    (best.0 >= ALIKE).then(|| format!("did you mean `{}`?", best.1))
}
