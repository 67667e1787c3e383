//! Listeners of a node, which are gone while the node has no power.
//!
//! Purpose: whoever connects to a node that is down finds nobody, and connections that were open break. Must not know:
//! protocols. Start at [`OnNode::listen`].

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::scenario::Met;
use crate::world::World;
use crate::world::members::Outage;
use crate::world::script::{Ask, Service, Step};

/// A node of a world.
#[derive(Clone, Debug)]
pub(super) struct OnNode {
    /// The world.
    pub world: World,
    /// The node's name.
    pub name: String,
}

impl OnNode {
    fn has_power(&self) -> bool {
        self.world.state().outage(&self.name) != Some(Outage::Off)
    }

    /// Whether the scenario turns away a connection to its API.
    pub(super) async fn turns_away(&self) -> bool {
        let (service, step) = (Service::Pve, Step::Connect);
        let ask = Ask { service, step, verb: "", path: "", who: "", node: &self.name, vmid: None };
        Met::with(&self.world, &ask).await.breaks_before()
    }

    /// Gives every connection to `serve`, as long as the world lives.
    pub(super) async fn listen<F>(self, listener: TcpListener, serve: impl Fn(TcpStream) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(address) = listener.local_addr() else { return };
        let mut members = self.world.watch_members();
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        loop {
            if !self.has_power() {
                listener = None;
                connections.shutdown().await;
                if members.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let open = match listener.take() {
                Some(open) => open,
                None => again(address).await,
            };
            tokio::select! {
                accepted = open.accept() => match accepted {
                    Ok((stream, _)) => {
                        // Small answers shouldn't wait for more.
                        let _ = stream.set_nodelay(true);
                        connections.spawn(serve(stream));
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection can't be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(_) = connections.join_next() => {}
                changed = members.changed() => if changed.is_err() { return },
            }
            listener = Some(open);
        }
    }
}

/// Listens on an address that was ours before, however long somebody else has it.
async fn again(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => {
                tracing::warn!(%address, %error, "a node can't listen again yet");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
