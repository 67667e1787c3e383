//! Clones.
//!
//! Purpose: full and linked clones, what they inherit and what stands against them. Must not know: requests. Rules after
//! Proxmox VE 8.4 (PVE/API2/Qemu.pm, `clone_vm`). Start at [`World::clone_vm`].

use std::collections::BTreeSet;

use super::World;
use super::disks::{Copy, CopyOf, Place, drive_keys};
use super::drive;
use super::keys::stored;
use super::property::{Properties, print_size};
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, Vm, Volume, VolumeKey};
use super::update::check_lock;
use super::volume::{Family, parse_name};
use super::work::{Mode, Work};

/// A clone that is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewClone {
    /// Where the source is.
    pub node: String,
    /// The source.
    pub vmid: u32,
    /// The new VM.
    pub newid: u32,
    /// Its name.
    pub name: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Its pool.
    pub pool: Option<String>,
    /// Full or linked; depends on the source when absent.
    pub full: Option<bool>,
    /// Target storage.
    pub storage: Option<String>,
    /// Target format.
    pub format: Option<String>,
    /// Clone that snapshot.
    pub snapname: Option<String>,
    /// Target node.
    pub target: Option<String>,
}

struct CheckedClone {
    config: Config,
    disks: Vec<(String, String, bool)>,
    target: String,
    pending: Vec<String>,
}

impl World {
    /// Checks a clone and starts the task. Says the UPID.
    pub fn clone_vm(&self, caller: &Caller, new: NewClone) -> Rule<String> {
        let checked = self.check_clone(caller, &new)?;
        let id = new.vmid.to_string();
        let node = new.node.clone();
        {
            let mut state = self.state();
            if state.vms.contains_key(&new.newid) {
                let file = format!("/etc/pve/nodes/{node}/qemu-server/{}.conf", new.newid);
                drop(state);
                return Ok(self.start_task(caller, &node, "qmclone", &id, |_| async move {
                    Err(Refusal::failed(format!("rename '{file}.tmp.1' to '{file}' failed: File exists\n")))
                }));
            }
            let config = Config::from([("lock".to_owned(), "clone".to_owned())]);
            state.vms.insert(new.newid, Vm { node: node.clone(), config, ..Vm::default() });
            if let Some(firewall) = state.firewalls.get(&format!("vms/{}", new.vmid)).cloned() {
                state.firewalls.insert(format!("vms/{}", new.newid), firewall);
            }
            if let Some(pool) = new.pool.as_ref().and_then(|pool| state.pools.get_mut(pool)) {
                pool.vms.insert(new.newid);
            }
        }
        Ok(self.start_task(caller, &node, "qmclone", &id, |work| async move {
            let world = work.world().clone();
            let running = world.pid_of(new.vmid).is_some();
            let mode = if running { Mode::Exclusive } else { Mode::Shared };
            let _source = work.flock(new.vmid, mode, 10.0).await?;
            let _target = work.flock(new.newid, Mode::Exclusive, 1.0).await?;
            let result = if work.is_doomed() {
                Err(Refusal::failed("interrupted\n"))
            } else {
                world.clone_work(&work, &new, &checked).await
            };
            if let Err(refusal) = result {
                let mut state = world.state();
                state.vms.remove(&new.newid);
                for pool in state.pools.values_mut() {
                    pool.vms.remove(&new.newid);
                }
                return Err(Refusal::failed(format!("clone failed: {}", refusal.text())));
            }
            Ok(())
        }))
    }

    fn check_clone(&self, caller: &Caller, new: &NewClone) -> Rule<CheckedClone> {
        let state = self.state();
        state.check_pool(caller, new.pool.as_deref())?;
        if let Some(storage) = &new.storage {
            state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
        let target = match &new.target {
            Some(target) if target == "localhost" => new.node.clone(),
            Some(target) => {
                if !state.nodes.contains_key(target) {
                    return Err(Refusal::failed(format!("no such cluster node '{target}'\n")));
                }
                target.clone()
            }
            None => new.node.clone(),
        };
        if let Some(storage) = &new.storage {
            let found = state.storage_on(storage, &new.node)?;
            let shared = found.shared();
            if !found.holds("images") {
                return Err(Refusal::param("storage", format!("storage '{storage}' does not support vm images")));
            }
            if target != new.node {
                state.storage_on(storage, &target)?;
                if !shared {
                    return Err(Refusal::failed(format!("can't clone to non-shared storage '{storage}'\n")));
                }
            }
        }
        let Some(vm) = state.vms.get(&new.vmid).filter(|vm| vm.node == new.node) else {
            return Err(Refusal::failed(format!(
                "unable to find configuration file for VM {} on node '{}'\n",
                new.vmid, new.node
            )));
        };
        check_lock(&vm.config)?;
        let template = vm.config.get("template").is_some_and(|flag| flag == "1");
        let full = new.full.unwrap_or(!template);
        if !full && new.storage.is_some() {
            return Err(Refusal::failed("parameter 'storage' not allowed for linked clones\n"));
        }
        if !full && new.format.is_some() {
            return Err(Refusal::failed("parameter 'format' not allowed for linked clones\n"));
        }
        let config = match &new.snapname {
            Some(name) => vm
                .snapshots
                .get(name)
                .cloned()
                .ok_or_else(|| Refusal::failed(format!("snapshot '{name}' does not exist\n")))?,
            None => vm.config.clone(),
        };
        check_clone_access(&state, caller, new, &config)?;
        for (_, nic) in drive::nics(&config) {
            state.check_bridge(caller, nic.get("bridge"), nic.get("tag"), nic.get("trunks"))?;
        }
        if target != new.node {
            check_shared(&state, new, &config, &target)?;
        }
        if state.vms.get(&new.newid).is_some_and(|other| other.node == new.node) {
            return Err(Refusal::failed(format!("unable to create VM {}: config file already exists\n", new.newid)));
        }
        let running = vm.running.is_some() && new.snapname.is_none();
        let disks = clone_disks(&state, new, &config, full, running)?;
        let mut pending: Vec<String> = vm.pending.keys().cloned().collect();
        if !vm.pending_delete.is_empty() {
            pending.push("delete".to_owned());
        }
        if new.snapname.is_some() {
            pending.clear();
        }
        Ok(CheckedClone { config, disks, target, pending })
    }

    async fn clone_work(&self, work: &Work, new: &NewClone, checked: &CheckedClone) -> Rule<()> {
        let mut config = checked.config.clone();
        for key in ["lock", "template", "snaptime", "parent", "snapstate", "vmstate", "runningmachine", "runningcpu"] {
            config.remove(key);
        }
        config.retain(|key, _| !drive::is_unused(key));
        let mut made = Vec::new();
        for (key, value, full) in &checked.disks {
            match self.clone_disk(work, new, key, value, *full).await {
                Ok(value) => {
                    made.push(value.clone());
                    config.insert(key.clone(), value);
                }
                Err(refusal) => {
                    for value in made {
                        // What can't be freed stays, as in the original.
                        let _ = self.free_drive(&new.node, new.newid, &value);
                    }
                    return Err(refusal);
                }
            }
        }
        if new.snapname.is_none() && self.pid_of(new.vmid).is_some() {
            let live = checked.disks.iter().filter(|(_, value, full)| *full && !drive::is_cloudinit(value));
            let keys: Vec<String> = live.map(|(key, _, _)| key.clone()).collect();
            if !keys.is_empty() {
                self.part_from(work, new.vmid, &keys);
            }
        }
        if !checked.pending.is_empty() {
            work.log(format!("found pending changes for '{}', discarding for clone", checked.pending.join(",")));
        }
        let mut state = self.state();
        let nics: Vec<(String, Properties)> = drive::nics(&config);
        for (key, mut nic) in nics {
            nic.set("macaddr", state.next_mac());
            config.insert(key, drive::print_nic(&nic));
        }
        let uuid = state.rng.uuid();
        let mut smbios = Properties::parse(config.get("smbios1").map_or("", String::as_str), "uuid");
        smbios.set("uuid", uuid);
        config.insert("smbios1".to_owned(), smbios.print(""));
        if config.contains_key("vmgenid") {
            let genid = state.rng.uuid();
            config.insert("vmgenid".to_owned(), genid);
        }
        let name = new.name.clone().unwrap_or_else(|| {
            format!("Copy-of-VM-{}", config.get("name").cloned().unwrap_or_else(|| new.vmid.to_string()))
        });
        config.insert("name".to_owned(), name);
        if let Some(description) = new.description.as_ref().filter(|text| !text.is_empty()) {
            config.remove("description");
            if let Some(text) = stored("description", description) {
                config.insert("description".to_owned(), text);
            }
        }
        if let Some(vm) = state.vms.get_mut(&new.newid) {
            vm.config = config;
            vm.node.clone_from(&checked.target);
        }
        Ok(())
    }

    async fn clone_disk(&self, work: &Work, new: &NewClone, key: &str, value: &str, full: bool) -> Rule<String> {
        let mut options = Properties::parse(value, "file");
        let volid = options.get("file").unwrap_or_default().to_owned();
        let Some(source) = self.state().volume_key(&new.node, &volid) else { return Ok(value.to_owned()) };
        let made = if full {
            let storage = new.storage.clone().unwrap_or_else(|| source.storage.clone());
            let place = Place { node: &new.node, storage: &storage, vmid: new.newid };
            if drive::is_cloudinit(&volid) {
                let raw = source.name.rsplit_once('.').is_some_and(|(_, extension)| extension == "raw");
                let extension = if raw { ".raw" } else { ".qcow2" };
                let files = self.state().storages.get(&storage).is_some_and(|found| found.family() == Family::Files);
                let stem = format!("vm-{}-cloudinit", new.newid);
                let name = if files { format!("{}/{stem}{extension}", new.newid) } else { stem };
                let format = if files { &extension[1..] } else { "raw" };
                work.log(format!("create full clone of drive {key} ({volid})"));
                self.allocate(&place, format, 4 << 20, Some(&name))?
            } else {
                let label = format!("drive {key} ");
                let live = (new.snapname.is_none() && self.pid_of(new.vmid).is_some()).then_some(key);
                let copy = Copy {
                    from: CopyOf::Volume(&source),
                    snapshot: new.snapname.as_deref(),
                    format: new.format.as_deref(),
                    label: &label,
                    live,
                };
                self.copy_volume(Some(work), &place, &copy).await?
            }
        } else {
            work.log(format!("create linked clone of drive {key} ({volid})"));
            self.linked_clone(work, &new.node, &source, new.newid).await?
        };
        options.set("file", made.volid());
        if !drive::is_cloudinit(&volid) {
            let size = self.state().volumes.get(&made).map_or(0, |volume| volume.size);
            options.set("size", print_size(size));
        }
        Ok(options.print("file"))
    }

    async fn linked_clone(&self, work: &Work, node: &str, base: &VolumeKey, vmid: u32) -> Rule<VolumeKey> {
        self.clock().sleep(1.0).await;
        let (key, from, to, size) = {
            let mut state = self.state();
            let log = |state: &mut State, line: String| state.tasks.log(work.upid(), line);
            let Some(volume) = state.volumes.get(base).cloned() else {
                return Err(Refusal::failed(format!("volume '{}' does not exist\n", base.volid())));
            };
            let storage = state.storage_on(&base.storage, node)?;
            let (files, names) = (storage.family() == Family::Files, storage.names_parents());
            let format = if files && storage.kind != "btrfs" { "qcow2" } else { "raw" };
            let name = state.free_name(node, &base.storage, vmid, format);
            let short = name.rsplit('/').next().unwrap_or(&name).to_owned();
            // The base of a base is of no interest: its own name is the last two parts.
            let own: Vec<&str> = base.name.rsplit('/').take(if files { 2 } else { 1 }).collect();
            let own = own.into_iter().rev().collect::<Vec<_>>().join("/");
            let full_name = if names { format!("{own}/{name}") } else { name };
            let key = state.key_on(node, &base.storage, &full_name);
            let shown = state.path_of(&key);
            if files {
                let base_path = format!("../{own}");
                log(&mut state, format!("clone {own}: images, {short}, {vmid} to {short} (base={base_path})"));
                log(
                    &mut state,
                    format!(
                        "Formatting '{shown}', fmt=qcow2 cluster_size=65536 extended_l2=off compression_type=zlib size={} \
                     backing_file={base_path} backing_fmt={} lazy_refcounts=off refcount_bits=16",
                        volume.size, volume.format
                    ),
                );
            } else {
                log(&mut state, format!("  Logical volume \"{short}\" created."));
            }
            state.volumes.insert(
                key.clone(),
                Volume {
                    content: "images".to_owned(),
                    format: format.to_owned(),
                    size: volume.size,
                    vmid: Some(vmid),
                    parent: names.then_some(own),
                    ctime: self.clock().unix(),
                    notes: None,
                    protected: false,
                    snapshots: BTreeSet::new(),
                },
            );
            (key.clone(), state.file_of(self.dir(), base), state.file_of(self.dir(), &key), volume.size)
        };
        super::disks::blocking(move || super::qcow2::sparse_copy(&from, &to, size))
            .await
            .map_err(|error| Refusal::failed(format!("{error}\n")))?;
        Ok(key)
    }
}

/// What the caller needs for the volumes and the devices of a source (`check_storage_access_clone`).
fn check_clone_access(state: &State, caller: &Caller, new: &NewClone, config: &Config) -> Rule<()> {
    let mapped = |path: String| state.check(caller, &path, &["Mapping.Use"]);
    for key in drive_keys(config) {
        let options = Properties::parse(&config[&key], "file");
        let volid = options.get("file").unwrap_or_default();
        if volid.is_empty() || volid == "none" {
            continue;
        }
        if volid == "cdrom" {
            state.check(caller, "/", &["Sys.Console"])?;
            continue;
        }
        let storage = VolumeKey::split(volid).map_or("", |(storage, _)| storage);
        if !state.storages.contains_key(storage) {
            return Err(Refusal::failed(format!("storage '{storage}' does not exist\n")));
        }
        if !drive::is_cdrom(&options) {
            let storage = new.storage.as_deref().unwrap_or(storage);
            state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
    }
    if let Some(storage) = config.get("vmstatestorage") {
        state.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
    }
    for (key, value) in config {
        let stem = drive::numbered(key).map_or("", |(stem, _)| stem);
        if stem != "usb" && stem != "hostpci" {
            continue;
        }
        let device = Properties::parse(value, "host");
        match (device.get("host"), device.get("mapping")) {
            (Some(host), _) if stem == "usb" && host.eq_ignore_ascii_case("spice") => {}
            (Some(_), _) if caller.is_root() => {}
            (Some(_), _) => {
                let what = if stem == "usb" { "real devices" } else { "non-mapped devices" };
                return Err(Refusal::failed(format!("only root can set '{key}' config for {what}\n")));
            }
            (None, Some(name)) if stem == "usb" => mapped(format!("/mapping/usb/{name}"))?,
            (None, Some(name)) => mapped(format!("/mapping/pci/{name}"))?,
            (None, None) => return Err(Refusal::failed("either 'host' or 'mapping' must be set.\n")),
        }
    }
    Ok(())
}

/// A clone on another node takes what both nodes see.
fn check_shared(state: &State, new: &NewClone, config: &Config, target: &str) -> Rule<()> {
    for key in drive_keys(config) {
        let volid = super::config::volid(&config[&key]).unwrap_or_default();
        let Some((storage, _)) = VolumeKey::split(&volid) else { continue };
        if !state.storages.get(storage).is_some_and(super::state::Storage::shared) {
            return Err(Refusal::failed(format!("can't clone VM to node '{target}' (VM uses local storage)\n")));
        }
        state.storage_on(storage, &new.node)?;
    }
    Ok(())
}

/// Which disks of a source are copied and which are linked, or why it can't be done.
fn clone_disks(
    state: &State,
    new: &NewClone,
    config: &Config,
    full: bool,
    running: bool,
) -> Rule<Vec<(String, String, bool)>> {
    let mut disks = Vec::new();
    for key in drive_keys(config) {
        let value = config.get(&key).cloned().unwrap_or_default();
        let options = Properties::parse(&value, "file");
        let volid = options.get("file").unwrap_or_default().to_owned();
        if volid == "none" || volid == "cdrom" {
            continue;
        }
        let Some(volume) = state.volume_key(&new.node, &volid) else { continue };
        let Some(storage) = state.storages.get(&volume.storage) else {
            return Err(Refusal::failed(format!("storage '{}' does not exist\n", volume.storage)));
        };
        let cloudinit = drive::is_cloudinit(&volid);
        if drive::is_cdrom(&options) && !cloudinit {
            continue;
        }
        if full && running && key == "tpmstate0" {
            return Err(Refusal::failed("cannot clone TPM state while VM is running\n"));
        }
        let copy = full || cloudinit || key == "tpmstate0";
        if !copy {
            let snapshot = if new.snapname.is_some() { "a snapshot of " } else { "" };
            let base = parse_name(storage, &volume.name).is_ok_and(|named| named.base);
            if !storage.has_bases() || !base || new.snapname.is_some() {
                return Err(Refusal::failed(format!(
                    "Linked clone feature is not supported for {snapshot}'{volid}' ({key})\n"
                )));
            }
        }
        disks.push((key, value, copy));
    }
    Ok(disks)
}
