//! Makes a new bundle. Must not know: how bundles are read.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::key::KeyKind;
use super::{Encryption, KeyPair, PrivateKey, Secrets, SecretsError, certificate};
use crate::talos::config::{Contract, Feature};

impl Secrets {
    /// A new bundle as the Talos of `contract` would make it; all certificates begin at `now` and last ten years.
    ///
    /// Takes a second or so for the RSA key.
    pub fn generate(contract: Contract, now: Timestamp) -> Result<Self, SecretsError> {
        let service_account = if contract.has(Feature::RsaServiceAccount) { KeyKind::Rsa4096 } else { KeyKind::P256 };
        let (_, service_account) = PrivateKey::generate(service_account).map_err(|_| SecretsError::Crypto)?;
        let id = random::<32>()?;
        let encryption = STANDARD.encode(random::<32>()?).into();
        Ok(Self {
            cluster_id: if contract.has(Feature::StandardClusterId) {
                STANDARD.encode(id).into()
            } else {
                URL_SAFE.encode(id).into()
            },
            cluster_secret: STANDARD.encode(random::<32>()?).into(),
            bootstrap_token: token()?,
            encryption: if contract.has(Feature::Secretbox) {
                Encryption::Secretbox(encryption)
            } else {
                Encryption::AesCbc(encryption)
            },
            trustd_token: token()?,
            etcd: authority(Some("etcd"), KeyKind::P256, now)?,
            kubernetes: authority(Some("kubernetes"), KeyKind::P256, now)?,
            aggregator: authority(None, KeyKind::P256, now)?,
            service_account: STANDARD.encode(service_account.expose_secret()).into(),
            talos: authority(Some("talos"), KeyKind::Ed25519, now)?,
        })
    }
}

fn authority(organization: Option<&str>, kind: KeyKind, now: Timestamp) -> Result<KeyPair, SecretsError> {
    let (key, text) = PrivateKey::generate(kind).map_err(|_| SecretsError::Crypto)?;
    let certificate = certificate::authority(organization, &key, now)?;
    Ok(KeyPair { crt: STANDARD.encode(certificate), key: STANDARD.encode(text.expose_secret()).into() })
}

fn random<const N: usize>() -> Result<[u8; N], SecretsError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| SecretsError::Crypto)?;
    Ok(bytes)
}

/// Six and sixteen characters of 36, each as likely as any other: bytes from 252 on are thrown away.
fn token() -> Result<SecretString, SecretsError> {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(23);
    while text.len() < 23 {
        if text.len() == 6 {
            text.push('.');
        }
        for byte in random::<1>()? {
            if byte < 252 {
                text.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            }
        }
    }
    Ok(text.into())
}
