//! Logging in to the nodes.
//!
//! Purpose: an SSH server per node with the few commands that people and tools run on a PVE node (`qm`, `pvesm`, `pvesh`,
//! `dd`, `xz`, `perl` …) on the node's real files. Anything else is a command that isn't installed. No rule of its own:
//! `qm`, `pvesm` and `pvesh` are the API's methods as root. Must not know: listeners, recast. Start at [`Sshd::serve`],
//! then `shell.rs` and `commands/`.

mod commands;
mod grammar;
mod keyboard;
mod keys;
mod pipe;
mod server;
mod sftp;
mod shell;
mod terminal;
mod visit;

pub use self::keys::{KeyError, Keys};
pub use self::server::Sshd;
