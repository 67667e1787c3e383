//! The Talos API: machines in maintenance and machines of a cluster.
//!
//! Purpose: one method per thing this program asks of a machine, with typed answers and typed errors. Connections go to
//! each machine itself, never through another one's proxy, so an error is a plain gRPC status and there is no `nodes`
//! metadata whose replies say OK for a failure. Must not know: what a cluster should look like, plans, progress bars.
//! Start reading at [`Machine`] (mutual TLS) and [`maintenance::probe`] (throw-away certificate, pinned).
//!
//! Nothing here retries but [`Machine::bootstrap`], whose rule needs to know what happened to its own attempts.

pub mod cosi;
pub mod disks;
pub mod error;
pub mod etcd;
pub mod events;
pub mod health;
mod kubeconfig;
pub mod kubernetes;
mod link;
pub mod machine;
pub mod maintenance;
mod renew;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
pub mod upgrade;
#[cfg(test)]
mod wire_tests;

pub use disks::Disk;
pub use error::TalosError;
pub use etcd::{Attempt, Bootstrapped, Recovery};
pub use link::{Access, Download, PourError};
pub use machine::{Drain, Machine, RebootMode, Release, Service};
pub use maintenance::{Answers, Applied, Facts, Maintenance};
pub use status::{Extension, MachineStatus, Stage, Unmet};
