//! The Talos API of the machines in a world, on port 50000 of each.
//!
//! Purpose: bind what listens as machines come and go, check certificates and roles, and answer with a machine's state
//! in Talos' words (siderolabs/talos, internal/app/{apid,machined,maintenance}). Must not know: how a machine gets to
//! its state, which is `world::machine`'s.
//! Start reading at [`Machines`], then `listener.rs`, `gate.rs` (who may what, and on which machine), `node.rs`, `service.rs`.

mod access;
mod apply;
mod archive;
mod body;
mod cgroups;
mod containers;
mod etcd;
mod files;
mod gate;
mod health;
mod images;
mod inspect;
mod life;
mod lifecycle;
mod listener;
mod logs;
mod messages;
mod netstat;
mod node;
mod pcap;
mod proto;
mod resources;
mod service;
mod short;
mod state;
mod stats;
mod storage;
mod time;
mod turn;

use crate::world::World;
use crate::world::machine::{Room, SeedingError};

/// The machines of a world and their Talos API.
pub struct Machines {
    room: Room,
}

impl Machines {
    /// Machines for all VMs of `world`; none runs before [`Machines::run`].
    pub fn new(world: World) -> Self {
        Self { room: Room::new(world) }
    }

    /// The room they stand in, which `kube` serves too.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// Fills the disks of the seeded machines; to be called once, before [`Machines::run`].
    pub fn seed(&self) -> Result<(), SeedingError> {
        self.room.seed()
    }

    /// Boots machines as they are switched on and serves their API, until the world ends or the future is dropped.
    pub async fn run(self) {
        tokio::select! {
            () = self.room.clone().run() => {}
            () = listener::follow(self.room.clone()) => {}
        }
    }
}

#[cfg(test)]
mod names_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod upgrades;
