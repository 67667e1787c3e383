//! What all clusters of one place share: the PVE cluster, how it is reached, its defaults.
//!
//! Must not know: profiles, how a secret is fetched. Start reading at [`Site`].

use std::path::PathBuf;

use ipnet::IpNet;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Transport, schema};
use crate::types::{NodeName, Sha256, StorageId, VmId};

/// One place: a PVE cluster and how it is reached. Optional keys hold their defaults.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Site {
    /// `https://host:8006` of PVE nodes; the next is tried when one is down.
    pub endpoints: Vec<String>,
    /// How PVE's certificates are verified.
    #[schemars(with = "Option<Tls>")]
    pub tls: Tls,
    /// Who recast is on PVE; the environment says it otherwise.
    pub auth: Option<Auth>,
    /// How nodes are reached by SSH.
    pub ssh: Option<SshAccess>,
    /// The PVE nodes that VMs may be placed on, in the order of placement.
    pub nodes: Vec<SiteNode>,
    /// The Image Factory.
    #[schemars(with = "Option<SiteFactory>")]
    pub factory: SiteFactory,
    /// Hardware that profiles don't spell out.
    #[schemars(with = "Option<Defaults>")]
    pub defaults: Defaults,
    /// Which VMIDs are taken for what.
    #[schemars(with = "Option<VmIdRanges>")]
    pub vmid_ranges: VmIdRanges,
    /// Where connections really go.
    #[schemars(with = "Option<Vec<Dial>>")]
    pub dial: Vec<Dial>,
}

/// How PVE's certificates are verified. Without any of these, system roots do.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Tls {
    /// A file of CA certificates (PEM), relative to the site file's folder.
    #[schemars(with = "Option<String>")]
    pub ca: Option<PathBuf>,
    /// Don't verify at all. Warns.
    #[schemars(with = "Option<bool>")]
    pub insecure: bool,
    /// The SHA-256 of the one certificate to trust, for endpoints that `nodes` has none for.
    #[schemars(with = "Option<schema::FingerprintText>")]
    pub fingerprint: Option<Sha256>,
}

/// Who recast is on PVE.
#[derive(Clone, Debug)]
pub enum Auth {
    /// An API token, `user@realm!name`.
    Token(Credential),
    /// A user with a password, `user@realm`.
    User(Credential),
}

/// An id and its secret, or where they are kept.
#[derive(Clone, Debug)]
pub struct Credential {
    /// The token's or user's id, when the site file has it; else it is kept with the secret.
    pub id: Option<String>,
    /// The secret, or where it is kept.
    pub secret: SecretSource,
}

/// Where a secret is kept. Its content is one line `id=secret`, or two lines or more: the first is the id, the last the
/// secret; or the bare secret when the id is known.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// An environment variable.
    Env(String),
    /// A file, relative to the site file's folder.
    File(PathBuf),
    /// What this command, run by `sh -c`, prints.
    Command(String),
    /// The site file itself. Warns.
    Inline(SecretString),
}

/// Why kept text is no credential. Says nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// Nothing was kept there.
    #[error("the secret is empty")]
    Empty,
    /// It is neither `id=secret` nor two lines.
    #[error("the secret comes without an id: expected one line `id=secret`, or two lines")]
    NoId,
    /// The id kept with the secret is another one than the site file's.
    #[error("the id kept with the secret is not the one in the site file")]
    OtherId,
}

impl Credential {
    /// Id and secret, from what was kept at the source.
    pub fn parse(&self, kept: &SecretString) -> Result<(String, SecretString), CredentialError> {
        let lines: Vec<&str> = kept.expose_secret().lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let (id, secret) = match (&lines[..], &self.id) {
            ([], _) => return Err(CredentialError::Empty),
            // A password may hold `=`, so with a known id only that very id in front is one.
            ([line], Some(id)) => match line.strip_prefix(id.as_str()).and_then(|rest| rest.strip_prefix('=')) {
                Some(secret) => (id.as_str(), secret),
                None => (id.as_str(), *line),
            },
            ([line], None) => line.split_once('=').ok_or(CredentialError::NoId)?,
            ([first, .., last], _) => (*first, *last),
        };
        if self.id.as_deref().is_some_and(|known| known != id) {
            return Err(CredentialError::OtherId);
        }
        if secret.is_empty() {
            return Err(CredentialError::Empty);
        }
        Ok((id.to_owned(), SecretString::from(secret)))
    }
}

/// How nodes are reached by SSH.
#[derive(Clone, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SshAccess {
    /// The user; `root` by default.
    pub user: Option<String>,
    /// A private key's file.
    #[schemars(with = "Option<String>")]
    pub key: Option<PathBuf>,
    /// Whether the SSH agent is asked.
    #[schemars(with = "Option<bool>")]
    pub agent: bool,
    /// A `known_hosts` file.
    #[schemars(with = "Option<String>")]
    pub known_hosts: Option<PathBuf>,
    /// Whether the system's own `ssh` makes the connections, with its configuration: jump hosts, agents, hardware keys.
    #[schemars(with = "Option<bool>")]
    pub program: bool,
}

/// One PVE node.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SiteNode {
    /// As PVE names it.
    pub name: NodeName,
    /// `host:port` of its own API.
    pub api: Option<String>,
    /// The SHA-256 of its API's certificate.
    #[schemars(with = "Option<schema::FingerprintText>")]
    pub fingerprint: Option<Sha256>,
    /// Its SSH server.
    pub ssh: Option<SshHost>,
}

/// One node's SSH server.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SshHost {
    /// Its host.
    pub host: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// Its public key, as in `known_hosts`.
    pub host_key: Option<String>,
}

/// The Image Factory.
#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct SiteFactory {
    /// Its URL.
    #[schemars(with = "Option<String>")]
    pub url: String,
    /// The registry of its installer images, host and port; the URL's by default.
    pub registry: Option<String>,
    /// A file of CA certificates (PEM), relative to the site file's folder.
    #[schemars(with = "Option<String>")]
    pub ca: Option<PathBuf>,
    /// Who recast is there, where it asks: a user with a password (`Basic`), or a token (`Bearer`).
    pub auth: Option<Auth>,
}

impl SiteFactory {
    /// The registry of installer images: `factory.talos.dev`.
    pub fn registry(&self) -> &str {
        let bare = self.url.split_once("://").map_or(self.url.as_str(), |(_, rest)| rest);
        self.registry.as_deref().unwrap_or_else(|| bare.split('/').next().unwrap_or(bare))
    }
}

impl Default for SiteFactory {
    fn default() -> Self {
        Self { url: "https://factory.talos.dev".to_owned(), registry: None, ca: None, auth: None }
    }
}

/// Hardware that profiles don't spell out: PVE configuration values.
#[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Defaults {
    /// Where disks go; `local-lvm`.
    #[schemars(with = "Option<StorageId>")]
    pub storage: StorageId,
    /// The first NIC's bridge; `vmbr0`.
    #[schemars(with = "Option<String>")]
    pub bridge: String,
    /// `ovmf`.
    #[schemars(with = "Option<String>")]
    pub bios: String,
    /// `q35`.
    #[schemars(with = "Option<String>")]
    pub machine: String,
    /// `host`.
    #[schemars(with = "Option<String>")]
    pub cpu: String,
    /// `virtio-scsi-single`.
    #[schemars(with = "Option<String>")]
    pub scsihw: String,
    /// `l26`.
    #[schemars(with = "Option<String>")]
    pub ostype: String,
    /// Whether the guest agent's channel is there; true.
    #[schemars(with = "Option<bool>")]
    pub agent: bool,
    /// VLAN tag of the first NIC.
    pub vlan: Option<u16>,
    /// The pool that VMs are created in.
    pub pool: Option<String>,
    /// How images come to the nodes; `auto`.
    #[schemars(with = "Option<Transport>")]
    pub transport: Transport,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            storage: StorageId::new("local-lvm"),
            bridge: "vmbr0".to_owned(),
            bios: "ovmf".to_owned(),
            machine: "q35".to_owned(),
            cpu: "host".to_owned(),
            scsihw: "virtio-scsi-single".to_owned(),
            ostype: "l26".to_owned(),
            agent: true,
            vlan: None,
            pool: None,
            transport: Transport::Auto,
        }
    }
}

/// Which VMIDs are taken for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct VmIdRanges {
    /// For templates; 100-999.
    #[schemars(with = "Option<schema::RangeText>")]
    pub templates: VmIdRange,
    /// For VMs with `start_vmid: auto`; 1000-1999.
    #[schemars(with = "Option<schema::RangeText>")]
    pub vms: VmIdRange,
}

impl Default for VmIdRanges {
    fn default() -> Self {
        let range = |first, last| VmIdRange { first: VmId(first), last: VmId(last) };
        Self { templates: range(100, 999), vms: range(1000, 1999) }
    }
}

/// VMIDs from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmIdRange {
    /// The lowest.
    pub first: VmId,
    /// The highest.
    pub last: VmId,
}

impl VmIdRange {
    /// Whether it holds `vmid`.
    pub fn contains(&self, vmid: VmId) -> bool {
        (self.first..=self.last).contains(&vmid)
    }

    /// All of them, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = VmId> + use<> {
        (self.first.0..=self.last.0).map(VmId)
    }
}

/// Where connections really go: addresses in `from` are dialled in `to`, host bits kept. Names, TLS and everything shown
/// stay the profile's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Dial {
    /// Addresses as profiles have them.
    #[schemars(with = "schema::CidrText")]
    pub from: IpNet,
    /// Where they are dialled; as long a prefix.
    #[schemars(with = "schema::CidrText")]
    pub to: IpNet,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(id: Option<&str>, kept: &str) -> Result<(String, String), CredentialError> {
        let credential = Credential { id: id.map(str::to_owned), secret: SecretSource::Env("X".into()) };
        credential.parse(&SecretString::from(kept)).map(|(id, secret)| (id, secret.expose_secret().to_owned()))
    }

    #[test]
    fn credentials_are_kept_on_one_line_or_on_two() {
        let token = Ok(("a@pve!ci".to_owned(), "s-1".to_owned()));
        assert_eq!(parse(None, "a@pve!ci=s-1\n"), token);
        assert_eq!(parse(None, "a@pve!ci\nnote: x\ns-1\n"), token);
        assert_eq!(parse(Some("a@pve!ci"), "s-1"), token);
        assert_eq!(parse(Some("a@pve!ci"), "a@pve!ci=s-1"), token);
        assert_eq!(parse(Some("root@pam"), "p=w"), Ok(("root@pam".to_owned(), "p=w".to_owned())));
        assert_eq!(parse(None, "s-1"), Err(CredentialError::NoId));
        assert_eq!(parse(None, " \n"), Err(CredentialError::Empty));
        assert_eq!(parse(Some("b@pve!ci"), "a@pve!ci\ns-1"), Err(CredentialError::OtherId));
    }

    #[test]
    fn an_inline_secret_is_never_shown() {
        let source = SecretSource::Inline(SecretString::from("s3cret"));
        assert!(!format!("{source:?}").contains("s3cret"));
    }
}
