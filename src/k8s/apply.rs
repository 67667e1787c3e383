//! Server-side apply of any object: its path is looked up in the API's own list of kinds.
//!
//! Applying twice changes nothing the second time, so a repeated step needs no memory. Where a server doesn't know apply,
//! an object that isn't there is created and one that is there gets a merge patch.

use std::collections::BTreeMap;

use http::Method;
use serde::Deserialize;
use serde_json::Value;

use super::bootstrap::Entry;
use super::client::{Call, Client, K8sError, PATIENCE};
use super::manifest::Manifest;
use super::objects::escaped;

/// The field manager under which recast applies.
const MANAGER: &str = "recast";

/// Kubernetes' media types of patches.
const JSON: &str = "application/json";
const APPLY: &str = "application/apply-patch+yaml";
pub(super) const MERGE: &str = "application/merge-patch+json";

/// Whether a write is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It is.
    Real,
    /// The server only says what would become of the object.
    Dry,
}

impl Mode {
    fn query(self, joint: char) -> String {
        match self {
            Self::Real => String::new(),
            Self::Dry => format!("{joint}dryRun=All"),
        }
    }
}

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
    manager: &'static str,
    known: BTreeMap<(String, String), Resource>,
}

impl<'a> Applier<'a> {
    /// Nothing is asked yet.
    pub fn new(client: &'a Client) -> Self {
        Self::of(client, MANAGER)
    }

    /// As another field manager.
    pub(super) fn of(client: &'a Client, manager: &'static str) -> Self {
        Self { client, manager, known: BTreeMap::new() }
    }

    /// Makes the object be as the manifest says. A kind that the server doesn't know (yet: its definition may have just
    /// been applied) is [`K8sError::is_not_found`].
    pub async fn apply(&mut self, manifest: &Manifest) -> Result<(), K8sError> {
        let resource = self.resource(manifest).await?;
        let all = collection(manifest, &resource);
        let one = format!("{all}/{}", escaped(&manifest.name));
        let content = manifest.object.to_string().into_bytes();
        let patch = format!("{one}?fieldManager={}&force=true", self.manager);
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

    /// The object with the namespace that it really has: `default` where its kind wants one and it names none, none where
    /// its kind has none. As Talos' own controller does with manifests of users.
    pub(super) async fn placed(&mut self, manifest: &Manifest) -> Result<Manifest, K8sError> {
        let resource = self.resource(manifest).await?;
        let mut placed = manifest.clone();
        placed.namespace =
            resource.namespaced.then(|| manifest.namespace.clone().unwrap_or_else(|| "default".to_owned()));
        if let Some(metadata) = placed.object.get_mut("metadata").and_then(Value::as_object_mut) {
            match &placed.namespace {
                Some(namespace) => metadata.insert("namespace".to_owned(), Value::String(namespace.clone())),
                None => metadata.remove("namespace"),
            };
        }
        Ok(placed)
    }

    /// The object as it is; none when it isn't there. An unknown kind is [`K8sError::is_not_found`].
    pub(super) async fn get(&mut self, manifest: &Manifest) -> Result<Option<Value>, K8sError> {
        let resource = self.resource(manifest).await?;
        let one = format!("{}/{}", collection(manifest, &resource), escaped(&manifest.name));
        match self.client.read::<Value>(&one).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Server-side apply and nothing else; the object as it is, or would be.
    pub(super) async fn apply_as(&mut self, manifest: &Manifest, mode: Mode) -> Result<Value, K8sError> {
        let resource = self.resource(manifest).await?;
        let one = format!("{}/{}", collection(manifest, &resource), escaped(&manifest.name));
        let path = format!("{one}?fieldManager={}&force=true{}", self.manager, mode.query('&'));
        self.answer(Method::PATCH, &path, APPLY, manifest).await
    }

    /// Puts the whole object in the place of the one with its resourceVersion; the object as it is, or would be.
    pub(super) async fn replace(&mut self, manifest: &Manifest, mode: Mode) -> Result<Value, K8sError> {
        let resource = self.resource(manifest).await?;
        let one = format!("{}/{}", collection(manifest, &resource), escaped(&manifest.name));
        self.answer(Method::PUT, &format!("{one}{}", mode.query('?')), JSON, manifest).await
    }

    /// Makes the object, which must not be there.
    pub(super) async fn create(&mut self, manifest: &Manifest) -> Result<Value, K8sError> {
        let resource = self.resource(manifest).await?;
        self.answer(Method::POST, &collection(manifest, &resource), JSON, manifest).await
    }

    /// Deletes the object; what belongs to it follows in the background.
    pub async fn delete(&mut self, manifest: &Manifest) -> Result<(), K8sError> {
        let resource = self.resource(manifest).await?;
        let one = format!("{}/{}", collection(manifest, &resource), escaped(&manifest.name));
        let options = br#"{"apiVersion":"v1","kind":"DeleteOptions","propagationPolicy":"Background"}"#.to_vec();
        match self.send(Method::DELETE, &one, JSON, options).await {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// An object of an inventory, which names no version: in the one that the server prefers. None where the server has
    /// no such kind.
    pub(super) async fn manifest_of(&mut self, entry: &Entry) -> Result<Option<Manifest>, K8sError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Group {
            preferred_version: Preferred,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Preferred {
            group_version: String,
        }
        let api_version = if entry.group.is_empty() {
            "v1".to_owned()
        } else {
            match self.client.read::<Group>(&format!("/apis/{}", entry.group)).await {
                Ok(group) => group.preferred_version.group_version,
                Err(error) if error.is_not_found() => return Ok(None),
                Err(error) => return Err(error),
            }
        };
        Ok(Some(Manifest {
            api_version,
            kind: entry.kind.clone(),
            name: entry.name.clone(),
            namespace: Some(entry.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            object: Value::Null,
        }))
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        kind: &'static str,
        manifest: &Manifest,
    ) -> Result<Value, K8sError> {
        let body = Some((kind, manifest.object.to_string().into_bytes()));
        let answer = self.client.call(Call { method, path, body, patience: PATIENCE }).await?;
        serde_json::from_slice(&answer).map_err(|source| K8sError::Answer { path: path.to_owned(), source })
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
