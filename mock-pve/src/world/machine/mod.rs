//! The guests: Talos machines that boot from the bytes of their disk.
//!
//! Purpose: what a Talos machine is and does in time (boot, maintenance, configured, member of etcd, Kubernetes node)
//! whatever protocol asks. Must not know: gRPC, HTTP, TLS handshakes, sockets; the rooms `talos` and `kube` look at a
//! machine's [`State`] and serve it. Start at [`Room`], then `life.rs`.

mod change;
mod config;
mod drain;
mod faults;
mod images;
mod install;
mod kubelet;
mod life;
mod member;
pub mod pki;
mod pods;
mod room;
mod seeding;
mod sequence;
mod state;
mod versions;

pub use change::{diff, reboot_needed};
pub use crate::disk::{NoImage, Recipe, Reference};
pub use config::{Authority, ConfigError, MachineType, NodeConfig};
pub(in crate::world) use faults::Shared;
pub use faults::{Fault, MachineFault};
pub use images::{Namespace, PullError};
pub use install::{InstallError, UpgradeRefused};
pub use room::Room;
pub use seeding::SeedingError;
pub use state::{
    Api, Apply, Bootstrap, COMPONENTS, Command, Happened, Link, Machine, Pulled, Restart, Service, ServiceState, Stage,
    State, StaticPod, Status, Stopped, Turn, Upgrade, What, Wipe, event_id,
};
pub use versions::{Version, default_kubernetes, etcd as etcd_version};
