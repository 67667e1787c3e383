//! What every verb about a cluster needs: its files read, its credentials fetched, its clients made.
//!
//! Purpose: one place where the command line, the environment, the profile and the site come together. Nothing is
//! contacted here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::args::Global;
use super::env::Env;
use super::sops;
use super::stop::Stop;
use crate::command::Mode;
use crate::exit::ExitCode;
use crate::image::{Cache, Factory};
use crate::net::http::Client;
use crate::net::tls::{self, Fingerprint, Trust, Versions};
use crate::net::{Connector, DialMap, Options, Proxy, Reach};
use crate::profile::load::{self, Loaded};
use crate::profile::{Auth, Credential, SecretSource, SecretsFile};
use crate::profile::{Profile, Site, SiteNode, Talos};
use crate::pve::{Endpoint, Pve};
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

/// The one way out of a place.
pub fn connector(place: &Place, site: &Site) -> Result<Connector, Stop> {
    let mut dial = DialMap::default();
    for map in &site.dial {
        dial.push(map.from, map.to)
            .map_err(|error| Stop::because(ExitCode::Invalid, "the site's dial map is wrong", &error))?;
    }
    let options = Options { dial, reach: place.reach, proxy: proxy(place), ..Options::default() };
    Connector::new(options).map_err(|error| Stop::because(ExitCode::Invalid, "connections can't be set up", &error))
}

fn proxy(place: &Place) -> Option<Proxy> {
    place.env.get("HTTPS_PROXY").or_else(|| place.env.get("https_proxy")).map(|https| Proxy {
        https: https.to_owned(),
        no: place.env.get("NO_PROXY").or_else(|| place.env.get("no_proxy")).unwrap_or_default().to_owned(),
    })
}

fn authorities(path: &Path) -> Result<Trust, Stop> {
    let pem = fs::read(path).map_err(|error| {
        Stop::because(ExitCode::Invalid, format!("the CA file {} can't be read", path.display()), &error)
    })?;
    Trust::authorities(&pem).map_err(|error| {
        Stop::because(ExitCode::Invalid, format!("the CA file {} is not valid", path.display()), &error)
    })
}

/// Whom to believe at an endpoint: its node's pin, the site's pin, the site's CA, or the system's roots.
fn trust(site: &Site, folder: &Path, address: &str) -> Result<Trust, Stop> {
    let pinned = site.nodes.iter().find(|node| node.api.as_deref() == Some(address)).and_then(|node| node.fingerprint);
    if let Some(fingerprint) = pinned.or(site.tls.fingerprint) {
        return Ok(Trust::Fingerprint(Fingerprint(fingerprint)));
    }
    match &site.tls.ca {
        _ if site.tls.insecure => Ok(Trust::Insecure),
        Some(ca) => authorities(&folder.join(ca)),
        None => Ok(Trust::SystemRoots),
    }
}

fn pve(place: &Place, site: &Site, folder: &Path, connector: &Connector) -> Result<Pve, Stop> {
    let mut endpoints = Vec::new();
    for endpoint in &site.endpoints {
        let address = host_and_port(endpoint);
        endpoints.push(Endpoint { trust: trust(site, folder, &address)?, address });
    }
    let auth = match &site.auth {
        Some(Auth::Token(credential)) => {
            let (id, secret) = credential_of(place, folder, credential, "the PVE credentials")?;
            crate::pve::Auth::Token { id, secret }
        }
        Some(Auth::User(credential)) => {
            let (user, password) = credential_of(place, folder, credential, "the PVE credentials")?;
            crate::pve::Auth::Password { user, password }
        }
        None => from_environment(place)?,
    };
    Pve::new(connector, crate::pve::Options::new(endpoints, auth))
        .map_err(|error| Stop::because(ExitCode::Invalid, "the PVE client can't be set up", &error))
}

/// `https://192.168.178.11:8006` as `192.168.178.11:8006`; PVE's own port where none is given.
fn host_and_port(endpoint: &str) -> String {
    let bare = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or(bare);
    let after_bracket = bare.rsplit(']').next().unwrap_or(bare);
    if after_bracket.contains(':') { bare.to_owned() } else { format!("{bare}:8006") }
}

/// The ecosystem's variables, where the site names no credentials.
fn from_environment(place: &Place) -> Result<crate::pve::Auth, Stop> {
    let secret = |name: &str| place.env.get(name).map(SecretString::from);
    if let Some(token) = place.env.get("PROXMOX_VE_API_TOKEN")
        && let Some((id, secret)) = token.split_once('=')
    {
        return Ok(crate::pve::Auth::Token { id: id.to_owned(), secret: SecretString::from(secret) });
    }
    if let (Some(user), Some(password)) = (place.env.get("PROXMOX_VE_USERNAME"), secret("PROXMOX_VE_PASSWORD")) {
        return Ok(crate::pve::Auth::Password { user: user.to_owned(), password });
    }
    Err(Stop::new(ExitCode::Invalid, "the site names no credentials for PVE")
        .hinted("give it auth.token or auth.user, or set PROXMOX_VE_API_TOKEN"))
}

fn node_clients(site: &Site, folder: &Path, pve: &Pve) -> Result<BTreeMap<NodeName, Pve>, Stop> {
    let mut clients = BTreeMap::new();
    for node in &site.nodes {
        let Some(address) = &node.api else { continue };
        let address = host_and_port(address);
        let trust = match node.fingerprint {
            Some(fingerprint) => Trust::Fingerprint(Fingerprint(fingerprint)),
            None => trust(site, folder, &address)?,
        };
        let client = pve.at(Endpoint { address, trust }).map_err(|error| {
            Stop::because(ExitCode::Invalid, format!("the PVE client for {} can't be set up", node.name), &error)
        })?;
        clients.insert(node.name.clone(), client);
    }
    Ok(clients)
}

/// The client with what the site's factory wants to be told.
fn introduced(place: &Place, site: &Site, folder: &Path, http: Client) -> Result<Client, Stop> {
    let Some(auth) = &site.factory.auth else { return Ok(http) };
    let what = "the Image Factory's credentials";
    let told = match auth {
        Auth::User(credential) => {
            let (user, password) = credential_of(place, folder, credential, what)?;
            let pair = format!("{user}:{}", password.expose_secret());
            format!("Basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair))
        }
        Auth::Token(credential) => {
            format!("Bearer {}", kept(place, folder, &credential.secret, what)?.expose_secret().trim())
        }
    };
    let bare = site.factory.url.split_once("://").map_or(site.factory.url.as_str(), |(_, rest)| rest);
    let authority = bare.split('/').next().unwrap_or(bare);
    let header = http::HeaderValue::from_str(&told);
    let header =
        header.map_err(|_| Stop::new(ExitCode::Invalid, format!("{what} have characters that can't be sent")))?;
    Ok(http.introduced(authority, header))
}

fn credential_of(
    place: &Place,
    folder: &Path,
    credential: &Credential,
    what: &str,
) -> Result<(String, SecretString), Stop> {
    let kept = kept(place, folder, &credential.secret, what)?;
    credential.parse(&kept).map_err(|error| Stop::because(ExitCode::Invalid, format!("{what} can't be read"), &error))
}

/// A secret from where it is kept.
fn kept(place: &Place, folder: &Path, source: &SecretSource, what: &str) -> Result<SecretString, Stop> {
    Ok(match source {
        SecretSource::Env(name) => SecretString::from(place.env.get(name).ok_or_else(|| {
            Stop::new(ExitCode::Invalid, format!("the variable {name}, which the site takes {what} from, is not set"))
                .hinted("set it to the token as id=secret, or to the secret alone where the site names the id")
        })?),
        SecretSource::File(path) => {
            let path = folder.join(path);
            SecretString::from(fs::read_to_string(&path).map_err(|error| {
                Stop::because(
                    ExitCode::Invalid,
                    format!("the file {} with {what} can't be read", path.display()),
                    &error,
                )
            })?)
        }
        SecretSource::Command(command) => from_command(command, folder, what)?,
        SecretSource::Inline(secret) => secret.clone(),
    })
}

/// How long a password manager may take; it may have to ask a person.
const COMMAND_MAY_TAKE: Duration = Duration::from_mins(2);

/// `what` names what it should print.
fn from_command(command: &str, folder: &Path, what: &str) -> Result<SecretString, Stop> {
    let failed = |why: String| {
        Stop::new(ExitCode::Invalid, format!("the command for {what} failed: {why}"))
            .hinted(format!("it is `{command}`, run in {}", folder.display()))
    };
    let mut child = Command::new("sh")
        .args(["-c", command])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let since = std::time::Instant::now();
    while child.try_wait().map_err(|error| failed(error.to_string()))?.is_none() {
        if since.elapsed() > COMMAND_MAY_TAKE {
            // Nothing else can be done about a child that won't be killed.
            let _gone = child.kill();
            return Err(failed(format!("no answer within {} s", COMMAND_MAY_TAKE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    String::from_utf8(output.stdout).map(SecretString::from).map_err(|_| failed("its output is not text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_given_with_and_without_scheme_and_port() {
        assert_eq!(host_and_port("https://192.168.178.11:8006/"), "192.168.178.11:8006");
        assert_eq!(host_and_port("pve1.example.org"), "pve1.example.org:8006");
        assert_eq!(host_and_port("https://[fd00::1]"), "[fd00::1]:8006");
    }
}
