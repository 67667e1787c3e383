//! A bundle around the authorities of a Kubernetes that was made by other means: what kubeadm keeps in
//! `/etc/kubernetes/pki`.
//!
//! The four authorities and keys are taken over as they are, the rest is made new, as `talosctl gen secrets
//! --from-kubernetes-pki` does (siderolabs/talos generate/secrets/bundle.go). Must not know: folders.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

use super::draft::checked;
use super::{Secrets, SecretsError};
use crate::talos::config::Contract;

/// The files of the folder, with the places of the bundle that they fill.
pub const PKI_FILES: [(&str, &str); 7] = [
    ("etcd/ca.crt", "certs.etcd.crt"),
    ("etcd/ca.key", "certs.etcd.key"),
    ("ca.crt", "certs.k8s.crt"),
    ("ca.key", "certs.k8s.key"),
    ("front-proxy-ca.crt", "certs.k8saggregator.crt"),
    ("front-proxy-ca.key", "certs.k8saggregator.key"),
    ("sa.key", "certs.k8sserviceaccount.key"),
];

impl Secrets {
    /// A bundle with these PEM texts, in the order of [`PKI_FILES`], and with this bootstrap token, if there is one. What
    /// stands around a PEM block may be in any encoding, and is taken over as it is.
    ///
    /// # Errors
    /// Every problem of the texts at once.
    pub fn from_kubernetes_pki(
        texts: &[SecretSlice<u8>],
        bootstrap_token: Option<&SecretString>,
        contract: Contract,
        now: Timestamp,
    ) -> Result<Self, SecretsError> {
        let made = Self::generate(contract, now)?;
        let mut values: Vec<(&'static str, String)> =
            made.values().into_iter().map(|(place, _, value)| (place, value.to_owned())).collect();
        let given =
            PKI_FILES.iter().zip(texts).map(|((_, place), text)| (*place, STANDARD.encode(text.expose_secret())));
        let token = bootstrap_token.map(|token| ("secrets.bootstraptoken", token.expose_secret().to_owned()));
        for (place, text) in given.chain(token) {
            if let Some((_, value)) = values.iter_mut().find(|(name, _)| *name == place) {
                *value = text;
            }
        }
        checked(values, now)
    }
}
