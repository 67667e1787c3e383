//! A machine as a member of etcd: by its disk, by joining, or because somebody bootstraps it.

use std::path::Path;

use super::command::Bootstrap;
use super::config::NodeConfig;
use super::life::{Boot, chain, chance};
use super::state::ServiceState;
use crate::etcd::{
    self, Change, Client, Entry, Ephemeral, EtcdError, KeptError, Member, Original, Replica, Stop, Store,
};

/// Seconds until etcd's process is up.
const ETCD: f64 = 3.0;
/// Seconds between attempts to become a voter.
const PROMOTE: f64 = 2.0;

impl Boot {
    /// Until this machine is a running member with a vote, in a cluster that has a leader.
    pub(super) async fn etcd(&self, config: &NodeConfig) {
        let machine = &self.machine;
        let path = self.path();
        if machine.see(|state| state.services.get("etcd").is_some_and(|one| one.state == ServiceState::Finished)) {
            // It left the cluster, and stays out until it boots again.
            return std::future::pending().await;
        }
        machine.service("etcd", ServiceState::Preparing, None, "Running pre state");
        let known = match etcd::read(&path) {
            Ok(known) => known,
            Err(error) => return self.failed(&chain(&error)).await,
        };
        self.sleep(ETCD).await;
        let (client, entry) = if let Some(replica) = known {
            let id = replica.id();
            let etcd = machine.world().etcd(replica.cluster(), replica.mark());
            if etcd.start(replica).is_err() {
                return self.failed("the member has been permanently removed from the cluster").await;
            }
            (Client { etcd, id }, Entry::First)
        } else {
            // What a process of an earlier member left is nothing to the next one.
            machine.world().forget_original(machine.vmid()).await;
            loop {
                if let Some(how) = machine.see(|state| state.bootstrapping) {
                    match self.bootstrap(config, &path, how) {
                        Ok(client) => break (client, Entry::First),
                        Err(why) => return self.failed(&why).await,
                    }
                }
                if let Some(client) = self.join(config, &path).await {
                    break (client, Entry::Joins);
                }
                self.wait().await;
            }
        };
        machine.update(|state| state.membership = Some(client.clone()));
        if let Err(why) = self.begin_original(&client, entry) {
            return self.failed(&why).await;
        }
        machine.service("etcd", ServiceState::Running, None, "Started task etcd");
        self.become_voter(&client).await;
        machine.service("etcd", ServiceState::Running, Some(true), "Health check successful");
        machine.says("[talos] etcd is running");
    }

    async fn failed(&self, why: &str) {
        self.machine.service("etcd", ServiceState::Failed, Some(false), why);
        self.machine.says(&format!("[talos] service[etcd] failed: {why}"));
        std::future::pending::<()>().await;
    }

    /// Says its name, and asks for a vote until it has one.
    async fn become_voter(&self, client: &Client) {
        loop {
            let known = client.members().into_iter().find(|member| member.id == client.id);
            let name = self.machine.see(super::state::State::hostname);
            let next = match known {
                Some(member) if client.is_healthy() && member.name != name => Change::Publish { id: client.id, name },
                Some(member)
                    if client.is_healthy() && member.learner && self.machine.has_well_original(Original::votes) =>
                {
                    Change::Promote(client.id)
                }
                Some(member) if !member.learner && self.machine.is_member_well(client) => return,
                _ => {
                    self.wait().await;
                    continue;
                }
            };
            if let Err(error) = client.change(next).await {
                tracing::debug!(%error, "a member isn't a voter yet");
                self.machine.world().clock().sleep(PROMOTE).await;
            }
        }
    }

    fn member(&self) -> Member {
        let id = chance(self.machine.world());
        self.machine.see(|state| Member {
            id,
            name: state.hostname(),
            address: state.address().map(|address| address.to_string()).unwrap_or_default(),
            learner: false,
        })
    }

    /// A new cluster, of this machine alone.
    fn bootstrap(&self, config: &NodeConfig, path: &Path, how: Bootstrap) -> Result<Client, String> {
        let store = match how {
            Bootstrap::Fresh => Store::default(),
            Bootstrap::Recover(check) => {
                self.machine.says("[talos] recovering etcd from snapshot");
                let upload = etcd::kept_upload(path).map_err(|error| chain(&error))?;
                let upload = upload.ok_or(
                    "error recovering etcd: failed to open snapshot: open /var/lib/etcd.snapshot: no such file or directory",
                )?;
                etcd::restore(&upload, check).map_err(|error| format!("error recovering etcd: {}", chain(&error)))?
            }
        };
        let member = self.member();
        let (id, cluster) = (member.id, chance(self.machine.world()));
        let made = || -> Result<Replica, KeptError> {
            let disk = Box::new(Ephemeral::on(path)?);
            let replica = Replica::first(cluster, config.etcd_mark(), member, store, disk)?;
            etcd::keep_upload(path, None)?;
            Ok(replica)
        };
        let replica = made().map_err(|error| chain(&error))?;
        let etcd = self.machine.world().etcd(cluster, replica.mark());
        etcd.start(replica).map_err(|error| error.to_string())?;
        Ok(Client { etcd, id })
    }

    /// Joins a cluster of the same secrets, as a learner; `None` while there is none, or it doesn't take anybody.
    async fn join(&self, config: &NodeConfig, path: &Path) -> Option<Client> {
        let mark = config.etcd_mark();
        let peers = self.machine.room().cluster(&config.cluster_mark());
        let clients = peers.iter().filter_map(|peer| peer.see(|state| state.membership.clone()));
        let peer = clients.into_iter().find(|client| client.etcd.mark() == mark && client.is_healthy())?;
        let member = self.member();
        let same = peer.etcd.members().into_iter().find(|known| known.address == member.address);
        // Added before, and went down before it started.
        let id = if let Some(known) = same {
            known.id
        } else {
            let learner = Member { name: String::new(), learner: true, ..member.clone() };
            if let Err(error) = peer.change(Change::AddLearner(learner)).await {
                if error != EtcdError::TooManyLearners {
                    self.machine.says(&format!("[talos] joining etcd failed: {error}"));
                }
                return None;
            }
            member.id
        };
        let made = || -> Result<Replica, KeptError> {
            Replica::joining(peer.etcd.id(), mark.clone(), id, Box::new(Ephemeral::on(path)?))
        };
        match made() {
            Ok(replica) => peer.etcd.start(replica).ok().map(|()| Client { etcd: peer.etcd.clone(), id }),
            Err(error) => {
                self.machine.says(&format!("[talos] joining etcd failed: {}", chain(&error)));
                None
            }
        }
    }

    /// Keeps etcd's health up to date, and notices when the member was removed.
    pub(super) async fn watch_etcd(&self) -> std::convert::Infallible {
        let machine = &self.machine;
        loop {
            self.wait().await;
            let Some(client) = machine.see(|state| state.membership.clone()) else { continue };
            if client.etcd.is_removed(client.id) {
                machine.update(|state| (state.membership, state.kubernetes) = (None, false));
                machine.world().stop_member(&client);
                machine.world().stop_original(machine.vmid(), Stop::Cut);
                machine.service(
                    "etcd",
                    ServiceState::Failed,
                    Some(false),
                    "the member has been permanently removed from the cluster",
                );
                continue;
            }
            let healthy = Some(machine.is_member_well(&client));
            let known = machine.see(|state| state.services.get("etcd").map(|one| one.healthy));
            if known.is_some_and(|known| known != healthy) {
                machine.update(|state| {
                    if let Some(service) = state.services.get_mut("etcd") {
                        service.healthy = healthy;
                    }
                });
            }
        }
    }

    /// Out of the cluster, with nothing left on the disk.
    pub(super) async fn leave_etcd(&self) {
        let client = self.machine.update(|state| state.membership.take());
        if let Some(client) = client {
            self.machine.world().stop_member(&client);
        }
        if let Err(error) = etcd::forget(&self.path()) {
            self.machine.says(&format!("[talos] {}", chain(&error)));
        }
        self.machine.world().forget_original(self.machine.vmid()).await;
        self.machine.service("etcd", ServiceState::Finished, None, "Service finished successfully");
    }
}
