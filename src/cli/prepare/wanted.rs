//! All that is wanted, in the words of the planner: the profile, the site and the release put together.
//!
//! Must not know: what is there already.

use std::collections::{BTreeMap, BTreeSet};

use super::hardware::{hardware, nic};
use super::look::transport;
use super::machines::{Shared, machines};
use super::release::Release;
use super::{Order, inheritance};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::plan::errands::Errands;
use crate::plan::step::Discovery;
use crate::plan::wanted::OtherImage;
use crate::plan::{ClusterConfig, Data, Limits, PlannedVm, Verb, Wanted};
use crate::profile::DiscoveryMode;
use crate::profile::expand::WantedVm;
use crate::talos::secrets::Secrets;
use crate::types::RunId;

pub(in crate::cli) fn endpoint(session: &Session) -> Result<String, Stop> {
    let endpoint = session.profile.value.network.api_endpoint.as_ref();
    let endpoint = endpoint.ok_or_else(|| Stop::new(ExitCode::Invalid, "the profile has no network.api_endpoint"))?;
    Ok(endpoint.url())
}

pub(super) fn wanted(
    session: &Session,
    order: &Order,
    run: RunId,
    release: Release,
    rows: &[WantedVm],
    vms: Vec<PlannedVm>,
    secrets: &Secrets,
) -> Result<Wanted, Stop> {
    let profile = &session.profile.value;
    let talos = session.talos()?;
    let config = ClusterConfig {
        endpoint: endpoint(session)?,
        pod_cidr: profile.network.pod_cidr.to_string(),
        service_cidr: profile.network.service_cidr.to_string(),
        install_disk: talos.install_disk.clone(),
        schematic: release.schematic.clone(),
        installer: release.installer,
        mtu: profile.network.mtu,
        vip: talos.vip.as_ref().map(|vip| vip.ip),
    };
    let installs = order.verb != Verb::Teardown;
    let installers = release.others.iter().map(|(role, other)| (*role, other.installer.clone())).collect();
    let shared = Shared { config: &config, versions: &release.versions, installers };
    let machines =
        if installs { machines(session, talos, &shared, order.back.as_ref(), &vms, secrets)? } else { BTreeMap::new() };
    let (discovery, canary_discovery) = if installs { discovery(session, &vms)? } else { (Vec::new(), Vec::new()) };
    let ranges = &session.site.vmid_ranges;
    Ok(Wanted {
        verb: order.verb,
        run,
        cluster: profile.name.clone(),
        profile: session.profile_digest(),
        secrets: secrets.fingerprint(),
        talos: release.versions.talos,
        kubernetes: release.versions.kubernetes,
        schematic: release.schematic,
        tags: profile.tags.clone(),
        machines,
        storage: session.site.defaults.storage.clone(),
        nic: nic(session),
        hardware: hardware(session, &release.extensions),
        extensions: release.extensions,
        others: release
            .others
            .into_iter()
            .map(|(role, other)| {
                let hardware = hardware(session, &other.extensions);
                (role, OtherImage { schematic: other.schematic, hardware })
            })
            .collect(),
        extra: rows
            .iter()
            .map(|vm| {
                let before = order.back.as_ref().map(|before| before.hardware(vm.name.as_str()));
                (vm.name.to_string(), before.unwrap_or_default().into_iter().chain(vm.vm.clone()).collect())
            })
            .collect(),
        before: order.back.as_ref().map(|before| before.folder.clone()),
        inherit: inheritance(rows),
        pool: session.site.defaults.pool.clone(),
        transport: transport(session),
        template_ids: ranges.templates.first.0..=ranges.templates.last.0,
        discovery,
        canary_discovery,
        cloud_init: profile.address_discovery.mode == DiscoveryMode::CloudInit,
        limits: Limits {
            shutdown: profile.timeouts.shutdown.as_secs(),
            boot: profile.timeouts.boot.as_secs(),
            health: profile.timeouts.health.as_secs(),
            task: profile.timeouts.task.as_secs(),
            steady: profile.steady.as_secs(),
            drain: profile.timeouts.drain.as_secs(),
        },
        max_destroy: profile.guards.max_destroy,
        destroy_disks: BTreeSet::new(),
        data: Data::Fresh,
        errands: Errands::default(),
        config,
        vms,
    })
}

/// Where to look for machines without a configuration beside their assigned addresses, and where to look for canaries,
/// which have none: the guest agent is asked, and the subnet of the profile, or the one that its addresses lie in, is
/// scanned.
fn discovery(session: &Session, vms: &[PlannedVm]) -> Result<(Vec<Discovery>, Vec<Discovery>), Stop> {
    let profile = &session.profile.value;
    let mode = profile.address_discovery.mode;
    if mode == DiscoveryMode::Agent {
        return Ok((vec![Discovery::Agent], vec![Discovery::Agent]));
    }
    let subnet = profile.address_discovery.subnet.or_else(|| profile.network.subnet()).or_else(|| {
        // A /24 around the first address: what a homelab has.
        let address = vms.iter().find_map(|vm| vm.address)?;
        ipnet::IpNet::new(address, 24).ok().map(|net| net.trunc())
    });
    let subnet = subnet.ok_or_else(|| {
        Stop::new(ExitCode::Invalid, "it is not known where new machines come up")
            .hinted("give address_discovery.subnet in the profile: the network in which they get their DHCP addresses")
    })?;
    let scan = Discovery::Scan(subnet.trunc().to_string());
    let both = vec![Discovery::Agent, scan.clone()];
    Ok(match mode {
        DiscoveryMode::Auto => (both.clone(), both),
        DiscoveryMode::Static | DiscoveryMode::CloudInit => (Vec::new(), both),
        _ => (vec![scan.clone()], vec![scan]),
    })
}
