//! Verbs about a whole site: init, inventory, rehearse.
//!
//! Must not know: what runs there.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

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
