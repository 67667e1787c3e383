//! The one moment at which a machine goes down, and everything that has to be so right before it.

use std::time::Duration;

use super::follow::{Chase, SAY, glimpse};
use super::judge::{Cause, Glimpse};
use super::{Job, boot_of, seen};
use crate::engine::{StepCx, StepError};
use crate::plan::Output;
use crate::plan::kubernetes::Leftover;
use crate::plan::upgrade::{By, Reboot, Release, Way};
use crate::steps::World;
use crate::steps::classify::{by_talos, wrong};
use crate::steps::freeze::in_short;
use crate::talos::client::events::{Events, Tail};
use crate::talos::client::upgrade::{Ephemeral, UpgradeOrder, When, refusal};
use crate::talos::client::{Machine, RebootMode, TalosError};
use crate::types::Role;

/// What became of the call that sends a machine on its way.
enum Sent {
    /// It was taken, with an id to follow or without.
    Taken(Option<String>),
    /// Nobody knows: the connection broke. What comes of it is seen.
    Unknown,
    /// It said no.
    Refused(Cause),
}

impl World {
    /// Drains, makes sure of etcd, subscribes, acts, and follows until it is known what came of it. Called again after a
    /// failure it does all of it again: each part of it may be repeated.
    pub(in crate::steps) async fn upgrade_machine(&self, job: &Job<'_>, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = match job.release {
            Some(release) => format!("bring {} to Talos {}", job.machine.name, release.version),
            None => format!("bring {} back to the release before", job.machine.name),
        };
        let machine = self.machine(&doing, job.machine.address)?;
        let now = glimpse(&machine.waiting(SAY)).await.map_err(|error| by_talos(&doing, error))?;
        if let (By::Installer, Way::Written, Some(release)) = (job.by, job.manner.way, job.release)
            && boot_of(job.before, cx).is_some_and(|before| before != now.boot)
        {
            // An earlier attempt rebooted it, and it fell back: what was written is not what it boots any more.
            self.write_release(job.machine, release, cx).await?;
        }
        self.clear(job, cx).await?;
        if job.machine.role == Role::ControlPlane {
            self.may_go_down(&doing, job.machine, job.control, cx).await?;
        }
        let events = machine.events(Tail::New).await.map_err(|error| by_talos(&doing, error))?;
        // Once more, right before: what follows is measured against this boot.
        let before = glimpse(&machine.waiting(SAY)).await.map_err(|error| by_talos(&doing, error))?;
        let sent = match (self.call(job, &machine, &doing).await?, job.release) {
            (Sent::Refused(Cause::NothingBefore), Some(release)) => {
                cx.notice(format!(
                    "{} keeps no other release any more: {} is installed once more.",
                    job.machine.name, release.image
                ));
                match self.reinstall(job, &machine, release, &doing, cx).await {
                    Ok(sent) => sent,
                    Err(error) => {
                        // It was not told to reboot: it runs on.
                        self.let_in(job, cx).await;
                        return Err(error);
                    }
                }
            }
            (sent, _) => sent,
        };
        let ended = match sent {
            Sent::Refused(cause) => Err(cause),
            Sent::Taken(actor) => self.see_through(job, &machine, &before, events, actor, cx).await,
            Sent::Unknown => self.see_through(job, &machine, &before, events, None, cx).await,
        };
        match ended {
            Ok(now) => Ok(seen(job.machine, &now)),
            Err(cause) => Err(self.failed(job, &doing, cause, cx).await),
        }
    }

    async fn see_through(
        &self,
        job: &Job<'_>,
        machine: &Machine,
        before: &Glimpse,
        events: Events,
        actor: Option<String>,
        cx: &StepCx<'_>,
    ) -> Result<Glimpse, Cause> {
        let chase = Chase {
            member: job.machine,
            before,
            goal: job.goal(),
            events: Some(events),
            actor: actor.filter(|actor| !actor.is_empty()),
            limit: self.reboot_limit(),
            kernel_log: job.manner.kernel_log,
        };
        self.chase(machine, chase, cx).await
    }

    /// The call itself. From the moment that it may have arrived on, nothing is repeated.
    async fn call(&self, job: &Job<'_>, machine: &Machine, doing: &str) -> Result<Sent, StepError> {
        let reboot = mode(job.manner.reboot);
        // It pulls, looks and asks etcd before it answers.
        let patient = machine.waiting(Duration::from_secs(self.plan.limits.task));
        let answer = match (job.by, job.release, job.manner.way) {
            (By::Installer, Some(release), Way::Whole { keep, staged }) => {
                patient.upgrade(whole(release, keep, staged, reboot)).await.map(Some)
            }
            (By::Installer, Some(_), Way::Written) => machine.reboot(reboot).await.map(Some),
            (By::Installer, None, _) => {
                return Err(wrong(doing, "the plan names no release to install"));
            }
            (By::OtherSlot, ..) => patient.roll_back().await.map(|()| None),
        };
        Self::sent(answer, doing)
    }

    /// Back by the installer of the release before, where the machine itself kept nothing to go back to.
    async fn reinstall(
        &self,
        job: &Job<'_>,
        machine: &Machine,
        release: &Release,
        doing: &str,
        cx: &StepCx<'_>,
    ) -> Result<Sent, StepError> {
        self.pull_installer(job.machine, release, cx).await?;
        let patient = machine.waiting(Duration::from_secs(self.plan.limits.task));
        let answer = match job.manner.way {
            Way::Whole { keep, staged } => {
                patient.upgrade(whole(release, keep, staged, mode(job.manner.reboot))).await.map(Some)
            }
            Way::Written => {
                self.write_release(job.machine, release, cx).await?;
                machine.reboot(mode(job.manner.reboot)).await.map(Some)
            }
        };
        Self::sent(answer, doing)
    }

    fn sent(answer: Result<Option<String>, TalosError>, doing: &str) -> Result<Sent, StepError> {
        match answer {
            Ok(actor) => Ok(Sent::Taken(actor)),
            Err(error) if error.may_have_arrived() => Ok(Sent::Unknown),
            Err(error) => match words(&error) {
                Some(words) => Ok(Sent::Refused(Cause::of(words, refusal(words)))),
                None => Err(by_talos(doing, error)),
            },
        }
    }

    /// Takes its pods away first, so that they are told in time and a budget is kept.
    async fn clear(&self, job: &Job<'_>, cx: &StepCx<'_>) -> Result<(), StepError> {
        let Some(within) = job.drain else { return Ok(()) };
        self.cordon(job.machine, cx).await?;
        self.drain(job.machine, within, Leftover::Stay, cx).await.map(drop)
    }

    /// A machine that is there with its old release takes pods again; one that isn't stays cordoned.
    async fn failed(&self, job: &Job<'_>, doing: &str, cause: Cause, cx: &StepCx<'_>) -> StepError {
        if cause.leaves_it_up() {
            self.let_in(job, cx).await;
        }
        let (class, hint) = (cause.class(), cause.hint(job.machine, job.manner.way));
        StepError::new(class, doing, cause).hinted(hint)
    }

    /// Pods may come again, where they were kept off.
    async fn let_in(&self, job: &Job<'_>, cx: &StepCx<'_>) {
        if job.drain.is_some()
            && let Err(error) = self.uncordon(job.machine, cx).await
        {
            cx.notice(format!("{} stays cordoned: {}", job.machine.name, in_short(&error)));
        }
    }
}

fn mode(reboot: Reboot) -> RebootMode {
    match reboot {
        Reboot::Default => RebootMode::Default,
        Reboot::Powercycle => RebootMode::PowerCycle,
    }
}

fn whole(release: &Release, keep: bool, staged: bool, reboot: RebootMode) -> UpgradeOrder<'_> {
    UpgradeOrder {
        image: &release.image,
        ephemeral: if keep { Ephemeral::Keep } else { Ephemeral::Unsaid },
        when: if staged { When::NextBoot } else { When::Now },
        reboot,
    }
}

/// What a machine said itself when it said no; none where it said nothing.
fn words(error: &TalosError) -> Option<&str> {
    match error {
        TalosError::NotReady { reason, .. }
        | TalosError::NotFound { reason, .. }
        | TalosError::Rejected { reason, .. }
        | TalosError::Unimplemented { reason, .. } => Some(reason),
        TalosError::Other { message, .. } => Some(message),
        _ => None,
    }
}
