//! A Proxmox VE and Talos double.
//!
//! Rooms, each knowing only those to its left: `world` (nodes, storages, volumes, VMs, tasks, users, machines, clusters
//! and their rules; no I/O but its state folder) ← `pve`, `ssh`, `factory`, `talos`, `kube` (one protocol each, no rule
//! of its own; `ssh` has `pve`'s methods on its command line) ← `serve` (listeners, TLS, ready file). `disk` knows what a
//! Talos disk image looks like, `etcd` how members agree and what their files look like, `vma` what a backup of a VM looks
//! like, `tar` what an archive of files does; they lie under `world`. `audit` watches the world and knows no protocol; `scenario` makes things happen to it.
//! Nothing here shares code with recast's clients: a shared misunderstanding would hide.

pub mod audit;
pub mod disk;
pub mod etcd;
pub mod factory;
pub mod kube;
pub mod pve;
pub mod scenario;
pub mod serve;
pub mod ssh;
pub mod talos;
mod tar;
pub mod vma;
pub mod world;
