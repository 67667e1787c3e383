//! The cluster's secrets, and what is signed with them.
//!
//! Must not know: any secret.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
