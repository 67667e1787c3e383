//! `recast config generate`, in the place of `talosctl gen config`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{ArgAction, Args};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::output::{Existing, Parents, apply, direct, patch, read, write};
use super::{Done, contract, list, switch};
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

/// What is told of a cluster without a name.
const NAMELESS: &str = "the cluster has no name: talosctl takes no context without one from a talosconfig\n";

/// The minor version since which talosctl has no `--persist`.
const PERSIST_GONE: u32 = 13;

/// The newest Kubernetes of a Talos from before those that can be installed.
fn kubernetes_before(contract: Contract) -> Version {
    let after = [27, 26, 25, 24].into_iter().zip((1..5).rev()).find(|(_, minor)| contract >= Contract::minor(*minor));
    Version::new(1, after.map_or(23, |(kubernetes, _)| kubernetes), 0)
}

/// What can be generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OutputType {
    ControlPlane,
    Worker,
    Talosconfig,
}

impl OutputType {
    const ALL: [Self; 3] = [Self::ControlPlane, Self::Worker, Self::Talosconfig];

    fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane",
            Self::Worker => "worker",
            Self::Talosconfig => "talosconfig",
        }
    }

    fn file(self) -> &'static str {
        match self {
            Self::ControlPlane => "controlplane.yaml",
            Self::Worker => "worker.yaml",
            Self::Talosconfig => "talosconfig",
        }
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
    #[arg(long, value_name = "A,B")]
    additional_sans: Vec<String>,
    /// Patch for all machines: @FILE, or the patch itself
    #[arg(long, value_name = "PATCH")]
    config_patch: Vec<String>,
    /// Patch for control planes
    #[arg(long, value_name = "PATCH")]
    config_patch_control_plane: Vec<String>,
    /// Patch for workers
    #[arg(long, value_name = "PATCH")]
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
    output: Option<OsString>,
    /// What to generate: controlplane, worker, talosconfig [default: all of them]
    #[arg(short = 't', long, value_name = "A,B")]
    output_types: Vec<String>,
    /// A registry's mirror: docker.io=https://mirror.example.org
    #[arg(long, value_name = "HOST=URL")]
    registry_mirror: Vec<String>,
    /// Talos version that will read the configuration [default: the newest known]
    #[arg(long)]
    talos_version: Option<String>,
    /// Version of the configuration: there is only one
    #[arg(long, default_value = "v1alpha1")]
    version: String,
    /// Whether machines find each other through the discovery service
    #[arg(long, action = ArgAction::Set, value_parser = switch, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    with_cluster_discovery: bool,
    /// Accepted; no comments are written
    #[arg(long, action = ArgAction::Set, value_parser = switch, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    with_docs: bool,
    /// Accepted; no comments are written
    #[arg(long, action = ArgAction::Set, value_parser = switch, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    with_examples: bool,
    /// Whether KubeSpan connects the machines
    #[arg(long, action = ArgAction::Set, value_parser = switch, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    with_kubespan: bool,
    /// A secrets bundle [default: a new one, which only the configurations hold then]
    #[arg(long, value_name = "FILE")]
    with_secrets: Option<OsString>,
    /// Whether machines keep the configuration over reboots, for Talos up to 1.12
    #[arg(short, long, hide = true, action = ArgAction::Set, value_parser = switch, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    persist: bool,
    /// The older name of --output
    #[arg(long, hide = true, value_name = "PATH")]
    output_dir: Option<OsString>,
    /// Replace files that are there
    #[arg(short, long)]
    force: bool,
}

/// Where the outputs go.
enum Destination {
    Stdout,
    File(PathBuf),
    Folder(PathBuf),
}

impl Generate {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let now = Timestamp::now();
        let kinds = self.kinds()?;
        let destination = self.destination(&kinds)?;
        let (contract, newer) = contract(self.talos_version.as_deref())?;
        let input = self.input(contract)?;
        let secrets = self.secrets(contract, now)?;
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
        for kind in OutputType::ALL.iter().filter(|kind| kinds.contains(kind)) {
            let text = match kind {
                OutputType::ControlPlane => plane.clone(),
                OutputType::Worker => worker.clone(),
                OutputType::Talosconfig => self.talosconfig(&secrets, now)?,
            };
            outputs.push((*kind, text));
        }
        let done = put(&outputs, &destination, Existing::by(self.force))?;
        let nameless = if self.name.is_empty() { NAMELESS } else { "" };
        Ok(Done { told: format!("{}{nameless}{}", newer.unwrap_or_default(), done.told), ..done })
    }

    /// What is asked for, as often as it is.
    fn kinds(&self) -> Result<Vec<OutputType>, Stop> {
        if self.output_types.is_empty() {
            return Ok(OutputType::ALL.to_vec());
        }
        let names = listed("output-types", &self.output_types)?;
        let known = OutputType::ALL.map(OutputType::name).join(", ");
        if names.is_empty() {
            return Err(
                Stop::new(ExitCode::Invalid, "no output is asked for").hinted(format!("--output-types takes {known}"))
            );
        }
        let kind = |name: &String| {
            OutputType::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
                Stop::new(ExitCode::Invalid, format!("there is no output '{name}'"))
                    .hinted(format!("there are {known}"))
            })
        };
        names.iter().map(kind).collect()
    }

    fn destination(&self, kinds: &[OutputType]) -> Result<Destination, Stop> {
        let said = |path: Option<&OsString>| path.filter(|path| !path.is_empty()).map(PathBuf::from);
        let (output, folder) = (said(self.output.as_ref()), said(self.output_dir.as_ref()));
        if output.is_some() && folder.is_some() {
            return Err(Stop::new(ExitCode::Invalid, "--output and --output-dir can't be used together")
                .hinted("--output alone does for both"));
        }
        // The older flag names a folder, whatever there is to write, or stdout for all of it.
        let is_older = folder.is_some();
        let single = kinds.len() == 1 && !is_older;
        match output.or(folder) {
            None => Ok(Destination::Folder(PathBuf::from("."))),
            Some(path) if path.as_os_str() == "-" && kinds.len() > 1 && !is_older => {
                Err(Stop::new(ExitCode::Invalid, "stdout takes one output only")
                    .hinted("choose one with --output-types, or name a folder"))
            }
            Some(path) if path.as_os_str() == "-" => Ok(Destination::Stdout),
            Some(path) if single => Ok(Destination::File(path)),
            Some(path) => Ok(Destination::Folder(path)),
        }
    }

    fn input(&self, contract: Contract) -> Result<Input, Stop> {
        let invalid = |what: String| Stop::new(ExitCode::Invalid, what);
        if self.version != "v1alpha1" {
            return Err(invalid(format!("there is no version '{}' of machine configurations", self.version))
                .hinted("leave out --version, or say v1alpha1"));
        }
        let talos = self.talos_version.as_deref().and_then(|text| text.parse::<Version>().ok());
        let talos = talos.unwrap_or_else(|| contract.first());
        let newest = kubernetes_range(&talos).map_or_else(
            || if contract < Contract::OLDEST { kubernetes_before(contract) } else { Version::new(1, 37, 0) },
            |(_, (major, minor))| Version::new(major, minor, 0),
        );
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
        input.extra_sans = listed("additional-sans", &self.additional_sans)?;
        input.dns_domain.clone_from(&self.dns_domain);
        let turned = |on: bool| if on { Switch::On } else { Switch::Off };
        input.discovery = turned(self.with_cluster_discovery);
        input.kubespan = turned(self.with_kubespan);
        for mirror in listed("registry-mirror", &self.registry_mirror)? {
            input.add_mirror(&mirror).map_err(unusable)?;
        }
        Ok(input)
    }

    fn secrets(&self, contract: Contract, now: Timestamp) -> Result<Secrets, Stop> {
        match self.with_secrets.as_ref().filter(|path| !path.is_empty()).map(Path::new) {
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
}

/// The values of a flag that takes lists.
fn listed(flag: &str, words: &[String]) -> Result<Vec<String>, Stop> {
    list::values(words).map_err(|error| Stop::because(ExitCode::Invalid, format!("--{flag} holds no list"), &error))
}

fn put(outputs: &[(OutputType, SecretString)], destination: &Destination, existing: Existing) -> Result<Done, Stop> {
    let files: Vec<(PathBuf, &SecretString)> = match destination {
        Destination::Stdout => {
            let data = outputs.iter().map(|(_, text)| text.expose_secret()).collect();
            return Ok(Done { data, told: String::new() });
        }
        Destination::File(path) => outputs.iter().map(|(_, text)| (path.clone(), text)).collect(),
        Destination::Folder(folder) => {
            outputs.iter().map(|(kind, text)| (direct(&folder.join(kind.file())), text)).collect()
        }
    };
    let there = files.iter().find(|(path, _)| path.exists()).map(|(path, _)| path);
    if let (Some(path), Existing::Keep) = (there, existing) {
        let hint = if path.is_dir() {
            "nothing was written; it is a folder, and a single output wants a file in it".to_owned()
        } else {
            "nothing was written; --force replaces it".to_owned()
        };
        return Err(Stop::new(ExitCode::Invalid, format!("{} is there already", path.display())).hinted(hint));
    }
    let mut told = String::new();
    for (path, text) in files {
        write(&path, text, existing, Parents::Make)?;
        let _ = writeln!(told, "Created {}", path.display());
    }
    Ok(Done { data: String::new(), told })
}
