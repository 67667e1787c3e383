//! An Image Factory: schematics, versions, disk images, installer images.
//!
//! Purpose: answer what `factory.talos.dev` answers, with its status codes and error texts (siderolabs/image-factory
//! 1.5.0, Community), over images that [`crate::disk`] makes.
//! Must not know: virtual machines, the PVE API, what a client does with an image.
//! Start reading at [`Factory`], then `routes.rs`; `images.rs` makes and keeps files, `xz.rs` and `qcow2.rs` pack them.

mod images;
mod qcow2;
mod routes;
mod xz;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::disk::{BadSchematic, DiskError, NotAvailable, Registry, Schematic};

pub use crate::disk::default_versions;

/// What a factory is started with.
#[derive(Clone)]
pub struct Options {
    /// Where images and schematics are kept.
    pub dir: PathBuf,
    /// The Talos versions it offers, with or without the `v`; empty: [`default_versions`].
    pub versions: Vec<String>,
    /// Schematics it knows from the start, as YAML.
    pub schematics: Vec<String>,
    /// How images are delivered.
    pub delivery: Delivery,
    /// Told of every request once it is answered.
    pub log: Option<RequestLog>,
}

/// How `GET /image/…` is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delivery {
    /// By a redirect to a store that knows ranges and `ETag`s, as the public factory does.
    #[default]
    Redirect,
    /// By the whole file; ranges are ignored, as a self-hosted factory without a store does.
    Direct,
}

/// Receives one line per request.
pub type RequestLog = Arc<dyn Fn(&Request) + Send + Sync>;

/// A request that was answered.
#[derive(Clone, Debug)]
pub struct Request {
    /// `GET`, `HEAD`, `POST`.
    pub method: String,
    /// Path without the query.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
}

/// Why a factory can't start or can't make an image.
#[derive(Debug, thiserror::Error)]
pub enum FactoryError {
    /// Its folder can't be used.
    #[error("the factory's folder {path} can't be used")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An image can't be made.
    #[error("an image can't be made")]
    Disk(#[from] DiskError),
    /// A schematic that was to be known from the start is no schematic.
    #[error("a seeded schematic is invalid")]
    Schematic(#[from] BadSchematic),
    /// An extension doesn't exist for the version.
    #[error(transparent)]
    Extension(#[from] NotAvailable),
    /// The thread that made the image is gone.
    #[error("making an image was interrupted")]
    Interrupted,
}

/// A running factory; cheap to clone.
#[derive(Clone)]
pub struct Factory(Arc<Inner>);

struct Inner {
    options: Options,
    registry: Registry,
    images: images::Images,
}

impl Factory {
    /// Prepares a factory over `options.dir`.
    pub fn new(options: Options) -> Result<Self, FactoryError> {
        let mut versions: Vec<String> =
            if options.versions.is_empty() { default_versions() } else { options.versions.clone() };
        for version in &mut versions {
            if !version.starts_with('v') {
                version.insert(0, 'v');
            }
        }
        let images = images::Images::new(options.dir.join("images"))?;
        let known: Vec<Schematic> =
            options.schematics.iter().map(|text| Schematic::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { options, registry: Registry::new(versions, known), images })))
    }

    /// What it can build; machines that upgrade ask there.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The schematic with that id, once somebody posted it.
    pub fn schematic(&self, id: &str) -> Option<Schematic> {
        self.0.registry.schematic(id)
    }

    /// Remembers a schematic and returns its id.
    pub fn add(&self, schematic: Schematic) -> String {
        self.0.registry.add(schematic)
    }

    fn versions(&self) -> &[String] {
        self.0.registry.versions()
    }

    fn knows(&self, version: &str) -> bool {
        self.versions().iter().any(|known| known == version)
    }
}

/// Answers on `listener` until the future is dropped.
pub async fn serve(listener: TcpListener, tls: Arc<rustls::ServerConfig>, factory: Factory) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (acceptor, factory) = (acceptor.clone(), factory.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    routes::connection(stream, factory).await;
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests;
