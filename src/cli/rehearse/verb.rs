//! `recast rehearse -- VERB`: the verb, unchanged, in a place of its own.
//!
//! The inner command line is parsed like any other; only where it looks is put in its place: profile, site, state,
//! cache, home, and a connector that refuses whatever isn't loopback.

use clap::Parser as _;

use super::{Contents, Order, Rehearsal, RehearsalError, StageError};
use crate::cli::args::{Cli, Global, Rehearse, Verb};
use crate::cli::session::Place;
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings, dispatch};
use crate::exit::ExitCode;
use crate::net::Reach;
use crate::types::{Version, VersionWish};

/// `recast rehearse`.
pub async fn rehearse(global: &Global, asked: Rehearse, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let words = std::iter::once("recast".to_owned()).chain(asked.verb);
    let inner = Cli::try_parse_from(words).map_err(|error| {
        Stop::new(ExitCode::Invalid, error.render().to_string().trim_end().trim_start_matches("error: ").to_owned())
    })?;
    if matches!(inner.verb, Verb::Resume(_) | Verb::Apply(_) | Verb::Rehearse(_)) {
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
        contents: Contents::Running,
        asked: asked_versions(&inner.verb),
        time_scale: asked.time_scale,
        rng_seed: asked.rng_seed,
    };
    let rehearsal = super::start(order).await.map_err(refused)?;
    for notice in rehearsal.notices() {
        surroundings.console.tell(&format!("note: {notice}\n"));
    }
    let cli = Cli { global: inside(&rehearsal, global, inner.global), verb: inner.verb };
    let place = Place { env: rehearsal.env(), reach: Reach::LoopbackOnly };
    let inside = Surroundings { place, ..surroundings.clone() };
    let answer = Box::pin(dispatch(cli, &inside)).await;
    rehearsal.stop().await;
    Ok(answer)
}

/// What is wrong with profile or site is shown as it would be in life.
fn refused(error: RehearsalError) -> Stop {
    match error {
        RehearsalError::Stage(StageError::Files(problems)) => problems.into(),
        error => Stop::because(ExitCode::Invalid, "the rehearsal can't be set up", &error),
    }
}

/// Talos versions that the verb names by number.
fn asked_versions(verb: &Verb) -> Vec<Version> {
    let wishes = match verb {
        Verb::Rebuild(rebuild) => &rebuild.wishes,
        Verb::Check(wishes) => wishes,
        _ => return Vec::new(),
    };
    match &wishes.to {
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
