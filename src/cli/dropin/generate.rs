//! `recast config generate`, in the place of `talosctl gen config`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args, ValueEnum};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::Done;
use super::output::{Existing, apply, patch, read, write};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::plan::compatibility::kubernetes_range;
use crate::talos::access::{AdminCertificate, Roles, YEAR_HOURS, talosconfig};
use crate::talos::config::{Contract, Input, LegacyEncryption, Switch, generate};
use crate::talos::secrets::Secrets;
use crate::types::{Role, Version};

/// Where Talos' own installer images are.
const INSTALLER: &str = "ghcr.io/siderolabs/installer";

/// The same from the minor version on that ghcr.io no longer has: the Image Factory's, of the empty schematic.
const FACTORY_INSTALLER: (u32, &str) =
    (14, "factory.talos.dev/metal-installer/376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");

/// The minor version since which talosctl has no `--persist`.
const PERSIST_GONE: u32 = 13;

/// What can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OutputType {
    #[value(name = "controlplane")]
    ControlPlane,
    Worker,
    Talosconfig,
}

impl OutputType {
    fn file(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane.yaml",
            Self::Worker => "worker.yaml",
            Self::Talosconfig => "talosconfig",
        }
    }
}

/// A switch in any spelling that talosctl takes.
fn switch(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Ok(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Ok(false),
        _ => Err("it is true or false".to_owned()),
    }
}

/// Flags of `recast config generate`.
#[expect(clippy::struct_excessive_bools, reason = "talosctl's own flags, each on or off")]
#[derive(Debug, Args)]
pub struct Generate {
    /// The cluster's name
    #[arg(value_name = "NAME")]
    name: String,
    /// URL of the Kubernetes API: `https://10.0.0.10:6443`
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
    /// More names and addresses for the API server's certificate
    #[arg(long, value_delimiter = ',')]
    additional_sans: Vec<String>,
    /// Patch for all machines: @FILE, or the patch itself
    #[arg(long, value_name = "PATCH", allow_hyphen_values = true)]
    config_patch: Vec<String>,
    /// Patch for control planes
    #[arg(long, value_name = "PATCH", allow_hyphen_values = true)]
    config_patch_control_plane: Vec<String>,
    /// Patch for workers
    #[arg(long, value_name = "PATCH", allow_hyphen_values = true)]
    config_patch_worker: Vec<String>,
    /// The cluster's DNS domain
    #[arg(long, default_value = "cluster.local")]
    dns_domain: String,
    /// The disk to install to; an empty one leaves it out
    #[arg(long, default_value = "/dev/sda")]
    install_disk: String,
    /// The installer's image [default: that of the Talos version]
    #[arg(long)]
    install_image: Option<String>,
    /// Kubernetes version [default: the newest minor that the Talos version runs]
    #[arg(long)]
    kubernetes_version: Option<String>,
    /// A folder; of a single output type, a file, or - for stdout
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// What to generate
    #[arg(short = 't', long, value_delimiter = ',', default_value = "controlplane,worker,talosconfig")]
    output_types: Vec<OutputType>,
    /// A registry's mirror: docker.io=https://mirror.example.org
    #[arg(long, value_delimiter = ',', value_name = "HOST=URL")]
    registry_mirror: Vec<String>,
    /// Talos version that will read the configuration [default: the newest known]
    #[arg(long)]
    talos_version: Option<String>,
    /// Version of the configuration: there is only one
    #[arg(long, default_value = "v1alpha1")]
    version: String,
    /// Whether machines find each other through the discovery service
    #[arg(long, action = ArgAction::Set, value_parser = switch, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    with_cluster_discovery: bool,
    /// Accepted; no comments are written
    #[arg(long, action = ArgAction::Set, value_parser = switch, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    with_docs: bool,
    /// Accepted; no comments are written
    #[arg(long, action = ArgAction::Set, value_parser = switch, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    with_examples: bool,
    /// Whether KubeSpan connects the machines
    #[arg(long, action = ArgAction::Set, value_parser = switch, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    with_kubespan: bool,
    /// A secrets bundle [default: a new one, which only the configurations hold then]
    #[arg(long, value_name = "FILE")]
    with_secrets: Option<PathBuf>,
    /// Whether machines keep the configuration over reboots, for Talos up to 1.12
    #[arg(short, long, hide = true, action = ArgAction::Set, value_parser = switch, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    persist: bool,
    /// The older name of --output
    #[arg(long, hide = true, value_name = "PATH", conflicts_with = "output")]
    output_dir: Option<PathBuf>,
    /// Replace files that are there
    #[arg(short, long)]
    force: bool,
}

impl Generate {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let now = Timestamp::now();
        let input = self.input()?;
        let secrets = self.secrets(input.contract, now)?;
        let all = self.config_patch.iter().map(|given| patch(given)).collect::<Result<Vec<_>, _>>()?;
        let planes = self.config_patch_control_plane.iter().map(|given| patch(given)).collect::<Result<Vec<_>, _>>()?;
        let workers = self.config_patch_worker.iter().map(|given| patch(given)).collect::<Result<Vec<_>, _>>()?;
        let config = |role: Role, own: &[crate::talos::config::Patch]| {
            let mut config = generate(&secrets, &input, role);
            apply(&mut config, all.iter().chain(own))?;
            config.settled().map_err(|error| {
                Stop::because(ExitCode::Invalid, format!("the {role} configuration is none after its patches"), &error)
            })
        };
        // Made whether asked for or not: a patch that doesn't fit is told before anything is written.
        let (plane, worker) = (config(Role::ControlPlane, &planes)?, config(Role::Worker, &workers)?);
        let mut outputs: Vec<(OutputType, SecretString)> = Vec::new();
        for kind in &self.output_types {
            if outputs.iter().any(|(made, _)| made == kind) {
                continue;
            }
            let text = match kind {
                OutputType::ControlPlane => plane.clone(),
                OutputType::Worker => worker.clone(),
                OutputType::Talosconfig => self.talosconfig(&secrets, now)?,
            };
            outputs.push((*kind, text));
        }
        self.put(&outputs)
    }

    fn input(&self) -> Result<Input, Stop> {
        let invalid = |what: String| Stop::new(ExitCode::Invalid, what);
        if self.version != "v1alpha1" {
            return Err(invalid(format!("there is no version '{}' of machine configurations", self.version))
                .hinted("leave out --version, or say v1alpha1"));
        }
        let wanted = self.talos_version.as_deref().filter(|version| !version.is_empty());
        let contract = wanted.map_or(Ok(Contract::NEWEST), str::parse).map_err(|error: crate::types::Malformed| {
            Stop::because(ExitCode::Invalid, "--talos-version is no version", &error)
        })?;
        let talos = wanted.and_then(|text| text.parse::<Version>().ok());
        let talos = talos.unwrap_or_else(|| contract.first());
        let newest = kubernetes_range(&talos)
            .map_or(Version::new(1, 37, 0), |(_, (major, minor))| Version::new(major, minor, 0));
        let kubernetes = self.kubernetes_version.clone().unwrap_or_else(|| newest.to_string());
        let unusable = |error: crate::talos::config::InputError| {
            Stop::because(ExitCode::Invalid, "no configuration can be made", &error)
        };
        let mut input = Input::new(&self.name, &self.endpoint, contract, &kubernetes).map_err(unusable)?;
        input.legacy_encryption = LegacyEncryption::AsGenerator;
        input.install_disk = (!self.install_disk.is_empty()).then(|| self.install_disk.clone());
        let (since, factory) = FACTORY_INSTALLER;
        let installer = if contract >= Contract::minor(since) { factory } else { INSTALLER };
        input.install_image =
            Some(self.install_image.clone().unwrap_or_else(|| format!("{installer}:{}", talos.tag())));
        if !self.persist {
            if contract >= Contract::minor(PERSIST_GONE) {
                return Err(invalid(format!("Talos {contract} has no configurations that are not kept"))
                    .hinted("leave --persist out"));
            }
            input.persist = Switch::Off;
        }
        // An empty list, not a list of an empty name.
        input.extra_sans = self.additional_sans.iter().filter(|name| !name.is_empty()).cloned().collect();
        input.dns_domain.clone_from(&self.dns_domain);
        let turned = |on: bool| if on { Switch::On } else { Switch::Off };
        input.discovery = turned(self.with_cluster_discovery);
        input.kubespan = turned(self.with_kubespan);
        for mirror in &self.registry_mirror {
            input.add_mirror(mirror).map_err(unusable)?;
        }
        Ok(input)
    }

    fn secrets(&self, contract: Contract, now: Timestamp) -> Result<Secrets, Stop> {
        match self.with_secrets.as_ref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => Secrets::load(&read(path)?, now).map_err(|error| {
                let what = format!("the secrets in {} are not valid", path.display());
                error.hints().into_iter().fold(Stop::because(ExitCode::Invalid, what, &error), Stop::hinted)
            }),
            None => Secrets::generate(contract, now)
                .map_err(|error| Stop::because(ExitCode::Failed, "no secrets can be made", &error)),
        }
    }

    fn talosconfig(&self, secrets: &Secrets, now: Timestamp) -> Result<SecretString, Stop> {
        let failed = |error| Stop::because(ExitCode::Failed, "no talosconfig can be made", &error);
        let certificate = AdminCertificate::issue(secrets, Roles::Admin, now, YEAR_HOURS).map_err(failed)?;
        let context =
            talosconfig::Context { name: self.name.clone(), endpoints: Vec::new(), nodes: Vec::new(), certificate };
        talosconfig::merge(None, &context).map_err(failed)
    }

    fn put(&self, outputs: &[(OutputType, SecretString)]) -> Result<Done, Stop> {
        let existing = Existing::by(self.force);
        let said = |path: &&PathBuf| !path.as_os_str().is_empty();
        let folder = self.output_dir.as_ref().filter(said);
        let output = self.output.as_ref().filter(said).or(folder);
        // The older flag names a folder, whatever there is to write; but for stdout.
        if let ([(kind, text)], Some(path)) = (outputs, output)
            && self.output_types.len() == 1
            && (folder.is_none() || path == Path::new("-"))
        {
            if path == Path::new("-") {
                return Ok(Done { data: text.expose_secret().to_owned(), told: String::new() });
            }
            let path = if path.is_dir() { path.join(kind.file()) } else { path.clone() };
            write(&path, text, existing)?;
            return Ok(Done { data: String::new(), told: format!("Created {}\n", path.display()) });
        }
        let folder = output.cloned().unwrap_or_else(|| PathBuf::from("."));
        if folder == Path::new("-") {
            return Err(Stop::new(ExitCode::Invalid, "stdout takes one output only")
                .hinted("choose one with --output-types, or name a folder"));
        }
        let there: Vec<PathBuf> =
            outputs.iter().map(|(kind, _)| folder.join(kind.file())).filter(|path| path.exists()).collect();
        if let (Some(first), Existing::Keep) = (there.first(), existing) {
            return Err(Stop::new(ExitCode::Invalid, format!("{} is there already", first.display()))
                .hinted("nothing was written; --force replaces it"));
        }
        let mut told = String::new();
        for (kind, text) in outputs {
            let path = folder.join(kind.file());
            write(&path, text, existing)?;
            let _ = writeln!(told, "Created {}", path.display());
        }
        Ok(Done { data: String::new(), told })
    }
}
