//! One look at the old cluster: power by Proxmox VE, etcd by the machines themselves.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::{join_all, try_join_all};

use super::decide::{self, Known, Move, Said, Seat, Voice, Voter};
use crate::engine::{StepCx, StepError};
use crate::observe::identity::{differences, identity};
use crate::plan::data::OldMachine;
use crate::plan::step::VmIdentity;
use crate::plan::{Output, Step};
use crate::pve::vm::VmRef;
use crate::steps::World;
use crate::steps::classify::{by_pve, refused, wrong};
use crate::talos::client::etcd::{Alarm, Ask};
use crate::talos::client::{Machine, TalosError};
use crate::types::Role;

/// How long a machine may take to answer for its etcd. A hang is an answer, too.
const SAY: Duration = Duration::from_secs(5);

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// How long elections, restarts of etcd and the like may take before what was odd is a failure.
pub(super) const SETTLE: Duration = Duration::from_mins(1);

/// Tasks that run a VM, or put another one in its place (Proxmox VE's worker types, `PVE/API2/Qemu.pm` and `HA`).
const STARTS: &[&str] =
    &["qmstart", "hastart", "qmreboot", "qmresume", "qmrollback", "qmrestore", "qmcreate", "qmigrate", "hamigrate"];

/// Whether lists of members and alarms are asked for: they need quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quorum {
    Held,
    Gone,
}

/// What was seen.
pub(super) struct Look {
    pub(super) seats: Vec<Seat>,
    pub(super) alarms: Vec<String>,
}

/// The control planes among these.
pub(super) fn control(machines: &[OldMachine]) -> Vec<OldMachine> {
    machines.iter().filter(|old| old.role == Role::ControlPlane).cloned().collect()
}

/// An error and its innermost cause, on one line.
pub(in crate::steps) fn in_short(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error.source();
    while let Some(deeper) = innermost.and_then(std::error::Error::source) {
        innermost = Some(deeper);
    }
    innermost.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

impl World {
    /// Looks at all control planes at once.
    pub(super) async fn look(&self, machines: &[OldMachine], quorum: Quorum) -> Result<Look, StepError> {
        let seats = try_join_all(machines.iter().map(|old| self.seat(old, quorum))).await?;
        let mut alarms = Vec::new();
        if quorum == Quorum::Held {
            let speaking = seats.iter().position(|seat| matches!(seat.voice, Voice::Says(_)));
            if let Some(index) = speaking
                && let Some(address) = machines[index].address
            {
                let machine = self.machine("ask for etcd's alarms", address)?.waiting(SAY);
                match machine.etcd_alarms().await {
                    Ok(found) => alarms = found.into_iter().map(|(id, alarm)| in_words(id, alarm, &seats)).collect(),
                    Err(error) => {
                        let why = in_short(&error);
                        let mut seats = seats;
                        seats[index].voice = Voice::Silent(why);
                        return Ok(Look { seats, alarms });
                    }
                }
            }
        }
        Ok(Look { seats, alarms })
    }

    async fn seat(&self, old: &OldMachine, quorum: Quorum) -> Result<Seat, StepError> {
        let name = old.vm.name.clone();
        if self.is_stopped(&old.vm).await? {
            return Ok(Seat { name, voice: Voice::Off });
        }
        let voice = match old.address {
            None => Voice::Silent("its address is not known".to_owned()),
            Some(address) => {
                let machine = self.machine(&format!("look at etcd on {name}"), address)?.waiting(SAY);
                match said(&machine, quorum).await {
                    Ok(said) => Voice::Says(said),
                    Err(error) => Voice::Silent(in_short(&error)),
                }
            }
        };
        Ok(Seat { name, voice })
    }

    /// Etcd's members, where it is sound: exactly the control planes, one leader, no alarm. What may pass is waited for.
    pub(in crate::steps) async fn sound(
        &self,
        doing: &str,
        machines: &[OldMachine],
        members: Option<&BTreeSet<u64>>,
        cx: &StepCx<'_>,
    ) -> Result<Vec<Voter>, StepError> {
        let since = cx.elapsed();
        loop {
            let Look { seats, alarms } = self.look(machines, Quorum::Held).await?;
            let listed = seats.iter().find_map(|seat| match &seat.voice {
                Voice::Says(said) => said.members.clone(),
                _ => None,
            });
            let listed = listed.unwrap_or_default();
            let own: BTreeSet<u64> = listed.iter().map(|member| member.id).collect();
            let stopped = BTreeSet::new();
            let known = Known { members: members.unwrap_or(&own), alarms: &alarms, stopped: &stopped, promise: None };
            let off: Vec<&str> =
                seats.iter().filter(|seat| seat.voice == Voice::Off).map(|seat| seat.name.as_str()).collect();
            if !off.is_empty() {
                return Err(refused(doing, format!("not running: {}", off.join(", ")))
                    .hinted("start it, and let the cluster become healthy first"));
            }
            let why = match decide::next(&seats, &known) {
                Move::Stop(_) | Move::Break(..) | Move::Alone(_) | Move::Frozen(..) => return Ok(listed),
                Move::Refuse(why) | Move::StartAgain(why) => {
                    return Err(refused(doing, why).hinted("repair etcd first: nothing was touched"));
                }
                Move::Wait(why) => why,
            };
            if cx.elapsed().saturating_sub(since) > SETTLE {
                return Err(refused(doing, why).hinted("etcd does not settle: look at it first, nothing was touched"));
            }
            cx.waiting("etcd", Some(&why));
            cx.sleep(LOOK).await;
        }
    }

    /// What the kept member says now, without asking for what needs quorum.
    pub(in crate::steps) async fn kept_says(&self, machine: &Machine) -> Result<Said, TalosError> {
        said(&machine.waiting(SAY), Quorum::Gone).await
    }

    /// The ids of etcd's members when the old cluster's state was saved.
    pub(super) fn members_before(&self, cx: &StepCx<'_>) -> Option<BTreeSet<u64>> {
        let saved = self.plan.steps().find(|planned| matches!(planned.step, Step::SaveBefore { .. }))?;
        match cx.output_of(&saved.id)? {
            Output::Before { members, .. } => {
                members.iter().map(|id| u64::from_str_radix(id, 16).ok()).collect::<Option<_>>()
            }
            _ => None,
        }
    }

    /// Every task there is that ever started one of these VMs, by its id.
    pub(super) async fn starts(&self, machines: &[VmIdentity]) -> Result<BTreeSet<String>, StepError> {
        let each = machines.iter().map(async |vm| {
            let tasks = self.pve.tasks_since(&vm.node, vm.vmid, 0).await;
            tasks.map_err(|error| by_pve(format!("list the tasks of VM {}", vm.vmid), error))
        });
        let found = try_join_all(each).await?.into_iter().flatten();
        let starts = found.filter(|task| STARTS.contains(&task.upid.kind.as_str()));
        Ok(starts.map(|task| task.upid.as_str().to_owned()).collect())
    }

    /// Why these VMs are not the ones that were planned: nothing for each that is.
    pub(super) async fn changed(&self, doing: &str, machines: &[VmIdentity]) -> Result<Vec<Changed>, StepError> {
        let looked = join_all(machines.iter().map(async |vm| {
            let at = VmRef::new(vm.node.clone(), vm.vmid);
            match self.pve.vm_config(&at).await {
                Ok(config) if config.is_template() => Ok(Changed::Other(vec!["it is a template by now".to_owned()])),
                Ok(config) => Ok(match differences(vm, &identity(&at, &config)) {
                    same if same.is_empty() => Changed::Not,
                    found => Changed::Other(found),
                }),
                Err(error) if error.is_missing_vm(vm.vmid) => Ok(Changed::Gone),
                Err(error) => Err(by_pve(doing, error)),
            }
        }));
        looked.await.into_iter().collect()
    }
}

/// How a VM differs from the plan's photograph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Changed {
    /// In nothing.
    Not,
    /// There is no such VM.
    Gone,
    /// In these ways.
    Other(Vec<String>),
}

async fn said(machine: &Machine, quorum: Quorum) -> Result<Said, TalosError> {
    let status = machine.etcd_status().await?;
    let members = match quorum {
        Quorum::Gone => None,
        Quorum::Held => {
            let listed = machine.etcd_members(Ask::Itself).await?.into_iter();
            Some(listed.map(|member| Voter { id: member.id, name: member.name, learner: member.is_learner }).collect())
        }
    };
    Ok(Said {
        id: status.id,
        leader: status.leader,
        term: status.term,
        committed: status.index,
        applied: status.applied,
        learner: status.is_learner,
        errors: status.errors,
        members,
    })
}

fn in_words(id: u64, alarm: Alarm, seats: &[Seat]) -> String {
    let whose = |seat: &&Seat| matches!(&seat.voice, Voice::Says(said) if said.id == id);
    let name = seats.iter().find(whose).map_or_else(|| format!("{id:016x}"), |seat| seat.name.clone());
    match alarm {
        Alarm::NoSpace => format!("{name} has no space left (NOSPACE)"),
        Alarm::Corrupt => format!("{name} holds other data than the others (CORRUPT)"),
    }
}

/// The address of a control plane, which is needed to ask it anything.
pub(super) fn address_of(doing: &str, old: &OldMachine) -> Result<std::net::IpAddr, StepError> {
    old.address.ok_or_else(|| wrong(doing, format!("the address of {} is not known", old.vm.name)))
}
