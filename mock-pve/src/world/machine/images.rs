//! The container images in a machine's store.

use std::time::SystemTime;

use super::faults::Fault;
use super::state::{Machine, Pulled};
use crate::disk::{NoImage, Reference};

/// Seconds that pulling an image takes.
const PULL: f64 = 6.0;

/// Where images are kept: containerd's namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Namespace {
    /// Talos' own.
    System,
    /// Kubernetes'.
    Cri,
}

impl Namespace {
    /// As containerd names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Cri => "k8s.io",
        }
    }
}

/// Why an image can't be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// There is no such image.
    #[error(transparent)]
    NoImage(#[from] NoImage),
    /// The registry doesn't answer.
    #[error("failed to resolve reference \"{0}\": failed to do request: dial tcp: i/o timeout")]
    Silent(String),
}

impl PullError {
    /// Whether trying again can't help.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::NoImage(_))
    }
}

impl Machine {
    /// The image of that name, if it was pulled before.
    pub fn pulled(&self, namespace: Namespace, name: &str) -> Option<Pulled> {
        let name = Reference::parse(name).ok()?.name();
        self.see(|state| state.images.get(&(namespace.as_str(), name)).cloned())
    }

    /// Pulls an image, unless it is there.
    pub async fn pull(&self, namespace: Namespace, name: &str) -> Result<Pulled, PullError> {
        let reference = Reference::parse(name)?;
        if let Some(found) = self.pulled(namespace, name) {
            return Ok(found);
        }
        let known = self.world().registry().image(name);
        if known.is_ok() {
            self.world().clock().sleep(PULL).await;
        }
        if self.world().goes_wrong(self.vmid(), Fault::RegistryDown) {
            return Err(PullError::Silent(name.to_owned()));
        }
        known?;
        Ok(self.keep_image(namespace, &reference))
    }

    /// An image is there without anybody having waited for it.
    pub(super) fn note_image(&self, namespace: Namespace, name: &str) {
        if let Ok(reference) = Reference::parse(name)
            && self.pulled(namespace, name).is_none()
        {
            self.keep_image(namespace, &reference);
        }
    }

    fn keep_image(&self, namespace: Namespace, reference: &Reference) -> Pulled {
        let digest = reference.content();
        let bytes = 20_000_000 + i64::from(crc32fast::hash(digest.as_bytes()) % 90_000_000);
        let pulled = Pulled { digest, bytes, at: SystemTime::now() };
        self.update(|state| state.images.insert((namespace.as_str(), reference.name()), pulled.clone()));
        pulled
    }

    /// Takes over an image that was imported.
    pub fn import_image(&self, namespace: Namespace, name: &str) -> Result<Pulled, NoImage> {
        Ok(self.keep_image(namespace, &Reference::parse(name)?))
    }

    /// Forgets an image; whether it was there.
    pub fn forget_image(&self, namespace: Namespace, name: &str) -> bool {
        let Ok(reference) = Reference::parse(name) else { return false };
        self.update(|state| state.images.remove(&(namespace.as_str(), reference.name())).is_some())
    }
}
