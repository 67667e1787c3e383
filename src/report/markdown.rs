//! A report as Markdown, for a merge request or a CI job's summary (`cat report.md >> "$GITHUB_STEP_SUMMARY"`).
//!
//! Must not know: how anything is done. Start reading at [`markdown`]. The dialect is GitHub's: tables, and HTML
//! entities in text.

use std::fmt::Write as _;

use super::document::{Backup, Ending, Problem, Work};
use super::sheet::{PhaseRow, Report, Sheet, State, VmRow};
use super::text;
use crate::plan::Versions;

/// The whole text.
pub fn markdown(report: &Report<'_>) -> String {
    let sheet = Sheet::of(report);
    let mut out = headline(&sheet);
    if let Some(work) = sheet.work {
        facts(&sheet, work, &mut out);
    }
    problems(&sheet, &mut out);
    if let Some(text) = sheet.state() {
        out += &fenced("text", &text);
    }
    phases(&sheet.phases, &mut out);
    vms(&sheet.vms, &mut out);
    if let Some(work) = sheet.work {
        backups(work, &mut out);
        for remark in sheet.remarks() {
            let _ = writeln!(out, "- {}\n", escaped(&remark));
        }
        if !work.regressions.is_empty() {
            let _ = writeln!(out, "### Ready before and not now\n");
            for workload in &work.regressions {
                let _ = writeln!(out, "- {}", escaped(workload));
            }
            out.push('\n');
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn headline(sheet: &Sheet<'_>) -> String {
    let mark = match sheet.document.outcome {
        Ending::Done => "✅",
        Ending::Pending => "📝",
        Ending::Cancelled => "⏸️",
        Ending::Refused | Ending::Invalid => "⛔",
        Ending::Failed | Ending::Stuck => "❌",
    };
    let mut out = format!("## {mark} recast {}: {}\n\n", escaped(&sheet.subject()), escaped(&sheet.ending()));
    if let Some(command) = sheet.resume {
        let _ = writeln!(out, "To go on:\n\n{}", fenced("sh", &command.replace(['\n', '\r'], " ")));
    }
    for line in &sheet.standing {
        let _ = writeln!(out, "- {}", escaped(line));
    }
    if !sheet.standing.is_empty() {
        out.push('\n');
    }
    out
}

fn facts(sheet: &Sheet<'_>, work: &Work, out: &mut String) {
    let before = work.versions.before.as_ref();
    let change = |before: Option<String>, after: Option<String>| match (before, after) {
        (Some(before), Some(after)) if before != after => format!("{before} → **{after}**"),
        (_, Some(after)) => after,
        (before, None) => before.map_or_else(String::new, |before| format!("{before} → none")),
    };
    let after = work.versions.after.as_ref();
    let of = |version: fn(&Versions) -> String| change(before.map(version), after.map(version));
    let mut rows = vec![
        ("Talos", of(|versions| versions.talos.to_string())),
        ("Kubernetes", of(|versions| versions.kubernetes.to_string())),
    ];
    if let Some(run) = &sheet.document.run {
        rows.insert(0, ("Run", escaped(run.as_str())));
    }
    if sheet.document.outcome != Ending::Pending {
        rows.push(("Took", text::seconds(work.seconds)));
        if let Some(down) = work.api_downtime_seconds {
            rows.push(("Kubernetes API down for", text::seconds(down)));
        }
        if work.requests > 0 {
            rows.push(("Requests", work.requests.to_string()));
        }
    }
    if let Some(restored) = &work.restored {
        rows.push(("Restored", format!("etcd revision {}, {} keys", restored.revision, restored.keys)));
    }
    let _ = writeln!(out, "| | |\n| --- | --- |");
    for (name, value) in rows {
        let _ = writeln!(out, "| {name} | {value} |");
    }
    out.push('\n');
}

fn problems(sheet: &Sheet<'_>, out: &mut String) {
    let (problems, warnings) = sheet.problems();
    list("Problems", &problems, out);
    list("Warnings", &warnings, out);
}

fn list(title: &str, problems: &[&Problem], out: &mut String) {
    if problems.is_empty() {
        return;
    }
    let _ = writeln!(out, "### {title}\n");
    for problem in problems {
        let place = problem.place.as_deref().map(|place| format!(" ({})", escaped(place))).unwrap_or_default();
        let _ = writeln!(out, "- **{}**{place}", escaped(&problem.what));
        for cause in problem.new_causes() {
            let _ = writeln!(out, "  - cause: {}", escaped(cause));
        }
        for hint in &problem.hints {
            let _ = writeln!(out, "  - hint: {}", escaped(hint));
        }
    }
    out.push('\n');
}

fn phases(phases: &[PhaseRow<'_>], out: &mut String) {
    if phases.is_empty() {
        return;
    }
    let _ = writeln!(out, "### Phases\n\n| Phase | | Seconds | Steps |\n| --- | --- | ---: | ---: |");
    for phase in phases {
        let seconds = phase.seconds.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.1}"));
        let _ = writeln!(
            out,
            "| {} | {} {} | {seconds} | {}/{} |",
            escaped(phase.name),
            mark(phase.state),
            phase.state.word(),
            phase.held(),
            phase.steps.len()
        );
    }
    out.push('\n');
}

fn mark(state: State) -> &'static str {
    match state {
        State::Done | State::Already | State::NotNeeded => "✅",
        State::Failed => "❌",
        State::Refused => "⛔",
        State::Unknown => "❔",
        State::Waiting => "⬜",
    }
}

fn vms(vms: &[VmRow<'_>], out: &mut String) {
    if vms.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "### Machines\n\n| Name | Role | Node | Address | Old VM | New VM |\n| --- | --- | --- | --- | ---: | ---: |"
    );
    for row in vms {
        let unknown = || "–".to_owned();
        let name = row.new.map(|vm| vm.name.as_str()).or_else(|| row.old.map(|vm| vm.name.as_str()));
        let node = row.new.map(|vm| vm.node.to_string()).or_else(|| row.old.map(|vm| vm.node.to_string()));
        let address = row.new.map(|vm| vm.address.map_or_else(|| "discovered".to_owned(), |ip| ip.to_string()));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} |",
            escaped(name.unwrap_or_default()),
            row.new.map_or_else(unknown, |vm| vm.role.to_string()),
            escaped(&node.unwrap_or_default()),
            address.unwrap_or_else(unknown),
            row.old.map_or_else(unknown, |vm| vm.vmid.to_string()),
            row.new.map_or_else(unknown, |vm| vm.vmid.to_string()),
        );
    }
    out.push('\n');
}

fn backups(work: &Work, out: &mut String) {
    let proofs: Vec<(String, &Backup)> = match &work.backups[..] {
        [] => work.backup.iter().map(|only| ("snapshot".to_owned(), only)).collect(),
        proven => proven.iter().map(|one| (format!("{}, from {}", one.purpose, one.machine), &one.backup)).collect(),
    };
    if proofs.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "### Proof of backup\n\n| Snapshot | Revision | Keys | SHA-256 | After it | Lies in |\n\
         | --- | ---: | ---: | --- | --- | --- |"
    );
    for (what, Backup { revision, keys, sha256, copies, frozen }) in proofs {
        let after = if *frozen { "nothing was written: quorum was gone" } else { "writes went on" };
        let copies: Vec<String> = copies.iter().map(|copy| escaped(copy)).collect();
        let copies = copies.join("<br>");
        let _ = writeln!(out, "| {} | {revision} | {keys} | `{sha256}` | {after} | {copies} |", escaped(&what));
    }
    out.push('\n');
}

/// A block of code whose fence is longer than any in the text.
fn fenced(language: &str, text: &str) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    let text: String = text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect();
    format!("{fence}{language}\n{}\n{fence}\n", text.trim_end())
}

/// Text that stays text: in a paragraph, a list or a table's cell. Markup, HTML, links, mentions and line ends lose
/// their meaning.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.chars().enumerate() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '@' => out += "&#64;",
            '$' => out += "&#36;",
            '\n' => out += "<br>",
            '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '|' | '~' => {
                out.push('\\');
                out.push(c);
            }
            // At the begin of an item they would open a list in it.
            '-' | '+' if at == 0 => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out.replace("://", "&#58;//").replace("www.", "www&#46;")
}

#[cfg(test)]
mod tests;
