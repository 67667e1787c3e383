//! One component on one machine: its image goes into the configuration, then the new one has to run.

use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::LOOK;
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::k8s::pods::Pod;
use crate::plan::Output;
use crate::plan::kubernetes::image::same;
use crate::plan::kubernetes::{Component, LiveMachine};
use crate::steps::World;
use crate::steps::classify::{by_kubernetes, by_talos, refused, wrong};
use crate::talos::client::Machine;
use crate::talos::client::kubernetes::StaticPod;
use crate::talos::config::Config;
use crate::types::Version;

/// The annotation with which a static pod says which configuration it was rendered from.
const RENDERED_FROM: &str = "talos.dev/config-version";

/// The namespace of mirror pods.
const NAMESPACE: &str = "kube-system";

/// The kubelet's service.
const KUBELET: &str = "kubelet";

/// What is wrong with a pod that should be there, in words; none where it is as it should be.
fn unready(wanted: &StaticPod, component: Component, found: Option<&Pod>) -> Option<String> {
    let Some(pod) = found else { return Some("its pod is not there yet".to_owned()) };
    let image = pod.images.get(component.name()).or_else(|| pod.images.values().next());
    if image.is_none_or(|image| !same(image, &wanted.image)) {
        return Some(format!("its pod still runs {}", image.map_or("another image", String::as_str)));
    }
    // The same image may be rendered anew with other flags: the pod must be the one that was rendered.
    let rendered = wanted.annotations.get(RENDERED_FROM);
    if rendered.is_some() && pod.annotations.get(RENDERED_FROM) != rendered {
        return Some("its pod is of the configuration before".to_owned());
    }
    if pod.deleting || !pod.ready {
        let why = pod.trouble.as_ref().map_or(String::new(), |why| format!(" ({why})"));
        return Some(format!("its pod is not Ready{why}"));
    }
    None
}

impl World {
    /// How long a new static pod, or a kubelet, may take to be Ready, its image being there already.
    fn ready_within(&self) -> Duration {
        Duration::from_secs(self.plan.limits.health)
    }

    /// Waits until `look` finds nothing any more that keeps `what` from being done.
    async fn until_ready(
        &self,
        doing: &str,
        what: &str,
        hint: &str,
        cx: &StepCx<'_>,
        look: impl AsyncFn() -> Result<Option<String>, StepError>,
    ) -> Result<Output, StepError> {
        let since = cx.elapsed();
        loop {
            let trouble = match look().await {
                Ok(None) => return Ok(Output::Nothing),
                Ok(Some(trouble)) => trouble,
                // The API server that is replaced may be the one that was asked.
                Err(error) if matches!(error.class, Class::Transient | Class::Ambiguous) => error.source.to_string(),
                Err(error) => return Err(error),
            };
            if cx.elapsed().saturating_sub(since) >= self.ready_within() {
                return Err(wrong(doing, format!("after {} s {trouble}", self.plan.limits.health)).hinted(hint));
            }
            cx.waiting(what, Some(&trouble));
            cx.sleep(LOOK).await;
        }
    }

    /// What keeps a static pod from being done; none where the wanted image runs and is Ready.
    async fn pod_trouble(
        &self,
        doing: &str,
        machine: &LiveMachine,
        component: Component,
        image: &str,
    ) -> Result<Option<String>, StepError> {
        let talos = self.machine(doing, machine.address)?;
        let rendered = talos.static_pod(component.name()).await.map_err(|error| by_talos(doing, error))?;
        let Some(rendered) = rendered.filter(|rendered| same(&rendered.image, image)) else {
            return Ok(Some("the machine has not rendered it yet".to_owned()));
        };
        let node = self.node_of(doing, machine).await?;
        let client = self.cluster(doing).await?;
        let pod = client.pod(NAMESPACE, &format!("{component}-{node}")).await;
        let pod = pod.map_err(|error| by_kubernetes(doing, error))?;
        Ok(unready(&rendered, component, pod.as_ref()))
    }

    /// The active configuration. One that only the next boot would bring stops the run: the change would take its place.
    async fn live_config(&self, doing: &str, machine: &LiveMachine, talos: &Machine) -> Result<Config, StepError> {
        let failed = |error| by_talos(doing, error);
        let unreadable = |_| wrong(doing, format!("the configuration of {} can't be read", machine.name));
        let text = talos.config().await.map_err(failed)?;
        let text = text.ok_or_else(|| wrong(doing, format!("{} has no configuration", machine.name)))?;
        let config = Config::parse(text.expose_secret()).map_err(unreadable)?;
        if let Some(next) = talos.persistent_config().await.map_err(failed)?
            && Config::parse(next.expose_secret()).map_err(unreadable)?.documents() != config.documents()
        {
            return Err(refused(
                doing,
                format!(
                    "{} has a configuration that waits for its next boot, and a change would take its place",
                    machine.name
                ),
            )
            .hinted("reboot the machine, or apply its active configuration once more, then resume"));
        }
        Ok(config)
    }

    /// Puts the image into the machine's configuration, if it isn't there.
    async fn set_image(
        &self,
        doing: &str,
        machine: &LiveMachine,
        component: Component,
        image: &str,
        cx: &StepCx<'_>,
    ) -> Result<Config, StepError> {
        let talos = self.machine(doing, machine.address)?;
        let mut config = self.live_config(doing, machine, &talos).await?;
        if config.image_of(component.name()) == Some(image) {
            return Ok(config);
        }
        if !config.set_image(component.name(), image) {
            return Err(wrong(doing, format!("the configuration of {} has no place for {component}", machine.name)));
        }
        let warnings = talos.apply_without_reboot(&config.to_yaml()).await.map_err(|error| {
            by_talos(doing, error).hinted("nothing changed on this machine; resume looks before it tries again")
        })?;
        for warning in warnings {
            cx.notice(format!("{} says: {warning}", machine.name));
        }
        Ok(config)
    }

    pub(in crate::steps) async fn probe_static_pod(
        &self,
        machine: &LiveMachine,
        component: Component,
        image: &str,
    ) -> Result<Seen, StepError> {
        let doing = format!("look at {component} of {}", machine.name);
        let talos = self.machine(&doing, machine.address)?;
        // The API server is the one whose absence may be why nobody answers: its step looks further by itself.
        let rendered = talos.static_pod(component.name()).await.map_err(|error| by_talos(&doing, error))?;
        if rendered.is_none_or(|rendered| !same(&rendered.image, image)) {
            return Ok(Seen::Missing);
        }
        match self.pod_trouble(&doing, machine, component, image).await {
            Ok(None) => Ok(Seen::Done(Output::Nothing)),
            Ok(Some(_)) => Ok(Seen::Missing),
            Err(error) if error.class == Class::Transient => Ok(Seen::Missing),
            Err(error) => Err(error),
        }
    }

    pub(in crate::steps) async fn set_static_pod(
        &self,
        machine: &LiveMachine,
        component: Component,
        image: &str,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("move {component} of {} to {image}", machine.name);
        let config = self.set_image(&doing, machine, component, image, cx).await?;
        if config.is_off(component.name()) {
            cx.notice(format!("{component} is switched off on {}: there is nothing to wait for.", machine.name));
            return Ok(Output::Nothing);
        }
        let hint = format!(
            "look at the log of {component} on {} for a flag that this version doesn't know; correct it in the machine's \
             configuration, then resume; the other control planes still run the version before",
            machine.name
        );
        let look = async || self.pod_trouble(&doing, machine, component, image).await;
        self.until_ready(&doing, &format!("{component} on {}", machine.name), &hint, cx, look).await
    }

    pub(in crate::steps) async fn probe_proxy_image(
        &self,
        machine: &LiveMachine,
        image: &str,
    ) -> Result<Seen, StepError> {
        let doing = format!("look at kube-proxy's image in the configuration of {}", machine.name);
        let talos = self.machine(&doing, machine.address)?;
        let config = self.live_config(&doing, machine, &talos).await?;
        let done = config.image_of(Component::Proxy.name()) == Some(image);
        Ok(if done { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(in crate::steps) async fn set_proxy_image(
        &self,
        machine: &LiveMachine,
        image: &str,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("write {image} into the configuration of {}", machine.name);
        self.set_image(&doing, machine, Component::Proxy, image, cx).await?;
        Ok(Output::Nothing)
    }

    /// What keeps a kubelet from being done. A kubelet reports its version together with its node's conditions, so that
    /// Ready beside the new version is the new kubelet's word.
    async fn kubelet_trouble(
        &self,
        doing: &str,
        machine: &LiveMachine,
        image: &str,
        version: &Version,
    ) -> Result<Option<String>, StepError> {
        let talos = self.machine(doing, machine.address)?;
        let spec = talos.kubelet().await.map_err(|error| by_talos(doing, error))?.unwrap_or_default();
        if !same(&spec.image, image) {
            return Ok(Some("the machine has not taken the image yet".to_owned()));
        }
        let services = talos.services().await.map_err(|error| by_talos(doing, error))?;
        match services.iter().find(|service| service.id == KUBELET) {
            Some(service) if service.is_up() => {}
            Some(service) => return Ok(Some(format!("its service is {}: {}", service.state, service.message))),
            None => return Ok(Some("its service is not there".to_owned())),
        }
        let node = self.node_of(doing, machine).await?;
        let nodes = self.cluster(doing).await?.nodes().await.map_err(|error| by_kubernetes(doing, error))?;
        let Some(node) = nodes.into_iter().find(|found| found.name == node) else {
            return Ok(Some(format!("there is no node {node}")));
        };
        if node.kubelet != version.tag() {
            return Ok(Some(format!("its node reports {}", node.kubelet)));
        }
        Ok(node.ready.err().map(|why| format!("its node is not Ready: {why}")))
    }

    pub(in crate::steps) async fn probe_kubelet(
        &self,
        machine: &LiveMachine,
        image: &str,
        version: &Version,
    ) -> Result<Seen, StepError> {
        let doing = format!("look at the kubelet of {}", machine.name);
        match self.kubelet_trouble(&doing, machine, image, version).await? {
            None => Ok(Seen::Done(Output::Nothing)),
            Some(_) => Ok(Seen::Missing),
        }
    }

    pub(in crate::steps) async fn set_kubelet(
        &self,
        machine: &LiveMachine,
        image: &str,
        version: &Version,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("move the kubelet of {} to {image}", machine.name);
        self.set_image(&doing, machine, Component::Kubelet, image, cx).await?;
        let hint = format!(
            "look at the log of the service kubelet on {}, then resume; its pods run on meanwhile",
            machine.name
        );
        let look = async || self.kubelet_trouble(&doing, machine, image, version).await;
        self.until_ready(&doing, &format!("the kubelet of {}", machine.name), &hint, cx, look).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_static_pod_is_done_when_the_rendered_one_runs_and_is_ready() {
        let annotated = |version: &str| BTreeMap::from([(RENDERED_FROM.to_owned(), version.to_owned())]);
        let wanted = StaticPod {
            image: "a/kube-scheduler:v1.35.0".to_owned(),
            annotations: annotated("3"),
            ..StaticPod::default()
        };
        let pod = |image: &str, version: &str, ready: bool| Pod {
            images: BTreeMap::from([("kube-scheduler".to_owned(), image.to_owned())]),
            annotations: annotated(version),
            ready,
            ..Pod::default()
        };
        let judged = |pod: Option<&Pod>| unready(&wanted, Component::Scheduler, pod);
        assert_eq!(judged(Some(&pod("a/kube-scheduler:v1.35.0@sha256:01", "3", true))), None);
        for wrong in [
            None,
            Some(pod("a/kube-scheduler:v1.34.1", "3", true)),
            Some(pod("a/kube-scheduler:v1.35.0", "2", true)),
            Some(pod("a/kube-scheduler:v1.35.0", "3", false)),
            Some(Pod { deleting: true, ..pod("a/kube-scheduler:v1.35.0", "3", true) }),
        ] {
            assert!(judged(wrong.as_ref()).is_some(), "{wrong:?}");
        }
        let older = StaticPod { annotations: BTreeMap::new(), ..wanted.clone() };
        assert_eq!(unready(&older, Component::Scheduler, Some(&pod("a/kube-scheduler:v1.35.0", "9", true))), None);
    }
}
