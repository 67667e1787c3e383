//! What runs in containers: Talos' own services, and the pods that Kubernetes has on the machine.

use std::time::SystemTime;

use serde_json::Value;
use tonic::Status;

use super::proto::common::ContainerDriver;
use super::proto::machine as api;
use crate::world::cluster::{self, pods};
use crate::world::machine::{Machine, ServiceState, State};

/// What keeps a pod's namespaces.
const PAUSE: &str = "registry.k8s.io/pause:3.10";
/// Services that are containers.
const OWN: [&str; 4] = ["apid", "trustd", "etcd", "kubelet"];

/// A container, or the sandbox of a pod.
pub(super) struct Running {
    /// What it is called among its like.
    pub(super) name: String,
    image: String,
    /// Its pod, if it is one of Kubernetes': namespace and name.
    pod: Option<String>,
    /// The end of its id; sandboxes have none.
    mark: Option<String>,
    /// When it started.
    since: SystemTime,
}

impl Running {
    /// As `containers` shows it and `logs` asks for it.
    fn id(&self) -> String {
        match (&self.pod, &self.mark) {
            (Some(pod), Some(mark)) => format!("{pod}:{}:{mark}", self.name),
            (Some(pod), None) => pod.clone(),
            _ => self.name.clone(),
        }
    }

    /// The pod that it is part of, if it is one of Kubernetes'.
    pub(super) fn pod(&self) -> Option<&str> {
        self.pod.as_deref()
    }

    /// When it started.
    pub(super) fn since(&self) -> SystemTime {
        self.since
    }

    /// The pod's uid as the container runtime knows it; Talos' own services have none.
    pub(super) fn uid(&self) -> String {
        self.pod.as_ref().map(|pod| format!("{:08x}", crc32fast::hash(pod.as_bytes()))).unwrap_or_default()
    }

    /// The id that the container runtime gave it.
    pub(super) fn internal_id(&self) -> String {
        match (&self.pod, &self.mark) {
            (Some(_), Some(mark)) => mark.clone(),
            (Some(pod), None) => format!("{:012x}", u64::from(crc32fast::hash(pod.as_bytes())) * 65_521),
            _ => self.name.clone(),
        }
    }

    /// Whether it is one of Talos' own services.
    pub(super) fn is_service(&self) -> bool {
        self.pod.is_none()
    }

    pub(super) fn is_sandbox(&self) -> bool {
        self.pod.is_some() && self.mark.is_none()
    }
}

/// All that runs, in an order that stays.
pub(super) fn running(machine: &Machine) -> Vec<Running> {
    let mut all = machine.see(|state| {
        let runs = |id: &&&str| state.services.get(**id).is_some_and(|one| one.state == ServiceState::Running);
        let own = OWN.iter().filter(runs).map(|id| Running {
            name: (*id).to_owned(),
            image: image(state, id),
            pod: None,
            mark: None,
            since: state.booted,
        });
        let mut all: Vec<Running> = own.collect();
        if state.kubernetes {
            let host = state.nodename();
            for (name, pod) in &state.static_pods {
                let place = format!("kube-system/{name}-{host}");
                let mark = format!("{:012x}", u64::from(crc32fast::hash(place.as_bytes())) * 7919);
                all.extend(in_pod(&place, vec![((*name).to_owned(), pod.image.clone(), mark, state.booted)]));
            }
        }
        all
    });
    for pod in of_kubernetes(machine) {
        let place = format!("{}/{}", pods::text(&pod, "/metadata/namespace"), pods::text(&pod, "/metadata/name"));
        let statuses = pod["status"]["containerStatuses"].as_array().into_iter().flatten();
        let containers = statuses.filter_map(|one| {
            let since: jiff::Timestamp = pods::text(one, "/state/running/startedAt").parse().ok()?;
            let mark = pods::text(one, "/containerID").trim_start_matches("containerd://");
            let mark = mark.get(..12).unwrap_or(mark).to_owned();
            let text = |pointer: &str| pods::text(one, pointer).to_owned();
            Some((text("/name"), text("/image"), mark, SystemTime::from(since)))
        });
        all.extend(in_pod(&place, containers.collect()));
    }
    all
}

/// A pod's sandbox and its containers: name, image, id, start.
fn in_pod(place: &str, containers: Vec<(String, String, String, SystemTime)>) -> Vec<Running> {
    let Some(since) = containers.first().map(|(.., since)| *since) else { return Vec::new() };
    let pod = || Some(place.to_owned());
    let sandbox = Running { name: place.to_owned(), image: PAUSE.to_owned(), pod: pod(), mark: None, since };
    let each = containers.into_iter().map(|(name, image, mark, since)| Running {
        name,
        image,
        pod: pod(),
        mark: Some(mark),
        since,
    });
    std::iter::once(sandbox).chain(each).collect()
}

/// The pods of this node that aren't Talos' own.
fn of_kubernetes(machine: &Machine) -> Vec<Value> {
    let runs = |state: &State| state.services.get("kubelet").is_some_and(|one| one.state == ServiceState::Running);
    let (up, own, config, host) =
        machine.see(|state| (runs(state), state.membership.clone(), state.config.clone(), state.nodename()));
    let Some(config) = config.filter(|_| up) else { return Vec::new() };
    let client = own.or_else(|| {
        let servers = machine.room().api_servers(&config.cluster_mark());
        servers.iter().find_map(|one| one.see(|state| state.membership.clone()))
    });
    let Some(client) = client else { return Vec::new() };
    let all = cluster::list(&client, "/registry/pods/").0.into_iter().map(|entry| entry.value);
    all.filter(|pod| pods::node_of(pod) == host && !pods::is_mirror(pod) && !pods::is_over(pod)).collect()
}

fn image(state: &State, id: &str) -> String {
    match id {
        "kubelet" => state.kubelet.clone().unwrap_or_default(),
        "etcd" => format!("registry.k8s.io/etcd:v{}", crate::world::machine::etcd_version(state.version())),
        _ => String::new(),
    }
}

/// Whether the caller asks for the containers of Kubernetes.
fn kubernetes(namespace: &str, driver: i32) -> Result<bool, Status> {
    let driver = ContainerDriver::try_from(driver)
        .map_err(|_| Status::invalid_argument(format!("unsupported driver \"{driver}\"")))?;
    match (namespace, driver) {
        ("", _) => Err(Status::invalid_argument("namespace can't be empty")),
        ("k8s.io", _) => Ok(true),
        (_, ContainerDriver::Cri) => Err(Status::unknown("CRI inspector is supported only for K8s namespace")),
        _ => Ok(false),
    }
}

pub(super) fn listed(machine: &Machine, request: &api::ContainersRequest) -> Result<api::Container, Status> {
    let wanted = kubernetes(&request.namespace, request.driver)?;
    let shown = |(pid, one): (u32, &Running)| {
        let status = match (wanted, one.is_sandbox()) {
            (true, true) => "SANDBOX_READY",
            (true, false) => "CONTAINER_RUNNING",
            _ => "RUNNING",
        };
        let id = one.id();
        api::ContainerInfo {
            namespace: request.namespace.clone(),
            pod_id: one.pod.clone().unwrap_or_else(|| id.clone()),
            id,
            uid: one.uid(),
            internal_id: one.internal_id(),
            image: one.image.clone(),
            pid,
            status: status.to_owned(),
            name: one.name.clone(),
        }
    };
    let all = running(machine);
    let mine = (1000..).step_by(7).zip(&all).filter(|(_, one)| one.pod.is_some() == wanted);
    Ok(api::Container { metadata: None, containers: mine.map(shown).collect() })
}

pub(super) fn usage(machine: &Machine, request: &api::StatsRequest) -> Result<api::Stats, Status> {
    let wanted = kubernetes(&request.namespace, request.driver)?;
    let all = running(machine);
    let stats = all.iter().filter(|one| one.pod.is_some() == wanted).map(|one| {
        let seconds = SystemTime::now().duration_since(one.since).unwrap_or_default().as_secs();
        let id = one.id();
        // A sandbox only waits.
        let (memory, share) = if one.is_sandbox() { (0, 0) } else { (50_000_000, 20_000_000) };
        api::Stat {
            namespace: request.namespace.clone(),
            pod_id: one.pod.clone().unwrap_or_else(|| id.clone()),
            id,
            memory_usage: memory,
            cpu_usage: seconds * share,
            name: one.name.clone(),
        }
    });
    Ok(api::Stats { metadata: None, stats: stats.collect() })
}

/// The log of a container of Kubernetes, by its id or the beginning of it: `kube-system/kube-apiserver-cp-1:kube-apiserver`.
pub(super) fn log(machine: &Machine, id: &str) -> Result<Vec<String>, Status> {
    let all = running(machine);
    let asked = |one: &&Running| {
        one.pod.is_some() && !one.is_sandbox() && (one.id() == id || one.id().starts_with(&format!("{id}:")))
    };
    let found = all.iter().find(asked);
    let one = found.ok_or_else(|| Status::unknown(format!("container \"{id}\" not found")))?;
    let stamp = super::logs::at_nanoseconds(one.since);
    let host = machine.see(State::nodename);
    Ok(vec![
        format!("{stamp} stdout F {} started as {} on {host}", one.name, one.image),
        format!("{stamp} stdout F {} is ready", one.name),
    ])
}
