//! What the machines' configurations have beyond what is rendered, as patches.
//!
//! Purpose: pure. From a rendered configuration and the one in force to the edits between them; from the edits of all
//! machines to patches for all, for a role, for one machine. Lists and scalars that differ are taken out by one patch and
//! set by the next, since a patch appends to lists and can't set anything to nothing. Must not know: files, profiles.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::talos::config::Config;
use crate::talos::config::yaml::{Layout, Map, Value, document_in};
use crate::types::{MachineName, Role};

/// One change of a configuration.
#[derive(Clone, PartialEq)]
pub(super) struct Edit {
    /// The document's kind and name; the main one has neither.
    pub(super) document: Id,
    /// The place in it; none for all of it.
    pub(super) path: Vec<String>,
    pub(super) change: Change,
}

/// What tells a document from others.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) kind: Option<String>,
    pub(super) name: Option<String>,
}

/// What becomes of a place.
#[derive(Clone, PartialEq)]
pub(super) enum Change {
    /// It goes.
    Delete,
    /// It comes.
    Set(Value),
    /// It goes, and comes as something else.
    Replace(Value),
}

impl Edit {
    /// As people read it.
    pub(super) fn shown(&self) -> String {
        let kind = self.document.kind.as_deref().unwrap_or("v1alpha1");
        if self.path.is_empty() { kind.to_owned() } else { format!("{kind} {}", self.path.join(".")) }
    }

    /// Whether it is about one machine by its nature.
    fn is_own(&self) -> bool {
        let kind = self.document.kind.as_deref().unwrap_or_default();
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        path.starts_with(&["machine", "network", "hostname"])
            || path.starts_with(&["machine", "network", "interfaces"])
            || kind.ends_with("LinkConfig")
            || (kind == "HostnameConfig" && !matches!(self.change, Change::Delete))
    }

    /// Whether it sets up network links: then none must be rendered beside them.
    pub(super) fn is_of_links(&self) -> bool {
        let kind = self.document.kind.as_deref().unwrap_or_default();
        let links = ["machine", "network", "interfaces"];
        (self.path.len() >= 3 && self.path.iter().zip(links).all(|(one, other)| one == other))
            || kind.ends_with("LinkConfig")
            || kind.starts_with("DHCPv")
    }
}

/// The edits that make `has` of `rendered`.
pub(super) fn edits(rendered: &Config, has: &Config) -> Vec<Edit> {
    let mut found = Vec::new();
    for wanted in has.documents() {
        match rendered.documents().iter().find(|document| id(document) == id(wanted)) {
            Some(document) => compare(&id(wanted), &mut Vec::new(), (document, wanted), &mut found),
            None => {
                found.push(Edit { document: id(wanted), path: Vec::new(), change: Change::Set(wanted.clone()) });
            }
        }
    }
    for document in rendered.documents() {
        if !has.documents().iter().any(|wanted| id(wanted) == id(document)) {
            found.push(Edit { document: id(document), path: Vec::new(), change: Change::Delete });
        }
    }
    found
}

fn id(document: &Value) -> Id {
    let text =
        |key: &str| document.at(&[key]).and_then(Value::as_text).filter(|text| !text.is_empty()).map(str::to_owned);
    Id { kind: text("kind"), name: text("name").filter(|_| text("kind").is_some()) }
}

fn compare(document: &Id, path: &mut Vec<String>, (old, new): (&Value, &Value), found: &mut Vec<Edit>) {
    if same(old, new) {
        return;
    }
    let edit = |change: Change, path: &[String]| Edit { document: document.clone(), path: path.to_vec(), change };
    let (Value::Map(one), Value::Map(two)) = (old, new) else {
        // An empty list takes what is appended to it.
        let is_empty = old.as_list().is_some_and(<[Value]>::is_empty) && new.as_list().is_some();
        let change = if is_empty { Change::Set(new.clone()) } else { Change::Replace(new.clone()) };
        found.push(edit(change, path));
        return;
    };
    let keys = two.keys().chain(one.keys().filter(|key| two.get(key).is_none()));
    for key in keys {
        path.push(key.to_owned());
        let there = |map: &Map| map.get(key).filter(|value| **value != Value::Null).cloned();
        match (there(one), there(two)) {
            (Some(old), Some(new)) => compare(document, path, (&old, &new), found),
            (Some(_), None) => found.push(edit(Change::Delete, path)),
            (None, Some(new)) => found.push(edit(Change::Set(new), path)),
            (None, None) => {}
        }
        path.pop();
    }
}

/// Whether two values say the same: the order of keys says nothing.
fn same(one: &Value, two: &Value) -> bool {
    match (one, two) {
        (Value::Map(one), Value::Map(two)) => {
            let all_in =
                |one: &Map, two: &Map| one.iter().all(|(key, value)| same(value, two.get(key).unwrap_or(&Value::Null)));
            all_in(one, two) && all_in(two, one)
        }
        (Value::List(one), Value::List(two)) => {
            one.len() == two.len() && one.iter().zip(two).all(|(one, two)| same(one, two))
        }
        _ => one == two,
    }
}

/// Whose a patch is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Whose {
    All,
    Role(Role),
    Machine(MachineName),
}

/// A machine's edits.
pub(super) struct Of {
    pub(super) name: MachineName,
    pub(super) role: Role,
    pub(super) edits: Vec<Edit>,
}

/// The edits by whom they are for: what all machines have is for all, what all of a role have for the role.
pub(super) fn shared(machines: &[Of]) -> BTreeMap<Whose, Vec<Edit>> {
    let everywhere = |edit: &Edit, role: Option<Role>| {
        let of_role = |machine: &&Of| role.is_none_or(|role| machine.role == role);
        !edit.is_own() && machines.iter().filter(of_role).all(|machine| machine.edits.contains(edit))
    };
    let mut found: BTreeMap<Whose, Vec<Edit>> = BTreeMap::new();
    for machine in machines {
        for edit in &machine.edits {
            let whose = if everywhere(edit, None) {
                Whose::All
            } else if everywhere(edit, Some(machine.role)) {
                Whose::Role(machine.role)
            } else {
                Whose::Machine(machine.name.clone())
            };
            let place = found.entry(whose).or_default();
            if !place.contains(edit) {
                place.push(edit.clone());
            }
        }
    }
    found
}

/// The texts of the patches that make these edits, to be applied in this order: what goes, then what comes.
pub(super) fn texts(edits: &[Edit]) -> Vec<(&'static str, String)> {
    let goes = edits.iter().filter(|edit| !matches!(edit.change, Change::Set(_)));
    let goes: Vec<(&Edit, Value)> = goes.map(|edit| (edit, Value::Map(Map::new().with("$patch", "delete")))).collect();
    let comes = edits.iter().filter_map(|edit| match &edit.change {
        Change::Set(value) | Change::Replace(value) => Some((edit, value.clone())),
        Change::Delete => None,
    });
    let comes: Vec<(&Edit, Value)> = comes.collect();
    let mut texts = Vec::new();
    if !goes.is_empty() {
        texts.push(("remove", stream(&goes)));
    }
    if !comes.is_empty() {
        texts.push(("keep", stream(&comes)));
    }
    texts
}

/// The documents that say these values at their places.
fn stream(values: &[(&Edit, Value)]) -> String {
    let mut documents: Vec<(Id, Value)> = Vec::new();
    for (edit, value) in values {
        if !documents.iter().any(|(id, _)| *id == edit.document) {
            let mut head = Map::new();
            if let Some(kind) = &edit.document.kind {
                head = head.with("apiVersion", "v1alpha1").with("kind", kind.as_str());
            }
            head = head.with_some("name", edit.document.name.as_deref());
            documents.push((edit.document.clone(), Value::Map(head)));
        }
        if let Some((_, document)) = documents.iter_mut().find(|(id, _)| *id == edit.document) {
            put(document, &edit.path, value);
        }
    }
    let mut text = String::new();
    for (at, (_, document)) in documents.iter().enumerate() {
        let _ = write!(text, "{}{}", if at > 0 { "---\n" } else { "" }, document_in(document, Layout::Kubectl));
    }
    text
}

fn put(target: &mut Value, path: &[String], value: &Value) {
    let Some(map) = target.as_map_mut() else { return };
    match path {
        // A whole document: what it is stands there already.
        [] => {
            for (key, value) in value.as_map().into_iter().flat_map(Map::iter) {
                map.set(key, value.clone());
            }
        }
        [last] => map.set(last, value.clone()),
        [first, rest @ ..] => {
            if map.get(first).is_none() {
                map.set(first, Map::new());
            }
            if let Some(inner) = map.get_mut(first) {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::talos::config::{Patch, differences};

    fn config(text: &str) -> Config {
        Config::parse(text).unwrap()
    }

    /// The patches of the edits from one to the other, and what they make of the first.
    fn made(rendered: &str, has: &str) -> (Vec<(&'static str, String)>, Config) {
        let (rendered, has) = (config(rendered), config(has));
        let texts = texts(&edits(&rendered, &has));
        let mut made = rendered.clone();
        for (name, text) in &texts {
            made.apply(&Patch::parse(text, name).unwrap_or_else(|error| panic!("{error}\n{text}"))).unwrap();
        }
        let left = differences(&made, &has, |_| false);
        assert_eq!(left, [], "{}", made.to_yaml().expose_secret());
        (texts, made)
    }

    const MAIN: &str = "version: v1alpha1
machine:
    type: worker
    token: abc
    certSANs: []
    kubelet:
        image: ghcr.io/siderolabs/kubelet:v1.34.1
    sysctls:
        a: \"1\"
    features:
        rbac: true
        diskQuotaSupport: true
cluster:
    controlPlane:
        endpoint: https://a:6443
    network:
        dnsDomain: cluster.local
        podSubnets:
            - 10.244.0.0/16
        serviceSubnets:
            - 10.96.0.0/12
---
apiVersion: v1alpha1
kind: HostnameConfig
auto: stable
";

    #[test]
    fn every_kind_of_difference_is_expressed() {
        let has = "version: v1alpha1
machine:
    type: worker
    token: abc
    certSANs: [x, y]
    kubelet:
        image: ghcr.io/siderolabs/kubelet:v1.34.1
        extraArgs:
            v: \"2\"
    sysctls:
        b: \"2\"
    features:
        diskQuotaSupport: true
    network:
        hostname: w1
cluster:
    controlPlane:
        endpoint: https://b:6443
    network:
        podSubnets:
            - 10.0.0.0/16
            - fd00::/64
        dnsDomain: cluster.local
        serviceSubnets:
            - 10.96.0.0/12
---
apiVersion: v1alpha1
kind: RegistryMirrorConfig
name: ghcr.io
endpoints:
    - url: https://mirror
";
        let (texts, _) = made(MAIN, has);
        let names: Vec<&str> = texts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["remove", "keep"]);
        assert!(texts[0].1.contains("rbac:\n      $patch: delete"), "{}", texts[0].1);
        assert!(texts[1].1.contains("kind: RegistryMirrorConfig\nname: ghcr.io\n"), "{}", texts[1].1);
        assert_eq!(made(MAIN, MAIN).0, []);
    }

    #[test]
    fn what_all_have_is_for_all_and_what_a_role_has_for_the_role() {
        let edit = |path: &str, value: &str| Edit {
            document: Id::default(),
            path: path.split('.').map(str::to_owned).collect(),
            change: Change::Set(value.into()),
        };
        let of = |name: &str, role, more: Vec<Edit>| {
            let own = edit("machine.network.hostname", "same");
            let all = vec![edit("machine.time.disabled", "x"), own];
            Of { name: name.into(), role, edits: all.into_iter().chain(more).collect() }
        };
        let plane = edit("cluster.proxy.disabled", "true");
        let machines = [
            of("cp1", Role::ControlPlane, vec![plane.clone()]),
            of("cp2", Role::ControlPlane, vec![plane]),
            of("w1", Role::Worker, vec![edit("machine.kubelet.image", "x")]),
            of("w2", Role::Worker, vec![]),
        ];
        let shown: BTreeMap<Whose, Vec<String>> = shared(&machines)
            .into_iter()
            .map(|(whose, edits)| (whose, edits.iter().map(|edit| edit.path.join(".")).collect()))
            .collect();
        let expected = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        assert_eq!(shown[&Whose::All], expected(&["machine.time.disabled"]));
        assert_eq!(shown[&Whose::Role(Role::ControlPlane)], expected(&["cluster.proxy.disabled"]));
        assert_eq!(
            shown[&Whose::Machine("w1".into())],
            expected(&["machine.network.hostname", "machine.kubelet.image"])
        );
        assert!(!shown.contains_key(&Whose::Role(Role::Worker)));
    }
}
