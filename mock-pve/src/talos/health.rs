//! `cluster.ClusterService`: the health check that runs on a control plane, text by text.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::gate::{self, Need};
use super::node::{Node, control_plane};
use super::proto::cluster as api;
use super::proto::cluster::cluster_service_server::ClusterService;
use crate::world::cluster::{self, objects};
use crate::world::machine::{Machine, MachineType, ServiceState, Stage, State};

/// Talos polls every 5 s.
const INTERVAL: f64 = 5.0;

/// The machines that a check looks at.
struct Nodes {
    control_planes: Vec<String>,
    workers: Vec<String>,
    here: Machine,
}

type Check = (&'static str, fn(&Nodes) -> Verdict);

/// `Ok(true)`: passed; `Ok(false)`: skipped.
type Verdict = Result<bool, String>;

/// In Talos' order since 1.8 (pkg/cluster/check/default.go).
const CHECKS: &[Check] = &[
    ("etcd to be healthy", |nodes| nodes.service(&nodes.control_planes, "etcd")),
    ("etcd members to be consistent across nodes", |nodes| nodes.consistent()),
    ("etcd members to be control plane nodes", |nodes| nodes.members()),
    ("apid to be ready", |nodes| nodes.all(|_| Ok(()))),
    ("all nodes memory sizes", |nodes| nodes.memory()),
    ("all nodes disk sizes", |nodes| nodes.disk()),
    ("no diagnostics", |_| Ok(true)),
    ("kubelet to be healthy", |nodes| nodes.service(&nodes.control_planes, "kubelet")),
    ("all nodes to finish boot sequence", |nodes| {
        nodes.all(|machine| match machine.see(|state| state.stage) {
            Stage::Running => Ok(()),
            stage => Err(format!("expected machine stage \"running\", got \"{}\"", stage.as_str())),
        })
    }),
    ("all k8s nodes to report", |nodes| nodes.registered()),
    ("all control plane static pods to be running", |nodes| nodes.static_pods()),
    ("all control plane components to be ready", |nodes| nodes.components()),
    ("all k8s nodes to report ready", |nodes| nodes.ready()),
    ("kube-proxy to report ready", |nodes| nodes.workload("daemonsets", "kube-proxy")),
    ("coredns to report ready", |nodes| nodes.workload("deployments", "kube-dns")),
    ("all k8s nodes to report schedulable", |nodes| nodes.schedulable()),
];

impl Nodes {
    fn machine(&self, name: &str) -> Result<Machine, String> {
        let found = self.here.room().find(name);
        found.ok_or_else(|| format!("rpc error: code = Unavailable desc = connection error: {name}:50000"))
    }

    fn each(&self, names: &[String], test: impl Fn(&Machine) -> Result<(), String>) -> Verdict {
        for name in names {
            test(&self.machine(name)?).map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(true)
    }

    fn all(&self, test: impl Fn(&Machine) -> Result<(), String>) -> Verdict {
        self.each(&self.control_planes, &test)?;
        self.each(&self.workers, &test)
    }

    fn service(&self, names: &[String], id: &str) -> Verdict {
        self.each(names, |machine| {
            machine.see(|state| match state.services.get(id) {
                Some(service) if service.state == ServiceState::Running && service.healthy != Some(false) => Ok(()),
                Some(service) => Err(format!(
                    "service \"{id}\" not in expected state \"Running\": current state [{}]",
                    service.state.as_str()
                )),
                None => Err(format!("service \"{id}\" not found")),
            })
        })
    }

    fn consistent(&self) -> Verdict {
        let mut first = None;
        self.each(&self.control_planes, |machine| {
            let client = machine.see(|state| state.membership.clone()).ok_or("etcd is not running")?;
            if !client.is_healthy() {
                return Err("etcdserver: no leader".to_owned());
            }
            Ok(())
        })?;
        for name in &self.control_planes {
            let client = self.machine(name)?.see(|state| state.membership.clone()).ok_or("etcd is not running")?;
            let members = client.members();
            if members.iter().any(|member| member.learner) {
                return Err(format!("{name}: etcd member is still a learner"));
            }
            match &first {
                None => first = Some(members),
                Some(known) if *known == members => {}
                Some(_) => return Err("etcd members are not consistent across nodes".to_owned()),
            }
        }
        Ok(true)
    }

    fn members(&self) -> Verdict {
        let membership = self.here.see(|state| state.membership.clone()).ok_or("etcd is not running")?;
        for member in membership.members() {
            if !self.control_planes.contains(&member.address) {
                return Err(format!(
                    "etcd member ips {:?} are not subset of control plane node ips {:?}",
                    [&member.address],
                    self.control_planes
                ));
            }
        }
        Ok(true)
    }

    fn memory(&self) -> Verdict {
        let least = |names: &[String], mib: u64| {
            self.each(names, |machine| {
                let found = machine.hardware().memory_mib * 97 / 100;
                if found >= mib { Ok(()) } else { Err(format!("memory is {found} MiB, expected at least {mib} MiB")) }
            })
        };
        least(&self.control_planes, 1698)?;
        least(&self.workers, 874)
    }

    fn disk(&self) -> Verdict {
        self.all(|machine| {
            let found = machine.see(|state| state.disk_bytes) >> 30;
            if found >= 6 {
                Ok(())
            } else {
                Err(format!("ephemeral partition is {found} GiB, expected at least 6 GiB"))
            }
        })
    }

    /// The cluster's node objects: address, object.
    fn objects(&self) -> Result<Vec<(String, serde_json::Value)>, String> {
        let membership = self.here.see(|state| state.membership.clone().filter(|_| state.kubernetes));
        let membership = membership.ok_or("Get \"/api/v1/nodes\": dial tcp: connect: connection refused")?;
        let nodes = cluster::list(&membership, "/registry/minions/").0.into_iter().map(|entry| entry.value);
        Ok(nodes
            .map(|node| {
                let address = node.pointer("/status/addresses/0/address").and_then(serde_json::Value::as_str);
                (address.unwrap_or_default().to_owned(), node)
            })
            .collect())
    }

    fn registered(&self) -> Verdict {
        let found: Vec<String> = self.objects()?.into_iter().map(|(address, _)| address).collect();
        let mut wanted = self.control_planes.iter().chain(&self.workers);
        match wanted.find(|name| !found.contains(name)) {
            None => Ok(true),
            Some(missing) => Err(format!("can't find expected node with IPs [\"{missing}\"]")),
        }
    }

    fn static_pods(&self) -> Verdict {
        self.each(&self.control_planes, |machine| {
            let up = machine.see(|state| state.kubernetes && !state.static_pods.is_empty());
            if up { Ok(()) } else { Err("missing static pods on node".to_owned()) }
        })
    }

    fn components(&self) -> Verdict {
        self.each(&self.control_planes, |machine| {
            let waits = machine.see(|state| {
                let first = state.static_pods.iter().find(|(_, pod)| !pod.ready).map(|(name, _)| *name);
                first.map(|name| format!("{name}-{}", state.nodename()))
            });
            waits.map_or(Ok(()), |pod| Err(format!("some pods are not ready: [{pod}]")))
        })
    }

    /// The pods of a workload of kube-system; skipped when the cluster has none of that name.
    fn workload(&self, kind: &str, app: &str) -> Verdict {
        let membership = self.here.see(|state| state.membership.clone().filter(|_| state.kubernetes));
        let membership = membership.ok_or("Get \"/api/v1/pods\": dial tcp: connect: connection refused")?;
        let labelled =
            |object: &serde_json::Value| object.pointer("/metadata/labels/k8s-app").is_some_and(|label| label == app);
        let sets = cluster::list(&membership, &format!("/registry/{kind}/kube-system/")).0;
        if !sets.iter().any(|set| labelled(&set.value)) {
            return Ok(false);
        }
        let pods = cluster::list(&membership, "/registry/pods/kube-system/").0;
        let pods: Vec<_> = pods.into_iter().filter(|pod| labelled(&pod.value)).collect();
        if pods.is_empty() {
            return Err(format!("no pods found for namespace \"kube-system\" and label selector \"k8s-app={app}\""));
        }
        let waits: Vec<&str> =
            pods.iter().filter(|pod| !objects::is_ready(&pod.value)).map(cluster::Entry::name).collect();
        if waits.is_empty() { Ok(true) } else { Err(format!("some pods are not ready: [{}]", waits.join(" "))) }
    }

    fn ready(&self) -> Verdict {
        let bad = self.objects()?.into_iter().find(|(_, node)| !objects::is_ready(node));
        bad.map_or(Ok(true), |(address, _)| Err(format!("some nodes are not ready: [{address}]")))
    }

    fn schedulable(&self) -> Verdict {
        let cordoned = |node: &serde_json::Value| node.pointer("/spec/unschedulable") == Some(&true.into());
        let bad = self.objects()?.into_iter().find(|(_, node)| cordoned(node));
        bad.map_or(Ok(true), |(address, _)| Err(format!("some nodes are not schedulable: [{address}]")))
    }
}

#[tonic::async_trait]
impl ClusterService for Node {
    async fn health_check(
        &self,
        request: Request<api::HealthCheckRequest>,
    ) -> Result<Response<BoxStream<api::HealthCheckProgress>>, Status> {
        self.allow(&request, Need::Read)?;
        let here = gate::target(&self.here, &request)?;
        control_plane(&here, "cluster health check")?;
        let wanted = request.into_inner();
        let info = wanted.cluster_info.unwrap_or_default();
        let given = !info.control_plane_nodes.is_empty() || !info.worker_nodes.is_empty();
        let (control_planes, workers) =
            if given { (info.control_plane_nodes, info.worker_nodes) } else { discover(&here) };
        let limit = wanted.wait_timeout.and_then(|limit| Duration::try_from(limit).ok()).unwrap_or_default();
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let nodes = Nodes { control_planes, workers, here };
            let timeout = tokio::time::timeout(limit, run(&nodes, &sender));
            if timeout.await.is_err() {
                let _ = sender.send(Err(Status::deadline_exceeded("context deadline exceeded")));
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver).boxed()))
    }
}

async fn run(nodes: &Nodes, to: &mpsc::UnboundedSender<Result<api::HealthCheckProgress, Status>>) {
    // A client that is gone isn't told anything more; the next wait ends with it.
    let say = |message: String| to.send(Ok(api::HealthCheckProgress { metadata: None, message })).is_ok();
    let quoted: Vec<String> =
        nodes.control_planes.iter().chain(&nodes.workers).map(|name| format!("\"{name}\"")).collect();
    let _ = say(format!("discovered nodes: [{}]", quoted.join(" ")));
    for (what, check) in checks(nodes.here.see(|state| state.version().minor)) {
        let _ = say(format!("waiting for {what}: ..."));
        let mut last = String::new();
        loop {
            match check(nodes) {
                Ok(passed) => {
                    let _ = say(format!("waiting for {what}: {}", if passed { "OK" } else { "SKIP" }));
                    break;
                }
                Err(why) if why != last => {
                    let _ = say(format!("waiting for {what}: {why}"));
                    last = why;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = nodes.here.world().clock().sleep(INTERVAL) => {}
                () = to.closed() => return,
            }
        }
    }
}

/// The checks of a Talos: before 1.8 there were no diagnostics, and nodes had to be ready before their pods.
fn checks(minor: u32) -> Vec<Check> {
    let mut all = CHECKS.to_vec();
    if minor < 8 {
        all.retain(|(what, _)| *what != "no diagnostics");
        let place = |all: &[Check], wanted: &str| all.iter().position(|(what, _)| *what == wanted);
        let (from, to) =
            (place(&all, "all k8s nodes to report ready"), place(&all, "all control plane static pods to be running"));
        if let (Some(from), Some(to)) = (from, to) {
            let moved = all.remove(from);
            all.insert(to, moved);
        }
    }
    all
}

/// By discovery if that is on, else by the node objects; here simply the machines with the same secrets.
fn discover(here: &Machine) -> (Vec<String>, Vec<String>) {
    let Some(config) = here.see(|state| state.config.clone()) else { return (Vec::new(), Vec::new()) };
    let (mut control_planes, mut workers) = (Vec::new(), Vec::new());
    for machine in here.room().cluster(&config.cluster_mark()) {
        let Some(address) = machine.see(State::address) else { continue };
        match machine.see(State::machine_type) {
            Some(MachineType::ControlPlane) => control_planes.push(address.to_string()),
            _ => workers.push(address.to_string()),
        }
    }
    (control_planes, workers)
}
