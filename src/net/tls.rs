//! Whom a connection trusts, and who it says it is.
//!
//! Purpose: build rustls client configurations from a [`Trust`] and an optional [`Identity`]. A pin replaces the chain and
//! name checks by an exact comparison of the leaf; the handshake signature is checked in every case, so that nobody can
//! show a certificate without having its key. Must not know: hosts, protocols above TLS.
//! PVE's certificates come from the cluster's own CA and are often reached by an address that isn't in them, hence the pin
//! on the leaf; Talos' maintenance API has a throw-away certificate, hence the pin on its key.

use std::error::Error;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::connector::Connector;
use super::pem::{self, PemError};
use crate::types::{Malformed, Sha256};

/// SHA-256 over a leaf certificate, shown as PVE shows it: upper-case hex pairs joined by colons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub Sha256);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(leaf: &CertificateDer<'_>) -> Self {
        Self(Sha256::of(leaf))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.0.0.iter().map(|byte| format!("{byte:02X}")).collect();
        f.write_str(&pairs.join(":"))
    }
}

impl FromStr for Fingerprint {
    type Err = Malformed;

    /// Reads 32 hex pairs joined by colons, in any case.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let malformed = || Malformed::new(text, "a certificate fingerprint (32 hex pairs joined by colons)");
        let mut bytes = [0; 32];
        let mut pairs = text.trim().split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2).ok_or_else(malformed)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| malformed())?;
        }
        if pairs.next().is_some() { Err(malformed()) } else { Ok(Self(Sha256(bytes))) }
    }
}

/// SHA-256 over a leaf's public key (its `SubjectPublicKeyInfo`), shown in base64 as Talos shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpkiPin(pub Sha256);

impl SpkiPin {
    /// The pin of a certificate's key; `None` when it isn't a certificate.
    pub fn of(leaf: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(leaf).ok()?;
        Some(Self(Sha256::of(parsed.public_key().raw)))
    }
}

impl fmt::Display for SpkiPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.0))
    }
}

impl FromStr for SpkiPin {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| Self(Sha256(bytes))).ok_or_else(|| Malformed::new(text, "a base64 SHA-256 of a public key"))
    }
}

/// What a server showed, noted for a person or a later pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of its leaf certificate.
    pub fingerprint: Fingerprint,
    /// Of its key.
    pub spki: SpkiPin,
}

/// Notes what the server showed on the last handshake. Clones share the note.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Mutex<Option<Seen>>>);

impl Recorder {
    /// What was seen, once a handshake got that far.
    pub fn seen(&self) -> Option<Seen> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom to believe.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// The certificate authorities of this machine.
    #[default]
    SystemRoots,
    /// These authorities and no others.
    Authorities(Vec<CertificateDer<'static>>),
    /// Exactly this leaf, whatever its names, issuer and dates.
    Fingerprint(Fingerprint),
    /// Exactly this key.
    Spki(SpkiPin),
    /// Anyone, noting who it was. For the first probe, before anything secret is said.
    Record(Recorder),
    /// Anyone. Must have been asked for by name.
    Insecure,
}

impl Trust {
    /// The authorities of a PEM text.
    pub fn authorities(pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self::Authorities(pem::certificates(pem)?))
    }
}

/// A client certificate with its key.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From PEM texts; the key may have any of Talos' labels.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { chain: pem::certificates(certificate)?, key: pem::private_key(key)? })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// A configuration that can't be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not the PEM it should be.
    #[error("could not read the certificate or key")]
    Pem(#[from] PemError),
    /// The machine's own authorities can't be read.
    #[error("this machine has no usable certificate authorities")]
    NoSystemRoots,
    /// rustls would not take it.
    #[error("could not set up TLS")]
    Rustls(#[from] rustls::Error),
    /// An authority that isn't one.
    #[error("could not use the certificate authority")]
    Authority(#[from] rustls::client::VerifierBuilderError),
}

/// The server is someone else than the pin says. Found inside the errors of a handshake with [`mismatch`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's {what} is {found}, expected was {expected}")]
pub struct PinMismatch {
    /// `certificate fingerprint` or `public key`.
    pub what: &'static str,
    /// As pinned.
    pub expected: String,
    /// As shown by the server.
    pub found: String,
}

/// The server shows the certificate of an authority as its own, which no verifier takes for a server's.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is an authority's own (basicConstraints=CA:TRUE): give the server one that the authority signed, or make the \
     self-signed one anew with basicConstraints=CA:FALSE"
)]
pub struct AuthorityShown(#[source] pub Box<dyn Error + Send + Sync>);

/// Whether a certificate was refused for being an authority's.
pub fn is_an_authority(refused: &CertificateError) -> bool {
    // rustls hands the verifier's own error on, and has no name for this one.
    matches!(refused, CertificateError::Other(OtherError(why)) if why.to_string() == "CaUsedAsEndEntity")
}

/// The pin mismatch at the bottom of a chain of errors, if that is what it was.
pub fn mismatch<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a PinMismatch> {
    let mut next: Option<&'a (dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<PinMismatch>() {
            return Some(found);
        }
        // An io::Error leaves out what it wraps when asked for its source.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            next = Some(inner);
            continue;
        }
        if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) =
            error.downcast_ref::<rustls::Error>()
        {
            next = Some(&**other);
            continue;
        }
        next = error.source();
    }
    None
}

/// The certificate verification error of rustls at the bottom of a chain of errors.
pub fn certificate_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a CertificateError> {
    let mut next: Option<&'a (dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(rustls::Error::InvalidCertificate(found)) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The crypto of every TLS connection here; never installed as the process' default.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client configuration without ALPN, as hyper-rustls and others want it.
pub fn client_config(trust: &Trust, identity: Option<Identity>) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match trust {
        Trust::SystemRoots => builder.with_root_certificates(system_roots()?),
        Trust::Authorities(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in authorities {
                roots.add(authority.clone())?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_webpki_verifier(verifier)
        }
        Trust::Fingerprint(_) | Trust::Spki(_) | Trust::Record(_) | Trust::Insecure => {
            let verifier = LeafVerifier { trust: trust.clone(), provider };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    Ok(match identity {
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    })
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(roots) }
}

/// Which HTTP versions a connection offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versions {
    /// HTTP/1.1 only: what PVE speaks.
    Http1,
    /// HTTP/2 only: what gRPC speaks.
    Http2,
    /// Either, as the server likes.
    Both,
}

/// The connector with TLS around it: takes `https` URIs only.
pub fn https(connector: &Connector, config: ClientConfig, versions: Versions) -> HttpsConnector<Connector> {
    let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    match versions {
        Versions::Http1 => builder.enable_http1().wrap_connector(connector.clone()),
        Versions::Http2 => builder.enable_http2().wrap_connector(connector.clone()),
        Versions::Both => builder.enable_http1().enable_http2().wrap_connector(connector.clone()),
    }
}

/// Looks at the leaf alone: chain, names and dates don't matter under a pin.
#[derive(Debug)]
struct LeafVerifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl LeafVerifier {
    fn check(&self, leaf: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let not_a_certificate = || rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        match &self.trust {
            Trust::Fingerprint(expected) => {
                let found = Fingerprint::of(leaf);
                if found != *expected {
                    return Err(refusal("certificate fingerprint", expected, &found));
                }
            }
            Trust::Spki(expected) => {
                let found = SpkiPin::of(leaf).ok_or_else(not_a_certificate)?;
                if found != *expected {
                    return Err(refusal("public key", expected, &found));
                }
            }
            Trust::Record(recorder) => {
                let spki = SpkiPin::of(leaf).ok_or_else(not_a_certificate)?;
                let seen = Seen { fingerprint: Fingerprint::of(leaf), spki };
                *recorder.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
            }
            Trust::SystemRoots | Trust::Authorities(_) | Trust::Insecure => {}
        }
        Ok(())
    }
}

fn refusal(what: &'static str, expected: &impl fmt::Display, found: &impl fmt::Display) -> rustls::Error {
    let mismatch = PinMismatch { what, expected: expected.to_string(), found: found.to_string() };
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))
}

impl ServerCertVerifier for LeafVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(leaf).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_in_any_case_and_shown_as_pve_does() {
        let shown = "4F:09:78:97:0C:32:42:1F:37:4E:90:0F:0C:1C:54:E5:F6:CB:B4:30:FB:1A:8C:97:3B:BC:84:A0:A4:A2:41:CB";
        let read: Fingerprint = shown.to_lowercase().parse().unwrap();
        assert_eq!(read.to_string(), shown);
        assert!("4F:09".parse::<Fingerprint>().is_err());
        assert!(format!("{shown}:00").parse::<Fingerprint>().is_err());
    }

    #[test]
    fn a_mismatch_is_found_under_io_and_rustls_errors() {
        let pins = (Fingerprint(Sha256([1; 32])), Fingerprint(Sha256([2; 32])));
        let wrapped = io::Error::other(io::Error::other(refusal("certificate fingerprint", &pins.0, &pins.1)));
        let found = mismatch(&wrapped).unwrap();
        assert_eq!((found.expected.as_str(), found.found.as_str()), (&*pins.0.to_string(), &*pins.1.to_string()));
        assert_eq!(mismatch(&io::Error::other("else")), None);
    }
}
