//! `recast check`: everything that a rebuild would look at first, and nothing else.

use super::args::{Global, Wishes};
use super::carry_out::unless_cancelled;
use super::prepare::{DataWish, Order, any_member, prepare};
use super::rebuild::tell_warnings;
use super::session::Session;
use super::stop::{Stop, failure};
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::StateDir;
use crate::plan::check::refuses;
use crate::plan::{Verb, show};
use crate::report::Document;
use crate::report::document::{Ending, Kind, Problem};

/// `recast check`.
pub async fn check(global: &Global, wishes: &Wishes, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    tell_warnings(&session, surroundings);
    // Where there is no cluster yet, the question is whether one can be created.
    let there = unless_cancelled(surroundings, any_member(&session)).await?;
    let (verb, data) = if there { (Verb::Rebuild, DataWish::Keep) } else { (Verb::Create, DataWish::Fresh) };
    let order = Order { verb, wishes: wishes.clone(), data, back: None };
    let now = jiff::Timestamp::now();
    let run = StateDir::new(&session.state_root(), &session.profile.value.name).new_run_id(now);
    let prepared = Box::pin(unless_cancelled(surroundings, prepare(&session, &order, run, now))).await?;
    if refuses(&prepared.findings) || prepared.plan.is_none() {
        return Err(Stop::refused(&prepared.findings));
    }
    surroundings.console.tell(&show::findings(&prepared.findings));
    let warnings = prepared.findings.iter().map(|finding| Problem::new(Kind::Warning, &failure(finding)));
    let document = Document::of_verb("check", Some(&session.profile.value.name), Ending::Done).with_problems(warnings);
    let nodes: Vec<String> =
        prepared.seen.nodes.iter().map(|node| format!("{} (PVE {})", node.name, node.version)).collect();
    let text = format!("{}: a {verb} can be done; looked at {}\n", session.profile.value.name, nodes.join(", "));
    Ok(Answer { code: ExitCode::Done, document, text })
}
