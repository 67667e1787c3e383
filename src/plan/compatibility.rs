//! Which Kubernetes runs on which Talos.
//!
//! Source: `pkg/machinery/compatibility/talosNNN` of siderolabs/talos; a node refuses a configuration outside its range.

use crate::types::Version;

/// Talos minor, then first and last Kubernetes minor (all with major 1).
const RANGES: &[(u64, u64, u64)] = &[
    (5, 26, 28),
    (6, 24, 29),
    (7, 25, 30),
    (8, 26, 31),
    (9, 27, 32),
    (10, 28, 33),
    (11, 29, 34),
    (12, 30, 35),
    (13, 31, 36),
    (14, 32, 37),
];

/// The first and last Kubernetes minor of a Talos version, as `1.31` and `1.36`; none for a Talos this table doesn't know.
pub fn kubernetes_range(talos: &Version) -> Option<((u64, u64), (u64, u64))> {
    let (major, minor) = talos.minor();
    let range = RANGES.iter().find(|(known, _, _)| major == 1 && *known == minor)?;
    Some(((1, range.1), (1, range.2)))
}

/// Whether this Kubernetes runs on this Talos; an unknown Talos is let through, since the node itself will say.
pub fn runs_on(kubernetes: &Version, talos: &Version) -> bool {
    kubernetes_range(talos).is_none_or(|(first, last)| (first..=last).contains(&kubernetes.minor()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_has_both_ends() {
        let runs = |kubernetes: &str, talos: &str| runs_on(&kubernetes.parse().unwrap(), &talos.parse().unwrap());
        assert!(runs("1.31.0", "1.13.9") && runs("1.36.3", "1.13.9"));
        assert!(!runs("1.30.9", "1.13.9") && !runs("1.37.0", "1.13.9"));
        assert!(runs("1.99.0", "1.99.0"), "an unknown Talos decides for itself");
    }
}
