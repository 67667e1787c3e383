//! What every verb that reboots the cluster's own machines looks at first.

use std::collections::BTreeMap;

use crate::cli::carry_out::access;
use crate::cli::prepare::{ask, endpoint, inheritance, out_of_reach, planned_vms, rows, unreachable};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::observe;
use crate::plan::check::victims;
use crate::plan::data::OldMachine;
use crate::plan::kubernetes::SeenKubernetes;
use crate::plan::make::inherit;
use crate::plan::observed::{Complaint, Finding, Observed};
use crate::plan::upgrade::SeenCluster;
use crate::plan::{Limits, PlannedVm};
use crate::talos::secrets::Secrets;
use crate::types::{NodeName, RunId, VmId};

/// What is there.
pub struct Look {
    /// By Proxmox VE and the cluster's own APIs.
    pub seen: Observed,
    /// Machine by machine.
    pub running: SeenCluster,
    /// The profile's VMs.
    pub vms: Vec<PlannedVm>,
    /// Workers that are not up: a run that goes up waits for them, one that goes back takes them first.
    pub down: Vec<Complaint>,
    /// VMs on nodes that are down.
    pub out_of_reach: Vec<(VmId, String, NodeName)>,
    /// The Kubernetes endpoint, a URL.
    pub endpoint: String,
}

/// Looks. Reads only.
pub async fn look(session: &Session, secrets: &Secrets, run: &RunId) -> Result<Look, Stop> {
    let now = jiff::Timestamp::now();
    let guests = session.pve.guests().await.map_err(|error| unreachable(&error))?;
    let rows = rows(session, &guests)?;
    let ask = ask(session, &rows);
    let mut seen = observe::pve::observe(&session.pve, &ask).await.map_err(|error| unreachable(&error))?;
    session.pve.caller().clone_into(&mut seen.caller);
    let vms = inherit(&planned_vms(&rows), run, &seen, &inheritance(&rows));
    let access = access(secrets, now)?;
    let endpoint = endpoint(session)?;
    seen.cluster = observe::cluster::observe(&session.connector, secrets, &access, &vms, &endpoint, now).await;
    let found = observe::members::observe(&session.connector, &access, &vms).await;
    let machines = machines(&vms, &mut seen);
    let live: Vec<_> = found.members.iter().map(|seen| seen.member.clone()).collect();
    let components = match observe::components::client(&session.connector, &access, &live).await {
        Some(Ok(client)) => observe::components::observe(&session.connector, &access, &live, &client).await,
        // What else is wrong with its API is found with the cluster's health.
        Some(Err(error)) => {
            let unseen = vec![format!("the Kubernetes API can't be looked at: {error}")];
            SeenKubernetes { unseen, ..SeenKubernetes::default() }
        }
        None => SeenKubernetes::default(),
    };
    let answered = seen.cluster.as_ref().and_then(|cluster| cluster.kubernetes.clone());
    let kubernetes = answered.into_iter().chain(components.lowest.clone()).min();
    let running = SeenCluster { members: found.members, silent: found.silent, kubernetes, machines, components };
    let out_of_reach = out_of_reach(session, &guests, &seen);
    Ok(Look { seen, running, vms, down: found.down, out_of_reach, endpoint })
}

/// The machines with the VMs that they run in: what is rebooted must be what the profile means.
fn machines(vms: &[PlannedVm], seen: &mut Observed) -> Vec<OldMachine> {
    let known: BTreeMap<&str, _> = victims(seen).map(|vm| (vm.identity.name.as_str(), vm.identity.clone())).collect();
    let mut machines = Vec::new();
    let mut missing = Vec::new();
    for vm in vms {
        match known.get(vm.name.as_str()) {
            Some(identity) => {
                machines.push(OldMachine { vm: identity.clone(), role: vm.role, address: vm.address });
            }
            None => missing.push(vm.name.clone()),
        }
    }
    if !missing.is_empty() {
        seen.problems.push(Finding::refusal(
            format!("Proxmox VE has no VM of the cluster with the name {}", missing.join(", ")),
            "machines are upgraded in the VMs of the profile: correct its names or tags, or the VMs'",
        ));
    }
    machines
}

/// The profile's time limits.
pub fn limits(session: &Session) -> Limits {
    let profile = &session.profile.value;
    let timeouts = &profile.timeouts;
    Limits {
        shutdown: timeouts.shutdown.as_secs(),
        boot: timeouts.boot.as_secs(),
        health: timeouts.health.as_secs(),
        task: timeouts.task.as_secs(),
        steady: profile.steady.as_secs(),
        drain: timeouts.drain.as_secs(),
    }
}
