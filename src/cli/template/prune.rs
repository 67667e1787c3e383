//! `recast template prune`: deletes old templates of this cluster's runs.
//!
//! Never one that recast did not make, that another cluster's run made, that has linked clones, or that a run that isn't
//! done needs. Where the storage keeps no record of clones (LVM-thin, btrfs) none is deleted unless that was asked for: a
//! clone there keeps its data, but nobody can say whether there is one. Each is compared once more right before it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use crate::cli::args::{Global, TemplatePrune};
use crate::cli::confirm::confirm_deed;
use crate::cli::session::{Session, state_root};
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::lock::Break;
use crate::journal::{RunStatus, StateDir};
use crate::observe::templates::{Template, templates};
use crate::plan::Step;
use crate::pve::vm::{Forget, VmRef};
use crate::pve::{PveError, Wait};
use crate::report::Document;
use crate::report::document::Ending;
use crate::types::{NodeName, RunId, VmId};

/// How a task that deletes is waited for.
const WAIT: Wait = Wait { poll: Duration::from_millis(500), within: Duration::from_mins(10) };

/// What becomes of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It stays, because of this.
    Kept(String),
    /// It goes.
    Deleted,
}

/// Who says what may go.
struct Rule<'a> {
    cluster: &'a str,
    keep: u32,
    /// Also those of which nobody knows whether they have clones.
    unrecorded: bool,
    needed: &'a BTreeMap<(NodeName, VmId), RunId>,
}

/// Decides for each template, newest first within its node and schematic.
fn decide(found: &[Template], rule: &Rule<'_>) -> Vec<(Template, Fate)> {
    let mut sorted: Vec<&Template> = found.iter().collect();
    let version = |template: &Template| template.talos.parse::<crate::types::Version>().ok();
    sorted.sort_by(|one, other| {
        let place = |template: &Template| (template.node.clone(), template.schematic.clone());
        let age = |template: &Template| (version(template), template.created, template.vmid);
        place(one).cmp(&place(other)).then_with(|| age(other).cmp(&age(one)))
    });
    let mut counted: BTreeMap<(&NodeName, &str), u32> = BTreeMap::new();
    let fate = |template: &Template, rank: u32| {
        if template.cluster != rule.cluster {
            return Fate::Kept(format!("a run of cluster {} made it", template.cluster));
        }
        if let Some(run) = rule.needed.get(&(template.node.clone(), template.vmid)) {
            return Fate::Kept(format!("the run {run}, which is not done, needs it"));
        }
        if rank <= rule.keep {
            return Fate::Kept(format!("it is among the newest {} of its node and schematic", rule.keep));
        }
        match template.linked_clones {
            Some(0) => Fate::Deleted,
            Some(clones) => Fate::Kept(format!("{clones} linked clone(s) stand on it")),
            None if rule.unrecorded => Fate::Deleted,
            None => Fate::Kept("its storage keeps no record of linked clones (see --unrecorded)".to_owned()),
        }
    };
    let decided = sorted.into_iter().map(|template| {
        let rank = if template.cluster == rule.cluster {
            let rank = counted.entry((&template.node, &template.schematic)).or_default();
            *rank += 1;
            *rank
        } else {
            0
        };
        (template.clone(), fate(template, rank))
    });
    decided.collect()
}

/// Templates that runs that aren't done clone from or make, by what their plans say.
fn needed(state: &Path) -> Result<BTreeMap<(NodeName, VmId), RunId>, Stop> {
    let unknown = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Refused, "it isn't known which templates unfinished runs need", error)
            .hinted("nothing was deleted")
    };
    let mut needed = BTreeMap::new();
    let clusters = match fs::read_dir(state) {
        Ok(clusters) => clusters,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(needed),
        Err(error) => return Err(unknown(&error)),
    };
    for cluster in clusters {
        let cluster = cluster.map_err(|error| unknown(&error))?.file_name();
        for run in StateDir::new(state, &cluster.to_string_lossy()).list().map_err(|error| unknown(&error))? {
            if run.status().map_err(|error| unknown(&error))? == RunStatus::Done {
                continue;
            }
            let plan = run.plan().map_err(|error| unknown(&error))?;
            for (vmid, node) in &plan.facts.templates {
                needed.insert((node.clone(), *vmid), run.id().clone());
            }
            for planned in plan.steps() {
                if let Step::CreateTemplate { vm, .. } = &planned.step {
                    needed.insert((vm.node.clone(), vm.vmid), run.id().clone());
                }
            }
        }
    }
    Ok(needed)
}

/// `recast template prune`.
pub(super) async fn prune(global: &Global, asked: &TemplatePrune, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    let cluster = session.profile.value.name.clone();
    let state_root = state_root(&session.place, global);
    let found = templates(&session.pve).await.map_err(|error| crate::cli::prepare::unreachable(&error))?;
    let runs = needed(&state_root)?;
    let rule = Rule { cluster: &cluster, keep: asked.keep.get(), unrecorded: asked.unrecorded, needed: &runs };
    let decided = decide(&found, &rule);
    let doomed: Vec<&Template> =
        decided.iter().filter(|(_, fate)| *fate == Fate::Deleted).map(|(template, _)| template).collect();
    if doomed.is_empty() {
        let text = format!("{}there is nothing to prune\n", lines(&decided, ""));
        return Ok(answer(&cluster, &decided, ExitCode::Done, text));
    }
    if asked.dry_run {
        return Ok(answer(&cluster, &decided, ExitCode::Pending, lines(&decided, "would be deleted")));
    }
    surroundings.console.tell(&lines(&decided, "will be deleted"));
    confirm_deed("deletes templates", &cluster, global, surroundings)?;
    let state = StateDir::new(&state_root, &cluster);
    let taking = if global.break_lock { Break::Yes } else { Break::No };
    let lock = state.lock(&format!("template prune, process {}", std::process::id()), taking).map_err(|error| {
        error.hints().into_iter().fold(Stop::because(ExitCode::Refused, "nothing was deleted", &error), Stop::hinted)
    })?;
    // A run may have begun, and somebody may have made a clone, while the name was typed.
    let runs = needed(&state_root)?;
    let now = templates(&session.pve).await.map_err(|error| crate::cli::prepare::unreachable(&error))?;
    let rule = Rule { needed: &runs, ..rule };
    let still: BTreeSet<(NodeName, VmId)> = decide(&now, &rule)
        .into_iter()
        .filter(|(template, fate)| *fate == Fate::Deleted && doomed.contains(&template))
        .map(|(template, _)| (template.node, template.vmid))
        .collect();
    let mut gone = Vec::new();
    for template in doomed.iter().filter(|template| still.contains(&(template.node.clone(), template.vmid))) {
        delete(&session, template).await.map_err(|error| {
            let at = format!("template {} on {} was not deleted", template.vmid, template.node);
            Stop::because(ExitCode::Failed, at, &error)
                .hinted(format!("{} template(s) were deleted before it", gone.len()))
        })?;
        gone.push((*template).clone());
    }
    drop(lock);
    let done: Vec<(Template, Fate)> = decided
        .iter()
        .map(|(template, fate)| match fate {
            Fate::Deleted if !gone.contains(template) => {
                (template.clone(), Fate::Kept("it is no longer what it was when this was asked".to_owned()))
            }
            fate => (template.clone(), fate.clone()),
        })
        .collect();
    Ok(answer(&cluster, &done, ExitCode::Done, lines(&done, "deleted")))
}

async fn delete(session: &Session, template: &Template) -> Result<(), PveError> {
    let at = VmRef::new(template.node.clone(), template.vmid);
    let upid = session.pve.delete_vm(&at, Forget::Nothing).await?;
    session.pve.wait(&upid, WAIT).await.map(drop)
}

fn lines(decided: &[(Template, Fate)], what: &str) -> String {
    let mut text = String::new();
    for (template, fate) in decided {
        let named = format!("template {} ({}) on {}", template.vmid, template.name, template.node);
        let _ = match fate {
            Fate::Kept(why) => writeln!(text, "kept: {named}: {why}"),
            Fate::Deleted => writeln!(text, "{what}: {named}"),
        };
    }
    text
}

fn answer(cluster: &str, decided: &[(Template, Fate)], code: ExitCode, text: String) -> Answer {
    let ending = if code == ExitCode::Pending { Ending::Pending } else { Ending::Done };
    let mut document = Document::of_verb("template", Some(cluster), ending);
    let rows = |goes: bool| {
        let rows = decided.iter().filter(|(_, fate)| (*fate == Fate::Deleted) == goes).map(|(template, fate)| {
            let mut row = serde_json::to_value(template).unwrap_or_default();
            if let (Fate::Kept(why), Some(row)) = (fate, row.as_object_mut()) {
                row.insert("because".to_owned(), why.as_str().into());
            }
            row
        });
        serde_json::Value::Array(rows.collect())
    };
    document.extra.insert("pruned".to_owned(), rows(true));
    document.extra.insert("templates".to_owned(), rows(false));
    Answer { code, document, text }
}

/// What `--keep` is where nothing is said.
pub(crate) const KEEP: NonZeroU32 = NonZeroU32::new(2).expect("two is not zero");

#[cfg(test)]
mod tests {
    use super::*;

    fn template(vmid: u32, talos: &str, linked_clones: Option<usize>) -> Template {
        Template {
            node: "pve1".into(),
            vmid: VmId(vmid),
            name: format!("talos-{talos}"),
            talos: talos.to_owned(),
            schematic: "ab".to_owned(),
            cluster: "lab".to_owned(),
            run: "2026-11-20T22-31-05".to_owned(),
            proved: true,
            created: Some(1_700_000_000 + u64::from(vmid)),
            bytes: None,
            linked_clones,
            extensions: None,
        }
    }

    fn fates(found: &[Template], keep: u32, unrecorded: bool, needed: &[u32]) -> Vec<(u32, bool)> {
        let needed = needed.iter().map(|vmid| (("pve1".into(), VmId(*vmid)), RunId::from("r"))).collect();
        let rule = Rule { cluster: "lab", keep, unrecorded, needed: &needed };
        decide(found, &rule).iter().map(|(template, fate)| (template.vmid.0, *fate == Fate::Deleted)).collect()
    }

    #[test]
    fn what_must_not_go_stays_whatever_is_asked() {
        let mut foreign = template(101, "1.10.0", Some(0));
        foreign.cluster = "other".to_owned();
        let found = [
            foreign,
            template(102, "1.11.0", Some(2)),
            template(103, "1.11.1", None),
            template(104, "1.11.2", Some(0)),
            template(105, "1.13.9", Some(0)),
        ];
        // The oldest first would be 101: of another cluster. 102 has clones, nobody knows about 103, a run needs 104.
        let expected = [(105, false), (104, false), (103, false), (102, false), (101, false)];
        assert_eq!(fates(&found, 1, false, &[104]), expected);
        // Asking for those without a record changes only those.
        let expected = [(105, false), (104, false), (103, true), (102, false), (101, false)];
        assert_eq!(fates(&found, 1, true, &[104]), expected);
    }

    #[test]
    fn the_newest_of_each_node_and_schematic_stay() {
        let mut elsewhere = template(201, "1.10.0", Some(0));
        elsewhere.node = "pve2".into();
        let mut other = template(202, "1.10.0", Some(0));
        other.schematic = "cd".to_owned();
        let found = [
            template(101, "1.9.9", Some(0)),
            template(102, "1.10.0", Some(0)),
            template(103, "1.13.9", Some(0)),
            // Made later, of an older version.
            template(104, "1.12.0", Some(0)),
            elsewhere,
            other,
        ];
        let expected = [(103, false), (104, false), (102, true), (101, true), (202, false), (201, false)];
        assert_eq!(fates(&found, 2, false, &[]), expected);
    }
}
