//! Whether the programs that a run needs are there, and the repository that it commits to in the end.
//!
//! Must not know: how they are looked for.

use super::{Here, Repository};
use crate::plan::observed::Finding;

pub(in crate::plan) fn programs(here: &Here, found: &mut Vec<Finding>) {
    for (program, why) in &here.missing_programs {
        found.push(Finding::refusal(
            format!("there is no program `{program}` on this computer, and {why}"),
            "install it, or take the key out of the profile",
        ));
    }
    match here.repository {
        Some(Repository::Missing) => found.push(Finding::refusal(
            "the profile is in no git repository, and finish.git commits it",
            "put it into one, or take finish.git out of the profile",
        )),
        Some(Repository::Changed) => found.push(Finding::warning(
            "profile or lock have changes that are not committed",
            "the commit at the end will hold them too",
        )),
        Some(Repository::Clean) | None => {}
    }
}
