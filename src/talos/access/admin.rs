//! An administrator's client certificate for Talos' API, signed by the cluster's own authority.
//!
//! Must not know: files. The shape is that of siderolabs/talos pkg/machinery/config/generate/secrets (v1.14.0-rc.1): a
//! server looks at the organisation for the role and insists on the client-authentication usage.

use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};

use super::AccessError;
use crate::talos::secrets::{Authority, Flaw, KeyPair, PrivateKey, Secrets, SecretsError, client, key_der};

/// How long talosctl's own certificates are valid, in hours.
pub const YEAR_HOURS: i64 = 365 * 24;

/// What the holder of a certificate may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Roles {
    /// Everything.
    Admin,
    /// Reading and operating, no secrets.
    Operator,
    /// Reading.
    Reader,
    /// Taking etcd snapshots, nothing else.
    EtcdBackup,
}

impl Roles {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Admin, Self::Operator, Self::Reader, Self::EtcdBackup];

    /// As Talos spells it: `os:admin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "os:admin",
            Self::Operator => "os:operator",
            Self::Reader => "os:reader",
            Self::EtcdBackup => "os:etcd:backup",
        }
    }
}

/// A client certificate with its key and the authority that Talos' servers are checked against.
#[derive(Clone)]
pub struct AdminCertificate {
    authority: String,
    certificate: String,
    key: SecretString,
}

impl fmt::Debug for AdminCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminCertificate").finish_non_exhaustive()
    }
}

impl AdminCertificate {
    /// Issues a certificate with a new key, valid from `now` for `hours`.
    pub fn issue(secrets: &Secrets, roles: Roles, now: Timestamp, hours: i64) -> Result<Self, AccessError> {
        Self::issue_all(secrets, &[roles], now, hours)
    }

    /// The same for several roles at once.
    pub fn issue_all(secrets: &Secrets, roles: &[Roles], now: Timestamp, hours: i64) -> Result<Self, AccessError> {
        let mut names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        names.sort_unstable();
        names.dedup();
        Self::signed(secrets.talos(), &names, now, hours)
    }

    /// The same for the Kubernetes API, as a member of the group that may do everything there (Kubernetes,
    /// `system:masters`).
    pub fn for_kubernetes(secrets: &Secrets, now: Timestamp, hours: i64) -> Result<Self, AccessError> {
        Self::signed(secrets.kubernetes(), &["system:masters"], now, hours)
    }

    fn signed(by: &KeyPair, organizations: &[&str], now: Timestamp, hours: i64) -> Result<Self, AccessError> {
        let authority = by.certificate_pem();
        let signer = PrivateKey::from_pem(by.key_pem().expose_secret())
            .map_err(|_: Flaw| AccessError::Certificate(SecretsError::Crypto))?;
        let (key, text) =
            PrivateKey::generate(signer.leaf_kind()).map_err(|_| AccessError::Certificate(SecretsError::Crypto))?;
        let signed_by = Authority { certificate: &authority, key: &signer };
        let certificate = client(organizations, &key, &signed_by, now, hours).map_err(AccessError::Certificate)?;
        Ok(Self { authority, certificate, key: text })
    }

    /// Takes what a talosconfig's context holds.
    pub fn from_pem(authority: String, certificate: String, key: SecretString) -> Self {
        Self { authority, certificate, key }
    }

    /// The authority's certificate, PEM.
    pub fn authority_pem(&self) -> &str {
        &self.authority
    }

    /// The client's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The client's key, PEM with Talos' label (`ED25519 PRIVATE KEY`), which few libraries read.
    pub fn key_pem(&self) -> &SecretString {
        &self.key
    }

    /// When the certificate ends; nothing when it can't be read.
    pub fn not_after(&self) -> Option<Timestamp> {
        crate::talos::secrets::not_after(&self.certificate)
    }

    /// Certificate and key as rustls takes them.
    ///
    /// # Errors
    /// When the PEM texts hold something else.
    pub fn for_rustls(&self) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), AccessError> {
        let shape = |why: &str| AccessError::Shape { what: "the client certificate", why: why.into() };
        let certificate = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|_| shape("no certificate can be read from it"))?;
        let key = key_der(self.key.expose_secret()).map_err(|_| shape("no key can be read from it"))?;
        Ok((certificate, key))
    }
}
