//! Whether a control plane may go down: etcd is sound without it, everybody has caught up, and it leads nobody.

use std::time::Duration;

use crate::engine::{Class, StepCx, StepError};
use crate::plan::Output;
use crate::plan::data::OldMachine;
use crate::plan::upgrade::Member;
use crate::steps::World;
use crate::steps::classify::{by_talos, refused, wrong};
use crate::talos::client::Machine;
use crate::talos::client::etcd::MemberStatus;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// How long elections and slow followers may take.
const SETTLE: Duration = Duration::from_mins(1);

/// How many voters must be left for writes: a majority of all.
fn survives(voters: usize) -> bool {
    voters - 1 > voters / 2
}

impl World {
    /// The same look as right before a control plane goes down, while no pod has left for it yet.
    pub(in crate::steps) async fn confirm_etcd(
        &self,
        control: &[OldMachine],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        self.can_spare_one("look whether etcd can spare a member", control, cx).await?;
        Ok(Output::Nothing)
    }

    /// Refuses unless etcd goes on without this machine; hands its leadership over. A cluster of one has no redundancy to
    /// keep: its API is away for the reboot, which the plan says.
    pub(super) async fn may_go_down(
        &self,
        doing: &str,
        member: &Member,
        control: &[OldMachine],
        cx: &StepCx<'_>,
    ) -> Result<(), StepError> {
        if self.can_spare_one(doing, control, cx).await? == 1 {
            return Ok(());
        }
        self.lead_nobody(doing, member, cx).await?;
        self.sound(doing, control, None, cx).await.map(drop)
    }

    /// How many members etcd has, where it is sound, goes on without one of them, and all of them have caught up.
    async fn can_spare_one(&self, doing: &str, control: &[OldMachine], cx: &StepCx<'_>) -> Result<usize, StepError> {
        let voters = self.sound(doing, control, None, cx).await?.len();
        if voters > 1 && !survives(voters) {
            return Err(refused(doing, format!("etcd has {voters} members, and needs all of them"))
                .hinted("add another control plane first: nothing can be written while one of them is away"));
        }
        self.caught_up(doing, control, cx).await?;
        Ok(voters)
    }

    /// Every member has applied what the leader had committed when this began.
    async fn caught_up(&self, doing: &str, control: &[OldMachine], cx: &StepCx<'_>) -> Result<(), StepError> {
        let machines = control.iter().map(|old| {
            let address =
                old.address.ok_or_else(|| wrong(doing, format!("the address of {} is not known", old.vm.name)))?;
            Ok((old.vm.name.as_str(), self.machine(doing, address)?))
        });
        let machines: Vec<(&str, Machine)> = machines.collect::<Result<_, StepError>>()?;
        let since = cx.elapsed();
        let mut mark = None;
        loop {
            let mut statuses: Vec<(&str, MemberStatus)> = Vec::new();
            for (name, machine) in &machines {
                statuses.push((name, machine.etcd_status().await.map_err(|error| by_talos(doing, error))?));
            }
            let newest = statuses.iter().map(|(_, status)| status.index).max().unwrap_or_default();
            let mark = *mark.get_or_insert(newest);
            let Some((name, behind)) = statuses.iter().find(|(_, status)| status.applied < mark) else { return Ok(()) };
            let why = format!("{name} has applied {} of {mark} entries", behind.applied);
            if cx.elapsed().saturating_sub(since) > SETTLE {
                return Err(refused(doing, why).hinted("a member that lags is no redundancy: find out why it does"));
            }
            cx.waiting("etcd's members to catch up", Some(&why));
            cx.sleep(LOOK).await;
        }
    }

    /// Hands etcd's leadership to another member, so that no write waits for an election when this one goes.
    async fn lead_nobody(&self, doing: &str, member: &Member, cx: &StepCx<'_>) -> Result<(), StepError> {
        let machine = self.machine(doing, member.address)?;
        let since = cx.elapsed();
        loop {
            let status = machine.etcd_status().await.map_err(|error| by_talos(doing, error))?;
            if status.leader != status.id && status.leader != 0 {
                return Ok(());
            }
            if cx.elapsed().saturating_sub(since) > SETTLE {
                return Err(StepError::new(Class::Transient, doing, "it keeps etcd's leadership"));
            }
            if status.leader == status.id {
                machine.etcd_forfeit_leadership().await.map_err(|error| by_talos(doing, error))?;
            }
            cx.waiting("etcd to choose another leader", None);
            cx.sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorum_is_a_majority_of_all_that_vote() {
        assert_eq!([2, 3, 4, 5, 7].map(survives), [false, true, true, true, true]);
    }
}
