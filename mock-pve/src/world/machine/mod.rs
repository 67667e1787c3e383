//! The guests: Talos machines that boot from the bytes of their disk.
//!
//! Purpose: what a Talos machine is and does in time (boot, maintenance, configured, member of etcd, Kubernetes node)
//! whatever protocol asks. Must not know: gRPC, HTTP, TLS handshakes, sockets; the rooms `talos` and `kube` look at a
//! machine's [`State`] and serve it. Start at [`Room`], then `life.rs`.

mod change;
mod command;
mod config;
mod config_documents;
mod config_fold;
mod config_keys;
mod dials;
mod drain;
mod event;
mod faults;
mod firmware;
mod hostname;
mod identity;
mod images;
mod install;
mod kubelet;
mod leaves;
mod life;
mod member;
mod original;
pub mod pki;
mod pods;
mod revisions;
mod room;
mod seeding;
mod sequence;
mod shares;
mod signing;
mod state;
mod versions;

pub use crate::disk::{NoImage, Recipe, Reference, Slot};
pub use crate::etcd::{Program, ProgramError};
pub use change::{diff, reboot_needed};
pub use command::{Apply, Bootstrap, Command, Restart, Turn, Upgrade, Wipe};
pub use config::{Authority, ConfigError, MachineType, NodeConfig};
pub use dials::Peer as Dialled;
pub use event::{Happened, Stopped, What, event_id};
pub(in crate::world) use faults::Shared;
pub use faults::{Fault, MachineFault, QuorumLoss};
pub use hostname::{Hostname, Layer};
pub use identity::Identity;
pub use images::{Namespace, PullError};
pub use install::{InstallError, UpgradeRefused};
pub use leaves::{API_DAYS, KUBERNETES_DAYS, Pem};
pub use revisions::Revision;
pub use room::Room;
pub use seeding::SeedingError;
pub use state::{Api, COMPONENTS, Link, Machine, Pulled, Service, ServiceState, Stage, State, StaticPod, Status};
pub use versions::{Version, default_kubernetes, etcd as etcd_version};
