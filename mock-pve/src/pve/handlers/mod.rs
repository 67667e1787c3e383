//! What each method does.
//!
//! Purpose: parameters in, the world's rules, JSON out; one file per part of the path. Must not know: HTTP.

#![expect(clippy::unnecessary_wraps, reason = "all handlers have one shape")]

/// The five methods of each kind of section in a file: a module by its part of the path, what knows the kind, and the path.
macro_rules! methods_of {
    ($($module:ident = $kind:ident, $what:literal;)*) => {
        $(
            #[doc = $what]
            pub(in crate::pve) mod $module {
                use super::{Call, Result};

                /// All that may be seen.
                pub(in crate::pve) fn list(call: &Call) -> Result {
                    super::$kind.list(call)
                }

                /// One.
                pub(in crate::pve) fn read(call: &Call) -> Result {
                    super::$kind.read(call)
                }

                /// A new one.
                pub(in crate::pve) fn create(call: &Call) -> Result {
                    super::$kind.create(call)
                }

                /// Changes one.
                pub(in crate::pve) fn update(call: &Call) -> Result {
                    super::$kind.update(call)
                }

                /// Deletes one.
                pub(in crate::pve) fn delete(call: &Call) -> Result {
                    super::$kind.delete(call)
                }
            }
        )*
    };
}

pub(super) mod access;
pub(super) mod acme;
pub(super) mod addresses;
pub(super) mod agent;
pub(super) mod appliances;
mod arrival;
pub(super) mod backup;
pub(super) mod certificates;
pub(super) mod cloudinit;
pub(super) mod cluster;
pub(super) mod config;
pub(super) mod console;
pub(super) mod content;
pub(super) mod content_copy;
pub(super) mod corosync;
pub(super) mod datacenter;
pub(super) mod devices;
pub(super) mod download;
pub(super) mod errands;
pub(super) mod firewall;
pub(super) mod fresh;
pub(super) mod ha;
pub(super) mod host;
mod images;
pub(super) mod leases;
pub(super) mod metrics;
pub(super) mod network;
pub(super) mod nodes;
pub(super) mod notifications;
pub(super) mod pictures;
pub(super) mod pools;
pub(super) mod power;
pub(super) mod repositories;
pub(super) mod scan;
pub(super) mod sdn;
pub(super) mod sdn_lock;
pub(super) mod sections;
pub(super) mod services;
pub(super) mod settings;
pub(super) mod storage;
pub(super) mod tasks;
pub(super) mod upload;
pub(super) mod viewers;
pub(super) mod views;
pub(super) mod vms;
pub(super) mod vzdump;
mod wget;

/// The reason of a refused login.
pub(super) const WRONG_PASSWORD: &str = "authentication failure";
/// The reason of a refused look at a terminal.
pub(super) const WRONG_TICKET: &str = "permission denied - invalid PVEVNC ticket";
/// All 401 that come from methods.
pub(super) const UNAUTHORIZED: [&str; 2] = [WRONG_PASSWORD, WRONG_TICKET];

/// Parameters that belong to the path or the protocol, not to what is asked for.
pub(super) const PATH_KEYS: &[&str] = &["node", "vmid", "storage", "volume", "upid", "snapname", "poolid"];
