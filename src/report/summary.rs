//! The last words of a run, for people: what was done, or where it stands and how it goes on.
//!
//! Purpose: everything comes from the document, the plan and the progress, so that text and JSON can't disagree.
//! Must not know: how a verb is carried out. Start reading at [`Summary::text`].

use std::fmt::Write as _;

use super::colour::{Colour, Tone};
use super::document::{Document, Ending, Kind, VmRef, Work};
use super::fold::{PhaseDone, Progress};
use super::{problem, standing, text};
use crate::event::{Failure, How};
use crate::plan::{Phase, Plan, Versions};
use crate::types::{RunId, StepId};

/// What a summary is made from.
#[derive(Clone, Copy, Debug)]
pub struct Summary<'a> {
    /// The document of the same run.
    pub document: &'a Document,
    /// The plan.
    pub plan: &'a Plan,
    /// What was done of it.
    pub progress: &'a Progress,
    /// The command that goes on, [`resume_command`]; shown where the document says that it can.
    pub resume: Option<&'a str>,
    /// Coloured or not.
    pub colour: Colour,
}

/// The command that goes on with a run, to be pasted into a shell.
pub fn resume_command(run: &RunId, profile: &str) -> String {
    format!("recast resume {run} --profile {}", quoted(profile))
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Summary<'_> {
    /// The whole text.
    pub fn text(&self) -> String {
        let mut out = self.headline();
        match (self.document.outcome, &self.document.work) {
            (Ending::Done, Some(work)) => {
                self.done(work, &mut out);
                table(self.plan, &self.progress.phases, &mut out);
            }
            (Ending::Refused | Ending::Failed | Ending::Stuck | Ending::Cancelled, Some(work)) => {
                self.stands(work, &mut out);
                table(self.plan, &self.progress.phases, &mut out);
            }
            (Ending::Pending | Ending::Invalid, _) | (_, None) => {}
        }
        out + &self.problems()
    }

    fn headline(&self) -> String {
        let Plan { verb, cluster, run, .. } = self.plan;
        let what = format!("{verb} of {cluster}");
        let lasted = text::seconds(self.progress.seconds);
        let (tone, line) = match self.document.outcome {
            Ending::Done => (Tone::Good, format!("Done: {what} in {lasted} (run {run})")),
            Ending::Pending => (Tone::Strong, format!("Dry run: {what} would change things, nothing was done")),
            Ending::Refused => (Tone::Bad, format!("Refused: {what}{} (run {run})", self.place())),
            Ending::Failed => (Tone::Bad, format!("Failed: {what} stopped{} after {lasted} (run {run})", self.place())),
            Ending::Stuck => (
                Tone::Bad,
                format!("Stuck: {what}{}: something can't be undone, a person has to look (run {run})", self.place()),
            ),
            Ending::Cancelled => {
                (Tone::Warn, format!("Cancelled: {what} is parked{} after {lasted} (run {run})", self.place()))
            }
            Ending::Invalid => (Tone::Bad, format!("Invalid: {what} was not begun")),
        };
        self.colour.paint(tone, &line) + "\n"
    }

    /// The phase in which it stopped.
    fn place(&self) -> String {
        let stopped = self.progress.phases.iter().find(|phase| phase.left > 0);
        stopped.map(|phase| format!(" in phase {}", phase.name)).unwrap_or_default()
    }

    fn done(&self, work: &Work, out: &mut String) {
        let versions = versions(work.versions.before.as_ref(), work.versions.after.as_ref());
        if !versions.is_empty() {
            line(out, &versions);
        }
        vms("Created", &work.created, out);
        vms("Destroyed", &work.destroyed, out);
        vms("Parked", &work.parked, out);
        backup(work, out);
        if let Some(restored) = &work.restored {
            line(out, &format!("Restored: etcd revision {}, {} keys", restored.revision, restored.keys));
        }
        for remark in work.remarks() {
            line(out, &remark);
        }
        if !work.regressions.is_empty() {
            line(out, &format!("Ready before and not now: {}", work.regressions.join(", ")));
        }
        if let Some(down) = work.api_downtime_seconds {
            line(out, &format!("The Kubernetes API was down for {}", text::seconds(down)));
        }
        if work.requests > 0 {
            line(out, &format!("{} requests were sent", work.requests));
        }
        for notice in &self.progress.notices {
            line(out, &format!("{} {notice}", self.colour.paint(Tone::Warn, "!")));
        }
    }

    /// Where it stands: what is old, what is new, what nobody knows yet.
    fn stands(&self, work: &Work, out: &mut String) {
        for failed in &self.progress.failures {
            let which = if failed.is_undo() { "The undo of step" } else { "Step" };
            line(out, &format!("{which} {} failed: {}", failed.step, self.title(&failed.step)));
        }
        for step in &self.progress.unknown {
            line(out, &format!("Step {step} was begun, its outcome is unknown: {}", self.title(step)));
        }
        for text in standing::old_cluster(self.plan, self.progress, self.resume) {
            line(out, &text);
        }
        vms("Destroyed", &work.destroyed, out);
        vms("Parked", &work.parked, out);
        vms("Created", &work.created, out);
        backup(work, out);
        if let Some(text) = standing::api(self.progress) {
            line(out, &text);
        }
    }

    fn title(&self, id: &StepId) -> String {
        let planned = self.plan.steps().find(|planned| planned.id == *id);
        planned.map(|planned| planned.step.title()).unwrap_or_default()
    }

    fn problems(&self) -> String {
        let mut out = String::new();
        let (warnings, errors): (Vec<_>, Vec<_>) =
            self.document.problems.iter().partition(|problem| problem.kind == Kind::Warning);
        for warning in warnings {
            out += &problem::warning(&warning.what, self.colour);
        }
        let errors: Vec<Failure> = errors
            .into_iter()
            .map(|problem| Failure {
                what: problem.what.clone(),
                causes: problem.causes.clone(),
                hints: problem.hints.clone(),
            })
            .collect();
        let resume = self.resume.filter(|_| self.document.resumable);
        out += &problem::text(&errors, resume, self.colour);
        if out.is_empty() { out } else { format!("\n{out}") }
    }
}

fn line(out: &mut String, text: &str) {
    let _ = writeln!(out, "  {text}");
}

fn versions(before: Option<&Versions>, after: Option<&Versions>) -> String {
    let Some(after) = after else {
        return before.map_or_else(String::new, |before| {
            format!("Talos {}, Kubernetes {} ran there", before.talos, before.kubernetes)
        });
    };
    let change = |what: &str, before: Option<String>, after: String| match before {
        Some(before) if before != after => format!("{what} {before} → {after}"),
        _ => format!("{what} {after}"),
    };
    let talos = change("Talos", before.map(|before| before.talos.to_string()), after.talos.to_string());
    let kubernetes =
        change("Kubernetes", before.map(|before| before.kubernetes.to_string()), after.kubernetes.to_string());
    format!("{talos}, {kubernetes}")
}

fn vms(label: &str, vms: &[VmRef], out: &mut String) {
    if vms.is_empty() {
        return;
    }
    let named: Vec<String> = vms
        .iter()
        .map(|vm| {
            let kind = if vm.template { "template" } else { "VM" };
            format!("{kind} {} ({}) on {}", vm.vmid, vm.name, vm.node)
        })
        .collect();
    line(out, &format!("{label}: {}", named.join(", ")));
}

fn backup(work: &Work, out: &mut String) {
    if let Some(backup) = &work.backup {
        let frozen = if backup.frozen { ", nothing was written after it" } else { "" };
        let copies = backup.copies.join(", ");
        line(out, &format!("Backup: etcd revision {}, {} keys{frozen}: {copies}", backup.revision, backup.keys));
    }
}

fn table(plan: &Plan, phases: &[PhaseDone], out: &mut String) {
    if phases.is_empty() {
        return;
    }
    let rows: Vec<(String, String, String)> = plan
        .phases
        .iter()
        .map(|phase| match phases.iter().find(|done| done.name == phase.name) {
            Some(done) => (phase.name.clone(), format!("{:.1}", done.seconds), steps(done)),
            None => (phase.name.clone(), "-".to_owned(), not_begun(phase)),
        })
        .collect();
    let width = rows.iter().map(|row| row.0.len()).max().unwrap_or_default().max("PHASE".len());
    let _ = writeln!(out, "\n  {:width$}  {:>8}  STEPS", "PHASE", "SECONDS");
    for (name, seconds, steps) in rows {
        let _ = writeln!(out, "  {name:width$}  {seconds:>8}  {steps}");
    }
}

fn steps(done: &PhaseDone) -> String {
    let count = |how: How| done.steps.iter().filter(|step| step.how == how).count();
    let parts = [
        (count(How::Applied), "applied"),
        (count(How::AlreadyDone), "already done"),
        (count(How::Skipped), "not needed"),
        (done.left, "NOT DONE"),
    ];
    let parts: Vec<String> =
        parts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    parts.join(", ")
}

fn not_begun(phase: &Phase) -> String {
    format!("{} not begun", phase.steps.len())
}

#[cfg(test)]
mod tests {
    use super::super::document::{Backup, Input};
    use super::super::fold::progress_of;
    use super::super::sample::{self, Journal};
    use super::*;
    use crate::types::Sha256;

    fn summary(journal: &Journal) -> String {
        let plan = sample::plan();
        let progress = progress_of(&plan, &journal.0);
        let backup = Backup {
            revision: 1234,
            keys: 100,
            sha256: Sha256::of(b"snapshot"),
            copies: vec!["backups/etcd-rebuild.snapshot".to_owned()],
            frozen: true,
        };
        let input = Input { requests: 42, backup: Some(backup), ..Input::new(&plan, &progress) };
        let resume = resume_command(&plan.run, "clusters/single.yaml");
        let (document, resume) = (Document::of_run(input), Some(resume.as_str()));
        Summary { document: &document, plan: &plan, progress: &progress, resume, colour: Colour::Off }.text()
    }

    #[test]
    fn success_says_what_was_done() {
        insta::assert_snapshot!(summary(&Journal::complete()), @r#"
        Done: rebuild of single in 21.0 s (run 2026-11-20T22-31-05)
          Talos 1.12.4 → 1.13.9, Kubernetes 1.34.1 → 1.35.0
          Created: template 900 (talos-template) on pve1, VM 1101 (single-cp-01) on pve1
          Destroyed: VM 1100 (single-cp-01) on pve1
          Backup: etcd revision 1234, 100 keys, nothing was written after it: backups/etcd-rebuild.snapshot
          The Kubernetes API was down for 11.0 s
          42 requests were sent

          PHASE       SECONDS  STEPS
          image           1.0  1 applied
          template        1.0  1 applied
          canary          3.0  2 applied
          retire          1.0  1 applied
          provision       5.0  2 applied
        "#);
    }

    #[test]
    fn failure_says_where_it_stands_and_how_it_goes_on() {
        insta::assert_snapshot!(summary(&Journal::stopped()), @r#"
        Failed: rebuild of single stopped in phase provision after 17.0 s (run 2026-11-20T22-31-05)
          Step provision/single-cp-01/start failed: start VM 1101 (single-cp-01)
          Destroyed: VM 1100 (single-cp-01) on pve1
          Created: template 900 (talos-template) on pve1, VM 1101 (single-cp-01) on pve1
          Backup: etcd revision 1234, 100 keys, nothing was written after it: backups/etcd-rebuild.snapshot
          The Kubernetes API is down, for 7.0 s when the run ended

          PHASE       SECONDS  STEPS
          image           1.0  1 applied
          template        1.0  1 applied
          canary          3.0  2 applied
          retire          1.0  1 applied
          provision       4.0  1 applied, 1 NOT DONE

        error: could not start VM 1101 on node pve1
          cause: task UPID:pve1:0001 ended: no space left
          hint: free some space on local-lvm
          resume: recast resume 2026-11-20T22-31-05 --profile clusters/single.yaml
        "#);
    }

    #[test]
    fn a_cancelled_run_is_parked() {
        insta::assert_snapshot!(summary(&Journal::cancelled()), @r#"
        Cancelled: rebuild of single is parked in phase template after 5.0 s (run 2026-11-20T22-31-05)
          Step template/create was begun, its outcome is unknown: create VM 900 (talos-template) on pve1 from the image
          The old cluster has not been touched.
          Backup: etcd revision 1234, 100 keys, nothing was written after it: backups/etcd-rebuild.snapshot

          PHASE       SECONDS  STEPS
          image           1.0  1 applied
          template        2.0  1 NOT DONE
          canary            -  2 not begun
          retire            -  1 not begun
          provision         -  2 not begun

          resume: recast resume 2026-11-20T22-31-05 --profile clusters/single.yaml
        "#);
    }

    #[test]
    fn a_killed_run_names_the_step_whose_outcome_is_unknown() {
        let killed = Journal::opened().done("image/fetch").started("template/create");
        insta::assert_snapshot!(summary(&killed), @r#"
        Failed: rebuild of single stopped in phase template after 3.0 s (run 2026-11-20T22-31-05)
          Step template/create was begun, its outcome is unknown: create VM 900 (talos-template) on pve1 from the image
          The old cluster has not been touched.
          Backup: etcd revision 1234, 100 keys, nothing was written after it: backups/etcd-rebuild.snapshot

          PHASE       SECONDS  STEPS
          image           1.0  1 applied
          template        0.0  1 NOT DONE
          canary            -  2 not begun
          retire            -  1 not begun
          provision         -  2 not begun

        error: run 2026-11-20T22-31-05 was not brought to an end
          cause: its process was killed, or is still at it
          resume: recast resume 2026-11-20T22-31-05 --profile clusters/single.yaml
        "#);
    }

    #[test]
    fn a_refusal_before_the_first_step_carries_its_reasons() {
        let (plan, progress) = (sample::plan(), Progress::default());
        let refusal = super::super::document::Problem::new(Kind::Refused, &sample::failure());
        let input = Input { ending: Some(Ending::Refused), problems: vec![refusal], ..Input::new(&plan, &progress) };
        let document = Document::of_run(input);
        let resume = Some("recast resume");
        let summary = Summary { document: &document, plan: &plan, progress: &progress, resume, colour: Colour::Off };
        insta::assert_snapshot!(summary.text(), @r#"
        Refused: rebuild of single (run 2026-11-20T22-31-05)
          The old cluster has not been touched.

        error: could not start VM 1101 on node pve1
          cause: task UPID:pve1:0001 ended: no space left
          hint: free some space on local-lvm
        "#);
    }

    #[test]
    fn the_resume_command_can_be_pasted() {
        assert_eq!(resume_command(&"r".into(), "a b's.yaml"), r"recast resume r --profile 'a b'\''s.yaml'");
    }
}
