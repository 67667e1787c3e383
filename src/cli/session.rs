//! What every verb about a cluster needs: its files read, its credentials fetched, its clients made.
//!
//! Purpose: one place where the command line, the environment, the profile and the site come together. Nothing is
//! contacted here.

mod clients;
mod credentials;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

pub use clients::connector;
use clients::{authorities, introduced, node_clients, proxy, pve};
use credentials::from_command;

use super::args::Global;
use super::env::Env;
use super::sops;
use super::stop::Stop;
use crate::command::Mode;
use crate::exit::ExitCode;
use crate::image::{Cache, Factory};
use crate::net::http::Client;
use crate::net::tls::{self, Trust, Versions};
use crate::net::{Connector, Options, Reach};
use crate::profile::load::{self, Loaded};
use crate::profile::{Profile, SecretsFile, Site, SiteNode, Talos};
use crate::pve::Pve;
use crate::steps::files::{file_of, read_lock};
use crate::talos::secrets::Secrets;
use crate::types::{NodeName, SchematicId, Sha256, Version};

/// Where a verb runs: the process's own surroundings, or a rehearsal's.
#[derive(Clone, Debug)]
pub struct Place {
    /// The environment.
    pub env: Env,
    /// How far connections may go.
    pub reach: Reach,
    /// Whether programs are run.
    pub commands: Mode,
}

/// A cluster's files and clients.
pub struct Session {
    /// Where this runs.
    pub place: Place,
    /// The flags of all verbs.
    pub global: Global,
    /// The profile with its source.
    pub profile: Loaded<Profile>,
    /// Its path.
    pub profile_path: PathBuf,
    /// The site.
    pub site: Site,
    /// The one way out.
    pub connector: Connector,
    /// The PVE API.
    pub pve: Pve,
    /// Clients for single nodes, for uploads.
    pub nodes: BTreeMap<NodeName, Pve>,
    /// HTTPS for images.
    pub http: Client,
    /// The Image Factory.
    pub factory: Factory,
    /// The image cache.
    pub cache: Cache,
}

/// A site and its API, without any cluster.
pub struct Grounds {
    /// The one way out.
    pub connector: Connector,
    /// The PVE API.
    pub pve: Pve,
}

impl Grounds {
    /// Reads the site: the one that is named, else the profile's, else `site.yaml` here.
    pub fn open(place: &Place, global: &Global) -> Result<Self, Stop> {
        let of_profile = match (&global.site, &global.profile) {
            (None, Some(_)) => {
                let (path, loaded) = profile(global)?;
                let named = loaded.value.site.unwrap_or_else(|| PathBuf::from("site.yaml"));
                Some(parent(&path).join(named))
            }
            _ => None,
        };
        let path = global.site.clone().or(of_profile).unwrap_or_else(|| PathBuf::from("site.yaml"));
        Self::of(place, &load::site_file(&path)?.value, &parent(&path))
    }

    /// Of a site whose paths are relative to `folder`.
    pub fn of(place: &Place, site: &Site, folder: &Path) -> Result<Self, Stop> {
        let connector = connector(place, site)?;
        let pve = pve(place, site, folder, &connector)?;
        Ok(Self { connector, pve })
    }
}

impl Session {
    /// Reads the profile and the site and makes the clients; the profile must be of a Talos cluster.
    pub fn open(place: &Place, global: &Global) -> Result<Self, Stop> {
        let session = Self::open_any(place, global)?;
        session.talos()?;
        Ok(session)
    }

    /// The same for a cluster of any kind.
    pub fn open_any(place: &Place, global: &Global) -> Result<Self, Stop> {
        let (path, profile) = profile(global)?;
        Self::of(place, global, path, profile)
    }

    /// As if this text stood in the profile.
    pub fn open_with(place: &Place, global: &Global, text: &str) -> Result<Self, Stop> {
        let path = profile_path(global)?;
        let profile = load::profile(&path.display().to_string(), text)?;
        let session = Self::of(place, global, path, profile)?;
        session.talos()?;
        Ok(session)
    }

    fn of(place: &Place, global: &Global, profile_path: PathBuf, profile: Loaded<Profile>) -> Result<Self, Stop> {
        let folder = parent(&profile_path);
        let site_path = global.site.clone().or_else(|| profile.value.site.as_ref().map(|site| folder.join(site)));
        let site_path = site_path.unwrap_or_else(|| folder.join("site.yaml"));
        let site = load::site_file(&site_path)?.value;
        let site_folder = parent(&site_path);
        let connector = connector(place, &site)?;
        let pve = pve(place, &site, &site_folder, &connector)?;
        let nodes = node_clients(&site, &site_folder, &pve)?;
        let factory_trust = match &site.factory.ca {
            Some(ca) => authorities(&site_folder.join(ca))?,
            None => Trust::SystemRoots,
        };
        let config = tls::client_config(&factory_trust, None)
            .map_err(|error| Stop::because(ExitCode::Invalid, "TLS for the Image Factory can't be set up", &error))?;
        let http = Client::new(&connector, config, Versions::Both);
        let http = introduced(place, &site, &site_folder, http)?;
        let own = profile.value.talos.as_ref().and_then(|talos| talos.factory.url.as_deref());
        let factory = Factory::new(http.clone(), own.unwrap_or(&site.factory.url), site.factory.registry.as_deref())
            .map_err(|error| Stop::because(ExitCode::Invalid, "the Image Factory's URL is wrong", &error))?;
        let cache = Cache::new(global.cache_dir.clone().unwrap_or_else(|| place.env.cache_dir()));
        let (place, global) = (place.clone(), global.clone());
        Ok(Self { place, global, profile, profile_path, site, connector, pve, nodes, http, factory, cache })
    }

    /// The folder that the profile's paths are relative to.
    pub fn folder(&self) -> PathBuf {
        parent(&self.profile_path)
    }

    /// The folder that the site's paths are relative to.
    pub fn site_folder(&self) -> PathBuf {
        let named = self.profile.value.site.as_ref().map(|site| self.folder().join(site));
        let path = self.global.site.clone().or(named).unwrap_or_else(|| self.folder().join("site.yaml"));
        parent(&path)
    }

    /// Digest of the profile's text.
    pub fn profile_digest(&self) -> Sha256 {
        Sha256::of(self.profile.source.text().as_bytes())
    }

    /// `<cluster>.lock`, beside the profile.
    pub fn lock_path(&self) -> PathBuf {
        self.profile_path.with_extension("lock")
    }

    /// The digest that the lock holds for the image's file at this URL.
    pub fn pinned(&self, schematic: &SchematicId, version: &Version, url: &str) -> Result<Option<Sha256>, Stop> {
        let path = self.lock_path();
        let lock = read_lock(&path).map_err(|error| {
            Stop::because(ExitCode::Invalid, format!("the lock {} is not valid", path.display()), &error)
                .hinted("take it back from git; without it, images and templates are trusted on first use again")
        })?;
        Ok(lock.image(schematic, version, file_of(url)).map(|image| image.sha256))
    }

    /// How many requests were sent so far to Proxmox VE and for images.
    pub fn requests(&self) -> u64 {
        self.pve.requests() + self.http.requests()
    }

    /// Where runs are kept.
    pub fn state_root(&self) -> PathBuf {
        state_root(&self.place, &self.global)
    }

    /// The Talos half of the profile.
    pub fn talos(&self) -> Result<&Talos, Stop> {
        talos(&self.profile.value)
    }

    /// The cluster's secrets, read and checked.
    pub fn secrets(&self, now: jiff::Timestamp) -> Result<Secrets, Stop> {
        secrets_of(self.talos()?, &self.folder(), now)
    }
}

/// The Image Factory of the profile that is named; without one the public factory.
pub fn factory(place: &Place, global: &Global) -> Result<Factory, Stop> {
    if global.profile.is_some() {
        return Ok(Session::open_any(place, global)?.factory);
    }
    let wrong = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Invalid, "the Image Factory can't be reached from here", error)
    };
    let options = Options { reach: place.reach, proxy: proxy(place), ..Options::default() };
    let connector = Connector::new(options).map_err(|error| wrong(&error))?;
    let config = tls::client_config(&Trust::SystemRoots, None).map_err(|error| wrong(&error))?;
    let public = crate::profile::SiteFactory::default();
    Factory::new(Client::new(&connector, config, Versions::Both), &public.url, None).map_err(|error| wrong(&error))
}

/// The site of those who have no site file: its defaults, and somewhere to place VMs that nobody makes.
pub fn bare_site() -> Site {
    Site {
        endpoints: Vec::new(),
        tls: <_>::default(),
        auth: None,
        ssh: None,
        nodes: vec![SiteNode { name: "somewhere".into(), api: None, fingerprint: None, ssh: None }],
        factory: <_>::default(),
        defaults: <_>::default(),
        vmid_ranges: <_>::default(),
        dial: Vec::new(),
    }
}

/// The secrets that a profile in `folder` names, read and checked.
pub fn secrets_of(talos: &Talos, folder: &Path, now: jiff::Timestamp) -> Result<Secrets, Stop> {
    let (name, text) = match &talos.secrets_file {
        SecretsFile::Command(command) => {
            let printed = from_command(command, folder, "the cluster's secrets")?;
            (format!("what `{command}` prints"), printed)
        }
        SecretsFile::Path(path) => {
            let path = talos.config_dir_in(folder).join(path);
            let name = format!("the secrets file {}", path.display());
            let text = fs::read_to_string(&path).map_err(|error| {
                Stop::because(ExitCode::Invalid, format!("{name} can't be read"), &error)
                    .hinted("a rebuild never makes new secrets: use the secrets.yaml the cluster was made with")
            })?;
            (name, sops::opened(&path, SecretString::from(text), Mode::Run)?)
        }
    };
    Secrets::load(text.expose_secret(), now).map_err(|error| {
        let stop = Stop::because(ExitCode::Invalid, format!("{name} is not valid"), &error);
        error
            .hints()
            .into_iter()
            .fold(stop, Stop::hinted)
            .hinted("take the file the cluster was made with from where it is kept safe, and correct nothing by hand")
    })
}

/// The profile that is named, with its path.
pub fn profile(global: &Global) -> Result<(PathBuf, Loaded<Profile>), Stop> {
    let path = profile_path(global)?;
    let profile = load::profile_file(&path)?;
    Ok((path, profile))
}

fn profile_path(global: &Global) -> Result<PathBuf, Stop> {
    global.profile.clone().ok_or_else(|| {
        Stop::new(ExitCode::Invalid, "no profile is named").hinted("name it with --profile FILE or RECAST_PROFILE")
    })
}

/// Where runs are kept.
pub fn state_root(place: &Place, global: &Global) -> PathBuf {
    global.state_dir.clone().unwrap_or_else(|| place.env.state_dir())
}

/// The Talos half of a profile; a generic cluster has none.
pub fn talos(profile: &Profile) -> Result<&Talos, Stop> {
    profile.talos.as_ref().ok_or_else(|| {
        Stop::new(ExitCode::Invalid, format!("{} is a generic cluster, which can't be rebuilt", profile.name))
            .hinted("only a profile with `type: talos` can")
    })
}

/// A path's folder.
pub fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}
