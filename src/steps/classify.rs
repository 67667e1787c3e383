//! From the clients' errors to what the engine can act on: the one place where it is decided what may be retried.

use crate::engine::{Class, StepError};
use crate::image::{FetchError, Qcow2Error};
use crate::k8s::K8sError;
use crate::pve::PveError;
use crate::ssh::SshError;
use crate::talos::client::TalosError;

/// An error that no repetition heals.
pub(super) fn wrong(doing: impl Into<String>, what: impl Into<String>) -> StepError {
    StepError::new(Class::Permanent, doing, what.into())
}

/// A gate's no: what is there is not what the plan was made for.
pub(super) fn refused(doing: impl Into<String>, what: impl Into<String>) -> StepError {
    StepError::new(Class::Refused, doing, what.into())
}

/// A failed PVE call or task.
pub(super) fn by_pve(doing: impl Into<String>, error: PveError) -> StepError {
    let class = if error.is_ambiguous() {
        Class::Ambiguous
    } else if error.is_transient() {
        Class::Transient
    } else {
        Class::Permanent
    };
    let hint = match error.meaning() {
        PveError::Unanswered { .. } => Some("it may have happened nevertheless: the next attempt looks first"),
        PveError::StorageFull { .. } => Some("make room on the storage, then resume"),
        PveError::Forbidden { .. } => Some("grant the privilege, then resume"),
        PveError::Locked { .. } => Some("wait for what holds the lock, or clear it as root with `qm unlock`"),
        PveError::Pin { .. } => Some("compare the fingerprint on the node's console with the site file"),
        // qemu-server, `PVE/API2/Qemu.pm`: a VM that somebody gave to HA meanwhile.
        other if other.to_string().contains("used in HA resources") => {
            Some("somebody manages it by HA since: `ha-manager remove vm:<ID>` on a node, then resume")
        }
        _ => None,
    };
    let made = StepError::new(class, doing, error);
    match hint {
        Some(hint) => made.hinted(hint),
        None => made,
    }
}

/// A failed download. An image that is not what it has to be is a gate's no: nothing of the old cluster was touched.
pub(super) fn by_fetch(doing: impl Into<String>, error: FetchError) -> StepError {
    let class = if error.is_transient() { Class::Transient } else { Class::Refused };
    let hint = match &error {
        FetchError::WrongDigest { .. } => Some(
            "the factory serves another file than the lock pins: find out why; if the new one is right, remove the image's \
             entry from the lock file and make a new plan",
        ),
        FetchError::WrongLength { .. } | FetchError::Image(_) => Some(
            "the factory, or a proxy before it, serves a damaged file: once it serves a sound one, resume fetches it anew",
        ),
        _ => None,
    };
    let made = StepError::new(class, doing, error);
    match hint {
        Some(hint) => made.hinted(hint),
        None => made,
    }
}

/// A failed conversion.
pub(super) fn by_qcow2(doing: impl Into<String>, error: Qcow2Error) -> StepError {
    StepError::new(Class::Permanent, doing, error)
}

/// A failed connection, or a command whose outcome is not known. A host that isn't the right one is a gate's no.
pub(super) fn by_ssh(doing: impl Into<String>, error: SshError) -> StepError {
    let class = match &error {
        error if error.may_have_run() => Class::Ambiguous,
        error if error.is_transient() => Class::Transient,
        SshError::UnknownHostKey { .. }
        | SshError::ChangedHostKey { .. }
        | SshError::RevokedHostKey { .. }
        | SshError::Unproven { .. } => Class::Refused,
        _ => Class::Permanent,
    };
    let hint = error.hint();
    let made = StepError::new(class, doing, error);
    match hint {
        Some(hint) => made.hinted(hint),
        None => made,
    }
}

/// A failed call to the Kubernetes API.
pub(super) fn by_kubernetes(doing: impl Into<String>, error: K8sError) -> StepError {
    // What is asked there may be asked twice: applies, and deletes of things that are named.
    let class = if error.is_transient() { Class::Transient } else { Class::Permanent };
    StepError::new(class, doing, error)
}

/// A failed call to a machine.
pub(super) fn by_talos(doing: impl Into<String>, error: TalosError) -> StepError {
    let class = if error.may_have_arrived() {
        Class::Ambiguous
    } else if error.is_transient() {
        Class::Transient
    } else {
        Class::Permanent
    };
    let hint = match &error {
        TalosError::PinChanged { .. } => {
            Some("another machine answers at this address, or it was rebooted: resume looks for it anew")
        }
        TalosError::WrongCertificate { .. } => Some("something of another cluster answers at this address"),
        _ => None,
    };
    let made = StepError::new(class, doing, error);
    match hint {
        Some(hint) => made.hinted(hint),
        None => made,
    }
}
