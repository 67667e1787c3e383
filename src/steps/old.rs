//! VMs of the old cluster: compared with the plan's photograph right before anything is done to them.

use std::net::IpAddr;
use std::time::Duration;

use super::World;
use super::classify::{by_pve, refused, wrong};
use super::task::{finish, settle};
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::observe::identity::{differences, identity};
use crate::plan::Output;
use crate::plan::step::VmIdentity;
use crate::pve::vm::{Forget, VmRef, WaitingShutdown};
use crate::types::VmId;

/// Between two looks at a VM that shuts down.
const LOOK: Duration = Duration::from_millis(500);

/// How long the numbers of deleted VMs may linger in PVE's cluster-wide list.
const LINGER: Duration = Duration::from_mins(1);

/// What became of an old VM.
enum Old {
    Same,
    Gone,
}

impl World {
    /// Compares the VM with the plan: the same, gone, or a refusal that names every difference.
    async fn old(&self, doing: &str, planned: &VmIdentity) -> Result<Old, StepError> {
        let at = VmRef::new(planned.node.clone(), planned.vmid);
        let config = match self.pve.vm_config(&at).await {
            Ok(config) => config,
            Err(error) if error.is_missing_vm(planned.vmid) => return Ok(Old::Gone),
            Err(error) => return Err(by_pve(doing, error)),
        };
        if config.is_template() {
            return Err(refused(doing, format!("VM {} is a template by now", planned.vmid)));
        }
        let differences = differences(planned, &identity(&at, &config));
        if differences.is_empty() {
            return Ok(Old::Same);
        }
        Err(refused(doing, format!("VM {} is not the one that was planned: {}", planned.vmid, differences.join("; ")))
            .hinted("nothing was done to it; make a new plan"))
    }

    pub(super) async fn probe_stopped(&self, planned: &VmIdentity, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        if let Some(upid) = cx.attached() {
            settle(self, upid, cx).await?;
        }
        let doing = format!("look at VM {}", planned.vmid);
        match self.old(&doing, planned).await? {
            Old::Same if self.is_stopped(planned).await? => Ok(Seen::Done(Output::Nothing)),
            Old::Same => Ok(Seen::Missing),
            Old::Gone => Err(refused(doing, format!("VM {} is gone, and this run did not delete it", planned.vmid))),
        }
    }

    pub(super) async fn is_stopped(&self, planned: &VmIdentity) -> Result<bool, StepError> {
        let at = VmRef::new(planned.node.clone(), planned.vmid);
        let status = self.pve.vm_status(&at).await;
        Ok(status.map_err(|error| by_pve(format!("read the state of VM {}", planned.vmid), error))?.is_stopped())
    }

    /// Asks Talos first, since that stops pods gracefully also where no guest agent runs, then pulls the plug.
    pub(super) async fn shut_down(
        &self,
        planned: &VmIdentity,
        address: Option<IpAddr>,
        grace: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("shut down VM {} ({})", planned.vmid, planned.name);
        let at = VmRef::new(planned.node.clone(), planned.vmid);
        if let Old::Gone = self.old(&doing, planned).await? {
            return Err(refused(doing, "it is gone, and this run did not delete it"));
        }
        let asked = match address {
            Some(address) => self.ask_to_shut_down(address).await,
            None => Err("its address is not known".to_owned()),
        };
        match asked {
            Ok(()) => {
                if self.goes_down(planned, &at, &doing, grace, cx).await? {
                    return Ok(Output::Nothing);
                }
            }
            Err(why) => {
                cx.notice(format!("{} could not be asked to shut down ({why}); its VM is stopped", planned.name));
            }
        }
        self.old(&doing, planned).await?;
        let upid = self.pve.stop_vm(&at, WaitingShutdown::Respect).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing.clone(), &upid, cx).await?;
        if self.is_stopped(planned).await? { Ok(Output::Nothing) } else { Err(restarted(doing)) }
    }

    /// Waits until the VM is off; no when the grace is over. One that was started anew meanwhile is told at once: it
    /// would run for good, however long one waits.
    async fn goes_down(
        &self,
        planned: &VmIdentity,
        at: &VmRef,
        doing: &str,
        grace: u64,
        cx: &StepCx<'_>,
    ) -> Result<bool, StepError> {
        let since = cx.elapsed();
        let mut uptime = 0;
        while cx.elapsed().saturating_sub(since) < Duration::from_secs(grace) {
            let status = self.pve.vm_status(at).await;
            let status = status.map_err(|error| by_pve(format!("read the state of VM {}", planned.vmid), error))?;
            if status.is_stopped() {
                return Ok(true);
            }
            let now = status.uptime.unwrap_or_default();
            if now < uptime {
                return Err(restarted(doing));
            }
            uptime = now;
            cx.waiting("the machine to shut down", None);
            cx.sleep(LOOK).await;
        }
        cx.notice(format!("VM {} ({}) did not shut down within {grace} s and is stopped", planned.vmid, planned.name));
        Ok(false)
    }

    pub(super) async fn probe_retired(&self, planned: &VmIdentity, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        if let Some(upid) = cx.attached() {
            settle(self, upid, cx).await?;
        }
        let doing = format!("look at VM {}", planned.vmid);
        match self.old(&doing, planned).await {
            Ok(Old::Same) => Ok(Seen::Missing),
            Ok(Old::Gone) => Ok(Seen::Done(Output::Nothing)),
            Err(error) => {
                // Another VM than the one that was frozen: as long as nothing is gone, the freeze begins again.
                if error.class == Class::Refused {
                    self.still_frozen(&doing, cx).await?;
                }
                Err(error)
            }
        }
    }

    /// Deletes exactly the VM of the plan, which must be stopped.
    pub(super) async fn retire(
        &self,
        planned: &VmIdentity,
        forget: Forget,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("delete VM {} ({})", planned.vmid, planned.name);
        self.still_frozen(&doing, cx).await?;
        if !self.is_stopped(planned).await? {
            return Err(refused(doing, "it runs: someone started it after it was shut down")
                .hinted("find out who, shut it down, then resume"));
        }
        if let Old::Gone = self.old(&doing, planned).await? {
            return Ok(Output::Nothing);
        }
        let at = VmRef::new(planned.node.clone(), planned.vmid);
        let upid = self.pve.delete_vm(&at, forget).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing.clone(), &upid, cx).await?;
        match self.old(&doing, planned).await? {
            Old::Gone => Ok(Output::Nothing),
            Old::Same => Err(wrong(doing, "the task ended well and the VM is still there")),
        }
    }

    /// A deletion is asynchronous on PVE's side: clones that follow would fail or land beside ghosts.
    pub(super) async fn confirm_gone(&self, vmids: &[VmId], cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "confirm that the old VMs are gone on all nodes";
        let since = cx.elapsed();
        loop {
            let guests = self.pve.guests().await.map_err(|error| by_pve(doing, error))?;
            let left: Vec<String> = guests
                .iter()
                .filter(|guest| vmids.contains(&guest.vmid))
                .map(|guest| format!("{} on {}", guest.vmid, guest.node))
                .collect();
            if left.is_empty() {
                return Ok(Output::Nothing);
            }
            if cx.elapsed().saturating_sub(since) > LINGER {
                return Err(wrong(doing, format!("still there: {}", left.join(", "))));
            }
            cx.waiting("PVE's list", Some(&left.join(", ")));
            cx.sleep(LOOK).await;
        }
    }
}

/// Somebody or something (HA, a watchdog, a person) starts the VM while it is to stay off: the next attempt asks again,
/// a few times.
fn restarted(doing: impl Into<String>) -> StepError {
    StepError::new(Class::Transient, doing, "it was started again".to_owned())
        .hinted("find out who starts it: HA, a watchdog or a person; then resume")
}
