//! A machine's configuration, rendered from the plan and the secrets.
//!
//! Purpose: one function for the planner's digest, the canary's dry run and the real thing, so that what was planned is
//! what is applied, byte for byte.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::plan::step::{MachineSpec, PatchAt};
use crate::plan::{ClusterConfig, Versions};
use crate::profile::{PatchSource, load};
use crate::talos::config::{Contract, Input, Machine, Network, Patch, Rendered, Switch};
use crate::talos::secrets::Secrets;
use crate::types::Sha256;

/// Why a configuration could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// This Talos isn't known.
    #[error("there is no contract for this Talos version")]
    Contract(#[from] crate::types::Malformed),
    /// An input makes no sense.
    #[error("the configuration's inputs are wrong")]
    Input(#[from] crate::talos::config::InputError),
    /// A patch doesn't fit.
    #[error("the configuration could not be rendered")]
    Patch(#[from] crate::talos::config::PatchError),
    /// A patch can't be read.
    #[error("the patch {} can't be read", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A patch that stood in the profile isn't there any more, or the profile can't be read.
    #[error("{} has no inline patch talos.config_patches[{index}]", profile.display())]
    Gone {
        /// The profile's file.
        profile: PathBuf,
        /// Which.
        index: usize,
    },
    /// An address in the plan isn't one.
    #[error("'{0}' is not an address with a prefix length")]
    Address(String),
    /// A host can't be told from the endpoint.
    #[error("'{0}' is not an endpoint")]
    Endpoint(String),
}

/// Renders the configuration of one machine. Deterministic: the same inputs and patches give the same bytes.
pub fn render(
    secrets: &Secrets,
    cluster: &str,
    config: &ClusterConfig,
    versions: &Versions,
    machine: &MachineSpec,
) -> Result<Rendered, ConfigError> {
    if let Some(path) = &machine.whole {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        return Ok(Rendered { digest: Sha256::of(text.as_bytes()), text: text.into() });
    }
    let patches = machine.patches.iter().map(patch).collect::<Result<Vec<_>, _>>()?;
    render_with(secrets, cluster, config, versions, machine, &patches)
}

/// The same with patches that were read before.
pub fn render_with(
    secrets: &Secrets,
    cluster: &str,
    config: &ClusterConfig,
    versions: &Versions,
    machine: &MachineSpec,
    patches: &[Patch],
) -> Result<Rendered, ConfigError> {
    let contract = Contract::of(&versions.talos)?;
    let mut input = Input::new(cluster, &config.endpoint, contract, &versions.kubernetes.to_string())?;
    input.install_disk = Some(config.install_disk.clone());
    input.install_image = Some(machine.installer.as_ref().unwrap_or(&config.installer).clone());
    input.pod_subnets = vec![config.pod_cidr.clone()];
    input.service_subnets = vec![config.service_cidr.clone()];
    // These profiles keep cluster discovery off: it would tell a public service about the cluster.
    input.discovery = Switch::Off;
    let address = |text: &String| text.parse::<ipnet::IpNet>().map_err(|_| ConfigError::Address(text.clone()));
    let addresses = machine.address.iter().map(address).collect::<Result<Vec<_>, _>>()?;
    let network = Network {
        mac: machine.mac,
        addresses,
        gateway: machine.gateway,
        nameservers: machine.nameservers.clone(),
        vip: config.vip,
        mtu: config.mtu,
    };
    // A patch of the user's that sets up links knows better than the profile.
    let network = (!patches.iter().any(Patch::sets_links)).then_some(network);
    let machine = Machine { name: machine.name.clone(), role: machine.role, network };
    Ok(crate::talos::config::render(secrets, &input, &machine, patches)?)
}

/// A patch of a machine, read.
pub fn patch(at: &PatchAt) -> Result<Patch, ConfigError> {
    let (text, name) = read(at)?;
    Ok(Patch::parse(&text, &name)?)
}

/// A patch's text, and what messages call it.
fn read(at: &PatchAt) -> Result<(String, String), ConfigError> {
    match at {
        PatchAt::File(path) => {
            let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
            Ok((text, path.display().to_string()))
        }
        PatchAt::Profile { profile, index } => {
            let gone = || ConfigError::Gone { profile: profile.clone(), index: *index };
            let loaded = load::profile_file(profile).map_err(|_| gone())?.value;
            let patches = loaded.talos.map(|talos| talos.config_patches).unwrap_or_default();
            match patches.into_iter().nth(*index).map(|entry| entry.source) {
                Some(PatchSource::Inline(text)) => {
                    Ok((text, format!("{}, talos.config_patches[{index}]", profile.display())))
                }
                _ => Err(gone()),
            }
        }
    }
}

/// The host and port of an endpoint such as `https://192.168.178.41:6443`.
pub fn endpoint_host(endpoint: &str) -> Result<(String, u16), ConfigError> {
    let uri: http::Uri = endpoint.parse().map_err(|_| ConfigError::Endpoint(endpoint.to_owned()))?;
    let host = uri.host().ok_or_else(|| ConfigError::Endpoint(endpoint.to_owned()))?;
    Ok((host.trim_matches(['[', ']']).to_owned(), uri.port_u16().unwrap_or(6443)))
}

/// The endpoint's host, when it is an address.
pub fn endpoint_address(endpoint: &str) -> Option<IpAddr> {
    endpoint_host(endpoint).ok()?.0.parse().ok()
}
