//! How a method fails that was run without HTTP.
//!
//! Purpose: why a method failed that was run without HTTP. Must not know: how either is shown.

use std::collections::BTreeMap;

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
