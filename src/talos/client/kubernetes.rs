//! What a machine runs of Kubernetes: static pods, kubelet, manifests; and the calls that change it.
//!
//! Must not know: which version is wanted, other machines, the Kubernetes API.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::TalosError;
use super::cosi::Kind;
use super::machine::Machine;
use crate::talos::proto::common::ContainerdNamespace;
use crate::talos::proto::machine::apply_configuration_request::Mode;
use crate::talos::proto::machine::{ApplyConfigurationRequest, ImagePullRequest};

/// A large image over a slow line; nothing is heard until it is there.
const PULL_WITHIN: Duration = Duration::from_mins(15);

/// A static pod as the machine renders it for its kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaticPod {
    /// The image of its first container.
    pub image: String,
    /// The command of its first container, flags included.
    pub command: Vec<String>,
    /// Its annotations: `talos.dev/config-version` counts the changes of what it is rendered from.
    pub annotations: BTreeMap<String, String>,
}

/// The kubelet as the machine runs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct KubeletSpec {
    /// Its image.
    pub image: String,
    /// Its flags.
    pub args: Vec<String>,
}

/// Which of a machine's image stores is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// Those of pods.
    Pods,
    /// Those of the machine's own services, the kubelet's among them.
    System,
}

#[derive(Deserialize)]
struct Nodename {
    nodename: String,
}

impl StaticPod {
    /// From a pod object; the resource of some versions wraps it once more.
    fn of(spec: &Value) -> Self {
        let pod = spec.get("pod").unwrap_or(spec);
        let container = pod.pointer("/spec/containers/0");
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let list = |key: &str| {
            let words = container.and_then(|container| container.get(key)).and_then(Value::as_array);
            words.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
        };
        let annotations = pod.pointer("/metadata/annotations").and_then(Value::as_object);
        Self {
            image: text(container.and_then(|container| container.get("image"))),
            command: [list("command"), list("args")].concat(),
            annotations: annotations
                .into_iter()
                .flatten()
                .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                .collect(),
        }
    }
}

impl Machine {
    /// The name of its Kubernetes node; `None` where it registers none.
    pub async fn nodename(&self) -> Result<Option<String>, TalosError> {
        let Some(resource) = self.get(Kind::NODENAME, "nodename").await? else { return Ok(None) };
        Ok(Some(resource.spec::<Nodename>()?.nodename).filter(|name| !name.is_empty()))
    }

    /// The static pod of that name (`kube-apiserver` …) as it is rendered now; `None` where there is none.
    pub async fn static_pod(&self, name: &str) -> Result<Option<StaticPod>, TalosError> {
        let Some(resource) = self.get(Kind::STATIC_POD, name).await? else { return Ok(None) };
        Ok(Some(StaticPod::of(&resource.spec::<Value>()?)))
    }

    /// The kubelet as it is to run; `None` before the machine has a configuration.
    pub async fn kubelet(&self) -> Result<Option<KubeletSpec>, TalosError> {
        let Some(resource) = self.get(Kind::KUBELET_SPEC, "kubelet").await? else { return Ok(None) };
        resource.spec::<KubeletSpec>().map(Some)
    }

    /// The objects that it bootstraps a cluster with, in the order in which they are made. Control planes only.
    pub async fn manifests(&self) -> Result<Vec<Value>, TalosError> {
        let mut resources = self.list(Kind::MANIFEST).await?;
        resources.sort_by(|a, b| a.id.cmp(&b.id));
        let mut objects = Vec::new();
        for resource in resources {
            let spec: Value = resource.spec()?;
            let items = spec.get("items").unwrap_or(&spec).as_array().cloned().unwrap_or_default();
            objects.extend(items.into_iter().map(|item| match item.get("object") {
                Some(object) if item.get("kind").is_none() => object.clone(),
                _ => item,
            }));
        }
        Ok(objects)
    }

    /// The config that it will have after its next boot, where it keeps one beside the active one (since 1.10).
    pub async fn persistent_config(&self) -> Result<Option<SecretString>, TalosError> {
        match self.get(Kind::MACHINE_CONFIG, "persistent").await {
            Ok(Some(resource)) => resource.into_config().map(Some),
            Ok(None) | Err(TalosError::UnknownResource { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the machine another config that must need no reboot; it refuses one that does. What it warns of.
    pub async fn apply_without_reboot(&self, config: &SecretString) -> Result<Vec<String>, TalosError> {
        let call = "ApplyConfiguration";
        let request = ApplyConfigurationRequest {
            data: config.expose_secret().as_bytes().to_vec(),
            mode: Mode::NoReboot.into(),
            dry_run: false,
            try_mode_timeout: None,
        };
        let answer = self.link.answer(call, self.link.machine().apply_configuration(request)).await?;
        Ok(self.link.only(call, answer.messages)?.warnings)
    }

    /// Pulls an image; one that is there already is not pulled again.
    pub async fn pull_image(&self, reference: &str, into: Images) -> Result<(), TalosError> {
        let namespace = match into {
            Images::Pods => ContainerdNamespace::NsCri,
            Images::System => ContainerdNamespace::NsSystem,
        };
        let request = ImagePullRequest { namespace: namespace.into(), reference: reference.to_owned() };
        let link = self.link.waiting(PULL_WITHIN);
        link.answer("ImagePull", link.machine().image_pull(request)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_static_pod_is_read_in_both_its_forms() {
        let pod = json!({
            "metadata": {"name": "kube-scheduler", "annotations": {"talos.dev/config-version": "3"}},
            "spec": {"containers": [{"image": "a/b:v1", "command": ["/usr/local/bin/kube-scheduler", "--x=y"]}]},
        });
        let read = StaticPod::of(&pod);
        assert_eq!((read.image.as_str(), read.command.len()), ("a/b:v1", 2));
        assert_eq!(read.annotations["talos.dev/config-version"], "3");
        assert_eq!(StaticPod::of(&json!({ "pod": pod })), read);
    }
}
