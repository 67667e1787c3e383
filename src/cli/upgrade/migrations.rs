//! What the user wrote that another Talos reads in another way: told with the plan, before the first machine goes down.
//!
//! Machines keep the configuration that they have, whatever its age; it is the next configuration that is made from the
//! profile's patches that must be right. Must not know: machines, the way that the upgrade takes.

use crate::cli::patches::Patches;
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::plan::PlannedVm;
use crate::plan::observed::Finding;
use crate::steps::config;
use crate::talos::config::Patch;
use crate::talos::config::migrate::{Subjects, Weight, findings};
use crate::types::Version;

/// A warning for each thing in the profile's patches that the way from `now` to `to` changes.
pub(super) fn migrations(
    session: &Session,
    vms: &[PlannedVm],
    (now, to): (&Version, &Version),
    extensions_change: bool,
) -> Result<Vec<Finding>, Stop> {
    let folder = session.folder();
    let files = Patches { talos: session.talos()?, profile: &session.profile_path, folder: &folder };
    let mut places = Vec::new();
    for vm in vms {
        for place in files.shared(vm.role).into_iter().chain(files.own(&vm.name)) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    let mut told = Vec::new();
    let mut patches: Vec<Patch> = Vec::new();
    for place in &places {
        match config::patch(place) {
            Ok(patch) => patches.push(patch),
            Err(error) => told.push(
                Finding::warning(
                    "a patch of the profile can't be read",
                    "nothing of this upgrade uses it; `recast config check` says more",
                )
                .because(&error),
            ),
        }
    }
    let patches: Vec<&Patch> = patches.iter().collect();
    let subjects = Subjects { patches: &patches, nocloud: true, extensions_change, ..Subjects::default() };
    let touched = findings(Some(now), to, &subjects).into_iter().filter(|finding| finding.weight > Weight::Notice);
    told.extend(touched.map(|finding| Finding::warning(finding.told(), finding.instead)));
    Ok(told)
}
