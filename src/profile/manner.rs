//! How a run goes about it: how machines are found and images travel, what stops it, how long it waits.
//!
//! Must not know: what is made.

use std::time::Duration;

use ipnet::IpNet;
use schemars::JsonSchema;

use super::schema;

/// How machines without a configuration are found.
#[derive(Clone, Debug, Default, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct AddressDiscovery {
    /// The way; `auto` by default.
    #[schemars(with = "Option<DiscoveryMode>")]
    pub mode: DiscoveryMode,
    /// The network to scan; the machines' own by default.
    #[schemars(with = "Option<schema::CidrText>")]
    pub subnet: Option<IpNet>,
}

/// A way to find machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum DiscoveryMode {
    /// The assigned address first, then the guest agent, then a scan.
    #[default]
    Auto,
    /// Only the assigned address (DHCP reservations).
    Static,
    /// Only a scan.
    Scan,
    /// Only what the guest agent tells PVE.
    Agent,
    /// A cloud-init drive gives the machine its assigned address before it has a configuration.
    CloudInit,
}

/// Limits that stop a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Guards {
    /// The most VMs that one run may destroy; unlimited by default.
    pub max_destroy: Option<u32>,
    /// How old the proof of backup may be when the old cluster is stopped; 10m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub snapshot_max_age: Duration,
    /// Whether a run is refused that has no second copy of its snapshot.
    #[schemars(with = "Option<bool>")]
    pub require_copy: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self { max_destroy: None, snapshot_max_age: Duration::from_mins(10), require_copy: false }
    }
}

/// How images come to the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Transport {
    /// The first way that rights, versions and routes allow.
    #[default]
    Auto,
    /// The node fetches the factory's qcow2 itself, with a known digest (PVE 8.4 or later).
    Pull,
    /// Through the node's API (PVE 8.4 or later).
    Upload,
    /// Through SSH, straight into the volume.
    Ssh,
}

impl Transport {
    /// As files have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pull => "pull",
            Self::Upload => "upload",
            Self::Ssh => "ssh",
        }
    }
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Timeouts {
    /// For a guest to shut down before it is stopped; 120s.
    #[schemars(with = "Option<schema::DurationText>")]
    pub shutdown: Duration,
    /// For a machine to answer after it was started; 5m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub boot: Duration,
    /// For the cluster to become healthy; 10m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub health: Duration,
    /// For a node to be drained; 5m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub drain: Duration,
    /// For a PVE task; 10m.
    #[schemars(with = "Option<schema::DurationText>")]
    pub task: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        Self { shutdown: minutes(2), boot: minutes(5), health: minutes(10), drain: minutes(5), task: minutes(10) }
    }
}
