//! The certificates of a mock installation.
//!
//! Purpose: a CA of its own and one leaf per node, kept in the state folder so that fingerprints survive a restart.
//! Must not know: who listens. Start at [`Authority::open`].

use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file can't be read or written.
    #[error("can't use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A certificate can't be made.
    #[error("can't make a certificate")]
    Make(#[from] rcgen::Error),
    /// A kept certificate or key can't be read.
    #[error("a kept certificate is malformed")]
    Kept(#[from] rustls_pki_types::pem::Error),
    /// They don't fit together.
    #[error("the certificates can't be served")]
    Tls(#[from] rustls::Error),
}

/// The CA of a mock installation.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A leaf that can be served.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// For a TLS acceptor.
    pub config: Arc<ServerConfig>,
    /// SHA-256 as the original shows it: upper case, colons.
    pub fingerprint: String,
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<String, CertificateError> {
    std::fs::read_to_string(path).map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "mock-pve CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Authority {
    /// The CA that the state folder keeps; a new one where there is none.
    pub fn open(state: &Path) -> Result<Self, CertificateError> {
        let folder = state.join("tls");
        std::fs::create_dir_all(&folder).map_err(|source| CertificateError::File { path: folder.clone(), source })?;
        let (cert, key) = (folder.join("ca.pem"), folder.join("ca.key"));
        if !cert.exists() || !key.exists() {
            let pair = KeyPair::generate()?;
            let made = ca_params().self_signed(&pair)?;
            write(&key, &pair.serialize_pem(), 0o600)?;
            write(&cert, &made.pem(), 0o644)?;
        }
        let pair = KeyPair::from_pem(&read(&key)?)?;
        Ok(Self { folder, issuer: Issuer::new(ca_params(), pair) })
    }

    /// The CA's certificate, PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// The leaf of that name: for loopback, `localhost`, the name itself and `addresses`.
    pub fn leaf(&self, name: &str, addresses: &[IpAddr]) -> Result<Leaf, CertificateError> {
        let (cert, key) = (self.folder.join(format!("{name}.pem")), self.folder.join(format!("{name}.key")));
        if !cert.exists() || !key.exists() {
            let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), name.to_owned()];
            names.extend(addresses.iter().map(ToString::to_string));
            names.dedup();
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.use_authority_key_identifier_extension = true;
            let pair = KeyPair::generate()?;
            let made = params.signed_by(&pair, &self.issuer)?;
            write(&key, &pair.serialize_pem(), 0o600)?;
            write(&cert, &made.pem(), 0o644)?;
        }
        let leaf = CertificateDer::from_pem_slice(read(&cert)?.as_bytes())?;
        let ca = CertificateDer::from_pem_slice(read(&self.ca_file())?.as_bytes())?;
        let key = PrivateKeyDer::from_pem_slice(read(&key)?.as_bytes())?;
        let fingerprint = Sha256::digest(leaf.as_ref());
        let fingerprint: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf, ca], key)?;
        Ok(Leaf { config: Arc::new(config), fingerprint: fingerprint.join(":") })
    }
}
