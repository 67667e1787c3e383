//! A cluster's secrets: what `secrets.yaml` holds, and nothing else survives a rebuild without it.
//!
//! Purpose: load, check, make and write the bundle. Every value is kept as the text it was given and written back
//! unchanged: Talos never decodes some of them, and a re-encoded value is another value. Must not know: machine
//! configurations beyond where a live one keeps these values. Start with [`Secrets`]; reading is in `draft.rs`.

mod certificate;
mod der;
mod draft;
mod key;
mod make;
mod pem;
mod pki;
mod write;

use std::fmt;

use base64::Engine as _;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use crate::types::Sha256;

pub use pki::PKI_FILES;

pub(crate) use certificate::{Authority, client};
pub(crate) use key::{PrivateKey, key_der};

use super::config::yaml::YamlError;

/// A bundle that could not be read, made or used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// The text is no YAML.
    #[error("the secrets are not readable as YAML")]
    Yaml(#[source] YamlError),
    /// The text is something else, or empty.
    #[error("it holds no {wanted}: none of its keys is there ({keys})")]
    Foreign {
        /// What was looked for.
        wanted: &'static str,
        /// The keys that it begins with.
        keys: &'static str,
    },
    /// Values are missing or wrong: all of them, not only the first.
    #[error("{} in the secrets:{}", count(.0), list(.0))]
    Invalid(Vec<Problem>),
    /// The cryptographic library failed, most likely for want of randomness.
    #[error("a key or certificate could not be made")]
    Crypto,
}

fn count(problems: &[Problem]) -> String {
    if problems.len() == 1 { "1 problem".into() } else { format!("{} problems", problems.len()) }
}

fn list(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |text, problem| text + &format!("\n  {problem}"))
}

/// One value of a bundle that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The value's place where it was looked for: `certs.etcd.key` of a bundle, `cluster.etcd.ca.key` of a configuration.
    pub path: &'static str,
    /// Its line in the file, from 1, where it has one.
    pub line: Option<usize>,
    /// What is wrong with it.
    pub flaw: Flaw,
}

impl SecretsError {
    /// What to do about it, each thing once.
    pub fn hints(&self) -> Vec<&'static str> {
        let problems = match self {
            Self::Invalid(problems) => problems,
            Self::Foreign { .. } => {
                return vec![
                    "name the file that `talosctl gen secrets` or talhelper wrote, a control plane's configuration, or a \
                     folder such as /etc/kubernetes/pki",
                ];
            }
            Self::Yaml(_) => {
                return vec!["the file was changed by hand or cut: correct it there, or take the original"];
            }
            Self::Crypto => return Vec::new(),
        };
        let mut hints: Vec<&'static str> = Vec::new();
        for problem in problems {
            let remedy = problem.flaw.remedy();
            if !hints.contains(&remedy) {
                hints.push(remedy);
            }
        }
        hints
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        write!(f, "{} {}", self.path, self.flaw)
    }
}

/// What can be wrong with a value. Never holds the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// It is not there.
    #[error("is required")]
    Missing,
    /// It is not there, but something that is called nearly so.
    #[error("is required, and '{found}' is no key of a bundle")]
    Misspelt {
        /// What it is called.
        found: String,
    },
    /// It is a list, a mapping or a number.
    #[error("must be a string")]
    NotText,
    /// Somebody blanked it with asterisks.
    #[error("is blanked out (\"******\")")]
    Redacted,
    /// SOPS has encrypted it.
    #[error("is encrypted with SOPS")]
    Encrypted,
    /// It is not base64.
    #[error("is not base64")]
    NotBase64,
    /// It decodes, but to another length.
    #[error("decodes to {found} bytes, {expected} are needed")]
    Length {
        /// What it decodes to.
        found: usize,
        /// What it should.
        expected: usize,
    },
    /// It is no bootstrap token.
    #[error("must look like abcdef.0123456789abcdef (lower-case letters and digits)")]
    Token,
    /// There is no PEM block.
    #[error("holds no PEM block")]
    NoPem,
    /// A PEM block begins and does not end well.
    #[error("holds a PEM block that is cut off or damaged")]
    Truncated,
    /// A PEM block of another thing.
    #[error("is labelled '{found}', {expected} is needed")]
    WrongLabel {
        /// Its label.
        found: String,
        /// What should be there.
        expected: &'static str,
    },
    /// The block is no key of a kind Talos uses.
    #[error("is no private key that can be read (Ed25519, ECDSA on P-256, P-384 or P-521, RSA of 2048 bits and more)")]
    GarbledKey,
    /// The block is a key of a kind that is not taken.
    #[error("is {found}; Ed25519, ECDSA on P-256, P-384 or P-521, and RSA of 2048 bits and more are taken")]
    OtherKey {
        /// Its kind.
        found: String,
    },
    /// The block is no certificate.
    #[error("is no certificate that can be read")]
    GarbledCertificate,
    /// The certificate may not sign.
    #[error("is not the certificate of an authority")]
    NotAuthority,
    /// Key and certificate belong to different pairs.
    #[error("does not belong to the certificate beside it")]
    KeyMismatch,
    /// The certificate's time is over.
    #[error("expired on {at}")]
    Expired {
        /// When it ended.
        at: Timestamp,
    },
    /// Neither encryption secret is there.
    #[error("is required (or its aescbc counterpart)")]
    NoEncryption,
    /// Both encryption secrets are there.
    #[error("and its aescbc counterpart are both there, exactly one may be")]
    TwoEncryptions,
}

impl Flaw {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Missing | Self::NoEncryption => {
                "a bundle is whole or of no use: take it from where it is kept safe, or from a control plane (recast secrets import --node ADDRESS)"
            }
            Self::Misspelt { .. } => "a key was misspelt: call it as it is called here",
            Self::Redacted => "this file was redacted: take the original",
            Self::Encrypted => {
                "decrypt it: import the encrypted file itself, or have the profile say `secrets_file: {command: sops --decrypt FILE}`"
            }
            Self::NotText | Self::NotBase64 | Self::Length { .. } | Self::Token => {
                "a value was changed by hand or cut: copy it again, whole and on one line"
            }
            Self::NoPem | Self::Truncated | Self::GarbledKey | Self::GarbledCertificate => {
                "the PEM text was cut or damaged on its way: copy it again, from the BEGIN line to the END line"
            }
            Self::OtherKey { .. } => {
                "the key is whole, but too weak or too rare to build on: make a new one, and for an authority a new certificate with it"
            }
            Self::WrongLabel { .. } | Self::NotAuthority => {
                "another certificate or key was put in its place: look which is which with openssl"
            }
            Self::KeyMismatch => "certificate and key are of different pairs: take both from the same cluster",
            Self::Expired { .. } => {
                "nothing can be signed with an authority that expired: renew it on the running cluster first (talosctl rotate-ca), then import the secrets again"
            }
            Self::TwoEncryptions => {
                "keep the one that the cluster's Secrets are encrypted with: a control plane's configuration has it"
            }
        }
    }
}

/// A certificate and its key, each as the base64 of its PEM text.
#[derive(Clone)]
pub struct KeyPair {
    crt: String,
    key: SecretString,
}

impl KeyPair {
    /// The SHA-256 of the certificate, as browsers and openssl show it.
    pub fn fingerprint(&self) -> Option<Sha256> {
        pem::decode(&self.certificate_pem()).ok().map(|block| Sha256::of(&block.der))
    }

    /// When the certificate ends.
    pub fn not_after(&self) -> Option<Timestamp> {
        not_after(&self.certificate_pem())
    }

    /// The certificate as the bundle spells it: base64 of PEM.
    pub fn certificate(&self) -> &str {
        &self.crt
    }

    /// The certificate's PEM text.
    pub fn certificate_pem(&self) -> String {
        decoded(&self.crt)
    }

    /// The key as the bundle spells it: base64 of PEM.
    pub fn key(&self) -> &SecretString {
        &self.key
    }

    /// The key's PEM text.
    pub fn key_pem(&self) -> SecretString {
        decoded(self.key.expose_secret()).into()
    }
}

/// When a certificate in PEM ends.
pub(crate) fn not_after(pem: &str) -> Option<Timestamp> {
    certificate::Facts::of(pem).ok().map(|facts| facts.not_after)
}

/// Base64 of PEM text; the bundle was checked when it was read, so there is nothing left that can fail.
fn decoded(text: &str) -> String {
    pem::BASE64.decode(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// How Kubernetes' Secrets are encrypted in etcd. A restored etcd can only be read with the same one.
#[derive(Clone)]
pub enum Encryption {
    /// What every contract since 1.3 makes.
    Secretbox(SecretString),
    /// What clusters from before then have.
    AesCbc(SecretString),
}

/// A whole bundle, checked.
#[derive(Clone)]
pub struct Secrets {
    cluster_id: SecretString,
    cluster_secret: SecretString,
    bootstrap_token: SecretString,
    encryption: Encryption,
    trustd_token: SecretString,
    etcd: KeyPair,
    kubernetes: KeyPair,
    aggregator: KeyPair,
    service_account: SecretString,
    talos: KeyPair,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

/// A part of a bundle that two clusters, or a file and a cluster, may differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The authority of Talos' own API.
    TalosAuthority,
    /// The authority of Kubernetes.
    KubernetesAuthority,
    /// The authority of etcd.
    EtcdAuthority,
    /// The authority of the aggregation layer.
    AggregatorAuthority,
    /// The key that signs service-account tokens.
    ServiceAccountKey,
    /// The key that encrypts Kubernetes' Secrets in etcd.
    EncryptionSecret,
    /// The cluster's identity for discovery.
    ClusterIdentity,
    /// The tokens that machines join with.
    Tokens,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TalosAuthority => "Talos CA",
            Self::KubernetesAuthority => "Kubernetes CA",
            Self::EtcdAuthority => "etcd CA",
            Self::AggregatorAuthority => "aggregator CA",
            Self::ServiceAccountKey => "service-account key",
            Self::EncryptionSecret => "encryption secret",
            Self::ClusterIdentity => "cluster id and secret",
            Self::Tokens => "join tokens",
        })
    }
}

impl Secrets {
    /// The cluster's id, opaque.
    pub fn cluster_id(&self) -> &SecretString {
        &self.cluster_id
    }

    /// The cluster's discovery secret, base64 of 32 bytes.
    pub fn cluster_secret(&self) -> &SecretString {
        &self.cluster_secret
    }

    /// The token that kubelets join with.
    pub fn bootstrap_token(&self) -> &SecretString {
        &self.bootstrap_token
    }

    /// The token that Talos machines join with.
    pub fn trustd_token(&self) -> &SecretString {
        &self.trustd_token
    }

    /// How Secrets are encrypted in etcd.
    pub fn encryption(&self) -> &Encryption {
        &self.encryption
    }

    /// The authority of etcd.
    pub fn etcd(&self) -> &KeyPair {
        &self.etcd
    }

    /// The authority of Kubernetes.
    pub fn kubernetes(&self) -> &KeyPair {
        &self.kubernetes
    }

    /// The authority of the aggregation layer.
    pub fn aggregator(&self) -> &KeyPair {
        &self.aggregator
    }

    /// The key of service accounts: base64 of PEM.
    pub fn service_account(&self) -> &SecretString {
        &self.service_account
    }

    /// The PEM text of the key of service accounts.
    pub fn service_account_pem(&self) -> SecretString {
        decoded(self.service_account.expose_secret()).into()
    }

    /// The authority of Talos' own API (`certs.os`).
    pub fn talos(&self) -> &KeyPair {
        &self.talos
    }

    /// Every value by its place in the bundle, in the order of the file.
    fn values(&self) -> Vec<(&'static str, Part, &str)> {
        let (encryption_path, encryption) = match &self.encryption {
            Encryption::Secretbox(secret) => ("secrets.secretboxencryptionsecret", secret),
            Encryption::AesCbc(secret) => ("secrets.aescbcencryptionsecret", secret),
        };
        vec![
            ("cluster.id", Part::ClusterIdentity, self.cluster_id.expose_secret()),
            ("cluster.secret", Part::ClusterIdentity, self.cluster_secret.expose_secret()),
            ("secrets.bootstraptoken", Part::Tokens, self.bootstrap_token.expose_secret()),
            (encryption_path, Part::EncryptionSecret, encryption.expose_secret()),
            ("trustdinfo.token", Part::Tokens, self.trustd_token.expose_secret()),
            ("certs.etcd.crt", Part::EtcdAuthority, &self.etcd.crt),
            ("certs.etcd.key", Part::EtcdAuthority, self.etcd.key.expose_secret()),
            ("certs.k8s.crt", Part::KubernetesAuthority, &self.kubernetes.crt),
            ("certs.k8s.key", Part::KubernetesAuthority, self.kubernetes.key.expose_secret()),
            ("certs.k8saggregator.crt", Part::AggregatorAuthority, &self.aggregator.crt),
            ("certs.k8saggregator.key", Part::AggregatorAuthority, self.aggregator.key.expose_secret()),
            ("certs.k8sserviceaccount.key", Part::ServiceAccountKey, self.service_account.expose_secret()),
            ("certs.os.crt", Part::TalosAuthority, &self.talos.crt),
            ("certs.os.key", Part::TalosAuthority, self.talos.key.expose_secret()),
        ]
    }

    /// Identifies the bundle and reveals nothing of it: the digest of the digests of its values.
    pub fn fingerprint(&self) -> Sha256 {
        let digest = |value: &str| Sha256::of(value.as_bytes());
        let values = self.values();
        let lines: Vec<String> = values.iter().map(|(path, _, value)| format!("{path} {}", digest(value))).collect();
        Sha256::of(lines.join("\n").as_bytes())
    }

    /// What of it may be shown: the digests of its authorities' certificates, in the order of the file.
    pub fn authorities(&self) -> [(Part, &KeyPair); 4] {
        [
            (Part::TalosAuthority, &self.talos),
            (Part::KubernetesAuthority, &self.kubernetes),
            (Part::EtcdAuthority, &self.etcd),
            (Part::AggregatorAuthority, &self.aggregator),
        ]
    }

    /// Whether a text holds a secret of this bundle, in the form of the file or in that of PEM.
    pub fn is_in(&self, text: &str) -> bool {
        let secret = |(place, _, value): &(&str, Part, &str)| {
            !place.ends_with(".crt") && !value.is_empty() && text.contains(value)
        };
        let values = self.values();
        values.iter().any(secret) || text.contains("PRIVATE KEY-----")
    }

    /// What differs between this bundle and `other`, each part once.
    pub fn differences(&self, other: &Self) -> Vec<Part> {
        let (ours, theirs) = (self.values(), other.values());
        let mut parts: Vec<Part> = ours
            .iter()
            .zip(&theirs)
            .filter(|(one, two)| (one.0, one.2) != (two.0, two.2))
            .map(|(one, _)| one.1)
            .collect();
        parts.sort_unstable();
        parts.dedup();
        parts
    }
}

#[cfg(test)]
mod tests;
