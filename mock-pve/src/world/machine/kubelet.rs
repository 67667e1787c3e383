//! A machine as a Kubernetes node; and what the control plane does on the machine that leads: controllers, and the shared
//! address.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::config::{MachineType, NodeConfig};
use super::event::What;
use super::identity::Identity;
use super::life::Boot;
use super::signing;
use super::state::Stage;
use super::versions::default_kubernetes;
use crate::disk::minor;
use crate::etcd::{Change, Client, EtcdError, Store};
use crate::world::cluster;
use crate::world::cluster::controllers::{Circumstances, Controllers};
use crate::world::cluster::events::{self, News};
use crate::world::cluster::kubelet::{Kubelet, Place};
use crate::world::cluster::leases;
use crate::world::cluster::manifests::{self, Ingredients};
use crate::world::cluster::objects::{self, Keyed, NodeFacts, Readiness};
use crate::world::cluster::view::{Round, Time, Write};

/// Seconds until a node that registered says it is ready.
const NODE_READY: f64 = 6.0;
/// Seconds between two renewals of a node's lease.
const RENEW: f64 = 10.0;
/// Seconds after which controllers and kubelets look again although they heard nothing.
const LOOK: f64 = 2.0;
/// Seconds that they let pass before they look at what they heard of: there may be more.
const GATHER: f64 = 0.25;
/// How many events are written at a time.
const AT_ONCE: usize = 32;
/// Kubernetes has etcd forget what is older than that.
const COMPACT: f64 = 300.0;
/// Seconds for which events are kept; however fast time passes, people want to read them.
const TOLD: f64 = 3600.0;
const LEAST_TOLD: Duration = Duration::from_mins(10);
/// Seconds for which a shared address stays with a machine that isn't heard of: the lease's time in Talos' election.
const LEASE: f64 = 60.0;
/// The looks at its own etcd, one a second, after which a machine that holds one gives it back.
const LOOKS: u32 = 60;

/// Those that look after a node and its cluster.
struct Staff {
    kubelet: Kubelet,
    controllers: Controllers,
    /// The revision that was last looked at, and when to look again although nothing changed.
    looked: Option<u64>,
    next: Option<Instant>,
}

impl Staff {
    /// Not all was written: everything is looked at once more.
    fn again(&mut self) {
        self.looked = None;
        self.kubelet.again();
        self.controllers.again();
    }
}

impl Boot {
    /// The API server starts; the first one of a cluster makes what every cluster has.
    pub(super) async fn control_plane(&self, config: &NodeConfig) -> Result<(), EtcdError> {
        let machine = &self.machine;
        let Some(client) = machine.see(|state| state.membership.clone()) else { return Ok(()) };
        client.catch_up().await?;
        let seed = uid_seed(&client);
        if cluster::get(&client, &objects::key("namespaces", None, "kube-system")).is_none() {
            write(&client, objects::begin(&seed, &self.ingredients(config))).await?;
        } else {
            let known = |key: &str| cluster::get(&client, key).map(|entry| entry.value);
            write(&client, manifests::missing(&self.ingredients(config), &seed, known)).await?;
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
        let name = machine.see(super::State::nodename);
        let controllers = Controllers::default();
        let kubelet = Kubelet::new(&name);
        let kubelet = if self.is_slow() { kubelet } else { kubelet.from_the_beginning() };
        let mut staff = Staff { kubelet, controllers, looked: None, next: None };
        let mut renewed = Instant::now();
        let mut compacted = (Instant::now(), 0);
        let clock = machine.world().clock();
        loop {
            let Some(client) = self.any_api() else {
                // Nobody could be heard of in the meantime.
                staff.controllers.rest();
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
            let revision = client.view(Store::revision);
            if let Err(error) = self.look_after(config, &client, &mut staff).await {
                tracing::debug!(%error, "controllers have to wait");
            }
            if self.leads(&client) && compacted.0.elapsed() >= clock.scaled(COMPACT) {
                if compacted.1 > 0 {
                    let _ = client.change(Change::Compact(compacted.1)).await;
                }
                if let Err(error) = events::forget(&client, clock.scaled(TOLD).max(LEAST_TOLD)).await {
                    tracing::debug!(%error, "old events stay for now");
                }
                compacted = (Instant::now(), revision.unwrap_or_default());
            }
            let mut changes = client.etcd.changes();
            let later = Instant::now() + clock.scaled(LOOK);
            let until = staff.next.map_or(later, |next| next.min(later));
            if client.view(Store::revision) == staff.looked {
                let _ = tokio::time::timeout_at(until.into(), changes.changed()).await;
            }
            clock.sleep(GATHER).await;
        }
    }

    /// What the bootstrap manifests are made of here.
    pub(super) fn ingredients(&self, config: &NodeConfig) -> Ingredients {
        config.ingredients(self.machine.see(super::State::version))
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
        if !self.is_slow() {
            put(Readiness::Ready).await?;
            return self.uncordon(client).await;
        }
        let (name, boot_id) = self.machine.see(|state| (state.nodename(), state.boot_id.clone()));
        let before = cluster::get(client, &objects::key("minions", None, &name));
        put(Readiness::NotReady).await?;
        let mut news = vec![News::of_node(&name, "Starting", "Starting kubelet.")];
        let well = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
        news.extend(well.map(|reason| status_is(&name, reason)));
        let known = before.as_ref().and_then(|node| node.value.pointer("/status/nodeInfo/bootID")?.as_str());
        if known.is_some_and(|known| known != boot_id) {
            let why = format!("Node {name} has been rebooted, boot id: {boot_id}");
            news.push(News::of_node(&name, "Rebooted", why).warns());
            if before.as_ref().is_some_and(|node| objects::is_ready(&node.value)) {
                news.push(status_is(&name, "NodeNotReady"));
            }
        }
        news.push(News::of_node(&name, "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"));
        tell(client, &news).await?;
        self.sleep(NODE_READY).await;
        put(Readiness::Ready).await?;
        tell(client, &[status_is(&name, "NodeReady")]).await?;
        self.uncordon(client).await
    }

    fn node_object(&self, old: Option<Value>, facts: &NodeFacts, client: &Client) -> Keyed {
        let (key, mut node) = objects::node(old, facts, &uid_seed(client));
        let (kernel, recipe) = self.machine.see(|state| (state.kernel(), state.recipe.clone()));
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
        machine.says(&format!("[talos] node {} is ready", machine.see(super::State::nodename)));
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

    /// Says that the node lives; and on a control plane that its API server does, and who of the others works.
    async fn renew(&self, client: &Client) -> Result<(), EtcdError> {
        let (name, boot_id, serves) =
            self.machine.see(|state| (state.nodename(), state.boot_id.clone(), state.kubernetes));
        let seed = uid_seed(client);
        let old = |key: &str| cluster::get(client, key).map(|entry| entry.value);
        let node = objects::key("leases", Some("kube-node-lease"), &name);
        let mut all = vec![leases::node(old(&node), &name, &seed)];
        if serves {
            all.push(leases::server(old(&leases::server_key(&name)), &name, &boot_id, &seed));
        }
        if self.leads(client) {
            all.extend(
                leases::ELECTED
                    .map(|one| leases::election(old(&leases::election_key(one)), one, &name, &boot_id, &seed)),
            );
        }
        write(client, all).await
    }

    /// Whether this machine is the one whose controllers work.
    fn leads(&self, client: &Client) -> bool {
        let mine = self.machine.see(|state| state.membership.as_ref().map(|mine| mine.id).filter(|_| state.kubernetes));
        mine.is_some() && client.etcd.leader() == mine
    }

    async fn look_after(&self, config: &NodeConfig, client: &Client, staff: &mut Staff) -> Result<(), EtcdError> {
        let revision = client.view(Store::revision);
        let due = staff.next.is_some_and(|next| Instant::now() >= next);
        let leads = self.leads(client);
        if !leads {
            staff.controllers.rest();
        }
        if staff.looked == revision && !due {
            return Ok(());
        }
        let clock = self.machine.world().clock();
        let place = self.machine.see(|state| Place {
            node: state.nodename(),
            address: state.address().map(|address| address.to_string()).unwrap_or_default(),
            boot_id: state.boot_id.clone(),
        });
        let seed = uid_seed(client);
        let mut round = staff.kubelet.look(client, &place, &self.broken_pods(), Time::Runs(clock));
        // Called unknown by mistake, or because nobody heard of it for a while: its status is posted again.
        if let Some(node) = staff.kubelet.node().filter(|node| !objects::is_ready(&node.value)) {
            let facts = self.facts(config, Readiness::Ready);
            let (_, value) = self.node_object(Some(node.value.clone()), &facts, client);
            round.update(node, value);
            round.tell(status_is(&place.node, "NodeReady"));
        }
        if leads {
            let authority = config.kubernetes_ca();
            if let Err(error) = signing::sign(client, &authority).await {
                staff.again();
                return Err(error);
            }
            let now = Circumstances { time: Time::Runs(clock), seed: &seed, authority: &authority.certificate };
            let Round { writes, news, next } = staff.controllers.look(client, now);
            round.writes.extend(writes);
            round.news.extend(news);
            if let Some(next) = next {
                round.wake(next);
            }
        }
        (staff.looked, staff.next) = (revision, round.next);
        let mut told = round.news;
        let mut done = BTreeSet::new();
        for Write { key, value, expected, news } in round.writes {
            // A second write to the same object waits for the next look.
            if !done.insert(key.clone()) {
                staff.again();
                continue;
            }
            let written = match value {
                Some(value) => cluster::put(client, &key, &value, Some(expected)).await,
                None => client.delete(&key, Some(expected)).await,
            };
            match written {
                Ok(_) => told.extend(news),
                Err(EtcdError::Conflict(_)) => {}
                Err(error) => {
                    staff.again();
                    return Err(error);
                }
            }
        }
        tell(client, &told).await
    }

    pub(super) fn facts(&self, config: &NodeConfig, readiness: Readiness) -> NodeFacts {
        let hardware = self.machine.hardware();
        let control_plane = config.machine_type() == MachineType::ControlPlane;
        self.machine.see(|state| NodeFacts {
            name: state.nodename(),
            address: state.address().map(|address| address.to_string()).unwrap_or_default(),
            control_plane,
            tainted: control_plane && !config.schedules_on_control_planes(),
            talos: state.tag().to_owned(),
            kubernetes: config.kubernetes().unwrap_or_else(|| default_kubernetes(state.version()).to_owned()),
            boot_id: state.boot_id.clone(),
            machine_id: state.identity.map(Identity::machine_id).unwrap_or_default(),
            uuid: hardware.uuid.clone(),
            cores: hardware.cores,
            memory_mib: hardware.memory_mib,
            readiness,
        })
    }

    /// Takes part in the elections for the cluster's shared addresses, as every control plane does.
    pub(super) async fn share(&self, config: &NodeConfig) -> std::convert::Infallible {
        let machine = &self.machine;
        let room = machine.room();
        let addresses = config.shared_addresses();
        room.release(machine.vmid(), &addresses);
        let patience: Duration = machine.world().clock().scaled(LEASE);
        // For how many looks in a row its etcd was ill. Looks are counted, not time: a machine that gets no processor to
        // look with loses nothing by that, as the original's lease is kept alive by a task of its own.
        let mut ill = 0;
        loop {
            let client = machine.see(|state| state.membership.clone().filter(|_| state.kubernetes));
            let healthy = client.filter(Client::is_healthy);
            ill = if healthy.is_some() { 0 } else { ill + 1 };
            let lost = if ill >= LOOKS { room.shared(machine.vmid()) } else { Vec::new() };
            if !lost.is_empty() {
                room.release(machine.vmid(), &[]);
                for address in lost {
                    machine.says(&format!("[talos] removed shared IP {address}"));
                }
                self.tell_agent();
            }
            for address in &addresses {
                let wanted = !room.holds(*address, machine.vmid()) && room.is_free(*address, patience);
                if let Some(client) = healthy.as_ref().filter(|_| wanted) {
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

/// A kubelet's news of what its node's status is now.
fn status_is(node: &str, reason: &'static str) -> News {
    News::of_node(node, reason, format!("Node {node} status is now: {reason}"))
}

async fn tell(client: &Client, news: &[News]) -> Result<(), EtcdError> {
    // Who tells of a hundred pods doesn't wait for each.
    for some in news.chunks(AT_ONCE) {
        futures_util::future::try_join_all(some.iter().map(|one| events::post(client, one))).await?;
    }
    Ok(())
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
