//! What every published report shows, put in order once.
//!
//! Purpose: phases with their gates, steps with how they ended, VMs old and new: so that JUnit, Markdown and HTML can't
//! disagree. Everything comes from the document, the plan and the progress.
//! Must not know: any of these formats. Start reading at [`Report`], then [`Sheet::of`].

use super::document::{Document, Ending, Kind, Problem, Work};
use super::fold::{Progress, StepFailure};
use super::gate::gate;
use super::{standing, status};
use crate::event::{Class, How};
use crate::plan::step::VmIdentity;
use crate::plan::{Phase, Plan, Planned, PlannedVm};

/// What a report is made from.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// The document.
    pub document: &'a Document,
    /// The run, when there is one.
    pub run: Option<Told<'a>>,
    /// The command that goes on; shown where the document says that it can.
    pub resume: Option<&'a str>,
}

/// A run: what was planned, and what was done of it.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// What was done of it.
    pub progress: &'a Progress,
}

/// How a step, a gate or a phase stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Done, by this run.
    Done,
    /// Found done.
    Already,
    /// Not needed.
    NotNeeded,
    /// Failed for good, or its undo did.
    Failed,
    /// A gate said no.
    Refused,
    /// Begun, and nobody knows how it stands.
    Unknown,
    /// Not begun, or taken back.
    Waiting,
}

impl State {
    /// For people.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Already => "already done",
            Self::NotNeeded => "not needed",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
            Self::Waiting => "not done",
        }
    }

    /// Whether what was to be is so.
    pub(super) fn holds(self) -> bool {
        matches!(self, Self::Done | Self::Already | Self::NotNeeded)
    }
}

impl From<How> for State {
    fn from(how: How) -> Self {
        match how {
            How::Applied => Self::Done,
            How::AlreadyDone => Self::Already,
            How::Skipped => Self::NotNeeded,
        }
    }
}

/// A step as reports show it.
#[derive(Clone, Debug)]
pub(super) struct StepRow<'a> {
    pub(super) id: &'a str,
    pub(super) title: String,
    pub(super) destructive: bool,
    pub(super) state: State,
    /// When it was begun, in seconds of the run.
    pub(super) start: Option<f64>,
    pub(super) seconds: f64,
    pub(super) failure: Option<&'a StepFailure>,
}

/// A phase as reports show it.
#[derive(Clone, Debug)]
pub(super) struct PhaseRow<'a> {
    pub(super) name: &'a str,
    /// What must hold at its end.
    pub(super) gate: &'static str,
    pub(super) state: State,
    pub(super) start: Option<f64>,
    /// None when it was not begun.
    pub(super) seconds: Option<f64>,
    pub(super) steps: Vec<StepRow<'a>>,
}

impl PhaseRow<'_> {
    /// How many of its steps are as they were to be.
    pub(super) fn held(&self) -> usize {
        self.steps.iter().filter(|step| step.state.holds()).count()
    }

    /// Why its gate does not hold; none where it does.
    pub(super) fn hindrance(&self) -> Option<String> {
        if self.state.holds() {
            return None;
        }
        let stopped = self.steps.iter().find(|step| !matches!(step.state, State::Waiting) && !step.state.holds());
        Some(match stopped {
            Some(step) => format!("step {}: {}", step.id, step.state.word()),
            None => "the run did not come to its end".to_owned(),
        })
    }
}

/// A machine: the VM that was, and the one that is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct VmRow<'a> {
    pub(super) old: Option<&'a VmIdentity>,
    pub(super) new: Option<&'a PlannedVm>,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Sheet<'a> {
    pub(super) document: &'a Document,
    pub(super) work: Option<&'a Work>,
    pub(super) progress: Option<&'a Progress>,
    pub(super) phases: Vec<PhaseRow<'a>>,
    pub(super) vms: Vec<VmRow<'a>>,
    /// Where a run that stopped leaves the old cluster, sentences.
    pub(super) standing: Vec<String>,
    pub(super) resume: Option<&'a str>,
}

impl<'a> Sheet<'a> {
    /// Puts a report's parts in order.
    pub(super) fn of(report: &Report<'a>) -> Self {
        let document = report.document;
        let work = document.work.as_ref();
        let phases = report.run.map(|told| told.plan.phases.iter().map(|phase| told.phase(phase)).collect());
        let old = report.run.map_or(&[][..], |told| &told.plan.destroys[..]);
        Self {
            document,
            work,
            progress: report.run.map(|told| told.progress),
            phases: phases.unwrap_or_default(),
            standing: report
                .run
                .filter(|_| stopped(document.outcome))
                .map_or_else(Vec::new, |told| told.standing(report.resume)),
            vms: vms(old, work.map_or(&[][..], |work| &work.vms[..])),
            resume: report.resume.filter(|_| document.resumable),
        }
    }

    /// What the report is about: `rebuild of single`.
    pub(super) fn subject(&self) -> String {
        match &self.document.cluster {
            Some(cluster) => format!("{} of {cluster}", self.document.verb),
            None => self.document.verb.clone(),
        }
    }

    /// How it ended, and in which phase it stopped: `failed in phase provision`.
    pub(super) fn ending(&self) -> String {
        let word = self.document.outcome.word();
        let phase = self.phases.iter().find(|phase| phase.start.is_some() && !phase.state.holds());
        match phase.filter(|_| stopped(self.document.outcome)) {
            Some(phase) => format!("{word} in phase {}", phase.name),
            None => word.to_owned(),
        }
    }

    /// What else is to be known of a run, sentences.
    pub(super) fn remarks(&self) -> Vec<String> {
        let Some(work) = self.work else { return Vec::new() };
        work.remarks()
    }

    /// How the cluster stands, where that was asked.
    pub(super) fn state(&self) -> Option<String> {
        let cluster = self.document.cluster.as_deref().unwrap_or("cluster");
        self.document.status.as_ref().map(|state| status::text(cluster, state))
    }

    /// What stands in the way, and what is only to be known.
    pub(super) fn problems(&self) -> (Vec<&'a Problem>, Vec<&'a Problem>) {
        self.document.problems.iter().partition(|problem| problem.kind != Kind::Warning)
    }

    /// The last second of the run that anything is shown at.
    pub(super) fn end(&self) -> f64 {
        self.progress.map_or(0.0, |progress| progress.seconds)
    }
}

/// Whether something may be left half-done.
fn stopped(ending: Ending) -> bool {
    matches!(ending, Ending::Refused | Ending::Failed | Ending::Stuck | Ending::Cancelled)
}

impl<'a> Told<'a> {
    fn standing(self, resume: Option<&str>) -> Vec<String> {
        let mut lines = standing::old_cluster(self.plan, self.progress, resume);
        lines.extend(standing::api(self.progress));
        lines
    }

    fn phase(self, phase: &'a Phase) -> PhaseRow<'a> {
        let steps: Vec<StepRow<'a>> = phase.steps.iter().map(|planned| self.step(planned)).collect();
        let done = self.progress.phases.iter().find(|done| done.name == phase.name);
        let has = |state: State| steps.iter().any(|step| step.state == state);
        let state = if done.is_some() && steps.iter().all(|step| step.state.holds()) {
            State::Done
        } else if has(State::Failed) {
            State::Failed
        } else if has(State::Refused) {
            State::Refused
        } else if has(State::Unknown) {
            State::Unknown
        } else {
            State::Waiting
        };
        PhaseRow {
            name: &phase.name,
            gate: gate(&phase.name),
            state,
            start: done.map(|done| done.start),
            seconds: done.map(|done| done.seconds),
            steps,
        }
    }

    fn step(self, planned: &'a Planned) -> StepRow<'a> {
        let done = self.progress.done(&planned.id);
        let begun = self.progress.begun.iter().find(|begun| begun.id == planned.id);
        let failure = self.progress.failures.iter().rfind(|failed| failed.step == planned.id);
        let state = match (failure, done) {
            (Some(StepFailure { class: Some(Class::Refused), .. }), _) => State::Refused,
            (Some(_), _) => State::Failed,
            (None, Some(done)) => done.how.into(),
            (None, None) if self.progress.unknown.contains(&planned.id) => State::Unknown,
            (None, None) => State::Waiting,
        };
        StepRow {
            id: planned.id.as_str(),
            title: planned.step.title(),
            destructive: planned.step.is_destructive(),
            state,
            start: done.map(|done| done.start).or_else(|| begun.map(|begun| begun.start)),
            seconds: done.map(|done| done.seconds).or_else(|| begun.map(|begun| begun.seconds)).unwrap_or_default(),
            failure,
        }
    }
}

/// New VMs with those they replace, then old ones that nothing replaces.
fn vms<'a>(old: &'a [VmIdentity], new: &'a [PlannedVm]) -> Vec<VmRow<'a>> {
    let replaced = |vm: &PlannedVm| old.iter().find(|old| Some(old.vmid) == vm.replaces);
    let mut rows: Vec<VmRow<'a>> = new.iter().map(|vm| VmRow { old: replaced(vm), new: Some(vm) }).collect();
    let left = old.iter().filter(|old| !new.iter().any(|vm| vm.replaces == Some(old.vmid)));
    rows.extend(left.map(|old| VmRow { old: Some(old), new: None }));
    rows
}

#[cfg(test)]
mod tests {
    use super::super::document::Input;
    use super::super::fold::progress_of;
    use super::super::sample::{self, Journal};
    use super::*;

    fn states(journal: &Journal) -> Vec<String> {
        let plan = sample::plan();
        let progress = progress_of(&plan, &journal.0);
        let document = Document::of_run(Input::new(&plan, &progress));
        let told = Told { plan: &plan, progress: &progress };
        let sheet = Sheet::of(&Report { document: &document, run: Some(told), resume: None });
        sheet
            .phases
            .iter()
            .map(|phase| {
                let steps: Vec<&str> = phase.steps.iter().map(|step| step.state.word()).collect();
                format!("{}: {} ({})", phase.name, phase.state.word(), steps.join(", "))
            })
            .collect()
    }

    #[test]
    fn phases_stand_as_their_steps_do() {
        assert_eq!(
            states(&Journal::stopped())[2..],
            ["canary: done (done, done)", "retire: done (done)", "provision: failed (done, failed)"]
        );
        assert_eq!(
            states(&Journal::cancelled())[..3],
            ["image: done (done)", "template: unknown (unknown)", "canary: not done (not done, not done)"]
        );
        let refused = Journal::opened().started("image/fetch").failed("image/fetch", Class::Refused);
        assert_eq!(states(&refused)[0], "image: refused (refused)");
    }

    #[test]
    fn every_old_vm_has_a_row() {
        let mut plan = sample::plan();
        let mut lone = plan.destroys[0].clone();
        lone.vmid = crate::types::VmId(1105);
        plan.destroys.push(lone);
        let rows = vms(&plan.destroys, &plan.vms);
        let numbers: Vec<_> =
            rows.iter().map(|row| (row.old.map(|old| old.vmid.0), row.new.map(|new| new.vmid.0))).collect();
        assert_eq!(numbers, [(Some(1100), Some(1101)), (Some(1105), None)]);
    }
}
