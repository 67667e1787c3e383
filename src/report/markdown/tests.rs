use super::super::sample::{self, Journal, Told};
use super::*;

#[test]
fn a_finished_run() {
    sample::golden("markdown-complete", &markdown(&Told::new(&Journal::complete()).report()));
}

#[test]
fn a_failed_run_names_the_next_command() {
    sample::golden("markdown-stopped", &markdown(&Told::new(&Journal::stopped()).report()));
}

#[test]
fn a_refusal_before_any_run() {
    let document = sample::refusal();
    sample::golden("markdown-refusal", &markdown(&Report { document: &document, run: None, resume: None }));
}

#[test]
fn hostile_names_stay_text() {
    let text = markdown(&Told::hostile().report());
    assert!(!text.contains("<script") && !text.contains("https://") && !text.contains('\u{1b}'), "{text}");
    assert!(!text.contains("[l](") && !text.contains(" @all"), "{text}");
    // Every row of a table has as many cells as its head.
    let mut cells = None;
    for line in text.lines() {
        let bars = line.replace(r"\|", "").matches('|').count();
        match cells.filter(|_| line.starts_with('|')) {
            Some(expected) => assert_eq!(bars, expected, "{line}"),
            None => cells = line.starts_with('|').then_some(bars),
        }
        if !line.starts_with('|') {
            cells = None;
        }
    }
    assert_eq!(fenced("sh", "a ``` b"), "````sh\na ``` b\n````\n");
}
