//! The objects that Talos bootstraps a cluster with, brought up to what its machines render now.
//!
//! Purpose: kube-proxy, `CoreDNS`, the CNI and the roles change with the versions, and only a client changes them after the
//! first boot. Two ways: whole objects (`Put`), as before Talos 1.13, which never deletes; and server-side apply with an
//! inventory (`Apply`), which knows what belongs to it. Each object is tried dry first, so that one that is right keeps its
//! resourceVersion, and a second run does nothing.
//! Source: siderolabs/go-kubernetes v0.2.41, `kubernetes/manifests` and `kubernetes/ssa`.
//! Must not know: plans, Talos. Start reading at [`Syncer`].

mod differ;
pub mod inventory;
pub mod rollout;

use serde_json::{Value, json};

use super::apply::{Applier, Mode};
use super::client::{Client, K8sError};
use super::manifest::Manifest;

pub use inventory::{Entry, Inventory};
pub use rollout::{Standing, standing};

/// Who applies, in the eyes of the server: the name under which Talos' own controllers and client do.
const MANAGER: &str = "talos";

/// The annotation that says to which inventory an object belongs (sigs.k8s.io/cli-utils).
const OWNER: &str = "config.k8s.io/owning-inventory";

/// How objects are brought up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Whole.
    Put,
    /// By server-side apply, marked as the inventory's.
    Apply,
}

/// Why an object could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The API said no, or nothing.
    #[error(transparent)]
    Api(#[from] K8sError),
    /// The object belongs to somebody else.
    #[error("{object} belongs to the inventory '{inventory}'")]
    Owned {
        /// It.
        object: String,
        /// Whose it is.
        inventory: String,
    },
}

impl SyncError {
    /// Whether asking again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Api(K8sError::Status { status: 409, message, .. }) => !message.contains("immutable"),
            Self::Api(error) => error.is_transient(),
            Self::Owned { .. } => false,
        }
    }
}

/// What an object needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Same,
    /// It isn't there.
    Create,
    /// It is otherwise: a line for each value, without those of Secrets.
    Alter(Vec<String>),
}

/// Brings objects up, one by one.
#[derive(Debug)]
pub struct Syncer<'a> {
    applier: Applier<'a>,
    way: Way,
}

impl<'a> Syncer<'a> {
    /// Nothing is asked yet.
    pub fn new(client: &'a Client, way: Way) -> Self {
        Self { applier: Applier::of(client, MANAGER), way }
    }

    /// What the object needs; nothing is changed.
    pub async fn compare(&mut self, manifest: &Manifest) -> Result<Change, SyncError> {
        self.judged(manifest).await.map(|(change, _)| change)
    }

    /// Does what the object needs.
    pub async fn bring_up(&mut self, manifest: &Manifest) -> Result<Change, SyncError> {
        let (change, live) = self.judged(manifest).await?;
        if change == Change::Same {
            return Ok(change);
        }
        let wanted = self.wanted(manifest).await?;
        match (self.way, live) {
            (Way::Apply, _) => self.applier.apply_as(&wanted, Mode::Real).await?,
            (Way::Put, Some(live)) => self.applier.replace(&over(wanted, &live), Mode::Real).await?,
            (Way::Put, None) => self.applier.create(&wanted).await?,
        };
        Ok(change)
    }

    /// The inventory of somebody else that the object belongs to.
    pub async fn owner_of(&mut self, manifest: &Manifest) -> Result<Option<String>, K8sError> {
        let live = self.live(manifest).await?;
        Ok(live.as_ref().and_then(owner).filter(|inventory| *inventory != inventory::NAME).map(str::to_owned))
    }

    /// How an inventory names the object.
    pub async fn entry(&mut self, manifest: &Manifest) -> Result<Entry, K8sError> {
        Ok(Entry::of(&self.applier.placed(manifest).await?))
    }

    /// As it is now.
    pub async fn live(&mut self, manifest: &Manifest) -> Result<Option<Value>, K8sError> {
        match self.applier.get(manifest).await {
            // The kind comes with another object of the set.
            Err(error) if error.is_not_found() => Ok(None),
            other => other,
        }
    }

    async fn judged(&mut self, manifest: &Manifest) -> Result<(Change, Option<Value>), SyncError> {
        let Some(live) = self.live(manifest).await? else { return Ok((Change::Create, None)) };
        if self.way == Way::Apply
            && let Some(inventory) = owner(&live)
            && inventory != inventory::NAME
        {
            return Err(SyncError::Owned { object: manifest.to_string(), inventory: inventory.to_owned() });
        }
        let wanted = self.wanted(manifest).await?;
        let tried = match self.way {
            Way::Apply => self.applier.apply_as(&wanted, Mode::Dry).await?,
            Way::Put => self.applier.replace(&over(wanted, &live), Mode::Dry).await?,
        };
        let lines = differ::differences(&live, &tried);
        Ok((if lines.is_empty() { Change::Same } else { Change::Alter(lines) }, Some(live)))
    }

    async fn wanted(&mut self, manifest: &Manifest) -> Result<Manifest, K8sError> {
        let mut wanted = self.applier.placed(manifest).await?;
        if self.way == Way::Apply {
            let annotations = &mut wanted.object["metadata"]["annotations"];
            if !annotations.is_object() {
                *annotations = json!({});
            }
            annotations[OWNER] = json!(inventory::NAME);
        }
        Ok(wanted)
    }

    /// The inventory as it is; none where the cluster has none yet.
    pub async fn inventory(&mut self) -> Result<Option<Inventory>, K8sError> {
        let live = self.live(&inventory::empty()).await?;
        Ok(live.map(|object| Inventory::of(&object)))
    }

    /// Writes the inventory. By apply, so that entries that left it go and the object need not be there before.
    pub async fn write_inventory(&mut self, inventory: &Inventory) -> Result<(), K8sError> {
        let object = inventory.object();
        match self.applier.get(&object).await? {
            Some(live) => self.applier.replace(&over(object, &live), Mode::Real).await.map(drop),
            None => self.applier.create(&object).await.map(drop),
        }
    }

    /// Deletes an object of the inventory, its parts following in the background; whether it was there. One of another
    /// inventory is left alone.
    pub async fn prune(&mut self, entry: &Entry) -> Result<Pruned, K8sError> {
        let Some(manifest) = self.applier.manifest_of(entry).await? else { return Ok(Pruned::NotThere) };
        let Some(live) = self.live(&manifest).await? else { return Ok(Pruned::NotThere) };
        if let Some(inventory) = owner(&live).filter(|inventory| *inventory != inventory::NAME) {
            return Ok(Pruned::Owned { inventory: inventory.to_owned() });
        }
        self.applier.delete(&manifest).await?;
        Ok(Pruned::Now)
    }
}

/// What became of an object that left the manifests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// It was there.
    Now,
    /// It was not there.
    NotThere,
    /// It belongs to somebody else by now, and stays.
    Owned {
        /// To whom.
        inventory: String,
    },
}

fn owner(object: &Value) -> Option<&str> {
    object.get("metadata")?.get("annotations")?.get(OWNER)?.as_str()
}

/// The object as one that takes the place of the live one, and only of that.
fn over(mut wanted: Manifest, live: &Value) -> Manifest {
    wanted.object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
    wanted
}

/// Gives kube-proxy's `DaemonSet` an image, as a machine renders it once its configuration has it. Whether there was one.
pub fn set_proxy_image(objects: &mut [Manifest], image: &str) -> bool {
    let mut found = false;
    for object in objects.iter_mut().filter(|object| is_proxy(object)) {
        let containers = object.object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter(|container| container["name"] == "kube-proxy") {
            container["image"] = json!(image);
            found = true;
        }
    }
    found
}

/// The image of kube-proxy's `DaemonSet`; none where the manifests have none.
pub fn proxy_image(objects: &[Manifest]) -> Option<&str> {
    let proxy = objects.iter().find(|object| is_proxy(object))?;
    let containers = proxy.object.pointer("/spec/template/spec/containers")?.as_array()?;
    containers.iter().find(|container| container["name"] == "kube-proxy")?["image"].as_str()
}

fn is_proxy(object: &Manifest) -> bool {
    object.kind == "DaemonSet" && object.name == "kube-proxy" && object.namespace.as_deref() == Some("kube-system")
}

/// The order in which an apply goes: what others stand on first, and each group is waited for before the next.
pub fn stage(manifest: &Manifest) -> u8 {
    match manifest.kind.as_str() {
        "CustomResourceDefinition" | "Namespace" | "ClusterRole" => 0,
        kind if kind.ends_with("Class") => 1,
        "ConfigMap" | "Secret" => 2,
        _ => 3,
    }
}
