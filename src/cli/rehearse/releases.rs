//! Which Talos the rehearsed cluster runs, which ones the rehearsed factory has, and what a schematic holds.
//!
//! Purpose: what the Image Factory would be asked in life, answered without it. Must not know: networks, the double.

use crate::image::Schematic;
use crate::plan::Versions;
use crate::plan::compatibility::kubernetes_range;
use crate::profile::Talos;
use crate::profile::lock::Lock;
use crate::types::{SchematicId, Version, VersionWish};

/// Releases of Talos by minor, all patches from 0 to the one named (github.com/siderolabs/talos/releases).
const RELEASES: &[(u64, u64)] = &[(5, 5), (6, 8), (7, 7), (8, 4), (9, 6), (10, 9), (11, 6), (12, 11), (13, 9)];

/// Extensions that virtual machines have most often. A schematic's ID is a digest, so what isn't written down about it
/// can be found by trying.
const COMMON: &[&str] = &[
    "siderolabs/amd-ucode",
    "siderolabs/i915",
    "siderolabs/intel-ucode",
    "siderolabs/iscsi-tools",
    "siderolabs/nfsd",
    "siderolabs/nonfree-kmod-nvidia-production",
    "siderolabs/nvidia-container-toolkit-production",
    "siderolabs/qemu-guest-agent",
    "siderolabs/tailscale",
    "siderolabs/util-linux-tools",
];

/// What the cluster runs now: the profile's versions, a minor standing for its first release.
pub fn current(talos: &Talos) -> Versions {
    let known = offered(&[]);
    let exact = |wish: &VersionWish, newest: Version| match wish {
        VersionWish::Exact(version) => version.clone(),
        VersionWish::Minor(major, minor) => Version::new(*major, *minor, 0),
        VersionWish::Latest => newest,
    };
    let newest = known.last().cloned().unwrap_or(Version::new(1, 13, 0));
    let version = exact(&talos.version, newest);
    let newest = kubernetes_range(&version).map_or((1, 35), |(_, last)| last);
    let kubernetes = exact(&talos.kubernetes_version, Version::new(newest.0, newest.1, 0));
    Versions { talos: version, kubernetes }
}

/// The releases that the factory has, oldest first: those known to this program, and of `more` (what runs and what is
/// asked for) those that are of a minor it doesn't know, or newer than all it knows of that minor. An older one that
/// isn't known doesn't exist.
pub fn offered(more: &[Version]) -> Vec<Version> {
    let mut all: Vec<Version> =
        RELEASES.iter().flat_map(|(minor, last)| (0..=*last).map(|patch| Version::new(1, *minor, patch))).collect();
    for version in more {
        if all.iter().filter(|known| known.minor() == version.minor()).all(|known| known < version) {
            all.push(version.clone());
        }
    }
    all.sort();
    all.dedup();
    all
}

/// A schematic and, as far as it is known, its canonical YAML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Its ID.
    pub id: SchematicId,
    /// Its contents; none when they are written down nowhere and nothing common has that ID.
    pub yaml: Option<String>,
}

/// What the profile's machines are made from. None when the profile's own list has an ID that only a factory knows.
pub fn schematic(talos: &Talos, lock: &Lock) -> Option<Made> {
    let listed = Schematic::with_extensions(talos.factory.extensions.iter().cloned());
    let Some(id) = talos.factory.schematic_id.clone() else {
        return Some(Made { id: listed.id().ok()?, yaml: listed.canonical().ok() });
    };
    let locked = lock.schematics.get(&id).and_then(|text| Schematic::from_yaml(text).ok());
    let mut written = locked.into_iter().chain([listed, Schematic::default()]);
    let is_it = |schematic: &Schematic| schematic.id().is_ok_and(|other| other == id);
    let found = written.find(is_it).or_else(|| {
        let sets = 1_usize..1 << COMMON.len();
        sets.map(|set| {
            let names = COMMON.iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0);
            Schematic::with_extensions(names.map(|(_, name)| (*name).to_owned()))
        })
        .find(is_it)
    });
    Some(Made { id, yaml: found.and_then(|schematic| schematic.canonical().ok()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::load;

    const AGENT_ONLY: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";

    fn talos(keys: &str) -> Talos {
        let text = format!(
            "name: x\ntype: talos\ntags: [x]\nnetwork: {{api_endpoint: a}}\ntemplate: 101\n\
             talos: {{config_dir: x, secrets_file: s.yaml, {keys}}}\n\
             nodes: {{controlplane: {{count: 1, name_prefix: cp-, cores: 2, memory: 4096, disk: 32G}}}}\n"
        );
        load::profile("x.yaml", &text).unwrap_or_else(|problems| panic!("{problems}")).value.talos.unwrap()
    }

    #[test]
    fn a_minor_is_its_first_release() {
        let found = current(&talos("version: \"1.9\", kubernetes_version: \"1.32\""));
        assert_eq!((found.talos.tag(), found.kubernetes.tag()), ("v1.9.0".to_owned(), "v1.32.0".to_owned()));
        let found = current(&talos("version: latest, kubernetes_version: latest"));
        assert_eq!((found.talos.tag(), found.kubernetes.tag()), ("v1.13.9".to_owned(), "v1.36.0".to_owned()));
    }

    #[test]
    fn releases_that_are_newer_than_this_program_are_offered_and_gaps_stay_gaps() {
        let more = ["1.13.12", "1.14.2", "1.5.3", "1.9.6", "1.9.3-beta.0"].map(|text| text.parse().unwrap());
        let offered = offered(&more);
        assert!(more[..4].iter().all(|version| offered.contains(version)));
        assert!(!offered.contains(&more[4]));
        assert_eq!(offered.iter().filter(|version| **version == more[3]).count(), 1);
        assert!(offered.is_sorted());
    }

    #[test]
    fn the_contents_of_a_schematic_are_found_in_the_list_the_lock_or_by_trying() {
        let versions = "version: 1.13.9, kubernetes_version: 1.35.0";
        let made =
            |factory: &str| schematic(&talos(&format!("{versions}, factory: {factory}")), &Lock::default()).unwrap();
        let listed = made("{extensions: [siderolabs/qemu-guest-agent]}");
        assert_eq!(listed.id.as_str(), AGENT_ONLY);
        assert_eq!(made(&format!("{{schematic_id: {AGENT_ONLY}}}")), listed);
        let other = made("{schematic_id: aa11111111111111111111111111111111111111111111111111111111111111}");
        assert_eq!(other.yaml, None);
        let odd = Schematic::from_yaml("customization: {extraKernelArgs: [console=ttyS0]}").unwrap();
        let mut lock = Lock::default();
        lock.schematics.insert(odd.id().unwrap(), odd.canonical().unwrap());
        let talos = talos(&format!("{versions}, factory: {{schematic_id: {}}}", odd.id().unwrap()));
        assert_eq!(schematic(&talos, &lock).unwrap().yaml, odd.canonical().ok());
    }
}
