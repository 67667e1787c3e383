//! Old keys in patches, told with the very documents that take their place.
//!
//! Must not know: how configurations are made.

use super::ground::{OldKeys, add};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::plan::step::MachineSpec;
use crate::talos::config::migrate::{Contested, Finding, Product, Rest, left, replacement};
use crate::talos::config::{Contract, Patch};
use crate::talos::secrets::Secrets;

/// What `--migrate` does with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Migrated {
    /// It writes all that it says as documents.
    Written,
    /// It writes some of it so.
    Partly,
    /// It leaves it out: it says nothing to this machine, or what holds anyway.
    LeftOut,
    /// Several patches say it, and the last word can't be told from each of them alone.
    Contested,
    /// It has no translation.
    Not,
}

impl Migrated {
    fn hint(self) -> Option<&'static str> {
        match self {
            Self::Written => Some("--migrate writes it so"),
            Self::Partly => Some("--migrate writes this; what else the key says has to be written by hand"),
            Self::LeftOut => Some("--migrate leaves it out of this machine's configuration"),
            Self::Contested => Some("several patches say something about it: write one document for all of them"),
            Self::Not => None,
        }
    }
}

/// Puts the documents that say what the key says into the finding's advice, secrets masked.
pub(super) fn fill(
    finding: &mut Finding,
    patches: &[Patch],
    (contract, spec): (Contract, &MachineSpec),
    secrets: &Secrets,
) -> Migrated {
    let is_secret = |text: &str| secrets.is_in(text);
    let found = patches.iter().find_map(|patch| replacement(patch, finding, (contract, spec.role), &is_secret));
    let Some(found) = found else { return Migrated::Not };
    let documents = found.documents.trim_end();
    if !documents.is_empty() {
        let first = finding.instead.lines().next().unwrap_or_default();
        finding.instead = format!("{first}\n{documents}");
    }
    if Contested::of(patches).has(&finding.path) {
        return Migrated::Contested;
    }
    match (found.rest, documents.is_empty()) {
        (Rest::Nothing, false) => Migrated::Written,
        (Rest::Nothing, true) => Migrated::LeftOut,
        (Rest::Stays, false) => Migrated::Partly,
        (Rest::Stays, true) => Migrated::Not,
    }
}

/// Patches that a configuration of this contract can't have, each with what to write instead.
pub(super) fn refusal(
    broken: Vec<Finding>,
    patches: &[Patch],
    (contract, spec): (Contract, &MachineSpec),
    (secrets, old): (&Secrets, OldKeys),
) -> Option<Stop> {
    let mut stop = None;
    for mut finding in broken {
        // Only what has moved has a document to move to.
        let has_moved = finding.of == Product::Talos && !matches!(finding.rule, "untagged-image" | "key-too-new");
        let migrated = if has_moved { fill(&mut finding, patches, (contract, spec), secrets) } else { Migrated::Not };
        let what = format!("the configuration of {} can't have {finding}", spec.name);
        let mut one = Stop::new(ExitCode::Invalid, what);
        if finding.instead.contains('\n') {
            one = one.hinted(finding.instead.clone());
        }
        let tells = old == OldKeys::Refuse || migrated == Migrated::Contested;
        if let Some(hint) = migrated.hint().filter(|_| tells) {
            one = one.hinted(hint);
        }
        let left: Vec<String> = patches.iter().flat_map(|patch| left(patch, &finding)).collect();
        if has_moved && !tells && !left.is_empty() {
            one = one
                .hinted(format!("--migrate has no document for {}: write it anew, or leave it out", left.join(", ")));
        }
        add(&mut stop, one);
    }
    stop
}
