//! Problems as text: what failed, why, what to do next.
//!
//! ```text
//! error: could not start VM 1102 on node pve2
//!   cause: task UPID:pve2:… ended: start failed: timeout waiting on systemd
//!   hint: the VM may be running nevertheless; a resume looks before it tries again
//!   resume: recast resume 2026-11-20T22-31-05
//! ```

use super::colour::{Colour, Tone};
use super::document::new_causes;
use crate::event::Failure;

/// All problems, one below the other; the command that goes on, if there is one, below the last.
pub fn text<'a>(failures: impl IntoIterator<Item = &'a Failure>, resume: Option<&str>, colour: Colour) -> String {
    let mut out: String = failures.into_iter().map(|failure| one(failure, colour)).collect();
    if let Some(command) = resume {
        out += &labelled("  ", "resume", Tone::Hint, command, colour);
    }
    out
}

/// One problem. Texts of several lines (a profile's line with a caret below it) keep them.
fn one(failure: &Failure, colour: Colour) -> String {
    let mut out = labelled("", "error", Tone::Bad, &failure.what, colour);
    for cause in new_causes(&failure.what, &failure.causes) {
        out += &labelled("  ", "cause", Tone::Warn, cause, colour);
    }
    for hint in &failure.hints {
        out += &labelled("  ", "hint", Tone::Hint, hint, colour);
    }
    out
}

/// `label: text`, further lines below the text; those of an unindented label stay where they are.
fn labelled(indent: &str, label: &str, tone: Tone, text: &str, colour: Colour) -> String {
    let under = if indent.is_empty() { String::new() } else { " ".repeat(indent.len() + label.len() + 2) };
    let text = text.trim_end().replace('\n', &format!("\n{under}"));
    format!("{indent}{} {text}\n", colour.paint(tone, &format!("{label}:")))
}

/// A warning: worth knowing, the run goes on.
pub fn warning(text: &str, colour: Colour) -> String {
    labelled("", "warning", Tone::Warn, text, colour)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(what: &str, causes: &[&str], hints: &[&str]) -> Failure {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Failure { what: what.to_owned(), causes: texts(causes), hints: texts(hints) }
    }

    #[test]
    fn a_problem_says_what_why_and_what_next() {
        let failures = [
            failure(
                "could not start VM 1102 on node pve2",
                &["task UPID:pve2:0001 ended: start failed: timeout waiting on systemd", "timeout waiting on systemd"],
                &["the VM may be running nevertheless; a resume looks before it tries again"],
            ),
            failure("could not read the answer", &["expected value\nat line 1"], &[]),
        ];
        insta::assert_snapshot!(text(&failures, Some("recast resume 2026-11-20T22-31-05"), Colour::Off), @r#"
        error: could not start VM 1102 on node pve2
          cause: task UPID:pve2:0001 ended: start failed: timeout waiting on systemd
          hint: the VM may be running nevertheless; a resume looks before it tries again
        error: could not read the answer
          cause: expected value
                 at line 1
          resume: recast resume 2026-11-20T22-31-05
        "#);
    }

    #[test]
    fn a_snippet_keeps_its_columns() {
        let snippet = "a.yaml:12:3: talos.verson: unknown key\n    |\n 12 |   verson: 1\n    |   ^";
        insta::assert_snapshot!(text([&failure(snippet, &[], &["did you mean `version`?"])], None, Colour::Off), @r#"
        error: a.yaml:12:3: talos.verson: unknown key
            |
         12 |   verson: 1
            |   ^
          hint: did you mean `version`?
        "#);
    }

    #[test]
    fn colour_is_only_in_the_labels() {
        let coloured = text([&failure("no", &[], &[])], None, Colour::On);
        assert!(coloured.starts_with('\u{1b}') && coloured.ends_with(" no\n"), "{coloured:?}");
        assert_eq!(warning("slow", Colour::Off), "warning: slow\n");
    }
}
