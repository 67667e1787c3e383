//! etcd through the Talos API.

use tonic::{Code, Status};

use super::node::control_plane;
use super::proto::machine as api;
use crate::etcd::{self, Alarm, Change, Check, Client, EtcdError};
use crate::world::machine::{Bootstrap, Command, Machine, MachineType, ServiceState, State, etcd_version};

/// The database's file on a machine.
pub(super) const DATABASE: &str = "/var/lib/etcd/member/snap/db";

/// Why nothing is recovered where originals run.
const BESIDE: &str = "this double runs the original etcd beside its own members (mock-pve serve --etcd), and a snapshot holds \
                      what its own members do: a cluster recovered from it would silently lack whatever was written to the \
                      originals. Rehearse this without --etcd";

/// A snapshot is of the simulated members alone.
fn may_recover(machine: &Machine) -> Result<(), Status> {
    match machine.world().originals() {
        Some(_) => Err(Status::unimplemented(BESIDE)),
        None => Ok(()),
    }
}

pub(super) fn bootstrap(machine: &Machine, request: api::BootstrapRequest) -> Result<api::Bootstrap, Status> {
    let (up, kind, version, taken) = machine.see(|state| {
        let runs = |id: &str| state.services.get(id).is_some_and(|service| service.state == ServiceState::Running);
        let etcd = state.services.get("etcd").map(|service| service.state);
        let taken = state.membership.is_some() || state.bootstrapping.is_some() || etcd == Some(ServiceState::Failed);
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
    if taken || on_disk(machine)?.is_some() {
        return Err(Status::already_exists("etcd data directory is not empty"));
    }
    let check = if request.recover_skip_hash_check { Check::Skip } else { Check::Hash };
    let how = if request.recover_etcd { Bootstrap::Recover(check) } else { Bootstrap::Fresh };
    machine.update(|state| state.bootstrapping = Some(how));
    machine.command(Command::Bootstrap(how));
    Ok(api::Bootstrap::default())
}

fn on_disk(machine: &Machine) -> Result<Option<etcd::Replica>, Status> {
    let path = machine.hardware().disk.clone().unwrap_or_default();
    etcd::read(&path).map_err(|error| Status::unknown(error.to_string()))
}

/// Whether a snapshot may be uploaded. An earlier one is gone then, whatever becomes of this one: its file is truncated.
pub(super) fn begin_upload(machine: &Machine) -> Result<(), Status> {
    if machine.see(|state| state.config.is_none()) {
        return Err(Status::failed_precondition("etcd service is not ready for recovery yet"));
    }
    control_plane(machine, "etcd recover")?;
    may_recover(machine)?;
    keep_upload(machine, None)
}

/// Keeps an upload that arrived whole.
pub(super) fn end_upload(machine: &Machine, snapshot: &[u8]) -> Result<api::EtcdRecover, Status> {
    keep_upload(machine, Some(snapshot)).map(|()| api::EtcdRecover::default())
}

fn keep_upload(machine: &Machine, snapshot: Option<&[u8]>) -> Result<(), Status> {
    let path = machine.hardware().disk.clone().unwrap_or_default();
    etcd::keep_upload(&path, snapshot).map_err(|error| Status::unknown(error.to_string()))
}

/// The machine's place in etcd, once it runs there.
pub(super) fn membership(machine: &Machine, what: &str) -> Result<Client, Status> {
    control_plane(machine, what)?;
    let found = machine.see(|state| state.membership.clone());
    found.ok_or_else(|| Status::unavailable("error building etcd client: etcd is not running"))
}

/// A snapshot as etcd sends it: from this member, whatever the others know.
pub(super) fn snapshot(machine: &Machine) -> Result<Vec<u8>, Status> {
    let client = membership(machine, "etcd snapshot")?;
    let version = etcd_version(machine.see(State::version));
    let written = client.replica(|replica| etcd::database(replica, version));
    let written = written.ok_or_else(|| Status::unavailable("error building etcd client: etcd is not running"))?;
    Ok(etcd::with_trailer(written.bytes))
}

/// The database's file, of a member that runs or of one that did.
pub(super) fn database(machine: &Machine) -> Result<Vec<u8>, Status> {
    let version = etcd_version(machine.see(State::version));
    let live = machine.see(|state| state.membership.clone());
    let live = live.and_then(|client| client.replica(|replica| etcd::database(replica, version)));
    let written = match live {
        Some(written) => Some(written),
        None => on_disk(machine)?.map(|replica| etcd::database(&replica, version)),
    };
    let absent = || Status::not_found(format!("stat {DATABASE}: no such file or directory"));
    written.map(|written| written.bytes).ok_or_else(absent)
}

/// Whom to ask for the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The cluster.
    Cluster,
    /// The machine's own member, whatever the others know.
    Own,
}

pub(super) fn members(machine: &Machine, source: Source) -> Result<api::EtcdMembers, Status> {
    let found = membership(machine, "etcd member list")?;
    let members = match source {
        Source::Own => found.members(),
        Source::Cluster => found.etcd.members(),
    };
    let members: Vec<api::EtcdMember> = members
        .into_iter()
        .map(|member| {
            let started = !member.name.is_empty();
            api::EtcdMember {
                id: member.id,
                hostname: member.name,
                peer_urls: vec![format!("https://{}:2380", member.address)],
                client_urls: started.then(|| format!("https://{}:2379", member.address)).into_iter().collect(),
                is_learner: member.learner,
            }
        })
        .collect();
    let legacy_members = members.iter().map(|member| member.hostname.clone()).collect();
    Ok(api::EtcdMembers { metadata: None, legacy_members, members })
}

pub(super) async fn status(machine: Machine) -> Result<api::EtcdStatus, Status> {
    let found = membership(&machine, "etcd status")?;
    let stopped = || Status::unavailable("error building etcd client: etcd is not running");
    let mut status = found.status().ok_or_else(stopped)?;
    let said = machine.original_says(&found).await.transpose();
    let said = said.map_err(|error| Status::unavailable(format!("error building etcd client: {error}")))?;
    let version = etcd_version(machine.see(State::version));
    let used = i64::try_from(status.bytes).unwrap_or_default() + 20_480;
    let mut errors = if status.leader.is_none() { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() };
    errors.extend(status.alarms.iter().map(|(id, alarm)| {
        let name = if *alarm == Alarm::NoSpace { "NOSPACE" } else { "CORRUPT" };
        format!("memberID:{id} alarm:{name} ")
    }));
    if let Some(said) = said {
        // Who leads and how far they are is decided among the originals.
        (status.leader, status.term) = (Some(said.leader).filter(|leader| *leader != 0), said.term);
        (status.index, status.applied) = (said.index, said.applied);
        status.learner |= said.learner;
        errors.extend(said.errors);
    }
    let member_status = api::EtcdMemberStatus {
        protocol_version: version.to_owned(),
        db_size: used * 2,
        db_size_in_use: used,
        leader: status.leader.unwrap_or_default(),
        raft_index: status.index,
        raft_term: status.term,
        raft_applied_index: status.applied,
        errors,
        is_learner: status.learner,
        member_id: found.id,
        storage_version: version.rsplit_once('.').map_or(version, |(minor, _)| minor).to_owned() + ".0",
    };
    Ok(api::EtcdStatus { metadata: None, member_status: Some(member_status) })
}

pub(super) async fn remove(machine: Machine, id: u64) -> Result<api::EtcdRemoveMemberById, Status> {
    let found = membership(&machine, "etcd remove member")?;
    machine.remove_original(&found, id).await.map_err(|error| Status::unavailable(error.to_string()))?;
    found.change(Change::Remove(id)).await.map_err(refusal)?;
    Ok(api::EtcdRemoveMemberById::default())
}

pub(super) async fn leave(machine: Machine) -> Result<api::EtcdLeaveCluster, Status> {
    let found = membership(&machine, "etcd leave")?;
    if found.etcd.leader() == Some(found.id) && found.etcd.members().len() > 1 {
        found.forfeit().map_err(refusal)?;
    }
    machine.remove_original(&found, found.id).await.map_err(|error| Status::unavailable(error.to_string()))?;
    found.change(Change::Remove(found.id)).await.map_err(refusal)?;
    machine.command(Command::LeaveEtcd);
    Ok(api::EtcdLeaveCluster::default())
}

pub(super) async fn forfeit(machine: Machine) -> Result<api::EtcdForfeitLeadership, Status> {
    let found = membership(&machine, "etcd forfeit leadership")?;
    let member = found.forfeit().map_err(|error| match error {
        EtcdError::Alone => Status::unknown("cannot forfeit leadership, only one member"),
        other => refusal(other),
    })?;
    let original = machine.forfeit_original(&found).await;
    let original = original.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(api::EtcdForfeitLeadership { metadata: None, member: original.or(member).unwrap_or_default() })
}

fn alarms(found: &Client) -> Vec<api::EtcdMemberAlarm> {
    let alarms = found.status().map(|status| status.alarms).unwrap_or_default();
    alarms
        .into_iter()
        .map(|(id, alarm)| {
            let alarm = match alarm {
                Alarm::NoSpace => api::etcd_member_alarm::AlarmType::Nospace,
                Alarm::Corrupt => api::etcd_member_alarm::AlarmType::Corrupt,
            };
            api::EtcdMemberAlarm { member_id: id, alarm: alarm.into() }
        })
        .collect()
}

pub(super) fn alarm_list(machine: &Machine) -> Result<api::EtcdAlarm, Status> {
    let found = membership(machine, "etcd alarm list")?;
    Ok(api::EtcdAlarm { metadata: None, member_alarms: alarms(&found) })
}

pub(super) async fn disarm(machine: Machine) -> Result<api::EtcdAlarmDisarm, Status> {
    let found = membership(&machine, "etcd alarm disarm")?;
    let member_alarms = alarms(&found);
    for (id, alarm) in found.status().map(|status| status.alarms).unwrap_or_default() {
        found.change(Change::Alarm { id, alarm, on: false }).await.map_err(refusal)?;
    }
    Ok(api::EtcdAlarmDisarm { metadata: None, member_alarms })
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refusal(error: EtcdError) -> Status {
    let code = match error {
        EtcdError::NoMember => Code::NotFound,
        EtcdError::NoLeader | EtcdError::Timeout | EtcdError::LeaderChanged | EtcdError::Stopped => Code::Unavailable,
        EtcdError::NotEnoughMembers
        | EtcdError::TooManyLearners
        | EtcdError::NotInSync
        | EtcdError::Alone
        | EtcdError::Conflict(_) => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// A version to go down to: `3.5`, one minor below what runs.
fn downgrade(machine: &Machine, what: &str, version: &str) -> Result<Option<api::EtcdClusterDowngrade>, Status> {
    let invalid = |why: &str| Err(Status::invalid_argument(why));
    membership(machine, what)?;
    if version.is_empty() {
        return invalid("version is required for etcd downgrade");
    }
    let Some((major, minor)) = version.split_once('.').filter(|(_, minor)| !minor.contains('.')) else {
        return invalid("version should be in MAJOR.MINOR format");
    };
    let Ok(major) = major.parse::<u32>() else { return invalid("major version should be a number") };
    let Ok(minor) = minor.parse::<u32>() else { return invalid("minor version should be a number") };
    if (major, minor) < (3, 5) {
        return invalid("etcd downgrade is only supported to 3.5 and later versions");
    }
    let runs = etcd_version(machine.see(State::version));
    let now: u32 = runs.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or_default();
    if (major, minor + 1) != (3, now) {
        let why = "failed to query etcd status: etcdserver: invalid downgrade target version";
        return Err(Status::unknown(why));
    }
    Ok(Some(api::EtcdClusterDowngrade { cluster_version: format!("3.{now}") }))
}

pub(super) fn downgrade_validate(machine: &Machine, version: &str) -> Result<api::EtcdDowngradeValidate, Status> {
    let cluster_downgrade = downgrade(machine, "etcd downgrade validate", version)?;
    Ok(api::EtcdDowngradeValidate { metadata: None, cluster_downgrade })
}

pub(super) fn downgrade_enable(machine: &Machine, version: &str) -> Result<api::EtcdDowngradeEnable, Status> {
    let cluster_downgrade = downgrade(machine, "etcd downgrade enable", version)?;
    machine.world().etcd_downgrade(&membership(machine, "etcd downgrade enable")?, Some(version));
    Ok(api::EtcdDowngradeEnable { metadata: None, cluster_downgrade })
}

pub(super) fn downgrade_cancel(machine: &Machine) -> Result<api::EtcdDowngradeCancel, Status> {
    let found = membership(machine, "etcd downgrade cancel")?;
    if !machine.world().etcd_downgrade(&found, None) {
        return Err(Status::unknown("failed to query etcd status: etcdserver: no inflight downgrade job"));
    }
    // Of a cluster's version, etcd tells no patch.
    let runs = etcd_version(machine.see(State::version));
    let cluster_version = runs.rsplit_once('.').map_or(runs, |(minor, _)| minor).to_owned();
    let cluster_downgrade = Some(api::EtcdClusterDowngrade { cluster_version });
    Ok(api::EtcdDowngradeCancel { metadata: None, cluster_downgrade })
}
