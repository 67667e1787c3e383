//! Clones.
//!
//! Purpose: full and linked clones, and what they inherit. Must not know: requests. Rules after Proxmox VE 8.4
//! (PVE/API2/Qemu.pm, `clone_vm`). Start at [`World::clone_vm`].

mod check;
mod drives;

pub(super) use self::drives::{DriveClone, Way};

use self::check::{CheckedClone, Stage};
use super::World;
use super::drive;
use super::keys::stored;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::{Config, State, Switch, Vm, VolumeKey};
use super::stop::Words;
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

/// What a config no longer holds once it is another VM's. Of a snapshot nothing is left.
const LEFT_BEHIND: &[&str] =
    &["lock", "template", "parent", "snaptime", "snapstate", "vmstate", "runningmachine", "runningcpu"];

impl State {
    /// The config of the new VM before it has any disk of its own, locked.
    fn begin_clone(&mut self, new: &NewClone, checked: &CheckedClone) -> Config {
        let mut config = checked.config.clone();
        for key in LEFT_BEHIND {
            config.remove(*key);
        }
        config.retain(|key, _| !drive::is_unused(key));
        for drive in &checked.drives {
            config.remove(&drive.key);
        }
        for (key, mut nic) in drive::nics(&config) {
            nic.set("macaddr", self.next_mac());
            config.insert(key, drive::print_nic(&nic));
        }
        let mut smbios = Properties::parse(config.get("smbios1").map_or("", String::as_str), "uuid");
        smbios.set("uuid", self.rng.uuid());
        config.insert("smbios1".to_owned(), smbios.print(""));
        if config.get("vmgenid").is_some_and(|id| id != "0") {
            config.insert("vmgenid".to_owned(), self.rng.uuid());
        }
        let is_said = |text: &&String| !text.is_empty() && *text != "0";
        let name = new.name.as_ref().filter(is_said).cloned().unwrap_or_else(|| {
            format!("Copy-of-VM-{}", config.get("name").cloned().unwrap_or_else(|| new.vmid.to_string()))
        });
        config.insert("name".to_owned(), name);
        if let Some(description) = new.description.as_ref().filter(is_said) {
            config.remove("description");
            if let Ok(Some(text)) = stored("description", description) {
                config.insert("description".to_owned(), text);
            }
        }
        config.insert("lock".to_owned(), "clone".to_owned());
        config
    }

    /// Registers the new VM, so that nobody else takes its number. Until its disks are there it is this and no more.
    fn reserve_clone(&mut self, new: &NewClone) {
        let mut config = Config::from([("lock".to_owned(), "clone".to_owned())]);
        if let Ok(Some(text)) = stored("description", "qmclone temporary file") {
            config.insert("description".to_owned(), text);
        }
        self.vms.insert(new.newid, Vm { node: new.node.clone(), config, ..Vm::default() });
        if let Some(firewall) = self.firewalls.get(&format!("vms/{}", new.vmid)).cloned() {
            self.firewalls.insert(format!("vms/{}", new.newid), firewall);
        }
    }

    /// Nothing is left of a clone that failed.
    fn forget_clone(&mut self, newid: u32) {
        self.vms.remove(&newid);
        self.firewalls.remove(&format!("vms/{newid}"));
        for pool in self.pools.values_mut() {
            pool.vms.remove(&newid);
        }
    }
}

impl World {
    /// Checks a clone and starts the task. Says the UPID.
    pub fn clone_vm(&self, caller: &Caller, new: NewClone) -> Rule<String> {
        let (id, node) = (new.vmid.to_string(), new.node.clone());
        let source = {
            let mut state = self.state();
            let source = state.source_power(&new)?;
            state.check_clone(caller, &new, source, Stage::Asked)?;
            if state.vms.contains_key(&new.newid) {
                let file = format!("/etc/pve/nodes/{node}/qemu-server/{}.conf", new.newid);
                drop(state);
                return Ok(self.start_task(caller, &node, "qmclone", &id, |_| async move {
                    Err(Refusal::failed(format!("rename '{file}.tmp.1' to '{file}' failed: File exists\n")))
                }));
            }
            state.reserve_clone(&new);
            source
        };
        let who = caller.clone();
        Ok(self.start_task(caller, &node, "qmclone", &id, |work| async move {
            let world = work.world().clone();
            let done = Box::pin(work.attempt(Words::Task, world.clone_locked(&work, &who, &new, source))).await;
            if done.is_err() {
                world.state().forget_clone(new.newid);
            }
            done
        }))
    }

    /// Takes the locks, looks once more, and does it.
    async fn clone_locked(&self, work: &Work, caller: &Caller, new: &NewClone, power: Switch) -> Rule<()> {
        let mode = if power == Switch::On { Mode::Exclusive } else { Mode::Shared };
        let _source = work.flock(new.vmid, mode, 1.0).await?;
        let _target = work.flock(new.newid, Mode::Exclusive, 1.0).await?;
        let failed = |refusal: Refusal| Refusal::failed(format!("clone failed: {}", refusal.text()));
        if work.is_doomed() {
            return Err(failed(Refusal::failed("interrupted\n")));
        }
        let checked = self.state().check_clone(caller, new, power, Stage::Begun)?;
        let mut config = self.state().begin_clone(new, &checked);
        self.clone_drives(work, new, &checked, &mut config).await.map_err(failed)?;
        if power == Switch::On && new.snapname.is_none() {
            let live = checked.drives.iter().filter(|drive| drive.way == Way::Full && !drive.is_cloudinit());
            let keys: Vec<String> = live.map(|drive| drive.key.clone()).collect();
            if !keys.is_empty() {
                self.part_from(work, new.vmid, &keys);
            }
        }
        if !checked.pending.is_empty() {
            work.log(format!("found pending changes for '{}', discarding for clone", checked.pending.join(",")));
        }
        config.remove("lock");
        let mut state = self.state();
        if let Some(vm) = state.vms.get_mut(&new.newid) {
            vm.config = config;
            vm.cloudinit = checked.cloudinit;
            vm.node = checked.target;
        }
        if let Some(pool) = new.pool.as_ref().and_then(|pool| state.pools.get_mut(pool)) {
            pool.vms.insert(new.newid);
        }
        Ok(())
    }

    /// Clones one drive after the other and writes each down; all go again where one fails.
    async fn clone_drives(&self, work: &Work, new: &NewClone, checked: &CheckedClone, config: &mut Config) -> Rule<()> {
        self.state().check_sources(&new.node, &checked.drives)?;
        let mut made: Vec<VolumeKey> = Vec::new();
        for drive in &checked.drives {
            let ask = DriveClone {
                node: &new.node,
                source: new.vmid,
                key: &drive.key,
                value: &drive.value,
                snapshot: new.snapname.as_deref(),
                owner: new.newid,
                storage: new.storage.as_deref(),
                format: new.format.as_deref(),
                way: drive.way,
            };
            match work.attempt(Words::Signal, Box::pin(self.clone_drive(work, &ask))).await {
                Ok((volume, value)) => {
                    made.push(volume);
                    config.insert(drive.key.clone(), value);
                    if let Some(vm) = self.state().vms.get_mut(&new.newid) {
                        vm.config.clone_from(config);
                    }
                }
                Err(refusal) => {
                    for volume in made {
                        if let Err(left) = self.free(&volume) {
                            work.log(left.text());
                        }
                    }
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }
}
