//! Steps that bring another release onto a machine: pull, write, reboot, and believe nothing but what runs afterwards.
//!
//! Purpose: `gate` says when a control plane may go, `follow` watches one machine through its reboot, `judge` says what came
//! of it. Every step looks first, so that a run that was killed goes on at the right machine and reboots none twice.
//! Start reading at [`World::upgrade_machine`].

mod act;
mod follow;
mod gate;
mod judge;
mod prepare;

use std::time::Duration;

use self::follow::{SAY, glimpse};
use self::judge::{Glimpse, Goal};
use super::World;
use super::classify::{by_kubernetes, by_talos, refused, wrong};
use super::freeze::in_short;
use crate::engine::{Seen, StepCx, StepError};
use crate::k8s;
use crate::plan::data::OldMachine;
use crate::plan::upgrade::{By, Manner, Member, Release};
use crate::plan::{Output, Step};
use crate::types::{StepId, Version};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// All that is to be known about one machine's way into another release.
pub(super) struct Job<'a> {
    pub(super) machine: &'a Member,
    /// The step that saw which boot it was in.
    pub(super) before: &'a StepId,
    pub(super) from: &'a Version,
    /// None goes back to whatever it ran before.
    pub(super) release: Option<&'a Release>,
    pub(super) manner: Manner,
    pub(super) control: &'a [OldMachine],
    pub(super) drain: Option<u64>,
    pub(super) by: By,
}

impl<'a> Job<'a> {
    /// Of a step that reboots a machine; none of any other.
    pub(super) fn of(step: &'a Step) -> Option<Self> {
        match step {
            Step::UpgradeMachine { machine, before, from, release, manner, control, drain, .. } => Some(Self {
                machine,
                before,
                from,
                release: Some(release),
                manner: *manner,
                control,
                drain: *drain,
                by: By::Installer,
            }),
            Step::RollBackMachine { machine, before, from, release, by, manner, control, drain, .. } => Some(Self {
                machine,
                before,
                from,
                release: release.as_ref(),
                manner: *manner,
                control,
                drain: *drain,
                by: *by,
            }),
            _ => None,
        }
    }

    fn goal(&self) -> Goal<'_> {
        self.release.map_or(Goal::Another, Goal::Release)
    }

    fn is_reached(&self, now: &Glimpse) -> bool {
        match self.release {
            Some(release) => now.version == release.version && now.schematic.as_ref() == Some(&release.schematic),
            None => now.version < *self.from,
        }
    }
}

/// The boot that a machine was in when a step saw it.
fn boot_of<'c>(step: &StepId, cx: &'c StepCx<'_>) -> Option<&'c str> {
    match cx.output_of(step)? {
        Output::Machine { boot_id, .. } => boot_id.as_deref(),
        _ => None,
    }
}

fn seen(member: &Member, now: &Glimpse) -> Output {
    Output::Machine { address: member.address, pin: None, boot_id: Some(now.boot.clone()) }
}

impl World {
    /// How long a machine may take from the call until it is up: its own drain and writing, then two boots where it is staged.
    fn reboot_limit(&self) -> Duration {
        Duration::from_secs(self.plan.limits.boot * 2 + self.plan.limits.drain)
    }

    /// Done where it runs what it should in another boot. One that is on its way is waited for: an earlier attempt of this
    /// run may have sent it there. One that is up with its old release is to be told (again).
    pub(super) async fn probe_upgraded(&self, job: &Job<'_>, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let doing = format!("look what {} runs", job.machine.name);
        let machine = self.machine(&doing, job.machine.address)?.waiting(SAY);
        let (limit, since) = (self.reboot_limit(), cx.elapsed());
        let before = boot_of(job.before, cx);
        loop {
            let why = match glimpse(&machine).await {
                Ok(now) if job.is_reached(&now) && now.is_up() => {
                    return Ok(Seen::Done(seen(job.machine, &now)));
                }
                Ok(now) if Some(now.boot.as_str()) == before && !now.goes_down() => return Ok(Seen::Missing),
                Ok(now) if now.is_up() => {
                    if before.is_some() {
                        cx.notice(format!(
                            "{} was rebooted since this run saw it, and runs Talos {}: it is told again.",
                            job.machine.name, now.version
                        ));
                    }
                    return Ok(Seen::Missing);
                }
                Ok(now) => format!("Talos {}, not up", now.version),
                Err(error) => in_short(&error),
            };
            if cx.elapsed().saturating_sub(since) >= limit {
                return Err(wrong(&doing, format!("not up within {} s: {why}", limit.as_secs())).hinted(format!(
                    "look at {}'s console; when it is up, resume goes on from there",
                    job.machine.name
                )));
            }
            cx.waiting(&format!("{} to come up", job.machine.name), Some(&why));
            cx.sleep(LOOK).await;
        }
    }

    /// Ready in the new boot for a while, and etcd sound: only then may the next machine go.
    pub(super) async fn await_upgraded(
        &self,
        member: &Member,
        upgraded: &StepId,
        control: &[OldMachine],
        steady: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("wait until {} is steady", member.name);
        let boot_id = boot_of(upgraded, cx).map(str::to_owned);
        let boot_id = boot_id.ok_or_else(|| wrong(&doing, format!("{upgraded} has not seen its new boot")))?;
        let client = self.kube(&doing)?;
        let limit = Duration::from_secs(self.plan.limits.health + steady);
        let since = cx.elapsed();
        let mut watch: Option<k8s::Steady> = None;
        loop {
            let why = match client.nodes().await {
                Ok(nodes) => {
                    let node = nodes.iter().find(|node| node.name == member.name.as_str());
                    let watch = watch.get_or_insert_with(|| {
                        // Its kubelet stays what it was: whichever that is.
                        let kubelet = node.map(|node| node.kubelet.clone()).unwrap_or_default();
                        let expected =
                            k8s::Expected { name: member.name.to_string(), boot_id: boot_id.clone(), kubelet };
                        k8s::Steady::new(vec![expected], Duration::from_secs(steady))
                    });
                    match watch.sample(cx.elapsed(), &nodes) {
                        k8s::Verdict::Steady => break,
                        k8s::Verdict::Waiting { why } => why,
                    }
                }
                Err(error) if error.is_transient() => {
                    watch.as_mut().map(|watch| watch.blind(String::new()));
                    error.to_string()
                }
                Err(error) => return Err(by_kubernetes(doing, error)),
            };
            if cx.elapsed().saturating_sub(since) > limit {
                return Err(refused(doing, format!("not Ready and steady within {} s: {why}", limit.as_secs()))
                    .hinted("no other machine goes down meanwhile: see to the node, then resume"));
            }
            cx.waiting(&format!("node {}", member.name), Some(&why));
            cx.sleep(LOOK).await;
        }
        self.sound(&doing, control, None, cx).await?;
        let machine = self.machine(&doing, member.address)?;
        let now = glimpse(&machine).await.map_err(|error| by_talos(&doing, error))?;
        if now.boot != boot_id {
            return Err(wrong(&doing, "it rebooted once more while it was watched")
                .hinted("look at its console for why; resume looks again"));
        }
        Ok(Output::Nothing)
    }
}
