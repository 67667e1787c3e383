//! What is wrong with a text that is no calendar event, and where.
//!
//! The original reads an event from left to right, each part as far as it goes, and names the first place where it
//! can't go on (proxmox-time, `parse_calendar_event_incomplete`). Must not know: what an event means. Start at
//! [`Calendar::complaint`].

use super::{Calendar, weekday};

/// What is left of a text behind a part that was understood.
type Rest<'a> = Option<&'a str>;

fn number(text: &str, end: u32) -> Option<(u32, &str)> {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(at);
    digits.parse().ok().filter(|value| *value < end).map(|value| (value, rest))
}

/// `5`, `5..9`, `5/2`.
fn piece(text: &str, end: u32) -> Rest<'_> {
    let (from, rest) = number(text, end)?;
    let rest = match rest.strip_prefix("..").and_then(|rest| number(rest, end)) {
        Some((to, _)) if from > to => return None,
        Some((_, rest)) => rest,
        None => rest,
    };
    match rest.strip_prefix('/') {
        Some(step) => number(step, end).map(|(_, rest)| rest),
        None => Some(rest),
    }
}

/// Parts with commas between them; a comma with nothing behind it is left.
fn listed<'a>(text: &'a str, part: impl Fn(&'a str) -> Rest<'a>) -> Rest<'a> {
    let mut rest = part(text)?;
    while let Some(more) = rest.strip_prefix(',').and_then(&part) {
        rest = more;
    }
    Some(rest)
}

fn values(text: &str, end: u32) -> Rest<'_> {
    let Some(rest) = text.strip_prefix('*') else { return listed(text, |text| piece(text, end)) };
    match rest.strip_prefix('/').map(|step| number(step, end)) {
        Some(Some((0, _))) | None => Some(rest),
        Some(step) => step.map(|(_, rest)| rest),
    }
}

fn days(text: &str) -> Rest<'_> {
    fn day(text: &str) -> Rest<'_> {
        let at = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
        let (name, rest) = text.split_at(at);
        weekday(name).map(|_| rest)
    }
    listed(text, |text| {
        let rest = day(text)?;
        Some(rest.strip_prefix("..").and_then(day).unwrap_or(rest))
    })
}

/// `-` and values.
fn then(text: &str, end: u32) -> Rest<'_> {
    values(text.strip_prefix('-')?, end)
}

fn date(text: &str) -> Rest<'_> {
    let whole = || then(then(values(text, 2200)?, 13)?, 32);
    whole().or_else(|| then(values(text, 13)?, 32))
}

fn time(text: &str) -> Rest<'_> {
    let minutes = values(text, 24).and_then(|rest| rest.strip_prefix(':')).unwrap_or(text);
    let rest = values(minutes, 60)?;
    Some(rest.strip_prefix(':').and_then(|rest| values(rest, 60)).unwrap_or(rest))
}

impl Calendar {
    /// What the original says of a text that it doesn't understand.
    pub fn complaint(text: &str) -> String {
        let text = text.trim();
        if text.is_empty() {
            return "unable to parse calendar event - event is empty".to_owned();
        }
        let at = |place: &str, what: &str| format!("unable to parse calendar event at '{place}' - {what}");
        let mut rest = text.strip_suffix("UTC").map_or(text, |rest| rest.trim_end_matches(' '));
        let begins = rest;
        if rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let Some(more) = days(rest) else {
                let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
                return at(&rest[..end], "Context(\"weekday\")");
            };
            rest = more.trim_start_matches([' ', '\t']);
        }
        if let Some(more) = date(rest) {
            rest = more.trim_start_matches([' ', '\t']);
        }
        rest = time(rest).unwrap_or(rest);
        if rest == begins { at(rest, "Context(\"date or time specification\")") } else { at(rest, "Nom(Eof)") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_that_makes_no_sense_is_named() {
        for (text, place, what) in [
            ("nonsense", "nonsense", "Context(\"weekday\")"),
            ("daily daily", "daily", "Context(\"weekday\")"),
            ("99", "99", "Context(\"date or time specification\")"),
            ("mon foo", "foo", "Nom(Eof)"),
            ("mon..xyz", "..xyz", "Nom(Eof)"),
            ("1:60", "1:60", "Context(\"date or time specification\")"),
            ("sat *-1..7 15:00x", "x", "Nom(Eof)"),
        ] {
            let expected = format!("unable to parse calendar event at '{place}' - {what}");
            assert_eq!(Calendar::complaint(text), expected, "{text}");
        }
        assert_eq!(Calendar::complaint(" "), "unable to parse calendar event - event is empty");
    }
}
