//! Certificates that machines make for themselves, from the authorities in their configuration.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType,
    SignatureAlgorithm,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::config::Authority;

const DAY: Duration = Duration::from_hours(24);

/// Why a certificate can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The authority of the configuration isn't usable.
    #[error("the certificate authority is invalid: {0}")]
    Authority(String),
    /// The certificate itself could not be made.
    #[error("a certificate can't be made")]
    Make(#[from] rcgen::Error),
}

/// A certificate with its key.
pub struct Identity {
    /// DER of the certificate.
    pub certificate: CertificateDer<'static>,
    /// PKCS#8 of the key.
    pub key: PrivateKeyDer<'static>,
    /// The certificate as PEM.
    pub certificate_pem: String,
    /// The key as PEM, labelled as Talos labels it.
    pub key_pem: String,
}

/// Whom a certificate is for.
#[derive(Debug)]
pub enum Subject<'a> {
    /// A server: common name, organisations, names and addresses.
    Server {
        /// CN.
        name: &'a str,
        /// O.
        organizations: &'a [&'a str],
        /// DNS names and addresses.
        names: Vec<String>,
    },
    /// A member of etcd, which is a server and a client of the others.
    Member {
        /// CN.
        name: &'a str,
        /// DNS names and addresses.
        names: Vec<String>,
    },
    /// A client: common name if any, organisations (roles, groups).
    Client {
        /// CN.
        name: Option<&'a str>,
        /// O.
        organizations: &'a [&'a str],
    },
}

/// The kind of key that an authority's leaves get.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Talos' API.
    Ed25519,
    /// Kubernetes and etcd.
    P256,
}

impl Kind {
    fn algorithm(self) -> &'static SignatureAlgorithm {
        match self {
            Self::Ed25519 => &PKCS_ED25519,
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
        }
    }
}

/// Issues a certificate for `subject`, signed by `authority`, for `days`.
pub fn issue(authority: &Authority, kind: Kind, subject: Subject<'_>, days: u64) -> Result<Identity, PkiError> {
    issue_for(authority, kind, subject, Duration::from_secs(days * 86_400))
}

/// The same for any time; no more than a hundred years.
pub fn issue_for(
    authority: &Authority,
    kind: Kind,
    subject: Subject<'_>,
    time: Duration,
) -> Result<Identity, PkiError> {
    leaf(&issuer(authority)?, kind, subject, time.min(Duration::from_hours(876_000)))
}

fn issuer(authority: &Authority) -> Result<Issuer<'static, KeyPair>, PkiError> {
    let invalid = |error: &dyn std::fmt::Display| PkiError::Authority(error.to_string());
    let pem = authority.key.replace("ED25519 PRIVATE KEY", "PRIVATE KEY");
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| invalid(&error))?;
    let key = KeyPair::try_from(&der).map_err(|error| invalid(&error))?;
    Issuer::from_ca_cert_pem(&authority.certificate, key).map_err(|error| invalid(&error))
}

/// Signs what somebody asks for (PKCS#10, PEM), for these usages as Kubernetes names them and that time. The certificate,
/// as PEM.
pub fn sign(authority: &Authority, request: &str, usages: &[&str], time: Duration) -> Result<String, PkiError> {
    let mut request = CertificateSigningRequestParams::from_pem(request)?;
    let now = SystemTime::now();
    let params = &mut request.params;
    params.not_before = (now - Duration::from_mins(5)).into();
    params.not_after = (now + time).into();
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    (params.key_usages, params.extended_key_usages) = (Vec::new(), Vec::new());
    for usage in usages {
        match *usage {
            "digital signature" => params.key_usages.push(KeyUsagePurpose::DigitalSignature),
            "key encipherment" => params.key_usages.push(KeyUsagePurpose::KeyEncipherment),
            "client auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ClientAuth),
            "server auth" => params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth),
            _ => {}
        }
    }
    Ok(request.signed_by(&issuer(authority)?)?.pem())
}

/// A server certificate from an authority that is forgotten at once: maintenance mode.
pub fn throw_away(names: Vec<String>) -> Result<Identity, PkiError> {
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "talos");
    let issuer = Issuer::new(params, key);
    let subject = Subject::Server { name: "maintenance-service.talos.dev", organizations: &[], names };
    leaf(&issuer, Kind::Ed25519, subject, DAY)
}

fn leaf(issuer: &Issuer<'_, KeyPair>, kind: Kind, subject: Subject<'_>, time: Duration) -> Result<Identity, PkiError> {
    let key = KeyPair::generate_for(kind.algorithm())?;
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_mins(1)).into();
    params.not_after = (now + time).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if let Kind::P256 = kind {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    params.use_authority_key_identifier_extension = true;
    params.distinguished_name = DistinguishedName::new();
    let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    let (name, organizations, mut names) = match subject {
        Subject::Server { name, organizations, names } => {
            params.extended_key_usages = vec![server];
            (Some(name), organizations, names)
        }
        Subject::Member { name, names } => {
            params.extended_key_usages = vec![server, client];
            (Some(name), &[][..], names)
        }
        Subject::Client { name, organizations } => {
            params.extended_key_usages = vec![client];
            (name, organizations, Vec::new())
        }
    };
    for organization in organizations {
        params.distinguished_name.push(DnType::OrganizationName, *organization);
    }
    if let Some(name) = name {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    names.sort();
    names.dedup();
    for name in names.iter().filter(|name| !name.is_empty()) {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    let certificate = params.signed_by(&key, issuer)?;
    let der = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| PkiError::Authority(error.to_owned()))?;
    let label = match kind {
        Kind::Ed25519 => "ED25519 PRIVATE KEY",
        Kind::P256 => "PRIVATE KEY",
    };
    Ok(Identity {
        certificate: certificate.der().clone(),
        key: der,
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem().replace("PRIVATE KEY", label),
    })
}
