//! Making, cloning and turning VMs into templates.
//!
//! Purpose: how VMs come to be. Must not know: requests. Rules after Proxmox VE 8.4 (PVE/API2/Qemu.pm).

use super::World;
use super::disks::{Planned, drive_keys};
use super::drive;
use super::keys::{Change, normal_nic, stored};
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, Vm, VolumeKey};
use super::update::{check_lock, no_config};
use super::volume::parse_name;
use super::work::{Mode, Work};

/// A VM that is to be made.
#[derive(Clone, Debug, Default)]
pub struct NewVm {
    /// Where.
    pub node: String,
    /// Its number.
    pub vmid: u32,
    /// Config keys.
    pub set: Config,
    /// Pool.
    pub pool: Option<String>,
    /// Storage of disks that name none.
    pub storage: Option<String>,
    /// Start it afterwards.
    pub start: bool,
}

impl State {
    pub(super) fn check_pool(&self, caller: &Caller, pool: Option<&str>) -> Rule<()> {
        let Some(pool) = pool else { return Ok(()) };
        if !self.pools.contains_key(pool) {
            return Err(Refusal::forbidden(format!("pool '{pool}' does not exist")));
        }
        self.check(caller, &format!("/pool/{pool}"), &["VM.Allocate"])
    }
}

impl World {
    /// Checks a new VM, registers its empty config and starts the task. Says the UPID.
    pub fn create_vm(&self, caller: &Caller, new: NewVm) -> Rule<String> {
        let mut planned = Vec::new();
        {
            let mut state = self.state();
            if let Some(pool) = &new.pool
                && !state.pools.contains_key(pool)
            {
                return Err(Refusal::forbidden(format!("pool '{pool}' does not exist")));
            }
            let allowed = state.may(caller, &format!("/vms/{}", new.vmid), &["VM.Allocate"])
                || new.pool.as_ref().is_some_and(|pool| state.may(caller, &format!("/pool/{pool}"), &["VM.Allocate"]));
            if !allowed {
                return Err(Refusal::forbidden(""));
            }
            for (key, value) in &new.set {
                if drive::is_drive(key) {
                    let place = (new.node.as_str(), new.vmid);
                    planned.push(state.plan_disk(caller, place, key, value, new.storage.as_deref())?);
                }
                state.check_key(caller, new.vmid, new.pool.as_deref(), key, Change::Create(value))?;
                if drive::numbered(key).is_some_and(|(stem, _)| stem == "net") {
                    let nic = drive::parse_nic(value);
                    state.check_bridge(caller, nic.get("bridge"), nic.get("tag"))?;
                }
            }
            if let Some(other) = state.vms.get(&new.vmid) {
                return Err(Refusal::failed(format!(
                    "unable to create VM {} - VM {} already exists on node '{}'\n",
                    new.vmid, new.vmid, other.node
                )));
            }
            let config = Config::from([("lock".to_owned(), "create".to_owned())]);
            state.vms.insert(new.vmid, Vm { node: new.node.clone(), config, ..Vm::default() });
        }
        let (who, node) = (caller.clone(), new.node.clone());
        let id = new.vmid.to_string();
        Ok(self.start_task(caller, &node, "qmcreate", &id, |work| async move {
            let world = work.world().clone();
            let flock = world.flock(new.vmid, Mode::Exclusive, 10.0).await?;
            let result = if work.is_doomed() {
                Err(Refusal::failed("interrupted\n"))
            } else {
                world.create_work(&work, &new, &planned).await
            };
            if let Err(refusal) = result {
                world.state().vms.remove(&new.vmid);
                return Err(Refusal::failed(format!("unable to create VM {} - {}", new.vmid, refusal.text())));
            }
            drop(flock);
            if new.start {
                world.start_vm(&who, &new.node, new.vmid);
            }
            Ok(())
        }))
    }

    async fn create_work(&self, work: &Work, new: &NewVm, planned: &[Planned]) -> Rule<()> {
        let mut config = Config::new();
        let mut made: Vec<String> = Vec::new();
        for plan in planned {
            match self.make_disk(Some(work), &new.node, new.vmid, plan).await {
                Ok(value) => {
                    let is_new =
                        !matches!(plan.source, super::disks::Source::Existing(_) | super::disks::Source::Empty);
                    if is_new {
                        made.push(value.clone());
                    }
                    config.insert(plan.key.clone(), value);
                }
                Err(refusal) => {
                    for value in made {
                        // What can't be freed stays, as in the original.
                        let _ = self.free_drive(&new.node, new.vmid, &value);
                    }
                    return Err(refusal);
                }
            }
        }
        let mut state = self.state();
        for (key, value) in new.set.iter().filter(|(key, _)| !drive::is_drive(key)) {
            let net = drive::numbered(key).is_some_and(|(stem, _)| stem == "net");
            let value = if net {
                let mac = state.next_mac();
                drive::print_nic(&normal_nic(value, || mac))
            } else {
                value.clone()
            };
            if let Some(value) = stored(key, &value) {
                config.insert(key.clone(), value);
            }
        }
        if !config.contains_key("boot") {
            let order = default_boot(&config);
            config.insert("boot".to_owned(), if order.is_empty() { " ".to_owned() } else { format!("order={order}") });
        }
        if !config.get("smbios1").is_some_and(|text| text.contains("uuid=")) {
            let uuid = state.rng.uuid();
            let rest = config.get("smbios1").map(|text| format!(",{text}")).unwrap_or_default();
            config.insert("smbios1".to_owned(), format!("uuid={uuid}{rest}"));
        }
        let genid = state.rng.uuid();
        config.entry("vmgenid".to_owned()).or_insert(genid);
        config.insert("meta".to_owned(), format!("creation-qemu=9.2.0,ctime={}", self.clock().unix()));
        let Some(vm) = state.vms.get_mut(&new.vmid) else { return Err(no_config(&new.node, new.vmid)) };
        vm.config = config;
        if let Some(pool) = new.pool.as_ref().and_then(|pool| state.pools.get_mut(pool)) {
            pool.vms.insert(new.vmid);
        }
        Ok(())
    }

    /// Turns a VM into a template. Says the UPID.
    pub fn make_template(&self, caller: &Caller, node: &str, vmid: u32, disk: Option<String>) -> Rule<String> {
        {
            let state = self.state();
            let vm = state.vm(node, vmid)?;
            check_lock(&vm.config)?;
            if !vm.snapshots.is_empty() {
                return Err(Refusal::failed("unable to create template, because VM contains snapshots\n"));
            }
            if vm.config.get("template").is_some_and(|flag| flag == "1") && disk.is_none() {
                return Err(Refusal::failed("you can't convert a template to a template\n"));
            }
            if vm.running.is_some() {
                return Err(Refusal::failed("you can't convert a VM to template if VM is running\n"));
            }
        }
        self.tell(caller, "template", Some(vmid), None);
        let node_of_task = node.to_owned();
        Ok(self.start_task(caller, node, "qmtemplate", &vmid.to_string(), |work| async move {
            let world = work.world().clone();
            let _flock = world.flock(vmid, Mode::Exclusive, 10.0).await?;
            world.clock().sleep(0.5).await;
            {
                let mut state = world.state();
                let vm = state.vm_mut(&node_of_task, vmid)?;
                vm.config.insert("template".to_owned(), "1".to_owned());
            }
            let keys = drive_keys(&world.state().vm(&node_of_task, vmid)?.config);
            for key in keys.into_iter().filter(|key| disk.as_ref().is_none_or(|disk| disk == key)) {
                world.make_base(&node_of_task, vmid, &key)?;
            }
            Ok(())
        }))
    }

    /// Renames a disk's volume to a base volume, where the storage knows such.
    pub(super) fn make_base(&self, node: &str, vmid: u32, key: &str) -> Rule<()> {
        let mut state = self.state();
        let vm = state.vm(node, vmid)?;
        let mut options = Properties::parse(vm.config.get(key).map_or("", String::as_str), "file");
        if drive::is_cdrom(&options) {
            return Ok(());
        }
        let volid = options.get("file").unwrap_or_default().to_owned();
        let Some(old) = state.volume_key(node, &volid) else { return Ok(()) };
        let Some(storage) = state.storages.get(&old.storage) else { return Ok(()) };
        let Ok(named) = parse_name(storage, &old.name) else { return Ok(()) };
        if !storage.has_bases() || named.base {
            return Ok(());
        }
        let file = old.file_name().to_owned();
        let base = file.replacen("vm-", "base-", 1);
        let name = format!("{}{base}", &old.name[..old.name.len() - file.len()]);
        let new = VolumeKey { name, ..old.clone() };
        let (from, to) = (state.file_of(self.dir(), &old), state.file_of(self.dir(), &new));
        std::fs::rename(&from, &to).map_err(|error| Refusal::failed(format!("rename failed: {error}\n")))?;
        if let Some(mut volume) = state.volumes.remove(&old) {
            volume.ctime = self.clock().unix();
            state.volumes.insert(new.clone(), volume);
        }
        options.set("file", new.volid());
        state.vm_mut(node, vmid)?.config.insert(key.to_owned(), options.print("file"));
        Ok(())
    }
}

/// First disk, first CD-ROM, first NIC.
fn default_boot(config: &Config) -> String {
    let cdrom = drive::disk_keys()
        .find(|key| config.get(key).is_some_and(|text| drive::is_cdrom(&Properties::parse(text, "file"))));
    let nic = drive::nics(config).into_iter().next().map(|(key, _)| key);
    drive::first_disk(config).into_iter().chain(cdrom).chain(nic).collect::<Vec<_>>().join(";")
}
