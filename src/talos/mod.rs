//! Talos Linux: its API, its machine configs and secrets, its client configs.
//!
//! Purpose: everything that knows Talos. `client` talks to machines; the rest of this module makes and reads files.
//! Must not know: plans, steps, Proxmox VE. Start reading at `client`.

pub mod access;
pub mod client;
pub mod config;
mod proto;
pub mod secrets;
