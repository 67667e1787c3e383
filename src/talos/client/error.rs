//! What can go wrong between this program and a machine.
//!
//! Purpose: turn gRPC statuses and TLS failures into cases a step can decide by: was anything sent, is it worth waiting,
//! is it the wrong machine. Must not know: retries.

use std::error::Error;
use std::io;
use std::time::Duration;

use rustls::AlertDescription;
use tonic::{Code, Status};

use crate::net::tls;

/// Why a machine gave no answer, or not the one that was wanted.
#[derive(Debug, thiserror::Error)]
pub enum TalosError {
    /// No connection, or no TLS session: nothing was sent.
    #[error("could not reach the machine at {address}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What stood in the way.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The certificate isn't one of this cluster (or not for this address): nothing was sent.
    #[error("the machine at {address} shows a certificate that isn't its cluster's")]
    WrongCertificate {
        /// Host and port.
        address: String,
        /// What rustls says about it.
        #[source]
        source: rustls::Error,
    },
    /// The machine in maintenance isn't the one that was probed, or it rebooted since: nothing was sent.
    #[error("the machine at {address} has another key than when it was probed: {found}, expected was {expected}")]
    PinChanged {
        /// Host and port.
        address: String,
        /// The pin of the probe, base64.
        expected: String,
        /// What is there now, base64.
        found: String,
    },
    /// It wants a client certificate: it has its config, it isn't in maintenance (any more).
    #[error("the machine at {address} wants a client certificate")]
    NeedsCertificate {
        /// Host and port.
        address: String,
    },
    /// The client certificate was rejected, or its roles don't suffice.
    #[error("the machine at {address} refused {call}: {reason}")]
    NotAuthorized {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// In the machine's words.
        reason: String,
    },
    /// Too early, or something else runs (gRPC `FAILED_PRECONDITION`): nothing changed, worth another try.
    #[error("the machine at {address} is not ready for {call}: {reason}")]
    NotReady {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// In the machine's words.
        reason: String,
    },
    /// It was done before.
    #[error("the machine at {address} says to {call}: {reason}")]
    AlreadyExists {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// In the machine's words.
        reason: String,
    },
    /// This Talos doesn't know the method, or this machine doesn't serve it.
    #[error("the machine at {address} doesn't serve {call}: {reason}")]
    Unimplemented {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// In the machine's words.
        reason: String,
    },
    /// There is no such thing, positively.
    #[error("the machine at {address} has nothing for {call}: {reason}")]
    NotFound {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// In the machine's words.
        reason: String,
    },
    /// This Talos has no resources of that type. It says so with `PERMISSION_DENIED`.
    #[error("the Talos at {address} knows no {kind}")]
    UnknownResource {
        /// Host and port.
        address: String,
        /// The resource type.
        kind: String,
    },
    /// What was sent is wrong, mostly a config: nothing changed.
    #[error("the machine at {address} rejected what was sent with {call}: {reason}")]
    Rejected {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// In the machine's words.
        reason: String,
    },
    /// The connection broke, or the machine went away, with the call under way: it may have had its effect.
    #[error("the connection to {address} broke during {call}")]
    Cut {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// How.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It was sent and nothing came back in time: it may have had its effect.
    #[error("no answer from {address} to {call} within {} s", after.as_secs_f32())]
    NoAnswer {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// How long it was waited.
        after: Duration,
    },
    /// The answer can't be understood.
    #[error("the machine at {address} answered {call} with {what}")]
    Answer {
        /// Host and port.
        address: String,
        /// The method or resource type.
        call: &'static str,
        /// What is wrong with it, as a noun phrase. Never the content: it may be secret.
        what: &'static str,
    },
    /// What was to be sent could not be read on this side.
    #[error("could not read what was to be sent with {call}")]
    Source {
        /// The method.
        call: &'static str,
        /// What the reader said.
        #[source]
        source: io::Error,
    },
    /// The address isn't one.
    #[error("'{given}' is not the address of a machine")]
    Address {
        /// As given.
        given: String,
    },
    /// The credentials can't be used.
    #[error("could not set up the connection to {address}")]
    Setup {
        /// Host and port.
        address: String,
        /// What is wrong with them.
        #[source]
        source: tls::TlsError,
    },
    /// Any other gRPC status.
    #[error("the machine at {address} answered {call} with {code:?}: {message}")]
    Other {
        /// Host and port.
        address: String,
        /// The method.
        call: &'static str,
        /// gRPC's code.
        code: Code,
        /// In the machine's words.
        message: String,
    },
}

impl TalosError {
    /// Whether the machine may have acted on the call although there is no answer: look before repeating.
    pub fn may_have_arrived(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::NoAnswer { .. })
    }

    /// Whether the same call can work in a moment, the machine being on its way up, down or between two certificates.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::WrongCertificate { .. }
                | Self::NeedsCertificate { .. }
                | Self::NotReady { .. }
                | Self::Cut { .. }
                | Self::NoAnswer { .. }
        )
    }

    /// The case behind a status. What never reached the machine carries its cause as the status' source; what the machine
    /// said carries none.
    pub(super) fn of(address: &str, call: &'static str, status: Status) -> Self {
        let address = address.to_owned();
        if status.source().is_some() {
            return Self::of_transport(address, call, Box::new(status));
        }
        let reason = status.message().to_owned();
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => match unknown_type(&reason) {
                Some(kind) => Self::UnknownResource { address, kind },
                None => Self::NotAuthorized { address, call, reason },
            },
            Code::FailedPrecondition => Self::NotReady { address, call, reason },
            Code::AlreadyExists => Self::AlreadyExists { address, call, reason },
            Code::Unimplemented => Self::Unimplemented { address, call, reason },
            Code::NotFound => Self::NotFound { address, call, reason },
            Code::InvalidArgument => Self::Rejected { address, call, reason },
            // What a machine says that is stopping or changing its certificate.
            Code::Unavailable | Code::Cancelled => Self::Cut { address, call, source: Box::new(status) },
            code => Self::Other { address, call, code, message: reason },
        }
    }

    /// The case behind a broken or never made connection.
    pub(super) fn of_transport(address: String, call: &'static str, source: Box<dyn Error + Send + Sync>) -> Self {
        if let Some(pin) = tls::mismatch(&*source) {
            return Self::PinChanged { address, expected: pin.expected.clone(), found: pin.found.clone() };
        }
        if let Some(wrong) = tls::certificate_error(&*source) {
            let source = rustls::Error::InvalidCertificate(wrong.clone());
            return Self::WrongCertificate { address, source };
        }
        if let Some(alert) = alert(&*source) {
            // With TLS 1.3 the server's verdict on the client comes after the handshake, on the first read.
            return match alert {
                AlertDescription::CertificateRequired => Self::NeedsCertificate { address },
                other => Self::NotAuthorized { address, call, reason: format!("TLS alert {other:?}") },
            };
        }
        if chain(&*source).any(<dyn std::error::Error + 'static>::is::<tonic::ConnectError>) {
            return Self::Unreachable { address, source };
        }
        Self::Cut { address, call, source }
    }
}

/// `resource type "X" is not supported` is how a Talos says that it has no such type.
fn unknown_type(reason: &str) -> Option<String> {
    let rest = reason.strip_prefix("resource type \"")?;
    rest.strip_suffix("\" is not supported").map(str::to_owned)
}

/// A TLS alert the server sent about this client.
pub(super) fn alert(error: &(dyn Error + 'static)) -> Option<AlertDescription> {
    chain(error).find_map(|cause| match cause.downcast_ref::<rustls::Error>() {
        Some(rustls::Error::AlertReceived(alert)) => Some(*alert),
        _ => None,
    })
}

/// An error and its causes, those inside of `io::Error` included (it leaves them out when asked for its source).
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_of_a_machine_has_its_case() {
        let case = |code, message: &str| TalosError::of("10.0.0.1:50000", "Bootstrap", Status::new(code, message));
        assert!(matches!(case(Code::FailedPrecondition, "time is not in sync yet"), TalosError::NotReady { .. }));
        assert!(matches!(case(Code::AlreadyExists, "x"), TalosError::AlreadyExists { .. }));
        assert!(matches!(case(Code::Unimplemented, "x"), TalosError::Unimplemented { .. }));
        assert!(matches!(case(Code::InvalidArgument, "x"), TalosError::Rejected { .. }));
        assert!(matches!(case(Code::Unavailable, "x"), TalosError::Cut { .. }));
        assert!(matches!(case(Code::Internal, "x"), TalosError::Other { code: Code::Internal, .. }));
        assert!(matches!(case(Code::PermissionDenied, "not authorized"), TalosError::NotAuthorized { .. }));
        let unknown = case(Code::PermissionDenied, "resource type \"BootIDs.runtime.talos.dev\" is not supported");
        assert!(
            matches!(&unknown, TalosError::UnknownResource { kind, .. } if kind == "BootIDs.runtime.talos.dev"),
            "{unknown}"
        );
    }

    #[test]
    fn only_what_was_sent_may_have_arrived() {
        let cut = TalosError::of("a", "Bootstrap", Status::unavailable("error reading from server: EOF"));
        assert!(cut.may_have_arrived() && cut.is_transient());
        let refused = TalosError::of_transport(
            "a".to_owned(),
            "Bootstrap",
            Box::new(tonic::ConnectError(Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)))),
        );
        assert!(matches!(refused, TalosError::Unreachable { .. }));
        assert!(!refused.may_have_arrived() && refused.is_transient());
    }
}
