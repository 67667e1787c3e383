//! Server-side apply of any object: its path is looked up in the API's own list of kinds.
//!
//! Applying twice changes nothing the second time, so a repeated step needs no memory. Where a server doesn't know apply,
//! an object that isn't there is created and one that is there gets a merge patch.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, Client, K8sError, PATIENCE};
use super::manifest::Manifest;
use super::objects::escaped;

/// The field manager under which recast applies.
const MANAGER: &str = "recast";

/// Kubernetes' media types of patches.
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";

/// Where objects of a kind are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resource {
    plural: String,
    namespaced: bool,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

/// Applies objects, remembering which kinds the server has.
#[derive(Debug)]
pub struct Applier<'a> {
    client: &'a Client,
    known: BTreeMap<(String, String), Resource>,
}

impl<'a> Applier<'a> {
    /// Nothing is asked yet.
    pub fn new(client: &'a Client) -> Self {
        Self { client, known: BTreeMap::new() }
    }

    /// Makes the object be as the manifest says. A kind that the server doesn't know (yet: its definition may have just
    /// been applied) is [`K8sError::is_not_found`].
    pub async fn apply(&mut self, manifest: &Manifest) -> Result<(), K8sError> {
        let resource = self.resource(manifest).await?;
        let all = collection(manifest, &resource);
        let one = format!("{all}/{}", escaped(&manifest.name));
        let content = manifest.object.to_string().into_bytes();
        let patch = format!("{one}?fieldManager={MANAGER}&force=true");
        match self.send(Method::PATCH, &patch, APPLY, content.clone()).await {
            // A server that knows apply makes what isn't there; this one doesn't, or what it would be made in isn't there.
            Err(K8sError::Status { status: 404 | 405 | 415, .. }) => {}
            other => return other,
        }
        match self.send(Method::POST, &all, "application/json", content.clone()).await {
            Err(K8sError::Status { status: 409, .. }) => self.send(Method::PATCH, &one, MERGE, content).await,
            other => other,
        }
    }

    async fn send(&self, method: Method, path: &str, kind: &'static str, content: Vec<u8>) -> Result<(), K8sError> {
        self.client.call(Call { method, path, body: Some((kind, content)), patience: PATIENCE }).await.map(drop)
    }

    async fn resource(&mut self, manifest: &Manifest) -> Result<Resource, K8sError> {
        let key = (manifest.api_version.clone(), manifest.kind.clone());
        if let Some(known) = self.known.get(&key) {
            return Ok(known.clone());
        }
        let path = group(&manifest.api_version);
        let listed: Resources = self.client.read(&path).await?;
        // Subresources are listed too, with a slash in their name.
        let found = listed.resources.into_iter().find(|listed| listed.kind == key.1 && !listed.name.contains('/'));
        let found = found.ok_or_else(|| K8sError::Status {
            path: path.clone(),
            status: 404,
            message: format!("the server has no kind {} in {}", manifest.kind, manifest.api_version),
        })?;
        let resource = Resource { plural: found.name, namespaced: found.namespaced };
        self.known.insert(key, resource.clone());
        Ok(resource)
    }
}

/// Where a group's kinds are listed.
fn group(api_version: &str) -> String {
    if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") }
}

/// Where the objects of a manifest's kind are, in its namespace.
fn collection(manifest: &Manifest, resource: &Resource) -> String {
    let group = group(&manifest.api_version);
    if !resource.namespaced {
        return format!("{group}/{}", resource.plural);
    }
    let namespace = manifest.namespace.as_deref().unwrap_or("default");
    format!("{group}/namespaces/{}/{}", escaped(namespace), resource.plural)
}

impl Client {
    /// Whether an object is there.
    pub async fn exists(&self, path: &str) -> Result<bool, K8sError> {
        match self.read::<Value>(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::parse;
    use super::*;

    #[test]
    fn paths_follow_group_and_scope() {
        let one = |text: &str| parse(text).unwrap().remove(0);
        let deployment = one("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}");
        let namespaced = Resource { plural: "deployments".to_owned(), namespaced: true };
        assert_eq!(collection(&deployment, &namespaced), "/apis/apps/v1/namespaces/default/deployments");
        let namespace = one("{apiVersion: v1, kind: Namespace, metadata: {name: a}}");
        let everywhere = Resource { plural: "namespaces".to_owned(), namespaced: false };
        assert_eq!(collection(&namespace, &everywhere), "/api/v1/namespaces");
    }
}
