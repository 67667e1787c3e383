//! From an approved plan to its end: run directory, lock, journal, engine, report.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::session::Session;
use super::stop::Stop;
use super::{Answer, Surroundings, log};
use crate::backup::Devices;
use crate::command::{self, Commands, Done, Mode};
use crate::engine::{Class, Ended, RealClock, Retry, Run};
use crate::event::Outcome;
use crate::exit::ExitCode;
use crate::journal::lock::Break;
use crate::journal::{self, Journal, JournalError, Opening, Record, RunDir, StateDir};
use crate::k8s::Readyz;
use crate::net::Reach;
use crate::plan::{Observed, Plan};
use crate::report::document::Input;
use crate::report::{
    Bars, Colour, Document, Fanout, JsonLines, Lines, Progress, Recorder, Report, Summary, Told, wall_clock,
};
use crate::steps::World;
use crate::steps::files::{Files, KEPT_LOCK, KEPT_PROFILE};
use crate::talos::access::{AdminCertificate, Roles};
use crate::talos::client::Access;
use crate::talos::secrets::Secrets;

/// The phase up to which a run can be taken back.
const FREEZE: &str = "freeze";

/// How long the admin certificate of a run is valid, in hours: longer than any run, and never written down.
const CERTIFICATE_HOURS: i64 = 48;

/// Whether a plan is begun or gone on with.
pub enum Begin<'a> {
    /// A new run, with what was observed for it.
    New(&'a Observed),
    /// A run that stopped.
    Again,
    /// A run that stopped, to take back what can be.
    Back,
}

/// An administrator's access by the cluster's own CA.
pub fn access(secrets: &Secrets, now: jiff::Timestamp) -> Result<Access, Stop> {
    let unusable = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Invalid, "no admin certificate can be made from the secrets", error)
    };
    let admin =
        AdminCertificate::issue(secrets, Roles::Admin, now, CERTIFICATE_HOURS).map_err(|error| unusable(&error))?;
    Access::from_pem(admin.authority_pem().as_bytes(), admin.certificate_pem().as_bytes(), admin.key_pem())
        .map_err(|error| unusable(&error))
}

fn journal_stop(error: &JournalError) -> Stop {
    error.hints().into_iter().fold(Stop::because(ExitCode::Failed, "the run can't be journaled", error), Stop::hinted)
}

/// Carries the plan out, to whatever end.
pub async fn carry_out(
    session: &Session,
    plan: Plan,
    secrets: Secrets,
    begin: Begin<'_>,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let global = &session.global;
    let state = StateDir::new(&session.state_root(), &plan.cluster);
    let taking = if global.break_lock { Break::Yes } else { Break::No };
    let _lock = state.lock(&format!("{} {}", plan.verb, plan.run), taking).map_err(|error| {
        error
            .hints()
            .into_iter()
            .fold(Stop::because(ExitCode::Refused, "another run holds this cluster", &error), Stop::hinted)
    })?;
    let dir = state.run(&plan.run);
    let earlier = match begin {
        Begin::New(_) => Vec::new(),
        Begin::Again | Begin::Back => dir.records().map_err(|error| journal_stop(&error))?,
    };
    let journal = open_journal(&dir, &plan, &begin, session)?;
    log::keep_in(&dir.path().join("log.jsonl"))
        .map_err(|error| Stop::because(ExitCode::Failed, "the run's log can't be written", &error))?;
    let world = world(session, plan, secrets, dir.path())?;
    let (ended, progress) = Box::pin(drive(&world, journal, (&begin, &earlier), surroundings, session)).await?;
    failed_hook(&world, &ended, session, surroundings).await;
    let requests = journal::requests(&earlier) + session.requests();
    Ok(report(&world, &dir, &ended, &progress, requests, session, surroundings))
}

/// Tells the user's own command that the run failed. What it does then is its own affair.
async fn failed_hook(world: &World, ended: &Ended, session: &Session, surroundings: &Surroundings) {
    let Some(line) = &session.profile.value.hooks.failed else { return };
    if matches!(ended.outcome, Outcome::Done | Outcome::Cancelled) {
        return;
    }
    let failures: Vec<_> = ended
        .failures
        .iter()
        .map(|failed| json!({ "step": failed.step, "what": failed.failure.what, "causes": failed.failure.causes }))
        .collect();
    let told = [("outcome", json!(ended.outcome)), ("failures", failures.into())];
    let text = match world.run_failed_hook(line, &told).await {
        Ok(Done::Ran { .. }) => return,
        Ok(Done::Recorded) => format!("note: the hook `failed` is not run in a rehearsal: {line}\n"),
        Err(error) => format!("warning: {error}\n"),
    };
    surroundings.console.tell(&text);
}

/// All that the steps of `plan` act on; what they write for the run goes into its directory `run`.
pub fn world(session: &Session, plan: Plan, secrets: Secrets, run: &Path) -> Result<World, Stop> {
    let access = access(&secrets, jiff::Timestamp::now())?;
    let ca = secrets.kubernetes().certificate_pem();
    let readyz = plan.endpoint.as_ref().and_then(|endpoint| Readyz::new(&session.connector, endpoint, &ca).ok());
    Ok(World {
        pve: session.pve.clone(),
        nodes: session.nodes.clone(),
        http: session.http.clone(),
        cache: session.cache.clone(),
        connector: session.connector.clone(),
        shells: super::ssh::shells(session)?,
        access,
        files: Files {
            profile: session.profile_path.clone(),
            lock: session.lock_path(),
            kubeconfig: session.place.env.kubeconfig(),
            talosconfig: session.place.env.talosconfig(),
            run: run.to_owned(),
        },
        commands: match session.place.commands {
            Mode::Run => Commands::Real,
            Mode::Record => Commands::Recorded(command::Recorder::new(run.join("commands.jsonl"))),
        },
        readyz,
        // Where nothing but loopback can be reached, folders stand for devices.
        devices: match session.place.reach {
            Reach::LoopbackOnly => Devices::AllDiffer,
            Reach::Anywhere => Devices::Compare,
        },
        image: tokio::sync::Mutex::default(),
        secrets,
        plan,
    })
}

/// Keeps profile and lock as they are now: a way back puts them back.
fn keep_files(dir: &RunDir, session: &Session) -> Result<(), Stop> {
    let path = &session.profile_path;
    let unread = |error: &std::io::Error| {
        Stop::because(ExitCode::Failed, format!("{} can't be kept for a way back", path.display()), error)
    };
    let kept = dir.folder("before").map_err(|error| journal_stop(&error))?;
    let profile = fs::read(path).map_err(|error| unread(&error))?;
    kept.save(KEPT_PROFILE, &profile).map_err(|error| journal_stop(&error))?;
    match fs::read(session.lock_path()) {
        Ok(lock) => kept.save(KEPT_LOCK, &lock).map(drop).map_err(|error| journal_stop(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unread(&error)),
    }
}

fn open_journal(dir: &RunDir, plan: &Plan, begin: &Begin<'_>, session: &Session) -> Result<Journal, Stop> {
    let opening = Opening {
        run: plan.run.clone(),
        tool: format!("recast {}", env!("CARGO_PKG_VERSION")),
        at: jiff::Timestamp::now(),
    };
    match begin {
        Begin::New(seen) => {
            dir.make().map_err(|error| journal_stop(&error))?;
            let observed = serde_json::to_vec_pretty(seen).unwrap_or_default();
            dir.save("observed.json", &observed).map_err(|error| journal_stop(&error))?;
            keep_files(dir, session)?;
            let text = serde_json::to_vec_pretty(plan).unwrap_or_default();
            Journal::create(dir, &text, &plan.phases, &opening).map_err(|error| journal_stop(&error))
        }
        Begin::Again | Begin::Back => {
            let text = dir.plan_bytes().map_err(|error| journal_stop(&error))?;
            Journal::resume(dir, &text, &plan.phases, &opening).map_err(|error| journal_stop(&error))
        }
    }
}

async fn drive(
    world: &World,
    journal: Journal,
    (begin, earlier): (&Begin<'_>, &[Record]),
    surroundings: &Surroundings,
    session: &Session,
) -> Result<(Ended, Progress), Stop> {
    let (console, global) = (&surroundings.console, &session.global);
    let colour = surroundings.colour(global);
    let recorder = Recorder::new(&world.plan, earlier, wall_clock());
    let mut events = Fanout::new().and(&recorder);
    events = if console.watched && !global.no_progress && surroundings.place.env.get("CI").is_none() {
        events.and(Bars::stderr(colour))
    } else {
        events.and(Lines::new(console.err(), colour, wall_clock()))
    };
    events = match global.events.as_deref() {
        Some("-") => events.and(JsonLines::new(console.out(), wall_clock())),
        Some(path) => {
            let file = fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
                Stop::because(ExitCode::Invalid, format!("events can't be written to {path}"), &error)
            })?;
            events.and(JsonLines::new(file, wall_clock()))
        }
        None => events,
    };
    let verb = world.plan.verb.to_string();
    let clock = RealClock::new();
    let run = Run {
        id: &world.plan.run,
        cluster: &world.plan.cluster,
        verb: &verb,
        phases: &world.plan.phases,
        world,
        clock: &clock,
        events: &events,
        cancel: &surroundings.cancel,
        retry: Retry::default(),
    };
    let ended = match begin {
        Begin::New(_) | Begin::Again => Box::pin(run.carry_out(journal)).await,
        Begin::Back => Box::pin(run.go_back(journal, FREEZE)).await,
    };
    let ended = ended.map_err(|error| {
        Stop::because(ExitCode::Resumable, "the run stopped, since it could not be journaled any more", &error)
            .hinted(resume_command(session, &world.plan))
    })?;
    drop(events);
    Ok((ended, recorder.progress()))
}

/// What to type to go on.
pub fn resume_command(session: &Session, plan: &Plan) -> String {
    let site = session.global.site.as_ref().map_or_else(String::new, |site| format!(" --site {}", site.display()));
    let state =
        session.global.state_dir.as_ref().map_or_else(String::new, |dir| format!(" --state-dir {}", dir.display()));
    format!("recast resume {} --profile {}{site}{state}", plan.run, session.profile_path.display())
}

fn report(
    world: &World,
    dir: &RunDir,
    ended: &Ended,
    progress: &Progress,
    requests: u64,
    session: &Session,
    surroundings: &Surroundings,
) -> Answer {
    let plan = &world.plan;
    let colour = surroundings.colour(&session.global);
    let resume = (ended.outcome != Outcome::Done).then(|| resume_command(session, plan));
    let input = Input { requests, ..Input::new(plan, progress) }.with_outputs(ended.journal.state().outputs());
    let document = Document::of_run(input);
    let text = |colour| Summary { document: &document, plan, progress, resume: resume.as_deref(), colour }.text();
    let report = Report { document: &document, run: Some(Told { plan, progress }), resume: resume.as_deref() };
    let places = [Some(dir.path()), session.global.report_dir.as_deref()];
    for place in places.into_iter().flatten() {
        super::keep_report(place, &report, &text(Colour::Off), surroundings);
    }
    surroundings.console.tell(&text(colour));
    Answer { code: exit_code(ended), document, text: String::new() }
}

fn exit_code(ended: &Ended) -> ExitCode {
    match ended.outcome {
        Outcome::Done => ExitCode::Done,
        Outcome::Stuck => ExitCode::Stuck,
        Outcome::Cancelled => ExitCode::Cancelled,
        Outcome::Refused => ExitCode::Refused,
        Outcome::Failed if ended.failures.iter().any(|failed| failed.class == Class::Refused) => ExitCode::Refused,
        Outcome::Failed => ExitCode::Resumable,
    }
}

/// Does something that only reads, unless the person says stop.
pub async fn unless_cancelled<T>(
    surroundings: &Surroundings,
    looking: impl Future<Output = Result<T, Stop>>,
) -> Result<T, Stop> {
    tokio::select! {
        done = looking => done,
        () = surroundings.cancel.reached(crate::engine::cancel::Level::Park) => {
            Err(Stop::new(ExitCode::Cancelled, "cancelled before anything was touched"))
        }
    }
}
