//! From a path to a method.
//!
//! Purpose: finds the row of the table that a request means. Must not know: what the row does. Start at [`find`].

use super::handlers::nodes::no_container;
use super::table::{Handler, TABLE};

/// A row that was found, with what the path says.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// The pattern of the row.
    pub pattern: String,
    /// What answers it.
    pub handler: Handler,
    /// Name and value of the parts in braces.
    pub captured: Vec<(String, String)>,
}

fn node_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Parts that take all that is left of a path, slashes and all.
const GREEDY: [&str; 2] = ["volume", "cidr"];

/// The row for a method and a decoded path. `{volume}` and `{cidr}` take all that is left.
pub(super) fn find(method: &str, path: &str) -> Option<Found> {
    best(TABLE.iter().filter(|(verb, _, _)| *verb == method).map(|(_, pattern, handler)| (*pattern, *handler)), path)
}

/// The same among methods that are known, but not played.
pub(super) fn find_among<'a>(patterns: impl Iterator<Item = &'a str>, path: &str) -> Option<Found> {
    let handler = |pattern: &str| {
        // Whatever is asked of one container: there is none.
        if pattern.starts_with("/nodes/{node}/lxc/{vmid}") { Handler::Now(no_container) } else { Handler::Absent }
    };
    best(patterns.map(|pattern| (pattern, handler(pattern))), path)
}

/// Fixed words come before braces.
fn best<'a>(rows: impl Iterator<Item = (&'a str, Handler)>, path: &str) -> Option<Found> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut best: Option<(usize, Found)> = None;
    for (pattern, handler) in rows {
        let Some((fixed, captured)) = fit(pattern, &parts) else { continue };
        if best.as_ref().is_none_or(|(known, _)| fixed > *known) {
            best = Some((fixed, Found { pattern: pattern.to_owned(), handler, captured }));
        }
    }
    best.map(|(_, found)| found)
}

/// Whether a writing method does not touch the cluster's file system before its task does, so that it needs no quorum.
pub(super) fn without_quorum(pattern: &str) -> bool {
    const ENDS: &[&str] = &[
        "}/status",
        "/startall",
        "/stopall",
        "/suspendall",
        "/wakeonlan",
        "/sendkey",
        "/monitor",
        "/vncproxy",
        "/vncshell",
        "/spiceproxy",
        "/spiceshell",
        "/termproxy",
    ];
    pattern.contains("/status/")
        || pattern.contains("/agent")
        || pattern.contains("/tasks/")
        || pattern.contains("/services/")
        || ENDS.iter().any(|end| pattern.ends_with(end))
}

fn fit(pattern: &str, parts: &[&str]) -> Option<(usize, Vec<(String, String)>)> {
    let mut captured = Vec::new();
    let mut fixed = 0;
    let mut at = 0;
    for want in pattern.split('/').filter(|part| !part.is_empty()) {
        let name = want.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match name {
            Some(name) if GREEDY.contains(&name) => {
                if at >= parts.len() {
                    return None;
                }
                captured.push((name.to_owned(), parts[at..].join("/")));
                at = parts.len();
            }
            Some(name) => {
                let part = *parts.get(at)?;
                if name == "node" && !node_name(part) {
                    return None;
                }
                captured.push((name.to_owned(), part.to_owned()));
                at += 1;
            }
            None => {
                if *parts.get(at)? != want {
                    return None;
                }
                fixed += 1;
                at += 1;
            }
        }
    }
    (at == parts.len()).then_some((fixed, captured))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_win_over_braces_and_volumes_keep_their_slashes() {
        let found = find("GET", "/nodes/pve1/qemu/100/config").unwrap();
        assert_eq!(found.pattern, "/nodes/{node}/qemu/{vmid}/config");
        let volume = find("GET", "/nodes/pve1/storage/local/content/local:iso/x.iso").unwrap();
        assert_eq!(volume.captured.last(), Some(&("volume".to_owned(), "local:iso/x.iso".to_owned())));
        assert!(find("GET", "/nodes/bad node/qemu").is_none());
        assert!(find("PUT", "/nodes/pve1/qemu").is_none());
        assert!(find("GET", "/").is_some());
    }

    #[test]
    fn every_row_has_its_parameters_in_the_schema() {
        let load = |version| super::super::schema::Schema::load(version).unwrap();
        let (old, new) = (load(crate::world::PveVersion::V8), load(crate::world::PveVersion::V9));
        let missing: Vec<_> = TABLE
            .iter()
            .filter(|(verb, pattern, _)| old.method(verb, pattern).or(new.method(verb, pattern)).is_none())
            .map(|row| (row.0, row.1))
            .collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
