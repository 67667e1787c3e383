//! Patterns: `*` within one part of a path, `**` across parts.
//!
//! Must not know: what is matched. Start at [`Pattern`].

/// A pattern. Matching is by whole text and knows case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        matches(self.0.as_bytes(), text.as_bytes())
    }
}

/// Backtracks to the last star only: after a star that matched, an earlier one can't do better, except that a single
/// star ends at a slash, where the last double one goes on.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: pattern behind the star, and the text it has eaten.
    let mut single: Option<(usize, usize)> = None;
    let mut double: Option<(usize, usize)> = None;
    loop {
        if pattern[p..].starts_with(b"**") {
            p += 2;
            (double, single) = (Some((p, t)), None);
            continue;
        }
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            single = Some((p, t));
            continue;
        }
        if t < text.len() && pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
            continue;
        }
        if t == text.len() && p == pattern.len() {
            return true;
        }
        if let Some((behind, eaten)) = single
            && eaten < text.len()
            && text[eaten] != b'/'
        {
            single = Some((behind, eaten + 1));
            (p, t) = (behind, eaten + 1);
            continue;
        }
        match double {
            Some((behind, eaten)) if eaten < text.len() => {
                (double, single) = (Some((behind, eaten + 1)), None);
                (p, t) = (behind, eaten + 1);
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_star_stays_within_a_part_and_two_do_not() {
        for (pattern, text, fits) in [
            ("/nodes/*/qemu/*/clone", "/nodes/pve1/qemu/100/clone", true),
            ("/nodes/*/qemu/*/clone", "/nodes/pve1/qemu/100/status/clone", false),
            ("/nodes/**", "/nodes/pve1/qemu", true),
            ("**/clone", "/nodes/pve1/qemu/100/clone", true),
            ("**/*/clone", "/nodes/pve1/qemu/100/clone", true),
            ("/image/**.xz", "/image/ab/v1/nocloud-amd64.raw.xz", true),
            ("/image/*.xz", "/image/ab/nocloud.xz", false),
            ("dd **", "dd if=/dev/zero of=/tmp/x", true),
            ("recast@pve!*", "recast@pve!ci", true),
            ("*a*b", "xxaxxb", true),
            ("*a*b", "xxaxx/b", false),
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), fits, "{pattern} {text}");
        }
    }
}
