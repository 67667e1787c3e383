//! What is looked at on Proxmox VE for this profile, and what is said when it can't be.
//!
//! Must not know: what is wanted of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::observe::{self, Ask};
use crate::plan::observed::{Finding, Observed};
use crate::plan::sources;
use crate::profile::expand::WantedVm;
use crate::profile::{DiscoveryMode, Transport};
use crate::pve::PveError;
use crate::pve::vm::{Guest, GuestKind};
use crate::types::{NodeName, VmId};

/// How images come to the nodes, as asked for.
pub(super) fn transport(session: &Session) -> Transport {
    session.profile.value.transport.unwrap_or(session.site.defaults.transport)
}

/// Whether the nodes that may have to be used over SSH can be: those that take no uploads, or all where that is asked for.
pub(super) async fn shells(session: &Session, seen: &Observed) -> Result<BTreeMap<NodeName, Option<Finding>>, Stop> {
    let transport = transport(session);
    let mut found = BTreeMap::new();
    for (node, login) in crate::cli::ssh::nodes(session)? {
        let online = seen.nodes.iter().any(|other| other.name == node && other.online);
        if online && sources::may_need_ssh(transport, seen, &node) {
            let problem = observe::shell::look(&session.connector, &login).await;
            found.insert(node, problem);
        }
    }
    Ok(found)
}

/// The cluster's VMs on nodes that are down, by tags, else by number.
pub(in crate::cli) fn out_of_reach(
    session: &Session,
    guests: &[Guest],
    seen: &Observed,
) -> Vec<(VmId, String, NodeName)> {
    let tags = &session.profile.value.tags;
    let down = |node: &NodeName| seen.nodes.iter().any(|other| other.name == *node && !other.online);
    let ours = guests.iter().filter(|guest| {
        let tagged = guest.tags().contains_all(tags.iter().map(String::as_str));
        guest.kind == GuestKind::Qemu && guest.template != Some(true) && tagged && down(&guest.node)
    });
    ours.map(|guest| (guest.vmid, guest.name.clone().unwrap_or_default(), guest.node.clone())).collect()
}

/// PVE can't be read: nothing else can be said.
pub fn unreachable(error: &PveError) -> Stop {
    let stop = Stop::because(ExitCode::Refused, "Proxmox VE could not be read", error);
    match error {
        PveError::Pin { .. } => stop.hinted(
            "if the node's certificate was renewed, compare the fingerprint on its console and put the new one into the site file",
        ),
        PveError::Untrusted(_) => stop.hinted(
            "give the site file tls.ca with /etc/pve/pve-root-ca.pem of a PVE node, or the node's fingerprint",
        ),
        PveError::Unauthorized { .. } => stop.hinted("check the token's id and secret in the site file"),
        _ => stop,
    }
}

/// Whether any VM of the cluster is there, by its tags.
pub async fn any_member(session: &Session) -> Result<bool, Stop> {
    let tags = &session.profile.value.tags;
    let guests = session.pve.guests().await.map_err(|error| unreachable(&error))?;
    Ok(guests.iter().any(|guest| {
        guest.kind == GuestKind::Qemu
            && guest.template != Some(true)
            && guest.tags().contains_all(tags.iter().map(String::as_str))
    }))
}

pub(in crate::cli) fn ask(session: &Session, rows: &[WantedVm]) -> Ask {
    let profile = &session.profile.value;
    let ranges = &session.site.vmid_ranges;
    let mut nodes: Vec<NodeName> = rows.iter().map(|vm| vm.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    Ask {
        cluster: profile.name.clone(),
        tags: profile.tags.clone(),
        half_made: BTreeSet::new(),
        names: rows.iter().map(|vm| vm.name.to_string()).collect(),
        vmids: rows.iter().map(|vm| vm.vmid).collect::<Vec<VmId>>(),
        template_ids: ranges.templates.first.0..=ranges.templates.last.0,
        nodes,
        storage: session.site.defaults.storage.clone(),
        transport: transport(session),
        bridge: profile.network.bridge.clone().unwrap_or_else(|| session.site.defaults.bridge.clone()),
        vlan: profile.network.vlan.or(session.site.defaults.vlan),
        inherits: rows.iter().flat_map(|vm| vm.inherit.iter().copied()).collect(),
        pool: session.site.defaults.pool.clone(),
        cloud_init: profile.address_discovery.mode == DiscoveryMode::CloudInit,
    }
}
