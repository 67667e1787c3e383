//! Writes `secrets.yaml` as the real tool does: its keys, their order, 4 spaces. Must not know: how bundles are made.

use secrecy::{ExposeSecret as _, SecretString};

use super::{Encryption, KeyPair, Secrets};
use crate::talos::config::yaml::{Map, Value, document};

impl Secrets {
    /// The text of `secrets.yaml`; every value is the one that was read or made.
    pub fn to_yaml(&self) -> SecretString {
        let (kind, secret) = match &self.encryption {
            Encryption::Secretbox(secret) => ("secretboxencryptionsecret", secret),
            Encryption::AesCbc(secret) => ("aescbcencryptionsecret", secret),
        };
        let bundle = Map::new()
            .with(
                "cluster",
                Map::new()
                    .with("id", self.cluster_id.expose_secret())
                    .with("secret", self.cluster_secret.expose_secret()),
            )
            .with(
                "secrets",
                Map::new()
                    .with("bootstraptoken", self.bootstrap_token.expose_secret())
                    .with(kind, secret.expose_secret()),
            )
            .with("trustdinfo", Map::new().with("token", self.trustd_token.expose_secret()))
            .with(
                "certs",
                Map::new()
                    .with("etcd", pair(&self.etcd))
                    .with("k8s", pair(&self.kubernetes))
                    .with("k8saggregator", pair(&self.aggregator))
                    .with("k8sserviceaccount", Map::new().with("key", self.service_account.expose_secret()))
                    .with("os", pair(&self.talos)),
            );
        document(&Value::Map(bundle)).into()
    }
}

fn pair(pair: &KeyPair) -> Map {
    Map::new().with("crt", pair.certificate()).with("key", pair.key().expose_secret())
}
