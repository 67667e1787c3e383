//! What was, over time.
//!
//! Purpose: what the cluster was told of nodes, guests and storages, from which series are made as the original makes them
//! from its round robin files (Proxmox VE 8.4, PVE/RRD.pm, PVE/Service/pvestatd.pm). Values are kept when they change. Not
//! in the state folder: a world that goes on begins its history anew. Must not know: requests. Start at
//! [`World::series`].

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::state::{PveVersion, State, Vm};
use super::{World, drive, held};

/// Seconds between two points of what is kept.
const STEP: u64 = 60;
/// Seconds for which the world stood before it began, as its nodes' uptime says.
const BEFORE: u64 = 3600;
/// Changes that are kept of one subject.
const MOST: usize = 10_000;

/// How long somebody waited for what he needs; a node's processors have no `full` (9).
const PRESSURES: [&str; 6] = [
    "pressurecpufull",
    "pressurecpusome",
    "pressureiofull",
    "pressureiosome",
    "pressurememoryfull",
    "pressurememorysome",
];

/// Whose values they are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A node's.
    Node(String),
    /// A VM's.
    Vm(u32),
    /// A storage's on a node.
    Storage(String, String),
}

/// How far back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The last hour.
    Hour,
    /// The last day.
    Day,
    /// The last week.
    Week,
    /// The last month.
    Month,
    /// The last year.
    Year,
    /// The last ten years (9).
    Decade,
}

/// What becomes of several values in one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consolidation {
    /// Their average.
    Average,
    /// The highest.
    Most,
}

type Values = BTreeMap<&'static str, f64>;

/// From when on which values held.
#[derive(Debug, Default)]
pub(super) struct History {
    kept: BTreeMap<Subject, Vec<(u64, Values)>>,
    noted: u64,
}

impl Frame {
    /// Seconds of a slot, and how many slots.
    fn slots(self, pve: PveVersion) -> (u64, u64) {
        match (pve, self) {
            (PveVersion::V8, Self::Hour) => (60, 70),
            (PveVersion::V8, Self::Day) => (60 * 30, 70),
            (PveVersion::V8, Self::Week) => (60 * 180, 70),
            (PveVersion::V8, Self::Month) => (60 * 720, 70),
            (PveVersion::V8, Self::Year | Self::Decade) => (60 * 10_080, 70),
            (PveVersion::V9, Self::Hour) => (60, 60),
            (PveVersion::V9, Self::Day) => (60, 1440),
            (PveVersion::V9, Self::Week) => (60 * 30, 336),
            (PveVersion::V9, Self::Month) => (60 * 30, 1440),
            (PveVersion::V9, Self::Year) => (3600 * 6, 1440),
            (PveVersion::V9, Self::Decade) => (86_400 * 7, 570),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "the original's files hold doubles, too")]
fn real(number: u64) -> f64 {
    number as f64
}

/// A number as JSON writes it: whole ones without a point.
fn shown(value: f64) -> Value {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, not negative, and small")]
    let whole = value as u64;
    if value >= 0.0 && value.fract() == 0.0 && value < 1e15 { json!(whole) } else { json!(value) }
}

/// What one slot shows of the changes of a subject: a value that was known for half of it at least.
fn slot(changes: &[(u64, Values)], (from, until): (u64, u64), how: Consolidation) -> Map<String, Value> {
    let mut sums: BTreeMap<&str, (f64, u64, f64)> = BTreeMap::new();
    for (at, (since, values)) in changes.iter().enumerate() {
        let end = changes.get(at + 1).map_or(until, |(next, _)| *next).min(until);
        let weight = end.saturating_sub((*since).max(from));
        if weight == 0 {
            continue;
        }
        for (name, value) in values {
            let sum = sums.entry(name).or_insert((0.0, 0, f64::MIN));
            *sum = (sum.0 + value * real(weight), sum.1 + weight, sum.2.max(*value));
        }
    }
    let known = sums.into_iter().filter(|(_, (_, weight, _))| weight * 2 >= until - from);
    let value = |(sum, weight, most): (f64, u64, f64)| match how {
        Consolidation::Average => sum / real(weight),
        Consolidation::Most => most,
    };
    let mut entry: Map<String, Value> = known.map(|(name, sum)| (name.to_owned(), shown(value(sum)))).collect();
    entry.insert("time".to_owned(), json!(from));
    entry
}

impl History {
    fn note(&mut self, at: u64, subject: Subject, values: Values) {
        let changes = self.kept.entry(subject).or_default();
        if changes.last().is_none_or(|(_, last)| *last != values) {
            changes.push((at, values));
        }
        if changes.len() > MOST {
            changes.remove(0);
        }
    }

    fn series(&self, subject: &Subject, now: u64, frame: Frame, how: Consolidation, pve: PveVersion) -> Vec<Value> {
        let (length, count) = frame.slots(pve);
        let end = now / length * length;
        let changes = self.kept.get(subject).map_or(&[][..], Vec::as_slice);
        let slots = (0..count).map(|number| end.saturating_sub(length * (count - number)));
        let mut all: Vec<Value> = slots.map(|from| Value::Object(slot(changes, (from, from + length), how))).collect();
        // Release 9 leaves out a last slot that has nothing in it.
        let empty = all.last().and_then(Value::as_object).is_some_and(|slot| slot.len() == 1);
        if pve == PveVersion::V9 && empty {
            all.pop();
        }
        all
    }
}

impl State {
    /// Memory that a node's VMs and the node itself take.
    pub fn memory_used(&self, node: &str) -> u64 {
        let running = self.vms.values().filter(|vm| vm.node == node && vm.running.is_some());
        (1 << 30) + running.map(|vm| drive::memory_mib(&vm.config) << 18).sum::<u64>()
    }

    fn node_values(&self, name: &str) -> Values {
        let Some(node) = self.nodes.get(name).filter(|_| self.is_online(name)) else { return Values::new() };
        let mut values = Values::from([
            ("loadavg", 0.25),
            ("maxcpu", f64::from(node.cpus)),
            ("cpu", 0.05),
            ("iowait", 0.0002),
            ("memtotal", real(node.memory)),
            ("memused", real(self.memory_used(name))),
            ("swaptotal", 0.0),
            ("swapused", 0.0),
            ("roottotal", real(100 << 30)),
            ("rootused", real(8 << 30)),
            ("netin", 0.0),
            ("netout", 0.0),
        ]);
        if self.pve == PveVersion::V9 {
            values.insert("memavailable", real(node.memory.saturating_sub(self.memory_used(name))));
            values.insert("arcsize", 0.0);
            values.extend(PRESSURES.iter().filter(|name| **name != "pressurecpufull").map(|name| (*name, 0.0)));
        }
        values
    }

    fn vm_values(&self, vm: &Vm) -> Values {
        // Nobody tells of the guests of a node that is down.
        if !self.is_online(&vm.node) {
            return Values::new();
        }
        let config = vm.running.as_ref().map_or(&vm.config, |running| &running.config);
        let memory = drive::memory_mib(config);
        let mut values = Values::from([
            ("maxcpu", real(drive::cpus(config))),
            ("maxmem", real(memory << 20)),
            ("maxdisk", real(drive::boot_disk_size(&vm.config))),
            ("disk", 0.0),
        ]);
        if vm.running.is_some() {
            values.insert("mem", real(memory << 18));
            for name in ["cpu", "netin", "netout", "diskread", "diskwrite"] {
                values.insert(name, 0.0);
            }
            if self.pve == PveVersion::V9 {
                values.insert("memhost", real(memory << 18));
                values.extend(PRESSURES.iter().map(|name| (*name, 0.0)));
            }
        }
        values
    }
}

impl World {
    /// Notes what is, for its history; not more often than the original's files have room for.
    pub(super) fn note_history(&self) {
        let now = self.clock().unix();
        {
            let history = held(&self.0.history);
            if history.noted > 0 && now < history.noted + STEP {
                return;
            }
        }
        self.note_all(now);
    }

    fn note_all(&self, now: u64) {
        let state = self.state();
        let mut history = held(&self.0.history);
        let at = if history.noted == 0 { now.saturating_sub(BEFORE) } else { now };
        history.noted = now;
        // What is no more is told of no more.
        let gone: Vec<Subject> = history
            .kept
            .keys()
            .filter(|subject| matches!(subject, Subject::Vm(vmid) if !state.vms.contains_key(vmid)))
            .cloned()
            .collect();
        for subject in gone {
            history.note(at, subject, Values::new());
        }
        for (vmid, vm) in &state.vms {
            history.note(at, Subject::Vm(*vmid), state.vm_values(vm));
        }
        for node in state.nodes.keys() {
            history.note(at, Subject::Node(node.clone()), state.node_values(node));
            for (id, storage) in &state.storages {
                let there = state.is_online(node) && storage.on_node(node) && !storage.flag("disable");
                let used = || state.used(self.dir(), node, id).min(storage.capacity);
                let values = if there {
                    Values::from([("total", real(storage.capacity)), ("used", real(used()))])
                } else {
                    Values::new()
                };
                history.note(at, Subject::Storage(node.clone(), id.clone()), values);
            }
        }
    }

    /// Whether anything was ever told of a subject.
    pub fn has_history(&self, subject: &Subject) -> bool {
        self.note_all(self.clock().unix());
        held(&self.0.history).kept.contains_key(subject)
    }

    /// What was told of a subject, as far back, slot by slot; what isn't known isn't in a slot.
    pub fn series(&self, subject: &Subject, frame: Frame, how: Consolidation) -> Vec<Value> {
        let (now, pve) = (self.clock().unix(), self.state().pve);
        held(&self.0.history).series(subject, now, frame, how, pve)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> (History, Subject) {
        let (mut history, subject) = (History::default(), Subject::Vm(100));
        for (at, memory) in [(6000, 4.0), (6000 + 90, 8.0), (6000 + 150, 8.0)] {
            history.note(at, subject.clone(), Values::from([("mem", memory)]));
        }
        (history, subject)
    }

    #[test]
    fn slots_hold_averages_or_the_highest_and_nothing_where_nothing_is_known() {
        let (history, subject) = history();
        let average = history.series(&subject, 6185, Frame::Hour, Consolidation::Average, PveVersion::V8);
        let most = history.series(&subject, 6185, Frame::Hour, Consolidation::Most, PveVersion::V8);
        assert_eq!((average.len(), most.len()), (70, 70));
        assert_eq!(average[66], json!({"time": 5940}));
        assert_eq!(average[67], json!({"time": 6000, "mem": 4}));
        assert_eq!(average[68], json!({"time": 6060, "mem": 6}));
        assert_eq!((&most[68], &most[69]), (&json!({"time": 6060, "mem": 8}), &json!({"time": 6120, "mem": 8})));
        let day = history.series(&subject, 6185, Frame::Day, Consolidation::Average, PveVersion::V8);
        assert_eq!((day.len(), &day[69]), (70, &json!({"time": 3600})), "less than half of it is known");
    }

    #[test]
    fn release_nine_has_more_slots_and_no_empty_last_one() {
        let (history, subject) = history();
        let count = |subject: &Subject, frame| {
            history.series(subject, 6185, frame, Consolidation::Average, PveVersion::V9).len()
        };
        assert_eq!((count(&subject, Frame::Hour), count(&subject, Frame::Day)), (60, 1440));
        assert_eq!(count(&Subject::Vm(101), Frame::Hour), 59);
    }
}
