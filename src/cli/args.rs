//! The command line as it is typed.
//!
//! Purpose: clap's structs, nothing resolved. Doc comments here are the help text.

use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::plan::upgrade::Parallel;
use crate::plan::wanted::DoomedDisk;
use crate::types::{RunId, SchematicId, Version, VersionWish};

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

/// Flags of all verbs. Each is also an environment variable `RECAST_<FLAG>`, except `--confirm` and `--break-lock`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of all verbs")]
pub struct Global {
    /// The cluster's profile
    #[arg(short, long, global = true, value_name = "FILE", env = "RECAST_PROFILE")]
    pub profile: Option<PathBuf>,
    /// The site file [default: `site` of the profile, else site.yaml beside it]
    #[arg(long, global = true, value_name = "FILE", env = "RECAST_SITE")]
    pub site: Option<PathBuf>,
    /// Where runs are kept [default: recast in the XDG state folder]
    #[arg(long, global = true, value_name = "DIR", env = "RECAST_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where images are kept [default: recast in the XDG cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "RECAST_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Write the report here, also after a refusal: report.json, .txt, .md and .html, and junit.xml
    #[arg(long, global = true, value_name = "DIR", env = "RECAST_REPORT_DIR")]
    pub report_dir: Option<PathBuf>,
    /// What stdout carries
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text", env = "RECAST_OUTPUT")]
    pub output: OutputFormat,
    /// Write events as JSON lines to this file, or - for stdout
    #[arg(long, global = true, value_name = "FILE", env = "RECAST_EVENTS")]
    pub events: Option<String>,
    /// What goes into the run's log
    #[arg(long, global = true, value_name = "FILTER", default_value = "recast=debug", env = "RECAST_LOG_LEVEL")]
    pub log_level: String,
    /// The cluster's name, where nobody is there to type it
    #[arg(long, global = true, value_name = "CLUSTER")]
    pub confirm: Option<String>,
    /// Take over a run whose process is gone although its lock is held elsewhere
    #[arg(long, global = true)]
    pub break_lock: bool,
    /// No progress bars
    #[arg(long, global = true, env = "RECAST_NO_PROGRESS")]
    pub no_progress: bool,
    /// Colour on stderr
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", env = "RECAST_COLOR")]
    pub color: Color,
}

/// What stdout carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The verb's own text.
    #[default]
    Text,
    /// One versioned JSON document.
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

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

/// What the new cluster shall be.
#[derive(Clone, Debug, Default, Args)]
pub struct Wishes {
    /// Talos version: 1.13.9, 1.13 or latest [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_TO")]
    pub to: Option<VersionWish>,
    /// Kubernetes version, with its patch: 1.35.0 [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_KUBERNETES")]
    pub kubernetes: Option<VersionWish>,
    /// Image Factory schematic [default: the profile's]
    #[arg(long, value_name = "ID", env = "RECAST_SCHEMATIC", conflicts_with = "extensions", value_parser = schematic_id)]
    pub schematic: Option<SchematicId>,
    /// Official extensions instead of a schematic
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        env = "RECAST_EXTENSIONS",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub extensions: Option<Vec<String>>,
    /// A disk, or the local volumes on one, that may be destroyed with its VM; may be given more than once
    #[arg(long = "destroy-disk", value_name = "VMID:KEY")]
    pub destroy_disks: Vec<DoomedDisk>,
}

/// `recast init`.
#[derive(Debug, Args)]
pub struct Init {
    /// Tags that tell the cluster's VMs from all others: a VM belongs to it when it carries all of them
    #[arg(long, value_name = "A,B", value_delimiter = ',', required = true, env = "RECAST_TAGS", value_parser = NonEmptyStringValueParser::new())]
    pub tags: Vec<String>,
    /// The talosconfig to enter the cluster with, as an administrator [default: TALOSCONFIG, else ~/.talos/config]
    #[arg(long, value_name = "FILE", env = "RECAST_TALOSCONFIG")]
    pub talosconfig: Option<PathBuf>,
    /// Its context [default: the current one]
    #[arg(long, value_name = "NAME", env = "RECAST_CONTEXT")]
    pub context: Option<String>,
    /// The folder that the files are written to
    #[arg(long, value_name = "DIR", default_value = ".", env = "RECAST_OUT")]
    pub out: PathBuf,
    /// Proxmox VE's address, where there is no --site, as in `https://host:8006` [default: `PROXMOX_VE_ENDPOINT`]
    #[arg(long, value_name = "URL", env = "RECAST_URL", conflicts_with = "site")]
    pub url: Option<String>,
    /// The API token's id, user@realm!name, where it isn't kept with its secret
    #[arg(long, value_name = "ID", env = "RECAST_TOKEN", conflicts_with = "site")]
    pub token: Option<String>,
    /// The variable that holds the token [default: `PROXMOX_VE_API_TOKEN`]
    #[arg(long, value_name = "NAME", env = "RECAST_TOKEN_ENV", conflicts_with = "site", group = "kept")]
    pub token_env: Option<String>,
    /// The file that holds the token
    #[arg(long, value_name = "FILE", env = "RECAST_TOKEN_FILE", conflicts_with = "site", group = "kept")]
    pub token_file: Option<PathBuf>,
    /// A command that prints the token, such as `pass show homelab/pve`
    #[arg(long, value_name = "COMMAND", env = "RECAST_TOKEN_COMMAND", conflicts_with = "site", group = "kept")]
    pub token_command: Option<String>,
    /// The SHA-256 of Proxmox VE's certificate [default: it is shown, and trusted once confirmed]
    #[arg(long, value_name = "SHA256", env = "RECAST_FINGERPRINT", conflicts_with_all = ["site", "ca"])]
    pub fingerprint: Option<crate::net::tls::Fingerprint>,
    /// The CA certificate of Proxmox VE's certificates
    #[arg(long, value_name = "FILE", env = "RECAST_CA", conflicts_with = "site")]
    pub ca: Option<PathBuf>,
}

/// `recast rebuild`.
#[derive(Debug, Args)]
pub struct Rebuild {
    /// What to rebuild to.
    #[command(flatten)]
    pub wishes: Wishes,
    /// Start from this snapshot instead of the running cluster's data, which is lost
    #[arg(long, value_name = "FILE", conflicts_with = "fresh")]
    pub restore: Option<PathBuf>,
    /// Keep nothing of the old cluster's data: no backup, a new empty etcd
    #[arg(long)]
    pub fresh: bool,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}

/// `recast upgrade`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Upgrade {
    /// Talos version: 1.13.9, 1.13 or latest [default: the profile's, or what runs if that is newer]
    #[arg(long, value_name = "VERSION", env = "RECAST_TO")]
    pub to: Option<VersionWish>,
    /// Kubernetes version: 1.35.0, 1.35 or latest [default: the profile's, or what runs if that is newer]
    #[arg(long, value_name = "VERSION", env = "RECAST_KUBERNETES")]
    pub kubernetes: Option<VersionWish>,
    /// Upgrade Talos alone, or Kubernetes alone
    #[arg(long, value_name = "WHAT", env = "RECAST_ONLY")]
    pub only: Option<OnlyWhat>,
    /// Image Factory schematic [default: the profile's, else what each machine is made from]
    #[arg(long, value_name = "ID", env = "RECAST_SCHEMATIC", conflicts_with = "extensions", value_parser = schematic_id)]
    pub schematic: Option<SchematicId>,
    /// Official extensions instead of a schematic
    #[arg(
        long,
        value_name = "A,B",
        value_delimiter = ',',
        env = "RECAST_EXTENSIONS",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub extensions: Option<Vec<String>>,
    /// Write Talos early in the next boot, when nothing holds the disk; each machine reboots twice
    #[arg(long, env = "RECAST_STAGE")]
    pub stage: bool,
    /// How machines reboot: by kexec where possible, or through the firmware
    #[arg(long, value_name = "MODE", default_value = "default", env = "RECAST_REBOOT_MODE")]
    pub reboot_mode: RebootHow,
    /// Upgrade the Talos of these machines only
    #[arg(long, value_name = "A,B", value_delimiter = ',', env = "RECAST_NODES", value_parser = NonEmptyStringValueParser::new())]
    pub nodes: Option<Vec<String>>,
    /// How many workers may be down at once: a number or a percentage [default: 1]
    #[arg(long, value_name = "N|P%", env = "RECAST_MAX_PARALLEL")]
    pub max_parallel: Option<Parallel>,
    /// Refuse where a minor version between would have to be gone through
    #[arg(long, env = "RECAST_NO_HOPS")]
    pub no_hops: bool,
    /// What releases take that this recast doesn't know yet, over its own table
    #[arg(long, value_name = "FILE", env = "RECAST_COMPATIBILITY")]
    pub compatibility: Option<PathBuf>,
    /// Keep the kernel's log of each machine while it goes down and comes up, in the run's folder
    #[arg(long, env = "RECAST_DEBUG")]
    pub debug: bool,
    /// Print every hop with its reason, and the plan, and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
}

impl Upgrade {
    /// Versions and schematic.
    pub fn wishes(&self) -> Wishes {
        Wishes {
            to: self.to.clone(),
            kubernetes: self.kubernetes.clone(),
            schematic: self.schematic.clone(),
            extensions: self.extensions.clone(),
            destroy_disks: Vec::new(),
        }
    }
}

/// What alone is upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnlyWhat {
    /// Talos.
    Os,
    /// Kubernetes.
    Kubernetes,
}

/// How machines reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RebootHow {
    /// By kexec where possible.
    Default,
    /// Through the firmware.
    Powercycle,
}

/// `recast create`.
#[derive(Debug, Args)]
pub struct Create {
    /// What to create.
    #[command(flatten)]
    pub wishes: Wishes,
    /// Bring back the cluster that this snapshot is of
    #[arg(long, value_name = "FILE")]
    pub restore: Option<PathBuf>,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}

/// `recast teardown`.
#[derive(Debug, Args)]
pub struct Teardown {
    /// Without a backup: everything is lost
    #[arg(long)]
    pub force: bool,
    /// A disk, or the local volumes on one, that may be destroyed with its VM; may be given more than once
    #[arg(long = "destroy-disk", value_name = "VMID:KEY")]
    pub destroy_disks: Vec<DoomedDisk>,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}

/// `recast apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// A plan that `--plan-out` wrote
    pub plan: PathBuf,
    /// Print the plan, read its facts again and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The run [default: the newest unfinished one of this cluster]
    pub run: Option<RunId>,
    /// Print what is left and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The run [default: the newest unfinished one of this cluster]
    pub run: Option<RunId>,
    /// Bring these machines back to the Talos that they ran before, whatever run brought them where they are
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "run", env = "RECAST_NODES", value_parser = NonEmptyStringValueParser::new())]
    pub nodes: Option<Vec<String>>,
    /// Print what would be done and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast runs`.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// List the runs of this cluster
    List,
    /// Show what a run did and where it stands
    Show {
        /// The run
        run: RunId,
    },
    /// Print a run's report, or write it in other formats
    Report(ReportOf),
}

/// `recast runs report`.
#[derive(Debug, Args)]
pub struct ReportOf {
    /// The run
    pub run: RunId,
    /// Write it as one HTML page
    #[arg(long, value_name = "FILE", env = "RECAST_HTML")]
    pub html: Option<PathBuf>,
    /// Write it as JUnit XML: a suite per phase, a case per step and gate
    #[arg(long, value_name = "FILE", env = "RECAST_JUNIT")]
    pub junit: Option<PathBuf>,
    /// Write it as Markdown, for a merge request or a CI job's summary
    #[arg(long, value_name = "FILE", env = "RECAST_MARKDOWN")]
    pub markdown: Option<PathBuf>,
}

/// `recast template`.
#[derive(Debug, Subcommand)]
pub enum Template {
    /// Make the templates that the profile's nodes need, and try each with a canary; nothing else is touched
    Build(TemplateBuild),
    /// List the templates that recast made, on all nodes
    List,
    /// Delete old templates of this cluster's runs; never one with linked clones, nor one that recast did not make
    Prune(TemplatePrune),
    /// List or delete the image files that are kept on this computer
    #[command(subcommand)]
    Cache(TemplateCache),
}

/// `recast template prune`.
#[derive(Debug, Args)]
pub struct TemplatePrune {
    /// How many of each node and schematic are kept
    #[arg(long, value_name = "N", default_value_t = super::template::prune::KEEP, env = "RECAST_KEEP")]
    pub keep: NonZeroU32,
    /// Also those on storages that keep no record of linked clones (LVM-thin, btrfs)
    #[arg(long)]
    pub unrecorded: bool,
    /// Print what would be deleted and stop: exit 2 if there is anything
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast template cache`.
#[derive(Debug, Subcommand)]
pub enum TemplateCache {
    /// List them, the one used last first
    List,
    /// Delete those that were not used for longest, or all
    Prune {
        /// Until so many MiB are left [default: 0]
        #[arg(long, value_name = "MIB")]
        to: Option<u64>,
        /// Print what would be deleted and stop: exit 2 if there is anything
        #[arg(long)]
        dry_run: bool,
    },
}

/// `recast snapshot`.
#[derive(Debug, Subcommand)]
pub enum Snapshot {
    /// Take one from a healthy control plane, prove it, and make the profile's second copies
    Save {
        /// Print what would be done and stop: exit 2
        #[arg(long)]
        dry_run: bool,
    },
    /// Prove files: the hash, every page, every record of etcd. Needs no profile and no network
    Verify {
        /// Snapshots
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// List those in the profile's backup folder
    List,
    /// Delete old ones, but never what an unfinished run needs, or the way back from the last one
    Prune {
        /// How many of each purpose are kept [default: the profile's backup.keep]
        #[arg(long, value_name = "N", env = "RECAST_KEEP")]
        keep: Option<NonZeroU32>,
        /// Print what would be deleted and stop: exit 2 if there is anything
        #[arg(long)]
        dry_run: bool,
    },
}

/// `recast template build`.
#[derive(Debug, Args)]
pub struct TemplateBuild {
    /// What to make them from.
    #[command(flatten)]
    pub wishes: Wishes,
    /// Print the plan and stop: exit 2 if it would change anything
    #[arg(long)]
    pub dry_run: bool,
    /// Save the plan for `recast apply`
    #[arg(long, value_name = "FILE")]
    pub plan_out: Option<PathBuf>,
}

/// `recast inventory`.
#[derive(Debug, Args)]
pub struct Inventory {
    /// Put made-up names, addresses, MACs, serials and notes in the place of the real ones, the same one everywhere
    #[arg(long, env = "RECAST_REDACT")]
    pub redact: bool,
    /// Ask the machines of its current context too, for their versions and roles
    #[arg(long, value_name = "FILE", env = "RECAST_TALOSCONFIG")]
    pub talosconfig: Option<PathBuf>,
}

/// `recast rehearse`.
#[derive(Debug, Args)]
pub struct Rehearse {
    /// What goes wrong and what happens meanwhile: a scenario of mock-pve
    #[arg(long, value_name = "FILE", env = "RECAST_SCENARIO")]
    pub scenario: Option<PathBuf>,
    /// Begin in the site that recast inventory wrote down, with the profile's cluster on it
    #[arg(long, value_name = "FILE", env = "RECAST_INVENTORY")]
    pub inventory: Option<PathBuf>,
    /// How much faster than life the double's delays pass
    #[arg(long, value_name = "N", default_value_t = 20.0)]
    pub time_scale: f64,
    /// Where the double's randomness starts
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub rng_seed: u64,
    /// The verb with its flags
    #[arg(last = true, required = true, value_name = "VERB")]
    pub verb: Vec<String>,
}

/// `recast config`; the verbs with talosctl's flags are parsed by `dropin`, before these.
#[derive(Debug, Subcommand)]
pub enum Config {
    /// Write the configuration of every machine of the profile, and a talosconfig
    Render(Render),
    /// Compare what would be rendered with what the machines have; secrets are masked; exit 2 when they differ
    Diff(DiffConfig),
    /// Check the configurations as a machine would, and what the version means for the patches
    Check(CheckConfig),
    /// What `dropin` would have parsed, had it stood first.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Old keys in patches.
#[derive(Clone, Copy, Debug, Args)]
pub struct Migrate {
    /// Write keys that moved to documents as those documents, instead of refusing the patches that have them
    #[arg(long)]
    pub migrate: bool,
}

/// Other versions than the profile's, whose configurations would be.
#[derive(Clone, Debug, Default, Args)]
pub struct Target {
    /// For this Talos version [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_TO")]
    pub to: Option<Version>,
    /// For this Kubernetes version [default: the profile's]
    #[arg(long, value_name = "VERSION", env = "RECAST_KUBERNETES")]
    pub kubernetes: Option<Version>,
}

/// `recast config diff`.
#[derive(Debug, Args)]
pub struct DiffConfig {
    /// What becomes of old keys.
    #[command(flatten)]
    pub migrate: Migrate,
    /// Versions.
    #[command(flatten)]
    pub target: Target,
}

/// `recast config render`.
#[derive(Debug, Args)]
pub struct Render {
    /// Where to [default: `clusterconfig` in the profile's `config_dir`]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What becomes of old keys.
    #[command(flatten)]
    pub migrate: Migrate,
    /// Versions.
    #[command(flatten)]
    pub target: Target,
}

/// `recast config check`.
#[derive(Debug, Args)]
pub struct CheckConfig {
    /// The Talos version that runs [default: the profile's when another is asked for, else that of the lock's templates]
    #[arg(long, value_name = "VERSION", env = "RECAST_FROM")]
    pub from: Option<Version>,
    /// What becomes of old keys.
    #[command(flatten)]
    pub migrate: Migrate,
    /// Versions.
    #[command(flatten)]
    pub target: Target,
}

/// `recast secrets`; `generate` is parsed by `dropin`, before these.
#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Take the secrets over from where they are; never overwrites
    Import(Import),
    /// Show what tells one cluster's secrets from another's, and nothing secret
    Fingerprint {
        /// The secrets [default: the profile's]
        file: Option<PathBuf>,
    },
    /// Put a new client certificate into a talosconfig, beside what else is in it; the previous file is kept as a backup
    Talosconfig(Talosconfig),
    /// What `dropin` would have parsed, had it stood first.
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// `recast secrets talosconfig`.
#[derive(Debug, Args)]
pub struct Talosconfig {
    /// Let this running control plane sign it, with the certificate that is there and still valid [default: the profile's
    /// secrets sign it]
    #[arg(long, value_name = "ADDRESS")]
    pub node: Option<String>,
    /// What its holder may do: os:admin, os:operator, os:reader, os:etcd:backup
    #[arg(long, value_name = "A,B", value_delimiter = ',', default_value = "os:admin", value_parser = role)]
    pub roles: Vec<crate::talos::access::Roles>,
    /// How long it is valid: 8h, 30m
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = duration)]
    pub valid: std::time::Duration,
    /// The file [default: TALOSCONFIG, else ~/.talos/config]
    #[arg(long, value_name = "FILE", env = "RECAST_TALOSCONFIG")]
    pub talosconfig: Option<PathBuf>,
    /// Its context [default: the profile's cluster, with --node the current one]
    #[arg(long, value_name = "NAME", env = "RECAST_CONTEXT")]
    pub context: Option<String>,
}

/// `recast secrets import`.
#[derive(Debug, Args)]
pub struct Import {
    /// secrets.yaml, talsecret.yaml (also encrypted with SOPS), a control plane's configuration, or a Kubernetes PKI folder
    #[arg(required_unless_present = "node", conflicts_with = "node")]
    pub from: Option<PathBuf>,
    /// Take them from this running control plane
    #[arg(long, value_name = "ADDRESS")]
    pub node: Option<String>,
    /// The talosconfig to enter it with [default: TALOSCONFIG, else ~/.talos/config]
    #[arg(long, value_name = "FILE", requires = "node")]
    pub talosconfig: Option<PathBuf>,
    /// Its context [default: the current one]
    #[arg(long, value_name = "NAME", requires = "node")]
    pub context: Option<String>,
    /// Where to [default: the profile's `secrets_file`, else secrets.yaml]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// `recast schematic`.
#[derive(Debug, Args)]
pub struct Schematic {
    /// Official extensions; siderolabs/ may be left out
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub extensions: Vec<String>,
    /// The boot loader; without it the factory chooses. UEFI templates may take sd-boot, with half the bytes
    #[arg(long, value_name = "LOADER")]
    pub bootloader: Option<Bootloader>,
    /// Make it known to the profile's Image Factory, or to the public one, and print its ID from there
    #[arg(long)]
    pub submit: bool,
}

/// A boot loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bootloader {
    /// Both, for BIOS and UEFI.
    DualBoot,
    /// systemd-boot, for UEFI.
    SdBoot,
    /// GRUB.
    Grub,
}

/// An ID that no factory can know is a mistake in typing.
fn schematic_id(text: &str) -> Result<SchematicId, String> {
    let hex = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hex { Ok(SchematicId::new(text)) } else { Err("an ID has 64 lower-case hex digits".to_owned()) }
}

fn role(text: &str) -> Result<crate::talos::access::Roles, String> {
    let known = crate::talos::access::Roles::ALL;
    known.into_iter().find(|role| role.name() == text).ok_or_else(|| {
        let names = known.map(crate::talos::access::Roles::name);
        format!("the roles are {}", names.join(", "))
    })
}

fn duration(text: &str) -> Result<std::time::Duration, String> {
    let found = crate::profile::quantity::duration(text).filter(|duration| !duration.is_zero());
    found.ok_or_else(|| "a duration is like 8760h, 30m or 90s".to_owned())
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
