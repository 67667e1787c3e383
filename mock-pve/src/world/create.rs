//! Making VMs.
//!
//! Purpose: how VMs come to be out of nothing. Must not know: requests. Rules after Proxmox VE 8.4 (PVE/API2/Qemu.pm).

use super::World;
use super::drive;
use super::keys::{Change, depends_on_value, normal_nic, stored};
use super::lifecycle::Lock;
use super::plan_disk::{Planned, Source, raw_drive};
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, Vm};
use super::stop::Words;
use super::update::no_config;
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
    /// Make it a resource of HA.
    pub ha_managed: bool,
}

impl State {
    /// What the caller needs for the pool and the storage that a VM names. Says whether it may be made at all.
    pub(super) fn check_place(
        &self,
        caller: &Caller,
        vmid: u32,
        (pool, storage): (Option<&str>, Option<&str>),
    ) -> Rule<bool> {
        if let Some(pool) = pool.filter(|pool| !self.pools.contains_key(*pool)) {
            return Err(Refusal::forbidden(format!("pool '{pool}' does not exist")));
        }
        if let Some(storage) = storage {
            self.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
        Ok(self.may(caller, &format!("/vms/{vmid}"), &["VM.Allocate"])
            || pool.is_some_and(|pool| self.may(caller, &format!("/pool/{pool}"), &["VM.Allocate"])))
    }

    /// What the caller needs for the keys that a VM is made with, in the original's order.
    pub(super) fn check_settings(
        &self,
        caller: &Caller,
        vmid: u32,
        (pool, storage): (Option<&str>, Option<&str>),
        set: &Config,
    ) -> Rule<()> {
        for (key, value) in set.iter().filter(|(key, _)| drive::is_drive(key)) {
            self.check_drive_access(caller, vmid, &raw_drive(key, value), storage)?;
        }
        self.check_other_volumes(caller, vmid, set)?;
        let late = |key: &str| depends_on_value(key) && key != "tags";
        for (key, value) in set.iter().filter(|(key, _)| !late(key)) {
            self.check_key(caller, vmid, pool, key, Change::Create(value))?;
        }
        for (key, value) in set.iter().filter(|(key, _)| late(key)) {
            self.check_key(caller, vmid, pool, key, Change::Create(value))?;
        }
        for (_, value) in set.iter().filter(|(key, _)| super::update::is_net(key)) {
            self.check_nic(caller, value)?;
        }
        Ok(())
    }

    /// All checks on a new VM, in the original's order. Says what disks are to be made.
    fn check_new(&self, caller: &Caller, new: &NewVm) -> Rule<Vec<Planned>> {
        let place = (new.pool.as_deref(), new.storage.as_deref());
        let allowed = self.check_place(caller, new.vmid, place)?;
        if new.ha_managed {
            self.check(caller, "/", &["Sys.Console"])?;
        }
        if !allowed {
            return Err(Refusal::forbidden(""));
        }
        self.check_settings(caller, new.vmid, place, &new.set)?;
        let drives = new.set.iter().filter(|(key, _)| drive::is_drive(key));
        drives.map(|(key, value)| Ok(self.clean_drive(&new.node, key, value)?.or_on(new.storage.as_deref()))).collect()
    }
}

impl World {
    /// Checks a new VM, registers its empty config and starts the task. Says the UPID.
    pub fn create_vm(&self, caller: &Caller, new: NewVm) -> Rule<String> {
        let planned = {
            let mut state = self.state();
            let planned = state.check_new(caller, &new)?;
            if let Some(other) = state.vms.get(&new.vmid) {
                return Err(Refusal::failed(format!(
                    "unable to create VM {} - VM {} already exists on node '{}'\n",
                    new.vmid, new.vmid, other.node
                )));
            }
            let config = Config::from([("lock".to_owned(), "create".to_owned())]);
            state.vms.insert(new.vmid, Vm { node: new.node.clone(), config, ..Vm::default() });
            planned
        };
        let (who, node) = (caller.clone(), new.node.clone());
        let id = new.vmid.to_string();
        Ok(self.start_task(caller, &node, "qmcreate", &id, |work| async move {
            let world = work.world().clone();
            let made = Box::pin(work.attempt(Words::Task, world.create_locked(&work, &new, &planned))).await;
            if let Err(refusal) = made {
                world.state().vms.remove(&new.vmid);
                return Err(refusal);
            }
            if new.ha_managed {
                work.log("Add as HA resource");
                let wanted = if new.start { "started" } else { "stopped" };
                let sid = format!("vm:{}", new.vmid);
                let resource = serde_json::json!({"sid": sid, "type": "vm", "state": wanted});
                world.state().ha.insert(sid, resource.as_object().cloned().unwrap_or_default());
                world.forget_service(new.vmid);
            }
            if new.start {
                work.log("Execute autostart");
                world.start_vm(&who, &new.node, new.vmid, Lock::Respect);
            }
            Ok(())
        }))
    }

    /// Takes the lock and does it.
    async fn create_locked(&self, work: &Work, new: &NewVm, planned: &[Planned]) -> Rule<()> {
        let _flock = work.flock(new.vmid, Mode::Exclusive, 1.0).await?;
        let result = if work.is_doomed() {
            Err(Refusal::failed("interrupted\n"))
        } else {
            self.create_work(work, new, planned).await
        };
        result.map_err(|refusal| Refusal::failed(format!("unable to create VM {} - {}", new.vmid, refusal.text())))
    }

    /// Makes the disks and the config; where that fails, none of the disks is left.
    async fn create_work(&self, work: &Work, new: &NewVm, planned: &[Planned]) -> Rule<()> {
        let mut made = Vec::new();
        let disks = self.create_disks(work, new, planned, &mut made).await;
        let done = disks.and_then(|config| self.write_new(work, new, config));
        if done.is_err() {
            for value in made {
                if let Err(left) = self.free_drive(&new.node, new.vmid, &value) {
                    work.log(left.text());
                }
            }
        }
        done
    }

    /// Makes one disk after the other. Says the config that has them; those that are new are told even where one could not
    /// be made.
    async fn create_disks(
        &self,
        work: &Work,
        new: &NewVm,
        planned: &[Planned],
        made: &mut Vec<String>,
    ) -> Rule<Config> {
        let mut config = Config::new();
        for plan in planned {
            self.state().check_second_cloudinit(&config, plan)?;
            let disk = self.make_disk(Some(work), (&new.node, new.vmid), plan, &new.set);
            let value = work.attempt(Words::Task, Box::pin(disk)).await?;
            if !matches!(plan.source, Source::Existing(_) | Source::Empty) {
                made.push(value.clone());
            }
            config.insert(plan.key.clone(), value);
        }
        Ok(config)
    }

    /// Writes down the config of a VM whose disks are there.
    fn write_new(&self, work: &Work, new: &NewVm, mut config: Config) -> Rule<()> {
        let mut state = self.state();
        for (key, value) in new.set.iter().filter(|(key, _)| !drive::is_drive(key)) {
            let net = drive::numbered(key).is_some_and(|(stem, _)| stem == "net");
            let value = if net {
                let mac = state.next_mac();
                drive::print_nic(&normal_nic(value, || mac))
            } else if key == "cpuunits" {
                super::pending::clamped_units(value)
            } else {
                value.clone()
            };
            if let Some(value) = stored(key, &value)? {
                config.insert(key.clone(), value);
            }
        }
        if !config.contains_key("boot") {
            let order = default_boot(&config);
            config.insert("boot".to_owned(), if order.is_empty() { " ".to_owned() } else { format!("order={order}") });
        }
        super::pending::check_clipboard(config.get("vga").map_or("", String::as_str))?;
        if !config.contains_key("smbios1") {
            let uuid = state.rng.uuid();
            config.insert("smbios1".to_owned(), format!("uuid={uuid}"));
        }
        if config.get("vmgenid").is_none_or(|id| id == "1") {
            let genid = state.rng.uuid();
            config.insert("vmgenid".to_owned(), genid);
        }
        let machine = config.get("machine").cloned().unwrap_or_default();
        if config.get("ostype").is_some_and(|ostype| super::pending::is_windows(ostype))
            && let Some(pinned) = super::pending::pinned_machine(&machine)
        {
            let kind = Properties::parse(&pinned, "type").get("type").unwrap_or_default().to_owned();
            state.tasks.log(work.upid(), format!("pinning machine type to '{kind}' for Windows guest OS"));
            config.insert("machine".to_owned(), pinned);
        }
        super::pending::check_iommu(&machine)?;
        super::hotplug::old_processors(&mut config);
        let qemu = super::pending::QEMU;
        config.insert("meta".to_owned(), format!("creation-qemu={qemu},ctime={}", self.clock().unix()));
        let Some(vm) = state.vms.get_mut(&new.vmid) else { return Err(no_config(&new.node, new.vmid)) };
        vm.config = config;
        if let Some(pool) = new.pool.as_ref().and_then(|pool| state.pools.get_mut(pool)) {
            pool.vms.insert(new.vmid);
        }
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
