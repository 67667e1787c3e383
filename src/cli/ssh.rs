//! How the site says that hosts are reached by SSH.
//!
//! Purpose: from the site file and the environment to [`Login`]s. Nothing is contacted, and no key is read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::session::Session;
use super::stop::Stop;
use crate::exit::ExitCode;
use crate::profile::{CopyTarget, Site, SiteNode, SshAccess};
use crate::ssh::Login;
use crate::steps::Shells;
use crate::types::NodeName;

/// Keys that OpenSSH's client looks for as well, in `~/.ssh`.
const USUAL_KEYS: &[&str] = &["id_ed25519", "id_ecdsa", "id_rsa"];

/// How the PVE nodes and the hosts of backup copies are reached; a node that the site says nothing about is left out.
pub fn shells(session: &Session) -> Result<Shells, Stop> {
    Ok(Shells::new(nodes(session)?, hosts(session)?))
}

/// The PVE nodes. Without a word about SSH in the site file there are none: nobody is logged in to by chance.
pub fn nodes(session: &Session) -> Result<BTreeMap<NodeName, Login>, Stop> {
    let site = &session.site;
    let told = |node: &&SiteNode| site.ssh.is_some() || node.ssh.is_some();
    let login = |node: &SiteNode| Ok((node.name.clone(), login(session, &host_of(site, node), port_of(node), None)?));
    site.nodes.iter().filter(told).map(login).collect()
}

/// The hosts that backups are copied to, by what the profile calls them: `[user@]host[:port]`.
fn hosts(session: &Session) -> Result<BTreeMap<String, Login>, Stop> {
    let copies = &session.profile.value.backup.copies;
    let hosts =
        copies.iter().filter_map(|copy| if let CopyTarget::Ssh { host, .. } = copy { Some(host) } else { None });
    let login = |host: &String| {
        let (user, place) = match host.split_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, host.as_str()),
        };
        let (name, port) = split_port(place);
        Ok((host.clone(), login(session, name, port.unwrap_or(22), user)?))
    };
    hosts.map(login).collect()
}

/// `host:port`, an IPv6 address in brackets; a bare host has no port.
fn split_port(place: &str) -> (&str, Option<u16>) {
    if let Some(rest) = place.strip_prefix('[')
        && let Some((host, port)) = rest.split_once(']')
    {
        return (host, port.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match place.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        _ => (place, None),
    }
}

/// A node's SSH host: named, else that of its API, else that of the endpoint it is, else its own name.
fn host_of(site: &Site, node: &SiteNode) -> String {
    let named = node.ssh.as_ref().and_then(|ssh| ssh.host.clone());
    let api = || node.api.as_deref().map(|api| split_port(api).0.to_owned());
    // A site with one endpoint and one node speaks of the same machine twice.
    let only = || {
        let ([_], [endpoint]) = (&site.nodes[..], &site.endpoints[..]) else { return None };
        let bare = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, rest)| rest);
        Some(split_port(bare.split('/').next().unwrap_or(bare)).0.to_owned())
    };
    named.or_else(api).or_else(only).unwrap_or_else(|| node.name.to_string())
}

fn port_of(node: &SiteNode) -> u16 {
    node.ssh.as_ref().and_then(|ssh| ssh.port).unwrap_or(22)
}

fn login(session: &Session, host: &str, port: u16, user: Option<&str>) -> Result<Login, Stop> {
    let env = &session.place.env;
    let plain = SshAccess::default();
    let access = session.site.ssh.as_ref().unwrap_or(&plain);
    let home = env.get("HOME").map(Path::new);
    let folder = session.site_folder();
    let file = |path: &Path| match (path.strip_prefix("~"), home) {
        (Ok(below), Some(home)) => home.join(below),
        _ => folder.join(path),
    };
    let socket = env.get("SSH_AUTH_SOCK").map(PathBuf::from);
    if access.agent && socket.is_none() {
        return Err(Stop::new(
            ExitCode::Invalid,
            "the site asks the SSH agent, and there is none: SSH_AUTH_SOCK is not set",
        )
        .hinted("start one with `eval $(ssh-agent)` and `ssh-add`, or name a key file in ssh.key"));
    }
    let usual = || {
        let usual = home.into_iter().flat_map(|home| USUAL_KEYS.iter().map(move |key| home.join(".ssh").join(key)));
        usual.filter(|key| key.exists()).collect()
    };
    let keys = match &access.key {
        Some(key) => vec![file(key)],
        // The program finds keys by itself.
        None if access.agent || access.program => Vec::new(),
        None => usual(),
    };
    // Whoever names a key means that one.
    let agent = socket.filter(|_| access.agent || access.key.is_none());
    let pinned = session.site.nodes.iter().filter(|node| host_of(&session.site, node) == host && port_of(node) == port);
    let mut host_keys = Vec::new();
    for (node, text) in pinned.filter_map(|node| Some((node, node.ssh.as_ref()?.host_key.as_ref()?))) {
        host_keys.push(text.parse().map_err(|error| {
            Stop::because(ExitCode::Invalid, format!("the SSH host key of node {} is not one", node.name), &error)
                .hinted("it is the content of /etc/ssh/ssh_host_ed25519_key.pub there")
        })?);
    }
    Ok(Login {
        host: host.to_owned(),
        port,
        user: user.or(access.user.as_deref()).unwrap_or("root").to_owned(),
        keys,
        agent,
        host_keys,
        known_hosts: access.known_hosts.as_deref().map(file).or_else(|| Some(home?.join(".ssh/known_hosts"))),
        program: access.program.then(|| PathBuf::from("ssh")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_come_with_and_without_a_port() {
        for (place, host, port) in [
            ("nas", "nas", None),
            ("nas:2222", "nas", Some(2222)),
            ("[fd00::1]:2222", "fd00::1", Some(2222)),
            ("fd00::1", "fd00::1", None),
        ] {
            assert_eq!(split_port(place), (host, port));
        }
    }
}
