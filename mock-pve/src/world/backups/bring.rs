//! The disks and the config of a restored VM.

use std::collections::BTreeMap;

use super::conf;
use super::restore::NewRestore;
use super::source::{Source, apart, config_text, pour};
use crate::vma::{Header, VmaError};
use crate::world::World;
use crate::world::config::{keep_as_unused, volid};
use crate::world::disks::{Place, drive_keys, snapshots_of};
use crate::world::drive;
use crate::world::firewall;
use crate::world::keys::{normal_nic, stored};
use crate::world::plan_disk::parse_drive;
use crate::world::property::print_size;
use crate::world::refusal::Rule;
use crate::world::script::Takes;
use crate::world::state::{Config, State, Storage, VolumeKey};
use crate::world::update::is_net;
use crate::world::volume::Family;
use crate::world::work::Work;

/// A disk that comes out of an archive.
#[derive(Clone, Debug)]
pub(super) struct Coming {
    /// `scsi0`.
    pub key: String,
    /// The device in the archive; none for a cloud-init drive, which is made anew.
    pub device: Option<u8>,
    /// `drive-scsi0`.
    pub name: String,
    /// Where it goes.
    pub storage: String,
    /// `raw`.
    pub format: String,
    /// Bytes.
    pub size: u64,
}

impl World {
    /// Frees what the archive brings anew; other disks stay. What is left of the config has no lock.
    pub(super) fn clear_old(&self, work: &Work, node: &str, vmid: u32, coming: &[Coming]) -> Rule<()> {
        let stub = Config::from([("memory".to_owned(), "128".to_owned())]);
        let old = {
            let mut state = self.state();
            let vm = state.vm_mut(node, vmid)?;
            let old = vm.clone();
            vm.config = stub;
            vm.pending.clear();
            vm.pending_delete.clear();
            vm.cloudinit.clear();
            vm.snapshots.clear();
            old
        };
        for key in drive_keys(&old.config) {
            let value = &old.config[&key];
            if coming.iter().any(|coming| coming.key == key) {
                if let Err(refusal) = self.free_drive(node, vmid, value) {
                    work.log(refusal.text());
                }
                continue;
            }
            let mut state = self.state();
            let kept = volid(value).and_then(|volid| state.volume_key(node, &volid));
            let Some(kept) = kept else { continue };
            let path = state.file_of(self.dir(), &kept);
            if let Some(volume) = state.volumes.get_mut(&kept).filter(|volume| volume.vmid == Some(vmid)) {
                volume.snapshots.clear();
                // Without a snapshot there is no folder.
                let _ = std::fs::remove_dir_all(snapshots_of(&path));
            }
        }
        for memory in old.snapshots.values().filter_map(|snapshot| snapshot.get("vmstate")) {
            if let Err(refusal) = self.free_drive(node, vmid, memory) {
                work.log(refusal.text());
            }
        }
        Ok(())
    }

    /// Makes the volumes; those that were made are told even where one could not be.
    pub(super) fn make_room(
        &self,
        work: &Work,
        (node, vmid): (&str, u32),
        coming: &[Coming],
        made: &mut BTreeMap<String, VolumeKey>,
    ) -> Rule<()> {
        for disk in coming {
            let (files, formats) = {
                let state = self.state();
                let storage = state.storages.get(&disk.storage);
                let formats: Vec<String> = storage.into_iter().flat_map(Storage::formats).map(str::to_owned).collect();
                (storage.is_some_and(|known| known.family() == Family::Files), formats)
            };
            let default = formats.first().map_or("raw", String::as_str);
            let format = if formats.contains(&disk.format) { disk.format.as_str() } else { default };
            let name = match (disk.device, files) {
                (Some(_), _) => None,
                (None, true) => Some(format!("{vmid}/vm-{vmid}-cloudinit.{format}")),
                (None, false) => Some(format!("vm-{vmid}-cloudinit")),
            };
            let size = disk.size.checked_next_multiple_of(1024).unwrap_or(disk.size);
            let place = Place { node, storage: &disk.storage, vmid };
            let key = self.allocate(&place, format, size, name.as_deref())?;
            self.log_made(Some(work), &key, format, size);
            work.log(format!("new volume ID is '{}'", key.volid()));
            made.insert(disk.key.clone(), key);
        }
        Ok(())
    }

    pub(super) fn drop_made(&self, work: &Work, made: &BTreeMap<String, VolumeKey>) {
        for key in made.values() {
            match self.free(key) {
                Ok(()) => work.log(format!("temporary volume '{}' successfully removed", key.volid())),
                Err(refusal) => work.log(format!("unable to cleanup '{}' - {}", key.volid(), refusal.text())),
            }
        }
    }

    pub(super) async fn pour_into(
        &self,
        work: &Work,
        source: &Source,
        coming: &[Coming],
        made: &BTreeMap<String, VolumeKey>,
    ) -> Result<(), VmaError> {
        let mut targets = BTreeMap::new();
        for disk in coming {
            let (Some(device), Some(key)) = (disk.device, made.get(&disk.key)) else { continue };
            let (real, shown, thick) = {
                let state = self.state();
                let thick = state.storages.get(&disk.storage).is_some_and(|known| known.family() == Family::Thick);
                (state.file_of(self.dir(), key), state.path_of(key), thick)
            };
            work.log(format!("map '{}' to '{shown}' (write zeros = {})", disk.name, u8::from(thick)));
            targets.insert(device, real);
        }
        let sizes = coming.iter().filter(|disk| disk.device.is_some()).map(|disk| disk.size);
        let total = sizes.fold(0, u64::saturating_add);
        #[expect(clippy::cast_precision_loss, reason = "a duration")]
        let seconds = (total as f64 / 268_435_456.0).min(20.0);
        let seconds = self.clock().takes(Takes::Copy(total), seconds);
        self.clock().sleep(seconds).await;
        let from = source.clone();
        let totals = apart(move || pour(&from, &targets)).await?;
        if totals.bytes > 0 {
            let share = |part: u64| {
                let tenths = u128::from(part) * 1000 / u128::from(totals.bytes);
                format!("{}.{}", tenths / 10, tenths % 10)
            };
            work.log(format!("progress 100% (read {} bytes, duration {seconds:.0} sec)", totals.bytes));
            let sparse = share(totals.zeros);
            work.log(format!("total bytes read {}, sparse bytes {} ({sparse}%)", totals.bytes, totals.zeros));
            work.log(format!("space reduction due to 4K zero blocks {}%", share(totals.partial_zeros)));
        }
        Ok(())
    }

    pub(super) fn finish_restore(
        &self,
        work: &Work,
        new: &NewRestore,
        header: &Header,
        coming: &[Coming],
        made: &BTreeMap<String, VolumeKey>,
    ) -> Rule<()> {
        let (node, vmid) = (new.node.as_str(), new.vmid);
        let mut state = self.state();
        let volids: BTreeMap<String, String> = made.iter().map(|(key, made)| (key.clone(), made.volid())).collect();
        let mut config = conf::restored(&mut state, &config_text(header), &volids, new.identity);
        for (key, value) in &new.set {
            let value = if is_net(key) {
                let mac = state.next_mac();
                drive::print_nic(&normal_nic(value, || mac))
            } else {
                value.clone()
            };
            match stored(key, &value)? {
                Some(value) => config.insert(key.clone(), value),
                None => config.remove(key),
            };
        }
        state.tasks.log(work.upid(), "rescan volumes...");
        rescan(&mut state, work, node, vmid, &mut config);
        if let Some(rules) = header.config("qemu-server.fw") {
            let file = firewall::parse(&String::from_utf8_lossy(rules));
            state.firewalls.insert(format!("vms/{vmid}"), file);
        }
        let vm = state.vm_mut(node, vmid)?;
        vm.config = config.clone();
        if let Some(pool) = new.pool.as_ref().and_then(|pool| state.pools.get_mut(pool)) {
            pool.vms.insert(vmid);
        }
        drop(state);
        if config.get("template").is_some_and(|flag| flag == "1") {
            work.log("Convert to template.");
            for disk in coming.iter().filter(|disk| disk.device.is_some()) {
                // The data are there, whatever becomes of the template.
                if let Err(refusal) = self.make_base(work, (node, vmid), &disk.key) {
                    work.warn(&refusal.text());
                }
            }
        }
        Ok(())
    }
}

/// Sizes become those of the volumes; volumes of the VM that nothing names become unused ones.
fn rescan(state: &mut State, work: &Work, node: &str, vmid: u32, config: &mut Config) {
    let mut named = Vec::new();
    let mut lines = Vec::new();
    for key in drive_keys(config) {
        let mut options = parse_drive(&config[&key]);
        let Some(file) = options.get("file").map(str::to_owned) else { continue };
        let size = state.volume_key(node, &file).and_then(|volume| Some(state.volumes.get(&volume)?.size));
        named.push(file.clone());
        if drive::is_cdrom(&options) {
            continue;
        }
        if let Some(size) = size.map(print_size)
            && options.get("size") != Some(size.as_str())
        {
            let from = options.get("size").unwrap_or("0").to_owned();
            lines.push(format!("VM {vmid} ({key}): size of disk '{file}' updated from {from} to {size}"));
            options.set("size", size);
            config.insert(key, options.print("file"));
        }
    }
    let here = |key: &VolumeKey| key.node.is_empty() || key.node == node;
    let own = state.volumes.iter().filter(|(key, volume)| {
        volume.content == "images" && volume.vmid == Some(vmid) && here(key) && !key.name.contains("-state-")
    });
    for volid in own.map(|(key, _)| key.volid()).filter(|volid| !named.contains(volid)) {
        if let Some(key) = keep_as_unused(config, vmid, &volid) {
            lines.push(format!("VM {vmid} add unreferenced volume '{volid}' as '{key}' to config"));
        }
    }
    for line in lines {
        state.tasks.log(work.upid(), line);
    }
}
