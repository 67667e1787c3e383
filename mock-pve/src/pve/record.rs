//! What is told of a request to whoever isn't its client.
//!
//! Purpose: the line in the log, and why a method failed that was run without HTTP. Must not know: how either is shown.

use std::collections::BTreeMap;

use serde::Serialize;

/// One request, as the log keeps it: no header, no value.
#[derive(Clone, Debug, Serialize)]
pub struct Request {
    /// Unix time with milliseconds.
    pub time: f64,
    /// `GET` …
    pub method: String,
    /// The path below `/api2/json`.
    pub path: String,
    /// Names of the parameters.
    pub keys: Vec<String>,
    /// `user@realm!token`, or nothing.
    pub who: String,
    /// Status code.
    pub status: u16,
    /// Reason phrase, where it isn't the usual one.
    pub reason: String,
    /// Milliseconds until it was answered.
    pub ms: u64,
}

/// Why a method that was run without HTTP failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status that HTTP would have.
    pub status: u16,
    /// The message.
    pub text: String,
    /// By parameter, where parameters are wrong.
    pub errors: BTreeMap<String, String>,
}
