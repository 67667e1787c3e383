//! Phase `finish`: profile and lock say what now runs. What the user wishes beside that is in `errands.rs`.

use std::collections::BTreeMap;

use crate::plan::make::{Draft, fetch_id, planned};
use crate::plan::sources::By;
use crate::plan::step::Image;
use crate::plan::{Phase, Planned, Step};

pub(in crate::plan) fn finish(draft: &Draft<'_>) -> Phase {
    let wanted = draft.wanted;
    let mut set = BTreeMap::new();
    set.insert("talos.version".to_owned(), wanted.talos.to_string());
    set.insert("talos.kubernetes_version".to_owned(), wanted.kubernetes.to_string());
    // The profile has room for one number: the template of the first machine's node. The lock has them all.
    if let Some(template) = draft.vms.first().map(|vm| draft.source_of(vm)) {
        set.insert("template".to_owned(), template.vm.vmid.to_string());
    }
    let step = match &wanted.before {
        Some(from) => Step::RestoreFiles { from: from.clone() },
        None => Step::EditProfile { set },
    };
    let edit = planned("finish/profile", step, &[]);
    let mut steps = vec![edit];
    locks(draft, &mut steps);
    Phase { name: "finish".to_owned(), steps, width: 1 }
}

/// After templates alone only the lock has news, and none where all were found.
pub(in crate::plan) fn finish_templates(draft: &Draft<'_>) -> Option<Phase> {
    let mut steps = Vec::new();
    locks(draft, &mut steps);
    (!steps.is_empty()).then(|| Phase { name: "finish".to_owned(), steps, width: 1 })
}

/// Images and templates go into the lock, one after another.
fn locks(draft: &Draft<'_>, steps: &mut Vec<Planned>) {
    let wanted = draft.wanted;
    let mut seen: Vec<&Image> = draft.images.clone();
    // What nodes fetched by a digest that was known never came here.
    let pulled = draft
        .templates
        .iter()
        .filter(|(_, made)| matches!(made.way.as_ref().map(|way| &way.by), Some(By::Pull { .. })));
    for image in pulled.filter_map(|(spot, _)| draft.seen.pull_of(&spot.schematic)) {
        if !seen.contains(&image) {
            seen.push(image);
        }
    }
    for image in seen {
        let is_pulled = image.url.ends_with(".qcow2");
        let of_image = || {
            draft.templates.iter().filter(|(spot, made)| {
                let pulled = matches!(made.way.as_ref().map(|way| &way.by), Some(By::Pull { .. }));
                spot.schematic == image.schematic && (pulled == is_pulled || made.reused)
            })
        };
        let Some((_, first)) = of_image().next() else { continue };
        let templates = of_image().map(|(spot, template)| (spot.node.clone(), template.vm.vmid)).collect();
        let id = fetch_id(wanted, image);
        let fetched = draft.images.contains(&image).then(|| id.clone());
        let id = id.as_str().replace("image/fetch", "finish/lock");
        let recipe = draft.seen.recipes.get(&image.schematic).cloned();
        let image = image.clone();
        let lock = Step::WriteLock { fetched, image, templates, fingerprint: first.fingerprint, recipe };
        let before = steps.last().map(|planned: &Planned| planned.id.clone());
        steps.push(planned(id, lock, &before.iter().collect::<Vec<_>>()));
    }
}

/// After a teardown nothing runs that profile or lock could tell of.
pub(in crate::plan) fn finish_teardown() -> Phase {
    Phase { name: "finish".to_owned(), steps: Vec::new(), width: 1 }
}
