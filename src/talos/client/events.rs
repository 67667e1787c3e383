//! What a machine says while it does something: its event stream, and its kernel log.
//!
//! Purpose: the events that upgrades and reboots are followed by, decoded. Must not know: what is waited for.
//!
//! The buffer is a ring in the machine's memory and is gone with the boot. An event's `Any` carries the type URL
//! `talos/runtime/<message>`, and the first item of every stream is an empty greeting (Talos 1.14,
//! `internal/app/machined/pkg/runtime/v1alpha1/v1alpha1_events.go`).

use prost::Message as _;
use tokio::time::timeout;
use tonic::Streaming;

use super::link::Link;
use super::status::{MachineStatus, Stage, Unmet};
use super::{Download, Machine, TalosError};
use crate::talos::proto::common;
use crate::talos::proto::machine::machine_status_event::MachineStage;
use crate::talos::proto::machine::{
    DmesgRequest, Event, EventsRequest, MachineStatusEvent, PhaseEvent, RestartEvent, SequenceEvent, ServiceStateEvent,
    TaskEvent, phase_event, sequence_event, service_state_event, task_event,
};

/// What stands before a message's name in the type of an event.
const PREFIX: &str = "talos/runtime/machine.";

/// From where on events are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Those to come.
    New,
    /// All that the machine still has, then those to come.
    All,
}

/// Whether something begins or is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// It begins.
    Begins,
    /// It is over.
    Ends,
}

/// Why a sequence did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It failed.
    Failed(String),
    /// It was not begun, since another one runs.
    Refused(String),
    /// Another one took its place.
    Replaced(String),
}

/// One thing that a machine told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A sequence: `upgrade`, `reboot`, `boot` …
    Sequence {
        /// Its name.
        name: String,
        /// Whether it begins or ends; none when it is only about its trouble.
        edge: Option<Edge>,
        /// What went wrong.
        trouble: Option<Trouble>,
    },
    /// A phase of a sequence: `drain`, `stopServices` …
    Phase(String, Edge),
    /// A task of a phase.
    Task(String, Edge),
    /// A service changed its state.
    Service {
        /// It.
        id: String,
        /// `RUNNING`, `FAILED` …
        state: &'static str,
        /// In its words.
        message: String,
    },
    /// How far the machine is.
    Status(MachineStatus),
    /// The kernel is told to restart, right after this.
    Restart,
    /// Anything else.
    Other,
}

/// An event with who caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The id of the API call behind it; empty for what the machine does by itself.
    pub actor: String,
    /// What.
    pub what: Happening,
}

/// A machine's events, as they come. The stream ends when the machine goes down.
pub struct Events {
    link: Link,
    stream: Streaming<Event>,
}

const CALL: &str = "Events";

impl Events {
    /// The next event; `None` when the stream is over. Waits for as long as nothing happens, and may be dropped and called
    /// again.
    pub async fn next(&mut self) -> Result<Option<Heard>, TalosError> {
        loop {
            match self.stream.message().await {
                Ok(None) => return Ok(None),
                Ok(Some(event)) => {
                    if let Some(heard) = decode(event) {
                        return Ok(Some(heard));
                    }
                }
                Err(status) => return Err(self.link.error(CALL, status)),
            }
        }
    }
}

impl Machine {
    /// Opens the stream of events; when this answers, nothing that happens later is missed.
    pub async fn events(&self, tail: Tail) -> Result<Events, TalosError> {
        let tail_events = match tail {
            Tail::New => 0,
            Tail::All => -1,
        };
        let request = EventsRequest { tail_events, ..EventsRequest::default() };
        let mut stream = self.link.answer(CALL, self.link.machine().events(request)).await?;
        // The greeting says that the machine listens.
        match timeout(self.link.patience, stream.message()).await {
            Ok(Ok(Some(_))) => Ok(Events { link: self.link.clone(), stream }),
            Ok(Ok(None)) => Err(self.link.answer_is(CALL, "nothing")),
            Ok(Err(status)) => Err(self.link.error(CALL, status)),
            Err(_) => Err(self.link.silence(CALL)),
        }
    }

    /// The kernel's log from now on, line by line, until the machine goes down.
    pub async fn kernel_log(&self) -> Result<Download, TalosError> {
        let request = DmesgRequest { follow: true, tail: true };
        self.link.download("Dmesg", self.link.machine().dmesg(request)).await
    }
}

/// None for an event without content, and for one that can't be read.
fn decode(event: Event) -> Option<Heard> {
    let data = event.data.filter(|data| !data.type_url.is_empty())?;
    let value = data.value.as_slice();
    let what = match data.type_url.strip_prefix(PREFIX)? {
        "SequenceEvent" => sequence(SequenceEvent::decode(value).ok()?),
        "PhaseEvent" => {
            let event = PhaseEvent::decode(value).ok()?;
            let ends = event.action() == phase_event::Action::Stop;
            Happening::Phase(event.phase, if ends { Edge::Ends } else { Edge::Begins })
        }
        "TaskEvent" => {
            let event = TaskEvent::decode(value).ok()?;
            let ends = event.action() == task_event::Action::Stop;
            Happening::Task(event.task, if ends { Edge::Ends } else { Edge::Begins })
        }
        "ServiceStateEvent" => {
            let event = ServiceStateEvent::decode(value).ok()?;
            let state = service_state_event::Action::as_str_name(&event.action());
            Happening::Service { id: event.service, state, message: event.message }
        }
        "MachineStatusEvent" => Happening::Status(status(MachineStatusEvent::decode(value).ok()?)),
        "RestartEvent" => {
            RestartEvent::decode(value).ok()?;
            Happening::Restart
        }
        _ => Happening::Other,
    };
    Some(Heard { actor: event.actor_id, what })
}

fn sequence(event: SequenceEvent) -> Happening {
    let edge = match event.action() {
        sequence_event::Action::Noop => None,
        sequence_event::Action::Start => Some(Edge::Begins),
        sequence_event::Action::Stop => Some(Edge::Ends),
    };
    let trouble = event.error.map(|error| {
        let code = common::Code::try_from(error.code).unwrap_or(common::Code::Fatal);
        match code {
            common::Code::Fatal => Trouble::Failed(error.message),
            common::Code::Locked => Trouble::Refused(error.message),
            common::Code::Canceled => Trouble::Replaced(error.message),
        }
    });
    Happening::Sequence { name: event.sequence, edge, trouble }
}

fn status(event: MachineStatusEvent) -> MachineStatus {
    let stage = match event.stage() {
        MachineStage::Unknown => Stage::Unknown,
        MachineStage::Booting => Stage::Booting,
        MachineStage::Installing => Stage::Installing,
        MachineStage::Maintenance => Stage::Maintenance,
        MachineStage::Running => Stage::Running,
        MachineStage::Rebooting => Stage::Rebooting,
        MachineStage::ShuttingDown => Stage::ShuttingDown,
        MachineStage::Resetting => Stage::Resetting,
        MachineStage::Upgrading => Stage::Upgrading,
    };
    let status = event.status.unwrap_or_default();
    let unmet = status.unmet_conditions.into_iter();
    MachineStatus {
        stage,
        ready: status.ready,
        unmet: unmet.map(|unmet| Unmet { name: unmet.name, reason: unmet.reason }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn event(kind: &str, value: Vec<u8>) -> Event {
        let data = Any { type_url: kind.to_owned(), value };
        Event { data: Some(data), actor_id: "me".to_owned(), ..Event::default() }
    }

    #[test]
    fn the_greeting_and_foreign_types_are_no_news() {
        assert_eq!(decode(event("", Vec::new())), None);
        assert_eq!(decode(event("type.googleapis.com/machine.TaskEvent", Vec::new())), None);
        let unknown = decode(event("talos/runtime/machine.NewerEvent", vec![8, 1])).unwrap();
        assert_eq!(unknown, Heard { actor: "me".to_owned(), what: Happening::Other });
    }

    #[test]
    fn a_failed_and_a_refused_sequence_are_told_apart() {
        let of = |code: common::Code| {
            let error = common::Error { code: code.into(), message: "why".to_owned(), details: Vec::new() };
            let told = SequenceEvent { sequence: "upgrade".to_owned(), action: 0, error: Some(error) };
            match decode(event("talos/runtime/machine.SequenceEvent", told.encode_to_vec())).unwrap().what {
                Happening::Sequence { edge: None, trouble: Some(trouble), .. } => trouble,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(of(common::Code::Fatal), Trouble::Failed("why".to_owned()));
        assert_eq!(of(common::Code::Locked), Trouble::Refused("why".to_owned()));
        assert_eq!(of(common::Code::Canceled), Trouble::Replaced("why".to_owned()));
    }

    #[test]
    fn a_status_says_what_is_missing() {
        use crate::talos::proto::machine::machine_status_event::MachineStatus as Wire;
        use crate::talos::proto::machine::machine_status_event::machine_status::UnmetCondition;
        let unmet = UnmetCondition { name: "services".to_owned(), reason: "etcd not running".to_owned() };
        let told = MachineStatusEvent {
            stage: MachineStage::Booting.into(),
            status: Some(Wire { ready: false, unmet_conditions: vec![unmet] }),
        };
        let heard = decode(event("talos/runtime/machine.MachineStatusEvent", told.encode_to_vec())).unwrap();
        let Happening::Status(status) = heard.what else { panic!("{heard:?}") };
        assert_eq!((status.stage, status.is_up()), (Stage::Booting, false));
        assert_eq!(status.unmet[0].reason, "etcd not running");
    }
}
