//! An Image Factory: schematics, versions, disk images, installer images.
//!
//! Purpose: answer what `factory.talos.dev` answers, with its status codes and error texts (siderolabs/image-factory
//! 1.5.0, Community), over images that [`crate::disk`] makes.
//! Must not know: virtual machines, the PVE API, what a client does with an image.
//! Start reading at [`Factory`], then `routes.rs`; `images.rs` makes and keeps files, `xz.rs`, `gzip.rs` and `qcow2.rs` pack them.

mod gzip;
mod images;
mod qcow2;
mod routes;
mod xz;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::disk::{BadSchematic, DiskError, NotAvailable, Registry, Schematic};
use crate::scenario::{Met, Wire};
use crate::world::World;
use crate::world::script::{Ask, Flow, Service, Step};

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
    /// The world whose scenario it follows and whose log it keeps, if it is in one.
    pub world: Option<World>,
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

/// The folder of registered schematics.
const SCHEMATICS: &str = "schematics";

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
        let mut known: Vec<Schematic> =
            options.schematics.iter().map(|text| Schematic::parse(text)).collect::<Result<_, _>>()?;
        // What was registered before a restart.
        for entry in std::fs::read_dir(options.dir.join(SCHEMATICS)).into_iter().flatten().flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            known.extend(Schematic::parse(&text).ok());
        }
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
        let folder = self.0.options.dir.join(SCHEMATICS);
        let kept = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join(format!("{}.yaml", schematic.id())), schematic.canonical()));
        if let Err(error) = kept {
            tracing::warn!(%error, "a schematic isn't kept over a restart");
        }
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
                connections.spawn(connection(stream, acceptor, factory));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, factory: Factory) {
    let world = factory.0.options.world.as_ref();
    let wire = Wire::new(stream).writing_at(world.and_then(|world| world.flow(Flow::Download)));
    let cut = wire.cut();
    if let Some(world) = world.filter(|world| world.script().is_some()) {
        let (service, step) = (Service::Factory, Step::Connect);
        let ask = Ask { service, step, verb: "", path: "", who: "", node: "", vmid: None };
        if Met::with(world, &ask).await.breaks_before() {
            return cut.now();
        }
    }
    // Nobody is waited for who says nothing.
    let handshake = tokio::time::timeout(std::time::Duration::from_secs(10), acceptor.accept(wire));
    let Ok(Ok(stream)) = handshake.await else { return };
    tokio::select! {
        () = routes::connection(stream, factory, cut.clone()) => {}
        () = cut.happens() => {}
    }
}

#[cfg(test)]
mod tests;
