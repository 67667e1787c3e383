//! What a change of version means for a user's patches and configurations.
//!
//! Purpose: every deprecation and change of behaviour between the running and the target Talos version that touches what
//! this user wrote, each with what to write instead, as data that `config check`, a plan's warnings and an upgrade show.
//! Pure. Must not know: profiles, plans, nodes. Start with [`findings`]; the facts are in `rules`.

mod keys;
mod replacement;
mod rules;
mod translate;

use std::fmt::{self, Write as _};

use super::json_patch::Operation;
use super::patch::{Part, Patch};
use super::yaml::{self, Spot, Value};
use super::{Config, Contract, kind_of};
use crate::types::Version;
pub use replacement::{Replacement, Rest, left, replacement};
use rules::{Effect, OF_TALOS, Rule};
use translate::is_at_or_below;
pub use translate::{Contested, translate};

/// What is wrong with a delete at a key that has moved.
const NOTHING_TO_DELETE: &str = "a document says this, and there is nothing to delete at the old key";

/// The mapping of features.
const FEATURES: &str = "machine.features";

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Good to know: it works as before.
    Notice,
    /// It works, and does something else than before, or nothing any more.
    Changes,
    /// The target version, or a configuration of its contract, refuses it.
    Breaks,
}

/// Whose version changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Talos'.
    Talos,
    /// Kubernetes'.
    Kubernetes,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Talos => "Talos",
            Self::Kubernetes => "Kubernetes",
        })
    }
}

/// Something of the user's that a change of version touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A short fixed name, for scripts.
    pub rule: &'static str,
    /// How much it weighs.
    pub weight: Weight,
    /// The patch or the configuration it stands in; empty for what is the cluster's.
    pub origin: String,
    /// Where it stands there; nowhere when there is no text.
    pub spot: Spot,
    /// The kind of its document.
    pub document: String,
    /// The path in it.
    pub path: String,
    /// Whose version changed it.
    pub of: Product,
    /// The version that changed it.
    pub since: Version,
    /// What happens, a lower-case fragment.
    pub what: String,
    /// What to write or do instead.
    pub instead: String,
}

impl Finding {
    /// Where it is and what happens, without what to do.
    pub fn told(&self) -> String {
        let Self { origin, spot, document, path, of, since, what, .. } = self;
        let mut text = match (origin.is_empty(), spot.is_known()) {
            (true, _) => String::new(),
            (false, false) => format!("{origin}: "),
            (false, true) => format!("{origin}, {spot}: "),
        };
        if !path.is_empty() {
            let document = if document == "v1alpha1" { String::new() } else { format!("{document} ") };
            let _ = write!(text, "{document}{path}: ");
        }
        let (major, minor) = since.minor();
        let _ = write!(text, "since {of} {major}.{minor} {what}");
        text
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.told(), self.instead.lines().next().unwrap_or_default())
    }
}

/// What the user wrote.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subjects<'a> {
    /// Patches, in any order.
    pub patches: &'a [&'a Patch],
    /// Whole configurations, with what to call them.
    pub configs: &'a [(&'a str, &'a Config)],
    /// Whether the machines boot the nocloud image, as those on Proxmox VE do.
    pub nocloud: bool,
    /// The image that the machines boot next beside the one they run.
    pub image: Image,
}

/// A machine's next image beside its last one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Image {
    /// Nothing tells what the machines were made from.
    #[default]
    Unknown,
    /// It has the same extensions and kernel arguments.
    Same,
    /// It has others.
    Other,
}

/// An entry of a mapping that a patch sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: String,
    /// Its value, or each of its values; nothing where they are no texts.
    pub values: Vec<String>,
    /// Where it stands.
    pub spot: Spot,
}

/// What a patch does to a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Takes out all there is.
    Empties,
    /// Takes out a key.
    TakesOut(String),
    /// Sets a key.
    Sets(Entry),
}

/// What a patch does to the mapping at `path` of documents of a kind, in order.
pub fn deeds(patch: &Patch, document: &str, path: &str) -> Vec<Deed> {
    let takes_out = |keys: &[String]| {
        let (last, above) = keys.split_last()?;
        if is_at_or_below(path, &keys.join(".")) {
            return Some(Deed::Empties);
        }
        (above.join(".") == path).then(|| Deed::TakesOut(last.clone()))
    };
    let sets = |(key, value): (&str, &Value), spot: Spot| {
        let texts = value.as_list().unwrap_or(std::slice::from_ref(value));
        let values = texts.iter().filter_map(Value::as_text).map(str::to_owned).collect();
        Deed::Sets(Entry { key: key.to_owned(), values, spot })
    };
    let mut found = Vec::new();
    for part in patch.parts().iter().filter(|part| part.kind.name == document) {
        found.extend(part.deletes().iter().filter_map(|delete| takes_out(delete.path())));
        for (_, value) in Place::of_part(patch.origin(), part).find(path) {
            let all = value.as_map().into_iter().flat_map(yaml::Map::iter);
            found.extend(all.map(|(key, value)| sets((key, value), part.spot_of(&format!("{path}.{key}")))));
        }
    }
    for operation in patch.operations().iter().filter(|_| document == "v1alpha1") {
        found.extend(operation.takes().and_then(takes_out));
        let Some((keys, value)) = operation.writes() else { continue };
        // A mapping that is written takes the place of the one that was there.
        found.extend(takes_out(keys).filter(|deed| *deed == Deed::Empties));
        let whole = keys.iter().rev().fold(value.clone(), |value, key| yaml::Map::new().with(key, value).into());
        let there = whole.at(&path.split('.').collect::<Vec<_>>()).and_then(Value::as_map);
        found.extend(there.into_iter().flat_map(yaml::Map::iter).map(|entry| sets(entry, operation.spot())));
    }
    found
}

/// Everything that a change from `running` to `target` means for `subjects`, the gravest first. Without a running version
/// only what the target refuses or ignores is told.
pub fn findings(running: Option<&Version>, target: &Version, subjects: &Subjects<'_>) -> Vec<Finding> {
    let Ok(contract) = Contract::of(target) else { return Vec::new() };
    let running = running.and_then(|version| Contract::of(version).ok());
    let mut found = Vec::new();
    for patch in subjects.patches {
        if let Some(first) = patch.operations().first()
            && contract.has(super::Feature::HostnameDocument)
        {
            found.push(json_patch(patch.origin(), first, contract));
        }
        for part in patch.parts() {
            let place = Place::of_part(patch.origin(), part);
            of_document(&place, contract, running, subjects, &mut found);
        }
    }
    for (origin, config) in subjects.configs {
        for document in config.documents() {
            let Value::Map(map) = document else { continue };
            let place = Place { origin, kind: kind_of(document), root: map, part: None };
            of_document(&place, contract, running, subjects, &mut found);
        }
    }
    if let Some(running) = running.filter(|running| *running < contract) {
        found.extend(of_cluster(running, contract));
    }
    found.extend(renamed_links(subjects));
    found.sort_by(|a, b| {
        (b.weight, &a.origin, a.spot, &a.path, a.rule).cmp(&(a.weight, &b.origin, b.spot, &b.path, b.rule))
    });
    found.dedup();
    found
}

/// A document and where it stands.
struct Place<'a> {
    origin: &'a str,
    kind: &'a str,
    root: &'a super::yaml::Map,
    part: Option<&'a Part>,
}

impl<'a> Place<'a> {
    fn of_part(origin: &'a str, part: &'a Part) -> Self {
        static NOTHING: std::sync::LazyLock<super::yaml::Map> = std::sync::LazyLock::new(super::yaml::Map::new);
        Self { origin, kind: part.kind.name, root: part.content().unwrap_or(&NOTHING), part: Some(part) }
    }

    fn spot(&self, path: &str) -> Spot {
        self.part.map_or_else(Spot::default, |part| part.spot_of(path))
    }

    /// The places that a path with `[]` for every element and `{}` for every entry leads to, with their values.
    fn find(&self, path: &str) -> Vec<(String, &'a Value)> {
        let mut places: Vec<(String, &Value)> = Vec::new();
        for (at, key) in path.split('.').enumerate() {
            let each = key.ends_with("[]") || key.ends_with("{}");
            let key = key.trim_end_matches("[]").trim_end_matches("{}");
            let step = |value: Option<&'a Value>, path: String, next: &mut Vec<(String, &'a Value)>| match value {
                Some(Value::List(list)) if each => {
                    next.extend(list.iter().enumerate().map(|(at, value)| (format!("{path}[{at}]"), value)));
                }
                Some(Value::Map(map)) if each => {
                    next.extend(map.iter().map(|(key, value)| (format!("{path}.{key}"), value)));
                }
                Some(Value::Null) | None => {}
                Some(value) => next.push((path, value)),
            };
            let mut next = Vec::new();
            if at == 0 {
                step(self.root.get(key), key.to_owned(), &mut next);
            } else {
                for (path, value) in places {
                    step(value.at(&[key]), format!("{path}.{key}"), &mut next);
                }
            }
            places = next;
        }
        places
    }

    fn finding(&self, rule: &Rule, path: String) -> Finding {
        Finding {
            rule: rule.name,
            weight: rule.effect.weight(),
            origin: self.origin.to_owned(),
            spot: self.spot(&path),
            document: self.kind.to_owned(),
            path,
            of: Product::Talos,
            since: Version::new(1, rule.since.into(), 0),
            what: rule.what.to_owned(),
            instead: rule.instead.to_owned(),
        }
    }
}

fn of_document(
    place: &Place<'_>,
    contract: Contract,
    running: Option<Contract>,
    subjects: &Subjects<'_>,
    found: &mut Vec<Finding>,
) {
    let generated = place.part.is_some();
    for rule in rules::all().filter(|rule| contract >= Contract::minor(rule.since) && rule.document == place.kind) {
        // What a node does otherwise is news only once; what it refuses stays refused.
        let news = running.is_none_or(|running| running < Contract::minor(rule.since));
        let applies = match rule.effect {
            // A configuration of an older contract goes on; a patch meets what is generated now.
            Effect::Moved => generated && !deletes(subjects, rule),
            Effect::Refused => true,
            // What a machine was told and ignores already is no news of the machine; a patch is better without it.
            Effect::Ignored => generated || (news && !OF_TALOS.contains(&rule.name)),
            // What a patch can't say any more needs no word that it was to go.
            Effect::Deprecated => news && !(generated && has_moved(rule, contract)),
            Effect::Behaves | Effect::Seldom => news,
            Effect::Risks => running.is_none_or(|running| running < contract),
        };
        if !applies || (rule.nocloud && !subjects.nocloud) {
            continue;
        }
        for (path, value) in place.find(rule.path) {
            if rule.when.holds(value) {
                found.push(place.finding(rule, path));
            }
        }
    }
    if generated {
        let mut told: Vec<String> = Vec::new();
        for (_, key, since) in keys::KEYS.iter().filter(|(kind, ..)| *kind == place.kind) {
            for (path, _) in place.find(key).into_iter().filter(|_| contract < Contract::minor(*since)) {
                // What stands below a key that is too new goes with it.
                if !told.iter().any(|above| path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('.')))
                {
                    told.push(path.clone());
                    found.push(key_too_new(place, path, *since, contract));
                }
            }
        }
    }
    for delete in place.part.into_iter().flat_map(Part::deletes) {
        let path = delete.path().join(".");
        // Of the mappings above moved keys only that of features holds some that are generated.
        let covers = |key: &str| is_at_or_below(&path, key) || (path == FEATURES && is_at_or_below(key, FEATURES));
        let moved = |rule: &&Rule| {
            rule.effect == Effect::Moved && contract >= Contract::minor(rule.since) && rule.document == place.kind
        };
        let rule = rules::all().filter(moved).find(|rule| covers(rule.path) && !deletes(subjects, rule));
        if let Some(rule) = rule {
            let what = NOTHING_TO_DELETE.to_owned();
            let instead = "leave the delete out, or write it into the document that says this now".to_owned();
            found.push(Finding { what, instead, ..place.finding(rule, path) });
        }
    }
    if generated && let Some(since) = keys::kind_since(place.kind).filter(|since| contract < Contract::minor(*since)) {
        found.push(Finding {
            rule: "document-too-new",
            weight: Weight::Breaks,
            origin: place.origin.to_owned(),
            spot: place.spot(""),
            document: place.kind.to_owned(),
            path: String::new(),
            of: Product::Talos,
            since: Version::new(1, since.into(), 0),
            what: format!("there are documents {}, and Talos {contract} does not read them", place.kind),
            instead: "leave it out until the machines run that version, or use the keys of the main document"
                .to_owned(),
        });
    }
}

/// A key that the target version does not know yet: it would refuse the whole configuration.
fn key_too_new(place: &Place<'_>, path: String, since: u32, contract: Contract) -> Finding {
    Finding {
        rule: "key-too-new",
        weight: Weight::Breaks,
        origin: place.origin.to_owned(),
        spot: place.spot(&path),
        document: place.kind.to_owned(),
        path,
        of: Product::Talos,
        since: Version::new(1, since.into(), 0),
        what: format!("there is this key, and Talos {contract} does not read it"),
        instead: "leave it out until the machines run that version".to_owned(),
    }
}

fn json_patch(origin: &str, first: &Operation, contract: Contract) -> Finding {
    Finding {
        rule: "json-patch",
        weight: Weight::Breaks,
        origin: origin.to_owned(),
        spot: first.spot(),
        document: "v1alpha1".to_owned(),
        path: first.path().to_owned(),
        of: Product::Talos,
        since: Version::new(1, 12, 0),
        what: format!("a configuration has several documents, and a JSON patch changes one only (contract {contract})"),
        instead: "write it as a strategic merge patch: the part of the configuration as it should be".to_owned(),
    }
}

/// Whether a document has taken the place of the key of this rule.
fn has_moved(rule: &Rule, contract: Contract) -> bool {
    let same = |other: &&Rule| (other.document, other.path) == (rule.document, rule.path);
    rules::all().filter(same).any(|other| other.effect == Effect::Moved && contract >= Contract::minor(other.since))
}

/// Whether a patch takes out the document that says a moved key's value: then nothing conflicts with the old key.
fn deletes(subjects: &Subjects<'_>, rule: &Rule) -> bool {
    let names = |kind: &str| rule.instead.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == kind);
    let parts = subjects.patches.iter().flat_map(|patch| patch.parts());
    let gone = parts.filter(|part| part.deletes_whole());
    gone.into_iter().any(|part| names(part.kind.name))
}

/// What changes for every cluster, whatever its patches say.
fn of_cluster(running: Contract, target: Contract) -> impl Iterator<Item = Finding> {
    rules::CHANGES
        .iter()
        .filter(move |change| running < Contract::minor(change.since) && Contract::minor(change.since) <= target)
        .filter(move |change| change.until.is_none_or(|until| target < Contract::minor(until)))
        .map(|change| cluster_finding(change.name, change.since, change.what, change.instead))
}

/// Links can get other names with other extensions, whatever happens to the version.
fn renamed_links(subjects: &Subjects<'_>) -> Option<Finding> {
    let by_name = |part: &Part| {
        part.kind.link || !Place::of_part("", part).find("machine.network.interfaces[].interface").is_empty()
    };
    let named = subjects.patches.iter().any(|patch| patch.parts().iter().any(by_name));
    (subjects.image == Image::Other && named).then(|| Finding {
        weight: Weight::Changes,
        ..cluster_finding(
            "nic-rename",
            5,
            "network links can change their names with the extensions (eth0, ens18), and patches choose them by name",
            "choose links by their hardware address: deviceSelector, or a LinkAliasConfig",
        )
    })
}

fn cluster_finding(name: &'static str, since: u32, what: &str, instead: &str) -> Finding {
    Finding {
        rule: name,
        weight: Weight::Notice,
        origin: String::new(),
        spot: Spot::default(),
        document: String::new(),
        path: String::new(),
        of: Product::Talos,
        since: Version::new(1, since.into(), 0),
        what: what.to_owned(),
        instead: instead.to_owned(),
    }
}

#[cfg(test)]
mod tests;
