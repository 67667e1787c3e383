//! Stopping the old cluster so that not one acknowledged write is lost, and giving it back.
//!
//! Purpose: etcd's quorum is taken away while its leader is kept ([`decide`] holds the rules), the kept member's last word
//! is saved by `steps::backup`, and anything that goes wrong starts again what was shut down ([`back`]). [`still`] looks,
//! right before anything is deleted, whether all is as it was frozen.
//! Must not know: what is done with the snapshot. Start reading at [`World::stop_majority`].

mod back;
pub(super) mod decide;
mod look;
mod still;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;

pub(super) use back::HandBack;
use decide::{Known, Move, Promise};
pub(super) use look::in_short;
use look::{LOOK, Look, Quorum, SETTLE, address_of, control};

use super::World;
use super::classify::{refused, wrong};
use crate::engine::{Seen, StepCx, StepError};
use crate::plan::Output;
use crate::plan::data::OldMachine;
use crate::plan::step::VmIdentity;
use crate::types::{MachineName, StepId};

/// The phase that is opened again when what was frozen is not frozen any more.
pub(super) const PHASE: &str = "freeze";

/// How often the choice of the kept member is made before a person has to look.
const TRIES: u32 = 4;

/// Between two looks at the only member while it goes down.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What one try came to.
enum Tried {
    Kept(Output),
    Again(String),
}

/// A kept control plane, as its step told.
pub(super) struct Kept<'a> {
    pub(super) machine: &'a MachineName,
    pub(super) address: std::net::IpAddr,
    pub(super) promise: Promise,
    /// Whether it is the only member.
    pub(super) alone: bool,
    pub(super) starts: &'a [String],
}

/// What the step that kept a control plane found out.
pub(super) fn kept<'a>(doing: &str, step: &StepId, cx: &'a StepCx<'_>) -> Result<Kept<'a>, StepError> {
    let Some(Output::Kept { machine, address, member, term, index, alone, starts }) = cx.output_of(step) else {
        return Err(wrong(doing, format!("{step} has kept no control plane")));
    };
    let id = u64::from_str_radix(member, 16).map_err(|_| wrong(doing, format!("'{member}' is no member's id")))?;
    let promise = Promise { name: machine.to_string(), id, term: *term, applied: *index };
    Ok(Kept { machine, address: *address, promise, alone: *alone, starts })
}

impl World {
    /// Whether etcd's quorum can be taken away is decided look by look; see [`decide`]. A try that went wrong starts
    /// everything again, so that the next one begins with a whole cluster.
    pub(super) async fn stop_majority(
        &self,
        machines: &[OldMachine],
        grace: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "take etcd's quorum away";
        let members = self.members_before(cx).ok_or_else(|| wrong(doing, "etcd's members were not saved before"))?;
        let mut last = String::new();
        for _ in 0..TRIES {
            match self.try_majority(doing, machines, &members, grace, cx).await? {
                Tried::Kept(output) => return Ok(output),
                Tried::Again(why) => {
                    cx.notice(format!("the freeze begins again: {why}"));
                    self.start_machines(machines, cx).await?;
                    last = why;
                }
            }
        }
        Err(wrong(doing, format!("it was tried {TRIES} times; the last time {last}")).hinted(
            "find out what starts machines or moves etcd's leader: the HA manager, a colleague, a failing disk",
        ))
    }

    async fn try_majority(
        &self,
        doing: &str,
        machines: &[OldMachine],
        members: &BTreeSet<u64>,
        grace: u64,
        cx: &StepCx<'_>,
    ) -> Result<Tried, StepError> {
        let victims = &self.plan.facts.victims;
        // Before anything goes down: whatever starts a machine from now on is found by comparing with these.
        let starts = self.starts(victims).await?;
        let mut stopped = BTreeSet::new();
        let mut promise: Option<Promise> = None;
        let mut since = cx.elapsed();
        loop {
            if cx.is_cancelled() {
                return Err(wrong(doing, "the run is to stop"));
            }
            let quorum = if promise.is_some() { Quorum::Gone } else { Quorum::Held };
            let decided = match self.look(machines, quorum).await {
                Ok(Look { seats, alarms }) => {
                    let known = Known { members, alarms: &alarms, stopped: &stopped, promise: promise.as_ref() };
                    decide::next(&seats, &known)
                }
                // Proxmox VE may be away for a moment.
                Err(error) => Move::Wait(in_short(&error)),
            };
            let down = match decided {
                Move::Refuse(why) => return Err(refused(doing, why).hinted("what was shut down is started again")),
                Move::StartAgain(why) => return Ok(Tried::Again(why)),
                Move::Wait(why) => {
                    if cx.elapsed().saturating_sub(since) > SETTLE {
                        return Err(wrong(doing, why).hinted("what was shut down is started again"));
                    }
                    cx.waiting("etcd", Some(&why));
                    cx.sleep(LOOK).await;
                    continue;
                }
                Move::Alone(promise) => {
                    let index = promise.applied;
                    return keep(doing, machines, promise, index, starts, Company::Alone).map(Tried::Kept);
                }
                Move::Frozen(promise, index) => {
                    let new = self.starts(victims).await?.into_iter().find(|task| !starts.contains(task));
                    return match new {
                        Some(task) => Ok(Tried::Again(format!("a machine was started meanwhile ({task})"))),
                        None => keep(doing, machines, promise, index, starts, Company::Others).map(Tried::Kept),
                    };
                }
                Move::Stop(name) => name,
                Move::Break(name, kept) => {
                    promise = Some(kept);
                    name
                }
            };
            let old = machines.iter().find(|old| old.vm.name == down);
            let old = old.ok_or_else(|| wrong(doing, format!("{down} is no control plane of the plan")))?;
            stopped.insert(down);
            self.shut_down(&old.vm, old.address, grace, cx).await?;
            since = cx.elapsed();
        }
    }

    fn kept_vm(doing: &str, machines: &[OldMachine], name: &MachineName) -> Result<VmIdentity, StepError> {
        let old = machines.iter().find(|old| old.vm.name == name.as_str());
        Ok(old.ok_or_else(|| wrong(doing, format!("{name} is no control plane of the plan")))?.vm.clone())
    }

    pub(super) async fn probe_kept_stopped(
        &self,
        step: &StepId,
        machines: &[OldMachine],
        cx: &StepCx<'_>,
    ) -> Result<Seen, StepError> {
        let doing = "look at the kept control plane";
        let kept = kept(doing, step, cx)?;
        self.probe_stopped(&Self::kept_vm(doing, machines, kept.machine)?, cx).await
    }

    /// The kept control plane goes last. Where it is the only one its writes go on until then: they are counted.
    pub(super) async fn shut_down_kept(
        &self,
        step: &StepId,
        snapshot: &StepId,
        machines: &[OldMachine],
        grace: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "shut down the last control plane";
        let kept = kept(doing, step, cx)?;
        let vm = Self::kept_vm(doing, machines, kept.machine)?;
        let down = self.shut_down(&vm, Some(kept.address), grace, cx);
        if !kept.alone {
            return down.await;
        }
        let machine = self.machine(doing, kept.address)?;
        let last = Cell::new(0);
        let listening = async {
            loop {
                if let Ok(said) = self.kept_says(&machine).await {
                    last.set(said.applied.max(last.get()));
                }
                cx.sleep(LAST_WORDS).await;
            }
        };
        unless(down, listening).await?;
        let saved = match cx.output_of(snapshot) {
            Some(Output::Snapshot { ends_at: Some(index), .. }) => *index,
            _ => kept.promise.applied,
        };
        let revisions = last.get().saturating_sub(saved);
        cx.notice(format!(
            "one control plane can't be frozen: at most {revisions} revision(s) lie between its final snapshot and its \
             shutdown"
        ));
        Ok(Output::Window { revisions })
    }
}

/// Whether there are other members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Company {
    Alone,
    Others,
}

/// What is known about the kept control plane.
fn keep(
    doing: &str,
    machines: &[OldMachine],
    promise: Promise,
    index: u64,
    starts: BTreeSet<String>,
    company: Company,
) -> Result<Output, StepError> {
    let old = machines.iter().find(|old| old.vm.name == promise.name);
    let old = old.ok_or_else(|| wrong(doing, format!("{} is no control plane of the plan", promise.name)))?;
    Ok(Output::Kept {
        machine: MachineName::new(promise.name),
        address: address_of(doing, old)?,
        member: format!("{:016x}", promise.id),
        term: promise.term,
        index,
        alone: company == Company::Alone,
        starts: starts.into_iter().collect(),
    })
}

/// Does one thing while another one, which never ends, goes on.
async fn unless<T>(work: impl Future<Output = T>, meanwhile: impl Future<Output = std::convert::Infallible>) -> T {
    match futures_util::future::select(pin!(work), pin!(meanwhile)).await {
        futures_util::future::Either::Left((done, _)) => done,
        futures_util::future::Either::Right((never, _)) => match never {},
    }
}
