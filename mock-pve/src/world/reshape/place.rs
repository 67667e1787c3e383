//! Disks that move to another storage or format.
//!
//! Purpose: checks a move, copies the disk, and keeps or frees what it was. Must not know: requests. Start at
//! [`World::move_disk`].

use super::super::World;
use super::super::clone::{DriveClone, Way};
use super::super::config::{digest, keep_as_unused, volid};
use super::super::drive;
use super::super::property::Properties;
use super::super::refusal::{Refusal, Rule};
use super::super::rights::Caller;
use super::super::state::{Config, State, VolumeKey};
use super::super::stop::Words;
use super::super::update::check_lock;
use super::super::work::{Mode, Work};
use super::MODIFIED;

/// A disk that moves to another storage or format.
#[derive(Clone, Debug, Default)]
pub struct Move {
    /// The disk's key.
    pub disk: String,
    /// Where to.
    pub storage: String,
    /// Into which format.
    pub format: Option<String>,
    /// Free the old volume.
    pub delete: bool,
    /// Only if the config is still that one.
    pub digest: Option<String>,
}

/// A disk that may move.
struct Moving {
    value: String,
    in_use: bool,
    template: bool,
}

impl World {
    /// Moves a disk to another storage or format. Says the UPID.
    pub fn move_disk(&self, caller: &Caller, node: &str, vmid: u32, ask: Move) -> Rule<String> {
        {
            let state = self.state();
            state.check(caller, &format!("/storage/{}", ask.storage), &["Datastore.AllocateSpace"])?;
            state.check_move(node, vmid, &ask)?;
        }
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmmove", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let moving = world.state().check_move(&at, vmid, &ask)?;
            world
                .copy_and_switch(&work, (&at, vmid), &ask, &moving)
                .await
                .map_err(|refusal| Refusal::failed(format!("storage migration failed: {}", refusal.text())))?;
            if ask.delete
                && let Err(refusal) = world.remove_drive(&work, (&at, vmid), &moving.value)
            {
                work.log(refusal.text());
            }
            Ok(())
        }))
    }

    async fn copy_and_switch(&self, work: &Work, (node, vmid): (&str, u32), ask: &Move, moving: &Moving) -> Rule<()> {
        if moving.in_use {
            work.log("moving disk with snapshots, snapshots will not be moved!");
        }
        let plugged = self.pid_of(vmid).is_some() && drive::is_drive(&ask.disk);
        let clone = DriveClone {
            node,
            source: vmid,
            key: &ask.disk,
            value: &moving.value,
            snapshot: None,
            owner: vmid,
            storage: Some(&ask.storage),
            format: ask.format.as_deref(),
            way: Way::Full,
        };
        let (_, value) = work.attempt(Words::Signal, self.clone_drive(work, &clone)).await?;
        if plugged {
            let key = &ask.disk;
            work.log(format!("drive-{key}: Completing block job..."));
            work.log(format!("drive-{key}: Completed successfully."));
            work.log(format!("drive-{key}: mirror-job finished"));
        }
        {
            let mut state = self.state();
            let vm = state.vm_mut(node, vmid)?;
            vm.config.insert(ask.disk.clone(), value);
            if !ask.delete {
                keep_as_unused(&mut vm.config, vmid, &moving.value);
            }
        }
        if moving.template {
            self.make_base(work, (node, vmid), &ask.disk)?;
        }
        Ok(())
    }
}

impl State {
    /// What stands against moving a disk.
    fn check_move(&self, node: &str, vmid: u32, ask: &Move) -> Rule<Moving> {
        let refuse = |text: String| Err(Refusal::failed(text));
        let vm = self.vm(node, vmid)?;
        check_lock(&vm.config)?;
        if ask.digest.as_ref().is_some_and(|wanted| *wanted != digest(vm)) {
            return refuse(MODIFIED.to_owned());
        }
        let Some(value) = vm.config.get(&ask.disk).cloned() else {
            return refuse(format!("disk '{}' does not exist\n", ask.disk));
        };
        let options = Properties::parse(&value, "file");
        let file = options.get("file").unwrap_or_default();
        if drive::is_cdrom(&options) && !drive::is_cloudinit(file) {
            return refuse("you can't move a cdrom\n".to_owned());
        }
        let Some((storage, name)) = VolumeKey::split(file) else {
            return refuse(format!("unable to parse volume ID '{file}'\n"));
        };
        let extension = name.rsplit_once('.').map(|(_, extension)| extension);
        let known = extension.filter(|extension| ["raw", "qcow2", "vmdk"].contains(extension));
        let same_format = ask.format.as_deref().is_none_or(|wanted| known.is_none_or(|known| known == wanted));
        if storage == ask.storage && same_format {
            return refuse("you can't move to the same storage with same format\n".to_owned());
        }
        if !self.storage_on(&ask.storage, node)?.holds("images") {
            return Err(Refusal::param("storage", format!("storage '{}' does not support vm images", ask.storage)));
        }
        let names = |key: &String, value: &String| {
            let other = Properties::parse(value, "file");
            drive::is_drive(key) && !drive::is_cdrom(&other) && volid(value).as_deref() == Some(file)
        };
        let holds = |config: &Config, but: &str| config.iter().any(|(key, value)| key != but && names(key, value));
        let in_use = holds(&vm.config, &ask.disk) || vm.snapshots.values().any(|config| holds(config, ""));
        if in_use && ask.delete {
            return refuse("you can't move a disk with snapshots and delete the source\n".to_owned());
        }
        let template = vm.config.get("template").is_some_and(|flag| flag == "1");
        Ok(Moving { value, in_use, template })
    }
}
