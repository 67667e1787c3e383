use super::super::sample::{self, HOSTILE, Journal, Told};
use super::*;

/// Text as a reader gets it: control characters are gone.
fn readable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[test]
fn a_failed_run_is_a_suite_per_phase_and_a_case_per_step_and_gate() {
    sample::golden("junit-stopped", &junit(&Told::new(&Journal::stopped()).report()));
}

#[test]
fn a_refusal_before_any_run_is_a_failed_case() {
    let document = sample::refusal();
    sample::golden("junit-refusal", &junit(&Report { document: &document, run: None, resume: None }));
}

#[test]
fn a_gate_that_says_no_fails_and_one_not_reached_is_skipped() {
    let refused = Journal::opened()
        .done("image/fetch")
        .started("template/create")
        .failed("template/create", crate::event::Class::Refused)
        .closed(crate::event::Outcome::Refused);
    let xml = junit(&Told::new(&refused).report());
    let parsed = roxmltree::Document::parse(&xml).unwrap();
    let gates: Vec<String> = parsed
        .descendants()
        .filter(|node| node.attribute("name").is_some_and(|name| name.starts_with("gate: ")))
        .map(|node| node.first_element_child().map_or("passed", |child| child.tag_name().name()).to_owned())
        .collect();
    assert_eq!(gates, ["passed", "failure", "skipped", "skipped", "skipped"]);
}

#[test]
fn counts_add_up_and_hostile_names_stay_text() {
    for told in [Told::hostile(), Told::new(&Journal::complete()), Told::new(&Journal::cancelled())] {
        let xml = junit(&told.report());
        let parsed = roxmltree::Document::parse(&xml).unwrap_or_else(|error| panic!("{error}\n{xml}"));
        let root = parsed.root_element();
        let count = |tag: &str| root.descendants().filter(|node| node.has_tag_name(tag)).count().to_string();
        assert_eq!(
            (root.attribute("tests"), root.attribute("failures"), root.attribute("skipped")),
            (Some(count("testcase").as_str()), Some(count("failure").as_str()), Some(count("skipped").as_str()))
        );
    }
    let xml = junit(&Told::hostile().report());
    let parsed = roxmltree::Document::parse(&xml).unwrap();
    let messages: Vec<&str> = parsed.descendants().filter_map(|node| node.attribute("message")).collect();
    assert!(messages.contains(&readable(HOSTILE).as_str()), "{messages:?}");
}
