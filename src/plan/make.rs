//! The whole rebuild on one screen: from what is wanted and what was seen to a plan.
//!
//! Purpose: a pure function that leaves the engine no choice. Start reading at [`make`]; each phase has a file in
//! `phases/`, and what it does is in the file of the same name in `steps/`.
//! Must not know: clients, clocks, files.

mod draft;
mod naming;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::check::victims;
use super::observed::Observed;
use super::sources::By;
use super::wanted::Wanted;
use super::{Data, FORMAT, Facts, Kept, Phase, Plan, PlannedVm, Verb, Versions, phases};
use crate::profile::Inherit;
use crate::property::Nic;
use crate::types::{NodeName, Role, RunId, VmId};

pub(super) use draft::{Draft, TemplateChoice, our_vm};
pub(super) use naming::{fetch_id, irreversible, label, planned, short, undone_by};

/// Why no plan could be made. Everything that `check` can find is found there; these are left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No image was seen.
    #[error("the image to fetch is not known")]
    NoImage,
    /// There is no way for the image.
    #[error("no template can be made for {node}")]
    NoTemplate {
        /// Where.
        node: NodeName,
    },
    /// The range for templates is full.
    #[error("no free number is left in vmid_ranges.templates ({from}-{to})")]
    NoNumber {
        /// First of the range.
        from: u32,
        /// Last of the range.
        to: u32,
    },
    /// There is no old control plane whose data could be kept.
    #[error("there is no old control plane whose data could be kept")]
    NothingToKeep,
    /// A machine has no configuration.
    #[error("machine {name} has no configuration")]
    NoConfig {
        /// Its name.
        name: String,
    },
}

/// Makes the plan of a rebuild, or of one of its two halves.
pub fn make(wanted: &Wanted, seen: &Observed) -> Result<Plan, PlanError> {
    let draft = Draft::of(wanted, seen)?;
    if matches!(wanted.data, Data::Keep(_)) && draft.old_machines(Some(Role::ControlPlane)).is_empty() {
        return Err(PlanError::NothingToKeep);
    }
    let mut all = vec![Some(phases::check())];
    if wanted.verb.makes_templates() {
        all.extend([phases::image(&draft), Some(phases::template(&draft)?), Some(phases::canary(&draft)?)]);
    }
    if wanted.verb.destroys() {
        all.extend([phases::backup(&draft), phases::freeze(&draft), phases::retire(&draft)]);
    }
    if wanted.verb.installs() {
        all.extend([
            Some(phases::provision(&draft)),
            Some(phases::configure(&draft)?),
            Some(phases::bootstrap(&draft)),
            Some(phases::verify(&draft)),
            Some(phases::finish(&draft)),
        ]);
    } else if wanted.verb == Verb::TemplateBuild {
        all.push(phases::finish_templates(&draft));
    } else {
        all.push(Some(phases::finish_teardown()));
    }
    let mut phases: Vec<Phase> = all.into_iter().flatten().collect();
    for phase in &mut phases {
        match phase.name.as_str() {
            "freeze" => phases::errands::after_freeze(&draft, phase),
            "bootstrap" => phases::errands::after_bootstrap(&draft, phase),
            "finish" if wanted.verb != Verb::TemplateBuild => phases::errands::finish(&draft, phase),
            _ => {}
        }
    }
    let makes = wanted.verb.makes_templates();
    let doomed = draft.doomed();
    Ok(Plan {
        format: FORMAT,
        verb: wanted.verb,
        run: wanted.run.clone(),
        cluster: wanted.cluster.clone(),
        profile: wanted.profile,
        secrets: wanted.secrets,
        cluster_config: makes.then(|| wanted.config.clone()),
        // Where no cluster is touched, whether its API answers is none of the run's business.
        endpoint: (wanted.verb != Verb::TemplateBuild).then(|| wanted.config.endpoint.clone()),
        facts: facts(&draft),
        destroys: doomed.iter().map(|vm| vm.identity.clone()).collect(),
        keeps: keeps(seen),
        fates: super::fates::fates(wanted, doomed, seen),
        changes: if wanted.verb.installs() { phases::changes(&draft) } else { Vec::new() },
        ways: ways(&draft),
        hops: Vec::new(),
        download_bytes: draft.images.iter().map(|image| image.bytes).sum(),
        before: before(seen),
        after: makes.then(|| Versions { talos: wanted.talos.clone(), kubernetes: wanted.kubernetes.clone() }),
        limits: wanted.limits,
        data: wanted.data.clone(),
        vms: if wanted.verb.installs() { draft.vms } else { Vec::new() },
        phases,
    })
}

/// Fills in what each VM takes over from the one it replaces: the one of the same name, else of the same number.
/// Configurations name the MAC, so this comes before they are rendered. `settings` say who takes over less.
pub fn inherit(
    vms: &[PlannedVm],
    run: &RunId,
    seen: &Observed,
    settings: &BTreeMap<String, BTreeSet<Inherit>>,
) -> Vec<PlannedVm> {
    let by_name = |vm: &PlannedVm| victims(seen).find(|old| old.identity.name == vm.name);
    let by_number = |vm: &PlannedVm| victims(seen).find(|old| old.identity.vmid == vm.vmid);
    let filled = vms.iter().map(|vm| {
        let old = by_name(vm).or_else(|| by_number(vm));
        let asked = settings.get(&vm.name).is_none_or(|all| all.contains(&Inherit::Mac));
        let inherited = old.filter(|_| asked).and_then(|old| old.config.get("net0")?.parse::<Nic>().ok()?.mac);
        PlannedVm {
            mac: vm.mac.or(inherited).or_else(|| Some(super::allocate::mac(run, &vm.name))),
            replaces: old.map(|old| old.identity.vmid),
            ..vm.clone()
        }
    });
    filled.collect()
}

fn facts(draft: &Draft<'_>) -> Facts {
    let doomed = draft.doomed();
    let leftovers = draft.seen.leftovers.iter().map(|leftover| leftover.vmid);
    let going: BTreeSet<VmId> = doomed.iter().map(|vm| vm.identity.vmid).chain(leftovers).collect();
    let made = draft.templates.values().filter(|template| !template.reused).map(|template| template.vm.vmid);
    Facts {
        victims: doomed.iter().map(|vm| vm.identity.clone()).collect(),
        free: draft
            .vms
            .iter()
            .filter(|_| draft.wanted.verb.installs())
            .map(|vm| vm.vmid)
            .filter(|vmid| !going.contains(vmid))
            .chain(made)
            .chain(draft.canaries.values().copied())
            .collect(),
        templates: draft
            .templates
            .values()
            .filter(|template| template.reused)
            .map(|template| (template.vm.vmid, template.vm.node.clone()))
            .collect(),
        storages: {
            let nodes: BTreeSet<&NodeName> =
                draft.templates.keys().chain(draft.canaries.keys()).map(|spot| &spot.node).collect();
            nodes.into_iter().map(|node| (node.clone(), draft.wanted.storage.clone())).collect()
        },
    }
}

/// How the image comes into each new template.
fn ways(draft: &Draft<'_>) -> Vec<super::ImageWay> {
    let of = |made: &TemplateChoice| {
        let way = made.way.as_ref()?;
        let how = match &way.by {
            By::Pull { import, .. } => format!("fetched by the node itself, to {import}"),
            By::Upload { import } => format!("uploaded to {import}"),
            By::Ssh { .. } => format!("written over SSH to {}", draft.wanted.storage),
        };
        let (node, template) = (made.vm.node.clone(), made.vm.vmid);
        Some(super::ImageWay { node, template, how, because: way.because.clone() })
    };
    draft.templates.values().filter_map(of).collect()
}

fn keeps(seen: &Observed) -> Vec<Kept> {
    seen.vms
        .iter()
        .filter(|vm| vm.tagged && vm.template)
        .map(|vm| Kept {
            vmid: vm.identity.vmid,
            name: vm.identity.name.clone(),
            because: "a template is never part of a cluster".to_owned(),
        })
        .collect()
}

fn before(seen: &Observed) -> Option<Versions> {
    let cluster = seen.cluster.as_ref()?;
    // The oldest one names the cluster: a half-done upgrade is still the old version's cluster.
    Some(Versions { talos: cluster.talos.values().min()?.clone(), kubernetes: cluster.kubernetes.clone()? })
}
