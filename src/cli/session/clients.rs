//! The clients of a site: for its API, for each of its nodes, for its Image Factory.
//!
//! Must not know: profiles, and where secrets are kept (`credentials` does). Nothing is contacted here.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use secrecy::ExposeSecret as _;

use super::{Place, credentials};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::net::http::Client;
use crate::net::tls::{Fingerprint, Trust};
use crate::net::{Connector, DialMap, Options, Proxy};
use crate::profile::{Auth, Site};
use crate::pve::{Endpoint, Pve};
use crate::types::NodeName;

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

pub(super) fn proxy(place: &Place) -> Option<Proxy> {
    place.env.get("HTTPS_PROXY").or_else(|| place.env.get("https_proxy")).map(|https| Proxy {
        https: https.to_owned(),
        no: place.env.get("NO_PROXY").or_else(|| place.env.get("no_proxy")).unwrap_or_default().to_owned(),
    })
}

pub(super) fn authorities(path: &Path) -> Result<Trust, Stop> {
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

pub(super) fn pve(place: &Place, site: &Site, folder: &Path, connector: &Connector) -> Result<Pve, Stop> {
    let mut endpoints = Vec::new();
    for endpoint in &site.endpoints {
        let address = host_and_port(endpoint);
        endpoints.push(Endpoint { trust: trust(site, folder, &address)?, address });
    }
    let auth = match &site.auth {
        Some(Auth::Token(credential)) => {
            let (id, secret) = credentials::of(place, folder, credential, "the PVE credentials")?;
            crate::pve::Auth::Token { id, secret }
        }
        Some(Auth::User(credential)) => {
            let (user, password) = credentials::of(place, folder, credential, "the PVE credentials")?;
            crate::pve::Auth::Password { user, password }
        }
        None => credentials::from_environment(place)?,
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

pub(super) fn node_clients(site: &Site, folder: &Path, pve: &Pve) -> Result<BTreeMap<NodeName, Pve>, Stop> {
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
pub(super) fn introduced(place: &Place, site: &Site, folder: &Path, http: Client) -> Result<Client, Stop> {
    let Some(auth) = &site.factory.auth else { return Ok(http) };
    let what = "the Image Factory's credentials";
    let told = match auth {
        Auth::User(credential) => {
            let (user, password) = credentials::of(place, folder, credential, what)?;
            let pair = format!("{user}:{}", password.expose_secret());
            format!("Basic {}", base64::Engine::encode(&base64::engine::general_purpose::STANDARD, pair))
        }
        Auth::Token(credential) => {
            format!("Bearer {}", credentials::kept(place, folder, &credential.secret, what)?.expose_secret().trim())
        }
    };
    let bare = site.factory.url.split_once("://").map_or(site.factory.url.as_str(), |(_, rest)| rest);
    let authority = bare.split('/').next().unwrap_or(bare);
    let header = http::HeaderValue::from_str(&told);
    let header =
        header.map_err(|_| Stop::new(ExitCode::Invalid, format!("{what} have characters that can't be sent")))?;
    Ok(http.introduced(authority, header))
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
