//! `recast snapshot prune`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::{There, blocking, listed_row, unkept};
use crate::backup::store::Prunable;
use crate::cli::args::Global;
use crate::cli::confirm::confirm_deed;
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::StateDir;
use crate::journal::lock::Break;
use crate::report::document::{Ending, Kind, Problem};
use crate::report::{Document, problem};

/// `recast snapshot prune`.
pub(super) async fn prune(
    global: &Global,
    keep: Option<NonZeroU32>,
    dry_run: bool,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let there = There::look(global, surroundings)?;
    let keep = keep.or_else(|| there.keep.and_then(NonZeroU32::new)).ok_or_else(|| {
        Stop::new(ExitCode::Invalid, "nothing says how many snapshots are kept")
            .hinted("add --keep N, or backup.keep to the profile; it counts per purpose, and 0 is no number to keep")
    })?;
    let Some(store) = there.store.clone() else {
        return Ok(answer(&there, &Prunable::default(), ExitCode::Done, "there are no snapshots\n".to_owned()));
    };
    let needed: BTreeSet<PathBuf> = there.needed.keys().cloned().collect();
    let found = {
        let store = store.clone();
        blocking(move || store.prunable(keep, &needed)).await?.map_err(|error| unkept(&error))?
    };
    for damaged in &found.damaged {
        let told = format!("{} can't be relied on; it is left there and not counted", damaged.path.display());
        surroundings.console.tell(&problem::warning(&told, surroundings.colour(global)));
    }
    if found.is_empty() {
        return Ok(answer(&there, &found, ExitCode::Done, "there is nothing to prune\n".to_owned()));
    }
    if dry_run {
        let text = lines(&found, "would be deleted");
        return Ok(answer(&there, &found, ExitCode::Pending, text));
    }
    surroundings.console.tell(&lines(&found, "will be deleted"));
    confirm_deed("deletes snapshots", &there.cluster, global, surroundings)?;
    let state = StateDir::new(&there.state, &there.cluster);
    let taking = if global.break_lock { Break::Yes } else { Break::No };
    let lock = state.lock(&format!("snapshot prune, process {}", std::process::id()), taking).map_err(|error| {
        error.hints().into_iter().fold(Stop::because(ExitCode::Refused, "nothing was deleted", &error), Stop::hinted)
    })?;
    // A run may have begun while somebody was typing.
    let needed = super::needed(&there.state, &there.listed)?;
    let mut found = found;
    found.snapshots.retain(|listed| !needed.contains_key(&listed.path));
    let removed = found.clone();
    blocking(move || store.remove(&found)).await?.map_err(|error| unkept(&error))?;
    drop(lock);
    Ok(answer(&there, &removed, ExitCode::Done, lines(&removed, "deleted")))
}

fn lines(found: &Prunable, what: &str) -> String {
    let mut text = String::new();
    for path in found.snapshots.iter().map(|listed| &listed.path).chain(&found.parts) {
        let _ = writeln!(text, "{what}: {}", path.display());
    }
    text
}

fn answer(there: &There, found: &Prunable, code: ExitCode, text: String) -> Answer {
    let ending = if code == ExitCode::Pending { Ending::Pending } else { Ending::Done };
    let rows = found.snapshots.iter().map(|listed| listed_row(listed, None)).collect();
    let warnings = found.damaged.iter().map(|damaged| {
        let what = "a snapshot can't be relied on; it is left there and not counted".to_owned();
        let failure = crate::event::Failure { what, causes: Vec::new(), hints: Vec::new() };
        Problem::new(Kind::Warning, &failure).at(damaged.path.display().to_string())
    });
    let document = Document::of_verb("snapshot", Some(&there.cluster), ending)
        .with_snapshots(rows)
        .with_problems(warnings.collect::<Vec<_>>());
    Answer { code, document, text }
}
