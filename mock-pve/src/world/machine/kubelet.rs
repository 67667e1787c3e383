//! A machine as a Kubernetes node; and what the control plane does on the machine that leads: controllers, and the shared
//! address.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::config::{MachineType, NodeConfig};
use super::life::Boot;
use super::state::{Stage, What};
use super::versions::{self, default_kubernetes};
use crate::disk::minor;
use crate::etcd::{Change, Client, EtcdError};
use crate::world::cluster::objects::{self, Keyed, NodeFacts, Readiness};
use crate::world::cluster::workloads::{View, Write};
use crate::world::cluster::{self, Entry};

/// Seconds until a node that registered says it is ready.
const NODE_READY: f64 = 6.0;
/// Seconds between two renewals of a node's lease.
const RENEW: f64 = 10.0;
/// How long the node controller waits before it calls a node unknown.
const NODE_GRACE: f64 = 40.0;
/// However fast time passes: a busy computer delays kubelets.
const LEAST_GRACE: Duration = Duration::from_secs(4);
/// Seconds between two looks of controllers and kubelets.
const LOOK: f64 = 2.0;
/// Kubernetes has etcd forget what is older than that.
const COMPACT: f64 = 300.0;
/// Seconds for which a shared address stays with a machine that isn't heard of: the lease's time in Talos' election.
const LEASE: f64 = 60.0;

/// What the node controller remembers of a node: its lease's revision, and since when.
type Heard = BTreeMap<String, (u64, Instant)>;

impl Boot {
    /// The API server starts; the first one of a cluster makes what every cluster has.
    pub(super) async fn control_plane(&self, config: &NodeConfig) -> Result<(), EtcdError> {
        let machine = &self.machine;
        let Some(client) = machine.see(|state| state.membership.clone()) else { return Ok(()) };
        client.catch_up().await?;
        let seed = uid_seed(&client);
        if cluster::get(&client, &objects::key("namespaces", None, "kube-system")).is_none() {
            write(&client, objects::begin(&seed, &self.facts(config, Readiness::NotReady).kubernetes)).await?;
        }
        self.first_pods(config);
        machine.says("[talos] kube-apiserver is healthy");
        machine.update(|state| state.kubernetes = true);
        if let Some(written) = self.mirror(config, None).await {
            written?;
        }
        let mut addresses: Vec<String> = Vec::new();
        for server in machine.room().api_servers(&config.cluster_mark()) {
            addresses.extend(server.see(|state| state.address().map(|address| address.to_string())));
        }
        write(&client, [objects::endpoints(&addresses, &seed)]).await
    }

    /// Registers the node and keeps it alive, for ever; on the machine that leads etcd, looks after the others.
    pub(super) async fn node(&self, config: &NodeConfig) -> std::convert::Infallible {
        let machine = &self.machine;
        let mut registered = machine.see(|state| state.node_ready);
        let mut running = BTreeSet::new();
        let mut heard = Heard::new();
        let mut looked = None;
        let mut renewed = Instant::now();
        let mut compacted = (Instant::now(), 0);
        let clock = machine.world().clock();
        loop {
            let Some(client) = self.any_api() else {
                // Nobody could be heard of in the meantime.
                heard.clear();
                if config.machine_type() == MachineType::Worker && machine.see(|state| state.stage == Stage::Booting) {
                    self.is_up();
                }
                self.wait().await;
                continue;
            };
            if !registered {
                match self.register(config, &client).await {
                    Ok(()) => {
                        registered = true;
                        renewed = Instant::now();
                        self.is_ready();
                    }
                    Err(error) => tracing::debug!(%error, "a node can't register yet"),
                }
                self.wait().await;
                continue;
            }
            if machine.see(|state| state.unproven && state.stage == Stage::Running && state.status().ready) {
                machine.proven();
            }
            if renewed.elapsed() >= clock.scaled(RENEW) && self.renew(&client).await.is_ok() {
                renewed = Instant::now();
            }
            let revision = client.status().map(|status| status.revision);
            if looked != revision {
                looked = revision;
                let worked = self.look_after(config, &client, &mut running, &mut heard).await;
                if let Err(error) = worked {
                    tracing::debug!(%error, "controllers have to wait");
                }
            }
            if self.leads(&client) && compacted.0.elapsed() >= clock.scaled(COMPACT) {
                if compacted.1 > 0 {
                    let _ = client.change(Change::Compact(compacted.1)).await;
                }
                compacted = (Instant::now(), revision.unwrap_or_default());
            }
            clock.sleep(LOOK).await;
        }
    }

    /// A node object that says ready, and a lease.
    async fn register(&self, config: &NodeConfig, client: &Client) -> Result<(), EtcdError> {
        let put = async |readiness| {
            let facts = self.facts(config, readiness);
            let old = cluster::get(client, &objects::key("minions", None, &facts.name)).map(|entry| entry.value);
            write(client, [self.node_object(old, &facts, client)]).await
        };
        client.catch_up().await?;
        self.renew(client).await?;
        if self.is_slow() {
            put(Readiness::NotReady).await?;
            self.sleep(NODE_READY).await;
        }
        put(Readiness::Ready).await?;
        self.uncordon(client).await
    }

    fn node_object(&self, old: Option<Value>, facts: &NodeFacts, client: &Client) -> Keyed {
        let (key, mut node) = objects::node(old, facts, &uid_seed(client));
        let (kernel, recipe) = self.machine.see(|state| (versions::kernel(state.version()), state.recipe.clone()));
        node["status"]["nodeInfo"]["kernelVersion"] = json!(kernel);
        let recipe = recipe.filter(|recipe| minor(&recipe.version) >= 8);
        // Since 1.8 extensions are labels, and the schematic is an annotation.
        if let Some(labels) = node["metadata"]["labels"].as_object_mut() {
            labels.retain(|key, _| !key.starts_with("extensions.talos.dev/"));
        }
        for extension in recipe.iter().flat_map(|recipe| &recipe.extensions) {
            let name = extension.name.rsplit('/').next().unwrap_or_default();
            node["metadata"]["labels"][format!("extensions.talos.dev/{name}")] = json!(extension.version);
        }
        if let Some(recipe) = recipe.filter(|recipe| !recipe.schematic.is_empty()) {
            node["metadata"]["annotations"]["extensions.talos.dev/schematic"] = json!(recipe.schematic);
        }
        (key, node)
    }

    fn is_ready(&self) {
        let machine = &self.machine;
        machine.says(&format!("[talos] node {} is ready", machine.see(super::State::hostname)));
        machine.update(|state| state.node_ready = true);
        self.is_up();
    }

    /// The boot sequence is through.
    fn is_up(&self) {
        let machine = &self.machine;
        let booting = machine.see(|state| state.stage == Stage::Booting);
        if booting {
            machine.happened("", What::Sequence("boot", false));
            machine.update(|state| state.stage = Stage::Running);
        }
    }

    async fn renew(&self, client: &Client) -> Result<(), EtcdError> {
        let name = self.machine.see(super::State::hostname);
        let key = objects::key("leases", Some("kube-node-lease"), &name);
        let old = cluster::get(client, &key).map(|entry| entry.value);
        write(client, [objects::lease(old, &name, &uid_seed(client))]).await
    }

    /// Whether this machine is the one whose controllers work.
    fn leads(&self, client: &Client) -> bool {
        let mine = self.machine.see(|state| state.membership.as_ref().map(|mine| mine.id).filter(|_| state.kubernetes));
        mine.is_some() && client.etcd.leader() == mine
    }

    async fn look_after(
        &self,
        config: &NodeConfig,
        client: &Client,
        running: &mut BTreeSet<String>,
        heard: &mut Heard,
    ) -> Result<(), EtcdError> {
        let view = View::of(|prefix| cluster::list(client, prefix).0);
        let (name, address) = self
            .machine
            .see(|state| (state.hostname(), state.address().map(|address| address.to_string()).unwrap_or_default()));
        let broken = self.broken_pods();
        let mut writes = view.started(&name, &address, running);
        writes.retain(|write| !broken.contains(&write.key));
        // Called unknown by mistake, or because nobody heard of it for a while: its status is posted again.
        if let Some(node) = view.nodes.iter().find(|node| node.name() == name && !objects::is_ready(&node.value)) {
            let facts = self.facts(config, Readiness::Ready);
            let (key, value) = self.node_object(Some(node.value.clone()), &facts, client);
            writes.push(Write { key, value: Some(value), expected: node.modified });
        }
        if self.leads(client) {
            writes.extend(view.reconcile(&uid_seed(client)));
            let leases = cluster::list(client, "/registry/leases/kube-node-lease/").0;
            writes.extend(self.silent(&view.nodes, &leases, heard));
        } else {
            heard.clear();
        }
        let mut done = BTreeSet::new();
        for Write { key, value, expected } in writes {
            // A second write to the same object waits for the next look.
            if !done.insert(key.clone()) {
                continue;
            }
            let written = match value {
                Some(value) => cluster::put(client, &key, &value, Some(expected)).await,
                None => client.delete(&key, Some(expected)).await,
            };
            match written {
                Ok(_) | Err(EtcdError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Nodes that weren't heard of for too long become unknown.
    fn silent(&self, nodes: &[Entry], leases: &[Entry], heard: &mut Heard) -> Vec<Write> {
        let grace = self.machine.world().clock().scaled(NODE_GRACE).max(LEAST_GRACE);
        heard.retain(|name, _| nodes.iter().any(|node| node.name() == name));
        let mut writes = Vec::new();
        for node in nodes {
            let lease = leases.iter().find(|lease| lease.name() == node.name()).map_or(0, |lease| lease.modified);
            let known = heard.entry(node.name().to_owned()).or_insert_with(|| (lease, Instant::now()));
            if known.0 != lease {
                *known = (lease, Instant::now());
            }
            if known.1.elapsed() >= grace && objects::is_ready(&node.value) {
                let mut value = node.value.clone();
                objects::set_readiness(&mut value, Readiness::Unknown);
                writes.push(Write { key: node.key.clone(), value: Some(value), expected: node.modified });
            }
        }
        writes
    }

    pub(super) fn facts(&self, config: &NodeConfig, readiness: Readiness) -> NodeFacts {
        let hardware = self.machine.hardware();
        let control_plane = config.machine_type() == MachineType::ControlPlane;
        self.machine.see(|state| NodeFacts {
            name: state.hostname(),
            address: state.address().map(|address| address.to_string()).unwrap_or_default(),
            control_plane,
            tainted: control_plane && !config.schedules_on_control_planes(),
            talos: state.tag().to_owned(),
            kubernetes: config.kubernetes().unwrap_or_else(|| default_kubernetes(state.version()).to_owned()),
            boot_id: state.boot_id.clone(),
            uuid: hardware.uuid.clone(),
            cores: hardware.cores,
            memory_mib: hardware.memory_mib,
            readiness,
        })
    }

    /// Takes part in the elections for the cluster's shared addresses, as every control plane does.
    pub(super) async fn share(&self, config: &NodeConfig) -> std::convert::Infallible {
        let machine = &self.machine;
        let addresses = config.shared_addresses();
        let patience: Duration = machine.world().clock().scaled(LEASE);
        loop {
            for address in &addresses {
                let client = machine.see(|state| state.membership.clone().filter(|_| state.kubernetes));
                let healthy = client.filter(Client::is_healthy);
                let room = machine.room();
                if room.holds(*address, machine.vmid()) {
                    if healthy.is_some() {
                        room.take(*address, machine.vmid(), patience);
                    } else if !room.is_held(*address, patience) {
                        room.release(machine.vmid());
                        machine.says(&format!("[talos] removed shared IP {address}"));
                        self.tell_agent();
                    }
                } else if let Some(client) = healthy.filter(|_| !room.is_held(*address, patience)) {
                    let key = format!("talos:v1:vip:election:{address}");
                    let name = machine.see(super::State::hostname);
                    let won = client.put(&key, bytes::Bytes::from(name), None).await.is_ok();
                    if won && room.take(*address, machine.vmid(), patience) {
                        machine.says(&format!("[talos] enabled shared IP {address}"));
                        self.tell_agent();
                    }
                }
            }
            self.wait().await;
        }
    }
}

async fn write(client: &Client, objects: impl IntoIterator<Item = Keyed>) -> Result<(), EtcdError> {
    for (key, value) in objects {
        cluster::put(client, &key, &value, None).await?;
    }
    Ok(())
}

/// UIDs of Kubernetes objects follow from the etcd cluster they were first made in.
pub(super) fn uid_seed(client: &Client) -> String {
    format!("{:016x}", client.etcd.id())
}
