//! What all phases of a plan have to agree on, chosen once: victims, templates, numbers, images.
//!
//! Must not know: which steps there will be. Start reading at [`Draft`].

use std::collections::{BTreeMap, BTreeSet};

use super::{PlanError, inherit};
use crate::plan::allocate::Numbers;
use crate::plan::check::victims;
use crate::plan::data::OldMachine;
use crate::plan::observed::{Observed, SeenVm};
use crate::plan::sources::{By, Sources, Spot, Way, sources};
use crate::plan::step::{Hardware, Image, OurVm};
use crate::plan::wanted::Wanted;
use crate::plan::{PlannedVm, Verb, phases, provenance};
use crate::types::{NodeName, Role, SchematicId, Sha256, StepId, VmId};

/// All that the phases build on.
pub(in crate::plan) struct Draft<'a> {
    pub(in crate::plan) wanted: &'a Wanted,
    pub(in crate::plan) seen: &'a Observed,
    /// The VMs to retire, workers first.
    pub(in crate::plan) victims: Vec<&'a SeenVm>,
    /// The templates, by where they live and what they are made from.
    pub(in crate::plan) templates: BTreeMap<Spot, TemplateChoice>,
    /// Where VMs come from.
    pub(in crate::plan) sources: Sources<'a>,
    /// The canaries' numbers.
    pub(in crate::plan) canaries: BTreeMap<Spot, VmId>,
    /// The images that new templates need.
    pub(in crate::plan) images: Vec<&'a Image>,
    /// The VMs with everything inherited filled in.
    pub(in crate::plan) vms: Vec<PlannedVm>,
}

/// Where a node's template comes from.
pub(in crate::plan) struct TemplateChoice {
    pub(in crate::plan) vm: OurVm,
    pub(in crate::plan) hardware: Hardware,
    pub(in crate::plan) fingerprint: Sha256,
    /// Made by an earlier run and used as it is.
    pub(in crate::plan) reused: bool,
    /// How the image gets there, where it is made.
    pub(in crate::plan) way: Option<Way>,
}

impl<'a> Draft<'a> {
    /// Chooses everything that the phases have to agree on.
    pub(super) fn of(wanted: &'a Wanted, seen: &'a Observed) -> Result<Self, PlanError> {
        let mut victims: Vec<&SeenVm> = victims(seen).collect();
        victims.sort_by_key(|vm| (std::cmp::Reverse(vm.role), vm.identity.name.clone()));
        let makes = wanted.verb.makes_templates();
        let vms = if makes { inherit(&wanted.vms, &wanted.run, seen, &wanted.inherit) } else { Vec::new() };
        let mut taken: BTreeSet<VmId> = seen.vmids.clone();
        taken.extend(wanted.vms.iter().map(|vm| vm.vmid));
        let mut numbers = Numbers::new(wanted.template_ids.clone(), taken);
        let mut next = || {
            numbers
                .take()
                .ok_or(PlanError::NoNumber { from: *wanted.template_ids.start(), to: *wanted.template_ids.end() })
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
        Ok(Self { wanted, seen, victims, templates, sources, canaries, images, vms })
    }
}

impl Draft<'_> {
    /// The template that a VM is cloned from.
    pub(in crate::plan) fn source_of(&self, vm: &PlannedVm) -> &TemplateChoice {
        self.source(&self.spot_of(vm))
    }

    /// Where a VM is, and what it is made from.
    pub(in crate::plan) fn spot_of(&self, vm: &PlannedVm) -> Spot {
        Spot { node: vm.node.clone(), schematic: self.wanted.schematic_of(vm.role).clone() }
    }

    /// The template that serves a spot.
    pub(in crate::plan) fn source(&self, spot: &Spot) -> &TemplateChoice {
        // `sources` gives every spot an origin and every origin a template.
        let node = self.sources.origins[spot].clone();
        &self.templates[&Spot { node, schematic: spot.schematic.clone() }]
    }

    /// The VMs that are destroyed: those to retire, if the verb does that.
    pub(in crate::plan) fn doomed(&self) -> &[&SeenVm] {
        if self.wanted.verb == Verb::TemplateBuild { &[] } else { &self.victims }
    }

    /// The VM that a new VM replaces.
    pub(in crate::plan) fn replaced(&self, vm: &PlannedVm) -> Option<&SeenVm> {
        self.victims.iter().copied().find(|old| Some(old.identity.vmid) == vm.replaces)
    }

    /// The machines to retire, of one role or all, workers first.
    pub(in crate::plan) fn old_machines(&self, role: Option<Role>) -> Vec<OldMachine> {
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
    pub(in crate::plan) fn our_vm(&self, step: &StepId, node: &NodeName, vmid: VmId, name: &str) -> OurVm {
        our_vm(self.wanted, step, node, vmid, name)
    }
}

/// A VM of this run, marked as the work of `step`.
pub(in crate::plan) fn our_vm(wanted: &Wanted, step: &StepId, node: &NodeName, vmid: VmId, name: &str) -> OurVm {
    OurVm {
        node: node.clone(),
        vmid,
        name: name.to_owned(),
        mark: provenance::mark(&wanted.run, step, &wanted.cluster),
    }
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
