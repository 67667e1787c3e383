//! The Image Factory.
//!
//! Purpose: what it offers, as a seed has it. Must not know: how any of it is kept.

use serde::{Deserialize, Serialize};

/// What the Image Factory offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FactorySeed {
    /// Talos versions without `v`, oldest first.
    pub talos_versions: Vec<String>,
    /// Schematics that are known from the start, as YAML.
    pub schematics: Vec<String>,
}

impl Default for FactorySeed {
    fn default() -> Self {
        let versions = [
            "1.5.5",
            "1.6.8",
            "1.7.7",
            "1.8.4",
            "1.9.6",
            "1.10.9",
            "1.11.0",
            "1.11.6",
            "1.12.0",
            "1.12.1",
            "1.12.2",
            "1.12.3",
            "1.12.4",
            "1.12.5",
            "1.12.6",
            "1.12.11",
            "1.13.0",
            "1.13.1",
            "1.13.2",
            "1.13.3",
            "1.13.4",
            "1.13.5",
            "1.13.6",
            "1.13.7",
            "1.13.8",
            "1.13.9",
            "1.14.0-rc.1",
        ];
        Self { talos_versions: versions.map(str::to_owned).to_vec(), schematics: Vec::new() }
    }
}
