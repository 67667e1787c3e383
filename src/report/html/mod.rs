//! A report as one HTML page: nothing is loaded, nothing runs, it prints, and it reads without its colours.
//!
//! Must not know: how anything is done. Start reading at [`html`]. The page is XML as well (every element closed, every
//! attribute quoted), so that tests can read it back with a strict parser.

mod style;
mod tables;
mod timeline;

use std::fmt::Write as _;

use super::document::{Ending, Problem, Work};
use super::sheet::{Report, Sheet, State};
use super::text;
use crate::plan::Versions;

/// The whole page.
pub fn html(report: &Report<'_>) -> String {
    let sheet = Sheet::of(report);
    let title = escaped(&format!("{}: {}", capitalised(&sheet.subject()), sheet.ending()));
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n\
         <meta name=\"color-scheme\" content=\"light dark\"/>\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\"/>\n\
         <title>{title}</title>\n<style>\n{}</style>\n</head>\n<body>\n",
        style::STYLE
    );
    header(&sheet, &mut out);
    out += "<main>\n";
    if let Some(work) = sheet.work {
        tiles(&sheet, work, &mut out);
    }
    problems(&sheet, &mut out);
    timeline::timeline(&sheet, &mut out);
    tables::machines(&sheet, &mut out);
    if let Some(work) = sheet.work {
        tables::backups(work, &mut out);
        tables::guests(work, &mut out);
        bullets("Also", &sheet.remarks(), &mut out);
        bullets("Ready before and not now", &work.regressions, &mut out);
    }
    notes(&sheet, &mut out);
    if sheet.work.is_none() {
        state(&sheet, &mut out);
        data(&sheet, &mut out);
    }
    let _ = write!(
        out,
        "</main>\n<footer><p>recast {} · report format {}</p></footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        sheet.document.format
    );
    out
}

fn header(sheet: &Sheet<'_>, out: &mut String) {
    let ending = sheet.document.outcome;
    let mut facts: Vec<String> = Vec::new();
    if let Some(run) = &sheet.document.run {
        facts.push(format!("run <code>{}</code>", escaped(run.as_str())));
    }
    if let Some(since) = sheet.progress.and_then(|progress| progress.since) {
        let machine = since.strftime("%Y-%m-%dT%H:%M:%SZ");
        facts.push(format!("begun <time datetime=\"{machine}\">{}</time>", since.strftime("%Y-%m-%d %H:%M:%S UTC")));
    }
    let resumed = sheet.progress.map_or(0, |progress| progress.resumed.len());
    if resumed > 0 {
        facts.push(format!("resumed {}", if resumed == 1 { "once".to_owned() } else { format!("{resumed} times") }));
    }
    let _ = write!(
        out,
        "<header>\n<p class=\"badge {}\"><span aria-hidden=\"true\">{}</span> {}</p>\n<h1>{}</h1>\n<p class=\"facts\">{}</p>\n",
        tone(ending),
        glyph_of(ending),
        escaped(&sheet.ending()),
        escaped(&capitalised(&sheet.subject())),
        facts.join(" · ")
    );
    out.push_str("</header>\n");
}

fn tone(ending: Ending) -> &'static str {
    match ending {
        Ending::Done => "good",
        Ending::Pending | Ending::Cancelled => "wait",
        Ending::Refused | Ending::Failed | Ending::Stuck | Ending::Invalid => "bad",
    }
}

fn glyph_of(ending: Ending) -> &'static str {
    match ending {
        Ending::Done => "✓",
        Ending::Pending => "…",
        Ending::Cancelled => "‖",
        Ending::Refused | Ending::Invalid => "⊘",
        Ending::Failed | Ending::Stuck => "✗",
    }
}

/// A state's sign, which is not its colour alone.
fn glyph(state: State) -> &'static str {
    match state {
        State::Done => "✓",
        State::Already => "=",
        State::NotNeeded => "–",
        State::Failed => "✗",
        State::Refused => "⊘",
        State::Unknown => "?",
        State::Waiting => "·",
    }
}

fn tiles(sheet: &Sheet<'_>, work: &Work, out: &mut String) {
    let mut tiles: Vec<(&str, String, String)> = Vec::new();
    let before = work.versions.before.as_ref();
    let after = work.versions.after.as_ref();
    let mut version = |name: &'static str, of: fn(&Versions) -> String| {
        let (before, after) = (before.map(of), after.map(of));
        let from = before.filter(|before| after.as_ref() != Some(before)).map(|before| format!("from {before}"));
        match after {
            Some(after) => tiles.push((name, after, from.unwrap_or_default())),
            // After a teardown nothing runs.
            None => tiles.extend(from.map(|from| (name, "none".to_owned(), from))),
        }
    };
    version("Talos", |versions| versions.talos.to_string());
    version("Kubernetes", |versions| versions.kubernetes.to_string());
    if sheet.document.outcome != Ending::Pending {
        tiles.push(("Took", text::seconds(work.seconds), String::new()));
        if let Some(down) = work.api_downtime_seconds {
            tiles.push(("Kubernetes API down", text::seconds(down), String::new()));
        }
    }
    if let Some(restored) = &work.restored {
        tiles.push(("etcd restored", format!("revision {}", restored.revision), text::count_of(restored.keys, "key")));
    } else if let Some(backup) = &work.backup {
        tiles.push(("etcd backed up", format!("revision {}", backup.revision), text::count_of(backup.keys, "key")));
    }
    out.push_str("<section aria-label=\"At a glance\">\n<dl class=\"tiles\">\n");
    for (name, value, more) in tiles {
        let more = if more.is_empty() { String::new() } else { format!("<dd class=\"more\">{}</dd>", escaped(&more)) };
        let _ = writeln!(out, "<div><dt>{name}</dt><dd>{}</dd>{more}</div>", escaped(&value));
    }
    out.push_str("</dl>\n</section>\n");
}

fn problems(sheet: &Sheet<'_>, out: &mut String) {
    let (problems, _) = sheet.problems();
    if problems.is_empty() && sheet.resume.is_none() && sheet.standing.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"problems\">\n");
    let title = if problems.is_empty() { "How it goes on" } else { "What is wrong" };
    let _ = writeln!(out, "<h2 id=\"problems\">{title}</h2>");
    for problem in problems {
        one(problem, "problem", out);
    }
    if !sheet.standing.is_empty() {
        out.push_str("<ul class=\"standing\">\n");
        for line in &sheet.standing {
            let _ = writeln!(out, "<li>{}</li>", escaped(line));
        }
        out.push_str("</ul>\n");
    }
    if let Some(command) = sheet.resume {
        let _ = writeln!(out, "<div class=\"next\"><p>To go on:</p><pre><code>{}</code></pre></div>", escaped(command));
    }
    out.push_str("</section>\n");
}

fn one(problem: &Problem, class: &str, out: &mut String) {
    let _ = write!(out, "<article class=\"{class}\"><p class=\"what\">{}</p>", lines(&problem.what));
    if let Some(place) = &problem.place {
        let _ = write!(out, "<p class=\"where\"><code>{}</code></p>", escaped(place));
    }
    let causes = problem.new_causes();
    if !causes.is_empty() || !problem.hints.is_empty() {
        out.push_str("<dl>");
        for cause in causes {
            let _ = write!(out, "<div><dt>cause</dt><dd>{}</dd></div>", lines(cause));
        }
        for hint in &problem.hints {
            let _ = write!(out, "<div class=\"hint\"><dt>hint</dt><dd>{}</dd></div>", lines(hint));
        }
        out.push_str("</dl>");
    }
    out.push_str("</article>\n");
}

/// Warnings and notices: to be known, nothing failed for them.
fn notes(sheet: &Sheet<'_>, out: &mut String) {
    let (_, warnings) = sheet.problems();
    let notices = sheet.progress.map_or(&[][..], |progress| &progress.notices[..]);
    if warnings.is_empty() && notices.is_empty() {
        return;
    }
    out.push_str("<section aria-labelledby=\"notes\">\n<h2 id=\"notes\">To be known</h2>\n");
    for warning in warnings {
        one(warning, "note", out);
    }
    for notice in notices {
        let _ = writeln!(out, "<article class=\"note\"><p class=\"what\">{}</p></article>", lines(notice));
    }
    out.push_str("</section>\n");
}

fn bullets(title: &str, items: &[String], out: &mut String) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(out, "<section>\n<h2>{title}</h2>\n<ul>");
    for item in items {
        let _ = writeln!(out, "<li>{}</li>", escaped(item));
    }
    out.push_str("</ul>\n</section>\n");
}

/// How the cluster stands.
fn state(sheet: &Sheet<'_>, out: &mut String) {
    if let Some(text) = sheet.state() {
        let _ = writeln!(
            out,
            "<section>\n<h2>How it stands</h2>\n<pre class=\"data wide\">{}</pre>\n</section>",
            escaped(&text)
        );
    }
}

/// A verb's own data, as it is in the document.
fn data(sheet: &Sheet<'_>, out: &mut String) {
    if sheet.document.extra.is_empty() {
        return;
    }
    let json = serde_json::to_string_pretty(&sheet.document.extra).unwrap_or_default();
    let _ = writeln!(out, "<section>\n<h2>Data</h2>\n<pre class=\"data\">{}</pre>\n</section>", escaped(&json));
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().collect::<String>() + chars.as_str())
}

/// Text of several lines.
fn lines(text: &str) -> String {
    escaped(text).replace('\n', "<br/>")
}

/// Text for elements and quoted attributes; what neither HTML nor XML can hold becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            '\n' | '\t' => out.push(c),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests;
