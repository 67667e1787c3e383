//! References of container images: the same image in another version.
//!
//! `host[:port]/path[:tag][@digest]`, where a colon before the last slash belongs to the port (distribution's reference
//! grammar). Talos' own client split at the wrong colon once.

use crate::types::Version;

/// A reference in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parts<'a> {
    repository: &'a str,
    tag: Option<&'a str>,
}

fn parts(reference: &str) -> Parts<'_> {
    let named = reference.split_once('@').map_or(reference, |(named, _)| named);
    let from = named.rfind('/').map_or(0, |slash| slash + 1);
    match named[from..].rfind(':') {
        Some(colon) => Parts { repository: &named[..from + colon], tag: Some(&named[from + colon + 1..]) },
        None => Parts { repository: named, tag: None },
    }
}

/// Flavours of Talos' kubelet image, which a newer version keeps.
const FLAVOURS: [&str; 2] = ["-fat", "-slim"];

fn flavour(tag: &str) -> &'static str {
    FLAVOURS.into_iter().find(|flavour| tag.ends_with(flavour)).unwrap_or_default()
}

/// The version in a reference's tag; none where it has no tag, or one that is no version.
pub fn version_of(reference: &str) -> Option<Version> {
    let tag = parts(reference).tag?;
    tag.strip_suffix(flavour(tag)).unwrap_or(tag).parse().ok()
}

/// The same image in another version: its repository and flavour stay, a digest goes.
pub fn retagged(reference: &str, version: &Version) -> String {
    let Parts { repository, tag } = parts(reference);
    format!("{repository}:{}{}", version.tag(), tag.map_or("", flavour))
}

/// Whether two references mean the same repository and tag; a digest aside.
pub fn same(one: &str, other: &str) -> bool {
    parts(one) == parts(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_found_behind_ports_and_before_digests() {
        let version = |reference| version_of(reference).map(|version| version.to_string());
        for (reference, found) in [
            ("registry.k8s.io/kube-apiserver:v1.34.1", Some("1.34.1")),
            ("mirror.lan:5000/k8s/kube-apiserver:v1.34.1", Some("1.34.1")),
            ("mirror.lan:5000/k8s/kube-apiserver", None),
            ("registry.k8s.io/kube-apiserver:v1.34.1@sha256:0123", Some("1.34.1")),
            ("registry.k8s.io/kube-apiserver@sha256:0123", None),
            ("ghcr.io/siderolabs/kubelet:v1.34.1-fat", Some("1.34.1")),
            ("kubelet:1.34.1-slim", Some("1.34.1")),
            ("kubelet:latest", None),
        ] {
            assert_eq!(version(reference).as_deref(), found, "{reference}");
        }
    }

    #[test]
    fn another_version_keeps_repository_and_flavour() {
        let to = Version::new(1, 35, 0);
        for (reference, expected) in [
            ("registry.k8s.io/kube-apiserver:v1.34.1", "registry.k8s.io/kube-apiserver:v1.35.0"),
            ("mirror.lan:5000/kube-proxy@sha256:01", "mirror.lan:5000/kube-proxy:v1.35.0"),
            ("ghcr.io/siderolabs/kubelet:v1.34.1-slim", "ghcr.io/siderolabs/kubelet:v1.35.0-slim"),
        ] {
            assert_eq!(retagged(reference, &to), expected);
        }
        assert!(same("a.b/c:v1@sha256:01", "a.b/c:v1") && !same("a.b/c:v1", "a.b/d:v1"));
    }
}
