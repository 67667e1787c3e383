//! VMs of this run: every one is recognised by its mark before it is touched.

use std::time::Duration;

use super::World;
use super::classify::{by_pve, refused, wrong};
use super::task::{finish, settle};
use crate::engine::{Seen, StepCx, StepError};
use crate::plan::step::{Hardware, OurVm};
use crate::plan::{Output, provenance};
use crate::pve::VmConfig;
use crate::pve::vm::{Change, CloneKind, CloneOrder, Forget, VmRef, WaitingShutdown};
use crate::types::{NodeName, Sha256, StorageId, VmId};

/// Between two looks at a VM that changes.
const LOOK: Duration = Duration::from_millis(250);

/// Locks that a running create or clone holds.
const BEING_MADE: &[&str] = &["create", "clone"];

/// What a VM is cloned from, and where its disks go.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) template: VmId,
    pub(super) node: &'a NodeName,
    pub(super) storage: &'a StorageId,
}

pub(super) fn at(vm: &OurVm) -> VmRef {
    VmRef::new(vm.node.clone(), vm.vmid)
}

impl World {
    /// Our VM as it is now; none when its number is free; a refusal when the number is someone else's.
    pub(super) async fn ours(&self, doing: &str, vm: &OurVm) -> Result<Option<VmConfig>, StepError> {
        self.holder(doing, vm).await?.map(|config| own(doing, vm, config)).transpose()
    }

    /// Whatever VM has the number.
    async fn holder(&self, doing: &str, vm: &OurVm) -> Result<Option<VmConfig>, StepError> {
        match self.pve.vm_config(&at(vm)).await {
            Ok(config) => Ok(Some(config)),
            Err(error) if error.is_missing_vm(vm.vmid) => Ok(None),
            Err(error) => Err(by_pve(doing, error)),
        }
    }

    /// The same, but it has to be there.
    pub(super) async fn present(&self, doing: &str, vm: &OurVm) -> Result<VmConfig, StepError> {
        let found = self.ours(doing, vm).await?;
        found.ok_or_else(|| wrong(doing, format!("VM {} on {} does not exist any more", vm.vmid, vm.node)))
    }

    /// Waits until a create or clone that an earlier attempt started has come to its end. While one goes on, the VM has a
    /// lock and neither name nor description (PVE/QemuConfig.pm, `create_and_lock_config`): whose it is shows only then.
    async fn settled(&self, doing: &str, vm: &OurVm, cx: &StepCx<'_>) -> Result<Option<VmConfig>, StepError> {
        if let Some(upid) = cx.attached() {
            settle(self, upid, cx).await?;
        }
        let since = cx.elapsed();
        loop {
            let found = self.holder(doing, vm).await?;
            let lock =
                found.as_ref().and_then(VmConfig::lock).filter(|lock| BEING_MADE.contains(lock)).map(str::to_owned);
            let Some(lock) = lock else { return found.map(|config| own(doing, vm, config)).transpose() };
            let limit = Duration::from_secs(self.plan.limits.task);
            if cx.elapsed().saturating_sub(since) > limit {
                return Err(wrong(
                    doing,
                    format!("VM {} is still locked ({lock}) after {} s", vm.vmid, limit.as_secs()),
                )
                .hinted(format!(
                    "if no task works on it any more: qm unlock {0} && qm destroy {0}, on {1}",
                    vm.vmid, vm.node
                )));
            }
            cx.waiting("the VM's lock", Some(&lock));
            cx.sleep(LOOK).await;
        }
    }

    /// Whether a create or clone already happened.
    pub(super) async fn probe_made(&self, doing: &str, vm: &OurVm, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let found = self.settled(doing, vm, cx).await?;
        Ok(found.map_or(Seen::Missing, |_| Seen::Done(Output::Nothing)))
    }

    pub(super) async fn create_template(
        &self,
        vm: &OurVm,
        hardware: &Hardware,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("create VM {} on {}", vm.vmid, vm.node);
        let mut keys = hardware.clone();
        keys.insert("name".to_owned(), vm.name.clone());
        let upid = self.pve.create_vm(&at(vm), &keys, None).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing.clone(), &upid, cx).await?;
        self.present(&doing, vm).await?;
        Ok(Output::Nothing)
    }

    pub(super) async fn clone_vm(
        &self,
        source: Origin<'_>,
        vm: &OurVm,
        pool: Option<&str>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let Origin { template, node, storage } = source;
        let doing = format!("clone template {template} to VM {} on {}", vm.vmid, vm.node);
        let order = CloneOrder {
            newid: vm.vmid,
            name: vm.name.clone(),
            description: Some(vm.mark.clone()),
            pool: pool.map(str::to_owned),
            kind: CloneKind::Full { storage: Some(storage.clone()) },
            target: (*node != vm.node).then(|| vm.node.clone()),
        };
        let source = VmRef::new(node.clone(), template);
        let upid = self.pve.clone_vm(&source, &order).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing.clone(), &upid, cx).await?;
        self.present(&doing, vm).await?;
        Ok(Output::Nothing)
    }

    pub(super) async fn probe_hardware(
        &self,
        vm: &OurVm,
        set: &Hardware,
        delete: &[String],
    ) -> Result<Seen, StepError> {
        let config = self.present(&format!("read VM {}", vm.vmid), vm).await?;
        let done = set.iter().all(|(key, value)| config.get(key).is_some_and(|now| crate::pve::same(key, now, value)))
            && delete.iter().all(|key| config.get(key).is_none());
        Ok(if done { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn set_hardware(
        &self,
        vm: &OurVm,
        set: &Hardware,
        delete: &[String],
    ) -> Result<Output, StepError> {
        let doing = format!("set the hardware of VM {}", vm.vmid);
        let config = self.present(&doing, vm).await?;
        let delete = delete.iter().filter(|key| config.get(key).is_some()).cloned().collect();
        let change = Change { set: set.clone(), delete, digest: Some(config.digest) };
        self.pve.change_vm_now(&at(vm), &change).await.map_err(|error| by_pve(&doing, error))?;
        match self.probe_hardware(vm, set, &[]).await? {
            Seen::Missing => Err(wrong(doing, "the node accepted it, but reads back something else")),
            _ => Ok(Output::Nothing),
        }
    }

    pub(super) async fn probe_size(&self, vm: &OurVm, disk: &str, gib: u64) -> Result<Seen, StepError> {
        let config = self.present(&format!("read VM {}", vm.vmid), vm).await?;
        let size = config.drives().get(disk).and_then(crate::pve::Disk::size);
        Ok(if size.is_some_and(|size| size >= gib << 30) { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn grow_disk(
        &self,
        vm: &OurVm,
        disk: &str,
        gib: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("grow {disk} of VM {} to {gib} GiB", vm.vmid);
        self.present(&doing, vm).await?;
        let sent = self.pve.resize_disk(&at(vm), disk, gib << 30).await;
        if let Some(upid) = sent.map_err(|error| by_pve(&doing, error))? {
            finish(self, doing.clone(), &upid, cx).await?;
        }
        match self.probe_size(vm, disk, gib).await? {
            Seen::Missing => Err(wrong(doing, "the disk is smaller afterwards than asked for")),
            _ => Ok(Output::Nothing),
        }
    }

    pub(super) async fn probe_running(&self, vm: &OurVm, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let doing = format!("read the state of VM {}", vm.vmid);
        if let Some(upid) = cx.attached() {
            settle(self, upid, cx).await?;
        }
        self.present(&doing, vm).await?;
        let status = self.pve.vm_status(&at(vm)).await.map_err(|error| by_pve(doing, error))?;
        Ok(if status.is_running() { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn start_vm(&self, vm: &OurVm, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("start VM {} on {}", vm.vmid, vm.node);
        self.present(&doing, vm).await?;
        let upid = self.pve.start_vm(&at(vm)).await.map_err(|error| by_pve(&doing, error))?;
        // A failed start task may have started the VM all the same: the state decides, and the verdict explains.
        let verdict = finish(self, doing.clone(), &upid, cx).await;
        let status = self.pve.vm_status(&at(vm)).await.map_err(|error| by_pve(&doing, error))?;
        match verdict {
            _ if status.is_running() => Ok(Output::Nothing),
            Err(error) => Err(error),
            Ok(()) => Err(wrong(doing, "the task ended well and the VM does not run")),
        }
    }

    pub(super) async fn probe_deleted(&self, vm: &OurVm, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let found = self.settled(&format!("look for VM {}", vm.vmid), vm, cx).await?;
        Ok(found.map_or(Seen::Done(Output::Nothing), |_| Seen::Missing))
    }

    /// Stops and deletes a VM that carries this mark. A template is refused: something may have been cloned from it.
    pub(super) async fn delete_ours(&self, vm: &OurVm, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("delete VM {} on {}", vm.vmid, vm.node);
        let config = self.present(&doing, vm).await?;
        if config.is_template() && !self.made_here(vm) {
            return Err(refused(doing, format!("VM {} is a template", vm.vmid)));
        }
        let status = self.pve.vm_status(&at(vm)).await.map_err(|error| by_pve(&doing, error))?;
        if !status.is_stopped() {
            let upid =
                self.pve.stop_vm(&at(vm), WaitingShutdown::Respect).await.map_err(|error| by_pve(&doing, error))?;
            finish(self, doing.clone(), &upid, cx).await?;
        }
        // Once more right before, since stopping took time and the number may be someone else's by now.
        self.present(&doing, vm).await?;
        let upid = self.pve.delete_vm(&at(vm), Forget::Nothing).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing.clone(), &upid, cx).await?;
        match self.ours(&doing, vm).await? {
            None => Ok(Output::Nothing),
            Some(_) => Err(wrong(doing, "the task ended well and the VM is still there")),
        }
    }

    /// Whether this very run made it: a half-made template may be taken back by the run that makes it, and by no other.
    fn made_here(&self, vm: &OurVm) -> bool {
        provenance::field(&vm.mark, "run") == Some(self.plan.run.as_str())
    }

    pub(super) async fn probe_sealed(
        &self,
        vm: &OurVm,
        fingerprint: Sha256,
        cx: &StepCx<'_>,
    ) -> Result<Seen, StepError> {
        if let Some(upid) = cx.attached() {
            settle(self, upid, cx).await?;
        }
        let doing = format!("read template {}", vm.vmid);
        let config = self.present(&doing, vm).await?;
        if !config.is_template() {
            return Ok(Seen::Missing);
        }
        match read_back(vm, &config, fingerprint) {
            Ok(()) => Ok(Seen::Done(Output::Nothing)),
            Err(what) => Err(refused(doing, what).hinted("delete it by hand; the next run makes a new one")),
        }
    }

    pub(super) async fn probe_passed(&self, vm: &OurVm) -> Result<Seen, StepError> {
        let config = self.present(&format!("read template {}", vm.vmid), vm).await?;
        let passed = provenance::is_proved(config.description());
        Ok(if passed { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    /// Adds the line by which later runs know it; the rest of the description stays.
    pub(super) async fn pass_template(&self, vm: &OurVm) -> Result<Output, StepError> {
        let doing = format!("mark template {}", vm.vmid);
        let config = self.present(&doing, vm).await?;
        let description = format!("{}\n{}", config.description().trim_end(), provenance::proved_line(&self.plan.run));
        let set = [("description".to_owned(), description)].into();
        let change = Change { set, delete: Vec::new(), digest: Some(config.digest) };
        self.pve.change_vm_now(&at(vm), &change).await.map_err(|error| by_pve(&doing, error))?;
        match self.probe_passed(vm).await? {
            Seen::Missing => Err(wrong(doing, "the node accepted it, but reads back something else")),
            _ => Ok(Output::Nothing),
        }
    }

    pub(super) async fn seal_template(
        &self,
        vm: &OurVm,
        fingerprint: Sha256,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("turn VM {} into a template", vm.vmid);
        self.present(&doing, vm).await?;
        let upid = self.pve.make_template(&at(vm)).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing.clone(), &upid, cx).await?;
        let config = self.present(&doing, vm).await?;
        match read_back(vm, &config, fingerprint) {
            Ok(()) => Ok(Output::Nothing),
            Err(what) => Err(wrong(doing, what)),
        }
    }
}

/// The VM, if it carries the mark of `vm`; else a refusal.
fn own(doing: &str, vm: &OurVm, config: VmConfig) -> Result<VmConfig, StepError> {
    if provenance::find_mark(config.description()) == Some(vm.mark.as_str()) {
        return Ok(config);
    }
    let name = config.name().unwrap_or("without a name");
    Err(refused(doing, format!("VM {} on {} ({name}) is not the one that this run made", vm.vmid, vm.node))
        .hinted("nothing was done to it; free the number or start a new run"))
}

/// What a template must show when it is read back.
fn read_back(vm: &OurVm, config: &VmConfig, fingerprint: Sha256) -> Result<(), String> {
    let number = vm.vmid;
    if !config.is_template() {
        return Err(format!("VM {number} is not a template"));
    }
    if provenance::find_fingerprint(config.description()) != Some(fingerprint) {
        return Err(format!("template {number} does not carry the fingerprint {fingerprint}"));
    }
    if config.boot_order().0.first().map(String::as_str) != Some("scsi0") {
        return Err(format!("template {number} does not boot from scsi0"));
    }
    if !config.volumes().contains_key("scsi0") {
        return Err(format!("template {number} has no disk scsi0"));
    }
    if !config.tags().contains_all(["talos", "template"]) {
        return Err(format!("template {number} has lost its tags"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_reads_back_as_something_else_is_none() {
        let fingerprint = Sha256::of(b"hardware");
        let vm = OurVm { node: "pve1".into(), vmid: VmId(100), name: "talos-1-13-9".to_owned(), mark: String::new() };
        let line = provenance::template_line(&"ab".into(), &"1.13.9".parse().unwrap(), fingerprint);
        let said = |key: &str, value: Option<&str>| {
            let sound = [
                ("template", "1"),
                ("description", line.as_str()),
                ("boot", "order=scsi0"),
                ("scsi0", "local-lvm:base-100-disk-1,size=10G"),
                ("tags", "talos;template"),
            ];
            let mut keys = Hardware::from(sound.map(|(key, value)| (key.to_owned(), value.to_owned())));
            keys.remove(key);
            keys.extend(value.map(|value| (key.to_owned(), value.to_owned())));
            read_back(&vm, &VmConfig { keys, digest: String::new() }, fingerprint)
        };
        assert_eq!(said("name", None), Ok(()));
        let other = provenance::template_line(&"ab".into(), &"1.13.9".parse().unwrap(), Sha256::of(b"other"));
        for (key, value, words) in [
            ("template", None, "VM 100 is not a template"),
            ("description", None, "does not carry the fingerprint"),
            ("description", Some(other.as_str()), "does not carry the fingerprint"),
            ("boot", Some("order=net0;scsi0"), "does not boot from scsi0"),
            ("scsi0", None, "has no disk scsi0"),
            ("tags", Some("talos"), "has lost its tags"),
        ] {
            let why = said(key, value).unwrap_err();
            assert!(why.contains(words), "{key}: {why}");
        }
    }
}
