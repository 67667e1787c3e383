//! Certificates that a machine makes for its own services: made once, and anew when what they are made of changed, or half
//! of their time is over.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::{Authority, NodeConfig};
use super::pki::{self, Kind, PkiError, Subject};
use super::state::Machine;

/// A certificate with its key, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pem {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Pem {
    /// As a TLS library takes them.
    pub fn der(&self) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), PkiError> {
        let invalid = |error: rustls_pki_types::pem::Error| PkiError::Authority(error.to_string());
        let key = self.key.replace("ED25519 PRIVATE KEY", "PRIVATE KEY");
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes()).map_err(invalid)?;
        Ok((certificate, PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(invalid)?))
    }
}

/// One that was made.
#[derive(Debug)]
pub(super) struct Leaf {
    /// What it was made of.
    of: String,
    at: SystemTime,
    pem: Pem,
}

/// What a machine has made since it got its power, by name.
pub(super) type Leaves = BTreeMap<&'static str, Leaf>;

/// Days that certificates last: of Talos' API, of Kubernetes.
pub const API_DAYS: u64 = 1;
/// See [`API_DAYS`].
pub const KUBERNETES_DAYS: u64 = 365;

impl Machine {
    /// The certificate of that name: the one it has, unless the machine booted since, another authority or other names are
    /// wanted, or half of its time is over.
    pub fn leaf(
        &self,
        name: &'static str,
        authority: &Authority,
        kind: Kind,
        subject: Subject<'_>,
        days: u64,
    ) -> Result<Pem, PkiError> {
        let boot = self.see(|state| state.boot_id.clone());
        let of = format!("{boot} {} {subject:?}", authority.certificate);
        let mut leaves = self.leaves();
        let half = Duration::from_hours(days * 12);
        let fresh = |leaf: &&Leaf| leaf.of == of && leaf.at.elapsed().is_ok_and(|age| age < half);
        if let Some(leaf) = leaves.get(name).filter(fresh) {
            return Ok(leaf.pem.clone());
        }
        let made = pki::issue(authority, kind, subject, days)?;
        let pem = Pem { certificate: made.certificate_pem, key: made.key_pem };
        leaves.insert(name, Leaf { of, at: SystemTime::now(), pem: pem.clone() });
        Ok(pem)
    }

    /// What the certificates of its servers call it: its addresses, those that it may share, and its hostname.
    fn served_names(&self, config: &NodeConfig) -> Vec<String> {
        let shared = config.shared_addresses();
        self.see(|state| {
            let addresses = state.addresses().chain(shared).map(|address| address.to_string());
            let mut names: Vec<String> = addresses.chain(["127.0.0.1".to_owned(), state.hostname()]).collect();
            names.extend(Some(state.full_hostname()).filter(|full| *full != state.hostname()));
            names
        })
    }

    /// What a service of Talos' own presents.
    pub fn talos_leaf(&self, name: &'static str, config: &NodeConfig) -> Result<Pem, PkiError> {
        let mut names = self.served_names(config);
        names.extend(config.api_names());
        let host = self.see(super::State::full_hostname);
        let subject = Subject::Server { name: &host, organizations: &[], names };
        self.leaf(name, &self.issuing_authority(config), Kind::Ed25519, subject, API_DAYS)
    }

    /// What its API server presents.
    pub fn api_server_leaf(&self, config: &NodeConfig) -> Result<Pem, PkiError> {
        let mut names = self.served_names(config);
        names.extend(config.api_server_names());
        let subject = Subject::Server { name: "kube-apiserver", organizations: &["kube-master"], names };
        self.leaf("api-server", &config.kubernetes_ca(), Kind::P256, subject, KUBERNETES_DAYS)
    }

    /// The authority behind its API's certificate, with the key. A worker has no key: it asks a control plane's trustd,
    /// which has.
    pub fn issuing_authority(&self, config: &NodeConfig) -> Authority {
        let own = config.os_ca();
        if !own.key.is_empty() {
            return own;
        }
        let peers = self.room().cluster(&config.cluster_mark());
        let mut theirs = peers.iter().filter_map(|peer| peer.see(|state| Some(state.config.as_ref()?.os_ca())));
        theirs.find(|one| !one.key.is_empty()).unwrap_or(own)
    }
}
