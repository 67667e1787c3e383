//! `recast rehearse -- VERB`: the verb, unchanged, in a place of its own.
//!
//! The inner command line is parsed like any other; only where it looks is put in its place: profile, site, state,
//! cache, home, and a connector that refuses whatever isn't loopback.

use clap::Parser as _;
use serde_json::json;

use super::{Contents, Order, Rehearsal, RehearsalError, StageError, Verdict, Writer};
use crate::cli::args::{Cli, Global, Rehearse, Template, Verb};
use crate::cli::session::Place;
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings, dispatch};
use crate::command::Mode;
use crate::event::Failure;
use crate::exit::ExitCode;
use crate::net::Reach;
use crate::report::document::{Ending, Kind, Problem};
use crate::report::{Colour, problem};
use crate::types::{Version, VersionWish};

/// `recast rehearse`.
pub async fn rehearse(global: &Global, asked: Rehearse, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let words = std::iter::once("recast".to_owned()).chain(asked.verb);
    let inner = Cli::try_parse_from(words).map_err(|error| {
        Stop::new(ExitCode::Invalid, error.render().to_string().trim_end().trim_start_matches("error: ").to_owned())
    })?;
    if matches!(inner.verb, Verb::Resume(_) | Verb::Rollback(_) | Verb::Apply(_) | Verb::Rehearse(_)) {
        let verb = inner.verb.name();
        return Err(Stop::new(ExitCode::Invalid, format!("{verb} can't be rehearsed"))
            .hinted("a rehearsal begins from a fresh double, which has no earlier runs"));
    }
    let profile = inner
        .global
        .profile
        .as_ref()
        .or(global.profile.as_ref())
        .ok_or_else(|| Stop::new(ExitCode::Invalid, "no profile is named").hinted("name it with --profile FILE"))?;
    let site = inner.global.site.as_ref().or(global.site.as_ref());
    surroundings.console.tell("Starting the double of the site …\n");
    let order = Order {
        profile: profile.clone(),
        site: site.cloned(),
        contents: contents(&inner.verb),
        asked: asked_versions(&inner.verb),
        time_scale: asked.time_scale,
        rng_seed: asked.rng_seed,
        scenario: asked.scenario,
        inventory: asked.inventory,
    };
    let rehearsal = super::start(order).await.map_err(refused)?;
    for notice in rehearsal.notices() {
        surroundings.console.tell(&format!("note: {notice}\n"));
    }
    let writer = if keeps_data(&inner.verb) { rehearsal.writer().map_err(refused)? } else { None };
    let cli = Cli { global: inside(&rehearsal, global, inner.global), verb: inner.verb };
    let place = Place { env: rehearsal.env(), reach: Reach::LoopbackOnly, commands: Mode::Record };
    let inside = Surroundings { place, ..surroundings.clone() };
    let mut answer = Box::pin(dispatch(cli, &inside)).await;
    if let Some(writer) = writer {
        answer = compare(writer, answer, surroundings).await;
    }
    tell_tally(&rehearsal, surroundings);
    rehearsal.stop().await;
    Ok(answer)
}

/// What became of the scenario: a fault that never happened has proven nothing.
fn tell_tally(rehearsal: &Rehearsal, surroundings: &Surroundings) {
    for one in rehearsal.double().tally() {
        let how = match &one.failed {
            Some(why) => format!("could not happen: {why}"),
            None if one.happened == 0 => format!("never happened ({} matches)", one.matched),
            None => format!("happened {} times", one.happened),
        };
        surroundings.console.tell(&format!("Scenario: {}: {how}.\n", one.name));
    }
}

/// What is wrong with profile or site is shown as it would be in life.
fn refused(error: RehearsalError) -> Stop {
    match error {
        RehearsalError::Stage(StageError::Files(problems)) => problems.into(),
        error => Stop::because(ExitCode::Invalid, "the rehearsal can't be set up", &error),
    }
}

/// Whether what is written while the verb runs must be there afterwards.
fn keeps_data(verb: &Verb) -> bool {
    match verb {
        Verb::Rebuild(rebuild) => !rebuild.fresh && !rebuild.dry_run,
        Verb::Upgrade(upgrade) => !upgrade.dry_run,
        _ => false,
    }
}

/// Compares what is there with what was acknowledged, once the verb is through. A cluster that is still half-way has
/// no API to ask.
async fn compare(writer: Writer, mut answer: Answer, surroundings: &Surroundings) -> Answer {
    if !matches!(answer.code, ExitCode::Done | ExitCode::Refused) {
        writer.abandon();
        return answer;
    }
    let lost = |what: String, causes: Vec<String>| Failure { what, causes, hints: Vec::new() };
    let failure = match writer.finish().await {
        Ok(Verdict { acknowledged, unanswered, missing, longest_gap }) if missing.is_empty() => {
            surroundings.console.tell(&format!(
                "Rehearsal: {acknowledged} writes to the Kubernetes API were acknowledged while this ran, and every one \
                 is there ({unanswered} were not acknowledged; the longest gap was {:.1} s).\n",
                longest_gap.as_secs_f64(),
            ));
            let written = json!({"acknowledged": acknowledged, "unanswered": unanswered, "missing": 0});
            answer.document = answer.document.with("writes", written);
            return answer;
        }
        Ok(Verdict { acknowledged, missing, .. }) => {
            let named = missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let what = format!("{} of {acknowledged} acknowledged writes are lost: {named}", missing.len());
            lost(what, Vec::new())
        }
        Err(error) => {
            let mut causes = Vec::new();
            let mut next: Option<&dyn std::error::Error> = Some(&error);
            while let Some(cause) = next {
                causes.push(cause.to_string());
                next = cause.source();
            }
            lost("what was written during the rehearsal can't be read back".to_owned(), causes)
        }
    };
    surroundings.console.tell(&problem::text([&failure], None, Colour::Off));
    answer.document = answer.document.with_problems([Problem::new(Kind::Failed, &failure)]);
    answer.document.outcome = Ending::Failed;
    Answer { code: ExitCode::Failed, ..answer }
}

/// What is there before the verb: what it creates isn't.
fn contents(verb: &Verb) -> Contents {
    match verb {
        Verb::Create(_) => Contents::TemplateOnly,
        _ => Contents::Running,
    }
}

/// Talos versions that the verb names by number.
fn asked_versions(verb: &Verb) -> Vec<Version> {
    let to = match verb {
        Verb::Rebuild(rebuild) => &rebuild.wishes.to,
        Verb::Upgrade(upgrade) => &upgrade.to,
        Verb::Create(create) => &create.wishes.to,
        Verb::Template(Template::Build(build)) => &build.wishes.to,
        Verb::Check(wishes) => &wishes.to,
        _ => return Vec::new(),
    };
    match to {
        Some(VersionWish::Exact(version)) => vec![version.clone()],
        _ => Vec::new(),
    }
}

/// The flags of the inner verb: its own where it has any, else those of `rehearse`; the places are the rehearsal's.
fn inside(rehearsal: &Rehearsal, outer: &Global, inner: Global) -> Global {
    Global {
        profile: Some(rehearsal.profile().to_owned()),
        site: Some(rehearsal.site().to_owned()),
        state_dir: Some(rehearsal.state_dir()),
        cache_dir: Some(rehearsal.cache_dir()),
        report_dir: inner.report_dir.or_else(|| outer.report_dir.clone()),
        confirm: inner.confirm.or_else(|| outer.confirm.clone()),
        events: inner.events.or_else(|| outer.events.clone()),
        output: outer.output,
        log_level: outer.log_level.clone(),
        break_lock: inner.break_lock,
        no_progress: inner.no_progress || outer.no_progress,
        color: outer.color,
    }
}
