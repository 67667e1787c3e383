//! Why there is no way, and the way round.

use super::{Hop, Question, What, next_kubernetes, next_talos};
use crate::plan::Versions;
use crate::plan::compatibility::Minor;
use crate::types::Version;

/// The single step that blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPath {
    /// Talos would go back.
    #[error("Talos {now} runs, and {wanted} is older")]
    OlderTalos {
        /// What runs.
        now: Version,
        /// What is wanted.
        wanted: Version,
    },
    /// Kubernetes would go back.
    #[error("Kubernetes {now} runs, and {wanted} is older: its data never go back")]
    OlderKubernetes {
        /// What runs.
        now: Version,
        /// What is wanted.
        wanted: Version,
    },
    /// The table doesn't know it.
    #[error("the compatibility table does not know Talos {version}: it goes up to {newest}")]
    UnknownTalos {
        /// Which.
        version: Version,
        /// The newest that it knows.
        newest: Minor,
    },
    /// There is no release of a minor between.
    #[error("there is no release of Talos {minor}, which lies on the way to {wanted}, and no minor is skipped")]
    Gap {
        /// The minor.
        minor: Minor,
        /// What is wanted.
        wanted: Version,
    },
    /// No patch of a minor between is known.
    #[error("no release of Kubernetes {minor} is known, which lies on the way to {wanted}, and no minor is skipped")]
    UnknownPatch {
        /// The minor.
        minor: Minor,
        /// What is wanted.
        wanted: Version,
    },
    /// The installer doesn't take what runs.
    #[error("Talos {to} upgrades machines that run {} to {}, and {from} runs", range.0, range.1)]
    Source {
        /// What runs.
        from: Version,
        /// The next one.
        to: Version,
        /// What it takes.
        range: (Minor, Minor),
    },
    /// The next Talos doesn't take the Kubernetes that will run.
    #[error("Talos {talos} runs Kubernetes {} to {}, and {kubernetes} would run on it", range.0, range.1)]
    OutOfRange {
        /// The Talos.
        talos: Version,
        /// The Kubernetes.
        kubernetes: Version,
        /// What it takes.
        range: (Minor, Minor),
    },
    /// More hops than allowed.
    #[error("{what} would skip a minor: from {from} to {to} it takes {hops} hops")]
    Skips {
        /// What goes up.
        what: What,
        /// What runs.
        from: Version,
        /// What is wanted.
        to: Version,
        /// How many it takes.
        hops: usize,
    },
}

impl NoPath {
    /// The way round, a sentence.
    pub fn hint(&self) -> String {
        match self {
            Self::OlderTalos { .. } => {
                "`recast rollback --nodes A,B` goes back to the release that ran before; `recast rebuild --to` makes \
                 machines of any other"
                    .to_owned()
            }
            Self::OlderKubernetes { now, .. } => format!("name Kubernetes {now} or later"),
            Self::UnknownTalos { .. } => {
                "use a newer recast, or say with --compatibility FILE what this release takes".to_owned()
            }
            Self::Gap { minor, .. } => format!(
                "let the Image Factory serve a release of {minor}, or `recast rebuild`, which needs no path for Talos"
            ),
            Self::UnknownPatch { minor, .. } => format!(
                "upgrade to a release of Kubernetes {minor} first, by its full number, or name it in --compatibility FILE"
            ),
            Self::Source { range, .. } => {
                format!("upgrade to Talos {} first, or use `recast rebuild`, which needs no path for Talos", range.0)
            }
            Self::OutOfRange { kubernetes, range, .. } if Minor::from(kubernetes) < range.0 => {
                format!("ask for a newer Kubernetes as well: --kubernetes {}.x", range.0)
            }
            Self::OutOfRange { range, .. } => {
                format!("ask for a newer Talos as well with --to, or for Kubernetes {} at most", range.1)
            }
            Self::Skips { .. } => "leave --no-hops out: the minors between are gone through one by one".to_owned(),
        }
    }
}

/// Neither may go back.
pub(super) fn backwards(now: &Versions, wanted: &Versions) -> Result<(), NoPath> {
    if wanted.kubernetes < now.kubernetes {
        return Err(NoPath::OlderKubernetes { now: now.kubernetes.clone(), wanted: wanted.kubernetes.clone() });
    }
    if wanted.talos < now.talos {
        return Err(NoPath::OlderTalos { now: now.talos.clone(), wanted: wanted.talos.clone() });
    }
    Ok(())
}

/// What the table doesn't know can't be planned with.
pub(super) fn unknown(question: &Question<'_>) -> Result<(), NoPath> {
    let newest = question.table.talos.keys().next_back().copied().unwrap_or(Minor(0, 0));
    for version in [&question.wanted.talos, &question.now.talos] {
        if question.table.release(version).is_none() {
            return Err(NoPath::UnknownTalos { version: version.clone(), newest });
        }
    }
    Ok(())
}

/// The step that blocks, once neither can go.
pub(super) fn blocked(
    question: &Question<'_>,
    at: &Versions,
    kubernetes: Option<Result<Version, NoPath>>,
    talos: Option<Result<Version, NoPath>>,
) -> NoPath {
    let release = |version: &Version| question.table.release(version);
    match (talos, kubernetes) {
        (Some(Err(no)), _) | (None, Some(Err(no))) => no,
        (Some(Ok(to)), kubernetes) => match release(&to) {
            None => NoPath::UnknownTalos { version: to, newest: Minor::from(&at.talos) },
            Some(known) if question.table.takes(&to, &at.talos) != Some(true) => {
                NoPath::Source { from: at.talos.clone(), to, range: known.upgrades_from }
            }
            // Kubernetes could come to its rescue, and can't go itself.
            Some(known) => match kubernetes {
                Some(Err(no)) => no,
                _ => NoPath::OutOfRange { talos: to, kubernetes: at.kubernetes.clone(), range: known.kubernetes },
            },
        },
        (None, Some(Ok(kubernetes))) => match release(&at.talos) {
            None => NoPath::UnknownTalos { version: at.talos.clone(), newest: Minor::from(&at.talos) },
            Some(known) => NoPath::OutOfRange { talos: at.talos.clone(), kubernetes, range: known.kubernetes },
        },
        (None, None) => unreachable_end(question, at),
    }
}

/// Both are where they shall be, or neither of them says what comes next.
fn unreachable_end(question: &Question<'_>, at: &Versions) -> NoPath {
    let next = next_talos(question, at).or_else(|| next_kubernetes(question, at));
    match next {
        Some(Err(no)) => no,
        _ => NoPath::OlderTalos { now: at.talos.clone(), wanted: question.wanted.talos.clone() },
    }
}

/// Where only one hop of each may be made.
pub(super) fn several(way: &[Hop]) -> Result<(), NoPath> {
    for what in [What::Kubernetes, What::Os] {
        let of: Vec<&Hop> = way.iter().filter(|hop| hop.what == what).collect();
        if let [first, .., last] = of.as_slice() {
            return Err(NoPath::Skips { what, from: first.from.clone(), to: last.to.clone(), hops: of.len() });
        }
    }
    Ok(())
}
