//! `recast rollback --nodes A,B`, and `recast rollback RUN` of an upgrade: machines go back to the releases before.
//!
//! By name each goes back by one release; of a run, all that it moved goes back to where it found them, hop by hop, from where
//! each machine stands. Kubernetes never goes back.

use std::collections::{BTreeMap, BTreeSet};

use super::edits;
use super::installers::{Server, look_for_all};
use super::look::{Look, limits, look};
use super::runs::{self, state_of};
use crate::cli::args::Global;
use crate::cli::carry_out::{Begin, carry_out, unless_cancelled};
use crate::cli::confirm::confirm;
use crate::cli::here;
use crate::cli::prepare::{keep, planned_is_sane};
use crate::cli::rebuild::{pending, tell_warnings};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{RunDir, RunState, StateDir, StepState};
use crate::plan::check::refuses;
use crate::plan::observed::{Finding, Observed};
use crate::plan::path::Hops;
use crate::plan::upgrade::back::{self, Return, Wrote};
use crate::plan::upgrade::descent::{self, Way};
use crate::plan::upgrade::{Asked, Bound, KernelLog, Only, Parallel, Reboot, SeenCluster, Stage, gates};
use crate::plan::{Output, Plan, Step, Versions, show};
use crate::steps::files::{KEPT_LOCK, read_lock};
use crate::talos::secrets::Secrets;
use crate::types::{Role, SchematicId, StepId, Version};

/// Whether a plan is only shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is shown, and that is all.
    Show,
    /// It is carried out once it is confirmed.
    Do,
}

/// Who goes back.
enum Whom<'a> {
    /// These machines, each by one release.
    Nodes(&'a [String]),
    /// All that a run moved.
    Run(&'a Moved<'a>),
}

/// The machines with these names.
pub async fn nodes(global: &Global, nodes: &[String], then: Then, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    tell_warnings(&session, surroundings);
    let prepared = Box::pin(unless_cancelled(surroundings, prepare(&session, &Whom::Nodes(nodes)))).await?;
    Box::pin(go_back(&session, prepared, then, surroundings)).await
}

/// All machines that an upgrade's run brought to other releases.
pub async fn run(
    session: &Session,
    dir: &RunDir,
    plan: &Plan,
    then: Then,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let prepared = Box::pin(unless_cancelled(surroundings, prepare_run(session, dir, plan))).await?;
    Box::pin(go_back(session, prepared, then, surroundings)).await
}

/// A way back, decided.
pub struct Prepared {
    /// What to do.
    pub plan: Plan,
    /// What was seen.
    pub seen: Observed,
    /// What is to be known.
    pub findings: Vec<Finding>,
    /// The cluster's secrets.
    pub secrets: Secrets,
}

/// Looks and decides how a run is taken back. Reads only.
pub async fn prepare_run(session: &Session, dir: &RunDir, plan: &Plan) -> Result<Prepared, Stop> {
    let moved = Moved { dir, plan, state: state_of(dir, plan)? };
    if !moved.machines() {
        return Err(moved.nothing());
    }
    Box::pin(prepare(session, &Whom::Run(&moved))).await
}

/// What an upgrade's run moved, as its journal tells.
struct Moved<'a> {
    dir: &'a RunDir,
    plan: &'a Plan,
    state: RunState,
}

impl Moved<'_> {
    /// Whether a step was begun: one that did not succeed may have done its work.
    fn begun(&self, step: &StepId) -> bool {
        !matches!(self.state.step(step), None | Some(StepState::Pending))
    }

    /// Whether a machine may have gone anywhere, or may go there when it boots next.
    fn machines(&self) -> bool {
        let reaches = |step: &Step| matches!(step, Step::UpgradeMachine { .. } | Step::WriteRelease { .. });
        self.plan.steps().any(|planned| reaches(&planned.step) && self.begun(&planned.id))
    }

    /// The first step that may have moved Kubernetes. What comes before these looks and pulls.
    fn kubernetes(&self) -> Option<&StepId> {
        let moves = |step: &Step| {
            matches!(
                step,
                Step::SetStaticPod { .. }
                    | Step::SetProxyImage { .. }
                    | Step::SetKubelet { .. }
                    | Step::SyncManifests { .. }
            )
        };
        let mut steps = self.plan.steps().filter(|planned| moves(&planned.step) && self.begun(&planned.id));
        steps.next().map(|planned| &planned.id)
    }

    /// The Kubernetes that stays, where it moved that.
    fn kept(&self, running: &SeenCluster) -> Option<Version> {
        self.kubernetes()?;
        let before = self.plan.before.as_ref().map(|before| &before.kubernetes);
        back::newest_kubernetes(running).filter(|newest| Some(newest) != before)
    }

    /// What it put into the lock that was not there before, and that nothing needs any more.
    fn forgets(&self, session: &Session, running: &SeenCluster, way: &Way) -> BTreeSet<SchematicId> {
        let put =
            self.plan.steps().filter(|planned| self.begun(&planned.id)).filter_map(|planned| match &planned.step {
                Step::LockSchematics { schematics } => Some(schematics.keys().cloned()),
                _ => None,
            });
        let mut put: BTreeSet<SchematicId> = put.flatten().collect();
        // A lock that can't be read says nothing: it is left as it is.
        let kept = read_lock(&self.dir.path().join("before").join(KEPT_LOCK));
        let (Ok(kept), Ok(now)) = (kept, read_lock(&session.lock_path())) else { return BTreeSet::new() };
        let runs = running.members.iter().filter_map(|seen| match way.end(&seen.member.name) {
            Some(fall) => fall.to.as_ref().map(|to| &to.schematic),
            None => seen.schematic.as_ref(),
        });
        let templates = now.templates.values().flatten().map(|template| &template.schematic);
        let images = now.images.iter().map(|image| &image.schematic);
        for needed in runs.chain(templates).chain(images).chain(kept.schematics.keys()) {
            put.remove(needed);
        }
        put
    }

    /// Whether it told the profile which Talos it brought.
    fn wrote(&self) -> Wrote {
        let says = |step: &Step| matches!(step, Step::EditProfile { set } if set.contains_key("talos.version"));
        let wrote = self.plan.steps().any(|planned| says(&planned.step) && self.begun(&planned.id));
        if wrote { Wrote::Talos } else { Wrote::Nothing }
    }

    /// How all of the cluster comes back as it was, where the run kept a snapshot.
    fn rebuild(&self) -> Option<String> {
        let file = self.state.outputs().values().find_map(|output| match output {
            Output::Snapshot { file, .. } => Some(file.display().to_string()),
            _ => None,
        })?;
        let versions = self.plan.before.as_ref().map_or_else(
            || "--to … --kubernetes …".to_owned(),
            |before| format!("--to {} --kubernetes {}", before.talos, before.kubernetes),
        );
        Some(format!(
            "its snapshot from before is {file}: `recast rebuild {versions} --restore {file}` brings that back, without what \
             was written since"
        ))
    }

    /// That there is nothing to take back.
    fn nothing(&self) -> Stop {
        let run = &self.plan.run;
        if let Some(step) = self.kubernetes() {
            let what = format!("run {run} moved Kubernetes ({step}), which never goes back by a minor, and no machine");
            let stop = Stop::new(ExitCode::Refused, what);
            return match self.rebuild() {
                Some(way) => stop.hinted(way),
                None => stop,
            };
        }
        let what = if self.machines() {
            format!("no machine runs what run {run} brought: nothing is to be taken back")
        } else {
            format!("run {run} rebooted no machine: nothing is to be taken back")
        };
        let stop = Stop::new(ExitCode::Refused, what).hinted("`recast status` shows what runs");
        match self.wrote() {
            Wrote::Nothing => stop,
            Wrote::Talos => stop.hinted(
                "the profile was told what that run brought: where a way back stopped before its end, `recast resume` \
                 lets it say what runs; else set talos.version",
            ),
        }
    }

    /// What stays as the run made it.
    fn stays(&self, running: &SeenCluster, newest: &Version) -> Vec<Finding> {
        let run = &self.plan.run;
        let before =
            self.plan.before.as_ref().map_or_else(String::new, |before| format!(" from {}", before.kubernetes));
        let hint = self.rebuild().unwrap_or_else(|| "only a cluster made anew runs an older one".to_owned());
        let what =
            format!("Kubernetes stays at {newest}: run {run} moved it{before}, and it never goes back by a minor");
        let mut found = vec![Finding::warning(what, hint)];
        if running.components.lags(newest) {
            found.push(Finding::warning(
                format!(
                    "some components or kubelets are older than Kubernetes {newest}: the run stopped on the way there"
                ),
                format!("`recast upgrade --only kubernetes --kubernetes {newest}` finishes that, before or after"),
            ));
        }
        found
    }
}

/// Which machines go back to what.
fn way(servers: &BTreeMap<Role, Server>, whom: &Whom<'_>, running: &SeenCluster, known: &runs::Known) -> Way {
    let installer =
        |role: Role, schematic: &SchematicId, version: &Version| Some(servers.get(&role)?.release(schematic, version));
    match whom {
        Whom::Nodes(nodes) => descent::of_nodes(nodes, running, &known.past, &installer),
        Whom::Run(moved) => descent::of_run(moved.plan, &|step| moved.begun(step), running, &known.past, &installer),
    }
}

/// Looks and decides. Reads only.
async fn prepare(session: &Session, whom: &Whom<'_>) -> Result<Prepared, Stop> {
    let secrets = session.secrets(jiff::Timestamp::now())?;
    let run = StateDir::new(&session.state_root(), &session.profile.value.name).new_run_id(jiff::Timestamp::now());
    let Look { mut seen, running, vms, down, out_of_reach, endpoint } = look(session, &secrets, &run).await?;
    let known = runs::read(session)?;
    let servers = Server::all(session)?;
    let way = way(&servers, whom, &running, &known);
    let nodes: Vec<String> = match whom {
        Whom::Nodes(nodes) => nodes.to_vec(),
        Whom::Run(moved) if way == Way::default() => return Err(moved.nothing()),
        Whom::Run(_) => {
            let goes = running.members.iter().filter(|seen| way.takes(&seen.member.name));
            goes.map(|seen| seen.member.name.to_string()).collect()
        }
    };
    if let Some(cluster) = &mut seen.cluster {
        let goes = |name: &str| nodes.iter().any(|node| node == name);
        let of_them = down.into_iter().filter(|one| one.machine.as_ref().is_some_and(|name| goes(name.as_str())));
        cluster.unhealthy.extend(of_them);
    }
    let mut here = here::look(session, &crate::plan::errands::Errands::default(), None).await;
    here.out_of_reach = out_of_reach;
    here.backup = Some(here::backup(session, seen.cluster.as_ref().and_then(|cluster| cluster.database_bytes)));
    let nothing = || Versions { talos: Version::new(0, 0, 0), kubernetes: Version::new(0, 0, 0) };
    let mut asked = Asked {
        run,
        cluster: session.profile.value.name.clone(),
        profile: session.profile_digest(),
        secrets: secrets.fingerprint(),
        endpoint,
        wanted: running.versions(None).unwrap_or_else(nothing),
        schematics: BTreeMap::new(),
        extensions: BTreeMap::new(),
        recipes: BTreeMap::new(),
        installers: Vec::new(),
        vms,
        nodes: Some(nodes),
        only: Only::Os,
        bound: Bound::Back,
        parallel: Parallel::Count(1),
        stage: Stage::Now,
        reboot: Reboot::Default,
        kernel_log: KernelLog::Unheard,
        hops: Hops::Any,
        table: known.table,
        keep: keep(session),
        limits: limits(session),
        errands: crate::plan::errands::Errands::default(),
        edits: edits::Edits::new(),
    };
    let absent = look_for_all(&servers, &way).await;
    let unwell = back::unwell(&asked, &seen, &running);
    let goes = goes(session, whom, &way, &unwell, &running);
    let mut findings: Vec<Finding> = gates::findings(&asked, &seen, &running, &here);
    let against = back::findings(&asked, &running, &way);
    let blocked = refuses(&against);
    findings.extend(against);
    findings.extend(absent);
    if let (Whom::Run(moved), Some(stays)) = (whom, &goes.stays) {
        findings.extend(moved.stays(&running, stays));
    }
    findings.extend(back::as_far_as(&asked, &running, &way));
    if goes.is_told(&running) {
        let written = written(session, &running, &way)?;
        asked.edits = written.edits;
        findings.extend(written.left);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if refuses(&findings) {
        let stop = Stop::refused(&findings);
        return Err(match whom {
            Whom::Run(moved) if blocked => moved.rebuild().into_iter().fold(stop, Stop::hinted),
            _ => stop,
        });
    }
    let plan = back::make(&asked, &running, &goes)
        .ok_or_else(|| Stop::new(ExitCode::Refused, "the cluster's versions are not known"))?;
    Ok(Prepared { plan: planned_is_sane(plan)?, seen, findings, secrets })
}

async fn go_back(
    session: &Session,
    prepared: Prepared,
    then: Then,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let Prepared { plan, seen, findings, secrets } = prepared;
    surroundings.console.tell(&show::findings(&findings));
    if then == Then::Show {
        return Ok(pending(&plan, &findings, session));
    }
    surroundings.console.tell(&show::text(&plan));
    confirm(&plan, &session.global, surroundings)?;
    Box::pin(carry_out(session, plan, secrets, Begin::New(&seen), surroundings)).await
}

fn goes<'a>(
    session: &Session,
    whom: &Whom<'_>,
    way: &'a Way,
    unwell: &'a back::Unwell,
    running: &SeenCluster,
) -> Return<'a> {
    match whom {
        Whom::Nodes(_) => Return { way, unwell, wrote: Wrote::Nothing, forgets: BTreeSet::new(), stays: None },
        Whom::Run(moved) => {
            let forgets = moved.forgets(session, running, way);
            Return { way, unwell, wrote: moved.wrote(), forgets, stays: moved.kept(running) }
        }
    }
}

/// What the profile is to say of the schematic of the machines that have none of their own, and what is left to its owner.
fn written(session: &Session, running: &SeenCluster, way: &Way) -> Result<edits::Written, Stop> {
    let own: Vec<Role> = session
        .profile
        .value
        .nodes
        .iter()
        .filter(|(.., group)| group.factory.is_some())
        .map(|(role, ..)| role)
        .collect();
    let shared = running.members.iter().filter(|seen| !own.contains(&seen.member.role));
    let machines: Vec<_> = shared.filter_map(|seen| Some((seen, way.end(&seen.member.name)?.to.as_ref()?))).collect();
    Ok(edits::of_before(session.profile.source.text(), &session.talos()?.factory, &machines))
}
