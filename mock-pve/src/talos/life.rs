//! Reboot, shutdown, reset, and the events that tell of them.

use futures_util::stream::{self, StreamExt as _};
use prost::Message;
use prost_types::Any;
use tonic::Status;
use tonic::codegen::BoxStream;

use super::proto::machine as api;
use crate::world::machine::{Command, Happened, Machine, ServiceState, Stage, What, Wipe};

pub(super) fn reboot(machine: &Machine) -> api::Reboot {
    let actor = machine.world().random_uuid();
    machine.command(Command::Reboot { actor: actor.clone() });
    api::Reboot { metadata: None, actor_id: actor }
}

pub(super) fn shutdown(machine: &Machine) -> api::Shutdown {
    let actor = machine.world().random_uuid();
    machine.command(Command::Shutdown { actor: actor.clone() });
    api::Shutdown { metadata: None, actor_id: actor }
}

pub(super) fn reset(machine: &Machine, request: &api::ResetRequest) -> Result<api::Reset, Status> {
    let labels: Vec<String> =
        request.system_partitions_to_wipe.iter().filter(|spec| spec.wipe).map(|spec| spec.label.clone()).collect();
    let user_disks = request.mode == i32::from(api::reset_request::WipeMode::UserDisks);
    if user_disks && !labels.is_empty() {
        return Err(Status::unknown("reset failed: invalid input, wipe mode USER_DISKS doesn't support labels"));
    }
    let wipe = if user_disks || !labels.is_empty() { Wipe::Partitions(labels) } else { Wipe::Disk };
    let actor = machine.world().random_uuid();
    let (graceful, reboot) = (request.graceful, request.reboot);
    machine.command(Command::Reset { actor: actor.clone(), graceful, wipe, reboot });
    Ok(api::Reset { metadata: None, actor_id: actor })
}

/// The hello, then what is buffered as far as asked for, then what happens.
pub(super) fn events(machine: &Machine, request: &api::EventsRequest) -> BoxStream<api::Event> {
    let actor = request.with_actor_id.clone();
    let buffered: Vec<Happened> = machine.see(|state| state.events.iter().cloned().collect());
    let newest = buffered.last().map(|event| event.id.clone()).unwrap_or_default();
    let skip = match request.tail_events {
        _ if !request.tail_id.is_empty() => {
            buffered.iter().position(|event| event.id > request.tail_id).unwrap_or(buffered.len())
        }
        tail if tail < 0 => 0,
        tail => buffered.len().saturating_sub(usize::try_from(tail).unwrap_or_default()),
    };
    let hello = api::Event { data: Some(Any::default()), id: newest.clone(), ..Default::default() };
    let wanted = move |event: &Happened| actor.is_empty() || event.actor == actor;
    let mut begin: Vec<api::Event> = vec![hello];
    begin.extend(buffered.iter().skip(skip).filter(|event| wanted(event)).map(encode));
    let follow = stream::unfold((machine.clone(), machine.changes(), newest), move |(machine, mut changes, last)| {
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
    stream::iter(begin.into_iter().map(Ok)).chain(follow.flatten()).boxed()
}

fn encode(event: &Happened) -> api::Event {
    let data = match &event.what {
        What::Sequence(name, begins) => {
            let action = if *begins { api::sequence_event::Action::Start } else { api::sequence_event::Action::Stop };
            let message = api::SequenceEvent { sequence: (*name).to_owned(), action: action.into(), error: None };
            any("SequenceEvent", &message)
        }
        What::Task(name) => any(
            "TaskEvent",
            &api::TaskEvent { task: (*name).to_owned(), action: api::task_event::Action::Start.into() },
        ),
        What::Service(id, state, message) => {
            use api::service_state_event::Action;
            let action = match state {
                ServiceState::Waiting => Action::Waiting,
                ServiceState::Preparing => Action::Preparing,
                ServiceState::Running => Action::Running,
                ServiceState::Finished => Action::Finished,
                ServiceState::Failed => Action::Failed,
            };
            let (service, message) = (id.clone(), message.clone());
            any("ServiceStateEvent", &api::ServiceStateEvent { service, action: action.into(), message, health: None })
        }
        What::Status(status) => {
            use api::machine_status_event::machine_status::UnmetCondition;
            use api::machine_status_event::{MachineStage, MachineStatus};
            let stage = match status.stage {
                Stage::Booting => MachineStage::Booting,
                Stage::Maintenance => MachineStage::Maintenance,
                Stage::Running => MachineStage::Running,
                Stage::Rebooting => MachineStage::Rebooting,
                Stage::ShuttingDown => MachineStage::ShuttingDown,
                Stage::Resetting => MachineStage::Resetting,
            };
            let unmet = status.unmet.iter();
            let unmet_conditions = unmet
                .map(|(name, reason)| UnmetCondition { name: (*name).to_owned(), reason: reason.clone() })
                .collect();
            let message = api::MachineStatusEvent {
                stage: stage.into(),
                status: Some(MachineStatus { ready: status.ready, unmet_conditions }),
            };
            any("MachineStatusEvent", &message)
        }
    };
    api::Event { metadata: None, data: Some(data), id: event.id.clone(), actor_id: event.actor.clone() }
}

/// Talos' own prefix, not the usual one of protobuf.
fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("talos/runtime/machine.{name}"), value: message.encode_to_vec() }
}
