//! What Kubernetes runs where: images, flags and versions of every machine, and what keeps nodes from being drained.
//!
//! Read only. What can't be seen is named in `unseen`, and a hop is refused for it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use secrecy::ExposeSecret as _;

use crate::k8s::bootstrap::{Change, Entry, Syncer, Way, set_proxy_image};
use crate::k8s::manifest::{Manifest, of_objects};
use crate::k8s::pods::Pod;
use crate::k8s::{Client, K8sError, budget};
use crate::net::Connector;
use crate::plan::kubernetes::{
    Blocker, Component, Hop, LiveMachine, ManifestWay, SeenKubernetes, SeenMachine, image, removed,
};
use crate::talos::client::{Access, Machine, TalosError};
use crate::talos::config::Config;
use crate::types::{MachineName, Role, Version};

/// How long a machine may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Components whose pods tell which version runs.
const TELLING: [Component; 4] =
    [Component::ApiServer, Component::ControllerManager, Component::Scheduler, Component::Proxy];

/// Looks at all machines and at the cluster.
pub async fn observe(
    connector: &Connector,
    access: &Access,
    machines: &[LiveMachine],
    client: &Client,
) -> SeenKubernetes {
    let mut seen = SeenKubernetes::default();
    let mut kubelets = BTreeMap::new();
    match client.nodes().await {
        Ok(nodes) => kubelets.extend(nodes.into_iter().map(|node| (node.name, node.kubelet))),
        Err(error) => seen.unseen.push(format!("the Kubernetes nodes can't be listed: {}", innermost(&error))),
    }
    for machine in machines {
        match look(connector, access, machine).await {
            Ok(mut found) => {
                found.kubelet = kubelets.get(&found.node).and_then(|version| version.parse().ok());
                seen.machines.push(found);
            }
            Err(error) => seen.unseen.push(format!("{} can't be looked at: {}", machine.name, innermost(&error))),
        }
    }
    seen.machines.sort_by(|a, b| (rank(a), a.machine.name.as_str()).cmp(&(rank(b), b.machine.name.as_str())));
    if let Err(error) = cluster(client, &mut seen).await {
        seen.unseen.push(format!("the Kubernetes API can't be looked at: {}", innermost(&error)));
    }
    let first = seen.machines.first().map(|seen| seen.machine.clone());
    if let Some(first) = first.filter(|machine| machine.role == Role::ControlPlane) {
        match left_manifests(connector, access, &first, client).await {
            Ok(keys) => seen.left_manifests = keys,
            Err(error) => {
                seen.unseen.push(format!("the bootstrap manifests can't be compared: {}", innermost(&*error)));
            }
        }
    }
    seen
}

/// The objects that a machine bootstraps the cluster with.
pub async fn manifests(
    connector: &Connector,
    access: &Access,
    machine: &LiveMachine,
) -> Result<Vec<Manifest>, Box<dyn Error + Send + Sync>> {
    Ok(of_objects(talos(connector, access, machine.address)?.manifests().await?)?)
}

/// The configurations that these machines run. One that can't be had or read is left out: whoever looks at a machine
/// finds that it doesn't answer.
pub async fn configs(connector: &Connector, access: &Access, machines: &[LiveMachine]) -> Vec<(MachineName, Config)> {
    let looked = join_all(machines.iter().map(async |machine| {
        let text = talos(connector, access, machine.address).ok()?.config().await.ok()??;
        Some((machine.name.clone(), Config::parse(text.expose_secret()).ok()?))
    }));
    looked.await.into_iter().flatten().collect()
}

/// Keys of the inventory's objects that are in no manifest any more.
async fn left_manifests(
    connector: &Connector,
    access: &Access,
    machine: &LiveMachine,
    client: &Client,
) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let mut syncer = Syncer::new(client, Way::Apply);
    let Some(inventory) = syncer.inventory().await? else { return Ok(Vec::new()) };
    let mut wanted = BTreeSet::new();
    for manifest in manifests(connector, access, machine).await? {
        match syncer.entry(&manifest).await {
            Ok(entry) => {
                wanted.insert(entry);
            }
            // Its kind isn't served yet, so the inventory can't have it.
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(inventory.left_over(&wanted).iter().map(Entry::key).collect())
}

/// What a hop would do to the bootstrap manifests: a line for each object that it makes or changes, with what changes in
/// it, and for each that it deletes. Dry runs of the server; nothing is changed.
pub async fn preview(
    connector: &Connector,
    access: &Access,
    hop: &Hop<'_>,
    client: &Client,
) -> Result<Vec<String>, Box<dyn Error + Send + Sync>> {
    let Some(first) = hop.seen.of(Role::ControlPlane).next() else { return Ok(Vec::new()) };
    let mut objects = manifests(connector, access, &first.machine).await?;
    set_proxy_image(&mut objects, &first.image(Component::Proxy, hop.to));
    let way = ManifestWay::of(hop.talos);
    let mut syncer = Syncer::new(client, if way == ManifestWay::Apply { Way::Apply } else { Way::Put });
    let mut lines = Vec::new();
    for object in &objects {
        match syncer.compare(object).await? {
            Change::Same => {}
            Change::Create => lines.push(format!("create {object}")),
            Change::Alter(changes) => {
                lines.extend(changes.into_iter().map(|change| format!("change {object}: {change}")));
            }
        }
    }
    if way == ManifestWay::Apply {
        lines.extend(hop.seen.left_manifests.iter().map(|key| match Entry::parse(key) {
            Some(entry) => format!("delete {entry}"),
            None => format!("delete {key}"),
        }));
    }
    Ok(lines)
}

/// The way into the cluster by a kubeconfig that one of the control planes hands out; the last error where none does.
pub async fn client(
    connector: &Connector,
    access: &Access,
    machines: &[LiveMachine],
) -> Option<Result<Client, Box<dyn Error + Send + Sync>>> {
    let mut last = None;
    for machine in machines.iter().filter(|machine| machine.role == Role::ControlPlane) {
        let opened = async {
            let kubeconfig = talos(connector, access, machine.address)?.kubeconfig().await?;
            Ok::<Client, Box<dyn Error + Send + Sync>>(Client::new(connector, &kubeconfig)?)
        };
        match opened.await {
            Ok(client) => return Some(Ok(client)),
            Err(error) => last = Some(Err(error)),
        }
    }
    last
}

fn rank(seen: &SeenMachine) -> u8 {
    u8::from(seen.machine.role != Role::ControlPlane)
}

fn talos(connector: &Connector, access: &Access, address: IpAddr) -> Result<Machine, TalosError> {
    Machine::new(connector, &address.to_string(), access, PATIENCE)
}

async fn look(connector: &Connector, access: &Access, machine: &LiveMachine) -> Result<SeenMachine, TalosError> {
    let talos = talos(connector, access, machine.address)?;
    let version = talos.release().await?.version;
    let node = talos.nodename().await?.unwrap_or_else(|| machine.name.to_string());
    let active = talos.config().await?.map(|text| Config::parse(text.expose_secret()));
    let next = talos.persistent_config().await?.map(|text| Config::parse(text.expose_secret()));
    let staged = match (&active, &next) {
        (Some(Ok(active)), Some(Ok(next))) => active.documents() != next.documents(),
        _ => false,
    };
    let (mut images, mut args, mut disabled) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    if machine.role == Role::ControlPlane {
        for component in Component::STATIC_PODS {
            if let Some(pod) = talos.static_pod(component.name()).await? {
                images.insert(component, pod.image);
                args.insert(component, pod.command);
            }
        }
        if let Some(Ok(config)) = &active {
            disabled.extend(Component::STATIC_PODS.into_iter().filter(|component| config.is_off(component.name())));
            let proxy = config.image_of(Component::Proxy.name());
            images.extend(proxy.map(|image| (Component::Proxy, image.to_owned())));
        }
    }
    if let Some(kubelet) = talos.kubelet().await? {
        images.insert(Component::Kubelet, kubelet.image);
        args.insert(Component::Kubelet, kubelet.args);
    }
    images.retain(|_, image| !image.is_empty());
    Ok(SeenMachine { machine: machine.clone(), talos: version, node, kubelet: None, images, args, disabled, staged })
}

async fn cluster(client: &Client, seen: &mut SeenKubernetes) -> Result<(), K8sError> {
    let pods = client.pods().await?;
    seen.lowest = lowest(&pods);
    for kind in removed::all_kinds() {
        // A kind that isn't served has no objects to lose.
        if let Some(count) = client.count(kind).await? {
            seen.objects.insert(kind.to_owned(), count);
        }
    }
    let budgets = client.budgets().await?;
    let holds = budget::holds(&budgets, &pods).into_iter();
    seen.blockers =
        holds.map(|hold| Blocker { node: hold.node, pod: hold.pod, why: hold.why, hopeless: hold.hopeless }).collect();
    Ok(())
}

/// The lowest version of the control plane's and kube-proxy's pods. An image whose tag is no version is passed over.
fn lowest(pods: &[Pod]) -> Option<Version> {
    let of = |pod: &Pod| {
        let name = pod.labels.get("k8s-app")?;
        TELLING.iter().find(|component| component.name() == name)?;
        image::version_of(pod.images.get(name)?)
    };
    pods.iter().filter(|pod| pod.namespace == "kube-system").filter_map(of).min()
}

fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    if std::ptr::addr_eq(innermost, error) { error.to_string() } else { format!("{error}: {innermost}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_version_is_that_of_the_oldest_component_pod() {
        let pod = |namespace: &str, app: &str, image: &str| Pod {
            namespace: namespace.to_owned(),
            labels: BTreeMap::from([("k8s-app".to_owned(), app.to_owned())]),
            images: BTreeMap::from([(app.to_owned(), image.to_owned())]),
            ..Pod::default()
        };
        let pods = [
            pod("kube-system", "kube-apiserver", "mirror.lan:5000/kube-apiserver:v1.35.2"),
            pod("kube-system", "kube-proxy", "registry.k8s.io/kube-proxy:v1.34.1@sha256:01"),
            pod("kube-system", "kube-scheduler", "registry.k8s.io/kube-scheduler:latest"),
            pod("kube-system", "kube-dns", "registry.k8s.io/coredns:v1.12.0"),
            pod("else", "kube-apiserver", "x:v1.20.0"),
        ];
        assert_eq!(lowest(&pods), Some(Version::new(1, 34, 1)));
        assert_eq!(lowest(&pods[2..]), None);
    }
}
