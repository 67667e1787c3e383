//! Phase `template`: one template per PVE node, made from the image or found from an earlier run.

use crate::plan::check::import_storage;
use crate::plan::make::{Draft, FETCH, PlanError, TemplateChoice, our_vm, planned, undone_by};
use crate::plan::step::{Hardware, OurVm};
use crate::plan::{Observed, Phase, Step, Wanted, provenance};
use crate::types::{NodeName, StepId, VmId};

/// What a template has besides the hardware of all VMs: small, since clones are given their own size.
const TEMPLATE_SIZE: &[(&str, &str)] = &[("cores", "2"), ("memory", "2048")];

/// An existing template with the same fingerprint, else a new one.
pub(in crate::plan) fn choose_template(
    wanted: &Wanted,
    seen: &Observed,
    node: &NodeName,
    next: &mut impl FnMut() -> Result<VmId, PlanError>,
) -> Result<TemplateChoice, PlanError> {
    let mut hardware = hardware(wanted);
    let fingerprint = provenance::fingerprint(&wanted.schematic, &wanted.talos, &hardware);
    if let Some(found) = seen.templates.iter().find(|found| found.node == *node && found.fingerprint == fingerprint) {
        let vm = OurVm { node: node.clone(), vmid: found.vmid, name: found.name.clone(), mark: found.mark.clone() };
        return Ok(TemplateChoice { vm, hardware, fingerprint, reused: true, import: None });
    }
    let import = import_storage(seen, node).ok_or_else(|| PlanError::NoImportStorage { node: node.clone() })?;
    let vm = our_vm(
        wanted,
        &create_id(node),
        node,
        next()?,
        &format!("talos-{}", wanted.talos.to_string().replace('.', "-")),
    );
    let notes = format!("{}\n{}", vm.mark, provenance::template_line(&wanted.schematic, &wanted.talos, fingerprint));
    hardware.insert("description".to_owned(), notes);
    Ok(TemplateChoice { vm, hardware, fingerprint, reused: false, import: Some(import.id.clone()) })
}

fn hardware(wanted: &Wanted) -> Hardware {
    let mut hardware = wanted.hardware.clone();
    hardware.extend(TEMPLATE_SIZE.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    hardware.insert("net0".to_owned(), wanted.nic.clone());
    hardware.insert("tags".to_owned(), "talos;template".to_owned());
    hardware.insert("boot".to_owned(), "order=scsi0".to_owned());
    if hardware.get("bios").is_some_and(|bios| bios == "ovmf") {
        hardware.insert("efidisk0".to_owned(), format!("{}:1,efitype=4m,pre-enrolled-keys=0", wanted.storage));
    }
    hardware
}

fn create_id(node: &NodeName) -> StepId {
    StepId::new(format!("template/{node}/create"))
}

/// Uploads, creates, seals and reads back; leftovers of earlier runs go first.
pub(in crate::plan) fn template(draft: &Draft<'_>) -> Phase {
    let mut steps = Vec::new();
    for leftover in &draft.seen.leftovers {
        let vm = OurVm {
            node: leftover.node.clone(),
            vmid: leftover.vmid,
            name: leftover.name.clone(),
            mark: leftover.mark.clone(),
        };
        steps.push(planned(
            format!("template/{}/clear-{}", leftover.node, leftover.vmid),
            Step::DeleteOurVm { vm },
            &[],
        ));
    }
    for (node, choice) in &draft.templates {
        let seal = Step::SealTemplate { vm: choice.vm.clone(), fingerprint: choice.fingerprint };
        let seal_id = format!("template/{node}/seal");
        let Some(storage) = &choice.import else {
            steps.push(planned(seal_id, seal, &[]));
            continue;
        };
        let file = format!(
            "recast-{}-{}-{}.qcow2",
            draft.wanted.run,
            draft.wanted.talos,
            &draft.wanted.schematic.as_str()[..8]
        );
        let remove = Step::RemoveUpload { node: node.clone(), storage: storage.clone(), file: file.clone() };
        let upload = Step::UploadImage {
            fetched: FETCH.into(),
            node: node.clone(),
            storage: storage.clone(),
            file: file.clone(),
        };
        let upload = undone_by(planned(format!("template/{node}/upload"), upload, &[]), remove.clone());
        let mut hardware = choice.hardware.clone();
        hardware.insert(
            "scsi0".to_owned(),
            format!("{}:0,import-from={storage}:import/{file},discard=on,iothread=1,ssd=1", draft.wanted.storage),
        );
        let create = Step::CreateTemplate { vm: choice.vm.clone(), hardware };
        let create = planned(create_id(node).as_str(), create, &[&upload.id]);
        let create = undone_by(create, Step::DeleteOurVm { vm: choice.vm.clone() });
        let seal = planned(seal_id, seal, &[&create.id]);
        let remove = planned(format!("template/{node}/remove-upload"), remove, &[&seal.id]);
        steps.extend([upload, create, seal, remove]);
    }
    Phase { name: "template".to_owned(), steps, width: 4 }
}
