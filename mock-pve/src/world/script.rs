//! What a script may do to a world, as the world sees it.
//!
//! Purpose: the one seam through which a scenario reaches in: everything that is asked of the double is shown to the
//! script, which may answer with a [`Fault`]; and whoever waits for how long something takes asks it too. A world without
//! a script pays one look at an empty cell. Must not know: files, matchers, protocols. Start at [`Script`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{World, held};

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// A node's REST API.
    Pve,
    /// A node's SSH server.
    Ssh,
    /// The Image Factory.
    Factory,
    /// A machine's Talos API.
    Talos,
    /// A control plane's Kubernetes API.
    Kubernetes,
}

impl Service {
    /// As files and logs spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pve => "pve",
            Self::Ssh => "ssh",
            Self::Factory => "factory",
            Self::Talos => "talos",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// How far something has come when it is shown to the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody connects.
    Connect,
    /// A request was read and nothing was done yet.
    Request,
    /// A task is about to begin its work.
    Task,
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Of whom.
    pub service: Service,
    /// How far it is.
    pub step: Step,
    /// `GET`, the name of a Talos method, a task's type; empty for a connection or a command.
    pub verb: &'a str,
    /// The path, the command line, a task's id.
    pub path: &'a str,
    /// Who asks, as far as that is known.
    pub who: &'a str,
    /// The PVE node that is asked, or that a task runs on; empty otherwise.
    pub node: &'a str,
    /// The VM of the machine that is asked, or the one that a task is about.
    pub vmid: Option<u32>,
}

/// When a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before anything is done.
    Before,
    /// Once it is done, instead of the answer.
    After,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// The connection is turned away before a word is said.
    Refuse,
    /// The connection breaks.
    Reset(When),
    /// That answer, and nothing is done.
    Status {
        /// HTTP status, gRPC code, or exit code.
        code: u16,
        /// Reason phrase, message, or what goes to stderr.
        reason: String,
    },
    /// A task fails.
    Task {
        /// What it says.
        text: String,
        /// Its work is done all the same.
        done: bool,
    },
    /// It waits first; `None`: for ever.
    Stall(Option<f64>),
    /// So many bytes of the data arrive changed.
    Corrupt(u64),
    /// So many messages at the end of a stream are missing.
    Short {
        /// How many.
        messages: usize,
        /// How it ends then.
        ends: Ends,
    },
}

/// How a stream ends that isn't whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// As if it were.
    Well,
    /// With an error.
    Broken,
}

/// What takes time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// From power on to the first API.
    Boot,
    /// From the request to power off.
    Shutdown,
    /// A copy of that many bytes.
    Copy(u64),
}

/// Bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// From a client to a node.
    Upload,
    /// From the factory to whoever asks.
    Download,
}

/// A scenario, as the world sees it.
pub trait Script: Debug + Send + Sync {
    /// What goes wrong with something that is asked, in order. Being asked counts.
    fn meet(&self, ask: &Ask<'_>) -> Vec<Fault>;
    /// Seconds of real life before an answer.
    fn latency(&self, service: Service) -> f64;
    /// Seconds of real life that something takes, if the script says.
    fn takes(&self, what: Takes) -> Option<f64>;
    /// How fast data flows, if the script says.
    fn flow(&self, flow: Flow) -> Option<f64>;
    /// The next number of the script's own chance.
    fn chance(&self) -> u64;
}

/// A request that was answered, as the log keeps it: no header, no value, no secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answered {
    /// Unix time with milliseconds.
    pub time: f64,
    /// Of whom.
    pub service: Service,
    /// The PVE node or the machine's VM that answered; empty for the factory.
    pub at: String,
    /// `GET`, a gRPC method's service, `exec`.
    pub method: String,
    /// The path without its query; the first word of a command.
    pub path: String,
    /// Names of the parameters, where the protocol has any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// `user@realm!token`, the roles or the name in a certificate, or nothing.
    pub who: String,
    /// Status, gRPC code or exit code; 0 when the connection broke before there was one.
    pub status: u16,
    /// Reason phrase, where it isn't the usual one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Milliseconds until it was answered.
    pub ms: u64,
    /// Bytes of the answer, as far as they are known when it begins.
    pub bytes: u64,
}

impl Answered {
    /// A record that begins now.
    pub fn now(service: Service, at: impl Into<String>) -> Self {
        Self {
            time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            service,
            at: at.into(),
            method: String::new(),
            path: String::new(),
            keys: Vec::new(),
            who: String::new(),
            status: 0,
            reason: String::new(),
            ms: 0,
            bytes: 0,
        }
    }
}

impl World {
    /// Gives the world a script; only the first one counts.
    pub fn follow_script(&self, script: Arc<dyn Script>) {
        if self.0.script.set(script.clone()).is_err() {
            tracing::warn!("a world follows one script only");
            return;
        }
        self.clock().follow(script);
    }

    /// The script, if there is one.
    pub fn script(&self) -> Option<&Arc<dyn Script>> {
        self.0.script.get()
    }

    /// What goes wrong with something that is asked, in order.
    pub fn meet(&self, ask: &Ask<'_>) -> Vec<Fault> {
        self.script().map(|script| script.meet(ask)).unwrap_or_default()
    }

    /// All requests that are answered from now on.
    pub fn subscribe_answers(&self) -> mpsc::UnboundedReceiver<Answered> {
        let (sender, receiver) = mpsc::unbounded_channel();
        held(&self.0.answers).push(sender);
        receiver
    }

    /// Tells whoever keeps the log of an answered request.
    pub fn answered(&self, answered: &Answered) {
        held(&self.0.answers).retain(|log| log.send(answered.clone()).is_ok());
    }

    /// Waits for what a script says; for ever where it says so.
    pub async fn stall(&self, seconds: Option<f64>) {
        match seconds {
            Some(seconds) => self.clock().sleep(seconds).await,
            None => std::future::pending().await,
        }
    }

    /// How much faster than in real life bytes flow, if the script says how fast they do.
    pub fn flow(&self, flow: Flow) -> Option<f64> {
        Some(self.script()?.flow(flow)? * self.clock().scale())
    }

    /// How long that many bytes take at a rate.
    pub fn flowing(bytes: usize, rate: f64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a duration")]
        let seconds = bytes as f64 / rate.max(1.0);
        Duration::from_secs_f64(seconds.min(3600.0))
    }
}
