//! What Proxmox VE means when it says no.
//!
//! Purpose: the only place that matches PVE's texts. PVE answers nearly everything with status 500 and puts its message into
//! the reason phrase; "not found" is a 500 too (PVE 8.4, PVE/AbstractConfig.pm). A text becomes a precise variant only when
//! it begins as the original does: an error that merely mentions that something doesn't exist proves no absence.
//! Must not know: requests, retries.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

use super::task::Upid;
use crate::net::connector::ConnectError;
use crate::net::http::HttpError;
use crate::net::tls::PinMismatch;
use crate::types::VmId;

/// Something that PVE positively said isn't there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A VM or container has no configuration on the node that was asked. It may be on another node.
    Vm(VmId),
    /// A cluster node of this name.
    Node(String),
    /// A storage.
    Storage(String),
    /// A resource pool.
    Pool(String),
    /// A snapshot.
    Snapshot(String),
    /// A disk key of a VM.
    Disk(String),
    /// A volume, named by a task or call that wanted to use it.
    Volume(String),
    /// An HA resource.
    HaResource(String),
    /// A task, on the node that was asked. Right after its creation this may pass.
    Task,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vm(vmid) => write!(f, "VM {vmid}"),
            Self::Node(name) => write!(f, "node {name}"),
            Self::Storage(name) => write!(f, "storage {name}"),
            Self::Pool(name) => write!(f, "pool {name}"),
            Self::Snapshot(name) => write!(f, "snapshot {name}"),
            Self::Disk(key) => write!(f, "disk {key}"),
            Self::Volume(volume) => write!(f, "volume {volume}"),
            Self::HaResource(sid) => write!(f, "HA resource {sid}"),
            Self::Task => f.write_str("the task"),
        }
    }
}

/// A refusal or failure of the PVE API. `reason` is always PVE's own text.
#[derive(Debug, thiserror::Error)]
pub enum PveError {
    /// It isn't there, says PVE itself.
    #[error("{what} does not exist")]
    NotFound {
        /// What.
        what: Missing,
        /// PVE's text.
        reason: String,
    },
    /// A lock stands in the way. With a name it is the VM's own `lock:` key and stays until someone clears it; without one
    /// it is a process that holds it right now.
    #[error("{reason}")]
    Locked {
        /// `backup`, `clone`, `create` …
        lock: Option<String>,
        /// PVE's text.
        reason: String,
    },
    /// Something of that name or number is there already.
    #[error("{reason}")]
    AlreadyExists {
        /// PVE's text.
        reason: String,
    },
    /// The VM runs (already), and that doesn't go with what was asked.
    #[error("{reason}")]
    Running {
        /// PVE's text.
        reason: String,
    },
    /// The VM doesn't run, and that doesn't go with what was asked.
    #[error("{reason}")]
    NotRunning {
        /// PVE's text.
        reason: String,
    },
    /// The VM's `protection` is on.
    #[error("{reason}")]
    Protected {
        /// PVE's text.
        reason: String,
    },
    /// The volume has linked clones.
    #[error("{reason}")]
    InUse {
        /// PVE's text.
        reason: String,
    },
    /// A right is missing.
    #[error("{}", forbidden(path.as_deref(), privileges, reason))]
    Forbidden {
        /// The ACL path, where PVE named one.
        path: Option<String>,
        /// Privileges of which any one would have been enough.
        privileges: Vec<String>,
        /// PVE's text.
        reason: String,
    },
    /// The credentials aren't valid (any more).
    #[error("the login was refused: {reason}")]
    Unauthorized {
        /// PVE's text.
        reason: String,
    },
    /// A second factor is wanted, which only a person has.
    #[error("the user needs a second factor; use an API token")]
    SecondFactor,
    /// Parameters were refused.
    #[error("{}", invalid(errors, reason))]
    Invalid {
        /// Text by parameter.
        errors: BTreeMap<String, String>,
        /// PVE's text.
        reason: String,
    },
    /// Someone else changed the configuration meanwhile.
    #[error("the configuration was changed by someone else meanwhile")]
    DigestMismatch {
        /// PVE's text.
        reason: String,
    },
    /// There is no room.
    #[error("{reason}")]
    StorageFull {
        /// PVE's text.
        reason: String,
    },
    /// The cluster has no quorum.
    #[error("{reason}")]
    NoQuorum {
        /// PVE's text.
        reason: String,
    },
    /// The node that should have answered a read can't be reached by the one that was asked (595 to 599).
    #[error("the node did not answer: {status} {reason}")]
    NodeDown {
        /// 595 to 599.
        status: u16,
        /// PVE's text.
        reason: String,
    },
    /// A write was sent and its outcome is unknown: look at the state before anything else.
    #[error("{method} {path} was sent, but not answered: {why}")]
    Unanswered {
        /// Its method.
        method: String,
        /// Its path.
        path: String,
        /// What came instead of an answer.
        why: String,
        /// The transport's error, where there was one.
        #[source]
        source: Option<Box<HttpError>>,
    },
    /// No endpoint could be reached, or a read broke off: nothing was changed.
    #[error("could not talk to the PVE API")]
    Unreachable(#[source] HttpError),
    /// The server shows another certificate than the pinned one.
    #[error("{endpoint} shows another certificate than the pinned one")]
    Pin {
        /// Host and port.
        endpoint: String,
        /// What was expected and what was found.
        #[source]
        mismatch: PinMismatch,
    },
    /// The server's certificate isn't signed by a trusted authority, or not for this name.
    #[error("the PVE API can't be trusted")]
    Untrusted(#[source] HttpError),
    /// Our own data could not be read while it was being uploaded.
    #[error("could not read what was to be uploaded")]
    Upload(#[source] HttpError),
    /// A client that can't be built: no endpoint, or unusable TLS material.
    #[error("could not set up the PVE client: {what}")]
    Setup {
        /// What is wrong.
        what: String,
        /// Why.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// An answer that isn't what this call answers.
    #[error("the answer to {path} can't be understood")]
    Answer {
        /// The path.
        path: String,
        /// What the decoder said.
        #[source]
        source: serde_json::Error,
    },
    /// A task ended badly.
    #[error("task {} failed", .0.upid.kind)]
    Task(#[source] Box<TaskFailure>),
    /// A task hasn't ended in time. It may still run.
    #[error("task {} has not ended after {seconds} s", upid.kind)]
    TaskTimeout {
        /// The task.
        upid: Box<Upid>,
        /// How long it was waited for, in seconds.
        seconds: u64,
    },
    /// Anything else.
    #[error("{status} {reason}")]
    Other {
        /// HTTP status.
        status: u16,
        /// PVE's text.
        reason: String,
    },
}

/// How a task ended badly.
#[derive(Debug, thiserror::Error)]
#[error("{meaning}")]
pub struct TaskFailure {
    /// The task.
    pub upid: Upid,
    /// Its exit text.
    pub exit: String,
    /// The exit text, understood: the same variants as for a refused call.
    pub meaning: PveError,
    /// The last lines of its log.
    pub log: Vec<String>,
}

fn forbidden(path: Option<&str>, privileges: &[String], reason: &str) -> String {
    match path {
        Some(path) if !privileges.is_empty() => format!("needs {} on {path}", privileges.join(" or ")),
        _ => reason.to_owned(),
    }
}

fn invalid(errors: &BTreeMap<String, String>, reason: &str) -> String {
    if errors.is_empty() {
        return reason.to_owned();
    }
    errors.iter().map(|(key, text)| format!("{key}: {}", text.trim())).collect::<Vec<_>>().join("; ")
}

/// An answer as received: all that an error can be told from.
#[derive(Clone, Copy, Debug)]
pub struct Reply<'a> {
    /// HTTP status.
    pub status: u16,
    /// Reason phrase.
    pub reason: &'a str,
    /// Body, JSON or not.
    pub body: &'a [u8],
}

#[derive(Default, Deserialize)]
struct ErrorBody {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: Option<BTreeMap<String, String>>,
}

impl PveError {
    /// Understands a refusal. For statuses below 400 there is nothing to understand: the caller keeps those.
    pub fn from_reply(reply: Reply<'_>) -> Self {
        let body: ErrorBody = serde_json::from_slice(reply.body).unwrap_or_default();
        // The reason phrase is the first line of the message, on all versions; `message` came with 8.4.
        let reason = match body.message.as_deref().map(str::trim) {
            Some(message) if !message.is_empty() => message.to_owned(),
            _ => reply.reason.trim().to_owned(),
        };
        match reply.status {
            401 => Self::Unauthorized { reason },
            403 => refused(reason),
            400 => not_valid(body.errors.unwrap_or_default(), reason),
            status @ 595..=599 => Self::NodeDown { status, reason },
            status => Self::from_text(status, reason),
        }
    }

    /// Understands a message or a task's exit text.
    pub fn from_text(status: u16, reason: String) -> Self {
        let text = reason.as_str();
        if let Some(what) = missing(text) {
            return Self::NotFound { what, reason };
        }
        if let Some(lock) = between(text, "VM is locked (", ")").or_else(|| between(text, "CT is locked (", ")")) {
            return Self::Locked { lock: Some(lock.to_owned()), reason };
        }
        let ends = |end: &str| text.trim_end_matches(['.', '\n']).ends_with(end);
        let has = |part: &str| text.contains(part);
        if (has("can't lock file '") && has("got timeout")) || has("got lock request timeout") {
            Self::Locked { lock: None, reason }
        } else if has("(file change by other user?)")
            || has("detected modified configuration - file changed by other user?")
        {
            Self::DigestMismatch { reason }
        } else if ends("protection mode enabled") {
            Self::Protected { reason }
        } else if (text.starts_with("VM ") && (ends("is running - destroy failed") || ends("already running")))
            || ends("if VM is running")
        {
            Self::Running { reason }
        } else if text.starts_with("VM ") && (ends("not running") || ends("is not running")) {
            Self::NotRunning { reason }
        } else if has("is still in use by linked clone") {
            Self::InUse { reason }
        } else if has("No space left on device") || has("insufficient free space") || has("out of space") {
            Self::StorageFull { reason }
        } else if (text.starts_with("unable to create VM ")
            && (has(" already exists on node '") || ends("config file already exists")))
            || (has(" failed: ") && (ends("already exists") || ends("already defined")))
            || (text.starts_with("disk image '") && ends("already exists"))
            || ends("failed: File exists")
        {
            Self::AlreadyExists { reason }
        } else if has("no quorum?") {
            Self::NoQuorum { reason }
        } else {
            Self::Other { status, reason }
        }
    }

    /// PVE's own text, where it said something.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::NotFound { reason, .. }
            | Self::Locked { reason, .. }
            | Self::AlreadyExists { reason }
            | Self::Running { reason }
            | Self::NotRunning { reason }
            | Self::Protected { reason }
            | Self::InUse { reason }
            | Self::Forbidden { reason, .. }
            | Self::Unauthorized { reason }
            | Self::Invalid { reason, .. }
            | Self::DigestMismatch { reason }
            | Self::StorageFull { reason }
            | Self::NoQuorum { reason }
            | Self::NodeDown { reason, .. }
            | Self::Other { reason, .. } => Some(reason),
            Self::Task(failure) => Some(&failure.exit),
            _ => None,
        }
    }

    /// The error itself, or what a failed task's exit text means.
    pub fn meaning(&self) -> &Self {
        match self {
            Self::Task(failure) => &failure.meaning,
            other => other,
        }
    }

    /// Whether PVE positively said that the VM isn't on the node that was asked.
    pub fn is_missing_vm(&self, vmid: VmId) -> bool {
        matches!(self.meaning(), Self::NotFound { what: Missing::Vm(missing), .. } if *missing == vmid)
    }

    /// Whether nobody knows if the write took effect.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::Unanswered { .. } | Self::TaskTimeout { .. })
    }

    /// Whether the same read may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        match self.meaning() {
            Self::NodeDown { .. } | Self::Locked { lock: None, .. } => true,
            Self::Unreachable(error) => !is_refused(error),
            _ => false,
        }
    }
}

/// The loopback rule won't change its mind.
fn is_refused(error: &HttpError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<ConnectError>() {
            return matches!(found, ConnectError::OutOfReach { .. });
        }
        next = error.source();
    }
    false
}

fn refused(reason: String) -> PveError {
    let inner = between(&reason, "Permission check failed (", ")").unwrap_or_default();
    if let Some(pool) = between(inner, "pool '", "' does not exist") {
        return PveError::NotFound { what: Missing::Pool(pool.to_owned()), reason };
    }
    let (path, privileges) = match inner.split_once(", ") {
        Some((path, privileges)) if path.starts_with('/') => (
            Some(path.to_owned()),
            privileges.split_whitespace().next().unwrap_or_default().split('|').map(str::to_owned).collect(),
        ),
        _ => (None, Vec::new()),
    };
    PveError::Forbidden { path, privileges, reason }
}

fn not_valid(errors: BTreeMap<String, String>, reason: String) -> PveError {
    let only = |key: &str| errors.get(key).map(|text| text.trim()).filter(|_| errors.len() == 1);
    if only("upid") == Some("no such task") {
        return PveError::NotFound { what: Missing::Task, reason };
    }
    if let Some(text) = only("vmid")
        && text.ends_with(" already exists")
    {
        return PveError::AlreadyExists { reason: text.to_owned() };
    }
    if errors.is_empty() && reason != "Parameter verification failed." {
        return PveError::from_text(400, reason);
    }
    PveError::Invalid { errors, reason }
}

/// What stands before and after a name, and what is missing then.
type Phrase = (&'static str, &'static str, fn(String) -> Missing);

/// What a text that begins as PVE's own does says is missing.
fn missing(text: &str) -> Option<Missing> {
    let text = text.trim();
    if let Some(path) = whole(text, "Configuration file '", "' does not exist") {
        let vmid = path.rsplit('/').next()?.strip_suffix(".conf")?.parse().ok()?;
        return Some(Missing::Vm(VmId(vmid)));
    }
    if let Some(rest) = text.strip_prefix("unable to find configuration file for VM ") {
        return rest.split(' ').next()?.parse().ok().map(|vmid| Missing::Vm(VmId(vmid)));
    }
    if let Some(rest) = text.strip_prefix("could not find target VM ") {
        return rest.parse().ok().map(|vmid| Missing::Vm(VmId(vmid)));
    }
    if let Some(rest) = text.strip_prefix("hostname lookup '") {
        return rest.split_once('\'').map(|(node, _)| Missing::Node(node.to_owned()));
    }
    let plain: [Phrase; 6] = [
        ("no such cluster node '", "'", Missing::Node),
        ("storage '", "' does not exist", Missing::Storage),
        ("snapshot '", "' does not exist", Missing::Snapshot),
        ("disk '", "' does not exist", Missing::Disk),
        ("pool '", "' does not exist", Missing::Pool),
        ("volume '", "' does not exist", Missing::Volume),
    ];
    // `create pool failed: …`, `delete storage failed: …`: the handler's own prefix.
    let bare = text.split_once(" failed: ").map_or(text, |(_, rest)| rest);
    let bare = bare
        .strip_prefix("unable to create VM ")
        .and_then(|rest| rest.split_once(" - "))
        .map_or(bare, |(_, rest)| rest);
    for (before, after, make) in plain {
        if let Some(name) = whole(bare, before, after) {
            return Some(make(name.to_owned()));
        }
    }
    whole(bare, "no such resource '", "'")
        .or_else(|| whole(bare, "cannot delete service '", "', not HA managed!"))
        .map(|sid| Missing::HaResource(sid.to_owned()))
}

/// The part between `before` and `after` when the text is nothing but the three; it holds no quote.
fn whole<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    text.strip_prefix(before)?.strip_suffix(after).filter(|inner| !inner.contains('\''))
}

/// The part between `before` at the beginning and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(before)?;
    rest.find(after).map(|end| &rest[..end])
}
