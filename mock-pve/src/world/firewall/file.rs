//! Firewall configs as text: `/etc/pve/firewall/….fw`, `…/host.fw`.
//!
//! Purpose: what somebody logged in reads, and what a backup holds. Must not know: nodes, requests. Layout after Proxmox
//! VE 8.4 (PVE/Firewall.pm). Start at [`text`].

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Firewall, Group, IpSet, Object, clean_cidr};

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn get(object: &Object, key: &str) -> Option<String> {
    object.get(key).map(plain).filter(|text| !text.is_empty())
}

fn remark(comment: Option<&str>) -> String {
    comment.filter(|text| !text.trim().is_empty()).map_or_else(String::new, |text| format!(" # {text}"))
}

/// Options of a rule that are no group, in order.
const WORDS: [(&str, &str); 7] = [
    ("source", "source"),
    ("dest", "dest"),
    ("proto", "p"),
    ("dport", "dport"),
    ("sport", "sport"),
    ("log", "log"),
    ("icmp-type", "icmp-type"),
];

fn rules(text: &mut String, rules: &[Object]) {
    for rule in rules {
        let (kind, action) = (get(rule, "type").unwrap_or_default(), get(rule, "action").unwrap_or_default());
        if get(rule, "enable").is_some_and(|flag| flag == "0") {
            text.push('|');
        }
        text.push_str(&kind.to_ascii_uppercase());
        // Writing to a string can't fail; here and below.
        let _ = match get(rule, "macro") {
            Some(named) => write!(text, " {named}({action})"),
            None => write!(text, " {action}"),
        };
        let words = if kind == "group" { &[][..] } else { &WORDS[..] };
        for (key, word) in [("iface", "i")].iter().chain(words) {
            if let Some(value) = get(rule, key) {
                let _ = write!(text, " -{word} {value}");
            }
        }
        text.push_str(&remark(get(rule, "comment").as_deref()));
        text.push('\n');
    }
    text.push('\n');
}

/// The file's text; empty, where there is no file. The options are given apart: the cluster's are kept elsewhere.
pub fn text(options: &Object, firewall: &Firewall) -> String {
    let mut text = String::new();
    if !options.is_empty() {
        text.push_str("[OPTIONS]\n\n");
        for (key, value) in options {
            let _ = writeln!(text, "{key}: {}", plain(value));
        }
        text.push('\n');
    }
    if !firewall.aliases.is_empty() {
        text.push_str("[ALIASES]\n\n");
        for alias in firewall.aliases.values() {
            let (name, cidr) = (get(alias, "name").unwrap_or_default(), get(alias, "cidr").unwrap_or_default());
            let _ = writeln!(text, "{name} {cidr}{}", remark(get(alias, "comment").as_deref()));
        }
        text.push('\n');
    }
    for (name, set) in &firewall.sets {
        let _ = write!(text, "[IPSET {name}]{}\n\n", remark(set.comment.as_deref()));
        let mut lines: Vec<(String, String)> = Vec::new();
        for entry in &set.entries {
            let cidr = get(entry, "cidr").unwrap_or_default();
            let not = if get(entry, "nomatch").is_some_and(|flag| flag == "1") { "!" } else { "" };
            lines.push((cidr.clone(), format!("{not}{cidr}{}\n", remark(get(entry, "comment").as_deref()))));
        }
        lines.sort();
        text.extend(lines.into_iter().map(|(_, line)| line));
        text.push('\n');
    }
    if !firewall.rules.is_empty() {
        text.push_str("[RULES]\n\n");
        rules(&mut text, &firewall.rules);
    }
    for (name, group) in &firewall.groups {
        let _ = write!(text, "[group {name}]{}\n\n", remark(group.comment.as_deref()));
        rules(&mut text, &group.rules);
    }
    text
}

/// What follows a section's head belongs to it.
enum Section {
    None,
    Options,
    Aliases,
    Set(String),
    Rules,
    Group(String),
}

fn split_remark(line: &str) -> (&str, Option<String>) {
    match line.split_once('#') {
        Some((line, comment)) => (line.trim(), Some(comment.trim().to_owned()).filter(|text| !text.is_empty())),
        None => (line.trim(), None),
    }
}

fn with_comment(mut object: Object, comment: Option<String>) -> Object {
    if let Some(comment) = comment {
        object.insert("comment".to_owned(), json!(comment));
    }
    object
}

fn object(parts: &[(&str, Value)]) -> Object {
    parts.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

fn parse_rule(line: &str) -> Option<Object> {
    let (line, comment) = split_remark(line);
    let (enable, line) = line.strip_prefix('|').map_or((1, line), |rest| (0, rest));
    let mut words = line.split_whitespace();
    let (kind, action) = (words.next()?.to_ascii_lowercase(), words.next()?);
    let mut rule = object(&[("type", json!(kind)), ("enable", json!(enable))]);
    match action.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((named, action)) => rule.extend(object(&[("macro", json!(named)), ("action", json!(action))])),
        None => rule.extend(object(&[("action", json!(action))])),
    }
    while let Some(word) = words.next() {
        let word = word.trim_start_matches('-');
        let known = WORDS.iter().find(|(key, short)| *short == word || *key == word).map(|(key, _)| *key);
        let key = known.or((word == "i").then_some("iface"))?;
        rule.insert(key.to_owned(), json!(words.next()?));
    }
    Some(with_comment(rule, comment))
}

fn parse_address(line: &str) -> Option<Object> {
    let (line, comment) = split_remark(line);
    let (not, cidr) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
    if cidr.is_empty() {
        return None;
    }
    let mut entry = object(&[("cidr", json!(cidr))]);
    if not {
        entry.insert("nomatch".to_owned(), json!(1));
    }
    Some(with_comment(entry, comment))
}

fn parse_alias(line: &str) -> Option<Object> {
    let (line, comment) = split_remark(line);
    let (name, cidr) = line.split_once(char::is_whitespace)?;
    let (_, family) = clean_cidr(cidr.trim())?;
    let alias = [("name", json!(name)), ("cidr", json!(cidr.trim())), ("ipversion", json!(family))];
    Some(with_comment(object(&alias), comment))
}

/// The parts of a VM's file; lines that can't be read are left out, as the original does with a note in the system log.
pub fn parse(text: &str) -> Firewall {
    let mut firewall = Firewall::default();
    let mut section = Section::None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some((head, rest)) = line.strip_prefix('[').and_then(|line| line.split_once(']')) {
            let comment = split_remark(rest).1;
            let words: Vec<&str> = head.split_whitespace().collect();
            section = match words.as_slice() {
                [one] if one.eq_ignore_ascii_case("options") => Section::Options,
                [one] if one.eq_ignore_ascii_case("aliases") => Section::Aliases,
                [one] if one.eq_ignore_ascii_case("rules") => Section::Rules,
                [one, name] if one.eq_ignore_ascii_case("ipset") => {
                    firewall.sets.insert((*name).to_owned(), IpSet { comment, entries: Vec::new() });
                    Section::Set((*name).to_owned())
                }
                [one, name] if one.eq_ignore_ascii_case("group") => {
                    firewall.groups.insert((*name).to_owned(), Group { comment, rules: Vec::new() });
                    Section::Group((*name).to_owned())
                }
                _ => Section::None,
            };
            continue;
        }
        match &section {
            Section::None => {}
            Section::Options => {
                if let Some((key, value)) = line.split_once(':') {
                    let value = value.trim();
                    let value = value.parse::<u64>().map_or_else(|_| json!(value), |number| json!(number));
                    firewall.options.insert(key.trim().to_owned(), value);
                }
            }
            Section::Aliases => {
                if let Some(alias) = parse_alias(line) {
                    firewall.aliases.insert(get(&alias, "name").unwrap_or_default().to_ascii_lowercase(), alias);
                }
            }
            Section::Set(name) => {
                if let (Some(set), Some(entry)) = (firewall.sets.get_mut(name), parse_address(line)) {
                    set.entries.push(entry);
                }
            }
            Section::Rules => firewall.rules.extend(parse_rule(line)),
            Section::Group(name) => {
                if let (Some(group), Some(rule)) = (firewall.groups.get_mut(name), parse_rule(line)) {
                    group.rules.push(rule);
                }
            }
        }
    }
    firewall
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[OPTIONS]\n\nenable: 1\npolicy_in: DROP\n\n[ALIASES]\n\nDb 10.0.0.9\n\n[IPSET lan] # at home\n\n\
                        10.0.0.0/8\n!10.1.0.0/16 # not these\n\n[RULES]\n\n|IN SSH(ACCEPT) -i net0 -source +lan # in\n\
                        OUT DROP -dest 10.0.0.9 -p tcp -dport 80 -log nolog\nGROUP web -i net0\n\n";

    #[test]
    fn a_file_reads_back_as_it_was_written() {
        let firewall = parse(FILE);
        assert_eq!(firewall.rules.len(), 3);
        assert_eq!((&firewall.rules[0]["macro"], &firewall.rules[0]["enable"]), (&json!("SSH"), &json!(0)));
        assert_eq!(firewall.aliases["db"]["ipversion"], json!(4));
        assert_eq!(firewall.sets["lan"].entries[1]["nomatch"], json!(1));
        assert_eq!(text(&firewall.options, &firewall), FILE);
        assert_eq!(text(&Object::new(), &Firewall::default()), "", "nothing said, no file");
        assert_eq!(parse("[RULES]\nIN ACCEPT -nonsense 1\nIN\n[ALIASES]\nx y\n"), Firewall::default());
    }
}
