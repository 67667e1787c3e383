//! `N/storage/{storage}/upload`.

use std::path::PathBuf;
use std::time::Duration;

use super::arrival::{blocking, check_name, checksum, register};
use super::images::{tar_members, verify};
use crate::pve::call::{Call, Result};
use crate::pve::multipart::{Upload, target_name};
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::VolumeKey;
use crate::world::volume::{Family, parse_name};
use crate::world::work::Work;

/// A file that waits to become a volume.
#[derive(Clone)]
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

    /// What is said before the file goes where it belongs.
    fn going_to(&self, to: &str) -> [String; 4] {
        [
            format!("target node: {}", self.named),
            format!("target file: {to}"),
            format!("file size is: {}", self.size),
            format!("command: {}", self.command(to)),
        ]
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
    let result = take(call, upload);
    if result.is_err() {
        // A refused file is of no use to anybody.
        let _ = std::fs::remove_file(&upload.path);
    }
    result
}

fn take(call: &Call, upload: &Upload) -> Result {
    let (node, id, content) = (call.node(), call.text("storage").to_owned(), call.text("content").to_owned());
    let name = target_name(call.text("filename"));
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
        file: upload.path.clone(),
        shown: call.params.owned("tmpfilename").unwrap_or_default(),
        size: upload.size,
        checksum: call.params.owned("checksum-algorithm").zip(call.params.owned("checksum")),
        named: call.text("node").to_owned(),
        target: node,
        remote,
    };
    // Nobody passes an upload on: the node that was asked does the work.
    let (of, to) = (arrived.clone(), key.clone());
    let upid = call.world.start_task(&call.caller, &call.local, "imgcopy", "", |work| async move {
        let result = import(&work, &to, &of).await;
        // The file was moved, or it is of no use any more.
        let _ = std::fs::remove_file(&of.file);
        result
    });
    if upload.again {
        let first = upid.clone();
        call.world.start_task(&call.caller, &call.local, "imgcopy", "", |work| async move {
            work.world().task_end(&first, Duration::from_hours(1)).await;
            Err(import_again(&work, &key, &arrived))
        });
    }
    Ok(upid.into())
}

/// The same again, when the file is gone: what was made of it goes, too.
fn import_again(work: &Work, key: &VolumeKey, arrived: &Arrived) -> Refusal {
    let mut state = work.world().state();
    let shown = state.path_of(key);
    state.tasks.log(work.upid(), format!("starting file import from: {}", arrived.shown));
    for line in arrived.going_to(&shown) {
        state.tasks.log(work.upid(), line);
    }
    if state.volumes.remove(key).is_some() {
        // Nobody knows of it any more.
        let _ = std::fs::remove_file(state.file_of(work.world().dir(), key));
    }
    Refusal::failed(format!("import failed: cp: cannot stat '{}': No such file or directory\n", arrived.shown))
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
        (state.file_of(world.dir(), key), state.path_of(key))
    };
    verify(work, key, &arrived.file, &arrived.shown).await?;
    if key.name.starts_with("import/") && key.name.ends_with(".ova") {
        check_bundle(work, arrived).await?;
    }
    for line in arrived.going_to(&shown) {
        work.log(line);
    }
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
