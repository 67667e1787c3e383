//! The part of a kubeconfig that opens the cluster: server, CA, client certificate.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

/// Why a kubeconfig can't be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// It isn't one.
    #[error("it is not a kubeconfig")]
    Syntax(#[source] Box<serde_saphyr::Error>),
    /// A part is missing.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// A part isn't base64.
    #[error("its {0} is not base64")]
    Encoding(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    clusters: Vec<Named<ClusterEntry>>,
    users: Vec<Named<UserEntry>>,
    contexts: Vec<Named<ContextEntry>>,
}

/// `- name: …` with the content under a key of its own kind.
#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(flatten)]
    content: T,
}

#[derive(Deserialize)]
struct ClusterEntry {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct UserEntry {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    #[serde(deserialize_with = "secret")]
    client_key_data: SecretString,
}

fn secret<'de, D: serde::Deserializer<'de>>(from: D) -> Result<SecretString, D::Error> {
    String::deserialize(from).map(SecretString::from)
}

#[derive(Deserialize)]
struct ContextEntry {
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

/// What opens a cluster.
#[derive(Debug)]
pub struct Credentials {
    /// `https://192.168.178.41:6443`.
    pub server: String,
    /// The CA, PEM.
    pub ca: Vec<u8>,
    /// The client's certificate, PEM.
    pub certificate: Vec<u8>,
    /// Its key, PEM.
    pub key: SecretString,
}

impl Credentials {
    /// Those of the current context, or of the only one.
    pub fn parse(text: &SecretString) -> Result<Self, KubeconfigError> {
        let file: File =
            serde_saphyr::from_str(text.expose_secret()).map_err(|error| KubeconfigError::Syntax(Box::new(error)))?;
        let current = file.contexts.iter().find(|context| context.name == file.current_context);
        let context = current.or(file.contexts.first()).ok_or(KubeconfigError::Missing("context"))?;
        let Context { cluster, user } = &context.content.context;
        let cluster =
            file.clusters.iter().find(|entry| entry.name == *cluster).ok_or(KubeconfigError::Missing("cluster"))?;
        let user = file.users.iter().find(|entry| entry.name == *user).ok_or(KubeconfigError::Missing("user"))?;
        let decode =
            |text: &str, what: &'static str| STANDARD.decode(text.trim()).map_err(|_| KubeconfigError::Encoding(what));
        let key = decode(user.content.user.client_key_data.expose_secret(), "client key")?;
        Ok(Self {
            server: cluster.content.cluster.server.clone(),
            ca: decode(&cluster.content.cluster.certificate_authority_data, "certificate authority")?,
            certificate: decode(&user.content.user.client_certificate_data, "client certificate")?,
            key: String::from_utf8(key).map_err(|_| KubeconfigError::Encoding("client key"))?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_current_context_counts_and_a_missing_part_is_named() {
        let text = "current-context: b\nclusters:\n- name: c\n  cluster: {server: 'https://x:6443', certificate-authority-data: Y2E=}\n\
                    users:\n- name: u\n  user: {client-certificate-data: Y3J0, client-key-data: a2V5}\n\
                    contexts:\n- {name: a, context: {cluster: gone, user: u}}\n- {name: b, context: {cluster: c, user: u}}\n";
        let found = Credentials::parse(&text.into()).unwrap();
        assert_eq!(
            (found.server.as_str(), found.ca.as_slice(), found.key.expose_secret()),
            ("https://x:6443", &b"ca"[..], "key")
        );
        let other = text.replace("current-context: b", "current-context: a");
        assert!(matches!(Credentials::parse(&other.into()), Err(KubeconfigError::Missing("cluster"))));
        assert!(!format!("{found:?}").contains("key\""), "the key is never shown");
    }
}
