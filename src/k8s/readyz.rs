//! Is the API there? Asked often and without credentials.
//!
//! `/readyz` and `/version` are open to anonymous callers by the default bindings of Kubernetes
//! (`system:public-info-viewer`).

use std::time::Duration;

use super::client::{Client, K8sError};
use crate::net::Connector;
use crate::net::tls::Trust;
use crate::types::Version;

/// An answer that takes longer is no answer to anybody.
const PATIENCE: Duration = Duration::from_secs(2);

/// The API server behind an endpoint, by the cluster's CA.
#[derive(Clone, Debug)]
pub struct Readyz {
    client: Client,
}

impl Readyz {
    /// `endpoint` is a URL, `ca` the Kubernetes CA as PEM.
    pub fn new(connector: &Connector, endpoint: &str, ca: &str) -> Result<Self, K8sError> {
        let trust = Trust::authorities(ca.as_bytes())?;
        Ok(Self { client: Client::over(connector, endpoint.to_owned(), &trust, None)? })
    }

    /// Whether it answers that it is ready.
    pub async fn is_up(&self) -> bool {
        self.client.ready(PATIENCE).await.is_ok()
    }

    /// Its version.
    pub async fn version(&self) -> Result<Version, K8sError> {
        self.client.version().await
    }
}
