//! Merges a patch's document into a configuration's, by the rules of the real tool.
//!
//! Maps merge key by key, lists are appended to, scalars are replaced; what departs from that is the table [`RULES`]
//! (siderolabs/talos pkg/machinery/config/merge/merge.go and the types' own `Merge`, v1.14.0-rc.1). Merging is not
//! idempotent: a list patched twice has its entries twice. Must not know: where patches come from.

use super::yaml::{Map, Value};

/// How one place departs from the general rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The patch's value takes the place of the old one as a whole.
    Replace,
    /// Elements are matched by the first of these keys that the patch's element has, and merged.
    MergeBy(&'static [&'static str]),
    /// Elements are matched by this key, and replaced as a whole.
    ReplaceBy(&'static str),
}

/// Places with rules of their own. A place is `kind:path` (`v1alpha1:` for the main document); `[]` steps into a list,
/// `*` stands for any path before the last key.
const RULES: &[(&str, Rule)] = &[
    ("v1alpha1:cluster.network.podSubnets", Rule::Replace),
    ("v1alpha1:cluster.network.serviceSubnets", Rule::Replace),
    ("v1alpha1:cluster.apiServer.auditPolicy", Rule::Replace),
    ("v1alpha1:cluster.apiServer.admissionControl", Rule::MergeBy(&["name"])),
    ("v1alpha1:machine.network.interfaces", Rule::MergeBy(&["interface", "deviceSelector"])),
    ("v1alpha1:machine.network.interfaces[].vlans", Rule::MergeBy(&["vlanId"])),
    ("KubeNetworkConfig:podSubnets", Rule::Replace),
    ("KubeNetworkConfig:serviceSubnets", Rule::Replace),
    ("KubeAuditPolicyConfig:configuration", Rule::Replace),
    ("KubeAuthenticationConfig:configuration", Rule::Replace),
    ("KubeCredentialProviderConfig:configuration", Rule::Replace),
    ("KubeStaticPodConfig:pod", Rule::Replace),
    ("CRIBaseRuntimeSpecConfig:overrides", Rule::Replace),
    ("NetworkRuleConfig:ingress", Rule::Replace),
    ("NetworkRuleConfig:portSelector.ports", Rule::Replace),
    ("ExtensionServiceConfig:configFiles", Rule::MergeBy(&["mountPath"])),
    ("ImageVerificationConfig:rules", Rule::ReplaceBy("image")),
    ("*.advertise", Rule::Replace),
    ("*.importRoutes", Rule::Replace),
    ("*.neighbors", Rule::Replace),
    ("*.extraArgs[]", Rule::Replace),
];

/// Values of the document kinds that the real tool takes over even from a patch that does not have them: a patch of
/// anything else in such a document blanks them there. (Their types merge as a unit, and an absent unit is an empty one:
/// siderolabs/talos pkg/machinery/cel/cel.go, `block/byte_size.go`.)
const TAKEN_EVEN_IF_ABSENT: &[(&str, &[&str])] = &[
    ("UnattendedInstallConfig", &["provisioning", "diskSelector", "match"]),
    ("VolumeConfig", &["provisioning", "diskSelector", "match"]),
    ("VolumeConfig", &["provisioning", "minSize"]),
    ("VolumeConfig", &["provisioning", "maxSize"]),
    ("UserVolumeConfig", &["provisioning", "diskSelector", "match"]),
    ("UserVolumeConfig", &["provisioning", "minSize"]),
    ("UserVolumeConfig", &["provisioning", "maxSize"]),
    ("RawVolumeConfig", &["provisioning", "diskSelector", "match"]),
    ("RawVolumeConfig", &["provisioning", "minSize"]),
    ("RawVolumeConfig", &["provisioning", "maxSize"]),
    ("SwapVolumeConfig", &["provisioning", "diskSelector", "match"]),
    ("SwapVolumeConfig", &["provisioning", "minSize"]),
    ("SwapVolumeConfig", &["provisioning", "maxSize"]),
    ("ExistingVolumeConfig", &["discovery", "volumeSelector", "match"]),
    ("LinkAliasConfig", &["selector", "match"]),
];

/// The key that deletes instead of merging.
pub(super) const DIRECTIVE: &str = "$patch";

/// A patch that does not fit its target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// The two sides are of different kinds.
    #[error("{path} is {ours} and the patch gives {theirs}")]
    Mismatch {
        /// Where.
        path: String,
        /// What is there.
        ours: &'static str,
        /// What the patch has.
        theirs: &'static str,
    },
    /// Something to delete is not there.
    #[error("{path} is to be deleted and is not there")]
    NothingToDelete {
        /// Where.
        path: String,
    },
    /// A delete that the real tool does not know: through a list, of a list of scalars, of the whole main document.
    #[error("{path} cannot be deleted by a patch")]
    Undeletable {
        /// Where.
        path: String,
    },
    /// `$patch` with anything but `delete`.
    #[error("{path}: $patch must be delete")]
    Directive {
        /// Where.
        path: String,
    },
}

/// Whether a node of a patch deletes what it stands for.
pub(super) fn deletes(value: &Value) -> bool {
    value.at(&[DIRECTIVE]).is_some()
}

/// Applies the patch's document `patch` to the configuration's document `target` of this kind: deletes, then merge.
pub(super) fn apply(target: &mut Map, patch: &Map, kind: &str) -> Result<(), MergeError> {
    for (_, path) in TAKEN_EVEN_IF_ABSENT.iter().filter(|(of, _)| *of == kind) {
        if Value::Map(patch.clone()).at(path).is_none() {
            blank(target, path);
        }
    }
    let mut patch = patch.clone();
    delete(target, &mut patch, "")?;
    map(target, patch, &Place { rule: format!("{kind}:"), shown: String::new() })
}

/// Removes the value at `path`, and what that leaves empty.
fn blank(target: &mut Map, path: &[&str]) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        target.remove(key);
    } else if let Some(Value::Map(inner)) = target.get_mut(key) {
        blank(inner, rest);
        if inner.is_empty() {
            target.remove(key);
        }
    }
}

/// A position for the rules and for people.
struct Place {
    rule: String,
    shown: String,
}

impl Place {
    fn key(&self, key: &str) -> Self {
        let dot = |path: &str| if path.is_empty() || path.ends_with(':') { "" } else { "." };
        Self {
            rule: format!("{}{}{key}", self.rule, dot(&self.rule)),
            shown: format!("{}{}{key}", self.shown, dot(&self.shown)),
        }
    }

    fn element(&self) -> Self {
        Self { rule: format!("{}[]", self.rule), shown: format!("{}[]", self.shown) }
    }

    fn find(&self) -> Option<Rule> {
        let fits = |pattern: &str| match pattern.strip_prefix('*') {
            Some(end) if end.ends_with("[]") => {
                let end = end.trim_end_matches("[]");
                self.rule.rsplit_once('.').is_some_and(|(parent, _)| parent.ends_with(end))
            }
            Some(end) => self.rule.ends_with(end),
            None => self.rule == pattern,
        };
        RULES.iter().find(|(pattern, _)| fits(pattern)).map(|(_, rule)| *rule)
    }
}

fn map(target: &mut Map, patch: Map, place: &Place) -> Result<(), MergeError> {
    for (key, value) in patch {
        if value == Value::Null {
            continue;
        }
        let place = place.key(&key);
        match target.get_mut(&key) {
            Some(Value::Null) | None => target.set(&key, value.without_nulls()),
            Some(old) => node(old, value, &place)?,
        }
    }
    Ok(())
}

fn node(target: &mut Value, patch: Value, place: &Place) -> Result<(), MergeError> {
    if place.find() == Some(Rule::Replace) {
        if !is_empty_list(&patch) {
            *target = patch.without_nulls();
        }
        return Ok(());
    }
    match (target, patch) {
        (Value::Map(old), Value::Map(new)) => map(old, new, place),
        (Value::List(old), Value::List(new)) => list(old, new, place),
        (_, Value::Text(new)) if new.is_empty() => Ok(()),
        (old @ (Value::Text(_) | Value::Number(_) | Value::Bool(_)), new)
            if !matches!(new, Value::Map(_) | Value::List(_)) =>
        {
            *old = new;
            Ok(())
        }
        (old, new) => Err(MergeError::Mismatch { path: place.shown.clone(), ours: old.kind(), theirs: new.kind() }),
    }
}

fn is_empty_list(value: &Value) -> bool {
    value.as_list().is_some_and(<[Value]>::is_empty)
}

fn list(target: &mut Vec<Value>, patch: Vec<Value>, place: &Place) -> Result<(), MergeError> {
    let rule = place.find();
    for new in patch {
        let old = match rule {
            Some(Rule::MergeBy(keys)) => keys
                .iter()
                .find(|key| new.at(&[key]).is_some_and(|value| value.as_text() != Some("")))
                .and_then(|key| target.iter_mut().find(|old| old.at(&[key]) == new.at(&[key]))),
            Some(Rule::ReplaceBy(key)) => target.iter_mut().find(|old| old.at(&[key]) == new.at(&[key])),
            Some(Rule::Replace) | None => None,
        };
        match (old, rule) {
            (Some(old), Some(Rule::MergeBy(_))) => {
                if let (Value::Map(old), Value::Map(new)) = (old, new) {
                    map(old, new, &place.element())?;
                }
            }
            (Some(old), _) => *old = new.without_nulls(),
            (None, _) => target.push(new.without_nulls()),
        }
    }
    Ok(())
}

/// Takes the deletes out of `patch` and carries them out. What they leave empty goes too, as the real tool writes no
/// empty lists and maps.
fn delete(target: &mut Map, patch: &mut Map, within: &str) -> Result<(), MergeError> {
    let keys: Vec<String> = patch.keys().map(str::to_owned).collect();
    for key in keys {
        let here = if within.is_empty() { key.clone() } else { format!("{within}.{key}") };
        let Some(value) = patch.get_mut(&key) else { continue };
        if deletes(value) {
            directive(value, &here)?;
            target.remove(&key).ok_or(MergeError::NothingToDelete { path: here })?;
            patch.remove(&key);
            continue;
        }
        if !holds_delete(value) {
            continue;
        }
        match value {
            Value::Map(inner) => {
                let mut nowhere = Map::new();
                let under = match target.get_mut(&key) {
                    Some(Value::Map(map)) => map,
                    _ => &mut nowhere,
                };
                delete(under, inner, &here)?;
                if inner.is_empty() {
                    patch.remove(&key);
                }
            }
            Value::List(list) => {
                for element in std::mem::take(list) {
                    if deletes(&element) {
                        delete_element(target, &key, &element, &here)?;
                    } else if holds_delete(&element) {
                        return Err(MergeError::Undeletable { path: here });
                    } else {
                        list.push(element);
                    }
                }
                if list.is_empty() {
                    patch.remove(&key);
                }
            }
            _ => {}
        }
        if target.get(&key).is_some_and(is_empty) {
            target.remove(&key);
        }
    }
    Ok(())
}

fn is_empty(value: &Value) -> bool {
    is_empty_list(value) || value.as_map().is_some_and(Map::is_empty)
}

/// Removes the first element whose first other key has the patch's value.
fn delete_element(target: &mut Map, key: &str, element: &Value, path: &str) -> Result<(), MergeError> {
    directive(element, path)?;
    let selector = element.as_map().and_then(|map| map.iter().find(|(key, _)| *key != DIRECTIVE));
    let Some((selector, wanted)) = selector else { return Err(MergeError::Undeletable { path: path.into() }) };
    let path = format!("{path}[{selector}]");
    let Some(Value::List(list)) = target.get_mut(key) else { return Err(MergeError::NothingToDelete { path }) };
    let at =
        list.iter().position(|value| value.at(&[selector]).is_some_and(|value| as_shown(value) == as_shown(wanted)));
    list.remove(at.ok_or(MergeError::NothingToDelete { path })?);
    Ok(())
}

/// Selectors compare as text.
fn as_shown(value: &Value) -> String {
    match value {
        Value::Number(number) => number.normal().to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Text(text) => text.clone(),
        Value::Null | Value::List(_) | Value::Map(_) => String::new(),
    }
}

fn directive(value: &Value, path: &str) -> Result<(), MergeError> {
    let said = value.at(&[DIRECTIVE]).and_then(Value::as_text);
    if said == Some("delete") { Ok(()) } else { Err(MergeError::Directive { path: path.into() }) }
}

fn holds_delete(value: &Value) -> bool {
    match value {
        Value::Map(map) => map.get(DIRECTIVE).is_some() || map.iter().any(|(_, value)| holds_delete(value)),
        Value::List(list) => list.iter().any(holds_delete),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::yaml::{document, one};
    use super::*;

    fn merged(target: &str, patch: &str) -> Result<String, MergeError> {
        let mut target = one(target).unwrap().root;
        let patch = one(patch).unwrap().root;
        apply(target.as_map_mut().unwrap(), patch.as_map().unwrap(), "v1alpha1")?;
        Ok(document(&target))
    }

    #[test]
    fn each_rule_holds() {
        let cases = [
            ("a: 1\n", "a: 2\n", "a: 2\n"),
            ("a: x\n", "a: \"\"\n", "a: x\n"),
            ("a: x\n", "a: null\n", "a: x\n"),
            ("a: true\n", "a: false\n", "a: false\n"),
            ("a: [1]\n", "a: [1, 2]\n", "a:\n    - 1\n    - 1\n    - 2\n"),
            ("a: [1]\n", "a: []\n", "a:\n    - 1\n"),
            ("a: {b: 1}\n", "a: {c: 2}\n", "a:\n    b: 1\n    c: 2\n"),
            (
                "cluster: {network: {podSubnets: [a]}}\n",
                "cluster: {network: {podSubnets: [b]}}\n",
                "cluster:\n    network:\n        podSubnets:\n            - b\n",
            ),
            (
                "machine: {network: {interfaces: [{interface: eth0, mtu: 1}]}}\n",
                "machine: {network: {interfaces: [{interface: eth0, dhcp: true}, {interface: eth1}]}}\n",
                "machine:\n    network:\n        interfaces:\n            - interface: eth0\n              mtu: 1\n              dhcp: true\n            - interface: eth1\n",
            ),
            ("a: {b: 1, c: 2}\n", "a: {b: {$patch: delete}}\n", "a:\n    c: 2\n"),
            ("a: [{k: 1}, {k: 2}]\n", "a: [{k: 1, $patch: delete}]\n", "a:\n    - k: 2\n"),
            ("a: {b: {c: 1}, d: 1}\n", "a: {b: {c: {$patch: delete}}}\n", "a:\n    d: 1\n"),
        ];
        for (target, patch, expected) in cases {
            assert_eq!(merged(target, patch).unwrap(), expected, "{target} + {patch}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_path() {
        let error = |target, patch| merged(target, patch).unwrap_err().to_string();
        assert_eq!(error("a: {b: [1]}\n", "a: {b: {c: 1}}\n"), "a.b is a list and the patch gives a mapping");
        assert_eq!(error("a: {b: 1}\n", "a: {c: {$patch: delete}}\n"), "a.c is to be deleted and is not there");
        assert_eq!(error("a: {b: 1}\n", "a: {b: {$patch: keep}}\n"), "a.b: $patch must be delete");
        assert_eq!(
            error("a: [{b: 1, c: 2}]\n", "a: [{b: 1, c: {$patch: delete}}]\n"),
            "a cannot be deleted by a patch"
        );
    }
}
