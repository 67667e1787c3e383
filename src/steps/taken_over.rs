//! What a new VM takes over beside its configuration: its place, its firewall, its care by the HA manager.

use std::time::Duration;

use super::World;
use super::classify::{by_pve, wrong};
use super::ours::at;
use super::task::{finish, settle};
use crate::engine::{Seen, StepCx, StepError};
use crate::plan::Output;
use crate::plan::step::{HaCare, Hardware, OurVm};
use crate::pve::ha::HaOrder;
use crate::types::NodeName;

/// Between two looks at a VM that moves.
const LOOK: Duration = Duration::from_millis(250);

impl World {
    /// Whether the VM is on its new node, unlocked. While it moves it is on the old one with a lock (PVE/QemuMigrate.pm).
    pub(super) async fn probe_migrated(
        &self,
        vm: &OurVm,
        target: &NodeName,
        cx: &StepCx<'_>,
    ) -> Result<Seen, StepError> {
        if let Some(upid) = cx.attached() {
            settle(self, upid, cx).await?;
        }
        let doing = format!("look for VM {} on {target}", vm.vmid);
        let there = OurVm { node: target.clone(), ..vm.clone() };
        let limit = Duration::from_secs(self.plan.limits.task);
        let since = cx.elapsed();
        loop {
            let config = match self.ours(&doing, &there).await? {
                Some(config) => config,
                None => self.present(&doing, vm).await?,
            };
            let Some(lock) = config.lock() else { break };
            if cx.elapsed().saturating_sub(since) > limit {
                return Err(wrong(doing, format!("VM {} is still locked ({lock})", vm.vmid))
                    .hinted(format!("if no task works on it any more: qm unlock {}", vm.vmid)));
            }
            cx.waiting("the VM's lock", Some(lock));
            cx.sleep(LOOK).await;
        }
        let arrived = self.ours(&doing, &there).await?.is_some();
        Ok(if arrived { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn migrate_vm(&self, vm: &OurVm, target: &NodeName, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("move VM {} from {} to {target}", vm.vmid, vm.node);
        self.present(&doing, vm).await?;
        let upid = self.pve.migrate_vm(&at(vm), target, None).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing.clone(), &upid, cx).await?;
        self.present(&doing, &OurVm { node: target.clone(), ..vm.clone() }).await?;
        Ok(Output::Nothing)
    }

    pub(super) async fn probe_firewall(
        &self,
        vm: &OurVm,
        options: &Hardware,
        rules: &[Hardware],
    ) -> Result<Seen, StepError> {
        let doing = format!("read the firewall of VM {}", vm.vmid);
        self.present(&doing, vm).await?;
        let now = self.pve.vm_firewall(&at(vm)).await.map_err(|error| by_pve(doing, error))?;
        let done = now.rules == rules && options.iter().all(|(key, value)| now.options.get(key) == Some(value));
        Ok(if done { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    /// Rules first, so that a firewall that is on is never without them.
    pub(super) async fn set_firewall(
        &self,
        vm: &OurVm,
        options: &Hardware,
        rules: &[Hardware],
    ) -> Result<Output, StepError> {
        let doing = format!("set the firewall of VM {}", vm.vmid);
        self.present(&doing, vm).await?;
        let failed = |error| by_pve(&doing, error);
        // What an attempt that broke off left: the VM is this run's own.
        let left = self.pve.vm_firewall(&at(vm)).await.map_err(failed)?.rules.len();
        for _ in 0..left {
            self.pve.remove_first_firewall_rule(&at(vm)).await.map_err(failed)?;
        }
        for rule in rules.iter().rev() {
            self.pve.add_firewall_rule(&at(vm), rule).await.map_err(failed)?;
        }
        if !options.is_empty() {
            self.pve.set_firewall_options(&at(vm), options).await.map_err(failed)?;
        }
        match self.probe_firewall(vm, options, rules).await? {
            Seen::Missing => Err(wrong(doing, "PVE accepted it, but reads back something else")),
            _ => Ok(Output::Nothing),
        }
    }

    pub(super) async fn probe_ha(&self, vm: &OurVm, care: &HaCare) -> Result<Seen, StepError> {
        let doing = format!("read the HA resource of VM {}", vm.vmid);
        self.present(&doing, vm).await?;
        let now = self.pve.ha_resource(vm.vmid).await.map_err(|error| by_pve(doing, error))?;
        let done =
            now.is_some_and(|now| now.state.as_deref().unwrap_or("started") == care.state && now.group == care.group);
        Ok(if done { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn add_ha(&self, vm: &OurVm, care: &HaCare) -> Result<Output, StepError> {
        let doing = format!("put VM {} under HA", vm.vmid);
        self.present(&doing, vm).await?;
        let failed = |error| by_pve(&doing, error);
        // One of this number with other settings is what an old VM left behind.
        if self.pve.ha_resource(vm.vmid).await.map_err(failed)?.is_some() {
            self.pve.remove_ha(vm.vmid).await.map_err(failed)?;
        }
        let order = HaOrder {
            state: care.state.clone(),
            group: care.group.clone(),
            max_restart: care.max_restart,
            max_relocate: care.max_relocate,
            comment: care.comment.clone(),
        };
        self.pve.add_ha(vm.vmid, &order).await.map_err(failed)?;
        match self.probe_ha(vm, care).await? {
            Seen::Missing => Err(wrong(doing, "PVE accepted it, but reads back something else")),
            _ => Ok(Output::Nothing),
        }
    }
}
