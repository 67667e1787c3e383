//! Storages: room for disks, and a way for templates to get there.

use std::collections::BTreeMap;

use super::{Scope, size};
use crate::plan::observed::{Finding, Observed, SeenStorage};
use crate::plan::provenance;
use crate::plan::sources::{Spot, Template, sources, way};
use crate::plan::wanted::Wanted;
use crate::types::{NodeName, SchematicId};

/// Whether every node has the storage for disks.
pub(super) fn storages(scope: &Scope<'_>, seen: &Observed, found: &mut Vec<Finding>) {
    let mut asked: Vec<_> = scope.vms.iter().map(|vm| &vm.node).collect();
    asked.sort();
    asked.dedup();
    for node in asked.into_iter().filter(|name| seen.nodes.iter().any(|node| node.name == **name && node.online)) {
        let Some(storage) = seen.storages.iter().find(|storage| storage.node == *node && storage.id == *scope.storage)
        else {
            found.push(Finding::refusal(
                format!("storage {} does not exist on {node}", scope.storage),
                "name one that does in the site's defaults.storage",
            ));
            continue;
        };
        if !storage.usable {
            found.push(Finding::refusal(
                format!("storage {} is not active on {node}", storage.id),
                "enable it, or name another",
            ));
            // What it can hold and how much room it has isn't known.
            continue;
        }
        if !storage.content.contains("images") {
            found.push(Finding::refusal(
                format!("storage {} on {node} does not hold VM images", storage.id),
                format!("add `images` to its content types: pvesm set {} --content …,images", storage.id),
            ));
        }
    }
}

/// Whether every VM has a template to be cloned from, and whether there is room for new ones.
pub(super) fn templates(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    let is_up = |node: &NodeName| seen.nodes.iter().any(|seen| seen.name == *node && seen.online);
    // A node that is down or lacks the storage has its own finding.
    let has_storage = |spot: &&Spot| {
        is_up(&spot.node) && seen.storage(&spot.node, &wanted.storage).is_some_and(|storage| storage.usable)
    };
    let sources = sources(wanted, seen);
    let import = "add it to a file based one: pvesm set local --content iso,vztmpl,backup,import (PVE 8.4 or later)";
    // What speaks against making a template on a node, each way's reason.
    let reasons = |spot: &Spot| way(wanted, seen, spot).err().unwrap_or_default().join("; ");
    for spot in sources.missing.iter().filter(has_storage) {
        match seen.shells.get(&spot.node) {
            Some(Some(problem)) => found.push(Finding {
                what: format!("no template can be made on {}: {}", spot.node, reasons(spot)),
                ..problem.clone()
            }),
            _ => found.push(Finding::refusal(reasons(spot), import)),
        }
    }
    for template in &seen.templates {
        if !template.proved && provenance::field(&template.mark, "cluster") == Some(&wanted.cluster) {
            let label = format!("template {} ({}) on {}", template.vmid, template.name, template.node);
            found.push(Finding::warning(
                format!("{label} was never found right by a canary, and is not used"),
                format!("delete it, if nothing was cloned from it: qm destroy {}, on {}", template.vmid, template.node),
            ));
        }
    }
    for (spot, origin) in sources.origins.iter().filter(|(spot, _)| sources.moves(spot)) {
        let why = format!("{}, so no template can be made there", reasons(spot));
        found.push(if seen.may_migrate {
            Finding::warning(
                format!("{why}: its VMs are cloned on {origin} and moved"),
                format!("that copies each disk twice; {import}"),
            )
        } else {
            Finding::refusal(
                format!("{why}, and {} has no right to move VMs there from {origin}", caller(seen)),
                format!("grant VM.Migrate on the VMs' paths, or {import}"),
            )
        });
    }
    // The disks of the VMs that are deleted make room for the new ones; template and canary come on top.
    let mut needed: BTreeMap<&NodeName, u64> = BTreeMap::new();
    for (spot, template) in &sources.templates {
        if matches!(template, Template::Made(_)) {
            *needed.entry(&spot.node).or_default() += template_bytes(seen, &spot.schematic);
        }
    }
    for spot in sources.origins.keys() {
        *needed.entry(&spot.node).or_default() += template_bytes(seen, &spot.schematic);
    }
    for (node, needed) in needed {
        let Some(storage) = seen.storage(node, &wanted.storage).filter(|storage| storage.usable) else { continue };
        if storage.free < needed {
            found.push(Finding::refusal(
                format!(
                    "storage {} on {node} has {} free and the template and its canary need {}",
                    storage.id,
                    size(storage.free),
                    size(needed)
                ),
                "make room, or name another storage",
            ));
        }
    }
}

fn caller(seen: &Observed) -> &str {
    if seen.caller.is_empty() { "the caller" } else { &seen.caller }
}

/// The storage that uploads go to: file based, `import` among its content types, the one with most room.
pub fn import_storage<'a>(seen: &'a Observed, node: &NodeName) -> Option<&'a SeenStorage> {
    seen.storages
        .iter()
        .filter(|storage| storage.node == *node && storage.usable && storage.content.contains("import"))
        .max_by_key(|storage| (storage.free, std::cmp::Reverse(storage.id.clone())))
}

/// What a template's disk takes at most: PVE's import writes the real content only, so the compressed size is a fair
/// lower bound of what must be free and the decoded content stays below three times of it.
fn template_bytes(seen: &Observed, schematic: &SchematicId) -> u64 {
    seen.image_of(schematic).map_or(0, |image| image.bytes.saturating_mul(3))
}
