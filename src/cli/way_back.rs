//! The way back from a rebuild that deleted the old cluster: it is made anew as it was.
//!
//! Purpose: `recast rollback` of a rebuild past its first delete, dead or done. What the rebuild kept in `before/` (the
//! profile, the machines' whole configurations, the VMs' hardware) and its final snapshot become a plan like a rebuild's,
//! with the same gates, confirmed and resumable. The template is one that recast made and proved for those versions, or is
//! made anew. Must not know: how steps act. Start reading at [`way_back`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::args::{Global, Resume, Wishes};
use super::prepare::{DataWish, Order};
use super::rebuild::{After, plan_and_do_in};
use super::session::Session;
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::journal::{RunDir, RunState, StepState};
use crate::plan::observed::Finding;
use crate::plan::step::{Hardware, OurVm};
use crate::plan::{Data, Output, Plan, PlannedVm, Step, Verb};
use crate::property::{self, Nic};
use crate::steps::files::KEPT_PROFILE;
use crate::types::VersionWish;

/// Keys of a VM's configuration that belong to that one VM.
const OWN: [&str; 12] = [
    "boot",
    "digest",
    "lock",
    "meta",
    "name",
    "parent",
    "smbios1",
    "snapstate",
    "snaptime",
    "template",
    "vmgenid",
    "vmstate",
];

/// What a rebuild kept of the cluster that was there before it.
#[derive(Clone, Debug)]
pub struct Before {
    /// The folder.
    pub folder: PathBuf,
    /// The VMs' configurations, by name.
    vms: BTreeMap<String, Hardware>,
    /// The marks of VMs that the rebuild cloned and may not have given their tags.
    pub half_made: BTreeSet<String>,
    /// What is lost on the way, for the plan's reader.
    warning: Finding,
}

impl Before {
    fn read(folder: PathBuf, half_made: BTreeSet<String>, warning: Finding) -> std::io::Result<Self> {
        let mut vms = BTreeMap::new();
        for entry in fs::read_dir(folder.join("vms"))? {
            let keys: Hardware = serde_json::from_slice(&fs::read(entry?.path())?)?;
            if let Some(name) = keys.get("name").cloned() {
                vms.insert(name, keys);
            }
        }
        Ok(Self { folder, vms, half_made, warning })
    }

    /// The machine's whole configuration as it was, if it was kept.
    pub fn config(&self, machine: &str) -> Option<PathBuf> {
        Some(self.folder.join("machines").join(format!("{machine}.yaml"))).filter(|path| path.is_file())
    }

    /// The VMs with the MACs that they had: the kept configurations name them.
    pub fn addressed(&self, vms: Vec<PlannedVm>) -> Vec<PlannedVm> {
        let mac = |vm: &PlannedVm| self.vms.get(&vm.name)?.get("net0")?.parse::<Nic>().ok()?.mac;
        vms.into_iter().map(|vm| PlannedVm { mac: mac(&vm).or(vm.mac), ..vm }).collect()
    }

    /// The hardware that a VM had, beyond what is its own alone.
    pub fn hardware(&self, vm: &str) -> Hardware {
        let kept = self.vms.get(vm).into_iter().flatten();
        let kept = kept.filter(|(key, _)| {
            !OWN.contains(&key.as_str())
                && !property::is_drive(key)
                && !key.starts_with("unused")
                && *key != "description"
        });
        kept.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// What the plan's reader must know.
    pub fn warning(&self) -> Finding {
        self.warning.clone()
    }
}

/// Goes back to what was before the rebuild in `dir`.
pub async fn way_back(
    global: &Global,
    asked: &Resume,
    (dir, plan, state): (&RunDir, &Plan, &RunState),
    surroundings: &Surroundings,
) -> Result<Answer, Stop> {
    let run = &plan.run;
    let refused = |what: String, hint: &str| Stop::new(ExitCode::Refused, what).hinted(hint);
    if plan.verb == Verb::GoBack {
        return Err(refused(
            format!("run {run} is itself a way back: it brought machines to the release that they ran before"),
            "`recast upgrade --to` brings them up again; `recast rollback RUN` goes back from another run",
        ));
    }
    if plan.verb != Verb::Rebuild {
        return Err(refused(
            format!("run {run} is a {}, and there is no way back from one once something is deleted", plan.verb),
            "`recast resume` goes on with a run that stopped; `recast create --restore FILE` brings a cluster back",
        ));
    }
    if !matches!(plan.data, Data::Keep(_)) {
        return Err(refused(
            format!("run {run} kept nothing of the cluster that was there before it"),
            "`recast rebuild --restore FILE` starts from a snapshot, if there is one from before",
        ));
    }
    let snapshot =
        ["freeze/snapshot", "backup/snapshot"].iter().find_map(|id| match state.outputs().get(&(*id).into()) {
            Some(Output::Snapshot { file, revision, taken, .. }) => Some((file.clone(), *revision, *taken)),
            _ => None,
        });
    let Some((file, revision, taken)) = snapshot else {
        return Err(refused(format!("run {run} saved no snapshot"), "there is nothing to go back to"));
    };
    let Some(before) = plan.before.clone() else {
        return Err(refused(
            format!("run {run} did not know which versions ran before it"),
            "`recast rebuild --restore FILE --to VERSION --kubernetes VERSION` says them",
        ));
    };
    let lost = Finding::warning(
        format!("whatever was written to the cluster since {taken} is lost: it goes back to revision {revision}"),
        "a snapshot of what runs now is saved first, where there is a healthy etcd",
    );
    let folder = dir.path().join("before");
    let kept = Before::read(folder.clone(), half_made(plan, state), lost).map_err(|error| {
        Stop::because(ExitCode::Refused, format!("what run {run} kept in {} can't be read", folder.display()), &error)
    })?;
    let session = session_of(global, &folder.join(KEPT_PROFILE), surroundings)?;
    let wishes = Wishes {
        to: Some(VersionWish::Exact(before.talos)),
        kubernetes: Some(VersionWish::Exact(before.kubernetes)),
        ..Wishes::default()
    };
    let order = Order { verb: Verb::Rollback, wishes, data: DataWish::Restore(file), back: Some(kept) };
    let after = After { dry_run: asked.dry_run, plan_out: None };
    Box::pin(plan_and_do_in(session, &order, after, surroundings)).await
}

/// The marks of the clones that may stand there without their tags.
fn half_made(plan: &Plan, state: &RunState) -> BTreeSet<String> {
    let tagged = |made: &OurVm| {
        plan.steps().any(|planned| {
            matches!(&planned.step, Step::SetHardware { vm, .. } if vm.vmid == made.vmid)
                && matches!(state.step(&planned.id), Some(StepState::Succeeded { .. }))
        })
    };
    let clones = plan.phases.iter().filter(|phase| phase.name == "provision").flat_map(|phase| &phase.steps);
    let clones = clones.filter_map(|planned| match &planned.step {
        Step::CloneVm { vm, .. } => Some(vm),
        _ => None,
    });
    clones.filter(|vm| !tagged(vm)).map(|vm| vm.mark.clone()).collect()
}

/// A session as if the profile were still what it was.
fn session_of(global: &Global, kept: &Path, surroundings: &Surroundings) -> Result<Session, Stop> {
    let text = fs::read_to_string(kept).map_err(|error| {
        Stop::because(ExitCode::Refused, format!("the profile of before, {}, can't be read", kept.display()), &error)
            .hinted("write the profile as it was, and `recast rebuild --restore FILE` with it")
    })?;
    Session::open_with(&surroundings.place, global, &text)
}
