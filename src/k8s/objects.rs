//! Whose data these are and how far they go, lists in pages, and the end of stale Node objects.
//!
//! The UID of `kube-system` is made once in a cluster's life and comes back with its data: it tells a restored cluster
//! from a new one. A list's `resourceVersion` is etcd's revision at that moment (Kubernetes API concepts, "Resource
//! versions").

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::IpAddr;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::client::{Call, Client, K8sError, PATIENCE};

/// How many objects a page of a list holds.
const PAGE: usize = 500;

/// What became of an object that was to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It was there.
    Now,
    /// It was not there.
    NotThere,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ListMetadata {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMetadata,
    /// Go writes a list without elements as null at times.
    #[serde(default = "Option::default")]
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    uid: String,
}

#[derive(Deserialize)]
struct Lease {
    metadata: Metadata,
    #[serde(default)]
    spec: LeaseSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LeaseSpec {
    renew_time: Option<String>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(default)]
    spec: ServiceSpec,
    #[serde(default)]
    status: ServiceStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    external_ips: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceStatus {
    load_balancer: LoadBalancer,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    ingress: Vec<Ingress>,
}

#[derive(Deserialize)]
struct Ingress {
    ip: Option<String>,
}

impl Client {
    /// All objects of a kind, page by page.
    pub(super) async fn list<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<Vec<T>, K8sError> {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let joint = if path.contains('?') { '&' } else { '?' };
            let mut page = format!("{path}{joint}limit={PAGE}");
            if !next.is_empty() {
                let _ = write!(page, "&continue={}", escaped(&next));
            }
            let list: List<T> = self.read(&page).await?;
            all.extend(list.items.into_iter().flatten());
            next = list.metadata.next;
            if next.is_empty() {
                return Ok(all);
            }
        }
    }

    /// All objects of a kind; none where the server doesn't serve the kind.
    pub(super) async fn list_served<T: for<'de> Deserialize<'de>>(&self, path: &str) -> Result<Vec<T>, K8sError> {
        match self.list(path).await {
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The UID of a namespace; none where there is no such namespace.
    pub async fn namespace_uid(&self, name: &str) -> Result<Option<String>, K8sError> {
        let path = format!("/api/v1/namespaces/{}", escaped(name));
        match self.read::<Object>(&path).await {
            Ok(object) if object.metadata.uid.is_empty() => Err(K8sError::Lacks { path, part: "metadata.uid" }),
            Ok(object) => Ok(Some(object.metadata.uid)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// etcd's revision, as a list shows it right now: a list without `resourceVersion` is read from etcd itself.
    pub async fn revision(&self) -> Result<i64, K8sError> {
        let path = "/api/v1/namespaces?limit=1";
        let list: List<Object> = self.read(path).await?;
        let lacks = || K8sError::Lacks { path: path.to_owned(), part: "numeric metadata.resourceVersion" };
        list.metadata.resource_version.parse().map_err(|_| lacks())
    }

    /// When each node's kubelet last renewed its lease, by the node's name, as the API writes it.
    pub async fn leases(&self) -> Result<BTreeMap<String, String>, K8sError> {
        let leases: Vec<Lease> = self.list("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases").await?;
        let renewed = leases.into_iter().map(|lease| (lease.metadata.name, lease.spec.renew_time.unwrap_or_default()));
        Ok(renewed.collect())
    }

    /// Addresses that lead into the cluster: of its services, given by load balancers too.
    pub async fn service_addresses(&self) -> Result<BTreeSet<IpAddr>, K8sError> {
        let services: Vec<Service> = self.list("/api/v1/services").await?;
        let texts = services.into_iter().flat_map(|service| {
            let balanced = service.status.load_balancer.ingress.into_iter().filter_map(|ingress| ingress.ip);
            service.spec.external_ips.into_iter().chain(service.spec.cluster_ips).chain(balanced).collect::<Vec<_>>()
        });
        Ok(texts.filter_map(|text| text.parse().ok()).collect())
    }

    /// How many objects there are of `resource.version.group`; none where the server doesn't serve it.
    pub async fn count(&self, kind: &str) -> Result<Option<u64>, K8sError> {
        let mut parts = kind.splitn(3, '.');
        let (Some(plural), Some(version), Some(group)) = (parts.next(), parts.next(), parts.next()) else {
            return Ok(None);
        };
        match self.list::<Object>(&format!("/apis/{group}/{version}/{plural}")).await {
            Ok(objects) => Ok(Some(objects.len() as u64)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a Node object. The node's machine is not touched; its kubelet, if it runs, registers it again.
    pub async fn delete_node(&self, name: &str) -> Result<Deleted, K8sError> {
        let path = format!("/api/v1/nodes/{}", escaped(name));
        let call = Call { method: Method::DELETE, path: &path, body: None, patience: PATIENCE };
        match self.call(call).await {
            Ok(_) => Ok(Deleted::Now),
            Err(error) if error.is_not_found() => Ok(Deleted::NotThere),
            Err(error) => Err(error),
        }
    }
}

/// As a part of a path or query.
pub(super) fn escaped(text: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_shows_all_its_addresses() {
        let service: Service = serde_json::from_str(
            r#"{"metadata":{"name":"git"},"spec":{"clusterIPs":["10.96.0.9"],"externalIPs":["10.0.0.9"]},
               "status":{"loadBalancer":{"ingress":[{"ip":"10.0.0.50"},{"hostname":"x"}]}}}"#,
        )
        .unwrap();
        assert_eq!(
            (service.spec.cluster_ips, service.spec.external_ips),
            (vec!["10.96.0.9".to_owned()], vec!["10.0.0.9".to_owned()])
        );
        assert_eq!(service.status.load_balancer.ingress.len(), 2);
    }

    #[test]
    fn a_list_shows_revision_and_the_next_page() {
        let text = r#"{"kind":"NodeList","metadata":{"resourceVersion":"4711","continue":"a+b"},"items":null}"#;
        assert!(serde_json::from_str::<List<Object>>(text).unwrap().items.is_none());
        let text = r#"{"metadata":{"resourceVersion":"4711","continue":"a+b"},"items":[{"metadata":{"uid":"u"}}]}"#;
        let list: List<Object> = serde_json::from_str(text).unwrap();
        assert_eq!((list.metadata.resource_version.as_str(), list.metadata.next.as_str()), ("4711", "a+b"));
        assert_eq!((list.items.unwrap()[0].metadata.uid.as_str(), escaped("a+b/c").as_str()), ("u", "a%2Bb%2Fc"));
    }
}
