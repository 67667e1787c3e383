//! Patches as users write them: configuration documents that are merged into a configuration.
//!
//! Also lists of JSON patch operations, for configurations of one document. Must not know: files; the caller reads them
//! and says where the text came from.
//!
//! What talosctl 1.13.9 takes is taken, what it refuses is refused, and the result is the same to the byte
//! (`tests/it/config_edges.rs` asks it), but for what is listed here. These differences are on purpose:
//!
//! - A document to delete, or one with a key to delete, has to be there (up to contract 1.13): talosctl appends an empty
//!   document instead, which nobody can read. `$patch` takes `delete` only, once, also where any key may stand. `null` in a
//!   list of interfaces or admission plug-ins says nothing, as elsewhere: talosctl dies of it.
//! - In free content, dates and keys that are no texts are refused: the next program that copies the configuration, and
//!   that is the node, dies of them. Nowhere is a key null: talosctl drops it with its value.
//! - A multi-line text whose first line begins with a tab or, after empty lines, with a space, is written in quotes, and
//!   the indent that is told for a block in a list is counted from the list: what talosctl writes there is read otherwise,
//!   or not at all.
//! - A JSON patch: its paths begin with `/` (talosctl drops what stands before the first one, and changes another place),
//!   nothing follows its list, nor the null that stands for an empty one (talosctl passes over it), no operation says a key
//!   twice, a whole configuration is replaced by a mapping only, a test compares what is meant and not how it is escaped.
//!   The configuration that it changes is read as all others are: `yes` and `on` without quotes stay texts, keys that are
//!   there twice are refused, anchors may have any name, the next line of Unicode (U+0085) stays in a text where talosctl
//!   makes a space of it, also in the patch. Half a pair of `\u` escapes is no character.
//! - The text has one byte order mark at most, and is nested 200 levels deep at most, for the stack's sake; `!!binary` stands
//!   for a text, because nothing in a configuration is anything else. A document that has a kind has an `apiVersion`: a node
//!   refuses it without one, unless a value in it happens to be called `debug`.
//! - Kinds and keys of Talos 1.14 are known.
//! - `null` or a list before a document that can't be read: talosctl drops the rest of the patch without a word.
//!
//! These are not, and nobody has mended them yet, all of them of a JSON patch: a value with a `\u` escape of two halves that
//! another operation takes out again is refused; and where a configuration, or a path of the patch, has a control character
//! between U+007F and U+009F, one that is an escape in the patch is refused beside it.

use super::decode::{self, Unfit, Wrong};
use super::delete::{self, Delete};
use super::json::{self, Controls};
use super::json_patch::{self, Form, Operation};
use super::merge::{self, MergeError};
use super::patch_error::PatchError;
use super::schema::shapes::Kind;
use super::yaml::{Document, Map, Marks, Nothing, Spot, Value, YamlError, read, read_all};
use super::{Config, kind_of, schema};

/// What a part of a patch does.
#[derive(Clone, Copy)]
enum Deed {
    Delete,
    Merge,
}

/// A patch: documents, or a list of operations.
#[derive(Clone, Debug)]
pub struct Patch {
    origin: String,
    content: Content,
}

#[derive(Clone, Debug)]
enum Content {
    Merge(Vec<Part>),
    Json(Vec<Operation>),
}

/// A document of a patch.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) kind: &'static Kind,
    /// What documents are matched by, beside their kind.
    name: Option<String>,
    deletes: Vec<Delete>,
    /// What is merged after the deletes; its values are in the form they are written.
    content: Option<Map>,
    pub(super) spot: Spot,
    marks: Marks,
}

impl Part {
    /// One made by this program; its content is what the types say.
    pub(super) fn made(kind: &'static Kind, name: Option<String>, deletes: Vec<Delete>, content: Option<Map>) -> Self {
        let name = kind.named.then(|| name.unwrap_or_default());
        Self { kind, name, deletes, content, spot: Spot::START, marks: Marks::default() }
    }

    /// This one where somebody wrote what it was made from.
    pub(super) fn standing_at(self, spot: Spot) -> Self {
        Self { spot, ..self }
    }

    /// This one with another content.
    pub(super) fn with_content(&self, content: Option<Map>) -> Self {
        Self { content, ..self.clone() }
    }

    /// This one with other deletes.
    pub(super) fn with_deletes(self, deletes: Vec<Delete>) -> Self {
        Self { deletes, ..self }
    }

    /// Takes out something more.
    pub(super) fn also_deletes(&mut self, delete: Delete) {
        self.deletes.push(delete);
    }

    /// Whether it takes its document out and puts none in its place.
    pub(super) fn deletes_whole(&self) -> bool {
        self.content.is_none() && self.deletes.iter().any(Delete::is_whole)
    }

    /// What is taken out first.
    pub(super) fn deletes(&self) -> &[Delete] {
        &self.deletes
    }

    /// What its document is called beside its kind.
    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What is merged, if anything.
    pub(super) fn content(&self) -> Option<&Map> {
        self.content.as_ref()
    }

    /// Where stands what is at a dotted path.
    pub(super) fn spot_of(&self, path: &str) -> Spot {
        self.marks.spot(path).unwrap_or(self.spot)
    }
}

impl Patch {
    /// Reads a patch; `origin` names it in errors (a file, a key of the profile).
    ///
    /// # Errors
    /// When the text is no YAML and no patch, or has a kind, a key or a value that no configuration has.
    pub fn parse(text: &str, origin: &str) -> Result<Self, PatchError> {
        let origin = origin.to_owned();
        let is_json = serde_json::from_str::<Vec<serde_json::Value>>(text).is_ok();
        let form = if !is_json {
            Form::Yaml
        } else if text.contains(json::is_control) {
            Form::RawJson
        } else {
            Form::Json
        };
        let documents = if is_json { read_all(&json::as_yaml(text)) } else { read_all(text) };
        let documents = match documents {
            Ok(documents) => documents,
            Err(source) => return Err(PatchError::Yaml { origin, source }),
        };
        if let [document, behind @ ..] = &documents[..]
            && behind.iter().all(|document| document.root == Value::Null)
            && let Value::List(list) = &document.root
            && json_patch::is_patch(&document.root)
        {
            return match json_patch::parse(list, &document.marks, form) {
                Ok(operations) => Ok(Self { origin, content: Content::Json(operations) }),
                Err(source) => Err(PatchError::Operation { origin, source }),
            };
        }
        let (mut parts, mut wrong) = (Vec::new(), Vec::new());
        for document in documents {
            // What says nothing changes nothing, as the real tool has it.
            if document.root == Value::Null || delete::is_nothing(&document.root) {
                continue;
            }
            match part(document, &origin)? {
                Ok(part) => parts.push(part),
                Err(flaws) => wrong.extend(flaws),
            }
        }
        if wrong.is_empty() {
            Ok(Self { origin, content: Content::Merge(parts) })
        } else {
            Err(PatchError::Documents { origin, wrong })
        }
    }

    /// Reads a patch as talosctl does: one that has nothing in it, or comments only, is a JSON patch without operations;
    /// documents that say nothing are none.
    ///
    /// # Errors
    /// As [`Patch::parse`], and when there are such documents only.
    pub fn parse_strictly(text: &str, origin: &str) -> Result<Self, PatchError> {
        let patch = Self::parse(text, origin)?;
        match &patch.content {
            Content::Merge(parts) if parts.is_empty() => match says_nothing(text) {
                Some(document) => {
                    let wrong = Wrong::at(document.spot, "", "there is nothing in the document: leave the patch out");
                    Err(PatchError::Documents { origin: patch.origin, wrong: vec![wrong] })
                }
                None => Ok(Self { content: Content::Json(Vec::new()), ..patch }),
            },
            _ => Ok(patch),
        }
    }

    /// A patch made by this program: its documents are what the types say.
    pub(super) fn made(origin: &str, documents: Vec<Map>) -> Self {
        let parts = documents
            .into_iter()
            .filter_map(|map| {
                let root = Value::Map(map);
                let kind = decode::kind(&root).ok()?;
                let name = name(&root, kind);
                let Value::Map(content) = root else { return None };
                let content = Some(content);
                Some(Part { kind, name, deletes: Vec::new(), content, spot: Spot::START, marks: Marks::default() })
            })
            .collect();
        Self { origin: origin.to_owned(), content: Content::Merge(parts) }
    }

    /// This patch with other documents.
    pub(super) fn with_parts(&self, parts: Vec<Part>) -> Self {
        Self { origin: self.origin.clone(), content: Content::Merge(parts) }
    }

    /// Its documents; none for a JSON patch.
    pub(super) fn parts(&self) -> &[Part] {
        match &self.content {
            Content::Merge(parts) => parts,
            Content::Json(_) => &[],
        }
    }

    /// The operations of a JSON patch; none for other patches.
    pub(super) fn operations(&self) -> &[Operation] {
        match &self.content {
            Content::Merge(_) => &[],
            Content::Json(operations) => operations,
        }
    }

    /// Where the patch came from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Whether this is a list of JSON patch operations.
    pub fn is_json(&self) -> bool {
        matches!(self.content, Content::Json(_))
    }

    /// Whether the patch gives machines a host name of the user's choice.
    pub fn sets_hostname(&self) -> bool {
        self.parts()
            .iter()
            .any(|part| part.kind.name == "HostnameConfig" || part.says(&["machine", "network", "hostname"]))
    }

    /// Whether the patch configures network links itself: then none should be generated beside it.
    pub fn sets_links(&self) -> bool {
        self.parts().iter().any(|part| {
            part.kind.link
                || matches!(part.kind.name, "DHCPv4Config" | "DHCPv6Config")
                || part.says(&["machine", "network", "interfaces"])
        })
    }
}

impl Part {
    /// Whether a configuration's document is the one that this changes.
    fn is_of(&self, document: &Value) -> bool {
        kind_of(document) == self.kind.name && self.name == name(document, self.kind)
    }

    /// Whether something is said at a path.
    pub(super) fn says(&self, path: &[&str]) -> bool {
        self.at(path).is_some()
    }

    /// What is said at a path.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        self.content.as_ref()?.get(first)?.at(rest)
    }
}

/// The document of a patch without parts that keeps it from being an empty list of operations: one that is more than
/// null, or the first one when it is null by its tag only.
fn says_nothing(text: &str) -> Option<Document> {
    let documents = read_all(text).unwrap_or_default();
    let tagged = documents.first().is_some_and(|first| first.nothing == Nothing::Tagged);
    documents.into_iter().find(|document| tagged || document.root != Value::Null)
}

/// A document's name, where documents of its kind have one.
fn name(root: &Value, kind: &Kind) -> Option<String> {
    let text = root.at(&["name"]).and_then(Value::as_text).unwrap_or_default();
    kind.named.then(|| text.to_owned())
}

/// Reads a document of a patch: what it deletes, and what it merges.
fn part(document: Document, origin: &str) -> Result<Result<Part, Vec<Wrong>>, PatchError> {
    let Document { root, spot, marks, .. } = document;
    let kind = match decode::kind(&root) {
        Ok(kind) => kind,
        // A document that only deletes may leave out what it is.
        Err(Unfit { key: "kind", .. }) if root.at(&["kind"]).is_none() && root.at(&["apiVersion"]).is_none() => {
            match schema::shapes::document("v1alpha1") {
                Some(kind) => kind,
                None => return Ok(Err(vec![Wrong::at(spot, "", "the main document is not known")])),
            }
        }
        Err(unfit) => return Ok(Err(vec![unfit.wrong(spot, &marks)])),
    };
    let name = name(&root, kind);
    let (deletes, content) = delete::extract(root).map_err(|source| PatchError::Merge {
        origin: origin.to_owned(),
        document: decode::title(kind, name.as_deref()),
        spot: source.spot(&marks).unwrap_or(spot),
        source,
    })?;
    let content = match content {
        Some(Value::Map(map)) if kind.name == "v1alpha1" && !decode::is_main(&map) && only_known(&map) => {
            let what = "a part of the main document has machine or cluster in it";
            return Ok(Err(vec![Wrong::at(spot, "", what)]));
        }
        Some(Value::Map(map)) => match schema::read_document(kind.name, map) {
            Ok(map) => Some(map),
            Err(flaws) => return Ok(Err(decode::wrong(flaws, &decode::title(kind, name.as_deref()), spot, &marks))),
        },
        _ => None,
    };
    Ok(Ok(Part { kind, name, deletes, content, spot, marks }))
}

/// Whether a mapping has keys of the main document only; others are told by their name.
fn only_known(map: &Map) -> bool {
    map.keys().all(|key| schema::shapes::field("v1alpha1.Config", key).is_some())
}

/// Carries out operations on a configuration of one document.
fn apply_json(only: &mut Value, operations: &[Operation], origin: &str) -> Result<(), PatchError> {
    let origin = || origin.to_owned();
    if !matches!(only, Value::Map(_) | Value::List(_) | Value::Null) {
        return Err(PatchError::NoMapping { origin: origin(), kind: only.kind() });
    }
    if !json::convert(only, json::Keys::Any) {
        return Err(PatchError::NoJson { origin: origin() });
    }
    let refuses = json::has_controls(only) || operations.iter().any(Operation::brings_controls);
    let controls = if refuses { Controls::Refused } else { Controls::Taken };
    json_patch::apply(only, operations).map_err(|source| PatchError::Operation { origin: origin(), source })?;
    match json::unreadable(only, controls) {
        Some((path, what)) => {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            Err(PatchError::Unreadable { origin: origin(), path, what })
        }
        None => Ok(()),
    }
}

/// A document that merges into the same one as an earlier one of the patch.
fn twice(parts: &[Part]) -> Option<&Part> {
    let merging = |part: &&Part| part.content.is_some();
    parts.iter().enumerate().filter(|(_, part)| merging(part)).find_map(|(at, part)| {
        let same = |other: &Part| other.kind.name == part.kind.name && other.name == part.name;
        parts[..at].iter().filter(merging).any(same).then_some(part)
    })
}

impl Config {
    /// Reads the documents of a configuration as they stand.
    pub fn parse(text: &str) -> Result<Self, YamlError> {
        Ok(Self { documents: read(text)?.into_iter().map(|document| document.root).collect() })
    }

    /// Reads what a JSON patch is to change: any documents, also those that have nothing in them.
    pub fn parse_whole(text: &str) -> Result<Self, YamlError> {
        Ok(Self { documents: read_all(text)?.into_iter().map(|document| document.root).collect() })
    }

    /// Applies the documents of a patch one after the other.
    ///
    /// # Errors
    /// When one does not fit; the configuration is then half patched and must be thrown away.
    pub fn apply(&mut self, patch: &Patch) -> Result<(), PatchError> {
        let origin = || patch.origin.clone();
        let parts = match &patch.content {
            Content::Json(operations) => {
                let [only] = &mut self.documents[..] else {
                    let Some(first) = operations.first() else { return Err(PatchError::Empty { origin: origin() }) };
                    let (spot, path) = (first.spot(), first.path().to_owned());
                    return Err(PatchError::JsonPatch { origin: origin(), spot, path });
                };
                return apply_json(only, operations, patch.origin());
            }
            Content::Merge(parts) => parts,
        };
        self.settle().map_err(|wrong| PatchError::Result { origin: origin(), wrong })?;
        if !self.is_of_documents()
            && let Some(part) = twice(parts)
        {
            let what =
                format!("two documents {} in the patch: make them one", decode::title(part.kind, part.name.as_deref()));
            return Err(PatchError::Documents { origin: origin(), wrong: vec![Wrong::at(part.spot, "", what)] });
        }
        // The main document comes first wherever it stands, and what is taken out of it before what is put in.
        let (main, others): (Vec<&Part>, Vec<&Part>) = parts.iter().partition(|part| part.kind.name == "v1alpha1");
        let deeds = main.iter().map(|part| (*part, Deed::Delete)).chain(main.iter().map(|part| (*part, Deed::Merge)));
        let deeds = deeds.chain(others.iter().flat_map(|part| [(*part, Deed::Delete), (*part, Deed::Merge)]));
        for (part, deed) in deeds {
            let done = match deed {
                Deed::Delete => self.delete_of(part),
                Deed::Merge => self.merge_of(part),
            };
            done.map_err(|source| PatchError::Merge {
                origin: origin(),
                document: decode::title(part.kind, part.name.as_deref()),
                spot: source.spot(&part.marks).unwrap_or(part.spot),
                source,
            })?;
        }
        self.arrange();
        match decode::clashes(&self.documents).into_iter().next() {
            Some((_, what)) => Err(PatchError::Conflict { origin: origin(), what }),
            None => Ok(()),
        }
    }

    fn delete_of(&mut self, part: &Part) -> Result<(), MergeError> {
        for delete in &part.deletes {
            let at = self.documents.iter().position(|document| part.is_of(document));
            if delete.is_whole() && part.kind.name != "v1alpha1" {
                self.delete_document(at, part)?;
                continue;
            }
            let forgives = self.is_of_documents();
            match at.and_then(|at| self.documents[at].as_map_mut()) {
                Some(target) => delete.apply(target, part.kind.shape)?,
                None if forgives => {}
                None => return Err(MergeError::NothingToDelete { path: part.kind.name.into() }),
            }
        }
        Ok(())
    }

    fn merge_of(&mut self, part: &Part) -> Result<(), MergeError> {
        let Some(content) = part.content.clone() else { return Ok(()) };
        let at = self.documents.iter().position(|document| part.is_of(document));
        if let Some(target) = at.and_then(|at| self.documents[at].as_map_mut()) {
            return merge::apply(target, content, part.kind.shape);
        }
        // The main document stands first.
        let at = if part.kind.name == "v1alpha1" { 0 } else { self.documents.len() };
        self.documents.insert(at, Value::Map(content));
        Ok(())
    }

    fn delete_document(&mut self, at: Option<usize>, part: &Part) -> Result<(), MergeError> {
        match at {
            Some(at) => {
                self.documents.remove(at);
                Ok(())
            }
            None if self.is_of_documents() => Ok(()),
            None => Err(MergeError::NothingToDelete { path: part.kind.name.into() }),
        }
    }

    /// Whether this is of contract 1.14. That generator goes on when a document to delete is not there, and takes a
    /// document twice in a patch; older ones do not.
    pub(super) fn is_of_documents(&self) -> bool {
        self.documents.iter().any(|document| kind_of(document) == "KubeClusterConfig")
    }
}
