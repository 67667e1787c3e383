//! What the user wrote that another Talos reads in another way: told with the plan, before the first machine goes down.
//!
//! Machines keep the configuration that they have, whatever its age, and the new release reads that one; the next
//! configuration is made from the profile's patches. So both are looked through, and neither's values are ever shown.
//! Must not know: the way that the upgrade takes.

use crate::cli::carry_out::access;
use crate::cli::patches::Patches;
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::observe::components;
use crate::plan::observed::Finding;
use crate::plan::upgrade::{Asked, SeenCluster, SeenMember};
use crate::steps::config;
use crate::talos::config::migrate::{Finding as Touched, Image, Subjects, Weight, findings};
use crate::talos::config::{Config, Patch};
use crate::talos::secrets::Secrets;
use crate::types::Version;

/// A warning for each thing in the profile's patches, and in what machines that rise run, that the way from `now` to
/// `to` changes.
pub(super) async fn migrations(
    session: &Session,
    secrets: &Secrets,
    (asked, running): (&Asked, &SeenCluster),
    (now, to): (&Version, &Version),
) -> Result<Vec<Finding>, Stop> {
    let access = access(secrets, jiff::Timestamp::now())?;
    let machines: Vec<_> = running.chosen(asked.nodes.as_deref()).map(|seen| seen.member.clone()).collect();
    let live = components::configs(&session.connector, &access, &machines).await;
    let folder = session.folder();
    let files = Patches { talos: session.talos()?, profile: &session.profile_path, folder: &folder };
    let mut places = Vec::new();
    for vm in &asked.vms {
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
    let other = |seen: &SeenMember| seen.schematic.as_ref() != asked.schematic_of(seen.member.role);
    let image = if running.members.iter().any(other) { Image::Other } else { Image::Same };
    let subjects = Subjects { patches: &patches, nocloud: true, image, ..Subjects::default() };
    let mut touched = heavy(now, to, &subjects);
    let configs: Vec<(&str, &Config)> = live.iter().map(|(name, config)| (name.as_str(), config)).collect();
    let subjects = Subjects { configs: &configs, nocloud: true, ..Subjects::default() };
    let live = at_once(heavy(now, to, &subjects), &touched);
    touched.extend(live);
    told.extend(touched.into_iter().map(|finding| Finding::warning(finding.told(), finding.instead)));
    Ok(told)
}

/// What weighs more than a notice.
fn heavy(now: &Version, to: &Version, subjects: &Subjects<'_>) -> Vec<Touched> {
    findings(Some(now), to, subjects).into_iter().filter(|finding| finding.weight > Weight::Notice).collect()
}

/// What is the same on several machines, once; without what was told of a patch already.
fn at_once(live: Vec<Touched>, of_patches: &[Touched]) -> Vec<Touched> {
    let is_told = |one: &Touched| of_patches.iter().any(|told| told.rule == one.rule && told.path == one.path);
    let mut found: Vec<(Touched, Vec<String>)> = Vec::new();
    for mut one in live.into_iter().filter(|one| !is_told(one)) {
        let name = std::mem::take(&mut one.origin);
        if let Some((_, names)) = found.iter_mut().find(|(other, _)| *other == one) {
            names.push(name);
        } else {
            found.push((one, vec![name]));
        }
    }
    let named = |(one, names): (Touched, Vec<String>)| {
        let origin = format!("the running configuration of {}", names.join(", "));
        Touched { origin, ..one }
    };
    found.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_machines_run_is_told_once_and_not_beside_a_patch_that_says_it() {
        let config = Config::parse("machine: {features: {rbac: false}}\n").unwrap();
        let (now, to) = (Version::new(1, 11, 6), Version::new(1, 12, 4));
        let configs = [("cp-01", &config), ("cp-02", &config)];
        let live = || heavy(&now, &to, &Subjects { configs: &configs, nocloud: true, ..Subjects::default() });
        let told: Vec<String> = at_once(live(), &[]).iter().map(Touched::told).collect();
        let of_both = "the running configuration of cp-01, cp-02: machine.features.rbac: since Talos 1.12";
        assert_eq!(told, [format!("{of_both} RBAC can't be turned off")]);
        let patch = Patch::parse("machine: {features: {rbac: false}}\n", "p.yaml").unwrap();
        let of_patch = heavy(&now, &to, &Subjects { patches: &[&patch], nocloud: true, ..Subjects::default() });
        assert_eq!(at_once(live(), &of_patch), []);
    }
}
