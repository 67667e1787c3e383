//! PEM, with the labels that Talos writes.
//!
//! Purpose: read certificates and private keys from PEM text into the types rustls takes. The usual readers don't know the
//! label `ED25519 PRIVATE KEY`, which Talos puts around PKCS#8 (siderolabs/crypto, x509/). Must not know: files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

/// Text that isn't the PEM it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A block doesn't end, or holds something that isn't base64.
    #[error("the PEM block '{label}' is damaged")]
    Damaged {
        /// What stands after `BEGIN`.
        label: String,
    },
    /// There is no certificate in it.
    #[error("there is no certificate in the PEM text")]
    NoCertificate,
    /// There is no private key of a known kind in it.
    #[error("there is no private key in the PEM text")]
    NoKey,
}

/// All blocks of a PEM text: label and DER.
pub fn blocks(pem: &[u8]) -> Result<Vec<(String, Vec<u8>)>, PemError> {
    let text = String::from_utf8_lossy(pem);
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines().map(str::trim) {
        if let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|rest| rest.strip_suffix("-----")) {
            open = Some((label.to_owned(), String::new()));
        } else if let Some(ended) = line.strip_prefix("-----END ").and_then(|rest| rest.strip_suffix("-----")) {
            let damaged = || PemError::Damaged { label: ended.to_owned() };
            let (label, body) = open.take().filter(|(label, _)| label == ended).ok_or_else(damaged)?;
            blocks.push((label, STANDARD.decode(body).map_err(|_| damaged())?));
        } else if let Some((_, body)) = &mut open {
            body.push_str(line);
        }
    }
    match open {
        Some((label, _)) => Err(PemError::Damaged { label }),
        None => Ok(blocks),
    }
}

/// The certificates of a PEM text, at least one, in their order.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let found: Vec<_> =
        blocks(pem)?.into_iter().filter(|(label, _)| label == "CERTIFICATE").map(|(_, der)| der.into()).collect();
    if found.is_empty() { Err(PemError::NoCertificate) } else { Ok(found) }
}

/// The first private key of a PEM text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    blocks(pem)?
        .into_iter()
        .find_map(|(label, der)| match label.as_str() {
            "PRIVATE KEY" | "ED25519 PRIVATE KEY" => Some(PrivatePkcs8KeyDer::from(der).into()),
            "EC PRIVATE KEY" => Some(PrivateSec1KeyDer::from(der).into()),
            "RSA PRIVATE KEY" => Some(PrivatePkcs1KeyDer::from(der).into()),
            _ => None,
        })
        .ok_or(PemError::NoKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_label_becomes_its_own_kind_of_key() {
        let pem = |label: &str| format!("-----BEGIN {label}-----\nAAEC\n-----END {label}-----\n").into_bytes();
        assert!(matches!(private_key(&pem("ED25519 PRIVATE KEY")), Ok(PrivateKeyDer::Pkcs8(_))));
        assert!(matches!(private_key(&pem("PRIVATE KEY")), Ok(PrivateKeyDer::Pkcs8(_))));
        assert!(matches!(private_key(&pem("EC PRIVATE KEY")), Ok(PrivateKeyDer::Sec1(_))));
        assert!(matches!(private_key(&pem("RSA PRIVATE KEY")), Ok(PrivateKeyDer::Pkcs1(_))));
        assert_eq!(private_key(&pem("PUBLIC KEY")).unwrap_err(), PemError::NoKey);
        assert_eq!(certificates(&pem("CERTIFICATE")).unwrap()[0].as_ref(), [0, 1, 2]);
    }

    #[test]
    fn damage_is_named() {
        for damaged in [
            "-----BEGIN CERTIFICATE-----\nAAEC\n",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAEC\n-----END PRIVATE KEY-----\n",
        ] {
            assert!(matches!(blocks(damaged.as_bytes()), Err(PemError::Damaged { .. })), "{damaged}");
        }
    }
}
