//! Private keys as Talos writes them: made, read, matched with certificates, used to sign.
//!
//! Must not know: the bundle. Labels and encodings follow siderolabs/crypto x509/{key,constants}.go (v0.6.4).

use aws_lc_rs::encoding::{AsBigEndian, AsDer, EcPrivateKeyBin, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA512, RsaKeyPair,
};
use rustls_pki_types::PrivateKeyDer;
use secrecy::SecretString;

use super::pem::Block;
use super::{Flaw, der, pem};

const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
const RSA: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const ECDSA_SHA384: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const ECDSA_SHA512: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x04];
const RSA_SHA512: &[u8] = &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d, 0x05, 0x00];

/// The kinds of key that Talos makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// Talos' own API.
    Ed25519,
    /// Kubernetes and etcd.
    P256,
    /// Service accounts since contract 1.7.
    Rsa4096,
}

/// A private key, ready to sign.
pub(crate) enum PrivateKey {
    /// Pure Ed25519.
    Ed25519(Ed25519KeyPair),
    /// ECDSA on P-256 with SHA-256.
    P256(EcdsaKeyPair),
    /// ECDSA on P-384 with SHA-384.
    P384(EcdsaKeyPair),
    /// ECDSA on P-521 with SHA-512.
    P521(EcdsaKeyPair),
    /// RSA, PKCS#1 v1.5 with SHA-512.
    Rsa(Box<RsaKeyPair>),
}

impl PrivateKey {
    /// A new key of `kind` and its PEM text.
    pub(crate) fn generate(kind: KeyKind) -> Result<(Self, SecretString), aws_lc_rs::error::Unspecified> {
        Ok(match kind {
            KeyKind::Ed25519 => {
                let pair = Ed25519KeyPair::generate()?;
                let text = pem::encode("ED25519 PRIVATE KEY", pair.to_pkcs8v1()?.as_ref());
                (Self::Ed25519(pair), text.into())
            }
            KeyKind::P256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
                let scalar: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes()?;
                let sec1 = der::sequence(&[
                    &der::integer(&[1]),
                    &der::octets(scalar.as_ref()),
                    &der::element(0xa0, P256),
                    &der::element(0xa1, &der::bits(pair.public_key().as_ref())),
                ]);
                let text = pem::encode("EC PRIVATE KEY", &sec1);
                (Self::P256(pair), text.into())
            }
            KeyKind::Rsa4096 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa4096)?;
                let wrapped: Pkcs8V1Der<'_> = pair.as_der()?;
                let inner = unwrap_pkcs8(wrapped.as_ref()).ok_or(aws_lc_rs::error::Unspecified)?;
                let text = pem::encode("RSA PRIVATE KEY", inner);
                (Self::Rsa(Box::new(pair)), text.into())
            }
        })
    }

    /// Reads a private key from PEM with any of the labels that Talos reads.
    pub(crate) fn from_pem(text: &str) -> Result<Self, Flaw> {
        let block = pem::decode(text)?;
        let found = match block.label.as_str() {
            "ED25519 PRIVATE KEY" => Self::ed25519(&block.der),
            // Talos takes this label for SEC 1 alone, and the general one for PKCS#8 alone.
            "EC PRIVATE KEY" => unwrap_pkcs8(&block.der).is_none().then(|| Self::ecdsa(&block.der)).flatten(),
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&block.der).ok().map(|pair| Self::Rsa(Box::new(pair))),
            "PRIVATE KEY" => Self::ed25519(&block.der)
                .or_else(|| unwrap_pkcs8(&block.der).and_then(|_| Self::ecdsa(&block.der)))
                .or_else(|| RsaKeyPair::from_pkcs8(&block.der).ok().map(|pair| Self::Rsa(Box::new(pair)))),
            _ => return Err(Flaw::WrongLabel { found: block.label, expected: "a private key" }),
        };
        found.ok_or_else(|| refused(block))
    }

    fn ed25519(der: &[u8]) -> Option<Self> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(Self::Ed25519)
    }

    fn ecdsa(der: &[u8]) -> Option<Self> {
        let on = |curve| EcdsaKeyPair::from_private_key_der(curve, der).ok();
        on(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map(Self::P256)
            .or_else(|| on(&ECDSA_P384_SHA384_ASN1_SIGNING).map(Self::P384))
            .or_else(|| on(&ECDSA_P521_SHA512_ASN1_SIGNING).map(Self::P521))
    }

    /// The kind of key Talos makes for certificates signed by this one.
    pub(crate) fn leaf_kind(&self) -> KeyKind {
        match self {
            Self::Ed25519(_) => KeyKind::Ed25519,
            Self::P256(_) | Self::P384(_) | Self::P521(_) => KeyKind::P256,
            Self::Rsa(_) => KeyKind::Rsa4096,
        }
    }

    /// The public key as a certificate's bit string holds it.
    pub(crate) fn public(&self) -> &[u8] {
        match self {
            Self::Ed25519(pair) => pair.public_key().as_ref(),
            Self::P256(pair) | Self::P384(pair) | Self::P521(pair) => pair.public_key().as_ref(),
            Self::Rsa(pair) => pair.public_key().as_ref(),
        }
    }

    /// The `SubjectPublicKeyInfo` of a certificate for this key.
    pub(super) fn public_info(&self) -> Vec<u8> {
        let algorithm = match self {
            Self::Ed25519(_) => ED25519.to_vec(),
            Self::P256(_) => der::sequence(&[EC, P256]),
            Self::P384(_) => der::sequence(&[EC, P384]),
            Self::P521(_) => der::sequence(&[EC, P521]),
            Self::Rsa(_) => RSA.to_vec(),
        };
        der::sequence(&[&algorithm, &der::bits(self.public())])
    }

    /// The identifier of the algorithm that [`sign`](Self::sign) uses.
    pub(super) fn algorithm(&self) -> &'static [u8] {
        match self {
            Self::Ed25519(_) => ED25519,
            Self::P256(_) => ECDSA_SHA256,
            Self::P384(_) => ECDSA_SHA384,
            Self::P521(_) => ECDSA_SHA512,
            Self::Rsa(_) => RSA_SHA512,
        }
    }

    /// Signs `message`.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        Ok(match self {
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::P256(pair) | Self::P384(pair) | Self::P521(pair) => {
                pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec()
            }
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature)?;
                signature
            }
        })
    }
}

/// A private key's DER as rustls takes it, from PEM with any label that Talos reads.
pub(crate) fn key_der(text: &str) -> Result<PrivateKeyDer<'static>, Flaw> {
    let block = pem::decode(text)?;
    Ok(match block.label.as_str() {
        "ED25519 PRIVATE KEY" | "PRIVATE KEY" => PrivateKeyDer::Pkcs8(block.der.into()),
        "EC PRIVATE KEY" => PrivateKeyDer::Sec1(block.der.into()),
        "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(block.der.into()),
        _ => return Err(Flaw::WrongLabel { found: block.label, expected: "a private key" }),
    })
}

/// What is wrong with a key that could not be read.
fn refused(Block { label, der }: Block) -> Flaw {
    let found = match (label.as_str(), unwrap_pkcs8(&der)) {
        ("EC PRIVATE KEY" | "RSA PRIVATE KEY", Some(_)) => {
            return Flaw::WrongLabel { found: label, expected: "'PRIVATE KEY'" };
        }
        ("PRIVATE KEY", Some(inner)) => kind_in(&der).or_else(|| small_rsa(inner)),
        ("EC PRIVATE KEY", None) => curve_of(&der).map(on_curve),
        ("RSA PRIVATE KEY", None) => small_rsa(&der),
        _ => None,
    };
    found.map_or(Flaw::GarbledKey, |found| Flaw::OtherKey { found })
}

/// What kind of key a PKCS#8 wrapping says that it has, if that is none that is taken.
fn kind_in(wrapped: &[u8]) -> Option<String> {
    let (content, _) = der::take(wrapped, 0x30)?;
    let (_, rest) = der::take(content, 0x02)?;
    let (algorithm, _) = der::take(rest, 0x30)?;
    if let Some(curve) = algorithm.strip_prefix(EC) {
        return (![P256, P384, P521].contains(&curve)).then(|| on_curve(curve));
    }
    (!RSA[2..].starts_with(algorithm) && !ED25519[2..].starts_with(algorithm))
        .then(|| "a key of another algorithm than Talos' own".to_owned())
}

/// The curve that a SEC 1 key names, if that is none that is taken.
fn curve_of(sec1: &[u8]) -> Option<&[u8]> {
    let (content, _) = der::take(sec1, 0x30)?;
    let (_, rest) = der::take(content, 0x02)?;
    let (_, rest) = der::take(rest, 0x04)?;
    let (curve, _) = der::take(rest, 0xa0)?;
    (![P256, P384, P521].contains(&curve)).then_some(curve)
}

fn on_curve(curve: &[u8]) -> String {
    let name = match curve {
        [.., 0x04, 0x00, 0x21] => "the curve P-224",
        [.., 0x04, 0x00, 0x0a] => "the curve secp256k1",
        _ => "another curve",
    };
    format!("an ECDSA key on {name}")
}

/// An RSA key that is too small.
fn small_rsa(key: &[u8]) -> Option<String> {
    let (content, _) = der::take(key, 0x30)?;
    let (_, rest) = der::take(content, 0x02)?;
    let (modulus, _) = der::take(rest, 0x02)?;
    let modulus = &modulus[modulus.iter().take_while(|byte| **byte == 0).count()..];
    let bits = modulus.len() * 8 - usize::try_from(modulus.first()?.leading_zeros()).ok()?;
    (bits < 2048).then(|| format!("an RSA key of {bits} bits"))
}

/// The key inside a PKCS#8 wrapping: `SEQUENCE { INTEGER, SEQUENCE, OCTET STRING }`.
fn unwrap_pkcs8(wrapped: &[u8]) -> Option<&[u8]> {
    let (content, _) = der::take(wrapped, 0x30)?;
    let (_, rest) = der::take(content, 0x02)?;
    let (_, rest) = der::take(rest, 0x30)?;
    der::take(rest, 0x04).map(|(key, _)| key)
}
