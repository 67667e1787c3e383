//! Whether snapshots have a place, and their second copies.
//!
//! Must not know: how they are written.

use super::{Backup, CopyState, SecondCopy};
use crate::plan::check::size;
use crate::plan::observed::Finding;

/// Snapshots have to have a place, and room there.
pub(in crate::plan) fn kept(backup: &Backup, found: &mut Vec<Finding>) {
    let dir = backup.dir.display();
    if let Some(why) = &backup.unusable {
        let mut finding = Finding::refusal(
            format!("no snapshot can be kept in {dir}"),
            "make the folder, or name another in backup.dir of the profile",
        );
        finding.causes.push(why.clone());
        found.push(finding);
    }
    // The proof, the final one, and a proof that has grown too old and is taken again.
    let needed = backup.database.map(|bytes| bytes.saturating_mul(3));
    if let (Some(free), Some(needed)) = (backup.free, needed)
        && free < needed
    {
        found.push(Finding::refusal(
            format!("{dir} has {} free, and three snapshots of etcd need {}", size(free), size(needed)),
            "make room there, or name another folder in backup.dir of the profile",
        ));
    }
    for copy in &backup.copies {
        let place = &copy.place;
        let finding = match &copy.state {
            CopyState::Counts => continue,
            CopyState::SameDevice => Finding::warning(
                format!("the second copy in {place} would be on the same device as {dir}, so it does not count as one"),
                "name a place on another device",
            ),
            CopyState::Unreadable => Finding::warning(
                format!("the second copy {place} can't be read back, so it does not count as one"),
                "give the command a `read` beside its `save`",
            ),
            CopyState::Unusable(why) => {
                let hint = "mend it, or take it out of backup.copies";
                let mut finding = Finding::refusal(format!("no second copy can be kept in {place}"), hint);
                finding.causes.push(why.clone());
                finding
            }
        };
        found.push(finding);
    }
    // One that can't be used is refused already.
    let counts = |copy: &SecondCopy| matches!(copy.state, CopyState::Counts | CopyState::Unusable(_));
    if backup.required && !backup.copies.iter().any(counts) {
        found.push(Finding::refusal(
            "guards.require_copy is set, and no second copy counts as one",
            "name a place on another device, on another host, or commands that save and read in backup.copies",
        ));
    }
}
