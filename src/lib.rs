//! recast rebuilds a Talos Linux cluster on Proxmox VE from a fresh template, from one YAML profile.
//!
//! # The map
//!
//! ```text
//! profile.yaml ──profile──► Profile ─┐
//!                                    ├─► plan::make ──► Plan ──lint, show──► approved, saved
//! PVE, Talos, factory ──observe──► Observed ─┘ (pure)    │
//!                                                        ▼
//!          journal (JSONL, fsync) ◄──intent, outcome── engine ──events──► report: bars | lines | JSON lines | summary
//!                     │ fold = RunState                  │
//!                     └────────── resume ───────────────►│ steps: probe → act → confirm
//!                                                        ▼
//!                                   clients: pve · talos · k8s · image · ssh · backup, over net
//! ```
//!
//! Arrows of `use` point one way only (`tests/it/layers.rs` keeps it so): `types` ← `profile`, `property` ← `plan` ←
//! `event` ← `journal` ← `engine` ← `steps` ← `cli`. The clients stand on `net` and `types` and know no plan (`pve` reads
//! its values with `property`, as the plan does); `observe` asks them, `steps` lets them act; `command` runs the programs of
//! others. `report` reads events and journals; `exit` is `cli`'s alone.
//!
//! Words: a *profile* says what is wanted, *observed* what was seen; a *plan* has *phases* of *steps*; a step is
//! *probed, applied, confirmed* and can be *undone*; a run *failed*, was *cancelled* by a person, or is *stuck* (an undo
//! failed). A *task* is only PVE's, a *machine* is Talos', a *VM* is PVE's, a *node* is a PVE host.

pub mod backup;
pub mod cli;
pub mod command;
pub mod engine;
pub mod event;
pub mod exit;
pub mod image;
pub mod journal;
pub mod k8s;
pub mod net;
pub mod observe;
pub mod plan;
pub mod profile;
pub mod property;
pub mod pve;
pub mod report;
pub mod ssh;
pub mod steps;
pub mod talos;
pub mod types;
