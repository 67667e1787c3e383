//! The guests: Talos machines that boot from the bytes of their disk.
//!
//! Purpose: what a Talos machine is and does in time (boot, maintenance, configured, member of etcd, Kubernetes node)
//! whatever protocol asks. Must not know: gRPC, HTTP, TLS handshakes, sockets; the rooms `talos` and `kube` look at a
//! machine's [`State`] and serve it. Start at [`Room`], then `life.rs`.

mod config;
mod kubelet;
mod life;
mod member;
pub mod pki;
mod room;
mod seeding;
mod state;
mod versions;

pub use config::{Authority, ConfigError, MachineType, NodeConfig};
pub use room::Room;
pub use seeding::SeedingError;
pub use state::{
    Api, Bootstrap, Command, Happened, Link, Machine, Service, ServiceState, Stage, State, Status, What, Wipe,
};
pub use versions::{Version, etcd as etcd_version};
