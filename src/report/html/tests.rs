use super::super::sample::{self, HOSTILE, Journal, Told};
use super::*;

/// The page read back by a strict parser: it is XML as well.
fn read(page: &str) -> roxmltree::Document<'_> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    roxmltree::Document::parse_with_options(page, options).unwrap_or_else(|error| panic!("{error}\n{page}"))
}

fn refusal() -> String {
    let document = sample::refusal();
    html(&Report { document: &document, run: None, resume: None })
}

#[test]
fn a_page_for_every_ending() {
    let pages = [
        ("complete", html(&Told::new(&Journal::complete()).report())),
        ("stopped", html(&Told::new(&Journal::stopped()).report())),
        ("refusal", refusal()),
    ];
    for (name, page) in pages {
        let (head, body) = page.split_once("<body>").unwrap();
        assert!(head.contains("<title>"), "{head}");
        sample::golden(&format!("html-{name}"), body);
    }
}

#[test]
fn nothing_is_loaded_and_nothing_runs() {
    for page in [html(&Told::hostile().report()), html(&Told::new(&Journal::complete()).report()), refusal()] {
        let parsed = read(&page);
        for node in parsed.descendants().filter(roxmltree::Node::is_element) {
            let tag = node.tag_name().name();
            assert!(!["script", "link", "img", "iframe", "object", "a", "form"].contains(&tag), "{tag}");
            for attribute in node.attributes() {
                let name = attribute.name();
                assert!(!name.starts_with("on") && name != "src" && name != "href", "{name}");
            }
        }
        assert!(!page.contains("url(") && !page.contains("@import"));
    }
}

#[test]
fn hostile_names_stay_text() {
    let page = html(&Told::hostile().report());
    let parsed = read(&page);
    let readable: String = HOSTILE.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let texts = parsed.descendants().filter_map(|node| node.text()).filter(|text| text.contains(&readable)).count();
    assert!(texts >= 8, "{texts}");
}

#[test]
fn what_is_seen_can_be_read_too() {
    let page = html(&Told::new(&Journal::complete()).report());
    let parsed = read(&page);
    let elements = |tag: &'static str| parsed.descendants().filter(move |node| node.has_tag_name(tag));
    assert_eq!((elements("h1").count(), elements("main").count()), (1, 1));
    assert!(elements("th").all(|head| head.attribute("scope").is_some()));
    let ids: Vec<&str> = parsed.descendants().filter_map(|node| node.attribute("id")).collect();
    for node in parsed.descendants() {
        if let Some(label) = node.attribute("aria-labelledby") {
            assert_eq!(ids.iter().filter(|id| **id == label).count(), 1, "{label}");
        }
    }
    let rows = parsed.descendants().filter(|node| node.attribute("class") == Some("row"));
    assert!(rows.clone().count() > 10);
    for row in rows {
        let text: String = row.descendants().filter_map(|node| node.text()).collect();
        assert!(text.contains("(done)") && text.contains(" s"), "{text}");
    }
}
