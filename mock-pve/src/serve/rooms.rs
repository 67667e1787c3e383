//! The parts beside the PVE API: SSH, the Image Factory, the machines and their Kubernetes API.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::StartError;
use super::certificates::Authority;
use super::node::OnNode;
use super::ready::ReadySsh;
use crate::factory::{self, Delivery, Factory};
use crate::pve;
use crate::scenario::Hands;
use crate::ssh::{Keys, Sshd};
use crate::talos::Machines;
use crate::world::World;
use crate::world::machine::{Machine, Room};

/// Starts the factory beside the API and answers with its URL.
pub(super) async fn factory(
    world: &World,
    authority: &Authority,
    ip: IpAddr,
    tasks: &mut JoinSet<()>,
) -> Result<String, StartError> {
    let seed = &world.seed().factory;
    let factory = Factory::new(factory::Options {
        dir: world.dir().join("factory"),
        versions: seed.talos_versions.clone(),
        schematics: seed.schematics.clone(),
        delivery: Delivery::default(),
        world: Some(world.clone()),
    })?;
    world.use_registry(factory.registry().clone());
    let address = SocketAddr::new(ip, 0);
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let leaf = authority.leaf("factory", &[ip])?;
    tasks.spawn(factory::serve(listener, leaf.config, factory));
    Ok(format!("https://{bound}"))
}

/// Starts a node's SSH server and says where it is.
pub(super) async fn ssh(
    node: OnNode,
    api: &pve::Api,
    keys: &Keys,
    ip: IpAddr,
    tasks: &mut JoinSet<()>,
) -> Result<ReadySsh, StartError> {
    let server = Sshd::new(node.world.clone(), node.name.clone(), api.clone(), keys.clone())?;
    let (seats, mut wanted) = (server.clone(), node.world.logins_of(&node.name));
    tasks.spawn(async move {
        while let Some((program, terminal)) = wanted.recv().await {
            seats.seat(program, terminal);
        }
    });
    let address = SocketAddr::new(ip, 0);
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let ready = ReadySsh {
        host: bound.ip().to_string(),
        port: bound.port(),
        user: "root".to_owned(),
        key: keys.login_file(),
        host_key: server.host_key(),
    };
    tasks.spawn(node.listen(listener, move |stream| server.clone().serve(stream)));
    Ok(ready)
}

/// Boots the seeded machines and serves whatever machines run from now on.
pub(super) fn machines(world: &World, tasks: &mut JoinSet<()>) -> Result<Room, StartError> {
    let machines = Machines::new(world.clone());
    machines.seed()?;
    let room = machines.room().clone();
    tasks.spawn(crate::kube::serve(room.clone()));
    tasks.spawn(machines.run());
    Ok(room)
}

/// Waits until the machines that are up from the beginning listen and are well, but not for ever: an address may be taken,
/// a cluster may lack what it needs.
pub(super) async fn heard(room: &Room) {
    let mut changes = room.changes();
    let all = async {
        let settled = |machine: &Machine| machine.see(|state| state.listens && state.status().ready);
        while !room.machines().iter().all(settled) && changes.changed().await.is_ok() {}
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), all).await;
}

/// Somebody who works as root on the first node.
pub(super) struct Root(pub(super) pve::Api);

impl Hands for Root {
    async fn call(&self, verb: &str, path: &str, with: BTreeMap<String, String>) -> Result<Value, String> {
        let given = with.into_iter().map(|(key, value)| (key, vec![value])).collect();
        self.0.as_root(verb, path, given).await.map_err(|failure| {
            let errors = failure.errors.iter().map(|(key, text)| format!("; {key}: {text}"));
            format!("{}{}", failure.text.trim_end(), errors.collect::<String>())
        })
    }
}
