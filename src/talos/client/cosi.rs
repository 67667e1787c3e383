//! The resources of a machine (COSI): what it runs, has and is.
//!
//! Purpose: get and list by type, decode the YAML form. Talos fills a protobuf form too, but its YAML keys are stable over
//! versions while some protobuf fields changed their type (1.13); machine configurations are the other way round. Must not
//! know: which resources matter when.

use std::fmt;

use prost::Message as _;
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use serde::de::DeserializeOwned;

use super::TalosError;
use super::link::Link;
use crate::talos::proto::cosi::resource::{self as proto, GetRequest, ListRequest};

/// A type of resources with its namespace: a machine knows no default for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// `runtime`, `network` …
    pub namespace: &'static str,
    /// `MachineStatuses.runtime.talos.dev` …
    pub name: &'static str,
}

impl Kind {
    const fn new(namespace: &'static str, name: &'static str) -> Self {
        Self { namespace, name }
    }

    /// `machine`: stage and readiness.
    pub const MACHINE_STATUS: Self = Self::new("runtime", "MachineStatuses.runtime.talos.dev");
    /// One per extension; an Image Factory schematic shows up as one.
    pub const EXTENSION_STATUS: Self = Self::new("runtime", "ExtensionStatuses.runtime.talos.dev");
    /// `version`, since 1.10; readable in maintenance.
    pub const VERSION: Self = Self::new("runtime", "Versions.runtime.talos.dev");
    /// `machine-type`.
    pub const MACHINE_TYPE: Self = Self::new("config", "MachineTypes.config.talos.dev");
    /// `v1alpha1`: the config in force. Secret.
    pub const MACHINE_CONFIG: Self = Self::new("config", "MachineConfigs.config.talos.dev");
    /// One per network link.
    pub const LINK_STATUS: Self = Self::new("network", "LinkStatuses.net.talos.dev");
    /// `hostname`.
    pub const HOSTNAME_STATUS: Self = Self::new("network", "HostnameStatuses.net.talos.dev");
    /// `default`, `current`, `routed` …
    pub const NODE_ADDRESS: Self = Self::new("network", "NodeAddresses.net.talos.dev");
    /// `systeminformation`: SMBIOS.
    pub const SYSTEM_INFORMATION: Self = Self::new("hardware", "SystemInformations.hardware.talos.dev");
    /// One per disk, since 1.8.
    pub const DISK: Self = Self::new("runtime", "Disks.block.talos.dev");
    /// `system-disk`, since 1.8; absent when nothing is installed.
    pub const SYSTEM_DISK: Self = Self::new("runtime", "SystemDisks.block.talos.dev");
    /// `nodename`: the Kubernetes node's name.
    pub const NODENAME: Self = Self::new("k8s", "Nodenames.kubernetes.talos.dev");
    /// One per machine the discovery service knows.
    pub const MEMBER: Self = Self::new("cluster", "Members.cluster.talos.dev");
    /// `kube-apiserver` and the like, as rendered for the kubelet.
    pub const STATIC_POD: Self = Self::new("k8s", "StaticPods.kubernetes.talos.dev");
    /// `kubelet`. Secret since 1.12.
    pub const KUBELET_SPEC: Self = Self::new("k8s", "KubeletSpecs.kubernetes.talos.dev");
    /// What the cluster is bootstrapped with, by priority.
    pub const MANIFEST: Self = Self::new("controlplane", "Manifests.kubernetes.talos.dev");
    /// Complaints of the machine about itself, since 1.8.
    pub const DIAGNOSTIC: Self = Self::new("runtime", "Diagnostics.runtime.talos.dev");
}

/// One resource.
#[derive(Clone)]
pub struct Resource {
    /// Its id within its type.
    pub id: String,
    /// Its version, which grows with every change.
    pub version: String,
    kind: &'static str,
    address: String,
    yaml: SecretString,
    proto: SecretSlice<u8>,
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resource").field("kind", &self.kind).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Resource {
    /// The spec as `T`. Keys `T` doesn't know are passed over: machines write them.
    pub fn spec<T: DeserializeOwned>(&self) -> Result<T, TalosError> {
        // The parser's own message quotes the text, which may be a secret.
        serde_saphyr::from_str(self.yaml.expose_secret()).map_err(|_| TalosError::Answer {
            address: self.address.clone(),
            call: self.kind,
            what: "a spec of another shape",
        })
    }

    /// A machine configuration, all its documents. It is read from the protobuf form: the YAML form is a string that holds
    /// it since Talos 1.12, and a mapping before (Talos, `pkg/machinery/resources/config/machine_config.go`).
    pub(super) fn into_config(self) -> Result<SecretString, TalosError> {
        let config = MachineConfigSpec::decode(self.proto.expose_secret()).ok();
        let text = config.and_then(|config| String::from_utf8(config.yaml_marshalled).ok()).map(SecretString::from);
        text.filter(|text| !text.expose_secret().is_empty()).ok_or(TalosError::Answer {
            address: self.address,
            call: self.kind,
            what: "a machine configuration without its YAML",
        })
    }
}

/// `talos.resource.definitions.config.MachineConfigSpec`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MachineConfigSpec {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) yaml_marshalled: Vec<u8>,
}

impl Link {
    /// The resource with that id; `None` when the machine says that there is none.
    pub(super) async fn get(&self, kind: Kind, id: &str) -> Result<Option<Resource>, TalosError> {
        let request = GetRequest {
            namespace: kind.namespace.to_owned(),
            r#type: kind.name.to_owned(),
            id: id.to_owned(),
            options: None,
        };
        match self.answer(kind.name, self.state().get(request)).await {
            Ok(answer) => {
                let resource = answer.resource.ok_or_else(|| self.answer_is(kind.name, "nothing"))?;
                self.decode(kind, resource).map(Some)
            }
            Err(TalosError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All resources of a type.
    pub(super) async fn list(&self, kind: Kind) -> Result<Vec<Resource>, TalosError> {
        let request = ListRequest { namespace: kind.namespace.to_owned(), r#type: kind.name.to_owned(), options: None };
        let mut stream = self.answer(kind.name, self.state().list(request)).await?;
        let mut found = Vec::new();
        loop {
            let next = tokio::time::timeout(self.patience, stream.message()).await;
            match next.map_err(|_| self.silence(kind.name))?.map_err(|status| self.error(kind.name, status))? {
                None => return Ok(found),
                Some(item) => {
                    let resource = item.resource.ok_or_else(|| self.answer_is(kind.name, "an empty item"))?;
                    found.push(self.decode(kind, resource)?);
                }
            }
        }
    }

    fn decode(&self, kind: Kind, resource: proto::Resource) -> Result<Resource, TalosError> {
        let metadata = resource.metadata.ok_or_else(|| self.answer_is(kind.name, "a resource without metadata"))?;
        let spec = resource.spec.ok_or_else(|| self.answer_is(kind.name, "a resource without a spec"))?;
        Ok(Resource {
            id: metadata.id,
            version: metadata.version,
            kind: kind.name,
            address: self.address.to_string(),
            yaml: spec.yaml_spec.into(),
            proto: spec.proto_spec.into(),
        })
    }
}
