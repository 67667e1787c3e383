//! `recast rebuild` and `recast apply`, and what every verb with a plan shares: plan, show, confirm, carry out.

use std::fs;
use std::path::Path;

use super::args::{Apply, Global, Rebuild};
use super::carry_out::{Begin, carry_out, unless_cancelled};
use super::confirm::confirm;
use super::prepare::{DataWish, Order, Prepared, prepare};
use super::session::Session;
use super::stop::{Stop, failure};
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::StateDir;
use crate::plan::observed::{Finding, Severity};
use crate::plan::{FORMAT, Observed, Plan, Verb, lint, show};
use crate::report::document::{Ending, Input, Kind, Problem};
use crate::report::{Document, Progress};

/// `recast rebuild`.
pub async fn rebuild(global: &Global, asked: &Rebuild, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let data = match (&asked.restore, asked.fresh) {
        (Some(file), _) => DataWish::Restore(file.clone()),
        (None, true) => DataWish::Fresh,
        (None, false) => DataWish::Keep,
    };
    let order = Order { verb: Verb::Rebuild, wishes: asked.wishes.clone(), data, back: None };
    let after = After { dry_run: asked.dry_run, plan_out: asked.plan_out.as_deref() };
    Box::pin(plan_and_do(global, &order, after, surroundings)).await
}

/// What becomes of a plan once it is made.
#[derive(Clone, Copy, Debug)]
pub struct After<'a> {
    /// It is only shown.
    pub dry_run: bool,
    /// It is saved here.
    pub plan_out: Option<&'a Path>,
}

/// What every verb with a plan does: look, plan, show, confirm, carry out.
pub async fn plan_and_do(
    global: &Global,
    order: &Order,
    after: After<'_>,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    tell_warnings(&session, surroundings);
    Box::pin(plan_and_do_in(session, order, after, surroundings)).await
}

/// The same with a session that is open.
pub async fn plan_and_do_in(
    session: Session,
    order: &Order,
    after: After<'_>,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let now = jiff::Timestamp::now();
    let run = StateDir::new(&session.state_root(), &session.profile.value.name).new_run_id(now);
    let prepared = Box::pin(unless_cancelled(surroundings, prepare(&session, order, run, now))).await?;
    let Prepared { seen, findings, plan, secrets } = prepared;
    let plan = plan_or_refusal(plan, &findings, surroundings)?;
    if let Some(path) = after.plan_out {
        let text = serde_json::to_string_pretty(&plan).unwrap_or_default() + "\n";
        fs::write(path, text).map_err(|error| {
            Stop::because(ExitCode::Invalid, format!("the plan can't be saved to {}", path.display()), &error)
        })?;
    }
    if after.dry_run {
        return Ok(pending(&plan, &findings, &session));
    }
    surroundings.console.tell(&show::text(&plan));
    confirm(&plan, &session.global, surroundings)?;
    if plan.verb == Verb::Rollback && seen.cluster.is_some() {
        save_present(&session, surroundings).await;
    }
    Box::pin(carry_out(&session, plan, secrets, Begin::New(&seen), surroundings)).await
}

/// The plan, and what is to be known of it told; without one, what refuses it.
pub(super) fn plan_or_refusal(
    plan: Option<Plan>,
    findings: &[Finding],
    surroundings: &Surroundings,
) -> Result<Plan, Stop> {
    let Some(plan) = plan else {
        let warnings: Vec<_> =
            findings.iter().filter(|finding| finding.severity == Severity::Warning).cloned().collect();
        surroundings.console.tell(&show::findings(&warnings));
        return Err(Stop::refused(findings));
    };
    surroundings.console.tell(&show::findings(findings));
    Ok(plan)
}

/// What runs now is about to be replaced by what was before: whoever regrets that finds a snapshot of it. A cluster that
/// was never finished may have none to give.
async fn save_present(session: &Session, surroundings: &Surroundings) {
    match Box::pin(super::snapshot::save(&session.global, false, surroundings)).await {
        Ok(saved) => surroundings.console.tell(&saved.text),
        Err(stop) => {
            let why = stop.problems.first().map(|problem| problem.what.clone()).unwrap_or_default();
            surroundings.console.tell(&format!("warning: no snapshot of what runs now could be saved: {why}\n"));
        }
    }
}

/// `recast apply`: exactly the saved plan. Its first step reads its facts again and refuses where one drifted.
pub async fn apply(global: &Global, asked: &Apply, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    let path = asked.plan.display();
    let text = fs::read_to_string(&asked.plan)
        .map_err(|error| Stop::because(ExitCode::Invalid, format!("the plan {path} can't be read"), &error))?;
    let plan = parse(&text).map_err(|stop| stop.hinted(format!("the file is {path}")))?;
    let secrets = session.secrets(jiff::Timestamp::now())?;
    belongs(&plan, &session)?;
    if plan.secrets != secrets.fingerprint() {
        return Err(Stop::new(ExitCode::Refused, "the secrets are not those that the plan was made with")
            .hinted("make a new plan"));
    }
    if plan.profile != session.profile_digest() {
        return Err(
            Stop::new(ExitCode::Refused, "the profile was edited since the plan was made").hinted("make a new plan")
        );
    }
    let dir = StateDir::new(&session.state_root(), &plan.cluster).run(&plan.run);
    if dir.path().exists() {
        return Err(Stop::new(ExitCode::Refused, format!("run {} was begun already", plan.run))
            .hinted(super::carry_out::resume_command(&session, &plan)));
    }
    if asked.dry_run {
        return Ok(pending(&plan, &[], &session));
    }
    surroundings.console.tell(&show::text(&plan));
    confirm(&plan, global, surroundings)?;
    Box::pin(carry_out(&session, plan, secrets, Begin::New(&Observed::default()), surroundings)).await
}

/// The end of a dry run: the plan on stdout, exit code 2.
pub fn pending(plan: &Plan, findings: &[Finding], session: &Session) -> Answer {
    let nothing = Progress::default();
    let document = Document::of_run(Input {
        ending: Some(Ending::Pending),
        requests: session.requests(),
        problems: findings.iter().map(|finding| Problem::new(Kind::Warning, &failure(finding))).collect(),
        ..Input::new(plan, &nothing)
    });
    Answer { code: ExitCode::Pending, document, text: show::text(plan) }
}

/// A saved plan, checked by the rules for every plan.
pub fn parse(text: &str) -> Result<Plan, Stop> {
    let format = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|plan| plan.get("format")?.as_u64());
    if let Some(newer) = format.filter(|format| *format > u64::from(FORMAT)) {
        return Err(Stop::new(
            ExitCode::Invalid,
            format!("the plan has format {newer}, and this recast knows formats up to {FORMAT}"),
        ));
    }
    let plan: Plan = serde_json::from_str(text)
        .map_err(|error| Stop::because(ExitCode::Invalid, "the file is not a plan of recast", &error))?;
    let notes = lint::lint(&plan);
    if notes.is_empty() {
        return Ok(plan);
    }
    let mut stop = Stop::new(ExitCode::Refused, "the plan breaks rules that every plan must keep");
    stop.problems[0].causes = notes.iter().map(ToString::to_string).collect();
    Err(stop.hinted("it was edited or damaged; make a new one"))
}

/// Refuses the plan of another cluster.
pub fn belongs(plan: &Plan, session: &Session) -> Result<(), Stop> {
    let name = &session.profile.value.name;
    if plan.cluster == *name {
        return Ok(());
    }
    Err(Stop::new(ExitCode::Refused, format!("the plan is for cluster {}, and the profile is {name}'s", plan.cluster)))
}

/// Shows what is odd, but stops nothing, in the user's files.
pub fn tell_warnings(session: &Session, surroundings: &Surroundings) {
    for warning in &session.profile.warnings {
        surroundings.console.tell(&format!("{warning}\n"));
    }
}
