//! The templates that recast made, on every node that is up.
//!
//! Must not know: profiles; a template belongs to whoever needs it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::plan::provenance;
use crate::pve::vm::VmRef;
use crate::pve::{Pve, PveError, VmConfig};
use crate::types::{NodeName, VmId, VolumeId};

/// A template that some run of recast made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Template {
    /// Where it lives.
    pub node: NodeName,
    /// Its number.
    pub vmid: VmId,
    /// Its name.
    pub name: String,
    /// Talos version in it.
    pub talos: String,
    /// Schematic that it was made from.
    pub schematic: String,
    /// The cluster whose run made it.
    pub cluster: String,
    /// That run.
    pub run: String,
    /// Whether a canary cloned from it was found right. Only such a template is used by later runs.
    pub proved: bool,
    /// Unix seconds of its creation, where PVE tells.
    pub created: Option<u64>,
    /// Size of its system disk in bytes, where PVE tells.
    pub bytes: Option<u64>,
    /// VMs whose disks stand on its own. None where the storage keeps no record (LVM-thin, btrfs).
    pub linked_clones: Option<usize>,
    /// The system extensions in it, where somebody asked the factory.
    pub extensions: Option<Vec<String>>,
}

/// All of them, by node and number.
pub async fn templates(pve: &Pve) -> Result<Vec<Template>, PveError> {
    let mut found = Vec::new();
    for node in pve.nodes().await? {
        if !node.is_online() {
            continue;
        }
        let kinds: BTreeMap<String, String> = pve
            .node_storages(&node.node)
            .await?
            .into_iter()
            .map(|storage| (storage.storage.to_string(), storage.kind))
            .collect();
        for vm in pve.vms(&node.node).await?.into_iter().filter(|vm| vm.template) {
            let at = VmRef::new(node.node.clone(), vm.vmid);
            let config = match pve.vm_config(&at).await {
                Ok(config) => config,
                Err(error) if error.is_missing_vm(vm.vmid) => continue,
                Err(error) => return Err(error),
            };
            let Some(template) = of(&at, &config) else { continue };
            let linked_clones = linked_clones(pve, &at, &config, &kinds).await?;
            found.push(Template { linked_clones, ..template });
        }
    }
    found.sort_by(|one, other| (&one.node, one.vmid).cmp(&(&other.node, other.vmid)));
    Ok(found)
}

/// What a template's configuration says of its making; none for one that recast didn't make.
fn of(at: &VmRef, config: &VmConfig) -> Option<Template> {
    let mark = provenance::find_mark(config.description())?;
    let line = provenance::find_template_line(config.description())?;
    let field = |line: &str, name: &str| provenance::field(line, name).unwrap_or_default().to_owned();
    Some(Template {
        node: at.node.clone(),
        vmid: at.vmid,
        name: config.name().unwrap_or_default().to_owned(),
        talos: field(line, "talos"),
        schematic: field(line, "schematic"),
        cluster: field(mark, "cluster"),
        run: field(mark, "run"),
        proved: provenance::is_proved(config.description()),
        created: config.created(),
        bytes: config.drives().get("scsi0").and_then(crate::pve::Disk::size),
        linked_clones: None,
        extensions: None,
    })
}

/// Counts the guests that have a disk whose parent is one of the template's.
async fn linked_clones(
    pve: &Pve,
    at: &VmRef,
    config: &VmConfig,
    kinds: &BTreeMap<String, String>,
) -> Result<Option<usize>, PveError> {
    let mut clones = std::collections::BTreeSet::new();
    for volume in config.volumes().values() {
        let Some((storage, base)) = volume.as_str().split_once(':') else { continue };
        match kinds.get(storage).map(String::as_str) {
            // A full copy is all that thick LVM can make.
            Some("lvm") => continue,
            // They keep no parent in the names (PVE/Storage.pm, `volume_is_base_and_used`).
            Some("lvmthin" | "btrfs") | None => return Ok(None),
            Some(_) => {}
        }
        let stands_on_it = |other: &VolumeId| {
            other.as_str().split_once(':').is_some_and(|(_, name)| name.starts_with(&format!("{base}/")))
        };
        for other in pve.volumes(&at.node, &storage.into(), Some("images"), None).await? {
            if stands_on_it(&other.volid) || other.parent.as_deref() == Some(base) {
                clones.extend(other.vmid());
            }
        }
    }
    Ok(Some(clones.len()))
}
