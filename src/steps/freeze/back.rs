//! The way back: old machines are started again, and the old cluster is waited for until it is healthy.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::control;
use super::look::{LOOK, Look, Quorum, in_short};
use crate::engine::{Class, StepCx, StepError};
use crate::observe::identity::identity;
use crate::plan::data::{HaState, OldMachine};
use crate::plan::step::VmIdentity;
use crate::plan::{Data, Output};
use crate::pve::vm::VmRef;
use crate::steps::World;
use crate::steps::classify::{by_pve, by_talos, refused, wrong};
use crate::steps::freeze::decide::{Seat, Voice};
use crate::steps::task::finish;
use crate::talos::client::health::{HealthError, Question};
use crate::talos::client::status::Stage;
use crate::types::Role;

/// How long a machine may take to say how far it is.
const SAY: Duration = Duration::from_secs(3);

/// `ignored` leaves a resource where it is, and the HA manager's hands off it.
const IGNORED: &str = "ignored";

/// What is given back.
pub(in crate::steps) struct HandBack<'a> {
    pub(in crate::steps) resources: &'a [HaState],
    /// The machines to wait for.
    pub(in crate::steps) machines: &'a [OldMachine],
}

impl World {
    /// Starts those of these machines that are stopped; where the plan keeps their data, waits until they do their part.
    pub(in crate::steps) async fn start_old(
        &self,
        machines: &[OldMachine],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        self.start_machines(machines, cx).await.map(|()| Output::Nothing)
    }

    /// A machine that was asked to shut down may still run for a while: it is started as soon as it is off.
    pub(super) async fn start_machines(&self, machines: &[OldMachine], cx: &StepCx<'_>) -> Result<(), StepError> {
        let doing = "start the old machines again";
        let limit = Duration::from_secs(self.plan.limits.boot + self.plan.limits.shutdown);
        let since = cx.elapsed();
        loop {
            for old in machines {
                if self.is_stopped(&old.vm).await? {
                    self.start_one(&old.vm, cx).await?;
                }
            }
            let Data::Keep(_) = self.plan.data else { return Ok(()) };
            let mut missing = self.not_up(machines).await;
            if missing.is_empty() {
                match self.no_quorum(&control(machines)).await? {
                    None => return Ok(()),
                    Some(why) => missing.push(why),
                }
            }
            if cx.elapsed().saturating_sub(since) > limit {
                return Err(wrong(doing, format!("not back within {} s: {}", limit.as_secs(), missing.join("; "))));
            }
            cx.waiting("the old machines", Some(&missing.join("; ")));
            cx.sleep(LOOK).await;
        }
    }

    /// Starts the VM if it is the one that was shut down; a disk that somebody added since doesn't matter.
    async fn start_one(&self, planned: &VmIdentity, cx: &StepCx<'_>) -> Result<(), StepError> {
        let doing = format!("start VM {} ({}) again", planned.vmid, planned.name);
        let at = VmRef::new(planned.node.clone(), planned.vmid);
        let config = match self.pve.vm_config(&at).await {
            Ok(config) => config,
            Err(error) if error.is_missing_vm(planned.vmid) => return Err(wrong(doing, "it is gone")),
            Err(error) => return Err(by_pve(doing, error)),
        };
        let now = identity(&at, &config);
        if (&now.uuid, &now.name) != (&planned.uuid, &planned.name) || config.is_template() {
            return Err(refused(doing, "another VM has its number"));
        }
        let upid = self.pve.start_vm(&at).await.map_err(|error| by_pve(&doing, error))?;
        finish(self, doing, &upid, cx).await
    }

    /// Those that aren't up, and why.
    async fn not_up(&self, machines: &[OldMachine]) -> Vec<String> {
        let looks = machines.iter().filter_map(|old| Some((old, old.address?))).map(async |(old, address)| {
            let name = &old.vm.name;
            Ok::<_, std::convert::Infallible>(match self.stage_of(address).await {
                Ok(Stage::Running) => None,
                Ok(stage) => Some(format!("{name} is {stage}")),
                Err(why) => Some(format!("{name}: {why}")),
            })
        });
        try_join_all(looks).await.unwrap_or_default().into_iter().flatten().collect()
    }

    async fn stage_of(&self, address: IpAddr) -> Result<Stage, String> {
        let machine = self.machine("look at a machine", address).map_err(|error| in_short(&error))?.waiting(SAY);
        let status = machine.status().await.map_err(|error| in_short(&error))?;
        Ok(status.map_or(Stage::Booting, |status| status.stage))
    }

    /// Why etcd has no quorum on these; nothing where it has, or where none of them is a control plane.
    async fn no_quorum(&self, machines: &[OldMachine]) -> Result<Option<String>, StepError> {
        let Look { seats, .. } = self.look(machines, Quorum::Gone).await?;
        let leaders = |seat: &Seat| match &seat.voice {
            Voice::Says(said) => Ok(said.leader),
            Voice::Off => Err(format!("{} is stopped", seat.name)),
            Voice::Silent(why) => Err(format!("{}: {why}", seat.name)),
        };
        let leaders = match seats.iter().map(leaders).collect::<Result<Vec<u64>, String>>() {
            Ok(leaders) => leaders,
            Err(why) => return Ok(Some(why)),
        };
        let agreed = leaders.windows(2).all(|pair| pair[0] == pair[1]) && leaders.first() != Some(&0);
        Ok((!agreed).then(|| "etcd has no leader yet".to_owned()))
    }

    /// Sets the HA resources of the old VMs to `ignored`. One that the plan doesn't know is a refusal: it would be left
    /// without its manager for ever.
    pub(in crate::steps) async fn ignore_ha(
        &self,
        resources: &[HaState],
        machines: &[OldMachine],
    ) -> Result<Output, StepError> {
        let doing = "make the HA manager leave the old VMs alone";
        for old in machines {
            let at = VmRef::new(old.vm.node.clone(), old.vm.vmid);
            let status = self.pve.vm_status(&at).await.map_err(|error| by_pve(doing, error))?;
            if status.is_ha_managed() && !resources.iter().any(|resource| resource.vmid == old.vm.vmid) {
                return Err(refused(
                    doing,
                    format!("VM {} is managed by HA, and was not when the plan was made", old.vm.vmid),
                )
                .hinted("make a new plan"));
            }
        }
        for resource in resources {
            self.set_ha(doing, resource, IGNORED).await?;
        }
        Ok(Output::Nothing)
    }

    async fn set_ha(&self, doing: &str, resource: &HaState, state: &str) -> Result<(), StepError> {
        let told = self.pve.ha_resources().await.map_err(|error| by_pve(doing, error))?;
        match told.iter().find(|told| told.vmid() == Some(resource.vmid)) {
            None => {
                Err(refused(doing, format!("VM {} has no HA resource any more", resource.vmid))
                    .hinted("make a new plan"))
            }
            Some(told) if told.state.as_deref() == Some(state) => Ok(()),
            Some(_) => self.pve.set_ha_state(resource.vmid, state).await.map_err(|error| by_pve(doing, error)),
        }
    }

    /// HA as it was, and the old cluster as healthy as it was.
    pub(in crate::steps) async fn restore_ha(&self, back: HandBack<'_>, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "give the old cluster back";
        for resource in back.resources {
            self.set_ha(doing, resource, &resource.state).await?;
        }
        if back.machines.is_empty() {
            return Ok(Output::Nothing);
        }
        self.start_machines(back.machines, cx).await?;
        let addresses = |role: Role| -> Vec<String> {
            let of_role = back.machines.iter().filter(|old| old.role == role);
            of_role.filter_map(|old| old.address.map(|address| address.to_string())).collect()
        };
        let within = Duration::from_secs(self.plan.limits.health);
        let question =
            Question { control_planes: addresses(Role::ControlPlane), workers: addresses(Role::Worker), within };
        let first = back.machines.iter().find(|old| old.role == Role::ControlPlane).and_then(|old| old.address);
        let first = first.ok_or_else(|| wrong(doing, "the address of no control plane is known"))?;
        let machine = self.machine(doing, first)?;
        match machine.check_health(&question, |line| cx.waiting(&line.to_string(), None)).await {
            Ok(()) => Ok(Output::Nothing),
            Err(HealthError::Talos(error)) => Err(by_talos(doing, error)),
            Err(error) => Err(StepError::new(Class::Permanent, doing, error)
                .hinted("all its machines run again: look at the old cluster with talosctl and kubectl")),
        }
    }
}
