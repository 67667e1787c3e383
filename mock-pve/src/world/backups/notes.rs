//! Notes made from a template.

/// What a template may speak of.
const NAMES: [&str; 4] = ["cluster", "guestname", "node", "vmid"];

/// The names between double braces with the place where each begins.
fn names(template: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some(open) = template[from..].find("{{").map(|at| from + at) {
        let rest = &template[open + 2..];
        let end = rest.find(|c: char| c.is_whitespace() || c == '{' || c == '}').unwrap_or(rest.len());
        if end > 0 && rest[end..].starts_with("}}") {
            found.push((open + 2, &rest[..end]));
            from = open + 2 + end + 2;
        } else {
            from = open + 1;
        }
    }
    found
}

/// Refuses what a template can't hold; `Err` is the original's text.
pub fn check(template: &str) -> Result<(), String> {
    if template.contains('\n') {
        return Err("contains a line feed\n".to_owned());
    }
    let mut wrong = Vec::new();
    let mut letters = template.chars().enumerate();
    while let Some((at, letter)) = letters.next() {
        if letter == '\\'
            && let Some((_, escaped)) = letters.next()
            && escaped != 'n'
            && escaped != '\\'
        {
            wrong.push(format!("escape sequence '\\{escaped}' at char {at}"));
        }
    }
    for (at, name) in names(template).into_iter().filter(|(_, name)| !NAMES.contains(name)) {
        // The original counts to the end of the braces, and back over the name.
        let at = template[..at].chars().count() + 2;
        wrong.push(format!("variable '{name}' at char {at}"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("found unknown: {}\n", wrong.join(", "))) }
}

/// The notes of a template that was checked; `value` says what a name stands for.
pub(super) fn filled(template: &str, value: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let mut letters = template.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => text.push(if letters.next() == Some('n') { '\n' } else { '\\' }),
            letter => text.push(letter),
        }
    }
    for name in NAMES {
        text = text.replace(&format!("{{{{{name}}}}}"), &value(name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_names_what_is_known_and_nothing_else() {
        assert_eq!(check("a\nb"), Err("contains a line feed\n".to_owned()));
        let wrong = check(r"\x {{nope}} {{vmid}}").unwrap_err();
        assert_eq!(wrong, "found unknown: escape sequence '\\x' at char 0, variable 'nope' at char 7\n");
        check(r"{{guestname}} on {{node}}\n{{ loose }}").unwrap();
        let value = |name: &str| format!("<{name}>");
        assert_eq!(filled(r"{{guestname}}, {{vmid}}\nnext\\", value), "<guestname>, <vmid>\nnext\\");
    }
}
