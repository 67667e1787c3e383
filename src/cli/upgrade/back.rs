//! `recast rollback --nodes A,B`, and `recast rollback RUN` of an upgrade: machines go back to the release before.

use std::collections::BTreeMap;

use super::look::{Look, limits, look};
use crate::cli::args::Global;
use crate::cli::carry_out::{Begin, carry_out, unless_cancelled};
use crate::cli::confirm::confirm;
use crate::cli::here;
use crate::cli::prepare::{arch, boot, keep, planned_is_sane};
use crate::cli::rebuild::{pending, tell_warnings};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::image::Build;
use crate::journal::{RunDir, RunState, StateDir, StepState};
use crate::plan::check::refuses;
use crate::plan::compatibility::{Minor, Runs, Table};
use crate::plan::observed::Finding;
use crate::plan::path::Hops;
use crate::plan::upgrade::back::{self, Before};
use crate::plan::upgrade::{Asked, Bound, KernelLog, Only, Parallel, Reboot, Release, SeenCluster, Stage, gates};
use crate::plan::{Plan, Step, Versions, show};
use crate::types::{MachineName, Version};

/// Whether a plan is only shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is shown, and that is all.
    Show,
    /// It is carried out once it is confirmed.
    Do,
}

/// The machines with these names.
pub async fn nodes(global: &Global, nodes: &[String], then: Then, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    tell_warnings(&session, surroundings);
    Box::pin(go_back(&session, nodes.to_vec(), then, surroundings)).await
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
    let begun = |id: &crate::types::StepId| !matches!(state.step(id), None | Some(StepState::Pending));
    let moved = plan.steps().find(|planned| {
        let kubernetes = matches!(planned.step, Step::UpgradeMachine { .. } | Step::MeetMachine { .. });
        !kubernetes
            && begun(&planned.id)
            && planned.id.as_str().starts_with("kubernetes-")
            && !planned.id.as_str().contains("-images/")
    });
    if let Some(moved) = moved {
        let mut stop = Stop::new(
            ExitCode::Refused,
            format!("run {} moved Kubernetes ({}), which never goes back by a minor", plan.run, moved.id),
        );
        if let Some(file) = snapshot_of(&state) {
            stop = stop.hinted(format!(
                "its snapshot from before is {file}: `recast rebuild --to … --kubernetes … --restore {file}` brings that back"
            ));
        }
        return Err(stop.hinted("`recast rollback --nodes A,B` takes machines back to the Talos that they ran before"));
    }
    let mut times: BTreeMap<&MachineName, u32> = BTreeMap::new();
    // A step that was begun and did not succeed may have rebooted its machine: what it runs now says so.
    let mut begun: Vec<(&MachineName, &Version)> = Vec::new();
    for planned in plan.steps() {
        let Step::UpgradeMachine { machine, release, .. } = &planned.step else { continue };
        match state.step(&planned.id) {
            Some(StepState::Succeeded { .. }) => *times.entry(&machine.name).or_default() += 1,
            None | Some(StepState::Pending) => {}
            Some(_) => begun.push((&machine.name, &release.version)),
        }
    }
    if !begun.is_empty() {
        let secrets = session.secrets(jiff::Timestamp::now())?;
        let running = unless_cancelled(surroundings, look(session, &secrets, &plan.run)).await?.running;
        let runs = |name: &MachineName, version: &Version| {
            running.members.iter().any(|seen| seen.member.name == *name && seen.version == *version)
        };
        for (name, _) in begun.into_iter().filter(|(name, version)| runs(name, version)) {
            *times.entry(name).or_default() += 1;
        }
    }
    if let Some((name, times)) = times.iter().find(|(_, times)| **times > 1) {
        return Err(Stop::new(
            ExitCode::Refused,
            format!("run {} took {name} through {times} releases, and a machine keeps only the last before", plan.run),
        )
        .hinted(
            "`recast rollback --nodes A,B` goes back by one; `recast rebuild --to` makes machines of any release",
        ));
    }
    if times.is_empty() {
        return Err(Stop::new(
            ExitCode::Refused,
            format!("run {} rebooted no machine: nothing is to be taken back", plan.run),
        )
        .hinted("`recast status` shows what runs"));
    }
    let names = times.into_keys().map(ToString::to_string).collect();
    Box::pin(go_back(session, names, then, surroundings)).await
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
    then: Then,
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let secrets = session.secrets(jiff::Timestamp::now())?;
    let id = StateDir::new(&session.state_root(), &session.profile.value.name).new_run_id(jiff::Timestamp::now());
    let Look { seen, running, vms, out_of_reach, endpoint } =
        unless_cancelled(surroundings, look(session, &secrets, &id)).await?;
    let mut here = here::look(session, &crate::plan::errands::Errands::default(), None).await;
    here.out_of_reach = out_of_reach;
    here.backup = Some(here::backup(session, seen.cluster.as_ref().and_then(|cluster| cluster.database_bytes)));
    let (before, table) = before(session, &running)?;
    let nothing = || Versions { talos: Version::new(0, 0, 0), kubernetes: Version::new(0, 0, 0) };
    let asked = Asked {
        run: id,
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
    };
    let mut findings: Vec<Finding> = gates::findings(&asked, &seen, &running, &here);
    findings.extend(back::findings(&asked, &running, &before));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    if refuses(&findings) {
        return Err(Stop::refused(&findings));
    }
    surroundings.console.tell(&show::findings(&findings));
    let plan = back::make(&asked, &running, &before, back::unwell(&asked, &seen, &running))
        .ok_or_else(|| Stop::new(ExitCode::Refused, "the cluster's versions are not known"))?;
    let plan = planned_is_sane(plan)?;
    if then == Then::Show {
        return Ok(pending(&plan, &findings, session));
    }
    surroundings.console.tell(&show::text(&plan));
    confirm(&plan, &session.global, surroundings)?;
    Box::pin(carry_out(session, plan, secrets, Begin::New(&seen), surroundings)).await
}

/// What machines ran before what they run now, by the newest run that brought them there; and what goes with what, by
/// what the user's own table said in those runs.
fn before(session: &Session, running: &SeenCluster) -> Result<(Before, Table), Stop> {
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
                    if machine.name == *name && release.version == seen.version =>
                {
                    Some((from.clone(), leaves.clone()))
                }
                _ => None,
            });
            if let Some((version, schematic)) = brought {
                let own = &session.talos()?.factory;
                let build =
                    Build { schematic: schematic.clone(), version: version.clone(), arch: arch(own), boot: boot(own) };
                let image = session.factory.installer(&build);
                before.insert(name.clone(), Release { version, schematic, image });
            }
        }
        // A rebuild made the machines anew: what ran before it is gone with their disks.
        if plan.verb.installs() {
            break;
        }
    }
    Ok((before, Table::built_in().clone().with_carried(carried.into_values())))
}
