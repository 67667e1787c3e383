//! The way from what runs to what is wanted: every hop of Talos and of Kubernetes, in an order that each of them allows.
//!
//! Purpose: a pure function over the compatibility table and the list of releases, so that every upgrade is a row of a
//! table test. Must not know: machines, schematics, clients. Start reading at [`find`].
//!
//! The rules: both go up one minor at a time, through the last patch of each minor between; after every hop the Kubernetes
//! that runs is one that the Talos that runs takes; where both could go first, Kubernetes does. Going first never closes
//! a way: a later Talos takes every later Kubernetes that an earlier one took.

mod refuse;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use refuse::NoPath;

use super::Versions;
use super::compatibility::{Minor, Table};
use crate::types::Version;

/// One step of the way, with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Hop {
    /// What goes up.
    pub what: What,
    /// What runs before it: where machines differ, the oldest.
    #[schemars(with = "String")]
    pub from: Version,
    /// What runs after it.
    #[schemars(with = "String")]
    pub to: Version,
    /// Why it is there, and why now.
    pub because: String,
}

/// What a hop is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Talos, machine by machine.
    Os,
    /// Kubernetes, component by component.
    Kubernetes,
}

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Os => "Talos",
            Self::Kubernetes => "Kubernetes",
        })
    }
}

/// How many hops there may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hops {
    /// As many as it takes.
    #[default]
    Any,
    /// One of each at most: minors between are not gone through.
    OneOfEach,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// What goes with what.
    pub table: &'a Table,
    /// The releases of Talos that can be had.
    pub released: &'a [Version],
    /// What runs: of each the oldest.
    pub now: Versions,
    /// What shall run.
    pub wanted: Versions,
    /// How many hops there may be.
    pub hops: Hops,
}

/// The way, or the single step that blocks it. No hops where all that is wanted runs.
pub fn find(question: &Question<'_>) -> Result<Vec<Hop>, NoPath> {
    refuse::backwards(&question.now, &question.wanted)?;
    refuse::unknown(question)?;
    let mut at = question.now.clone();
    let mut way: Vec<Hop> = Vec::new();
    while at != question.wanted {
        let kubernetes = next_kubernetes(question, &at);
        let talos = next_talos(question, &at);
        let hop = match (&kubernetes, &talos) {
            (Some(Ok(to)), _) if question.table.runs(to, &at.talos) == Some(true) => Hop {
                what: What::Kubernetes,
                from: at.kubernetes.clone(),
                because: why_kubernetes(question, &at, to),
                to: to.clone(),
            },
            (_, Some(Ok(to))) if fits(question, &at, to) => {
                Hop { what: What::Os, from: at.talos.clone(), because: why_talos(question, &at, to), to: to.clone() }
            }
            _ => return Err(refuse::blocked(question, &at, kubernetes, talos)),
        };
        match hop.what {
            What::Os => at.talos = hop.to.clone(),
            What::Kubernetes => at.kubernetes = hop.to.clone(),
        }
        way.push(hop);
    }
    if question.hops == Hops::OneOfEach {
        refuse::several(&way)?;
    }
    Ok(way)
}

/// Whether a Talos can follow the one that runs, and takes the Kubernetes that runs.
fn fits(question: &Question<'_>, at: &Versions, to: &Version) -> bool {
    question.table.takes(to, &at.talos) == Some(true) && question.table.runs(&at.kubernetes, to) == Some(true)
}

/// The next Kubernetes on the way; none where it is there.
fn next_kubernetes(question: &Question<'_>, at: &Versions) -> Option<Result<Version, NoPath>> {
    let wanted = &question.wanted.kubernetes;
    if at.kubernetes == *wanted {
        return None;
    }
    let (here, there) = (Minor::from(&at.kubernetes), Minor::from(wanted));
    if here == there || here.next() == there {
        return Some(Ok(wanted.clone()));
    }
    let between = here.next();
    let last = question.table.kubernetes.get(&between).cloned();
    Some(last.ok_or_else(|| NoPath::UnknownPatch { minor: between, wanted: wanted.clone() }))
}

/// The next Talos on the way; none where it is there.
fn next_talos(question: &Question<'_>, at: &Versions) -> Option<Result<Version, NoPath>> {
    let wanted = &question.wanted.talos;
    if at.talos == *wanted {
        return None;
    }
    let (here, there) = (Minor::from(&at.talos), Minor::from(wanted));
    if here == there || here.next() == there {
        return Some(Ok(wanted.clone()));
    }
    let between = here.next();
    let of_minor = question.released.iter().filter(|version| Minor::from(*version) == between);
    let last = of_minor.filter(|version| !version.is_prerelease()).max().cloned();
    Some(last.ok_or_else(|| NoPath::Gap { minor: between, wanted: wanted.clone() }))
}

fn last_kubernetes(question: &Question<'_>, talos: &Version) -> String {
    question.table.release(talos).map_or_else(String::new, |release| release.kubernetes.1.to_string())
}

fn why_kubernetes(question: &Question<'_>, at: &Versions, to: &Version) -> String {
    let mut why = if *to == question.wanted.kubernetes {
        "as asked for".to_owned()
    } else {
        format!("on the way to {}: Kubernetes goes up one minor at a time", question.wanted.kubernetes)
    };
    if at.talos != question.wanted.talos {
        why += &format!("; Talos {} takes it, and Kubernetes goes first where it can", Minor::from(&at.talos));
    }
    why
}

fn why_talos(question: &Question<'_>, at: &Versions, to: &Version) -> String {
    let mut why = if *to == question.wanted.talos {
        "as asked for".to_owned()
    } else {
        let minor = Minor::from(to);
        format!(
            "the last release of {minor}, on the way to {}: Talos goes up one minor at a time",
            question.wanted.talos
        )
    };
    if at.kubernetes != question.wanted.kubernetes {
        let last = last_kubernetes(question, &at.talos);
        why += &format!("; Talos {} runs Kubernetes up to {last} only", Minor::from(&at.talos));
    }
    why
}
