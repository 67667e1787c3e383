//! `/cluster/notifications`: who is told, and of what.
//!
//! Endpoints, matchers and what is there from the beginning; rules after Proxmox VE 8.4
//! (PVE/API2/Cluster/Notifications.pm and the crate proxmox-notify). Nothing is ever sent: mail is taken and forgotten,
//! any other server can't be reached.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::pve::call::{Call, Result};
use crate::pve::params::Value as Given;
use crate::world::State;
use crate::world::property::Properties;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Sections;

type Object = Map<String, Value>;

/// Where all are kept, by name.
const FILE: &str = "notifications";
/// What only root may read of them.
const SECRETS: &str = "notifications/secrets";
const MATCHER: &str = "matcher";
const SEVERITIES: [&str; 5] = ["info", "notice", "warning", "error", "unknown"];

/// One kind of endpoints, or matchers.
struct Kind {
    name: &'static str,
    /// What is said of one that isn't there.
    noun: &'static str,
    /// What can be taken out of one.
    deletable: &'static [&'static str],
    /// The option that is never shown.
    secret: Option<&'static str>,
}

const SENDMAIL: Kind = Kind {
    name: "sendmail",
    noun: "endpoint",
    deletable: &["author", "comment", "disable", "from-address", "mailto", "mailto-user"],
    secret: None,
};
const GOTIFY: Kind =
    Kind { name: "gotify", noun: "endpoint", deletable: &["comment", "disable"], secret: Some("token") };
const SMTP: Kind = Kind {
    name: "smtp",
    noun: "endpoint",
    deletable: &["author", "comment", "disable", "mailto", "mailto-user", "password", "port", "username"],
    secret: Some("password"),
};
const WEBHOOK: Kind = Kind {
    name: "webhook",
    noun: "endpoint",
    deletable: &["comment", "disable", "header", "body", "secret"],
    secret: Some("secret"),
};
const MATCHERS: Kind = Kind {
    name: MATCHER,
    noun: "matcher",
    deletable: &[
        "comment",
        "disable",
        "invert-match",
        "match-calendar",
        "match-field",
        "match-severity",
        "mode",
        "target",
    ],
    secret: None,
};
/// In the order in which targets are listed.
const ENDPOINTS: [&Kind; 4] = [&GOTIFY, &SENDMAIL, &SMTP, &WEBHOOK];

/// What is there from the beginning.
fn builtin() -> BTreeMap<&'static str, Value> {
    const MAIL: &str = "mail-to-root";
    BTreeMap::from([
        (
            MAIL,
            json!({
                "type": SENDMAIL.name, "comment": "Send mails to root@pam's email address",
                "mailto-user": ["root@pam"],
            }),
        ),
        (
            "default-matcher",
            json!({
                "type": MATCHER, "comment": "Route all notifications to mail-to-root", "mode": "all",
                "target": [MAIL],
            }),
        ),
    ])
}

/// All there is, with where it comes from.
fn all(state: &State) -> Sections {
    let mut all = state.sections.get(FILE).cloned().unwrap_or_default();
    for entry in all.values_mut() {
        entry.insert("origin".to_owned(), json!("user-created"));
    }
    for (name, value) in builtin() {
        let written = state.sections.get(FILE).and_then(|file| file.get(name));
        let same = written.is_none_or(|written| Value::Object(written.clone()) == value);
        let origin = if same { "builtin" } else { "modified-builtin" };
        let entry = all.entry(name.to_owned()).or_insert_with(|| value.as_object().cloned().unwrap_or_default());
        entry.insert("origin".to_owned(), json!(origin));
    }
    all
}

fn digest(state: &State) -> String {
    hex::encode(Sha256::digest(serde_json::to_string(&state.sections.get(FILE)).unwrap_or_default()))
}

/// A value as a method was given it.
fn value(call: &Call, key: &str) -> Value {
    match call.params.0.get(key) {
        Some(Given::List(list)) => json!(list),
        _ if matches!(key, "disable" | "invert-match") => json!(u8::from(call.params.is_on(key))),
        _ if key == "port" => call.params.number::<u16>(key).map_or(Value::Null, |port| json!(port)),
        _ => json!(call.text(key)),
    }
}

fn list_of<'a>(entry: &'a Object, key: &str) -> impl Iterator<Item = &'a str> {
    entry.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

/// The clock's part of `mon..fri 9:00-17:00`.
fn is_daily(text: &str) -> bool {
    const DAY: &str = "(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*";
    let days = format!(r"{DAY}(?:\.\.{DAY})?(?:,{DAY}(?:\.\.{DAY})?)*");
    let whole = format!(r"(?i)^\s*(?:{days}\s+)?\d{{1,2}}(?::\d{{1,2}})?\s*-\s*\d{{1,2}}(?::\d{{1,2}})?\s*$");
    Regex::new(&whole).is_ok_and(|regex| regex.is_match(text))
}

fn check_match(entry: &Object) -> Rule<()> {
    let refuse = |text: String| Err(Refusal::failed(format!("{text}\n")));
    for text in list_of(entry, "match-field") {
        let parts = text.split_once(':').and_then(|(how, rest)| Some((how, rest.split_once('=')?)));
        let named = |field: &str| {
            let starts = field.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
            starts && field.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        };
        match parts {
            Some(("exact", (field, _))) if named(field) => {}
            Some(("regex", (field, expression))) if named(field) => {
                if let Err(error) = Regex::new(expression) {
                    return refuse(format!("could not apply filter: invalid regex: {error}"));
                }
            }
            _ => return refuse(format!("could not apply filter: invalid match-field statement: {text}")),
        }
    }
    for word in list_of(entry, "match-severity").flat_map(|text| text.split(',')).map(str::trim) {
        if !SEVERITIES.contains(&word) {
            return refuse(format!("invalid severity {word}"));
        }
    }
    if let Some(text) = list_of(entry, "match-calendar").find(|text| !is_daily(text)) {
        return refuse(format!("could not parse schedule: unable to parse daily duration '{text}'"));
    }
    Ok(())
}

/// Whether the value of a pair is base64 around a text.
fn is_encoded(pair: &Properties) -> bool {
    use base64::Engine as _;
    let value = pair.get("value").unwrap_or_default();
    base64::engine::general_purpose::STANDARD.decode(value).is_ok_and(|bytes| String::from_utf8(bytes).is_ok())
}

/// Writes an entry down, and what is to be kept secret of it beside it.
fn write(state: &mut State, name: &str, entry: Object, secrets: Option<Object>) {
    state.sections.entry(FILE.to_owned()).or_default().insert(name.to_owned(), entry);
    if let Some(secrets) = secrets {
        state.sections.entry(SECRETS.to_owned()).or_default().insert(name.to_owned(), secrets);
    }
}

impl Kind {
    fn missing(&self, name: &str) -> Refusal {
        Refusal::NotFound(format!("{} '{name}' not found\n", self.noun))
    }

    fn shown(&self, state: &State, name: &str, entry: &Object) -> Object {
        let mut shown = entry.clone();
        shown.remove("type");
        shown.insert("name".to_owned(), json!(name));
        if self.name == WEBHOOK.name {
            let secrets = state.sections.get(SECRETS).and_then(|file| file.get(name));
            let names = secrets.into_iter().flatten().map(|(name, _)| json!(format!("name={name}")));
            let names: Vec<Value> = names.collect();
            if !names.is_empty() {
                shown.insert("secret".to_owned(), json!(names));
            }
        }
        shown
    }

    fn list(&self, call: &Call) -> Result {
        let state = call.world.state();
        let all = all(&state);
        let own = all.iter().filter(|(_, entry)| entry.get("type") == Some(&json!(self.name)));
        Ok(own.map(|(name, entry)| Value::Object(self.shown(&state, name, entry))).collect::<Vec<_>>().into())
    }

    fn find(&self, state: &State, name: &str) -> Rule<Object> {
        let found = all(state).remove(name).filter(|entry| entry.get("type") == Some(&json!(self.name)));
        found.ok_or_else(|| self.missing(name))
    }

    fn read(&self, call: &Call) -> Result {
        let state = call.world.state();
        let name = call.text("name");
        let mut shown = self.shown(&state, name, &self.find(&state, name)?);
        shown.insert("digest".to_owned(), json!(digest(&state)));
        Ok(shown.into())
    }

    /// What a method says of an entry, but for what nobody may read.
    fn given(&self, call: &Call) -> Object {
        let control = ["name", "digest", "delete"];
        let keys =
            call.params.0.keys().filter(|key| !control.contains(&key.as_str()) && Some(key.as_str()) != self.secret);
        keys.map(|key| (key.clone(), value(call, key))).collect()
    }

    fn check(&self, state: &State, entry: &Object) -> Rule<()> {
        let unfit = |text: String| Err(Refusal::Unfit(format!("{text}\n")));
        let mails = [SENDMAIL.name, SMTP.name].contains(&self.name);
        if mails && list_of(entry, "mailto").chain(list_of(entry, "mailto-user")).next().is_none() {
            return unfit("must at least provide one recipient, either in mailto or in mailto-user".to_owned());
        }
        if self.name == MATCHER {
            check_match(entry)?;
            let all = all(state);
            let endpoint = |name: &&str| all.get(*name).is_some_and(|entry| entry.get("type") != Some(&json!(MATCHER)));
            if let Some(target) = list_of(entry, "target").find(|target| !endpoint(target)) {
                return Err(Refusal::NotFound(format!("endpoint '{target}' does not exist\n")));
            }
        }
        for text in list_of(entry, "header") {
            let pair = Properties::parse(text, "");
            let name = pair.get("name").unwrap_or_default();
            if pair.get("value").is_none() {
                return unfit(format!("header '{name}' has empty value"));
            }
            if !is_encoded(&pair) {
                return unfit(format!("header '{name}' does not have valid base64 encoded data"));
            }
        }
        Ok(())
    }

    /// What is to be kept secret, beside what is kept already; nothing: as it is.
    fn secrets(&self, state: &State, call: &Call, delete: &[String]) -> Rule<Option<Object>> {
        let Some(key) = self.secret else { return Ok(None) };
        let known = state.sections.get(SECRETS).and_then(|file| file.get(call.text("name")));
        match call.params.0.get(key) {
            Some(Given::List(list)) => {
                let mut kept = Object::new();
                for text in list {
                    let pair = Properties::parse(text, "");
                    let name = pair.get("name").unwrap_or_default();
                    let old = known.and_then(|known| known.get(name));
                    let text = match (pair.get("value"), old) {
                        (Some(_), _) if !is_encoded(&pair) => {
                            format!("secret '{name}' does not have valid base64 encoded data\n")
                        }
                        (Some(value), _) if !kept.contains_key(name) => {
                            kept.insert(name.to_owned(), json!(value));
                            continue;
                        }
                        (None, Some(old)) if !kept.contains_key(name) => {
                            kept.insert(name.to_owned(), old.clone());
                            continue;
                        }
                        (None, None) => format!("secret '{name}' not known\n"),
                        _ => format!("secret '{name}' defined multiple times\n"),
                    };
                    return Err(Refusal::Unfit(text));
                }
                Ok(Some(kept))
            }
            Some(_) => Ok(Some(Object::from_iter([(key.to_owned(), json!(call.text(key)))]))),
            None if delete.iter().any(|deleted| deleted == key) => Ok(Some(Object::new())),
            None => Ok(None),
        }
    }

    fn create(&self, call: &Call) -> Result {
        let name = call.text("name").to_owned();
        let mut state = call.world.state();
        let mut entry = self.given(call);
        if all(&state).contains_key(&name) {
            let text = format!("Cannot create '{name}', an entity with the same name already exists\n");
            return Err(Refusal::Unfit(text));
        }
        self.check(&state, &entry)?;
        let secrets = self.secrets(&state, call, &[])?;
        entry.insert("type".to_owned(), json!(self.name));
        write(&mut state, &name, entry, secrets);
        Ok(().into())
    }

    fn update(&self, call: &Call) -> Result {
        let name = call.text("name").to_owned();
        let mut state = call.world.state();
        let delete = call.params.list("delete");
        if let Some(key) = delete.iter().find(|key| !self.deletable.contains(&key.as_str())) {
            let words: Vec<String> = self.deletable.iter().map(|word| format!("`{word}`")).collect();
            let expected = if let [one, other] = &words[..] {
                format!("{one} or {other}")
            } else {
                format!("one of {}", words.join(", "))
            };
            return Err(Refusal::failed(format!("unknown variant `{key}`, expected {expected}\n")));
        }
        if call.params.text("digest").is_some_and(|wanted| !wanted.is_empty() && wanted != digest(&state)) {
            let text = "detected modified configuration - file changed by other user? Try again.\n";
            return Err(Refusal::Unfit(text.to_owned()));
        }
        let mut entry = self.find(&state, &name)?;
        entry.remove("origin");
        entry.retain(|key, _| !delete.contains(key));
        entry.extend(self.given(call));
        entry.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        self.check(&state, &entry)?;
        let secrets = self.secrets(&state, call, &delete)?;
        write(&mut state, &name, entry, secrets);
        Ok(().into())
    }

    /// What was there from the beginning is as it was then.
    fn delete(&self, call: &Call) -> Result {
        let name = call.text("name");
        let mut state = call.world.state();
        self.find(&state, name)?;
        let all = all(&state);
        let users = all.iter().filter(|(_, entry)| list_of(entry, "target").any(|target| target == name));
        let users: Vec<&str> = users.map(|(user, _)| user.as_str()).collect();
        if self.name != MATCHER && !builtin().contains_key(name) && !users.is_empty() {
            let text = format!("cannot delete '{name}', referenced by: {}\n", users.join(", "));
            return Err(Refusal::Unfit(text));
        }
        for file in [FILE, SECRETS] {
            if let Some(file) = state.sections.get_mut(file) {
                file.remove(name);
            }
        }
        Ok(().into())
    }
}

/// `GET /cluster/notifications/targets`
pub(in crate::pve) fn targets(call: &Call) -> Result {
    let state = call.world.state();
    let all = all(&state);
    let mut list = Vec::new();
    for kind in ENDPOINTS {
        for (name, entry) in all.iter().filter(|(_, entry)| entry.get("type") == Some(&json!(kind.name))) {
            let mut shown = entry.clone();
            shown.retain(|key, _| ["type", "comment", "disable", "origin"].contains(&key.as_str()));
            shown.insert("name".to_owned(), json!(name));
            list.push(Value::Object(shown));
        }
    }
    Ok(list.into())
}

/// `POST /cluster/notifications/targets/{name}/test`
pub(in crate::pve) fn test(call: &Call) -> Result {
    let state = call.world.state();
    let name = call.text("name");
    let all = all(&state);
    let kind = all.get(name).and_then(|entry| entry.get("type")?.as_str()).filter(|kind| *kind != MATCHER);
    let why = match kind {
        None => return Err(Refusal::NotFound(format!("endpoint '{name}' does not exist\n"))),
        Some("sendmail") => return Ok(().into()),
        Some("smtp") => "Connection error: Connection refused (os error 111)".to_owned(),
        Some(_) => {
            let url = ["server", "url"].iter().find_map(|key| all.get(name)?.get(*key)?.as_str()).unwrap_or_default();
            format!("{url}: Connection Failed: Connect error: Connection refused (os error 111)")
        }
    };
    let text = format!("Could not test target: could not notify via endpoint(s): {name}: {why}\n");
    Err(Refusal::failed(text))
}

methods_of! {
    gotify = GOTIFY, "`/cluster/notifications/endpoints/gotify`";
    sendmail = SENDMAIL, "`/cluster/notifications/endpoints/sendmail`";
    smtp = SMTP, "`/cluster/notifications/endpoints/smtp`";
    webhook = WEBHOOK, "`/cluster/notifications/endpoints/webhook`";
    matchers = MATCHERS, "`/cluster/notifications/matchers`";
}
