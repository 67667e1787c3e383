//! The lock, `<cluster>.lock` beside the profile: what images and templates were when they were made.
//!
//! Purpose: the next run gets the very same bytes and finds its templates again. JSON, sorted, so that it diffs well.
//! Must not know: files, clients, how digests are computed. Start reading at [`Lock`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{NodeName, SchematicId, Sha256, Version, VmId};

/// The newest format that this version reads, and the one that it writes.
pub const FORMAT: u32 = 1;

/// What a cluster was last made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    format: u32,
    /// Schematics by ID, as the YAML whose digest the ID is.
    #[serde(default)]
    pub schematics: BTreeMap<SchematicId, String>,
    /// Images, one for each schematic, version and file.
    #[serde(default)]
    pub images: Vec<LockedImage>,
    /// Templates by node.
    #[serde(default)]
    pub templates: BTreeMap<NodeName, Vec<LockedTemplate>>,
}

/// One encoding of one image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedImage {
    /// What it was made from.
    pub schematic: SchematicId,
    /// The Talos version in it.
    pub version: Version,
    /// The factory's file name, which names platform, architecture and encoding: `nocloud-amd64.raw.xz`.
    pub file: String,
    /// Size of the file.
    pub bytes: u64,
    /// Digest of the file.
    pub sha256: Sha256,
    /// How much the digest proves.
    pub trust: Trust,
}

/// How much a locked digest proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// An earlier run saw the same, or a person wrote it down.
    Pinned,
    /// The run that wrote it was the first to see it.
    FirstUse,
}

/// One template on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedTemplate {
    /// Its VMID.
    pub vmid: VmId,
    /// Fingerprint of its configuration.
    pub fingerprint: Sha256,
    /// The Talos version in it.
    pub version: Version,
    /// What its image was made from.
    pub schematic: SchematicId,
}

/// Why a lock can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A later version wrote it.
    #[error("the lock has format {found}; this version of recast reads up to {FORMAT}")]
    Newer {
        /// Its format.
        found: u32,
    },
    /// It is no lock.
    #[error("the lock can't be read")]
    Malformed(#[source] serde_json::Error),
}

impl Default for Lock {
    fn default() -> Self {
        Self { format: FORMAT, schematics: BTreeMap::new(), images: Vec::new(), templates: BTreeMap::new() }
    }
}

impl Lock {
    /// Reads a lock. The format is looked at first: a newer one may have other keys.
    pub fn from_text(text: &str) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_str(text).map_err(LockError::Malformed)?;
        if head.format > FORMAT {
            return Err(LockError::Newer { found: head.format });
        }
        serde_json::from_str(text).map_err(LockError::Malformed)
    }

    /// The lock's text: equal locks have equal texts.
    pub fn to_text(&self) -> String {
        let mut sorted = self.clone();
        sorted.images.sort_by(|a, b| key(a).cmp(&key(b)));
        for templates in sorted.templates.values_mut() {
            templates.sort_by_key(|template| template.vmid);
        }
        // Maps with text keys and plain values always serialise.
        serde_json::to_string_pretty(&sorted).expect("a lock is plain data") + "\n"
    }

    /// The entry of an image.
    pub fn image(&self, schematic: &SchematicId, version: &Version, file: &str) -> Option<&LockedImage> {
        self.images.iter().find(|image| key(image) == (schematic, version, file))
    }

    /// Notes an image. One that is noted with the same digest becomes pinned; another digest replaces the entry.
    pub fn note_image(&mut self, mut image: LockedImage) {
        if let Some(known) = self.images.iter_mut().find(|known| key(known) == key(&image)) {
            if known.sha256 == image.sha256 {
                image.trust = Trust::Pinned;
            }
            *known = image;
        } else {
            self.images.push(image);
        }
    }

    /// The template of a schematic and version on a node.
    pub fn template(&self, node: &NodeName, schematic: &SchematicId, version: &Version) -> Option<&LockedTemplate> {
        self.templates.get(node)?.iter().find(|it| it.schematic == *schematic && it.version == *version)
    }

    /// Notes a template in place of the one with the same VMID, or of the same schematic and version, on the node.
    pub fn note_template(&mut self, node: NodeName, template: LockedTemplate) {
        let known = self.templates.entry(node).or_default();
        known.retain(|it| {
            it.vmid != template.vmid && (&it.schematic, &it.version) != (&template.schematic, &template.version)
        });
        known.push(template);
    }
}

fn key(image: &LockedImage) -> (&SchematicId, &Version, &str) {
    (&image.schematic, &image.version, &image.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(version: &str, content: &str) -> LockedImage {
        LockedImage {
            schematic: "ab".into(),
            version: version.parse().unwrap(),
            file: "nocloud-amd64.raw.xz".to_owned(),
            bytes: 7,
            sha256: Sha256::of(content.as_bytes()),
            trust: Trust::FirstUse,
        }
    }

    fn template(vmid: u32, version: &str) -> LockedTemplate {
        LockedTemplate {
            vmid: VmId(vmid),
            fingerprint: Sha256::of(b"f"),
            version: version.parse().unwrap(),
            schematic: "ab".into(),
        }
    }

    #[test]
    fn equal_locks_have_equal_texts_whatever_the_order() {
        let (mut a, mut b) = (Lock::default(), Lock::default());
        a.schematics.insert("ab".into(), "customization: {}\n".to_owned());
        b.schematics = a.schematics.clone();
        for (lock, versions) in [(&mut a, ["1.12.4", "1.13.9"]), (&mut b, ["1.13.9", "1.12.4"])] {
            for version in versions {
                lock.note_image(image(version, version));
                lock.note_template("pve1".into(), template(if version == "1.12.4" { 101 } else { 102 }, version));
            }
        }
        assert_eq!(a.to_text(), b.to_text());
        assert_eq!(Lock::from_text(&a.to_text()).unwrap().to_text(), a.to_text());
        assert!(a.to_text().starts_with("{\n  \"format\": 1,"));
    }

    #[test]
    fn a_digest_seen_twice_is_pinned_and_another_one_is_not() {
        let mut lock = Lock::default();
        lock.note_image(image("1.13.9", "x"));
        let found = |lock: &Lock| {
            let image = lock.image(&"ab".into(), &Version::new(1, 13, 9), "nocloud-amd64.raw.xz").unwrap();
            (image.trust, image.sha256)
        };
        assert_eq!(found(&lock), (Trust::FirstUse, Sha256::of(b"x")));
        lock.note_image(image("1.13.9", "x"));
        assert_eq!(found(&lock), (Trust::Pinned, Sha256::of(b"x")));
        lock.note_image(image("1.13.9", "y"));
        assert_eq!(found(&lock), (Trust::FirstUse, Sha256::of(b"y")));
    }

    #[test]
    fn a_template_takes_the_place_of_its_predecessor() {
        let mut lock = Lock::default();
        lock.note_template("pve1".into(), template(101, "1.12.4"));
        lock.note_template("pve1".into(), template(102, "1.13.9"));
        lock.note_template("pve1".into(), template(103, "1.13.9"));
        let vmids: Vec<u32> = lock.templates[&"pve1".into()].iter().map(|template| template.vmid.0).collect();
        assert_eq!(vmids, [101, 103]);
        assert_eq!(lock.template(&"pve1".into(), &"ab".into(), &Version::new(1, 13, 9)).unwrap().vmid, VmId(103));
    }

    #[test]
    fn newer_and_broken_locks_are_refused() {
        let newer = Lock::from_text("{\"format\": 2, \"new\": {}}").unwrap_err();
        assert_eq!(newer.to_string(), "the lock has format 2; this version of recast reads up to 1");
        assert!(matches!(Lock::from_text("{\"format\": 1, \"imags\": []}"), Err(LockError::Malformed(_))));
        assert!(matches!(Lock::from_text("{}"), Err(LockError::Malformed(_))));
    }
}
