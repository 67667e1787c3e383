//! Services and containers, started and stopped because somebody asked.

use tonic::Status;

use super::proto::machine as api;
use crate::world::machine::{Command, Machine, ServiceState, Turn};

/// Only the kubelet and extensions take orders; the kubelet doesn't take that of stopping.
fn check(machine: &Machine, id: &str, turn: Turn) -> Result<(), Status> {
    let known = machine.see(|state| state.services.get(id).map(|service| service.state));
    let Some(state) = known else { return Err(Status::unknown(format!("service \"{id}\" not defined"))) };
    let extension = id.starts_with("ext-");
    let (allowed, what) = match turn {
        Turn::On => (extension || id == "kubelet", "start"),
        Turn::Off => (extension, "stop"),
        Turn::OffAndOn => (extension || id == "kubelet", "restart"),
    };
    if !allowed {
        return Err(Status::unknown(format!("service \"{id}\" doesn't support {what} operation via API")));
    }
    if turn == Turn::On && state == ServiceState::Running {
        return Ok(());
    }
    machine.command(Command::Service(id.to_owned(), turn));
    Ok(())
}

pub(super) fn start(machine: &Machine, id: &str) -> Result<api::ServiceStart, Status> {
    check(machine, id, Turn::On)?;
    Ok(api::ServiceStart { metadata: None, resp: format!("Service \"{id}\" started") })
}

pub(super) fn stop(machine: &Machine, id: &str) -> Result<api::ServiceStop, Status> {
    check(machine, id, Turn::Off)?;
    Ok(api::ServiceStop { metadata: None, resp: format!("Service \"{id}\" stopped") })
}

pub(super) fn restart(machine: &Machine, id: &str) -> Result<api::ServiceRestart, Status> {
    check(machine, id, Turn::OffAndOn)?;
    Ok(api::ServiceRestart { metadata: None, resp: format!("Service \"{id}\" restarted") })
}

/// A container of Kubernetes; the kubelet brings it back.
pub(super) fn restart_container(machine: &Machine, request: &api::RestartRequest) -> Result<api::Restart, Status> {
    let asked = api::ContainersRequest { namespace: request.namespace.clone(), driver: request.driver };
    let all = super::containers::listed(machine, &asked)?.containers;
    if all.iter().any(|container| container.id == request.id) {
        return Ok(api::Restart::default());
    }
    Err(Status::unknown(format!("container \"{}\" not found", request.id)))
}
