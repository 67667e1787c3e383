//! Which of the user's patches a machine gets, and in which order.
//!
//! The order is all → role → node, and within each the profile before the patch folder. The folder may be flat, a file
//! `<node>.yaml` for each machine, or have the folders that other tools use: `all/`, `control-plane/` (or
//! `controlplane/`), `worker/` and `node/<node>/`, files by name. What a new version means for them is told by [`migration`].

mod removed;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::stop::Stop;
use crate::exit::ExitCode;
use crate::plan::Wanted;
use crate::plan::observed::{Finding, Observed};
use crate::plan::step::{MachineSpec, PatchAt};
use crate::profile::{PatchSource, PatchTarget, Talos};
use crate::steps::config;
use crate::talos::config::Patch;
use crate::talos::config::migrate::{self, Subjects, Weight};
use crate::types::Role;

pub use removed::removed;

/// Where a profile's patches are.
#[derive(Clone, Copy, Debug)]
pub struct Patches<'a> {
    /// The Talos half of the profile.
    pub talos: &'a Talos,
    /// The profile's file.
    pub profile: &'a Path,
    /// Its folder.
    pub folder: &'a Path,
}

impl Patches<'_> {
    /// The patches of a machine that every machine of its role gets as well.
    pub fn shared(&self, role: Role) -> Vec<PatchAt> {
        let roles: &[&str] = match role {
            Role::ControlPlane => &["control-plane", "controlplane"],
            Role::Worker => &["worker", "workers"],
        };
        let mut patches: Vec<PatchAt> = self.in_profile(|target| target == PatchTarget::All).collect();
        patches.extend(self.in_folders(&["all"]));
        patches.extend(self.in_profile(|target| target != PatchTarget::All && target.covers(role)));
        patches.extend(self.in_folders(roles));
        patches
    }

    /// The patches of one machine.
    pub fn own(&self, machine: &str) -> Vec<PatchAt> {
        let Some(dir) = self.talos.patches_dir_in(self.folder) else { return Vec::new() };
        let mut patches: Vec<PatchAt> = Some(dir.join(format!("{machine}.yaml")))
            .filter(|path| path.is_file())
            .map(PatchAt::File)
            .into_iter()
            .collect();
        patches.extend(self.in_folders(&[&format!("node/{machine}"), &format!("nodes/{machine}")]));
        patches
    }

    /// What is wrong with the patch folder: that it isn't there, or files in it that none of these machines takes.
    pub fn stray<'m>(&self, machines: impl Iterator<Item = (&'m str, Role)>) -> Result<Vec<PathBuf>, Stop> {
        let Some(dir) = self.talos.patches_dir_in(self.folder) else { return Ok(Vec::new()) };
        if !dir.is_dir() {
            return Err(Stop::new(ExitCode::Invalid, format!("the patch folder {} is not there", dir.display()))
                .hinted("correct talos.patches_dir, or make the folder"));
        }
        let mut taken = BTreeSet::new();
        for (name, role) in machines {
            taken.extend(self.shared(role).into_iter().chain(self.own(name)).filter_map(|patch| match patch {
                PatchAt::File(path) => Some(path),
                PatchAt::Profile { .. } => None,
            }));
        }
        let mut all = Vec::new();
        files_below(&dir, 3, &mut all);
        all.retain(|path| (is_patch(path) || is_template(path)) && !taken.contains(path));
        all.sort();
        Ok(all)
    }

    fn in_profile(&self, of: impl Fn(PatchTarget) -> bool) -> impl Iterator<Item = PatchAt> {
        let patches = self.talos.config_patches.iter().enumerate().filter(move |(_, patch)| of(patch.target));
        patches.map(|(index, patch)| match &patch.source {
            PatchSource::File(path) => PatchAt::File(self.talos.config_dir_in(self.folder).join(path)),
            PatchSource::Inline(_) => PatchAt::Profile { profile: self.profile.to_owned(), index },
        })
    }

    /// The patch files in these folders of the patch folder, by name.
    fn in_folders(&self, names: &[&str]) -> Vec<PatchAt> {
        let Some(dir) = self.talos.patches_dir_in(self.folder) else { return Vec::new() };
        let mut found = Vec::new();
        for name in names {
            let mut files: Vec<PathBuf> = fs::read_dir(dir.join(name))
                .map(|entries| entries.filter_map(Result::ok).map(|entry| entry.path()).collect())
                .unwrap_or_default();
            files.retain(|path| is_patch(path));
            files.sort();
            found.extend(files.into_iter().map(PatchAt::File));
        }
        found
    }
}

fn is_patch(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    path.is_file() && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Whether it is a patch with gaps in it, which other tools fill in and nobody here does.
fn is_template(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = [".tpl", ".tmpl", ".gotmpl"].iter().find_map(|extension| name.strip_suffix(extension));
    stem.is_some_and(|stem| [".yaml", ".yml", ".json"].iter().any(|extension| stem.ends_with(extension)))
}

fn files_below(dir: &Path, depth: usize, into: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() && depth > 1 {
            files_below(&path, depth - 1, into);
        } else {
            into.push(path);
        }
    }
}

/// What the version jump of a plan means for the patches of its machines. What touches no patch is `config check`'s to
/// tell; patches that can't be read were refused before.
pub fn migration(wanted: &Wanted, seen: &Observed) -> Vec<Finding> {
    let running = seen.cluster.as_ref().and_then(|cluster| cluster.talos.values().min());
    let schematics = seen.cluster.iter().flat_map(|cluster| cluster.schematic.values());
    let other = schematics.into_iter().any(|schematic| *schematic != wanted.schematic);
    let image = if other { migrate::Image::Other } else { migrate::Image::Same };
    let whole = |machine: &&MachineSpec| machine.whole.is_none();
    let mut places: Vec<&PatchAt> = Vec::new();
    for place in wanted.machines.values().filter(whole).flat_map(|machine| &machine.patches) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    let patches: Vec<Patch> = places.into_iter().filter_map(|at| config::patch(at).ok()).collect();
    let subjects =
        Subjects { patches: &patches.iter().collect::<Vec<_>>(), nocloud: true, image, ..Subjects::default() };
    let mut found = migrate::findings(running, &wanted.talos, &subjects);
    for machine in wanted.machines.values().filter(whole) {
        let own: Vec<Patch> = machine.patches.iter().filter_map(|at| config::patch(at).ok()).collect();
        for gone in removed(own.iter(), &wanted.kubernetes, machine.role) {
            if !found.contains(&gone) {
                found.push(gone);
            }
        }
    }
    let touching = found.into_iter().filter(|finding| !finding.origin.is_empty() || finding.weight == Weight::Changes);
    touching
        .map(|finding| match finding.weight {
            Weight::Breaks => Finding::refusal(finding.told(), finding.instead),
            Weight::Changes | Weight::Notice => Finding::warning(finding.told(), finding.instead),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::load;

    #[test]
    fn the_order_is_all_then_role_then_node_and_the_profile_before_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let text = include_str!("../../profiles/lab.yaml");
        let added = "talos:\n  config_patches:\n    - {for: worker, inline: \"machine: {}\"}\n    - inline: \"machine: {}\"\n  patches_dir: patches\n";
        let text = text.replacen("talos:\n", added, 1);
        let path = folder.path().join("lab.yaml");
        fs::write(&path, text).unwrap();
        let profile = load::profile_file(&path).map_err(|error| error.to_string()).unwrap().value;
        let talos = profile.talos.unwrap();
        let dir = talos.patches_dir_in(folder.path()).unwrap();
        for file in [
            "all/10-b.yaml",
            "all/01-a.yaml",
            "all/README.md",
            "all/05-t.yaml.tpl",
            "worker/x.yml",
            "control-plane/y.yaml",
            "node/w1/z.yaml",
            "w1.yaml",
        ] {
            let file = dir.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "").unwrap();
        }
        let patches = Patches { talos: &talos, profile: &path, folder: folder.path() };
        let shown = |patches: Vec<PatchAt>| -> Vec<String> {
            let one = |patch: &PatchAt| match patch {
                PatchAt::File(path) => path.strip_prefix(&dir).unwrap().display().to_string(),
                PatchAt::Profile { index, .. } => index.to_string(),
            };
            patches.iter().map(one).collect()
        };
        assert_eq!(shown(patches.shared(Role::Worker)), ["1", "all/01-a.yaml", "all/10-b.yaml", "0", "worker/x.yml"]);
        assert_eq!(shown(patches.own("w1")), ["w1.yaml", "node/w1/z.yaml"]);
        assert_eq!(shown(patches.own("w2")), Vec::<String>::new());
        // Nobody is called w1 here.
        let machines = || [("w2", Role::Worker), ("cp-1", Role::ControlPlane)].into_iter();
        let stray = patches.stray(machines()).unwrap();
        assert_eq!(stray, [dir.join("all/05-t.yaml.tpl"), dir.join("node/w1/z.yaml"), dir.join("w1.yaml")]);
        fs::remove_dir_all(&dir).unwrap();
        assert!(patches.stray(machines()).unwrap_err().problems[0].what.contains("is not there"));
    }
}
