//! `recast rollback --nodes A,B`, and `recast rollback RUN` of an upgrade: machines go back to the release before.

use std::collections::{BTreeMap, BTreeSet};

use super::edits;
use super::installers::{Server, look_for_all};
use super::look::{Look, limits, look};
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
use crate::plan::compatibility::{Minor, Runs, Table};
use crate::plan::observed::Finding;
use crate::plan::path::Hops;
use crate::plan::upgrade::back::{self, Before};
use crate::plan::upgrade::{
    Asked, Bound, KernelLog, Only, Parallel, Reboot, Release, SeenCluster, SeenMember, Stage, gates,
};
use crate::plan::{Plan, Step, Versions, show};
use crate::talos::secrets::Secrets;
use crate::types::{MachineName, Role, RunId, StepId, Version};

/// Whether a plan is only shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is shown, and that is all.
    Show,
    /// It is carried out once it is confirmed.
    Do,
}

/// What a way back is decided from: one look.
struct Looked {
    /// The run that would carry it out.
    run: RunId,
    secrets: Secrets,
    there: Look,
}

async fn looked(session: &Session, surroundings: &Surroundings) -> Result<Looked, Stop> {
    let secrets = session.secrets(jiff::Timestamp::now())?;
    let run = StateDir::new(&session.state_root(), &session.profile.value.name).new_run_id(jiff::Timestamp::now());
    let there = unless_cancelled(surroundings, look(session, &secrets, &run)).await?;
    Ok(Looked { run, secrets, there })
}

/// The machines with these names.
pub async fn nodes(global: &Global, nodes: &[String], then: Then, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    tell_warnings(&session, surroundings);
    let looked = Box::pin(looked(&session, surroundings)).await?;
    Box::pin(go_back(&session, nodes.to_vec(), looked, then, surroundings)).await
}

/// All machines that an upgrade's run brought to another release.
pub async fn run(
    session: &Session,
    dir: &RunDir,
    plan: &Plan,
    then: Then,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let state = state_of(dir, plan)?;
    let mut moved = Moved::of(plan, &state);
    if let Some(step) = &moved.kubernetes {
        return Err(moved_kubernetes(plan, &state, step, &moved));
    }
    moved.refuse(plan)?;
    if moved.times.is_empty() && moved.begun.is_empty() {
        return Err(nothing_moved(plan));
    }
    let looked = Box::pin(looked(session, surroundings)).await?;
    // A step that was begun and did not succeed may have rebooted its machine: what it runs now says so.
    for (name, release) in std::mem::take(&mut moved.begun) {
        if looked.there.running.members.iter().any(|seen| seen.member.name == name && is_on(seen, &release)) {
            *moved.times.entry(name).or_default() += 1;
        }
    }
    moved.refuse(plan)?;
    if moved.times.is_empty() {
        return Err(nothing_moved(plan));
    }
    Box::pin(go_back(session, moved.names(), looked, then, surroundings)).await
}

/// Whether a machine runs a release. One whose schematic can't be told is known by its version alone.
fn is_on(seen: &SeenMember, release: &Release) -> bool {
    seen.version == release.version && seen.schematic.as_ref().is_none_or(|schematic| *schematic == release.schematic)
}

/// What an upgrade's run moved, as its journal tells.
struct Moved {
    /// The first step that may have moved Kubernetes.
    kubernetes: Option<StepId>,
    /// Machines by how many releases they went through.
    times: BTreeMap<MachineName, u32>,
    /// Machines that were told to go to these, without anybody knowing how that went.
    begun: Vec<(MachineName, Release)>,
}

impl Moved {
    fn of(plan: &Plan, state: &RunState) -> Self {
        let mut moved = Self { kubernetes: None, times: BTreeMap::new(), begun: Vec::new() };
        for planned in plan.steps() {
            let succeeded = match state.step(&planned.id) {
                None | Some(StepState::Pending) => continue,
                Some(step) => matches!(step, StepState::Succeeded { .. }),
            };
            match &planned.step {
                Step::UpgradeMachine { machine, .. } if succeeded => {
                    *moved.times.entry(machine.name.clone()).or_default() += 1;
                }
                Step::UpgradeMachine { machine, release, .. } => {
                    moved.begun.push((machine.name.clone(), release.clone()));
                }
                // What comes before these looks and pulls.
                Step::SetStaticPod { .. }
                | Step::SetProxyImage { .. }
                | Step::SetKubelet { .. }
                | Step::SyncManifests { .. } => {
                    moved.kubernetes.get_or_insert_with(|| planned.id.clone());
                }
                _ => {}
            }
        }
        moved
    }

    fn names(&self) -> Vec<String> {
        self.times.keys().map(ToString::to_string).collect()
    }

    /// The commands that take these machines back, one after the other.
    fn one_by_one(&self) -> Option<String> {
        let begun = self.begun.iter().map(|(name, _)| name);
        let names: BTreeSet<&MachineName> = self.times.keys().chain(begun).collect();
        let commands: Vec<String> = names.iter().map(|name| format!("`recast rollback --nodes {name}`")).collect();
        (!commands.is_empty()).then(|| commands.join(", then "))
    }

    /// Refuses what went through several releases.
    fn refuse(&self, plan: &Plan) -> Result<(), Stop> {
        let several: Vec<String> = self
            .times
            .iter()
            .filter(|(_, times)| **times > 1)
            .map(|(name, times)| format!("{name} ({times})"))
            .collect();
        if several.is_empty() {
            return Ok(());
        }
        let mut stop = Stop::new(
            ExitCode::Refused,
            format!(
                "run {} took machines through several releases, and a machine keeps only the last one before: {}",
                plan.run,
                several.join(", ")
            ),
        );
        if let Some(commands) = self.one_by_one() {
            stop = stop.hinted(format!("each goes back by one release, one after the other: {commands}"));
        }
        let before = plan.before.as_ref().map_or_else(|| "VERSION".to_owned(), |before| before.talos.to_string());
        Err(stop.hinted(format!("`recast rebuild --to {before}` makes machines of the release from before")))
    }
}

fn moved_kubernetes(plan: &Plan, state: &RunState, step: &StepId, moved: &Moved) -> Stop {
    let mut stop = Stop::new(
        ExitCode::Refused,
        format!("run {} moved Kubernetes ({step}), which never goes back by a minor", plan.run),
    );
    if let Some(file) = snapshot_of(state) {
        let versions = plan.before.as_ref().map_or_else(
            || "--to … --kubernetes …".to_owned(),
            |before| format!("--to {} --kubernetes {}", before.talos, before.kubernetes),
        );
        stop = stop.hinted(format!(
            "its snapshot from before is {file}: `recast rebuild {versions} --restore {file}` brings that back"
        ));
    }
    match moved.one_by_one() {
        Some(commands) => {
            stop.hinted(format!("machines go back to the Talos that they ran before one by one: {commands}"))
        }
        None => stop,
    }
}

fn nothing_moved(plan: &Plan) -> Stop {
    Stop::new(ExitCode::Refused, format!("run {} rebooted no machine: nothing is to be taken back", plan.run))
        .hinted("`recast status` shows what runs")
}

fn state_of(dir: &RunDir, plan: &Plan) -> Result<RunState, Stop> {
    let records = dir
        .records()
        .map_err(|error| Stop::because(ExitCode::Failed, format!("run {} can't be read", dir.id()), &error))?;
    let mut state = RunState::new(&plan.phases);
    for record in records {
        // A journal that makes no sense is refused when it is opened.
        let _ = state.record(&record.entry);
    }
    Ok(state)
}

fn snapshot_of(state: &RunState) -> Option<String> {
    state.outputs().values().find_map(|output| match output {
        crate::plan::Output::Snapshot { file, .. } => Some(file.display().to_string()),
        _ => None,
    })
}

async fn go_back(
    session: &Session,
    nodes: Vec<String>,
    looked: Looked,
    then: Then,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let Looked { run, secrets, there: Look { mut seen, running, vms, down, out_of_reach, endpoint } } = looked;
    if let Some(cluster) = &mut seen.cluster {
        let goes = |machine: &MachineName| nodes.iter().any(|node| node == machine.as_str());
        cluster.unhealthy.extend(down.into_iter().filter(|complaint| complaint.machine.as_ref().is_some_and(goes)));
    }
    let mut here = here::look(session, &crate::plan::errands::Errands::default(), None).await;
    here.out_of_reach = out_of_reach;
    here.backup = Some(here::backup(session, seen.cluster.as_ref().and_then(|cluster| cluster.database_bytes)));
    let servers = Server::all(session)?;
    let (before, table) = before(session, &running, &servers)?;
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
        table,
        keep: keep(session),
        limits: limits(session),
        errands: crate::plan::errands::Errands::default(),
        edits: edits::Edits::new(),
    };
    let goes: Vec<_> =
        running.chosen(asked.nodes.as_deref()).map(|seen| (&seen.member.name, seen.member.role)).collect();
    let absent = unless_cancelled(surroundings, async { Ok(look_for_all(&servers, &goes, &before).await) }).await?;
    let mut findings: Vec<Finding> = gates::findings(&asked, &seen, &running, &here);
    findings.extend(back::findings(&asked, &running, &before));
    findings.extend(absent);
    if goes.len() == running.members.len() {
        let written = written(session, &running, &before)?;
        asked.edits = written.edits;
        findings.extend(written.left);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if refuses(&findings) {
        return Err(Stop::refused(&findings));
    }
    surroundings.console.tell(&show::findings(&findings));
    let plan = back::make(&asked, &running, &before, &back::unwell(&asked, &seen, &running))
        .ok_or_else(|| Stop::new(ExitCode::Refused, "the cluster's versions are not known"))?;
    let plan = planned_is_sane(plan)?;
    if then == Then::Show {
        return Ok(pending(&plan, &findings, session));
    }
    surroundings.console.tell(&show::text(&plan));
    confirm(&plan, &session.global, surroundings)?;
    Box::pin(carry_out(session, plan, secrets, Begin::New(&seen), surroundings)).await
}

/// What the profile is to say of the schematic of the machines that have none of their own, and what is left to its owner.
fn written(session: &Session, running: &SeenCluster, before: &Before) -> Result<edits::Written, Stop> {
    let own: Vec<Role> = session
        .profile
        .value
        .nodes
        .iter()
        .filter(|(.., group)| group.factory.is_some())
        .map(|(role, ..)| role)
        .collect();
    let shared = running.members.iter().filter(|seen| !own.contains(&seen.member.role));
    let machines: Vec<_> = shared.filter_map(|seen| Some((seen, before.get(&seen.member.name)?))).collect();
    Ok(edits::of_before(session.profile.source.text(), &session.talos()?.factory, &machines))
}

/// What machines ran before what they run now, by the newest run that brought them there; and what goes with what, by
/// what the user's own table said in those runs.
fn before(session: &Session, running: &SeenCluster, servers: &BTreeMap<Role, Server>) -> Result<(Before, Table), Stop> {
    let state = StateDir::new(&session.state_root(), &session.profile.value.name);
    let unreadable =
        |error: &crate::journal::JournalError| Stop::because(ExitCode::Failed, "the runs can't be read", error);
    let runs = state.list().map_err(|error| unreadable(&error))?;
    let mut before = Before::new();
    let mut carried: BTreeMap<Minor, Runs> = BTreeMap::new();
    for dir in runs {
        let Ok(bytes) = dir.plan_bytes() else { continue };
        let Ok(plan) = serde_json::from_slice::<Plan>(&bytes) else { continue };
        if !plan.verb.reboots() && !plan.verb.installs() {
            continue;
        }
        let steps: Vec<_> = plan.steps().collect();
        for planned in &steps {
            if let Step::ConfirmKubernetes { runs: Some(runs), .. } = &planned.step {
                carried.entry(runs.talos).or_insert(*runs);
            }
        }
        for seen in &running.members {
            let name = &seen.member.name;
            if before.contains_key(name) {
                continue;
            }
            let brought = steps.iter().rev().find_map(|planned| match &planned.step {
                Step::UpgradeMachine { machine, from, release, leaves: Some(leaves), .. }
                    if machine.name == *name && is_on(seen, release) =>
                {
                    Some((from.clone(), leaves.clone()))
                }
                _ => None,
            });
            if let (Some((version, schematic)), Some(server)) = (brought, servers.get(&seen.member.role)) {
                before.insert(name.clone(), server.release(&schematic, &version));
            }
        }
        // A rebuild made the machines anew: what ran before it is gone with their disks.
        if plan.verb.installs() {
            break;
        }
    }
    Ok((before, Table::built_in().clone().with_carried(carried.into_values())))
}
