//! Whether a group's machines would boot another image than the one they were last made from.
//!
//! The lock knows what templates were made from, and profile and group what the next ones will be; a schematic's ID is the
//! digest of its extensions and kernel arguments, so other ones have another ID. Must not know: what follows from it.

use crate::profile::lock::{Lock, LockedTemplate};
use crate::talos::config::migrate::Image;
use crate::types::{SchematicId, Version};

/// The image of `wanted`, where templates of `running` were made before; without a running version, or without
/// templates of it, the newest templates are what the machines come from.
pub(super) fn of(lock: &Lock, running: Option<&Version>, wanted: &SchematicId) -> Image {
    let templates = || lock.templates.values().flatten();
    let of = |version: &Version| templates().filter(|template| template.version == *version).collect::<Vec<_>>();
    let newest = || templates().map(|template| &template.version).max().map(of);
    let last: Vec<&LockedTemplate> = running.map(of).filter(|of| !of.is_empty()).or_else(newest).unwrap_or_default();
    if last.is_empty() {
        Image::Unknown
    } else if last.iter().any(|template| template.schematic == *wanted) {
        Image::Same
    } else {
        Image::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{NodeName, Sha256, VmId};

    fn lock(templates: &[(&str, &str)]) -> Lock {
        let templates = templates.iter().map(|(version, schematic)| LockedTemplate {
            vmid: VmId(101),
            fingerprint: Sha256::of(b""),
            version: version.parse().unwrap(),
            schematic: SchematicId::new(*schematic),
        });
        let mut lock = Lock::default();
        lock.templates.insert(NodeName::new("pve1"), templates.collect());
        lock
    }

    #[test]
    fn an_image_is_compared_with_those_of_the_version_that_runs() {
        let of = |lock: &Lock, running: Option<&str>, wanted: &str| {
            let running = running.map(|version| version.parse().unwrap());
            super::of(lock, running.as_ref(), &SchematicId::new(wanted))
        };
        let both = lock(&[("1.12.4", "one"), ("1.12.4", "two"), ("1.13.9", "three")]);
        assert_eq!(of(&lock(&[]), Some("1.12.4"), "one"), Image::Unknown);
        for wanted in ["one", "two"] {
            assert_eq!(of(&both, Some("1.12.4"), wanted), Image::Same, "groups may have their own: {wanted}");
        }
        assert_eq!(of(&both, Some("1.12.4"), "three"), Image::Other);
        assert_eq!(of(&both, None, "three"), Image::Same, "the newest templates");
        assert_eq!(of(&both, Some("1.11.0"), "one"), Image::Other, "none of that version: the newest");
    }
}
