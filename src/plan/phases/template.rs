//! Phase `template`: one template per PVE node and schematic, made from the image or found from an earlier run. How the
//! image gets there is decided in `sources.rs`.

use crate::plan::make::{Draft, PlanError, TemplateChoice, fetch_id, label, our_vm, planned, short, undone_by};
use crate::plan::sources::{By, Spot, Template};
use crate::plan::step::{Hardware, NodeVolume, OurVm, Unwritten};
use crate::plan::{Phase, Planned, Step, Wanted, provenance};
use crate::types::{NodeName, SchematicId, Sha256, StepId, StorageId, VmId, VolumeId};

/// What a template has besides the hardware of all VMs: small, since clones are given their own size.
const TEMPLATE_SIZE: &[(&str, &str)] = &[("cores", "2"), ("memory", "2048")];

/// The template of a spot: the one that was found, or a new one.
pub(in crate::plan) fn choose_template(
    wanted: &Wanted,
    spot: &Spot,
    template: &Template<'_>,
    next: &mut impl FnMut() -> Result<VmId, PlanError>,
) -> Result<TemplateChoice, PlanError> {
    let (mut hardware, fingerprint) = template_print(wanted, &spot.schematic);
    let node = &spot.node;
    let way = match template {
        Template::Found(found) => {
            let vm = OurVm { node: node.clone(), vmid: found.vmid, name: found.name.clone(), mark: found.mark.clone() };
            return Ok(TemplateChoice { vm, hardware, fingerprint, reused: true, way: None });
        }
        Template::Made(way) => way.clone(),
    };
    let version = wanted.talos.to_string().replace('.', "-");
    let mut name = format!("talos-{version}");
    if spot.schematic != wanted.schematic {
        name = format!("{name}-{}", short(&spot.schematic));
    }
    let vm = our_vm(wanted, &create_id(wanted, spot), node, next()?, &name);
    let notes = format!("{}\n{}", vm.mark, provenance::template_line(&spot.schematic, &wanted.talos, fingerprint));
    hardware.insert("description".to_owned(), notes);
    Ok(TemplateChoice { vm, hardware, fingerprint, reused: false, way: Some(way) })
}

/// The hardware of the template of a schematic, and the fingerprint that proves it.
pub(in crate::plan) fn template_print(wanted: &Wanted, schematic: &SchematicId) -> (Hardware, Sha256) {
    let mut hardware = wanted.hardware_of(schematic).clone();
    hardware.extend(TEMPLATE_SIZE.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    hardware.insert("net0".to_owned(), wanted.nic.clone());
    hardware.insert("tags".to_owned(), "talos;template".to_owned());
    hardware.insert("boot".to_owned(), "order=scsi0".to_owned());
    if hardware.get("bios").is_some_and(|bios| bios == "ovmf") {
        hardware.insert("efidisk0".to_owned(), format!("{}:1,efitype=4m,pre-enrolled-keys=0", wanted.storage));
    }
    let fingerprint = provenance::fingerprint(schematic, &wanted.talos, &hardware);
    (hardware, fingerprint)
}

fn create_id(wanted: &Wanted, spot: &Spot) -> StepId {
    StepId::new(format!("template/{}/create", label(wanted, spot)))
}

/// Uploads, creates, seals and reads back; leftovers of earlier runs go first.
pub(in crate::plan) fn template(draft: &Draft<'_>) -> Result<Phase, PlanError> {
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
    for (spot, choice) in &draft.templates {
        let (node, label) = (&spot.node, label(draft.wanted, spot));
        let seal = Step::SealTemplate { vm: choice.vm.clone(), fingerprint: choice.fingerprint };
        let seal_id = format!("template/{label}/seal");
        let Some(way) = &choice.way else {
            steps.push(planned(seal_id, seal, &[]));
            continue;
        };
        let making = Making { draft, spot, choice, label: &label };
        let (before, disk, after) = match &way.by {
            By::Pull { import, or_upload } => making.pulled(node, import, *or_upload)?,
            By::Upload { import } => making.uploaded(node, import),
            By::Ssh { file, unwritten } => making.written(node, *file, *unwritten),
        };
        let mut hardware = choice.hardware.clone();
        hardware.insert("scsi0".to_owned(), format!("{disk},discard=on,iothread=1,ssd=1"));
        let create = Step::CreateTemplate { vm: choice.vm.clone(), hardware };
        let last = before.last().map(|planned| planned.id.clone());
        let create = planned(create_id(draft.wanted, spot).as_str(), create, &last.iter().collect::<Vec<_>>());
        let create = undone_by(create, Step::DeleteOurVm { vm: choice.vm.clone() });
        let seal = planned(seal_id, seal, &[&create.id]);
        let after = after.map(|step| planned(format!("template/{label}/remove-upload"), step, &[&seal.id]));
        steps.extend(before.into_iter().chain([create, seal]).chain(after));
    }
    // All nodes at once: they take the same reading of the image.
    Ok(Phase { name: "template".to_owned(), steps, width: draft.templates.len().max(4) })
}

/// A template in the making.
struct Making<'a> {
    draft: &'a Draft<'a>,
    spot: &'a Spot,
    choice: &'a TemplateChoice,
    label: &'a str,
}

impl Making<'_> {
    /// By the node itself: what comes before the VM, what its disk is made from, what comes after it.
    fn pulled(
        &self,
        node: &NodeName,
        import: &StorageId,
        or_upload: bool,
    ) -> Result<(Vec<Planned>, String, Option<Step>), PlanError> {
        let (wanted, schematic) = (self.draft.wanted, &self.spot.schematic);
        let image = self.draft.seen.pull_of(schematic).ok_or(PlanError::NoImage)?.clone();
        let instead = if or_upload { self.draft.seen.image_of(schematic).cloned() } else { None };
        let file = self.file();
        let remove = Step::RemoveUpload { node: node.clone(), storage: import.clone(), file: file.clone() };
        let disk = format!("{}:0,import-from={import}:import/{file}", wanted.storage);
        let fetched = image.sha256.is_none().then(|| fetch_id(wanted, &image));
        let (node, storage) = (node.clone(), import.clone());
        let pull = Step::PullImage { image, fetched, node, storage, file, instead };
        let pull = planned(format!("template/{}/pull", self.label), pull, &[]);
        Ok((vec![undone_by(pull, remove.clone())], disk, Some(remove)))
    }

    /// The name of the file on the node; nothing else can have it.
    fn file(&self) -> String {
        let wanted = self.draft.wanted;
        format!("recast-{}-{}-{}.qcow2", wanted.run, wanted.talos, short(&self.spot.schematic))
    }

    /// The step that brings what is uploaded or streamed.
    fn fetched(&self) -> StepId {
        let wanted = self.draft.wanted;
        self.draft
            .seen
            .image_of(&self.spot.schematic)
            .map_or_else(|| StepId::new("image/fetch"), |image| fetch_id(wanted, image))
    }

    /// Through the node's API: what comes before the VM, what its disk is made from, what comes after it.
    fn uploaded(&self, node: &NodeName, import: &StorageId) -> (Vec<Planned>, String, Option<Step>) {
        let wanted = self.draft.wanted;
        let file = self.file();
        let remove = Step::RemoveUpload { node: node.clone(), storage: import.clone(), file: file.clone() };
        let disk = format!("{}:0,import-from={import}:import/{file}", wanted.storage);
        let fetched = self.fetched();
        let upload = Step::UploadImage { fetched, node: node.clone(), storage: import.clone(), file };
        let upload = planned(format!("template/{}/upload", self.label), upload, &[]);
        (vec![undone_by(upload, remove.clone())], disk, Some(remove))
    }

    /// Over SSH, into a volume that is named for this run.
    fn written(&self, node: &NodeName, file: bool, unwritten: Unwritten) -> (Vec<Planned>, String, Option<Step>) {
        let (wanted, vmid) = (self.draft.wanted, self.choice.vm.vmid);
        let name = format!("vm-{vmid}-recast-{}", wanted.run);
        let id =
            if file { format!("{}:{vmid}/{name}.raw", wanted.storage) } else { format!("{}:{name}", wanted.storage) };
        let volume = NodeVolume { node: node.clone(), vmid, volume: VolumeId::new(&id) };
        let fetched = self.fetched();
        let allocate = Step::AllocateVolume { fetched: fetched.clone(), volume: volume.clone() };
        let allocate = planned(format!("template/{}/allocate", self.label), allocate, &[]);
        let allocate = undone_by(allocate, Step::FreeVolume { volume: volume.clone() });
        let stream = Step::StreamImage { fetched, volume, unwritten };
        let stream = planned(format!("template/{}/stream", self.label), stream, &[&allocate.id]);
        (vec![allocate, stream], id, None)
    }
}
