//! One drive of another.
//!
//! Purpose: a full or linked clone of a drive, for a new VM or another place. Must not know: whose request it serves.
//! Start at [`World::clone_drive`]. Rules after Proxmox VE 8.4 (PVE/QemuServer.pm, `clone_disk`;
//! PVE/Storage/*Plugin.pm, `clone_image`).

use std::collections::BTreeSet;

use super::super::World;
use super::super::disks::{Copy, CopyOf, Place, blocking, copied_format, snapshots_of};
use super::super::drive;
use super::super::make_disk::{CLOUD_INIT, TPM_STATE, efi_size};
use super::super::property::{Properties, print_size};
use super::super::qcow2;
use super::super::refusal::{Refusal, Rule};
use super::super::state::{State, Volume, VolumeKey};
use super::super::volume::{Family, parse_name};
use super::super::work::Work;

/// How a drive is cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::world) enum Way {
    /// With all its data.
    Full,
    /// On top of its source.
    Linked,
}

/// A drive that is to be cloned.
#[derive(Clone, Copy, Debug)]
pub(in crate::world) struct DriveClone<'a> {
    /// Where.
    pub node: &'a str,
    /// The VM that has it.
    pub source: u32,
    /// Its key there.
    pub key: &'a str,
    /// Its value there.
    pub value: &'a str,
    /// The snapshot of it, if not its present state.
    pub snapshot: Option<&'a str>,
    /// The VM that gets the clone.
    pub owner: u32,
    /// The clone's storage, if not the source's.
    pub storage: Option<&'a str>,
    /// The clone's format, if not the source's.
    pub format: Option<&'a str>,
    /// With or without its data.
    pub way: Way,
}

impl World {
    /// Clones a drive. Says the volume, and the value that has it.
    pub(in crate::world) async fn clone_drive(&self, work: &Work, ask: &DriveClone<'_>) -> Rule<(VolumeKey, String)> {
        let DriveClone { node, key, .. } = *ask;
        let mut options = Properties::parse(ask.value, "file");
        let volid = options.get("file").unwrap_or_default().to_owned();
        let unused = drive::is_unused(key);
        let runs = self.pid_of(ask.source).is_some();
        let live = ask.way == Way::Full && runs && ask.snapshot.is_none() && !unused;
        if live && key == "tpmstate0" {
            return Err(Refusal::failed("cannot move TPM state while VM is running\n"));
        }
        let Some(source) = self.state().volume_key(node, &volid) else {
            return Err(Refusal::failed(format!("unable to parse volume ID '{volid}'\n")));
        };
        let made = if ask.way == Way::Linked {
            work.log(format!("create linked clone of drive {key} ({volid})"));
            self.link(work, node, (&source, ask.snapshot), ask.owner).await?
        } else if drive::is_cloudinit(&volid) {
            work.log(format!("create full clone of drive {key} ({volid})"));
            self.another_cloudinit(work, &source, ask)?
        } else {
            let label = format!("drive {key} ");
            let copy = Copy {
                from: CopyOf::Volume(&source),
                snapshot: ask.snapshot,
                format: if key == "tpmstate0" { Some("raw") } else { ask.format },
                label: Some(&label),
                blame: "",
                size: match key {
                    "efidisk0" => Some(efi_size(options.get("efitype"))),
                    "tpmstate0" => Some(TPM_STATE),
                    _ => None,
                },
                live: live.then_some(key),
            };
            let storage = ask.storage.unwrap_or(&source.storage);
            self.copy_volume(Some(work), &Place { node, storage, vmid: ask.owner }, &copy).await?
        };
        options.remove("format");
        options.set("file", made.volid());
        if !unused {
            let size = self.state().volumes.get(&made).map_or(0, |volume| volume.size);
            options.set("size", print_size(size));
        }
        Ok((made, options.print("file")))
    }

    /// An empty cloud-init drive for the new owner: it is written when the guest starts.
    fn another_cloudinit(&self, work: &Work, source: &VolumeKey, ask: &DriveClone<'_>) -> Rule<VolumeKey> {
        let storage = ask.storage.unwrap_or(&source.storage);
        let (format, files) = {
            let state = self.state();
            let found = state.storage_on(storage, ask.node)?;
            let known: Vec<String> = found.formats().into_iter().map(str::to_owned).collect();
            let own = state.storages.get(&source.storage).and_then(|storage| parse_name(storage, &source.name).ok());
            let own = own.map_or_else(|| "raw".to_owned(), |named| named.format);
            (copied_format(&known, &own, ask.format), found.family() == Family::Files)
        };
        let owner = ask.owner;
        let stem = format!("vm-{owner}-cloudinit");
        let name = if files { format!("{owner}/{stem}.{format}") } else { stem };
        let made = self.allocate(&Place { node: ask.node, storage, vmid: owner }, &format, CLOUD_INIT, Some(&name))?;
        self.log_made(Some(work), &made, &format, CLOUD_INIT);
        Ok(made)
    }

    /// A volume that begins as what another one holds, or held when the snapshot was taken.
    async fn link(
        &self,
        work: &Work,
        node: &str,
        (base, snapshot): (&VolumeKey, Option<&str>),
        vmid: u32,
    ) -> Rule<VolumeKey> {
        self.clock().sleep(1.0).await;
        let (key, from, to, size) = {
            let mut state = self.state();
            let Some(volume) = state.volumes.get(base).cloned() else {
                return Err(Refusal::failed(format!("volume '{}' does not exist\n", base.volid())));
            };
            let link = state.plan_link(node, (base, snapshot), vmid)?;
            for line in state.told_of_link((base, &volume), snapshot, &link) {
                state.tasks.log(work.upid(), line);
            }
            let mut from = state.file_of(self.dir(), base);
            // Btrfs branches off what the disk holds now, whatever snapshot is named: so does the original.
            if let Some(name) = snapshot.filter(|_| link.kind != "btrfs") {
                from = snapshots_of(&from).join(name);
            }
            let size = if snapshot.is_some() { file_size(&from)? } else { volume.size };
            state.volumes.insert(
                link.key.clone(),
                Volume {
                    content: "images".to_owned(),
                    format: link.format.to_owned(),
                    size,
                    vmid: Some(vmid),
                    parent: link.parent,
                    ctime: self.clock().unix(),
                    notes: None,
                    protected: false,
                    snapshots: BTreeSet::new(),
                },
            );
            let to = state.file_of(self.dir(), &link.key);
            (link.key, from, to, size)
        };
        let copied = work.program(None, blocking(move || qcow2::sparse_copy(&from, &to, size))).await;
        if let Err(error) = copied.unwrap_or_else(|words| Err(std::io::Error::other(words))) {
            // What is there so far goes; what failed is the copy.
            let _ = self.free(&key);
            return Err(Refusal::failed(format!("{error}\n")));
        }
        Ok(key)
    }
}

fn file_size(path: &std::path::Path) -> Rule<u64> {
    let meta = std::fs::metadata(path).map_err(|error| Refusal::failed(format!("{error}\n")))?;
    Ok(meta.len())
}

/// A linked clone that is to be made.
struct Link {
    key: VolumeKey,
    kind: String,
    family: Family,
    format: &'static str,
    /// The base's own name, where the clone's name says it.
    parent: Option<String>,
    /// The base's own name, without what it is itself a clone of.
    own: String,
}

impl State {
    fn plan_link(&self, node: &str, (base, snapshot): (&VolumeKey, Option<&str>), vmid: u32) -> Rule<Link> {
        let storage = self.storage_on(&base.storage, node)?;
        let (kind, family) = (storage.kind.clone(), storage.family());
        let files = family == Family::Files;
        let format = if files && kind != "btrfs" { "qcow2" } else { "raw" };
        let name = self.free_name(node, &base.storage, vmid, format);
        let parts: Vec<&str> = base.name.rsplit('/').take(if files { 2 } else { 1 }).collect();
        let own = parts.into_iter().rev().collect::<Vec<_>>().join("/");
        let parent = (storage.names_parents() && snapshot.is_none()).then(|| own.clone());
        let name = parent.as_ref().map_or_else(|| name.clone(), |parent| format!("{parent}/{name}"));
        Ok(Link { key: self.key_on(node, &base.storage, &name), kind, family, format, parent, own })
    }

    /// What the programs that make a linked clone print.
    fn told_of_link(&self, (base, volume): (&VolumeKey, &Volume), snapshot: Option<&str>, link: &Link) -> Vec<String> {
        let (short, own) = (link.key.file_name(), &link.own);
        match (link.family, link.kind.as_str()) {
            (_, "btrfs" | "zfspool" | "zfs") => Vec::new(),
            (_, "rbd") => {
                let snapshot = snapshot.unwrap_or("__base__");
                vec![format!("clone {}: {own} snapname {snapshot} to {short}", base.name)]
            }
            (Family::Files, _) => {
                let vmid = volume_owner(&link.key);
                vec![
                    format!("clone {}: images, {short}, {vmid} to {short} (base=../{own})", base.name),
                    format!(
                        "Formatting '{}', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size={} \
                         backing_file=../{own} backing_fmt={} lazy_refcounts=off refcount_bits=16",
                        self.path_of(&link.key),
                        volume.size,
                        volume.format
                    ),
                ]
            }
            _ => vec![format!("  Logical volume \"{short}\" created.")],
        }
    }
}

/// The folder that a file's volume is in.
fn volume_owner(key: &VolumeKey) -> &str {
    key.name.rsplit('/').nth(1).unwrap_or_default()
}
