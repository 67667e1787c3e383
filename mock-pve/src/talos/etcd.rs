//! etcd through the Talos API.

use tonic::Status;

use super::proto::machine as api;
use super::service::control_plane;
use crate::world::cluster::EtcdError;
use crate::world::machine::{Command, Machine, MachineType, Membership, ServiceState, State, etcd_version};

pub(super) fn bootstrap(machine: &Machine, request: api::BootstrapRequest) -> Result<api::Bootstrap, Status> {
    let (up, kind, version, taken) = machine.see(|state| {
        let runs = |id: &str| state.services.get(id).is_some_and(|service| service.state == ServiceState::Running);
        let etcd = state.services.get("etcd").map(|service| service.state);
        let taken = state.membership.is_some() || state.bootstrapping || etcd == Some(ServiceState::Failed);
        (runs("cri") && etcd.is_some(), state.machine_type(), state.version(), taken)
    });
    if kind == Some(MachineType::Worker) {
        return Err(if version.minor <= 12 {
            Status::failed_precondition("bootstrap can only be performed on a control plane node")
        } else {
            Status::unimplemented("bootstrap is only available on control plane nodes")
        });
    }
    if !up {
        return Err(Status::failed_precondition("bootstrap is not available yet"));
    }
    if taken {
        return Err(Status::already_exists("etcd data directory is not empty"));
    }
    if request.recover_etcd {
        return Err(Status::failed_precondition("no etcd snapshot was uploaded"));
    }
    machine.update(|state| state.bootstrapping = true);
    machine.command(Command::Bootstrap);
    Ok(api::Bootstrap::default())
}

/// The machine's place in etcd, once it runs there.
pub(super) fn membership(machine: &Machine, what: &str) -> Result<Membership, Status> {
    control_plane(machine, what)?;
    let found = machine.see(|state| state.membership.clone());
    found.ok_or_else(|| Status::unavailable("error building etcd client: etcd is not running"))
}

pub(super) fn members(machine: &Machine) -> Result<api::EtcdMembers, Status> {
    let found = membership(machine, "etcd member list")?;
    let members = found.etcd.summary().members;
    let members: Vec<api::EtcdMember> = members
        .into_iter()
        .map(|member| api::EtcdMember {
            id: member.id,
            hostname: member.name,
            peer_urls: vec![format!("https://{}:2380", member.address)],
            client_urls: vec![format!("https://{}:2379", member.address)],
            is_learner: member.learner,
        })
        .collect();
    let legacy_members = members.iter().map(|member| member.hostname.clone()).collect();
    Ok(api::EtcdMembers { metadata: None, legacy_members, members })
}

pub(super) fn status(machine: &Machine) -> Result<api::EtcdStatus, Status> {
    let found = membership(machine, "etcd status")?;
    let summary = found.etcd.summary();
    let version = etcd_version(machine.see(State::version));
    let used = i64::try_from(summary.bytes).unwrap_or_default() + 20_480;
    let errors = if summary.leader.is_none() { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() };
    let member_status = api::EtcdMemberStatus {
        protocol_version: version.to_owned(),
        db_size: used * 2,
        db_size_in_use: used,
        leader: summary.leader.unwrap_or_default(),
        raft_index: summary.index,
        raft_term: summary.term,
        raft_applied_index: summary.index,
        errors,
        is_learner: false,
        member_id: found.id,
        storage_version: version.rsplit_once('.').map_or(version, |(minor, _)| minor).to_owned() + ".0",
    };
    Ok(api::EtcdStatus { metadata: None, member_status: Some(member_status) })
}

pub(super) fn remove(machine: &Machine, id: u64) -> Result<api::EtcdRemoveMemberById, Status> {
    let found = membership(machine, "etcd remove member")?;
    found.etcd.remove(id).map_err(refusal)?;
    Ok(api::EtcdRemoveMemberById::default())
}

pub(super) fn forfeit(machine: &Machine) -> Result<api::EtcdForfeitLeadership, Status> {
    let found = membership(machine, "etcd forfeit leadership")?;
    let member = found.etcd.forfeit(found.id).map_err(|error| match error {
        EtcdError::LastMember => Status::unknown("cannot forfeit leadership, only one member"),
        other => refusal(other),
    })?;
    Ok(api::EtcdForfeitLeadership { metadata: None, member: member.unwrap_or_default() })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refusal(error: EtcdError) -> Status {
    match error {
        EtcdError::NoMember => Status::not_found(error.to_string()),
        EtcdError::NoQuorum => Status::unavailable(error.to_string()),
        EtcdError::LastMember | EtcdError::Conflict(_) => Status::failed_precondition(error.to_string()),
    }
}
