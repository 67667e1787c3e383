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

/// Major and minor of the etcd that this Talos brings along; none for a Talos this table doesn't know.
/// Source: `pkg/machinery/constants` of siderolabs/talos, per release.
pub fn etcd(talos: &Version) -> Option<(u64, u64)> {
    match talos.minor() {
        (1, 5..=10) => Some((3, 5)),
        (1, 11..=13) => Some((3, 6)),
        (1, 14) => Some((3, 7)),
        _ => None,
    }
}

/// Why data written by one minor version can't be taken over by another: none for the same and the next.
pub fn jump(from: (u64, u64), to: (u64, u64)) -> Option<&'static str> {
    if to < from {
        return Some("data never go back to an older minor");
    }
    if to.0 != from.0 || to.1 > from.1 + 1 {
        return Some("data go up one minor at a time");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_go_to_the_same_minor_or_the_next() {
        assert_eq!((jump((1, 34), (1, 34)), jump((1, 34), (1, 35))), (None, None));
        assert!(jump((1, 34), (1, 36)).is_some() && jump((1, 35), (1, 34)).is_some() && jump((3, 6), (4, 0)).is_some());
        let etcd = |talos: &str| etcd(&talos.parse().unwrap());
        assert_eq!(
            [etcd("1.10.6"), etcd("1.13.9"), etcd("1.14.0"), etcd("1.99.0")],
            [Some((3, 5)), Some((3, 6)), Some((3, 7)), None]
        );
    }

    #[test]
    fn the_range_has_both_ends() {
        let runs = |kubernetes: &str, talos: &str| runs_on(&kubernetes.parse().unwrap(), &talos.parse().unwrap());
        assert!(runs("1.31.0", "1.13.9") && runs("1.36.3", "1.13.9"));
        assert!(!runs("1.30.9", "1.13.9") && !runs("1.37.0", "1.13.9"));
        assert!(runs("1.99.0", "1.99.0"), "an unknown Talos decides for itself");
    }
}
