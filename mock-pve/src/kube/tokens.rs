//! Tokens of service accounts: JWTs that the cluster's own key signs and checks (RFC 7519).

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use super::rbac::User;
use crate::etcd::Client;
use crate::world::cluster::{self, objects, pods};

/// The key behind the tokens of a cluster.
pub(super) struct Tokens {
    key: Option<Key>,
    issuer: String,
}

enum Key {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Tokens {
    /// By the key in a configuration (`cluster.serviceAccount.key`, PEM in base64).
    pub(super) fn new(key: &str, issuer: &str) -> Self {
        let pem = base64::engine::general_purpose::STANDARD.decode(key.trim()).unwrap_or_default();
        let key = PrivateKeyDer::from_pem_slice(&pem).ok().and_then(|der| match &der {
            PrivateKeyDer::Pkcs1(der) => {
                RsaKeyPair::from_der(der.secret_pkcs1_der()).ok().map(|key| Key::Rsa(Box::new(key)))
            }
            PrivateKeyDer::Sec1(der) => {
                let key = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_sec1_der());
                key.ok().map(|key| Key::Ec(Box::new(key)))
            }
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                RsaKeyPair::from_pkcs8(der).ok().map(|key| Key::Rsa(Box::new(key))).or_else(|| {
                    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
                        .ok()
                        .map(|key| Key::Ec(Box::new(key)))
                })
            }
            _ => None,
        });
        Self { key, issuer: issuer.to_owned() }
    }

    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// A token for an account, until that second.
    pub(super) fn issue(&self, namespace: &str, name: &str, uid: &str, until: i64) -> Option<String> {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({ "iss": self.issuer, "aud": [self.issuer], "iat": now, "nbf": now, "exp": until,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": name, "uid": uid } } });
        let random = SystemRandom::new();
        let sign =
            |algorithm: &str| format!("{}.{}", encode(&json!({ "alg": algorithm, "typ": "JWT" })), encode(&claims));
        let (text, signature) = match self.key.as_ref()? {
            Key::Rsa(key) => {
                let text = sign("RS256");
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).ok()?;
                (text, signature)
            }
            Key::Ec(key) => {
                let text = sign("ES256");
                let signature = key.sign(&random, text.as_bytes()).ok()?.as_ref().to_vec();
                (text, signature)
            }
        };
        Some(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Whose token it is; `None` when it isn't one, or isn't valid any more.
    pub(super) fn user(&self, client: &Client, token: &str) -> Option<User> {
        let (text, signature) = token.trim().rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        match self.key.as_ref()? {
            Key::Rsa(key) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref())
                .verify(text.as_bytes(), &signature)
                .ok()?,
            Key::Ec(key) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key.public_key().as_ref())
                .verify(text.as_bytes(), &signature)
                .ok()?,
        }
        let (_, claims) = text.split_once('.')?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        if claims["exp"].as_i64()? <= jiff::Timestamp::now().as_second() || claims["iss"] != *self.issuer {
            return None;
        }
        let own = &claims["kubernetes.io"];
        let (namespace, name) = (own["namespace"].as_str()?, own.pointer("/serviceaccount/name")?.as_str()?);
        let uid = own.pointer("/serviceaccount/uid")?.as_str()?;
        let account = cluster::get(client, &objects::key("serviceaccounts", Some(namespace), name))?;
        (pods::text(&account.value, "/metadata/uid") == uid).then(|| User::service(namespace, name, uid))
    }
}
