//! Configurations read strictly: which documents they have, and everything in them that a node would not read.
//!
//! Rules of siderolabs/talos `pkg/machinery/config/{configloader/internal/decoder,container}` (v1.13.9, v1.14.0-rc.1).
//! Must not know: what documents mean. Start with [`Config::read`].

use std::collections::BTreeMap;
use std::fmt;

use super::schema::shapes::{self, Kind};
use super::schema::{self, Flaw};
use super::yaml::{Document, Map, Marks, Nothing, Spot, Value, YamlError, read};
use super::{Config, kind_of};

/// Something in a text that a node would not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Where; nowhere when what was looked at is no text.
    pub spot: Spot,
    /// Its document's kind, with its name; empty for the main document, and where it can't be told.
    pub document: String,
    /// The path in its document; empty for the document itself.
    pub path: String,
    /// What is wrong, a lower-case fragment.
    pub what: String,
}

impl Wrong {
    pub(super) fn at(spot: Spot, path: &str, what: impl Into<String>) -> Self {
        Self { spot, document: String::new(), path: path.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.spot.is_known() {
            write!(f, "{}: ", self.spot)?;
        }
        if !self.document.is_empty() {
            write!(f, "{}: ", self.document)?;
        }
        match self.what.strip_prefix("unknown key").filter(|_| !self.path.is_empty()) {
            Some(rest) => write!(f, "unknown key {}{rest}", self.path),
            None if self.path.is_empty() => f.write_str(&self.what),
            None => write!(f, "{} {}", self.path, self.what),
        }
    }
}

/// All of them in a line.
pub(super) fn shown(wrong: &[Wrong]) -> String {
    wrong.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A text that is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is no YAML.
    #[error("it is not readable as YAML")]
    Yaml(#[from] YamlError),
    /// It has no documents.
    #[error("there is nothing in it")]
    Empty,
    /// Its documents are none that a node would read.
    #[error("{}", shown(.0))]
    Documents(Vec<Wrong>),
}

/// Why a document's kind cannot be told.
#[derive(Clone, Debug)]
pub(super) struct Unfit {
    /// The key it hangs on; empty for the document itself.
    pub(super) key: &'static str,
    pub(super) what: String,
}

impl Unfit {
    pub(super) fn wrong(self, spot: Spot, marks: &Marks) -> Wrong {
        let at = if self.key.is_empty() { spot } else { marks.spot(self.key).unwrap_or(spot) };
        Wrong::at(at, "", self.what)
    }
}

/// Keys that make a document without `apiVersion` the main one.
const MAIN_KEYS: [&str; 4] = ["machine", "cluster", "debug", "persist"];

/// Whether a mapping has a key that makes it the main document.
pub(super) fn is_main(map: &Map) -> bool {
    MAIN_KEYS.iter().any(|key| map.get(key).is_some())
}

/// What a document is.
pub(super) fn kind(root: &Value) -> Result<&'static Kind, Unfit> {
    let unfit = |key, what: String| Err(Unfit { key, what });
    let Value::Map(map) = root else {
        return unfit("", format!("a document must be a mapping, this is {}", root.kind()));
    };
    for key in ["kind", "apiVersion"] {
        // A node looks for the key among keys and values alike, and takes the last one.
        let place = map.keys().position(|name| name == key);
        let named = |(at, (_, value)): (usize, (&str, &Value))| {
            value.as_text() == Some(key) && place.is_none_or(|place| at > place)
        };
        if map.iter().enumerate().any(named) {
            let what = format!("a node takes the value '{key}' for the key of that name: put {key} behind it");
            return unfit(key, what);
        }
    }
    let text = |key| map.get(key).and_then(Value::as_text).filter(|text| !text.is_empty());
    let main = is_main(map);
    let version = if main { Some("v1alpha1") } else { text("apiVersion") };
    match (text("kind"), version) {
        (None, Some("v1alpha1")) if main => match shapes::document("v1alpha1") {
            Some(kind) => Ok(kind),
            None => unfit("", "the main document is not known".to_owned()),
        },
        (None, Some(_)) => unfit("apiVersion", "a document with apiVersion needs a kind".to_owned()),
        (None, None) => {
            let first = map.keys().next().unwrap_or_default();
            let near = schema::nearest_main(first).map_or_else(
                || "; a document has machine or cluster in it, or apiVersion and kind".to_owned(),
                |near| format!(", did you mean '{near}'?"),
            );
            unfit("kind", format!("unknown key {first}{near}"))
        }
        (Some(kind), None) if schema::knows_kind(kind) => {
            unfit("kind", "a document with a kind needs apiVersion: v1alpha1".to_owned())
        }
        (Some(kind), None | Some("v1alpha1")) => {
            if let Some(kind) = shapes::document(kind).filter(|_| schema::knows_kind(kind)) {
                Ok(kind)
            } else {
                let near = schema::nearest_kind(kind).map_or_else(
                    || "; correct it, or leave the document out".to_owned(),
                    |near| format!(", did you mean '{near}'?"),
                );
                unfit("kind", format!("unknown kind '{kind}'{near}"))
            }
        }
        (Some(_), Some(_)) => unfit("apiVersion", "apiVersion must be v1alpha1".to_owned()),
    }
}

/// Flaws with their places, in the document of this title.
pub(super) fn wrong(flaws: Vec<Flaw>, title: &str, spot: Spot, marks: &Marks) -> Vec<Wrong> {
    let document = if title == "v1alpha1" { "" } else { title };
    flaws
        .into_iter()
        .map(|Flaw { path, reason }| {
            let spot = if spot.is_known() { marks.spot(&path).unwrap_or(spot) } else { spot };
            Wrong { spot, document: document.to_owned(), path, what: reason.to_string() }
        })
        .collect()
}

/// A document's kind, with its name.
pub(super) fn title(kind: &Kind, name: Option<&str>) -> String {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => format!("{}/{name}", kind.name),
        None => kind.name.to_owned(),
    }
}

/// Documents that may not stand beside an earlier one, by their index.
pub(super) fn clashes(documents: &[Value]) -> Vec<(usize, String)> {
    let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut found = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        let kind = kind_of(document);
        let named = shapes::document(kind);
        let name = document.at(&["name"]).and_then(Value::as_text).unwrap_or_default();
        let name = if named.is_some_and(|kind| kind.named) { name } else { "" };
        let shown = |kind: &str| if name.is_empty() { kind.to_owned() } else { format!("{kind}/{name}") };
        if seen.insert((kind, name), at).is_some() {
            found.push((at, format!("two documents {}: keep one of them", shown(kind))));
            continue;
        }
        let conflicts = named.map(|kind| kind.conflicts.as_slice()).unwrap_or_default();
        if let Some(other) = conflicts.iter().find(|other| seen.contains_key(&(**other, name))) {
            found.push((
                at,
                format!("{} and {}, which exclude each other: keep one of them", shown(other), shown(kind)),
            ));
        }
    }
    found
}

impl Config {
    /// Reads a configuration as a node does: every key and value must be one that its document has.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub fn read(text: &str) -> Result<Self, ConfigError> {
        let documents = read(text)?;
        if documents.is_empty() {
            return Err(ConfigError::Empty);
        }
        let (mut config, mut found) = (Self::default(), Vec::new());
        let spots: Vec<Spot> = documents.iter().map(|document| document.spot).collect();
        for document in documents {
            match decode(document) {
                Ok(root) => config.documents.push(root),
                Err(wrong) => found.extend(wrong),
            }
        }
        if found.is_empty() {
            let clashes = clashes(&config.documents);
            found.extend(clashes.into_iter().map(|(at, what)| Wrong::at(spots[at], "", what)));
        }
        if !found.is_empty() {
            return Err(ConfigError::Documents(found));
        }
        config.arrange();
        Ok(config)
    }

    /// The text of all documents after they were read once more by their types: a JSON patch may have put anything in.
    ///
    /// # Errors
    /// With everything that a node would not read.
    pub fn settled(mut self) -> Result<secrecy::SecretString, ConfigError> {
        self.settle().map_err(ConfigError::Documents)?;
        Ok(self.to_yaml())
    }

    /// Reads the documents by their types where they stand, and brings them into the form they are written in.
    pub(super) fn settle(&mut self) -> Result<(), Vec<Wrong>> {
        let documents = std::mem::take(&mut self.documents);
        let mut found = Vec::new();
        for root in documents {
            match decode(Document { root, spot: Spot::default(), marks: Marks::default(), nothing: Nothing::default() })
            {
                Ok(root) => self.documents.push(root),
                Err(wrong) => found.extend(wrong),
            }
        }
        self.arrange();
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    pub(super) fn arrange(&mut self) {
        let leaves_out = self.is_of_documents();
        for document in &mut self.documents {
            let kind = kind_of(document).to_owned();
            let Value::Map(map) = document else { continue };
            schema::arrange(&kind, map);
            // Since 1.14 an endpoint that is not there is not written.
            if let Some(Value::Map(cluster)) = map.get_mut("cluster").filter(|_| leaves_out && kind == "v1alpha1")
                && cluster.get("controlPlane") == Some(&Value::Null)
            {
                cluster.remove("controlPlane");
            }
        }
    }
}

/// A document read by the types of its kind.
pub(super) fn decode(document: Document) -> Result<Value, Vec<Wrong>> {
    let Document { root, spot, marks, .. } = document;
    let kind = kind(&root).map_err(|unfit| vec![unfit.wrong(spot, &marks)])?;
    let name = root.at(&["name"]).and_then(Value::as_text).filter(|_| kind.named);
    let title = title(kind, name);
    let Value::Map(map) = root else { return Err(Vec::new()) };
    schema::read_document(kind.name, map).map(Value::Map).map_err(|flaws| wrong(flaws, &title, spot, &marks))
}
