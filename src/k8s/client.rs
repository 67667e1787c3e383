//! An administrator's view of a cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Uri};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::kubeconfig::{Credentials, KubeconfigError};
use crate::net::Connector;
use crate::net::http::{Body, Client as Http, HttpError, Request};
use crate::net::tls::{self, Identity, TlsError, Trust, Versions};
use crate::types::Version;

/// Largest answer: 5000 nodes of 10 KiB.
const LIMIT: usize = 64 << 20;

/// How long an answer may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Why the API gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum K8sError {
    /// The credentials can't be read.
    #[error("the kubeconfig can't be used")]
    Kubeconfig(#[from] KubeconfigError),
    /// The credentials can't be used.
    #[error("the kubeconfig's certificates can't be used")]
    Tls(#[from] TlsError),
    /// The server's address is wrong.
    #[error("'{server}' is not the URL of an API server")]
    Server {
        /// As it was given.
        server: String,
    },
    /// No answer.
    #[error("the Kubernetes API does not answer")]
    Http(#[from] HttpError),
    /// Another answer than success.
    #[error("the Kubernetes API answered {path} with {status}: {message}")]
    Status {
        /// What was asked.
        path: String,
        /// The HTTP status.
        status: u16,
        /// The message of its Status object, or the beginning of the body.
        message: String,
    },
    /// The answer is sound and lacks something.
    #[error("the Kubernetes API's answer to {path} has no {part}")]
    Lacks {
        /// What was asked.
        path: String,
        /// What is missing.
        part: &'static str,
    },
    /// An answer that makes no sense.
    #[error("the Kubernetes API's answer to {path} can't be understood")]
    Answer {
        /// What was asked.
        path: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl K8sError {
    /// The object, or its kind, isn't there: the API said so.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Status { status: 404, .. })
    }

    /// Whether asking again may help: nobody answered, or the server said that it is busy or not ready.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Http(error) => !matches!(error, HttpError::Pin { .. } | HttpError::Untrusted { .. }),
            // Too many requests, internal errors (etcd has no leader yet), not ready.
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            _ => false,
        }
    }

    /// Whether the server may have acted although no answer came.
    pub fn may_have_arrived(&self) -> bool {
        match self {
            Self::Http(error) => error.may_have_arrived(),
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}

/// A request with a body, or without.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    /// Media type and content.
    pub(super) body: Option<(&'static str, Vec<u8>)>,
    pub(super) patience: Duration,
}

/// The API server of a cluster.
#[derive(Clone)]
pub struct Client {
    http: Http,
    server: String,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A Kubernetes node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether its Ready condition is True; the condition's message where it is not.
    pub ready: Result<(), String>,
    /// The id of the boot that its kubelet reported.
    pub boot_id: String,
    /// The version of its kubelet, `v1.35.0`.
    pub kubelet: String,
    /// Cordoned.
    pub unschedulable: bool,
}

impl Client {
    /// By an admin kubeconfig.
    pub fn new(connector: &Connector, kubeconfig: &SecretString) -> Result<Self, K8sError> {
        let credentials = Credentials::parse(kubeconfig)?;
        let identity = Identity::from_pem(&credentials.certificate, credentials.key.expose_secret().as_bytes())?;
        Self::over(connector, credentials.server, &Trust::authorities(&credentials.ca)?, Some(identity))
    }

    pub(super) fn over(
        connector: &Connector,
        server: String,
        trust: &Trust,
        identity: Option<Identity>,
    ) -> Result<Self, K8sError> {
        let config = tls::client_config(trust, identity)?;
        Ok(Self { http: Http::new(connector, config, Versions::Both), server })
    }

    /// Sends a request; any answer but success is an error.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Bytes, K8sError> {
        let Call { method, path, body, patience } = call;
        let url = format!("{}{path}", self.server.trim_end_matches('/'));
        let uri: Uri = url.parse().map_err(|_| K8sError::Server { server: self.server.clone() })?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let body = body.map_or(Body::Empty, |(kind, content)| {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            Body::Exact(content.into())
        });
        let answer = self.http.send(Request { headers, body, patience, ..Request::new(method, uri) }).await?;
        let status = answer.status;
        let body = answer.bytes(LIMIT).await?;
        if status.is_success() {
            return Ok(body);
        }
        Err(K8sError::Status { path: path.to_owned(), status: status.as_u16(), message: message(&body) })
    }

    pub(super) async fn get(&self, path: &str, patience: Duration) -> Result<Bytes, K8sError> {
        self.call(Call { method: Method::GET, path, body: None, patience }).await
    }

    /// An answer as what it is known to be.
    pub(super) async fn read<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<T, K8sError> {
        let body = self.get(path, PATIENCE).await?;
        serde_json::from_slice(&body).map_err(|source| K8sError::Answer { path: path.to_owned(), source })
    }

    /// Whether the API says that it is ready.
    pub(super) async fn ready(&self, patience: Duration) -> Result<(), K8sError> {
        self.get("/readyz", patience).await.map(drop)
    }

    /// The API server's version.
    pub async fn version(&self) -> Result<Version, K8sError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Info {
            git_version: Version,
        }
        Ok(self.read::<Info>("/version").await?.git_version)
    }

    /// All nodes.
    pub async fn nodes(&self) -> Result<Vec<Node>, K8sError> {
        let nodes: Vec<NodeObject> = self.list("/api/v1/nodes").await?;
        Ok(nodes.into_iter().map(Node::from).collect())
    }
}

/// The message of a Status object, or the beginning of what came instead. Which `PodDisruptionBudget` keeps a pod is only
/// among the causes (Kubernetes, pkg/registry/core/pod/storage/eviction.go).
fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
        #[serde(default)]
        details: Option<Details>,
    }
    #[derive(Deserialize)]
    struct Details {
        #[serde(default)]
        causes: Vec<Cause>,
    }
    #[derive(Deserialize)]
    struct Cause {
        #[serde(default)]
        message: String,
    }
    match serde_json::from_slice::<Status>(body) {
        Ok(Status { message, details }) => {
            let causes = details.into_iter().flat_map(|details| details.causes).map(|cause| cause.message);
            // A field's cause is spelled out in the message already.
            let unsaid: Vec<String> =
                causes.filter(|cause| !cause.is_empty() && !message.contains(cause.as_str())).collect();
            if unsaid.is_empty() {
                message
            } else {
                format!("{} ({})", message.trim_end_matches('.'), unsaid.join("; "))
            }
        }
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(200)]).trim().to_owned(),
    }
}

#[derive(Deserialize)]
struct NodeObject {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
struct Spec {
    #[serde(default)]
    unschedulable: bool,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeStatus {
    conditions: Vec<BTreeMap<String, serde_json::Value>>,
    node_info: NodeInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    #[serde(rename = "bootID")]
    boot_id: String,
    kubelet_version: String,
}

impl From<NodeObject> for Node {
    fn from(object: NodeObject) -> Self {
        let text = |condition: &BTreeMap<String, serde_json::Value>, key: &str| {
            condition.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        let ready = object.status.conditions.iter().find(|condition| text(condition, "type") == "Ready");
        let ready = match ready {
            Some(condition) if text(condition, "status") == "True" => Ok(()),
            Some(condition) => Err(text(condition, "message")),
            None => Err("it has not reported yet".to_owned()),
        };
        Self {
            name: object.metadata.name,
            ready,
            boot_id: object.status.node_info.boot_id,
            kubelet: object.status.node_info.kubelet_version,
            unschedulable: object.spec.unschedulable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_by_its_condition_only() {
        let node = |conditions: serde_json::Value| {
            let object = serde_json::json!({
                "metadata": {"name": "a", "uid": "x"}, "spec": {},
                "status": {"conditions": conditions, "nodeInfo": {"bootID": "b", "kubeletVersion": "v1.35.0"}},
            });
            Node::from(serde_json::from_value::<NodeObject>(object).unwrap())
        };
        let ready =
            serde_json::json!([{"type": "MemoryPressure", "status": "True"}, {"type": "Ready", "status": "True"}]);
        assert_eq!(node(ready).ready, Ok(()));
        let not = serde_json::json!([{"type": "Ready", "status": "False", "message": "container runtime is down"}]);
        assert_eq!(node(not).ready, Err("container runtime is down".to_owned()));
        assert!(node(serde_json::json!([])).ready.is_err());
    }

    #[test]
    fn a_refusal_shows_the_servers_own_words() {
        let status = br#"{"kind":"Status","message":"nodes is forbidden","code":403}"#;
        assert_eq!(message(status), "nodes is forbidden");
        let eviction = br#"{"kind":"Status","message":"Cannot evict pod.","code":429,"details":{"causes":[
            {"reason":"DisruptionBudget","message":"The disruption budget web needs 2 healthy pods and has 2 currently"}]}}"#;
        assert_eq!(
            message(eviction),
            "Cannot evict pod (The disruption budget web needs 2 healthy pods and has 2 currently)"
        );
        assert_eq!(message(b"etcd is down\n"), "etcd is down");
    }
}
