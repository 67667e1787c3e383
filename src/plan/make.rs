//! The whole rebuild on one screen: from what is wanted and what was seen to a plan.
//!
//! Purpose: a pure function that leaves the engine no choice. Start reading at [`make`]; each phase has a file in
//! `phases/`, and what it does is in the file of the same name in `steps/`.
//! Must not know: clients, clocks, files.

use std::collections::{BTreeMap, BTreeSet};

use super::allocate::Numbers;
use super::check::victims;
use super::observed::{Observed, SeenVm};
use super::step::{Image, OurVm};
use super::wanted::Wanted;
use super::{FORMAT, Facts, Kept, Phase, Plan, Planned, PlannedVm, Step, Undo, Verb, Versions, phases, provenance};
use crate::types::{NodeName, RunId, Sha256, StepId, StorageId, VmId};

/// Why no plan could be made. Everything that `check` can find is found there; these are left.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// No image was seen.
    #[error("the image to fetch is not known")]
    NoImage,
    /// No storage takes an upload.
    #[error("no storage on {node} takes content type `import`")]
    NoImportStorage {
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
    /// A machine has no configuration.
    #[error("machine {name} has no configuration")]
    NoConfig {
        /// Its name.
        name: String,
    },
}

/// All that the phases build on.
pub(super) struct Draft<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) seen: &'a Observed,
    /// The VMs to retire, workers first.
    pub(super) victims: Vec<&'a SeenVm>,
    /// What each PVE node clones from.
    pub(super) templates: BTreeMap<NodeName, TemplateChoice>,
    /// What canaries are called and numbered, by PVE node.
    pub(super) canaries: BTreeMap<NodeName, VmId>,
    /// The image, unless every template is already there.
    pub(super) image: Option<&'a Image>,
    /// The VMs with everything inherited filled in.
    pub(super) vms: Vec<PlannedVm>,
}

/// Where a node's template comes from.
pub(super) struct TemplateChoice {
    pub(super) vm: OurVm,
    pub(super) hardware: super::step::Hardware,
    pub(super) fingerprint: Sha256,
    /// Made by an earlier run and used as it is.
    pub(super) reused: bool,
    /// Where the upload goes.
    pub(super) import: Option<StorageId>,
}

/// The step that brings the image into the cache.
pub(super) const FETCH: &str = "image/fetch";

/// Makes the plan of a fresh rebuild.
pub fn make(wanted: &Wanted, seen: &Observed) -> Result<Plan, PlanError> {
    let draft = draft(wanted, seen)?;
    let phases: Vec<Phase> = [
        Some(phases::check()),
        phases::image(&draft),
        Some(phases::template(&draft)),
        Some(phases::canary(&draft)?),
        phases::freeze(&draft),
        phases::retire(&draft),
        Some(phases::provision(&draft)),
        Some(phases::configure(&draft)?),
        Some(phases::bootstrap(&draft)),
        Some(phases::verify(&draft)),
        Some(phases::finish(&draft)),
    ]
    .into_iter()
    .flatten()
    .collect();
    Ok(Plan {
        format: FORMAT,
        verb: Verb::Rebuild,
        run: wanted.run.clone(),
        cluster: wanted.cluster.clone(),
        profile: wanted.profile,
        secrets: wanted.secrets,
        cluster_config: wanted.config.clone(),
        facts: facts(&draft),
        destroys: draft.victims.iter().map(|vm| vm.identity.clone()).collect(),
        keeps: keeps(seen),
        download_bytes: draft.image.map_or(0, |image| image.bytes),
        before: before(seen),
        after: Versions { talos: wanted.talos.clone(), kubernetes: wanted.kubernetes.clone() },
        limits: wanted.limits,
        vms: draft.vms,
        phases,
    })
}

fn draft<'a>(wanted: &'a Wanted, seen: &'a Observed) -> Result<Draft<'a>, PlanError> {
    let mut victims: Vec<&SeenVm> = victims(seen).collect();
    victims.sort_by_key(|vm| (std::cmp::Reverse(vm.role), vm.identity.name.clone()));
    let vms = inherit(&wanted.vms, &wanted.run, seen);
    let mut taken: BTreeSet<VmId> = seen.vmids.clone();
    taken.extend(wanted.vms.iter().map(|vm| vm.vmid));
    let mut numbers = Numbers::new(wanted.template_ids.clone(), taken);
    let mut next = || {
        numbers.take().ok_or(PlanError::NoNumber { from: *wanted.template_ids.start(), to: *wanted.template_ids.end() })
    };
    let nodes: BTreeSet<&NodeName> = wanted.vms.iter().map(|vm| &vm.node).collect();
    let mut templates = BTreeMap::new();
    let mut canaries = BTreeMap::new();
    for node in nodes {
        let choice = phases::choose_template(wanted, seen, node, &mut next)?;
        templates.insert(node.clone(), choice);
        canaries.insert(node.clone(), next()?);
    }
    let all_reused = templates.values().all(|template| template.reused);
    let image = if all_reused { None } else { Some(seen.image.as_ref().ok_or(PlanError::NoImage)?) };
    Ok(Draft { wanted, seen, victims, templates, canaries, image, vms })
}

/// Fills in what each VM takes over from the one it replaces: the one of the same name, else of the same number.
/// Configurations name the MAC, so this comes before they are rendered.
pub fn inherit(vms: &[PlannedVm], run: &RunId, seen: &Observed) -> Vec<PlannedVm> {
    let by_name = |vm: &PlannedVm| victims(seen).find(|old| old.identity.name == vm.name);
    let by_number = |vm: &PlannedVm| victims(seen).find(|old| old.identity.vmid == vm.vmid);
    let filled = vms.iter().map(|vm| {
        let old = by_name(vm).or_else(|| by_number(vm));
        let inherited = old.and_then(|old| phases::mac_of(old.config.get("net0")?));
        PlannedVm {
            mac: vm.mac.or(inherited).or_else(|| Some(super::allocate::mac(run, &vm.name))),
            replaces: old.map(|old| old.identity.vmid),
            ..vm.clone()
        }
    });
    filled.collect()
}

fn facts(draft: &Draft<'_>) -> Facts {
    let going: BTreeSet<VmId> = draft.victims.iter().map(|vm| vm.identity.vmid).collect();
    let made = draft.templates.values().filter(|template| !template.reused).map(|template| template.vm.vmid);
    Facts {
        victims: draft.victims.iter().map(|vm| vm.identity.clone()).collect(),
        free: draft
            .vms
            .iter()
            .map(|vm| vm.vmid)
            .filter(|vmid| !going.contains(vmid))
            .chain(made)
            .chain(draft.canaries.values().copied())
            .collect(),
        templates: draft
            .templates
            .iter()
            .filter(|(_, template)| template.reused)
            .map(|(node, template)| (node.clone(), template.vm.vmid))
            .collect(),
        storages: draft.templates.keys().map(|node| (node.clone(), draft.wanted.storage.clone())).collect(),
    }
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

impl Draft<'_> {
    /// A VM of this run, marked as the work of `step`.
    pub(super) fn our_vm(&self, step: &StepId, node: &NodeName, vmid: VmId, name: &str) -> OurVm {
        our_vm(self.wanted, step, node, vmid, name)
    }
}

pub(super) fn our_vm(wanted: &Wanted, step: &StepId, node: &NodeName, vmid: VmId, name: &str) -> OurVm {
    OurVm {
        node: node.clone(),
        vmid,
        name: name.to_owned(),
        mark: provenance::mark(&wanted.run, step, &wanted.cluster),
    }
}

/// A step after others, undone by nothing.
pub(super) fn planned(id: impl Into<String>, step: Step, after: &[&StepId]) -> Planned {
    Planned { id: StepId::new(id), step, after: after.iter().map(|id| (*id).clone()).collect(), undo: Undo::Nothing }
}

/// The same, with how it is undone.
pub(super) fn undone_by(mut planned: Planned, undo: Step) -> Planned {
    planned.undo = Undo::By(Box::new(undo));
    planned
}

/// The same, for what can't be taken back.
pub(super) fn irreversible(mut planned: Planned, because: &str) -> Planned {
    planned.undo = Undo::Irreversible { because: because.to_owned() };
    planned
}

#[cfg(test)]
mod tests {
    use super::super::lint::lint;
    use super::super::sample::{seen, vm, wanted};
    use super::*;

    fn phases(plan: &Plan) -> Vec<&str> {
        plan.phases.iter().map(|phase| phase.name.as_str()).collect()
    }

    #[test]
    fn a_rebuild_has_the_phases_of_the_design_in_order_and_breaks_no_rule() {
        let plan = make(&wanted(), &seen()).unwrap();
        assert_eq!(lint(&plan), []);
        let expected = [
            "check",
            "image",
            "template",
            "canary",
            "freeze",
            "retire",
            "provision",
            "configure",
            "bootstrap",
            "verify",
            "finish",
        ];
        assert_eq!(phases(&plan), expected);
        assert_eq!(plan.destroys.len(), 1);
        assert_eq!(plan.vms[0].replaces, Some(VmId(1100)));
        assert_eq!(plan.vms[0].mac, Some("BC:24:11:00:11:00".parse().unwrap()), "the MAC is taken over");
    }

    #[test]
    fn the_same_input_makes_the_same_plan() {
        assert_eq!(make(&wanted(), &seen()).unwrap(), make(&wanted(), &seen()).unwrap());
    }

    #[test]
    fn a_plan_survives_being_written_down() {
        let plan = make(&wanted(), &seen()).unwrap();
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }

    #[test]
    fn a_template_with_the_same_fingerprint_is_used_again() {
        let mut seen = seen();
        let first = make(&wanted(), &seen).unwrap();
        let fingerprint = first
            .steps()
            .find_map(|planned| match &planned.step {
                Step::SealTemplate { fingerprint, .. } => Some(*fingerprint),
                _ => None,
            })
            .unwrap();
        let mark = "recast: run=x step=template/pve1/create cluster=other".to_owned();
        let name = "talos-1-13-9".to_owned();
        seen.vmids.insert(VmId(102));
        seen.templates = vec![super::super::observed::SeenTemplate {
            node: "pve1".into(),
            vmid: VmId(102),
            name,
            mark,
            fingerprint,
        }];
        let plan = make(&wanted(), &seen).unwrap();
        assert_eq!(lint(&plan), []);
        assert!(!phases(&plan).contains(&"image"), "nothing to fetch");
        assert_eq!(plan.facts.templates, [("pve1".into(), VmId(102))].into());
    }

    #[test]
    fn without_an_old_cluster_nothing_is_frozen_or_retired() {
        let mut seen = seen();
        seen.vms.clear();
        seen.vmids.remove(&VmId(1100));
        let plan = make(&wanted(), &seen).unwrap();
        assert_eq!(lint(&plan), []);
        assert!(!phases(&plan).contains(&"retire"));
        assert_eq!(plan.destroys, []);
    }

    #[test]
    fn numbers_handed_out_avoid_those_in_use_and_those_of_the_profile() {
        let mut wanted = wanted();
        wanted.template_ids = 100..=104;
        wanted.vms[0].vmid = VmId(100);
        let mut seen = seen();
        seen.vms.clear();
        let plan = make(&wanted, &seen).unwrap();
        let made: Vec<VmId> = plan.facts.free.iter().copied().filter(|vmid| *vmid != VmId(100)).collect();
        assert_eq!(made, [VmId(102), VmId(103)]);
        wanted.template_ids = 100..=102;
        assert_eq!(make(&wanted, &seen), Err(PlanError::NoNumber { from: 100, to: 102 }));
    }

    #[test]
    fn a_second_old_machine_is_retired_after_the_workers() {
        let mut seen = seen();
        let mut worker = vm(1110, "single-worker-01", &["single", "talos", "worker"]);
        worker.role = Some(crate::types::Role::Worker);
        seen.vms.insert(0, vm(1101, "single-cp-02", &["controlplane", "single", "talos"]));
        seen.vms.push(worker);
        let plan = make(&wanted(), &seen).unwrap();
        assert_eq!(lint(&plan), []);
        let names: Vec<&str> = plan.destroys.iter().map(|vm| vm.name.as_str()).collect();
        assert_eq!(names, ["single-worker-01", "single-cp-01", "single-cp-02"]);
    }
}
