//! Made-up names: the same one for the same thing.
//!
//! Must not know: where a name stands.

use std::collections::BTreeMap;

/// Names that say nothing about a site.
const USUAL: [&str; 12] = [
    "local",
    "local-lvm",
    "local-zfs",
    "talos",
    "template",
    "controlplane",
    "worker",
    "vmbr0",
    "vmbr1",
    "vmbr2",
    "vmbr3",
    "localnetwork",
];

/// Made-up names by kind and real name.
#[derive(Default)]
pub(super) struct Names {
    known: BTreeMap<(&'static str, String), String>,
    counts: BTreeMap<&'static str, u32>,
}

impl Names {
    fn next(&mut self, kind: &'static str) -> u32 {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        *count
    }

    /// The made-up one, made when it is first asked for.
    pub(super) fn made(&mut self, kind: &'static str, real: &str, make: impl FnOnce(u32) -> String) -> String {
        let key = (kind, real.to_owned());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let made = make(self.next(kind));
        self.known.insert(key, made.clone());
        made
    }

    /// The made-up name of a kind; usual names and none stay.
    pub(super) fn of(&mut self, kind: &'static str, real: &str) -> String {
        if real.is_empty() || USUAL.contains(&real) {
            return real.to_owned();
        }
        self.made(kind, real, |number| format!("{kind}-{number}"))
    }
}
