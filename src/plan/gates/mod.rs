//! The gates of `check` that look beyond Proxmox VE: is there a cluster to work on, would recast cut off what it needs
//! itself, can the data go where they shall, can backups be kept, are the programs there.
//!
//! Purpose: a pure list like [`check`](super::check), over what was seen from this computer ([`Here`]).
//! Must not know: clients, files.

mod backup;
mod data;
mod existing;
mod here;
mod programs;
mod services;
#[cfg(test)]
mod tests;

use super::observed::{Finding, Observed};
use super::wanted::Wanted;
use data::{file, not_kept, running};
use existing::existing;
use services::services;

pub(super) use backup::kept;
pub use here::{Backup, CopyState, Here, Host, Repository, SecondCopy, Service, Snapshot, Source};
pub(super) use programs::programs;

/// Everything that these gates find.
pub fn findings(wanted: &Wanted, seen: &Observed, here: &Here) -> Vec<Finding> {
    let mut found = here.siblings.clone();
    existing(wanted, seen, here, &mut found);
    services(wanted, seen, here, &mut found);
    programs(here, &mut found);
    match &here.data {
        Source::Nothing => not_kept(seen, &mut found),
        Source::Running => running(wanted, seen, &mut found),
        Source::File(snapshot) => {
            not_kept(seen, &mut found);
            file(wanted, seen, snapshot, &mut found);
        }
    }
    if let Some(backup) = &here.backup {
        kept(backup, &mut found);
    }
    found
}
