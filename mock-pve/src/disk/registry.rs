//! Which images can be had: what the Image Factory builds, and the container images that Talos and Kubernetes name.
//!
//! A machine that pulls an image asks here whether the name stands for anything; nothing is fetched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::{NotAvailable, Recipe, Schematic, Signing, minor};

/// Talos versions of a factory and the schematics it was given; clones are the same.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    versions: Vec<String>,
    schematics: Mutex<BTreeMap<String, Schematic>>,
}

/// Why there is no such image; the text is a container runtime's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoImage {
    /// The reference makes no sense.
    #[error("failed to parse reference \"{reference}\": invalid reference format")]
    Malformed {
        /// The reference.
        reference: String,
    },
    /// The registry doesn't have it.
    #[error("failed to resolve reference \"{reference}\": {reference}: not found")]
    NotFound {
        /// The reference.
        reference: String,
    },
    /// The factory refuses to build it.
    #[error(
        "failed to resolve reference \"{reference}\": unexpected status from HEAD request to {url}: 400 Bad Request"
    )]
    Refused {
        /// The reference.
        reference: String,
        /// What was asked for.
        url: String,
    },
    /// It is an image, and installs nothing.
    #[error("installer help returned non-zero exit. assuming invalid installer")]
    NoInstaller,
}

/// A container image's name in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `factory.talos.dev`, `registry.k8s.io`, `10.0.0.1:5000`.
    pub host: String,
    /// `nocloud-installer/376…`, `kube-apiserver`.
    pub path: String,
    /// `v1.13.9`.
    pub tag: String,
    /// `sha256:…`, if it is pinned.
    pub digest: Option<String>,
}

impl Reference {
    /// Takes `host/path:tag[@digest]` apart; a name without a host is one of Docker's.
    pub fn parse(text: &str) -> Result<Self, NoImage> {
        let malformed = || NoImage::Malformed { reference: text.to_owned() };
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        if digest.is_some_and(|digest| {
            let hex = digest.strip_prefix("sha256:").unwrap_or_default();
            hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit())
        }) {
            return Err(malformed());
        }
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (name, if digest.is_some() { "" } else { "latest" }),
        };
        let word = |text: &str, more: &str| {
            !text.is_empty() && text.chars().all(|one| one.is_ascii_alphanumeric() || more.contains(one))
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => {
                (host.to_owned(), path.to_owned())
            }
            Some(_) => ("docker.io".to_owned(), name.to_owned()),
            None => ("docker.io".to_owned(), format!("library/{name}")),
        };
        let lower = |text: &str| word(text, "._-") && !text.contains(|one: char| one.is_ascii_uppercase());
        if !word(&host, ".:-")
            || !path.split('/').all(lower)
            || !(tag.is_empty() || word(tag, "._-") && tag.len() <= 128)
        {
            return Err(malformed());
        }
        Ok(Self { host, path, tag: tag.to_owned(), digest: digest.map(str::to_owned) })
    }

    /// The name as a container runtime lists it.
    pub fn name(&self) -> String {
        let tag = if self.tag.is_empty() { String::new() } else { format!(":{}", self.tag) };
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{}/{}{tag}{digest}", self.host, self.path)
    }

    /// The name pinned to what it stands for.
    pub fn pinned(&self) -> String {
        match &self.digest {
            Some(_) => self.name(),
            None => format!("{}/{}@{}", self.host, self.path, self.content()),
        }
    }

    /// The digest of what it stands for, made up from the name.
    pub fn content(&self) -> String {
        let made_up = || format!("sha256:{}", hex::encode(Sha256::digest(format!("{}:{}", self.path, self.tag))));
        self.digest.clone().unwrap_or_else(made_up)
    }
}

impl Registry {
    /// What a factory with those versions (with their `v`) builds.
    pub fn new(mut versions: Vec<String>, schematics: impl IntoIterator<Item = Schematic>) -> Self {
        versions.sort_by_key(|version| order(version));
        let mut known: BTreeMap<String, Schematic> = schematics.into_iter().map(|one| (one.id(), one)).collect();
        known.insert(Schematic::default().id(), Schematic::default());
        Self(Arc::new(Inner { versions, schematics: Mutex::new(known) }))
    }

    /// Its Talos versions, the oldest first.
    pub fn versions(&self) -> &[String] {
        &self.0.versions
    }

    /// The schematic with that id, once somebody posted it.
    pub fn schematic(&self, id: &str) -> Option<Schematic> {
        self.0.schematics.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Remembers a schematic; its id.
    pub fn add(&self, schematic: Schematic) -> String {
        let id = schematic.id();
        self.0.schematics.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), schematic);
        id
    }

    /// What an installer image of the factory holds, by its name (`nocloud-installer-secureboot`), schematic and tag.
    pub fn factory_installer(&self, name: &str, id: &str, tag: &str) -> Result<Recipe, NoInstaller> {
        let plain = name.strip_suffix("-secureboot").unwrap_or(name);
        let platform = plain.strip_suffix("-installer");
        if plain != "installer" && !platform.is_some_and(|platform| PLATFORMS.contains(&platform)) {
            return Err(NoInstaller::Name(name.to_owned()));
        }
        let schematic = self.schematic(id).ok_or(NoInstaller::Schematic)?;
        let newest = self.0.versions.iter().rfind(|version| !version.contains('-'));
        let tag = if tag == "latest" { newest.map_or(tag, String::as_str) } else { tag };
        if !tag.starts_with('v') {
            return Err(NoInstaller::Tag(tag.to_owned()));
        }
        if !self.0.versions.iter().any(|known| known == tag) {
            return Err(NoInstaller::Version(tag.to_owned()));
        }
        let signing = if plain == name { Signing::Plain } else { Signing::SecureBoot };
        schematic.recipe(tag, signing).map_err(NoInstaller::Extension)
    }

    /// What the installer image behind a reference installs.
    pub fn installer(&self, text: &str) -> Result<Recipe, NoImage> {
        let reference = Reference::parse(text)?;
        let not_found = || NoImage::NotFound { reference: text.to_owned() };
        if let Some((name, id)) = factory_path(&reference.path) {
            return self.factory_installer(name, id, &reference.tag).map_err(|why| match why {
                NoInstaller::Schematic | NoInstaller::Version(_) => not_found(),
                _ => NoImage::Refused {
                    reference: text.to_owned(),
                    url: format!("https://{}/v2/{}/manifests/{}", reference.host, reference.path, reference.tag),
                },
            });
        }
        if !self.is_image(&reference) {
            return Err(not_found());
        }
        if reference.path.rsplit('/').next() != Some("installer") {
            return Err(NoImage::NoInstaller);
        }
        // Talos' own installer knows of no schematic.
        Ok(Recipe {
            version: reference.tag,
            schematic: String::new(),
            extensions: Vec::new(),
            kernel_args: Vec::new(),
            signed: false,
        })
    }

    /// Whether there is such an image.
    pub fn image(&self, text: &str) -> Result<Reference, NoImage> {
        let reference = Reference::parse(text)?;
        if factory_path(&reference.path).is_some() {
            return self.installer(text).map(|_| reference);
        }
        if self.is_image(&reference) { Ok(reference) } else { Err(NoImage::NotFound { reference: text.to_owned() }) }
    }

    fn is_image(&self, reference: &Reference) -> bool {
        let name = reference.path.rsplit('/').next().unwrap_or_default();
        match name {
            // Not published on ghcr.io since 1.14.
            "installer" => {
                self.0.versions.contains(&reference.tag) && (reference.host != "ghcr.io" || minor(&reference.tag) < 14)
            }
            "kube-apiserver" | "kube-controller-manager" | "kube-scheduler" | "kube-proxy" | "kubelet" => {
                let tag = reference.tag.trim_end_matches("-fat").trim_end_matches("-slim");
                reference.digest.is_some() && tag.is_empty() || is_kubernetes(tag)
            }
            _ => PUBLIC.contains(&reference.host.as_str()),
        }
    }
}

/// Why the factory has no such installer.
#[derive(Debug, thiserror::Error)]
pub enum NoInstaller {
    /// No such name.
    #[error("invalid image name: {0}")]
    Name(String),
    /// Nobody posted the schematic.
    #[error("schematic not found")]
    Schematic,
    /// A tag is a version.
    #[error("invalid tag: {0}")]
    Tag(String),
    /// No such Talos.
    #[error("Talos version {0} is not available")]
    Version(String),
    /// The schematic asks for what that Talos doesn't have.
    #[error(transparent)]
    Extension(#[from] NotAvailable),
}

/// `nocloud-installer`, schematic.
fn factory_path(path: &str) -> Option<(&str, &str)> {
    let (name, id) = path.rsplit_once('/')?;
    let name = name.rsplit('/').next()?;
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some((name, id))
}

/// Platforms that Talos has installers for.
const PLATFORMS: &[&str] = &[
    "akamai",
    "aws",
    "azure",
    "cloudstack",
    "digital-ocean",
    "equinixMetal",
    "exoscale",
    "gcp",
    "hcloud",
    "metal",
    "nocloud",
    "opennebula",
    "openstack",
    "oracle",
    "scaleway",
    "upcloud",
    "vmware",
    "vultr",
];

/// Registries whose other images are taken to exist.
const PUBLIC: &[&str] = &["docker.io", "gcr.io", "ghcr.io", "public.ecr.aws", "quay.io", "registry.k8s.io"];

/// Kubernetes 1.24 to 1.37; no minor has had more than thirty patches.
fn is_kubernetes(tag: &str) -> bool {
    let numbers: Option<Vec<u32>> = tag
        .strip_prefix('v')
        .map(|version| version.split('-').next().unwrap_or_default())
        .and_then(|version| version.split('.').map(|part| part.parse().ok()).collect());
    matches!(numbers.as_deref(), Some([1, 24..=37, 0..=30]))
}

/// Versions that an Image Factory offers here unless it is told otherwise: the newest patch of every minor, and some more
/// of those that are of interest.
pub fn default_versions() -> Vec<String> {
    [
        "1.5.5",
        "1.6.8",
        "1.7.7",
        "1.8.4",
        "1.9.6",
        "1.10.9",
        "1.11.5",
        "1.11.6",
        "1.12.4",
        "1.12.10",
        "1.12.11",
        "1.13.8",
        "1.13.9",
        "1.14.0-rc.1",
    ]
    .iter()
    .map(|version| format!("v{version}"))
    .collect()
}

/// Sorts by numbers, a prerelease before its release.
fn order(version: &str) -> (Vec<u64>, bool, String) {
    let (numbers, prerelease) = version.trim_start_matches('v').split_once('-').unwrap_or((version, ""));
    let numbers = numbers.trim_start_matches('v').split('.').map(|number| number.parse().unwrap_or_default()).collect();
    (numbers, prerelease.is_empty(), prerelease.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

    #[test]
    fn an_installer_is_found_by_its_whole_name_or_not_at_all() {
        let registry = Registry::new(default_versions(), []);
        let found = registry.installer(&format!("factory.talos.dev/nocloud-installer/{EMPTY}:v1.13.9")).unwrap();
        assert_eq!((found.version.as_str(), found.schematic.as_str()), ("v1.13.9", EMPTY));
        assert_eq!(registry.installer("ghcr.io/siderolabs/installer:v1.12.4").unwrap().schematic, "");
        for (reference, why) in [
            (format!("factory.talos.dev/nocloud-installer/{EMPTY}:v1.13.99"), "not found"),
            (format!("factory.talos.dev/nocloud-installer/{}:v1.13.9", EMPTY.replace('3', "4")), "not found"),
            (format!("factory.talos.dev/toaster-installer/{EMPTY}:v1.13.9"), "400 Bad Request"),
            ("ghcr.io/siderolabs/installer:v1.14.0-rc.1".to_owned(), "not found"),
            ("registry.k8s.io/kube-apiserver:v1.34.1".to_owned(), "assuming invalid installer"),
            ("ghcr.io/UPPER/case:v1".to_owned(), "invalid reference format"),
            (String::new(), "invalid reference format"),
        ] {
            let error = registry.installer(&reference).unwrap_err().to_string();
            assert!(error.contains(why), "{reference}: {error}");
        }
    }

    #[test]
    fn kubernetes_images_exist_for_versions_that_do() {
        let registry = Registry::new(default_versions(), []);
        for there in ["registry.k8s.io/kube-apiserver:v1.34.1", "ghcr.io/siderolabs/kubelet:v1.33.2-fat", "nginx"] {
            registry.image(there).unwrap();
        }
        for absent in ["registry.k8s.io/kube-apiserver:v1.34.99", "10.0.0.1:5000/some/thing:v1"] {
            assert!(registry.image(absent).is_err(), "{absent}");
        }
    }
}
