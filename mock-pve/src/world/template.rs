//! Templates.
//!
//! Purpose: turns a VM into a template, and a disk's volume into a base volume. Must not know: requests. Rules after
//! Proxmox VE 8.4 (PVE/API2/Qemu.pm, `template`; PVE/QemuServer.pm, `template_create`). Start at
//! [`World::make_template`].

use super::World;
use super::disks::keys_by_bus;
use super::drive;
use super::feature::Feature;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{State, VolumeKey};
use super::update::check_lock;
use super::work::{Mode, Work};

impl World {
    /// Turns a VM into a template. Says the UPID.
    pub fn make_template(&self, caller: &Caller, node: &str, vmid: u32, disk: Option<String>) -> Rule<String> {
        self.state().check_template(node, vmid, disk.as_deref())?;
        self.tell(caller, "template", Some(vmid), None);
        let at = node.to_owned();
        Ok(self.start_task(caller, node, "qmtemplate", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            world.state().check_template(&at, vmid, disk.as_deref())?;
            world.clock().sleep(0.5).await;
            let keys = {
                let mut state = world.state();
                let vm = state.vm_mut(&at, vmid)?;
                vm.config.insert("template".to_owned(), "1".to_owned());
                keys_by_bus(&vm.config)
            };
            for key in keys.into_iter().filter(|key| disk.as_ref().is_none_or(|disk| disk == key)) {
                world.make_base(&work, (&at, vmid), &key)?;
            }
            Ok(())
        }))
    }

    /// Renames a disk's volume to a base volume, where the storage knows such.
    pub(super) fn make_base(&self, work: &Work, (node, vmid): (&str, u32), key: &str) -> Rule<()> {
        let value = self.state().vm(node, vmid)?.config.get(key).cloned().unwrap_or_default();
        let value = self.base_drive(Some(work), node, &value)?;
        self.state().vm_mut(node, vmid)?.config.insert(key.to_owned(), value);
        Ok(())
    }

    /// The drive with its volume renamed to a base volume, where the storage knows such.
    pub(super) fn base_drive(&self, work: Option<&Work>, node: &str, value: &str) -> Rule<String> {
        let mut state = self.state();
        let mut options = Properties::parse(value, "file");
        if drive::is_cdrom(&options) {
            return Ok(value.to_owned());
        }
        let volid = options.get("file").unwrap_or_default().to_owned();
        if !state.has_feature(Feature::Template, &volid, None)? {
            return Ok(value.to_owned());
        }
        let Some(old) = state.volume_key(node, &volid) else { return Ok(value.to_owned()) };
        let file = old.file_name().to_owned();
        let base = file.replacen("vm-", "base-", 1);
        let name = format!("{}{base}", &old.name[..old.name.len() - file.len()]);
        let new = VolumeKey { name, ..old.clone() };
        if state.volumes.contains_key(&new) {
            // What another template stands on is not written over.
            return Err(Refusal::failed(format!("file '{}' already exists\n", state.path_of(&new))));
        }
        let (from, to) = (state.file_of(self.dir(), &old), state.file_of(self.dir(), &new));
        std::fs::rename(&from, &to).map_err(|error| Refusal::failed(format!("rename failed: {error}\n")))?;
        if let Some(mut volume) = state.volumes.remove(&old) {
            volume.ctime = self.clock().unix();
            state.volumes.insert(new.clone(), volume);
        }
        if let (Some(work), Some(group)) = (work, state.thin_group(&old.storage)) {
            for line in [
                format!("  Renamed \"{file}\" to \"{base}\" in volume group \"{group}\""),
                format!("  Logical volume {group}/{base} changed."),
                "  WARNING: Combining activation change with other commands is not advised.".to_owned(),
            ] {
                state.tasks.log(work.upid(), line);
            }
        }
        options.set("file", new.volid());
        Ok(options.print("file"))
    }
}

impl State {
    /// What stands against making a template of a VM.
    fn check_template(&self, node: &str, vmid: u32, disk: Option<&str>) -> Rule<()> {
        let vm = self.vm(node, vmid)?;
        check_lock(&vm.config)?;
        let text = if !vm.snapshots.is_empty() {
            "unable to create template, because VM contains snapshots\n"
        } else if vm.config.get("template").is_some_and(|flag| flag == "1") && disk.is_none() {
            "you can't convert a template to a template\n"
        } else if vm.running.is_some() {
            "you can't convert a VM to template if VM is running\n"
        } else {
            return Ok(());
        };
        Err(Refusal::failed(text))
    }

    /// The volume group of a thin pool.
    fn thin_group(&self, storage: &str) -> Option<String> {
        let found = self.storages.get(storage).filter(|found| found.kind == "lvmthin")?;
        Some(found.option("vgname").unwrap_or(storage).to_owned())
    }
}
