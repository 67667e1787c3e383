//! The machines' configurations: what each is made from, rendered once for its digest.
//!
//! Must not know: the VMs that they run in.

use std::collections::BTreeMap;

use crate::cli::patches::Patches;
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::cli::way_back::Before;
use crate::exit::ExitCode;
use crate::plan::step::MachineSpec;
use crate::plan::{ClusterConfig, PlannedVm, Versions};
use crate::profile::Talos;
use crate::steps::config;
use crate::talos::secrets::Secrets;
use crate::types::{MachineName, Role, Sha256};

/// What the configurations of all machines are made from.
pub(super) struct Shared<'a> {
    pub(super) config: &'a ClusterConfig,
    pub(super) versions: &'a Versions,
    /// Installers of roles that have their own.
    pub(super) installers: BTreeMap<Role, String>,
}

pub(super) fn machines(
    session: &Session,
    talos: &Talos,
    shared: &Shared<'_>,
    back: Option<&Before>,
    vms: &[PlannedVm],
    secrets: &Secrets,
) -> Result<BTreeMap<MachineName, MachineSpec>, Stop> {
    let network = &session.profile.value.network;
    let folder = session.folder();
    let patches = Patches { talos, profile: &session.profile_path, folder: &folder };
    // That nobody takes a file is `config check`'s to tell; a folder that isn't there would leave all patches out.
    patches.stray(vms.iter().map(|vm| (vm.name.as_str(), vm.role)))?;
    let mut machines = BTreeMap::new();
    for vm in vms {
        let own = patches.own(&vm.name);
        let address = match (vm.address, network.prefix.or_else(|| network.subnet().map(|subnet| subnet.prefix_len())))
        {
            (Some(address), Some(prefix)) => Some(format!("{address}/{prefix}")),
            (Some(address), None) if own.is_empty() => {
                return Err(Stop::new(ExitCode::Invalid, format!("the prefix length of {}'s address {address} is not known", vm.name))
                    .hinted("give network.prefix and network.gateway in the profile, or a patch of that name in talos.patches_dir"));
            }
            // The user's own patch sets the address.
            _ => None,
        };
        let Some(mac) = vm.mac else { continue };
        let mut spec = MachineSpec {
            name: MachineName::new(&vm.name),
            role: vm.role,
            mac,
            gateway: address.as_ref().and(network.gateway),
            nameservers: network.nameservers.clone(),
            address,
            installer: shared.installers.get(&vm.role).cloned(),
            patches: patches.shared(vm.role).into_iter().chain(own).collect(),
            whole: back.and_then(|before| before.config(&vm.name)),
            digest: Sha256::of(b""),
        };
        let rendered = config::render(secrets, &session.profile.value.name, shared.config, shared.versions, &spec)
            .map_err(|error| {
                Stop::because(ExitCode::Invalid, format!("the configuration of {} can't be rendered", vm.name), &error)
            })?;
        spec.digest = rendered.digest;
        machines.insert(spec.name.clone(), spec);
    }
    Ok(machines)
}
