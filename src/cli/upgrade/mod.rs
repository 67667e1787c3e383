//! `recast upgrade`: the cluster's own machines, hop by hop, from what they run to what is wanted.

pub mod back;
mod edits;
mod installers;
pub mod look;
pub mod manifests;
mod migrations;
pub mod prepare;
mod runs;

use std::fs;

use super::args::{Global, OnlyWhat, RebootHow, Upgrade};
use super::carry_out::{Begin, carry_out, unless_cancelled};
use super::confirm::confirm;
use super::rebuild::{pending, plan_or_refusal, tell_warnings};
use super::session::Session;
use super::stop::{Stop, failure};
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::StateDir;
use crate::plan::compatibility::Table;
use crate::plan::path::Hops;
use crate::plan::show;
use crate::plan::upgrade::{KernelLog, Only, Parallel, Reboot, Stage};
use crate::report::document::{Ending, Input, Kind, Problem};
use crate::report::{Document, Progress};
use prepare::{Order, Prepared, prepare};

/// `recast upgrade`.
pub async fn upgrade(global: &Global, asked: &Upgrade, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    tell_warnings(&session, surroundings);
    let order = order(asked)?;
    let run = StateDir::new(&session.state_root(), &session.profile.value.name).new_run_id(jiff::Timestamp::now());
    let prepared = Box::pin(unless_cancelled(surroundings, prepare(&session, &order, run))).await?;
    let Prepared { seen, findings, plan, secrets } = prepared;
    let plan = plan_or_refusal(plan, &findings, surroundings)?;
    if plan.phases.is_empty() {
        let nothing = Progress::default();
        let problems = findings.iter().map(|finding| Problem::new(Kind::Warning, &failure(finding))).collect();
        let input =
            Input { ending: Some(Ending::Done), requests: session.requests(), problems, ..Input::new(&plan, &nothing) };
        let text = format!("cluster {} runs all that is wanted: nothing to do\n", plan.cluster);
        return Ok(Answer { code: ExitCode::Done, document: Document::of_run(input), text });
    }
    if asked.dry_run {
        return Ok(pending(&plan, &findings, &session));
    }
    surroundings.console.tell(&show::text(&plan));
    confirm(&plan, global, surroundings)?;
    Box::pin(carry_out(&session, plan, secrets, Begin::New(&seen), surroundings)).await
}

/// What is asked for, with the user's own table over ours.
fn order(asked: &Upgrade) -> Result<Order, Stop> {
    let table = Table::built_in().clone();
    let table = match &asked.compatibility {
        None => table,
        Some(path) => {
            let name = format!("the compatibility table {}", path.display());
            let text = fs::read_to_string(path)
                .map_err(|error| Stop::because(ExitCode::Invalid, format!("{name} can't be read"), &error))?;
            let over = Table::read(&text)
                .map_err(|error| Stop::because(ExitCode::Invalid, format!("{name} is not valid"), &error))?;
            table.with(over)
        }
    };
    Ok(Order {
        wishes: asked.wishes(),
        only: match asked.only {
            None => Only::Both,
            Some(OnlyWhat::Os) => Only::Os,
            Some(OnlyWhat::Kubernetes) => Only::Kubernetes,
        },
        nodes: asked.nodes.clone(),
        parallel: asked.max_parallel.unwrap_or(Parallel::Count(1)),
        stage: if asked.stage { Stage::NextBoot } else { Stage::Now },
        reboot: match asked.reboot_mode {
            RebootHow::Default => Reboot::Default,
            RebootHow::Powercycle => Reboot::Powercycle,
        },
        kernel_log: if asked.debug { KernelLog::Kept } else { KernelLog::Unheard },
        hops: if asked.no_hops { Hops::OneOfEach } else { Hops::Any },
        table,
    })
}
