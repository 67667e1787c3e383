//! The command line as it is typed.
//!
//! Purpose: clap's structs, nothing resolved. Doc comments here are the help text.
//! Must not know: what the verbs do. Start reading at [`Verb`], then at the verb's file.

mod config;
mod global;
mod rebuild;
mod runs;
mod schematic;
mod secrets;
mod site;
mod snapshot;
mod template;
mod upgrade;

use clap::{Parser, Subcommand, ValueEnum};

pub use config::{CheckConfig, Config, DiffConfig, Migrate, Render, Target};
pub use global::{Color, Global, OutputFormat};
pub use rebuild::{Create, Rebuild, Teardown, Wishes};
pub use runs::{Apply, ReportOf, Resume, Rollback, Runs};
pub use schematic::{Bootloader, Schematic, SchematicWish};
pub use secrets::{Import, Secrets, Talosconfig};
pub use site::{Init, Inventory, Rehearse};
pub use snapshot::Snapshot;
pub use template::{Template, TemplateBuild, TemplateCache, TemplatePrune};
pub use upgrade::{OnlyWhat, RebootHow, Upgrade};

/// Rebuilds a Talos Linux cluster on Proxmox VE from a fresh template, from one YAML profile.
#[derive(Debug, Parser)]
#[command(name = "recast", version, max_term_width = 120, after_help = EXIT_CODES)]
pub struct Cli {
    /// Flags of all verbs.
    #[command(flatten)]
    pub global: Global,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXIT_CODES: &str = "Exit codes: 0 done · 1 failed, not resumable · 2 changes pending (dry run) · 3 usage, profile or site invalid · \
4 refused by a gate · 5 a step failed, resumable · 6 stuck: an undo failed · 7 cancelled, resumable · 70 internal";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Write the first profile and site from what runs: VMs, hardware, addresses, versions, patches; take the secrets over from
    /// a control plane. Reads only, and never overwrites a file
    Init(Init),
    /// Rebuild the cluster from a fresh template, with all its data: backup, freeze, retire, provision, restore, verify
    Rebuild(Rebuild),
    /// Upgrade the running cluster in place: every hop of Talos and Kubernetes that is needed, one control plane at a time
    Upgrade(Upgrade),
    /// Create the cluster where there is none, new or from a snapshot of one that vanished
    Create(Create),
    /// Save the cluster's data, then delete its VMs
    Teardown(Teardown),
    /// Carry out exactly a saved plan, or refuse and name what drifted
    Apply(Apply),
    /// Go on with a run that stopped
    Resume(Resume),
    /// Go back to what was before a run: start the old cluster again or, once it was deleted, make it anew as it was; or bring
    /// machines back to the Talos that they ran before
    Rollback(Rollback),
    /// Look whether a rebuild could be done; changes nothing
    Check(Wishes),
    /// Take, prove, list and prune snapshots of etcd
    #[command(subcommand)]
    Snapshot(Snapshot),
    /// Show how the cluster stands, and where it is not as the profile wants it; changes nothing
    Status,
    /// Write down what runs on the site, for mock-pve serve --seed and rehearse --inventory; changes nothing
    Inventory(Inventory),
    /// List runs, show one, or print its report
    #[command(subcommand)]
    Runs(Runs),
    /// Make templates, list or prune those that recast made, and look after the image cache
    #[command(subcommand)]
    Template(Template),
    /// Do any verb but resume and apply against a double of the whole site; touches nothing real
    Rehearse(Rehearse),
    /// Machine configurations: render, diff and check the profile's; generate, patch and validate with talosctl's flags
    #[command(subcommand)]
    Config(Config),
    /// The cluster's secrets: import and fingerprint; generate with talosctl's flags
    #[command(subcommand)]
    Secrets(Secrets),
    /// Compute the ID of an Image Factory schematic, or make the schematic known there
    Schematic(Schematic),
    /// Print the JSON Schema of a file or document
    Schema {
        /// Of what
        #[arg(default_value = "profile")]
        of: SchemaOf,
    },
    /// Print shell completions
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    Man,
}

/// What there are schemas of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SchemaOf {
    /// The profile.
    Profile,
    /// The site file.
    Site,
    /// The document of `-o json`.
    Document,
}
