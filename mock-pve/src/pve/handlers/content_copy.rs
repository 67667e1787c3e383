//! `POST N/storage/{storage}/content/{volume}`: a volume copied to another name.
//!
//! The original sends it through a shell to the target node (libpve-storage 8, PVE/API2/Storage/Content.pm, `copy`, and
//! PVE/Storage.pm, `storage_migrate`): what isn't raw can't arrive.

use super::arrival::blocking;
use crate::pve::call::{Call, Result};
use crate::pve::formats::check_format;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::Volume;
use crate::world::volume::parse_name;
use crate::world::work::Work;
use crate::world::{World, qcow2};

/// The name that a parameter means on the storage in the path.
fn named(call: &Call, parameter: &str) -> Rule<String> {
    let (id, given) = (call.text("storage"), call.text(parameter));
    match given.split_once(':') {
        None => Ok(given.to_owned()),
        Some((storage, name)) if name.is_empty() || check_format("pve-storage-id", storage).is_err() => {
            Err(Refusal::param("volume", format!("unable to parse volume ID '{given}'\n")))
        }
        Some((storage, _)) if storage != id => {
            Err(Refusal::param("volume", format!("storage ID mismatch ({storage} != {id})\n")))
        }
        Some((_, name)) => Ok(name.to_owned()),
    }
}

/// A copy that is to be made.
struct Copy {
    node: String,
    storage: String,
    from: String,
    to: String,
}

/// `POST N/storage/{storage}/content/{volume}`
pub(in crate::pve) fn copy(call: &Call) -> Result {
    let copy = Copy {
        node: call.node(),
        storage: call.text("storage").to_owned(),
        from: named(call, "volume")?,
        to: named(call, "target")?,
    };
    let upid = call.world.start_task(&call.caller, &call.node(), "imgcopy", "", |work| async move {
        work.log(format!("DEBUG: starting worker {}", work.upid()));
        let world = work.world().clone();
        run(&world, &work, &copy).await?;
        work.log(format!("DEBUG: end worker {}", work.upid()));
        Ok(())
    });
    Ok(upid.into())
}

async fn run(world: &World, work: &Work, copy: &Copy) -> Rule<()> {
    let Copy { node, storage: id, from, to } = copy;
    let (source, target, volume, shown) = {
        let mut state = world.state();
        let storage =
            state.storages.get(id).ok_or_else(|| Refusal::failed(format!("storage '{id}' does not exist\n")))?;
        if storage.shared() {
            return Ok(());
        }
        let parse = |name: &str| parse_name(storage, name).map_err(Refusal::Failed);
        let (one, other) = (parse(from)?, parse(to)?);
        if (one.format == "subvol") != (other.format == "subvol") {
            let text = format!("cannot migrate from storage type '{0}' to '{0}'\n", storage.kind);
            return Err(Refusal::failed(text));
        }
        let (source, target) = (state.key_on(node, id, from), state.key_on(node, id, to));
        let ip = state.nodes.get(node).map_or("", |node| node.ip.as_str());
        let failed = format!(
            "command 'set -o pipefail && pvesm export {id}:{from} raw+size - -with-snapshots 0 | /usr/bin/ssh -e none \
             -o 'BatchMode=yes' -o 'HostKeyAlias={node}' root@{ip} -- pvesm import {id}:{to} raw+size - \
             -with-snapshots 0' failed: exit code 255\n"
        );
        if other.format != "raw" {
            state
                .tasks
                .log(work.upid(), format!("cannot import format raw+size into a file of format {}", other.format));
            return Err(Refusal::failed(failed));
        }
        let shown = state.path_of(&target);
        if state.volumes.contains_key(&target) {
            state.tasks.log(work.upid(), format!("file '{shown}' already exists"));
            return Err(Refusal::failed(failed));
        }
        let Some(volume) = state.volumes.get(&source).cloned() else {
            let path = state.path_of(&source);
            state.tasks.log(work.upid(), format!("failed to stat '{path}'"));
            return Err(Refusal::failed(failed));
        };
        let made =
            Volume { format: other.format, vmid: other.vmid, parent: None, ctime: world.clock().unix(), ..volume };
        (state.file_of(world.dir(), &source), target, made, shown)
    };
    let (file, size) = (world.state().file_of(world.dir(), &target), volume.size);
    work.log(format!("Formatting '{shown}', fmt=raw size={size} preallocation=off"));
    blocking(move || {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        if qcow2::info(&source)?.format == "qcow2" {
            return qcow2::convert(&source, &file).map(|_| ());
        }
        qcow2::sparse_copy(&source, &file, size)
    })
    .await?;
    let volid = target.volid();
    world.state().volumes.insert(target, volume);
    work.log(format!("successfully imported '{volid}'"));
    Ok(())
}
