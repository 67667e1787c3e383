//! Reads a bundle from `secrets.yaml` or from a control plane's configuration, and says all that is wrong with it.
//!
//! A draft holds what a text had; [`Draft::check`] turns it into [`Secrets`] or a list of problems. Must not know: how
//! bundles are made or written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::SecretString;

use super::certificate::Facts;
use super::key::PrivateKey;
use super::pem::BASE64;
use super::{Encryption, Flaw, KeyPair, Problem, Secrets, SecretsError};
use crate::talos::config::yaml::{Document, Value, first, read};

/// Values as they were found, by their place in the bundle.
#[derive(Default)]
struct Draft {
    found: Vec<(&'static str, Option<usize>, Value)>,
    /// What stands near a place where there is nothing: its path and its line.
    near: Vec<(&'static str, String, Option<usize>)>,
    problems: Vec<Problem>,
}

/// The places of a bundle, in the order of the file.
const PLACES: [&str; 15] = [
    "cluster.id",
    "cluster.secret",
    "secrets.bootstraptoken",
    "secrets.secretboxencryptionsecret",
    "secrets.aescbcencryptionsecret",
    "trustdinfo.token",
    "certs.etcd.crt",
    "certs.etcd.key",
    "certs.k8s.crt",
    "certs.k8s.key",
    "certs.k8saggregator.crt",
    "certs.k8saggregator.key",
    "certs.k8sserviceaccount.key",
    "certs.os.crt",
    "certs.os.key",
];

/// Where the configuration of a control plane keeps them.
const IN_MACHINE_CONFIG: [&str; 15] = [
    "cluster.id",
    "cluster.secret",
    "cluster.token",
    "cluster.secretboxEncryptionSecret",
    "cluster.aescbcEncryptionSecret",
    "machine.token",
    "cluster.etcd.ca.crt",
    "cluster.etcd.ca.key",
    "cluster.ca.crt",
    "cluster.ca.key",
    "cluster.aggregatorCA.crt",
    "cluster.aggregatorCA.key",
    "cluster.serviceAccount.key",
    "machine.ca.crt",
    "machine.ca.key",
];

/// Where the documents of contract 1.14 keep some of them: place, kind and path; PEM in the open is told apart.
const IN_DOCUMENTS: [(&str, &str); 7] = [
    ("cluster.id", "DiscoveryIdentityConfig: clusterID"),
    ("cluster.secret", "DiscoveryIdentityConfig: clusterSecret"),
    ("certs.k8s.crt", "KubeAPIServerCAConfig: issuingCA.cert"),
    ("certs.k8s.key", "KubeAPIServerCAConfig: issuingCA.key"),
    ("certs.k8saggregator.crt", "KubeAggregatorCAConfig: issuingCA.cert"),
    ("certs.k8saggregator.key", "KubeAggregatorCAConfig: issuingCA.key"),
    ("certs.k8sserviceaccount.key", "KubeServiceAccountConfig: issuer.privateKey"),
];

impl Secrets {
    /// Reads `secrets.yaml`. `now` decides which certificates have expired.
    ///
    /// # Errors
    /// Every problem of the text at once; none of them holds a value.
    pub fn load(text: &str, now: Timestamp) -> Result<Self, SecretsError> {
        // The real tool reads the first document and no more.
        let bundle = first(text).map_err(SecretsError::Yaml)?;
        let document = &bundle
            .filter(|document| has_any(document, &["cluster", "secrets", "trustdinfo", "certs"]))
            .filter(|document| !has_any(document, &["machine"]))
            .ok_or(SecretsError::Foreign { wanted: "secrets bundle", keys: "cluster, secrets, trustdinfo, certs" })?;
        let mut draft = Draft::default();
        for place in PLACES {
            draft.take(place, document, place);
            if draft.value(place).is_none()
                && let Some((path, line)) = near(document, place)
            {
                draft.near.push((place, path, line));
            }
        }
        draft.check(now)
    }

    /// Rebuilds a bundle from the configuration of a control plane, whatever its contract.
    ///
    /// # Errors
    /// As [`load`](Self::load); a worker's or a redacted configuration lacks most of it.
    pub fn from_machine_config(text: &str, now: Timestamp) -> Result<Self, SecretsError> {
        let documents = read(text).map_err(SecretsError::Yaml)?;
        if !documents.iter().any(|document| has_any(document, &["machine"])) {
            return Err(SecretsError::Foreign { wanted: "machine configuration", keys: "machine, cluster" });
        }
        let mut draft = Draft::default();
        let legacy = documents.iter().find(|document| document.root.at(&["kind"]).is_none());
        for (place, path) in PLACES.into_iter().zip(IN_MACHINE_CONFIG) {
            if let Some(document) = legacy {
                draft.take(place, document, path);
            }
        }
        let mut places: Vec<(&str, &'static str)> = PLACES.into_iter().zip(IN_MACHINE_CONFIG).collect();
        for (place, whole) in IN_DOCUMENTS {
            let (kind, path) = whole.split_once(": ").unwrap_or_default();
            let document =
                documents.iter().find(|document| document.root.at(&["kind"]).and_then(Value::as_text) == Some(kind));
            if let (Some(document), None) = (document, draft.value(place)) {
                draft.take(place, document, path);
                draft.wrap_pem(place);
                places.iter_mut().filter(|(name, _)| *name == place).for_each(|(_, found)| *found = whole);
            }
        }
        if draft.value(PLACES[3]).is_none() && draft.value(PLACES[4]).is_none() {
            draft.take_encryption(&documents);
        }
        draft.check(now).map_err(|error| match error {
            SecretsError::Invalid(mut problems) => {
                for problem in &mut problems {
                    let found = places.iter().find(|(name, _)| *name == problem.path);
                    problem.path = found.map_or(problem.path, |(_, place)| *place);
                }
                SecretsError::Invalid(problems)
            }
            other => other,
        })
    }
}

/// The key that was probably meant for the one where the way to a place ends: its path and its line.
fn near(document: &Document, place: &str) -> Option<(String, Option<usize>)> {
    let keys: Vec<&str> = place.split('.').collect();
    let end = (0..keys.len()).find(|end| document.root.at(&keys[..=*end]).is_none())?;
    let path = |key: &str| [&keys[..end], &[key]].concat().join(".");
    let known = |path: &str| {
        PLACES.iter().any(|place| place.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
    };
    let siblings = document.root.at(&keys[..end])?.as_map()?.keys().filter(|key| !known(&path(key)));
    let likeness = |key: &str| strsim::jaro_winkler(keys[end], &key.to_lowercase());
    let best = siblings.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
    let path = path(best.filter(|key| likeness(key) > 0.9)?);
    let line = document.marks.line(&path);
    Some((path, line))
}

fn has_any(document: &Document, keys: &[&str]) -> bool {
    keys.iter().any(|key| document.root.at(&[*key]).is_some())
}

/// A bundle of these values by their place, if they are sound.
pub(super) fn checked(values: Vec<(&'static str, String)>, now: Timestamp) -> Result<Secrets, SecretsError> {
    let found = values.into_iter().map(|(place, text)| (place, None, Value::Text(text))).collect();
    Draft { found, ..Draft::default() }.check(now)
}

impl Draft {
    fn take(&mut self, place: &'static str, document: &Document, path: &str) {
        let keys: Vec<&str> = path.split('.').collect();
        let value = document.root.at(&keys).filter(|value| **value != Value::Null);
        if let Some(value) = value.filter(|value| value.as_text() != Some("")) {
            self.found.push((place, document.marks.line(path), value.clone()));
        }
    }

    /// The first provider of the first resource list that names `secrets`, as the real tool takes it.
    fn take_encryption(&mut self, documents: &[Document]) {
        let kind = "KubeEtcdEncryptionConfig";
        let resources = documents
            .iter()
            .find(|document| document.root.at(&["kind"]).and_then(Value::as_text) == Some(kind))
            .and_then(|document| document.root.at(&["config", "resources"])?.as_list());
        let names_secrets = |entry: &&Value| {
            let names = entry.at(&["resources"]).and_then(Value::as_list).unwrap_or_default();
            names.iter().any(|name| name.as_text() == Some("secrets"))
        };
        let provider = resources
            .and_then(|entries| entries.iter().find(names_secrets))
            .and_then(|entry| entry.at(&["providers"])?.as_list()?.first());
        for (place, name) in [(PLACES[3], "secretbox"), (PLACES[4], "aescbc")] {
            let key = provider.and_then(|provider| provider.at(&[name, "keys"])?.as_list()?.first());
            if let Some(secret) = key.and_then(|key| key.at(&["secret"])) {
                self.found.push((place, None, secret.clone()));
            }
        }
    }

    /// Documents hold PEM in the open; the bundle holds its base64.
    fn wrap_pem(&mut self, place: &str) {
        if let Some((_, _, Value::Text(text))) = self.found.iter_mut().find(|(name, ..)| *name == place)
            && text.contains("-----BEGIN ")
        {
            *text = STANDARD.encode(text.as_bytes());
        }
    }

    fn value(&self, place: &str) -> Option<&Value> {
        self.found.iter().find(|(name, ..)| *name == place).map(|(.., value)| value)
    }

    fn flaw(&mut self, path: &'static str, flaw: Flaw) {
        let line = self.found.iter().find(|(name, ..)| *name == path).and_then(|(_, line, _)| *line);
        let line = line.or_else(|| self.near.iter().find(|(name, ..)| *name == path).and_then(|(.., line)| *line));
        self.problems.push(Problem { path, line, flaw });
    }

    /// Why there is nothing at a place.
    fn missing(&self, place: &str) -> Flaw {
        let near = self.near.iter().find(|(name, ..)| *name == place);
        near.map_or(Flaw::Missing, |(_, found, _)| Flaw::Misspelt { found: found.clone() })
    }

    /// The text at `place`, or an empty one and a problem.
    fn text(&mut self, place: &'static str) -> String {
        let found = match self.value(place) {
            None => Err(self.missing(place)),
            // Only a file of its own can be empty: what is empty in a bundle was not taken.
            Some(Value::Text(text)) if text.is_empty() => Err(Flaw::NoPem),
            Some(Value::Text(text)) if text.bytes().all(|byte| byte == b'*') => Err(Flaw::Redacted),
            Some(Value::Text(text)) if text.starts_with("ENC[") => Err(Flaw::Encrypted),
            Some(Value::Text(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.raw().to_owned()),
            Some(Value::Bool(on)) => Ok(on.raw().to_owned()),
            Some(_) => Err(Flaw::NotText),
        };
        found.unwrap_or_else(|flaw| {
            self.flaw(place, flaw);
            String::new()
        })
    }

    fn token(&mut self, place: &'static str) -> SecretString {
        let text = self.text(place);
        let part = |part: &str, length| {
            part.len() == length && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let fits = text.split_once('.').is_some_and(|(id, secret)| part(id, 6) && part(secret, 16));
        if !text.is_empty() && !fits {
            self.flaw(place, Flaw::Token);
        }
        text.into()
    }

    /// Standard base64 of a 32-byte key.
    fn key_of_32(&mut self, place: &'static str) -> SecretString {
        let text = self.text(place);
        if !text.is_empty() {
            // Line breaks at the end do no harm.
            match BASE64.decode(text.trim_end_matches(['\r', '\n'])) {
                Err(_) => self.flaw(place, Flaw::NotBase64),
                Ok(bytes) if bytes.len() != 32 => self.flaw(place, Flaw::Length { found: bytes.len(), expected: 32 }),
                Ok(_) => {}
            }
        }
        text.into()
    }

    fn pem(&mut self, place: &'static str) -> (String, Option<String>) {
        // Line breaks mean nothing in base64.
        let text = self.text(place).replace(['\r', '\n'], "");
        if text.is_empty() {
            return (text, None);
        }
        // What stands around the block may be in any encoding.
        let pem = BASE64.decode(&text).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        if pem.is_none() {
            self.flaw(place, Flaw::NotBase64);
        }
        (text, pem)
    }

    fn private_key(&mut self, place: &'static str) -> (SecretString, Option<PrivateKey>) {
        let (text, pem) = self.pem(place);
        let key = pem.and_then(|pem| PrivateKey::from_pem(&pem).map_err(|flaw| self.flaw(place, flaw)).ok());
        (text.into(), key)
    }

    fn pair(&mut self, crt: &'static str, key: &'static str, now: Timestamp) -> KeyPair {
        let (text, pem) = self.pem(crt);
        let facts = pem.and_then(|pem| Facts::of(&pem).map_err(|flaw| self.flaw(crt, flaw)).ok());
        if let Some(facts) = &facts {
            if !facts.is_ca {
                self.flaw(crt, Flaw::NotAuthority);
            }
            if facts.not_after <= now {
                self.flaw(crt, Flaw::Expired { at: facts.not_after });
            }
        }
        let (secret, private) = self.private_key(key);
        if let (Some(facts), Some(private)) = (facts, private)
            && facts.public != private.public()
        {
            self.flaw(key, Flaw::KeyMismatch);
        }
        KeyPair { crt: text, key: secret }
    }

    fn encryption(&mut self) -> Encryption {
        match (self.value(PLACES[3]).is_some(), self.value(PLACES[4]).is_some()) {
            (false, true) => Encryption::AesCbc(self.key_of_32(PLACES[4])),
            (both, other) => {
                if both && other {
                    self.flaw(PLACES[3], Flaw::TwoEncryptions);
                } else if !both {
                    let flaw = match self.missing(PLACES[3]) {
                        Flaw::Missing => Flaw::NoEncryption,
                        misspelt => misspelt,
                    };
                    self.flaw(PLACES[3], flaw);
                    return Encryption::Secretbox(String::new().into());
                }
                Encryption::Secretbox(self.key_of_32(PLACES[3]))
            }
        }
    }

    fn check(mut self, now: Timestamp) -> Result<Secrets, SecretsError> {
        let secrets = Secrets {
            cluster_id: self.text("cluster.id").into(),
            cluster_secret: self.key_of_32("cluster.secret"),
            bootstrap_token: self.token("secrets.bootstraptoken"),
            encryption: self.encryption(),
            // Machines compare it and nothing else.
            trustd_token: self.text("trustdinfo.token").into(),
            etcd: self.pair("certs.etcd.crt", "certs.etcd.key", now),
            kubernetes: self.pair("certs.k8s.crt", "certs.k8s.key", now),
            aggregator: self.pair("certs.k8saggregator.crt", "certs.k8saggregator.key", now),
            service_account: self.private_key("certs.k8sserviceaccount.key").0,
            talos: self.pair("certs.os.crt", "certs.os.key", now),
        };
        if self.problems.is_empty() { Ok(secrets) } else { Err(SecretsError::Invalid(self.problems)) }
    }
}
