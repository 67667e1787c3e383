//! Static pods and the kubelet as a service: what a changed configuration sets off on a machine that runs.

use serde_json::{Value, json};

use super::config::NodeConfig;
use super::faults::Fault;
use super::images::Namespace;
use super::life::Boot;
use super::state::{COMPONENTS, ServiceState, State, StaticPod};
use crate::etcd::EtcdError;
use crate::world::cluster::{self, objects};

/// Seconds until a changed configuration is a rendered pod.
const RENDER: f64 = 1.0;
/// Seconds until the kubelet notices the new file and replaces the container.
const REPLACE: f64 = 4.0;
/// Seconds until the new container answers.
const ANSWER: f64 = 8.0;
/// Seconds that the kubelet's process takes to stop, and to be healthy.
const STOP: f64 = 2.0;
const START: f64 = 4.0;
/// Seconds between attempts at an image that can't be pulled.
const AGAIN: f64 = 10.0;

impl Boot {
    /// The kubelet runs with the configured image, for the node of that name, and trusts the configured authorities; restarts
    /// it when they changed.
    pub(super) async fn start_kubelet(&self, config: &NodeConfig) {
        let machine = &self.machine;
        let image = config.image("kubelet", machine.see(State::version));
        let trusts = config.kubernetes_authorities();
        let node = machine.see(State::nodename);
        let same = |state: &State| {
            state.kubelet.as_ref() == Some(&image) && state.kubelet_trusts == trusts && state.kubelet_node == node
        };
        if machine.see(same) {
            return;
        }
        let restarts = machine.see(|state| state.services.get("kubelet").map(|one| one.state));
        // On a machine that is up, it takes its time in any case: others wait to see it stop.
        let takes = async |seconds| match restarts {
            Some(_) => machine.world().clock().sleep(seconds).await,
            None => self.sleep(seconds).await,
        };
        if restarts == Some(ServiceState::Running) {
            machine.service("kubelet", ServiceState::Stopping, None, "Sending SIGTERM to task kubelet");
            // Whatever is wanted next, and however soon, it has to be started for it.
            machine.update(|state| (state.node_ready, state.kubelet) = (false, None));
            takes(STOP).await;
            machine.service("kubelet", ServiceState::Finished, None, "Service finished successfully");
        }
        machine.service("kubelet", ServiceState::Waiting, None, "Waiting for service \"cri\" to be \"up\"");
        machine.service("kubelet", ServiceState::Preparing, None, "Running pre state");
        takes(START / 2.0).await;
        while let Err(error) = machine.world().registry().image(&image) {
            let why = format!("Failed to run pre stage: failed to pull image \"{image}\": {error}");
            machine.service("kubelet", ServiceState::Failed, None, &why);
            machine.world().clock().sleep(AGAIN).await;
        }
        machine.note_image(Namespace::System, &image);
        machine.service("kubelet", ServiceState::Preparing, None, "Creating service runner");
        machine.service("kubelet", ServiceState::Running, None, "Started task kubelet");
        let broken = restarts.is_some() && machine.world().goes_wrong(machine.vmid(), Fault::KubeletFails);
        if broken || machine.see(|state| state.sick) {
            let why = "Health check failed: Get \"http://127.0.0.1:10248/healthz\": dial tcp 127.0.0.1:10248: connect: \
                       connection refused";
            machine.service("kubelet", ServiceState::Running, Some(false), why);
            return std::future::pending().await;
        }
        takes(START / 2.0).await;
        machine.service("kubelet", ServiceState::Running, Some(true), "Health check successful");
        machine.update(|state| {
            (state.kubelet, state.kubelet_trusts, state.kubelet_node) = (Some(image), trusts, node);
        });
    }

    /// The static pods as they are when a machine boots.
    pub(super) fn first_pods(&self, config: &NodeConfig) {
        self.machine.update(|state| {
            let version = state.version();
            let all = COMPONENTS.into_iter().filter(|component| config.runs(component));
            state.static_pods = all
                .map(|component| {
                    let (image, args) = (config.image(component, version), config.extra_args(component));
                    (component, StaticPod { image, args, version: 1, ready: true })
                })
                .collect();
        });
        let images = self.machine.see(|state| {
            let pods = state.static_pods.values().map(|pod| pod.image.clone());
            pods.collect::<Vec<_>>()
        });
        for image in images {
            self.machine.note_image(Namespace::Cri, &image);
        }
    }

    /// Renders what the configuration changed, all components at once; then there is nothing left to do.
    pub(super) async fn render(&self, config: &NodeConfig) -> std::convert::Infallible {
        let each = COMPONENTS.into_iter().map(|component| self.render_one(config, component));
        futures_util::future::join_all(each).await;
        std::future::pending().await
    }

    async fn render_one(&self, config: &NodeConfig, component: &'static str) {
        let machine = &self.machine;
        let world = machine.world();
        let image = config.image(component, machine.see(State::version));
        let args = config.extra_args(component);
        let known = machine.see(|state| state.static_pods.get(component).cloned());
        match known {
            Some(known) if known.image == image && known.args == args => {
                if known.ready {
                    return;
                }
            }
            None if !config.runs(component) => return,
            _ => {
                world.clock().sleep(RENDER).await;
                machine.says(&format!("[talos] rendered new static pod {component}"));
                machine.update(|state| {
                    let version = state.static_pods.get(component).map_or(0, |known| known.version) + 1;
                    let pod = StaticPod { image: image.clone(), args, version, ready: false };
                    state.static_pods.insert(component, pod);
                });
            }
        }
        world.clock().sleep(REPLACE).await;
        if component == "kube-apiserver" {
            // Its listener is gone until the new container answers.
            machine.update(|state| state.kubernetes = false);
        }
        self.post(config, component).await;
        if world.registry().image(&image).is_err() {
            machine.says(&format!("[talos] {component}: failed to pull image \"{image}\": not found"));
            return;
        }
        machine.note_image(Namespace::Cri, &image);
        if world.goes_wrong(machine.vmid(), Fault::StaticPodFails) {
            machine.says(&format!("[talos] {component}: back-off restarting failed container"));
            return;
        }
        world.clock().sleep(ANSWER).await;
        machine.update(|state| {
            if let Some(pod) = state.static_pods.get_mut(component) {
                pod.ready = true;
            }
            if component == "kube-apiserver" {
                state.kubernetes = true;
            }
        });
        self.post(config, component).await;
    }

    /// Shows a static pod in Kubernetes; waits for an API server that takes it, as long as there may be one.
    async fn post(&self, config: &NodeConfig, component: &'static str) {
        loop {
            match self.mirror(config, Some(component)).await {
                Some(Ok(())) => return,
                Some(Err(error)) => tracing::debug!(%error, "a mirror pod can't be written yet"),
                // Without an API server nobody sees the pod; the first that is up is told.
                None if component == "kube-apiserver" => return,
                None => {}
            }
            self.wait().await;
        }
    }

    /// Writes the mirror pods, or one of them; `None` while no API server answers.
    pub(super) async fn mirror(&self, config: &NodeConfig, only: Option<&str>) -> Option<Result<(), EtcdError>> {
        let client = self.any_api()?;
        let seed = super::kubelet::uid_seed(&client);
        let pods = self.machine.see(|state| state.static_pods.clone());
        for (component, pod) in pods.iter().filter(|(name, _)| only.is_none_or(|only| only == **name)) {
            let facts = self.facts(config, objects::Readiness::Ready);
            let all = objects::static_pods(&facts, &seed);
            let found = all.into_iter().find(|(key, _)| key.ends_with(&format!("/{component}-{}", facts.name)));
            let Some((key, mut object)) = found else { continue };
            dress(&mut object, pod);
            if let Some(old) = cluster::get(&client, &key) {
                keep_identity(&old.value, &mut object);
            }
            if let Err(error) = cluster::put(&client, &key, &object, None).await {
                return Some(Err(error));
            }
        }
        Some(Ok(()))
    }

    /// The keys of static pods that aren't ready: what the kubelet doesn't call ready either.
    pub(super) fn broken_pods(&self) -> Vec<String> {
        let name = self.machine.see(State::nodename);
        let key = |component: &str| objects::key("pods", Some("kube-system"), &format!("{component}-{name}"));
        let pods = self.machine.see(|state| state.static_pods.clone());
        pods.iter().filter(|(_, pod)| !pod.ready).map(|(component, _)| key(component)).collect()
    }
}

/// Image, version and readiness of a mirror pod.
fn dress(object: &mut Value, pod: &StaticPod) {
    use sha2::{Digest as _, Sha256};
    let hash = hex::encode(&Sha256::digest(format!("{} {} {:?}", pod.image, pod.version, pod.args))[..16]);
    let annotations = &mut object["metadata"]["annotations"];
    annotations["kubernetes.io/config.hash"] = json!(hash);
    annotations["kubernetes.io/config.mirror"] = json!(hash);
    annotations["kubernetes.io/config.source"] = json!("file");
    annotations["talos.dev/config-version"] = json!(pod.version.to_string());
    annotations["talos.dev/secrets-version"] = json!("1");
    object["spec"]["containers"][0]["image"] = json!(pod.image);
    let status = if pod.ready { "True" } else { "False" };
    let now = objects::now();
    let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(|kind| {
        let status = if ["ContainersReady", "Ready"].contains(&kind) { status } else { "True" };
        json!({ "type": kind, "status": status, "lastTransitionTime": now })
    });
    object["status"]["conditions"] = json!(conditions);
    if let Some(container) = object.pointer_mut("/status/containerStatuses/0") {
        container["image"] = json!(pod.image);
        container["ready"] = json!(pod.ready);
        container["started"] = json!(pod.ready);
        if !pod.ready {
            container["state"] = json!({ "waiting": { "reason": "ContainerCreating" } });
        }
    }
}

/// What an object keeps from the one before.
fn keep_identity(old: &Value, new: &mut Value) {
    for field in ["uid", "creationTimestamp", "resourceVersion"] {
        if let Some(value) = old["metadata"].get(field) {
            new["metadata"][field] = value.clone();
        }
    }
}
