//! Reboot, shutdown, rollback, reset, the legacy upgrade, and the events that tell of them.

use std::time::{Duration, SystemTime};

use futures_util::stream::{self, StreamExt as _};
use prost::Message;
use prost_types::Any;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::proto::{common, machine as api};
use crate::world::machine::{
    Command, Happened, Machine, Namespace, Restart, ServiceState, Stage, Stopped, Upgrade, What, Wipe,
};

pub(super) fn reboot(machine: &Machine, request: api::RebootRequest) -> api::Reboot {
    use api::reboot_request::Mode;
    let restart = match Mode::try_from(request.mode) {
        Ok(Mode::Powercycle) => Restart::PowerCycle,
        // Before 1.12 the number means nothing.
        Ok(Mode::Force) if machine.see(|state| state.version().minor >= 12) => Restart::Force,
        _ => Restart::Kexec,
    };
    let actor = machine.world().random_uuid();
    machine.says(&format!("[talos] reboot via API received. actor id: {actor}"));
    machine.command(Command::Reboot { actor: actor.clone(), restart });
    api::Reboot { metadata: None, actor_id: actor }
}

pub(super) fn shutdown(machine: &Machine, request: api::ShutdownRequest) -> api::Shutdown {
    let actor = machine.world().random_uuid();
    machine.says(&format!("[talos] shutdown via API received. actor id: {actor}"));
    machine.command(Command::Shutdown { actor: actor.clone(), force: request.force });
    api::Shutdown { metadata: None, actor_id: actor }
}

pub(super) fn rollback(machine: &Machine) -> Result<api::Rollback, Status> {
    machine.says("[talos] rollback via API received");
    machine.revert().map_err(Status::unknown)?;
    machine.command(Command::Rollback { actor: String::new() });
    Ok(api::Rollback::default())
}

pub(super) fn reset(machine: &Machine, request: &api::ResetRequest) -> Result<api::Reset, Status> {
    use api::reset_request::WipeMode;
    let mode = WipeMode::try_from(request.mode)
        .map_err(|_| Status::invalid_argument(format!("unknown wipe mode {}", request.mode)))?;
    let failed = |why: &str| Err(Status::unknown(format!("reset failed: {why}")));
    let specs = &request.system_partitions_to_wipe;
    if !request.user_disks_to_wipe.is_empty() {
        if mode == WipeMode::SystemDisk {
            return failed("invalid input, wipe mode SYSTEM_DISK doesn't support UserDisksToWipe parameter");
        }
        let system = super::storage::device(machine);
        if let Some(disk) = request.user_disks_to_wipe.first() {
            let why = if *disk == system { "is the system disk" } else { "wasn't found" };
            return Err(Status::unknown(format!("reset user disk failed: device {disk} {why}")));
        }
    }
    if !specs.is_empty() && mode == WipeMode::UserDisks {
        return failed("invalid input, wipe mode USER_DISKS doesn't support SystemPartitionsToWipe parameter");
    }
    if let Some(spec) = specs.iter().find(|spec| !["EPHEMERAL", "META", "STATE"].contains(&spec.label.as_str())) {
        let label = &spec.label;
        return Err(Status::unknown(format!(
            "failed to get volume status with label \"{label}\": resource VolumeStatuses.block.talos.dev(runtime/{label}@undefined) \
             doesn't exist"
        )));
    }
    let labels: Vec<String> = specs.iter().filter(|spec| spec.wipe).map(|spec| spec.label.clone()).collect();
    let wipe = match mode {
        WipeMode::UserDisks => Wipe::Nothing,
        _ if labels.is_empty() => Wipe::Disk,
        _ => Wipe::Partitions(labels),
    };
    let actor = machine.world().random_uuid();
    machine.says(&format!("[talos] reset request received. actorID: {actor}"));
    let (graceful, reboot) = (request.graceful, request.reboot);
    machine.command(Command::Reset { actor: actor.clone(), graceful, wipe, reboot });
    Ok(api::Reset { metadata: None, actor_id: actor })
}

/// An upgrade by the machine itself: checked now, done in the background.
pub(super) async fn upgrade(machine: Machine, request: api::UpgradeRequest) -> Result<api::Upgrade, Status> {
    use api::upgrade_request::RebootMode;
    let api::UpgradeRequest { image, preserve, stage, force, reboot_mode } = request;
    let restart = match RebootMode::try_from(reboot_mode) {
        Ok(RebootMode::Powercycle) => Restart::PowerCycle,
        _ => Restart::Kexec,
    };
    machine.says(&format!("[talos] upgrade request received: staged {stage}, force {force}"));
    machine.says(&format!("[talos] validating \"{image}\""));
    let wrong =
        |why: &dyn std::fmt::Display| Status::unknown(format!("error validating installer image \"{image}\": {why}"));
    machine.pull(Namespace::System, &image).await.map_err(|error| wrong(&error))?;
    let recipe = machine.world().registry().installer(&image).map_err(|error| wrong(&error))?;
    let skips = force || preserve && machine.see(|state| state.version().preserve_skips_etcd());
    if !skips {
        let asking = machine.clone();
        // It goes through even if the caller goes away: it holds a lock in between.
        let asked = tokio::spawn(async move { asking.ask_etcd_about_upgrade(preserve).await }).await;
        asked.map_err(|_| Status::internal("interrupted"))?.map_err(|why| Status::unknown(why.to_string()))?;
    }
    let actor = machine.world().random_uuid();
    let upgrade = Box::new(Upgrade { image, recipe, preserve, stage, restart });
    machine.command(Command::Upgrade { actor: actor.clone(), upgrade });
    Ok(api::Upgrade { metadata: None, ack: "Upgrade request received".to_owned(), actor_id: actor })
}

/// The hello, then what is buffered as far as asked for, then what happens.
pub(super) fn events(machine: &Machine, request: &api::EventsRequest) -> Result<BoxStream<api::Event>, Status> {
    let (number, id, age) = (request.tail_events != 0, !request.tail_id.is_empty(), request.tail_seconds != 0);
    let exclusive = |wanted: &str, others: &str| {
        Err(Status::unknown(format!("{wanted} can't be specified at the same time with {others}")))
    };
    match (number, id, age) {
        (_, true, true) | (true, false, true) => return exclusive("WithTailDuration", "WithTailEvents or WithTailID"),
        (true, true, false) => return exclusive("WithTailID", "WithTailEvents or WithTailDuration"),
        _ => {}
    }
    if request.tail_seconds < 0 {
        return Err(Status::invalid_argument("tail_seconds should be positive"));
    }
    let actor = request.with_actor_id.clone();
    // Before the look, so that nothing falls in between.
    let changes = machine.changes();
    let buffered: Vec<Happened> = machine.see(|state| state.events.iter().cloned().collect());
    let newest = buffered.last().map(|event| event.id.clone()).unwrap_or_default();
    let skip = if !request.tail_id.is_empty() {
        buffered.iter().position(|event| event.id > request.tail_id).unwrap_or(buffered.len())
    } else if let seconds @ 1.. = request.tail_seconds {
        let since = SystemTime::now() - Duration::from_secs(seconds.unsigned_abs().into());
        buffered.iter().position(|event| event.at >= since).unwrap_or(buffered.len())
    } else if request.tail_events < 0 {
        0
    } else {
        buffered.len().saturating_sub(usize::try_from(request.tail_events).unwrap_or_default())
    };
    let id = if newest.is_empty() { crate::world::machine::event_id() } else { newest.clone() };
    let hello = api::Event { data: Some(Any::default()), id, ..Default::default() };
    let wanted = move |event: &Happened| actor.is_empty() || event.actor == actor;
    let mut begin: Vec<api::Event> = vec![hello];
    begin.extend(buffered.iter().skip(skip).filter(|event| wanted(event)).map(encode));
    let follow = stream::unfold((machine.clone(), changes, newest), move |(machine, mut changes, last)| {
        let wanted = wanted.clone();
        async move {
            changes.changed().await.ok()?;
            let new: Vec<Happened> =
                machine.see(|state| state.events.iter().filter(|event| event.id > last).cloned().collect());
            let last = new.last().map_or(last, |event| event.id.clone());
            let items: Vec<_> = new.iter().filter(|event| wanted(event)).map(|event| Ok(encode(event))).collect();
            Some((stream::iter(items), (machine, changes, last)))
        }
    });
    Ok(stream::iter(begin.into_iter().map(Ok)).chain(follow.flatten()).boxed())
}

fn encode(event: &Happened) -> api::Event {
    let data = match &event.what {
        What::Sequence(name, begins) => {
            let action = if *begins { api::sequence_event::Action::Start } else { api::sequence_event::Action::Stop };
            let message = api::SequenceEvent { sequence: (*name).to_owned(), action: action.into(), error: None };
            any("SequenceEvent", &message)
        }
        What::SequenceError(name, stopped, why) => {
            let code = match stopped {
                Stopped::Fatal => common::Code::Fatal,
                Stopped::Locked => common::Code::Locked,
                Stopped::Canceled => common::Code::Canceled,
            };
            let error = common::Error { code: code.into(), message: why.clone(), details: Vec::new() };
            let action = api::sequence_event::Action::Noop.into();
            any("SequenceEvent", &api::SequenceEvent { sequence: (*name).to_owned(), action, error: Some(error) })
        }
        What::Phase(name, begins) => {
            let action = if *begins { api::phase_event::Action::Start } else { api::phase_event::Action::Stop };
            any("PhaseEvent", &api::PhaseEvent { phase: name.clone(), action: action.into() })
        }
        What::Task(name, begins) => {
            let action = if *begins { api::task_event::Action::Start } else { api::task_event::Action::Stop };
            any("TaskEvent", &api::TaskEvent { task: name.clone(), action: action.into() })
        }
        What::Service(id, state, message, healthy) => any("ServiceStateEvent", &service(id, *state, message, *healthy)),
        What::Status(status) => any("MachineStatusEvent", &status_event(status)),
        What::Restart(cmd) => any("RestartEvent", &api::RestartEvent { cmd: *cmd }),
        What::ConfigLoad(error) => any("ConfigLoadErrorEvent", &api::ConfigLoadErrorEvent { error: error.clone() }),
        What::ConfigValidation(error) => {
            any("ConfigValidationErrorEvent", &api::ConfigValidationErrorEvent { error: error.clone() })
        }
        What::Address(hostname, addresses) => {
            let (hostname, addresses) = (hostname.clone(), addresses.clone());
            any("AddressEvent", &api::AddressEvent { hostname, addresses })
        }
    };
    api::Event { metadata: None, data: Some(data), id: event.id.clone(), actor_id: event.actor.clone() }
}

fn service(id: &str, state: ServiceState, message: &str, healthy: Option<bool>) -> api::ServiceStateEvent {
    use api::service_state_event::Action;
    let action = match state {
        ServiceState::Waiting => Action::Waiting,
        ServiceState::Preparing => Action::Preparing,
        ServiceState::Starting => Action::Starting,
        ServiceState::Running => Action::Running,
        ServiceState::Stopping => Action::Stopping,
        ServiceState::Finished => Action::Finished,
        ServiceState::Failed => Action::Failed,
    };
    let health = api::ServiceHealth {
        unknown: healthy.is_none(),
        healthy: healthy == Some(true),
        last_message: String::new(),
        last_change: Some(SystemTime::now().into()),
    };
    api::ServiceStateEvent {
        service: id.to_owned(),
        action: action.into(),
        message: message.to_owned(),
        health: Some(health),
    }
}

fn status_event(status: &crate::world::machine::Status) -> api::MachineStatusEvent {
    use api::machine_status_event::machine_status::UnmetCondition;
    use api::machine_status_event::{MachineStage, MachineStatus};
    let stage = match status.stage {
        Stage::Booting => MachineStage::Booting,
        Stage::Maintenance => MachineStage::Maintenance,
        Stage::Running => MachineStage::Running,
        Stage::Upgrading => MachineStage::Upgrading,
        Stage::Installing => MachineStage::Installing,
        Stage::Rebooting => MachineStage::Rebooting,
        Stage::ShuttingDown => MachineStage::ShuttingDown,
        Stage::Resetting => MachineStage::Resetting,
    };
    let unmet = status.unmet.iter();
    let unmet_conditions =
        unmet.map(|(name, reason)| UnmetCondition { name: (*name).to_owned(), reason: reason.clone() }).collect();
    api::MachineStatusEvent {
        stage: stage.into(),
        status: Some(MachineStatus { ready: status.ready, unmet_conditions }),
    }
}

/// Talos' own prefix, not the usual one of protobuf.
fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("talos/runtime/machine.{name}"), value: message.encode_to_vec() }
}
