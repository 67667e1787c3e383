//! The Proxmox VE API, typed.
//!
//! Purpose: one method per endpoint, PVE's encodings parsed once, its refusals understood once. Calls that start a task
//! return its [`Upid`] at once, so that the caller can note it before waiting. Must not know: plans, profiles, what the
//! answers are used for. A task's verdict is not the truth: callers read the state back.
//! Start reading at [`client`], then [`error`] (what a refusal means) and [`vm`].

pub mod client;
pub mod decode;
pub mod encode;
pub mod error;
pub mod guest;
pub mod ha;
mod inventory;
pub mod login;
pub mod node;
pub mod storage;
pub mod task;
pub mod version;
pub mod vm;
pub mod vm_config;

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod wire_tests;

pub use crate::property::{BootOrder, Disk, Nic, Properties, Tags, same};
pub use client::{Endpoint, Options, Pve};
pub use encode::Form;
pub use error::{Missing, PveError, TaskFailure};
pub use login::Auth;
pub use task::{Ended, Upid, Wait};
pub use version::PveVersion;
pub use vm_config::VmConfig;
