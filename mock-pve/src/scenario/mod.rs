//! Scenarios: what goes wrong, how long things take, and what happens at which time.
//!
//! Purpose: reads a scenario file, sits between the protocols and the world as its [`crate::world::script::Script`], and
//! carries out what happens in time. Must not know: how any protocol looks on the wire, beyond a connection that breaks.
//! Start at [`Scenario::load`], then `engine.rs` (who is hit by what), `events.rs` (what happens), `meeting.rs` (what a
//! protocol does about it), `wire.rs` (connections that break).

mod check;
mod engine;
mod events;
mod meeting;
mod pattern;
mod read;
mod tree;
mod wire;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

pub use engine::{Engine, Tally};
pub use events::{Hands, play};
pub use meeting::{Meeting, Met};
pub use wire::{Cut, Wire};

use crate::world::machine;
use crate::world::script::{Fault, Service, Step};
use pattern::Pattern;

/// The schema of scenario files.
pub const SCHEMA: &str = include_str!("../../schema/scenario.schema.json");

/// A scenario with one of everything, as the help shows it.
pub const EXAMPLE: &str = "\
# A scenario file, with one of everything (all of it: mock-pve scenario schema)
latency:                     # how long things take; --time-scale divides it
  boot: 60s
  pve: 50ms
storages:                    # how much each holds
  local-lvm: 40GiB
faults:                      # what goes wrong with what is asked
  - on: { task: qmclone }
    nth: 2
    then: { task-error: out of space }
events:                      # what happens without being asked for
  - at: 30s
    do: { node-dies: pve1 }
";

/// Something wrong in a scenario file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What is wrong.
    pub what: String,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

/// Why a scenario can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file can't be read.
    #[error("can't read the scenario {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// All that is wrong with it.
    #[error("the scenario {name} is wrong:\n{}", lines(problems))]
    Wrong {
        /// The file's name.
        name: String,
        /// In the order of the file.
        problems: Vec<Problem>,
    },
    /// It names what the world doesn't have.
    #[error("the scenario doesn't fit this world: {}", .0.join("; "))]
    Misplaced(Vec<String>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(|problem| format!("  {problem}")).collect::<Vec<_>>().join("\n")
}

/// What a scenario file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// How long things take.
    latency: Latency,
    /// Bytes that storages hold.
    storages: BTreeMap<String, u64>,
    /// What goes wrong.
    faults: Vec<Rule>,
    /// What happens.
    events: Vec<Event>,
}

/// How long things take, in seconds of real life, and bytes a second.
#[derive(Clone, Debug, Default, PartialEq)]
struct Latency {
    boot: Option<f64>,
    shutdown: Option<f64>,
    clone: Option<f64>,
    copy: Option<f64>,
    upload: Option<f64>,
    download: Option<f64>,
    services: BTreeMap<&'static str, f64>,
    jitter: f64,
}

/// What something must be like to be meant.
#[derive(Clone, Debug, PartialEq)]
struct Matcher {
    service: Service,
    step: Step,
    /// Verbs that fit; empty: any.
    verbs: Vec<String>,
    path: Pattern,
    node: Option<String>,
    vm: Option<VmName>,
    user: Option<Pattern>,
}

/// A VM by number or name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum VmName {
    Number(u32),
    Name(String),
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// What goes wrong, and when.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    name: String,
    on: Matcher,
    /// The first match that is hit, from 1.
    nth: u64,
    /// How many are hit.
    times: Option<u64>,
    then: Fault,
}

/// What happens, and when.
#[derive(Clone, Debug, PartialEq)]
struct Event {
    name: String,
    when: Due,
    deed: Happens,
}

/// When something happens.
#[derive(Clone, Debug, PartialEq)]
enum Due {
    /// So many seconds after the start.
    At(f64),
    /// So long after the n-th match.
    After { on: Matcher, nth: u64, wait: f64 },
}

/// What happens.
#[derive(Clone, Debug, PartialEq)]
enum Happens {
    NodeDies(String),
    NodeHangs(String),
    NodeReturns(String),
    VmVanishes(VmName),
    VmStarts(VmName),
    VmStops(VmName),
    MachinePowersOff(VmName),
    MachineFails { vm: VmName, fault: machine::Fault },
    VmChanges { vm: VmName, set: BTreeMap<String, String> },
    EtcdLeaderMoves(String),
    EtcdLags { member: String, receive: f64, apply: f64 },
    Request { verb: String, path: String, with: BTreeMap<String, String> },
}

impl Scenario {
    /// Reads a scenario file.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads a scenario from its text; `name` is for messages.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let wrong = |problems| ScenarioError::Wrong { name: name.to_owned(), problems };
        let root = tree::parse(text).map_err(|problem| wrong(vec![problem]))?;
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap_or_default();
        let mut problems = check::check(&schema, &root);
        let scenario = read::scenario(&root, &mut problems);
        if problems.is_empty() {
            return Ok(scenario);
        }
        problems.sort_by_key(|problem| (problem.line, problem.column));
        problems.dedup();
        Err(wrong(problems))
    }
}

#[cfg(test)]
mod tests;
