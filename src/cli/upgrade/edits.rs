//! What the profile is to say of schematics when an upgrade, or the way back from one, is over.
//!
//! Values are changed one by one, as versions are, so that comments and order stay. Must not know: how they get there.

use std::collections::BTreeMap;

use crate::cli::args::SchematicWish;
use crate::plan::observed::Finding;
use crate::plan::upgrade::{Release, SeenMember};
use crate::profile::Factory;
use crate::profile::edit::edit;
use crate::types::SchematicId;

/// The key of the schematic.
const ID: &str = "talos.factory.schematic_id";

/// The key of the list of extensions.
const LIST: &str = "talos.factory.extensions";

/// Values by key path.
pub(super) type Edits = BTreeMap<String, String>;

/// What is to be written, and what has to be told beside it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Values by key path.
    pub(super) edits: Edits,
    /// What is left to a person.
    pub(super) left: Option<Finding>,
}

impl Written {
    /// That the profile has to be edited by hand.
    pub(super) fn by_hand(chosen: &SchematicId) -> Self {
        let left = Finding::warning(
            format!("the profile goes on to name another schematic than {chosen}"),
            format!("write it there as well ({ID}: {chosen}), or the next run takes it back"),
        );
        Self { edits: Edits::new(), left: Some(left) }
    }
}

/// What makes a profile with this text name the schematic that the command line asks for, whose extensions are `holds` as
/// far as anybody knows.
pub(super) fn of_asked(
    text: &str,
    own: &Factory,
    asked: &SchematicWish,
    chosen: &SchematicId,
    holds: Option<&[String]>,
) -> Written {
    let mut edits = Edits::new();
    let names = asked.extensions.as_deref().or(holds);
    let listed = names.and_then(|names| appended(&own.extensions, names));
    // An ID wins over a list: where the list alone says it all, none is needed.
    let list_alone =
        asked.schematic.is_none() && own.schematic_id.is_none() && !own.extensions.is_empty() && listed.is_some();
    if !list_alone && own.schematic_id.as_ref() != Some(chosen) {
        edits.insert(ID.to_owned(), chosen.to_string());
    }
    let stale = !own.extensions.is_empty() && listed.is_none() && !edits.is_empty();
    if !own.extensions.is_empty() {
        edits.extend(listed.unwrap_or_default());
    }
    if !fits(text, &edits) {
        return Written::by_hand(chosen);
    }
    let left = stale.then(|| stale_list(chosen));
    Written { edits, left }
}

/// The same on a way back of `machines`, all of which the profile's own schematic is meant for, to what they ran before.
pub(super) fn of_before(text: &str, own: &Factory, machines: &[(&SeenMember, &Release)]) -> Written {
    let Some((_, Release { schematic, .. })) = machines.first() else { return Written::default() };
    let stays = machines.iter().all(|(seen, then)| seen.schematic.as_ref() == Some(&then.schematic));
    if stays {
        return Written::default();
    }
    let is_one = machines.iter().all(|(_, then)| then.schematic == *schematic);
    let is_named = machines.iter().all(|(seen, _)| seen.schematic.is_some() && seen.schematic == own.schematic_id);
    let edits = Edits::from([(ID.to_owned(), schematic.to_string())]);
    if !is_one || !is_named || !fits(text, &edits) {
        return if own.schematic_id.as_ref() == Some(schematic) {
            Written::default()
        } else {
            Written::by_hand(schematic)
        };
    }
    let left = (!own.extensions.is_empty()).then(|| stale_list(schematic));
    Written { edits, left }
}

fn stale_list(chosen: &SchematicId) -> Finding {
    Finding::warning(
        format!("{LIST} in the profile may not list what schematic {chosen} holds"),
        format!("{ID} is written and counts; correct the list by hand, or leave it out"),
    )
}

/// The items that a list lacks, each at its place behind the others; none where something would have to go from it.
fn appended(list: &[String], names: &[String]) -> Option<Edits> {
    if list.iter().any(|item| !names.contains(item)) {
        return None;
    }
    let missing: Vec<&String> = names.iter().filter(|name| !list.contains(*name)).collect();
    let places = list.len()..list.len() + missing.len();
    // Edits are made in the order of their keys' text.
    let digits = |place: usize| place.to_string().len();
    if digits(places.start) != digits(places.end.max(1) - 1) && !missing.is_empty() {
        return None;
    }
    Some(places.zip(missing).map(|(place, name)| (format!("{LIST}[{place}]"), name.clone())).collect())
}

/// Whether the profile's text takes these values without disturbing the rest.
fn fits(text: &str, edits: &Edits) -> bool {
    let changes: Vec<(&str, &str)> = edits.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    edit(text, &changes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::kubernetes::LiveMachine;
    use crate::types::{Cordon, Role, Version};

    const OLD: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
    const NEW: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";

    fn own(id: Option<&str>, extensions: &[&str]) -> Factory {
        let extensions = extensions.iter().map(ToString::to_string).collect();
        Factory { schematic_id: id.map(SchematicId::from), extensions, ..Factory::default() }
    }

    fn edits(pairs: &[(&str, &str)]) -> Edits {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_cannot_be_edited_safely_is_left_to_a_person() {
        let asked = SchematicWish { schematic: Some(NEW.into()), ..SchematicWish::default() };
        // The keys are shared with something else.
        let text = format!("base: &f {{schematic_id: \"{OLD}\"}}\ntalos:\n  version: 1.12.4\n  factory: *f\n");
        let written = of_asked(&text, &own(Some(OLD), &[]), &asked, &NEW.into(), None);
        assert_eq!(written, Written::by_hand(&NEW.into()));
        // An ID is written, and counts; the list loses something that nobody can take from it without its comments.
        let text = "talos:\n  factory:\n    extensions:\n      - a/x # why\n      - a/y\n";
        let asked = SchematicWish { extensions: Some(vec!["a/y".to_owned()]), ..SchematicWish::default() };
        let written = of_asked(text, &own(None, &["a/x", "a/y"]), &asked, &NEW.into(), None);
        assert_eq!(written.edits, edits(&[(ID, NEW)]));
        assert!(written.left.unwrap().what.contains(LIST));
    }

    #[test]
    fn a_schematic_or_more_extensions_are_written_where_the_profile_says_so_already() {
        type Case<'a> = (&'a str, Factory, &'a SchematicWish, Option<&'a [String]>, &'a [(&'a str, &'a str)]);
        let by_id = SchematicWish { schematic: Some(NEW.into()), ..SchematicWish::default() };
        let names = ["a/x".to_owned(), "a/y".to_owned()];
        let by_list = SchematicWish { extensions: Some(names.to_vec()), ..SchematicWish::default() };
        let id_text = format!("talos:\n  factory:\n    schematic_id: \"{OLD}\" # ours\n");
        let list_text = "talos:\n  factory: {extensions: [a/x]}\n";
        let both_text = format!("talos:\n  factory:\n    schematic_id: {OLD}\n    extensions:\n      - a/x # x\n");
        let cases: &[Case<'_>] = &[
            (&id_text, own(Some(OLD), &[]), &by_id, None, &[(ID, NEW)]),
            (&id_text, own(Some(OLD), &[]), &by_list, None, &[(ID, NEW)]),
            ("talos:\n  version: 1\n", own(None, &[]), &by_list, None, &[(ID, NEW)]),
            (list_text, own(None, &["a/x"]), &by_list, None, &[("talos.factory.extensions[1]", "a/y")]),
            (
                &both_text,
                own(Some(OLD), &["a/x"]),
                &by_id,
                Some(&names),
                &[(ID, NEW), ("talos.factory.extensions[1]", "a/y")],
            ),
            (&id_text, own(Some(NEW), &[]), &by_id, None, &[]),
        ];
        for (text, own, asked, holds, expected) in cases {
            let written = of_asked(text, own, asked, &NEW.into(), *holds);
            assert_eq!(written, Written { edits: edits(expected), left: None }, "{text}");
        }
        let all = edits(&[(ID, NEW), ("talos.factory.extensions[1]", "a/y")]);
        let changes: Vec<(&str, &str)> = all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let expected = both_text.replace(OLD, NEW) + "      - a/y\n";
        assert_eq!(edit(&both_text, &changes).unwrap(), expected);
    }

    #[test]
    fn a_way_back_takes_the_profile_along_only_where_it_named_what_ran() {
        let member = SeenMember {
            member: LiveMachine { name: "cp-01".into(), role: Role::ControlPlane, address: [10, 0, 0, 1].into() },
            version: Version::new(1, 13, 9),
            schematic: Some(NEW.into()),
            extensions: std::collections::BTreeSet::new(),
            platform: "nocloud".to_owned(),
            kubelet: None,
            cordon: Cordon::Open,
        };
        let then = Release { version: Version::new(1, 12, 4), schematic: OLD.into(), image: "i".to_owned() };
        let text = format!("talos:\n  factory:\n    schematic_id: {NEW}\n");
        let of = |id: Option<&str>| of_before(&text, &own(id, &[]), &[(&member, &then)]);
        assert_eq!(of(Some(NEW)), Written { edits: edits(&[(ID, OLD)]), left: None });
        assert_eq!(of(Some(OLD)), Written::default());
        assert_eq!(of(None), Written::by_hand(&OLD.into()));
        let same = Release { schematic: NEW.into(), ..then.clone() };
        assert_eq!(of_before(&text, &own(Some(NEW), &[]), &[(&member, &same)]), Written::default());
    }
}
