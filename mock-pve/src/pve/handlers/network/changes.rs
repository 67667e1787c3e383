//! What a waiting network configuration changes, as `diff -u` says it (libpve-common 8, PVE/INotify.pm).
//!
//! Must not know: requests.

use std::fmt::Write as _;

use super::file::{Interface, stanza, text};
use crate::world::state::Node;

/// Lines that are shown around a change.
const AROUND: usize = 3;
/// Lines that stand above the interfaces in the file; no change is near enough to show them.
const ABOVE: usize = 11;

/// One line of the longer story of both files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// Interfaces upon others stand below them.
fn rank(interface: &Interface) -> (u32, usize, &str) {
    let kind = match text(interface, "type") {
        "dummy" => 1,
        "eth" | "OVSPort" => 2,
        "OVSIntPort" => 3,
        "OVSBond" | "bond" => 4,
        "bridge" | "OVSBridge" => 5,
        _ => 6,
    };
    let name = text(interface, "iface");
    (kind, name.matches(['.', ':']).count(), name)
}

fn written(interfaces: &[Interface]) -> String {
    let mut all: Vec<&Interface> = interfaces.iter().collect();
    all.sort_by_key(|one| rank(one));
    let stanzas: String = all.into_iter().map(stanza).collect();
    format!("{}auto lo\niface lo inet loopback\n\n{stanzas}", "#\n".repeat(ABOVE))
}

/// The shortest way from one text to the other.
fn story<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    // How many lines the ends of both texts have in common, by where the ends begin.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for one in (0..old.len()).rev() {
        for other in (0..new.len()).rev() {
            common[one][other] = if old[one] == new[other] {
                common[one + 1][other + 1] + 1
            } else {
                common[one + 1][other].max(common[one][other + 1])
            };
        }
    }
    let (mut lines, mut one, mut other) = (Vec::new(), 0, 0);
    while one < old.len() || other < new.len() {
        if one < old.len() && other < new.len() && old[one] == new[other] {
            lines.push(Line::Same(old[one]));
            (one, other) = (one + 1, other + 1);
        } else if one < old.len() && (other == new.len() || common[one + 1][other] >= common[one][other + 1]) {
            lines.push(Line::Gone(old[one]));
            one += 1;
        } else {
            lines.push(Line::New(new[other]));
            other += 1;
        }
    }
    lines
}

/// Where a piece begins, and how many lines it has.
fn span(lines: &[Line<'_>], piece: std::ops::Range<usize>, is_in: fn(&Line<'_>) -> bool) -> String {
    let before = lines[..piece.start].iter().filter(|line| is_in(line)).count();
    match lines[piece].iter().filter(|line| is_in(line)).count() {
        0 => format!("{before},0"),
        1 => (before + 1).to_string(),
        count => format!("{},{count}", before + 1),
    }
}

fn unified(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let lines = story(&old, &new);
    let mut pieces: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, _) in lines.iter().enumerate().filter(|(_, line)| !matches!(line, Line::Same(_))) {
        let (from, to) = (at.saturating_sub(AROUND), (at + AROUND + 1).min(lines.len()));
        match pieces.last_mut() {
            Some(last) if last.end >= from => last.end = to,
            _ => pieces.push(from..to),
        }
    }
    let mut diff = String::new();
    for piece in pieces {
        let was = span(&lines, piece.clone(), |line| !matches!(line, Line::New(_)));
        let is = span(&lines, piece.clone(), |line| !matches!(line, Line::Gone(_)));
        // Writing to a string can't fail; here and below.
        let _ = writeln!(diff, "@@ -{was} +{is} @@");
        for line in &lines[piece] {
            let _ = match line {
                Line::Same(text) => writeln!(diff, " {text}"),
                Line::Gone(text) => writeln!(diff, "-{text}"),
                Line::New(text) => writeln!(diff, "+{text}"),
            };
        }
    }
    diff
}

/// What differs; nothing where nothing waits, or nothing differs.
pub(super) fn of(node: &Node) -> Option<String> {
    let diff = unified(&written(&node.network), &written(node.network_new.as_ref()?));
    (!diff.is_empty()).then(|| format!("--- /etc/network/interfaces\n+++ /etc/network/interfaces.new\n{diff}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_stands_among_the_lines_around_it() {
        let old = "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n";
        let new = "a\nb\nc\nd\nE\nf\ng\nh\ni\nj\nk\nl\n";
        assert_eq!(unified(old, new), "@@ -2,10 +2,11 @@\n b\n c\n d\n-e\n+E\n f\n g\n h\n i\n j\n k\n+l\n");
        assert_eq!(unified("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(unified(old, old), "");
    }
}
