//! Certificates that a machine makes for its own services: made once, and anew when what they are made of changed.

use std::collections::BTreeMap;

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

/// What a machine has made since it got its power: by name, with what it was made of.
pub(super) type Leaves = BTreeMap<&'static str, (String, Pem)>;

impl Machine {
    /// The certificate of that name: the one it has, unless the machine booted since, or another authority or other names
    /// are wanted.
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
        if let Some((_, pem)) = leaves.get(name).filter(|(made_of, _)| *made_of == of) {
            return Ok(pem.clone());
        }
        let made = pki::issue(authority, kind, subject, days)?;
        let pem = Pem { certificate: made.certificate_pem, key: made.key_pem };
        leaves.insert(name, (of, pem.clone()));
        Ok(pem)
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
