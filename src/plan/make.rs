//! The whole rebuild on one screen: from what is wanted and what was seen to a plan.
//!
//! Purpose: a pure function that leaves the engine no choice. Start reading at [`make`]; each phase has a file in
//! `phases/`, and what it does is in the file of the same name in `steps/`.
//! Must not know: clients, clocks, files.

use std::collections::{BTreeMap, BTreeSet};

use super::allocate::Numbers;
use super::check::victims;
use super::data::OldMachine;
use super::observed::{Observed, SeenVm};
use super::sources::{By, Sources, Spot, sources};
use super::step::{Image, OurVm};
use super::wanted::Wanted;
use super::{
    Data, FORMAT, Facts, Kept, Phase, Plan, Planned, PlannedVm, Step, Undo, Verb, Versions, phases, provenance,
};
use crate::profile::Inherit;
use crate::property::Nic;
use crate::types::{NodeName, Role, RunId, SchematicId, Sha256, StepId, VmId};

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

/// All that the phases build on.
pub(super) struct Draft<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) seen: &'a Observed,
    /// The VMs to retire, workers first.
    pub(super) victims: Vec<&'a SeenVm>,
    /// The templates, by where they live and what they are made from.
    pub(super) templates: BTreeMap<Spot, TemplateChoice>,
    /// Where VMs come from.
    pub(super) sources: Sources<'a>,
    /// The canaries' numbers.
    pub(super) canaries: BTreeMap<Spot, VmId>,
    /// The images that new templates need.
    pub(super) images: Vec<&'a Image>,
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
    /// How the image gets there, where it is made.
    pub(super) way: Option<super::sources::Way>,
}

/// The step that brings an image into the cache.
pub(super) fn fetch_id(wanted: &Wanted, image: &Image) -> StepId {
    let mut id = "image/fetch".to_owned();
    if image.schematic != wanted.schematic {
        id = format!("{id}-{}", short(&image.schematic));
    }
    // The encoding that nodes fetch themselves, where it had to be seen first.
    if image.url.ends_with(".qcow2") {
        id.push_str("-qcow2");
    }
    StepId::new(id)
}

/// A spot in the ids of steps and the names of VMs: its node, and its schematic where that isn't the cluster's.
pub(super) fn label(wanted: &Wanted, spot: &Spot) -> String {
    if spot.schematic == wanted.schematic {
        return spot.node.to_string();
    }
    format!("{}-{}", spot.node, short(&spot.schematic))
}

/// The first digits of a schematic: enough to tell those of one cluster apart.
pub(super) fn short(schematic: &SchematicId) -> &str {
    schematic.as_str().get(..8).unwrap_or(schematic.as_str())
}

/// Makes the plan of a rebuild, or of one of its two halves.
pub fn make(wanted: &Wanted, seen: &Observed) -> Result<Plan, PlanError> {
    let draft = draft(wanted, seen)?;
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
        endpoint: Some(wanted.config.endpoint.clone()),
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

fn draft<'a>(wanted: &'a Wanted, seen: &'a Observed) -> Result<Draft<'a>, PlanError> {
    let mut victims: Vec<&SeenVm> = victims(seen).collect();
    victims.sort_by_key(|vm| (std::cmp::Reverse(vm.role), vm.identity.name.clone()));
    let makes = wanted.verb.makes_templates();
    let vms = if makes { inherit(&wanted.vms, &wanted.run, seen, &wanted.inherit) } else { Vec::new() };
    let mut taken: BTreeSet<VmId> = seen.vmids.clone();
    taken.extend(wanted.vms.iter().map(|vm| vm.vmid));
    let mut numbers = Numbers::new(wanted.template_ids.clone(), taken);
    let mut next = || {
        numbers.take().ok_or(PlanError::NoNumber { from: *wanted.template_ids.start(), to: *wanted.template_ids.end() })
    };
    let sources = if makes { sources(wanted, seen) } else { Sources::default() };
    if let Some(spot) = sources.missing.first() {
        return Err(PlanError::NoTemplate { node: spot.node.clone() });
    }
    let mut templates = BTreeMap::new();
    let mut canaries = BTreeMap::new();
    for (spot, template) in &sources.templates {
        templates.insert(spot.clone(), phases::choose_template(wanted, spot, template, &mut next)?);
    }
    for spot in sources.origins.keys() {
        canaries.insert(spot.clone(), next()?);
    }
    let images = images(&templates, seen)?;
    Ok(Draft { wanted, seen, victims, templates, sources, canaries, images, vms })
}

/// The files that have to come here: what is uploaded or streamed, and what nodes fetch and nobody has seen yet.
fn images<'a>(templates: &BTreeMap<Spot, TemplateChoice>, seen: &'a Observed) -> Result<Vec<&'a Image>, PlanError> {
    let mut found: BTreeMap<(&SchematicId, &str), &Image> = BTreeMap::new();
    for (spot, way) in templates.iter().filter_map(|(spot, template)| Some((spot, template.way.as_ref()?))) {
        let image = match &way.by {
            By::Pull { .. } => seen.pull_of(&spot.schematic),
            By::Upload { .. } | By::Ssh { .. } => seen.image_of(&spot.schematic),
        };
        let image = image.ok_or(PlanError::NoImage)?;
        if !(matches!(way.by, By::Pull { .. }) && image.sha256.is_some()) {
            found.insert((&image.schematic, &image.url), image);
        }
    }
    Ok(found.into_values().collect())
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

impl Draft<'_> {
    /// The template that a VM is cloned from.
    pub(super) fn source_of(&self, vm: &PlannedVm) -> &TemplateChoice {
        self.source(&self.spot_of(vm))
    }

    /// Where a VM is, and what it is made from.
    pub(super) fn spot_of(&self, vm: &PlannedVm) -> Spot {
        Spot { node: vm.node.clone(), schematic: self.wanted.schematic_of(vm.role).clone() }
    }

    /// The template that serves a spot.
    pub(super) fn source(&self, spot: &Spot) -> &TemplateChoice {
        // `sources` gives every spot an origin and every origin a template.
        let node = self.sources.origins[spot].clone();
        &self.templates[&Spot { node, schematic: spot.schematic.clone() }]
    }

    /// The VMs that are destroyed: those to retire, if the verb does that.
    pub(super) fn doomed(&self) -> &[&SeenVm] {
        if self.wanted.verb == Verb::TemplateBuild { &[] } else { &self.victims }
    }

    /// The VM that a new VM replaces.
    pub(super) fn replaced(&self, vm: &PlannedVm) -> Option<&SeenVm> {
        self.victims.iter().copied().find(|old| Some(old.identity.vmid) == vm.replaces)
    }

    /// The machines to retire, of one role or all, workers first.
    pub(super) fn old_machines(&self, role: Option<Role>) -> Vec<OldMachine> {
        let address = |name: &str| self.wanted.vms.iter().find(|vm| vm.name == name).and_then(|vm| vm.address);
        let role_of = |vm: &SeenVm| {
            let planned = self.wanted.vms.iter().find(|planned| planned.name == vm.identity.name);
            // A VM of unknown role may be a control plane: it goes down as late as one.
            vm.role.or(planned.map(|planned| planned.role)).unwrap_or(Role::ControlPlane)
        };
        let old = self.victims.iter().map(|vm| OldMachine {
            vm: vm.identity.clone(),
            role: role_of(vm),
            address: address(&vm.identity.name),
        });
        old.filter(|old| role.is_none_or(|role| old.role == role)).collect()
    }

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

    fn steps(plan: &Plan) -> Vec<&str> {
        plan.steps().map(|planned| planned.id.as_str()).collect()
    }

    #[test]
    fn a_create_has_the_second_half_and_a_teardown_the_first() {
        let mut wanted = wanted();
        wanted.verb = Verb::Create;
        let mut none = seen();
        none.vms.clear();
        none.vmids.remove(&VmId(1100));
        let create = make(&wanted, &none).unwrap();
        assert_eq!(lint(&create), []);
        assert!(["freeze", "retire"].iter().all(|name| !phases(&create).contains(name)), "{:?}", phases(&create));
        assert_eq!((create.verb, create.destroys.len(), create.after.is_some()), (Verb::Create, 0, true));
        wanted.verb = Verb::Teardown;
        let teardown = make(&wanted, &seen()).unwrap();
        assert_eq!(lint(&teardown), []);
        assert_eq!(phases(&teardown), ["check", "freeze", "retire", "finish"]);
        assert_eq!((teardown.vms.len(), teardown.destroys.len(), teardown.after), (0, 1, None));
        assert_eq!(teardown.facts.free, []);
    }

    #[test]
    fn a_teardown_that_keeps_the_data_saves_and_freezes_as_a_rebuild_does() {
        use super::super::errands::Errands;
        use super::super::sample::{keeping, seen_of_five};
        use super::super::step::Moment;
        let hooks = [(Moment::BeforeRetire, "true".to_owned())].into();
        let mut wanted = Wanted { errands: Errands { hooks, ..Errands::default() }, ..keeping() };
        let rebuild = make(&wanted, &seen_of_five()).unwrap();
        assert_eq!(lint(&rebuild), []);
        wanted.verb = Verb::Teardown;
        let teardown = make(&wanted, &seen_of_five()).unwrap();
        assert_eq!(lint(&teardown), []);
        assert_eq!(phases(&teardown), ["check", "backup", "freeze", "retire", "finish"]);
        let of = |plan: &Plan, name: &str| {
            let phase = plan.phases.iter().find(|phase| phase.name == name).unwrap();
            phase.steps.iter().map(|planned| planned.id.to_string()).collect::<Vec<_>>()
        };
        for phase in ["backup", "freeze", "retire"] {
            assert_eq!(of(&rebuild, phase), of(&teardown, phase));
        }
        assert!(of(&rebuild, "bootstrap").contains(&"bootstrap/data".to_owned()));
        assert_eq!(of(&rebuild, "freeze").last().map(String::as_str), Some("freeze/hook"));
    }

    #[test]
    fn hooks_and_what_is_applied_stand_where_they_belong() {
        use super::super::errands::{Apply, Errands, Flux, Git};
        use super::super::step::Moment;
        let mut wanted = wanted();
        let moments = [Moment::BeforeRetire, Moment::AfterBootstrap, Moment::Finished];
        wanted.errands = Errands {
            hooks: moments.into_iter().map(|moment| (moment, format!("./{moment}"))).collect(),
            apply: vec![Apply::Command("helm install cilium".to_owned())],
            git: Some(Git::Push),
            flux: Some(Flux { repo: "r".to_owned(), path: "p".to_owned(), branch: None, secrets: Vec::new() }),
        };
        let plan = make(&wanted, &seen()).unwrap();
        assert_eq!(lint(&plan), []);
        let ids = steps(&plan);
        let at = |id: &str| ids.iter().position(|found| *found == id).unwrap_or_else(|| panic!("{id} in {ids:?}"));
        let order = [
            "freeze/single-cp-01/shutdown",
            "freeze/hook",
            "retire/single-cp-01/delete",
            "bootstrap/access",
            "bootstrap/apply-1",
            "bootstrap/hook",
            "verify/stale",
            "verify/health",
            "finish/profile",
            "finish/lock",
            "finish/contexts",
            "finish/commit",
            "finish/flux",
            "finish/hook",
        ];
        assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{ids:?}");
        let commit = plan.steps().find(|planned| planned.id.as_str() == "finish/commit").unwrap();
        let message = "feat(talos): upgrade to Talos v1.13.9".to_owned();
        assert_eq!(commit.step, Step::CommitFiles { message, push: true });
        assert!(commit.after.iter().any(|id| id.as_str() == "finish/lock"));
        wanted.verb = Verb::Teardown;
        let teardown = make(&wanted, &seen()).unwrap();
        let ids = steps(&teardown);
        assert!(ids.ends_with(&["finish/contexts", "finish/hook"]) && ids.contains(&"freeze/hook"), "{ids:?}");
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
            proved: true,
        }];
        let plan = make(&wanted(), &seen).unwrap();
        assert_eq!(lint(&plan), []);
        assert!(!phases(&plan).contains(&"image"), "nothing to fetch");
        assert_eq!(plan.facts.templates, [(VmId(102), "pve1".into())].into());
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
