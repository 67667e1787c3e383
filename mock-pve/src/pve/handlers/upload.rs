//! `N/storage/{storage}/upload`.

use std::path::{Path, PathBuf};

use super::arrival::{blocking, check_name, checksum, register};
use super::images::{tar_members, verify};
use crate::pve::call::{Call, Result};
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::VolumeKey;
use crate::world::volume::{Family, parse_name, shown_path};
use crate::world::work::Work;

/// A file that waits to become a volume.
struct Arrived {
    file: PathBuf,
    shown: String,
    size: u64,
    checksum: Option<(String, String)>,
    /// The node as the request names it.
    named: String,
    /// The node that it is for.
    target: String,
    /// Where that is, seen from the node that it came to; none: they are the same.
    remote: Option<String>,
}

impl Arrived {
    /// How the node that got a file brings it where it belongs (pve-storage 8, PVE/API2/Storage/Status.pm; pve-cluster 8,
    /// PVE/SSHInfo.pm).
    fn command(&self, to: &str) -> String {
        let (from, node) = (&self.shown, &self.target);
        match &self.remote {
            None => format!("cp -- {from} {to}"),
            Some(ip) => format!(
                "/usr/bin/scp -o BatchMode=yes -o HostKeyAlias={node} -o \
                 UserKnownHostsFile=/etc/pve/nodes/{node}/ssh_known_hosts -o GlobalKnownHostsFile=none -p -- {from} \
                 [{ip}]:{to}"
            ),
        }
    }

    fn no_room(&self, to: &str) -> String {
        match &self.remote {
            None => format!("import failed: cp: error writing '{to}': No space left on device\n"),
            Some(_) => format!("import failed: scp: write remote \"{to}\": Failure\n"),
        }
    }
}

/// `POST N/storage/{storage}/upload`
pub(in crate::pve) fn upload(call: &Call) -> Result {
    let Some(upload) = &call.upload else {
        return Err(Refusal::param("tmpfilename", "property is missing and it is not optional"));
    };
    let result = take(call, &upload.path, upload.size);
    if result.is_err() {
        // A refused file is of no use to anybody.
        let _ = std::fs::remove_file(&upload.path);
    }
    result
}

fn take(call: &Call, file: &Path, size: u64) -> Result {
    let (node, id, content) = (call.node(), call.text("storage").to_owned(), call.text("content").to_owned());
    let name = super::super::multipart::target_name(call.text("filename"));
    let (key, remote) = {
        let state = call.world.state();
        let storage = state.storage_on(&id, &node)?;
        if storage.family() != Family::Files {
            return Err(Refusal::failed(format!("can't upload to storage type '{}'\n", storage.kind)));
        }
        check_name(&content, &name)?;
        if !storage.holds(&content) {
            return Err(Refusal::failed(format!("storage '{id}' does not support '{content}' content\n")));
        }
        let name = format!("{content}/{name}");
        parse_name(storage, &name).map_err(Refusal::Failed)?;
        let remote = state.nodes.get(&node).filter(|_| node != call.local).map(|node| node.ip.clone());
        (state.key_on(&node, &id, &name), remote)
    };
    let arrived = Arrived {
        file: file.to_owned(),
        shown: call.params.owned("tmpfilename").unwrap_or_default(),
        size,
        checksum: call.params.owned("checksum-algorithm").zip(call.params.owned("checksum")),
        named: call.text("node").to_owned(),
        target: node,
        remote,
    };
    // Nobody passes an upload on: the node that was asked does the work.
    let upid = call.world.start_task(&call.caller, &call.local, "imgcopy", "", |work| async move {
        let result = import(&work, &key, &arrived).await;
        // The file was moved, or it is of no use any more.
        let _ = std::fs::remove_file(&arrived.file);
        result
    });
    Ok(upid.into())
}

async fn import(work: &Work, key: &VolumeKey, arrived: &Arrived) -> Rule<()> {
    let world = work.world().clone();
    work.log(format!("starting file import from: {}", arrived.shown));
    if let Some((algorithm, wanted)) = &arrived.checksum {
        work.log("calculating checksum...");
        let (file, name) = (arrived.file.clone(), algorithm.clone());
        let got = blocking(move || checksum(&name, &file)).await?;
        if !got.eq_ignore_ascii_case(wanted) {
            return Err(Refusal::failed(format!("checksum mismatch: got '{got}' != expect '{wanted}'")));
        }
        world.state().tasks.amend(work.upid(), "OK, checksum verified");
    }
    let (target, shown) = {
        let state = world.state();
        let shown = state
            .storages
            .get(&key.storage)
            .and_then(|storage| Some(shown_path(&key.storage, storage, &parse_name(storage, &key.name).ok()?)));
        (state.file_of(world.dir(), key), shown.unwrap_or_default())
    };
    verify(work, key, &arrived.file, &arrived.shown).await?;
    if key.name.starts_with("import/") && key.name.ends_with(".ova") {
        check_bundle(work, arrived).await?;
    }
    work.log(format!("target node: {}", arrived.named));
    work.log(format!("target file: {shown}"));
    work.log(format!("file size is: {}", arrived.size));
    work.log(format!("command: {}", arrived.command(&shown)));
    if arrived.size > world.available(&arrived.target, &key.storage) {
        return Err(Refusal::failed(arrived.no_room(&shown)));
    }
    world.clock().sleep(0.3).await;
    let from = arrived.file.clone();
    blocking(move || {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::rename(&from, &target)
    })
    .await?;
    register(&world, key, arrived.size)?;
    work.log("finished file import successfully");
    Ok(())
}

/// Refuses a bundle without a description of what is in it.
async fn check_bundle(work: &Work, arrived: &Arrived) -> Rule<()> {
    let file = arrived.file.clone();
    let Some(members) = blocking(move || tar_members(&file)).await? else {
        work.log("tar: This does not look like a tar archive");
        if arrived.size > 512 {
            work.log("tar: Skipping to next header");
        }
        work.log("tar: Exiting with failure status due to previous errors");
        return Err(Refusal::failed(format!("command 'tar -t -f {}' failed: exit code 2\n", arrived.shown)));
    };
    if members.iter().any(|name| name.ends_with(".ovf")) {
        Ok(())
    } else {
        Err(Refusal::failed("ova archive has no .ovf file inside\n"))
    }
}
