//! What the running cluster shows through its own APIs: versions, members, and whether the secrets are its own.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use crate::k8s;
use crate::net::Connector;
use crate::plan::PlannedVm;
use crate::plan::observed::{Complaint, SeenCluster};
use crate::talos::client::etcd::{Alarm, Ask};
use crate::talos::client::{Access, Machine, TalosError};
use crate::talos::secrets::Secrets;
use crate::types::Role;

/// How long a machine may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at the machines at their addresses in the profile; none when no machine of a cluster answers there.
pub async fn observe(
    connector: &Connector,
    secrets: &Secrets,
    access: &Access,
    vms: &[PlannedVm],
    endpoint: &str,
    now: jiff::Timestamp,
) -> Option<SeenCluster> {
    let mut seen = SeenCluster::default();
    let mut answered = false;
    let mut silent = Vec::new();
    let mut control_plane = None;
    for vm in vms {
        let Some(address) = vm.address else { continue };
        match look(connector, secrets, access, vm, address, now, &mut seen).await {
            Ok(machine) => {
                answered = true;
                if vm.role == Role::ControlPlane {
                    control_plane.get_or_insert(machine);
                }
            }
            Err(TalosError::WrongCertificate { .. } | TalosError::NotAuthorized { .. }) => {
                answered = true;
                note(&mut seen, "the Talos CA");
            }
            Err(error) => {
                tracing::debug!(machine = vm.name, %error, "a machine of the profile doesn't answer");
                silent.push((vm, error));
            }
        }
    }
    if !answered {
        return None;
    }
    // A machine that is only planned isn't there yet.
    for (vm, error) in silent.iter().filter(|(vm, _)| vm.replaces.is_some()) {
        seen.unhealthy.push(Complaint::of(&vm.name, format!("{} does not answer: {error}", vm.name)));
    }
    if let Some(machine) = &control_plane {
        super::kubernetes::observe(connector, machine, &mut seen).await;
    }
    if let Ok(api) = k8s::Readyz::new(connector, endpoint, &secrets.kubernetes().certificate_pem()) {
        seen.kubernetes = api.version().await.ok();
    }
    Some(seen)
}

async fn look(
    connector: &Connector,
    secrets: &Secrets,
    access: &Access,
    vm: &PlannedVm,
    address: IpAddr,
    now: jiff::Timestamp,
    seen: &mut SeenCluster,
) -> Result<Machine, TalosError> {
    let machine = Machine::new(connector, &address.to_string(), access, PATIENCE)?;
    let release = machine.release().await?;
    seen.talos.insert(vm.name.clone(), release.version);
    if let Some(schematic) = machine.extensions().await?.schematic {
        seen.schematic.insert(vm.name.clone(), schematic);
    }
    if vm.role != Role::ControlPlane {
        return Ok(machine);
    }
    let about = |what: String| Complaint::of(&vm.name, what);
    if let Some(config) = machine.config().await? {
        match Secrets::from_machine_config(config.expose_secret(), now) {
            Ok(live) => {
                for part in secrets.differences(&live) {
                    note(seen, &part.to_string());
                }
            }
            Err(error) => {
                let what = format!("the configuration of {} holds no readable secrets: {error}", vm.name);
                seen.unhealthy.push(about(what));
            }
        }
    }
    match machine.etcd_members(Ask::Itself).await {
        Ok(members) => {
            let names = members.into_iter().map(|member| member.name);
            seen.members.extend(names);
            seen.members.sort();
            seen.members.dedup();
        }
        Err(error) => seen.unhealthy.push(about(format!("{} does not list etcd's members: {error}", vm.name))),
    }
    if let Some(status) = machine.status().await?.filter(|status| !status.is_up()) {
        seen.unhealthy.push(about(format!("{} is {}", vm.name, status.stage)));
    }
    match machine.etcd_status().await {
        Ok(status) => {
            seen.database_bytes = seen.database_bytes.max(Some(status.db_bytes));
            let errors = status.errors.iter().map(|what| about(format!("etcd on {} complains: {what}", vm.name)));
            seen.unhealthy.extend(errors);
            if status.is_learner {
                seen.unhealthy.push(about(format!("{} does not vote in etcd yet", vm.name)));
            }
        }
        Err(error) => {
            seen.unhealthy.push(about(format!("{} does not tell the state of its etcd: {error}", vm.name)));
        }
    }
    match machine.etcd_alarms().await {
        Ok(alarms) => {
            for (_, alarm) in alarms {
                let what = match alarm {
                    Alarm::NoSpace => "has no space left for writes",
                    Alarm::Corrupt => "found a member whose data differ",
                };
                let complaint = Complaint::of_cluster(format!("etcd {what}"));
                if !seen.unhealthy.contains(&complaint) {
                    seen.unhealthy.push(complaint);
                }
            }
        }
        Err(error) => seen.unhealthy.push(about(format!("{} does not list etcd's alarms: {error}", vm.name))),
    }
    Ok(machine)
}

fn note(seen: &mut SeenCluster, part: &str) {
    if !seen.differing_secrets.iter().any(|known| known == part) {
        seen.differing_secrets.push(part.to_owned());
    }
}
