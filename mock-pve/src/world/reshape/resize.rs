//! Disks that grow.
//!
//! Purpose: the new size of a disk, its volume's and its config's. Must not know: requests. Start at
//! [`World::resize_disk`].

use super::super::World;
use super::super::config::digest;
use super::super::drive;
use super::super::lifecycle::Lock;
use super::super::property::{Properties, parse_size, print_size};
use super::super::refusal::{Refusal, Rule};
use super::super::rights::Caller;
use super::super::state::{State, Switch, Volume, VolumeKey};
use super::super::volume::{Family, parse_name};
use super::super::work::Mode;

/// A disk that is to grow.
#[derive(Clone, Debug, Default)]
pub struct Resize {
    /// The disk's key.
    pub disk: String,
    /// The new size, or `+` and how much more.
    pub size: String,
    /// Only if the config is still that one.
    pub digest: Option<String>,
    /// What becomes of the config's lock.
    pub lock: Lock,
}

impl World {
    /// Grows a disk. Says the UPID; all refusals are the task's.
    pub fn resize_disk(&self, caller: &Caller, node: &str, vmid: u32, ask: Resize) -> String {
        let Resize { disk, size, digest: wanted, lock } = ask;
        let (at, who) = (node.to_owned(), caller.clone());
        self.start_task(caller, node, "resize", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = work.flock(vmid, Mode::Exclusive, 10.0).await?;
            let mut state = world.state();
            let vm = state.vm(&at, vmid)?;
            if wanted.is_some_and(|wanted| wanted != digest(vm)) {
                return Err(Refusal::failed("checksum mismatch (file change by other user?)\n"));
            }
            lock.check(&vm.config)?;
            let power = vm.switch();
            let Some(value) = vm.config.get(&disk).cloned() else {
                return Err(Refusal::failed(format!("disk '{disk}' does not exist\n")));
            };
            let mut options = Properties::parse(&value, "file");
            let volid = options.get("file").unwrap_or_default().to_owned();
            let Some((storage, name)) = VolumeKey::split(&volid) else {
                return Err(Refusal::failed(format!("unable to parse volume ID '{volid}'\n")));
            };
            if drive::is_cdrom(&options) {
                return Err(Refusal::failed("you can't resize a cdrom\n"));
            }
            state.check(&who, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
            state.storage_on(storage, &at)?;
            let key = state.key_on(&at, storage, name);
            let Some(volume) = state.volumes.get(&key).cloned() else {
                return Err(Refusal::failed(format!("volume '{volid}' does not exist\n")));
            };
            let new = match size.strip_prefix('+') {
                Some(more) => volume.size.saturating_add(parse_size(more).unwrap_or(0)),
                None => parse_size(&size).unwrap_or(0),
            };
            if new < volume.size {
                return Err(Refusal::failed("shrinking disks is not supported\n"));
            }
            if new == volume.size {
                return Ok(());
            }
            let whole = state.storage_on(storage, &at)?.rounded(new);
            let told = state.check_growth((&key, &volume), new, power)?;
            if power == Switch::Off && state.is_sealed(&key) {
                let (path, format) = (state.path_of(&key), &volume.format);
                let why = format!("Could not open '{path}'");
                state.tasks.log(work.upid(), format!("qemu-img: {why}: {why}: Operation not permitted"));
                let command = format!("/usr/bin/qemu-img resize -f {format} {path} {new}");
                return Err(Refusal::failed(format!("command '{command}' failed: exit code 1\n")));
            }
            let path = state.file_of(world.dir(), &key);
            std::fs::OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|file| file.set_len(whole))
                .map_err(|error| Refusal::failed(format!("resize failed: {error}\n")))?;
            for line in told {
                state.tasks.log(work.upid(), line);
            }
            if let Some(volume) = state.volumes.get_mut(&key) {
                volume.size = whole;
            }
            options.set("size", print_size(new));
            state.vm_mut(&at, vmid)?.config.insert(disk, options.print("file"));
            Ok(())
        })
    }
}

impl State {
    /// Whether nobody may write to a volume: the file of a template's disk.
    fn is_sealed(&self, key: &VolumeKey) -> bool {
        let storage = self.storages.get(&key.storage).filter(|storage| storage.family() == Family::Files);
        storage.is_some_and(|storage| parse_name(storage, &key.name).is_ok_and(|named| named.base))
    }

    /// What stands against a new size of a volume, else what the program that gives it that size prints. A guest that
    /// runs is asked itself where volumes are files.
    fn check_growth(&self, (key, volume): (&VolumeKey, &Volume), new: u64, power: Switch) -> Rule<Vec<String>> {
        let Some(storage) = self.storages.get(&key.storage) else { return Ok(Vec::new()) };
        if storage.family() == Family::Files {
            if volume.format == "vmdk" {
                return Err(Refusal::failed("can't resize this image format\n"));
            }
            if power == Switch::On {
                return Ok(Vec::new());
            }
            return Ok(vec!["Image resized.".to_owned()]);
        }
        if !matches!(storage.kind.as_str(), "lvm" | "lvmthin") {
            return Ok(Vec::new());
        }
        let name = format!("{}/{}", storage.option("vgname").unwrap_or(&key.storage), key.name);
        let extents = |bytes: u64| format!("{} ({} extents)", lvm_size(bytes), bytes >> 22);
        let (old, whole) = (extents(volume.size), extents(storage.rounded(new)));
        Ok(vec![
            format!("  Size of logical volume {name} changed from {old} to {whole}."),
            format!("  Logical volume {name} successfully resized."),
        ])
    }
}

/// A size as LVM prints it.
fn lvm_size(bytes: u64) -> String {
    let (shift, unit) = match bytes {
        ..0x4000_0000 => (20, "MiB"),
        0x4000_0000..0x100_0000_0000 => (30, "GiB"),
        _ => (40, "TiB"),
    };
    let hundredths = (u128::from(bytes) * 100) >> shift;
    format!("{}.{:02} {unit}", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use super::lvm_size;

    #[test]
    fn sizes_are_printed_with_two_decimals() {
        assert_eq!(lvm_size(4 << 20), "4.00 MiB");
        assert_eq!(lvm_size(3 << 29), "1.50 GiB");
        assert_eq!(lvm_size(2 << 40), "2.00 TiB");
    }
}
