//! What a machine is told to do, whoever tells it.

use std::sync::Arc;

use super::config::NodeConfig;
use crate::disk::Recipe;
use crate::etcd::Check;

/// How a new etcd cluster begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// Empty.
    Fresh,
    /// With what the uploaded snapshot holds.
    Recover(Check),
}

/// When a new configuration counts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Apply {
    /// Now, and for the next boots.
    Now,
    /// After the reboot that follows.
    Reboot,
    /// After the next reboot, whenever that is.
    Staged,
    /// Now; the old one comes back after that many seconds unless another one comes first.
    Try(f64),
}

/// How a machine restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// By kexec.
    #[default]
    Kexec,
    /// Through the firmware.
    PowerCycle,
    /// At once, without stopping anything.
    Force,
}

/// A legacy upgrade, whose image is known to be good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The image, as it was named.
    pub image: String,
    /// What it installs.
    pub recipe: Recipe,
    /// EPHEMERAL is kept, where a Talos asks.
    pub preserve: bool,
    /// The next boot does it.
    pub stage: bool,
    /// How it restarts.
    pub restart: Restart,
}

/// What a machine is told to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Take this configuration.
    Apply {
        /// The configuration.
        config: Arc<NodeConfig>,
        /// When it counts.
        when: Apply,
    },
    /// Begin a new etcd cluster.
    Bootstrap(Bootstrap),
    /// Stop etcd and forget its data: the machine left the cluster.
    LeaveEtcd,
    /// Start, stop or restart a service.
    Service(String, Turn),
    /// Reboot.
    Reboot {
        /// The call behind it.
        actor: String,
        /// How.
        restart: Restart,
    },
    /// Boot the other slot.
    Rollback {
        /// The call behind it.
        actor: String,
    },
    /// Install another version and boot it.
    Upgrade {
        /// The call behind it.
        actor: String,
        /// What and how.
        upgrade: Box<Upgrade>,
    },
    /// Switch off.
    Shutdown {
        /// The call behind it; empty for the power button.
        actor: String,
        /// Pods aren't evicted first.
        force: bool,
    },
    /// Forget, then reboot or switch off.
    Reset {
        /// The call behind it.
        actor: String,
        /// Leave etcd first.
        graceful: bool,
        /// What to wipe.
        wipe: Wipe,
        /// Reboot, not off.
        reboot: bool,
    },
}

/// What is done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It starts.
    On,
    /// It stops.
    Off,
    /// It stops and starts.
    OffAndOn,
}

/// What a reset wipes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wipe {
    /// The whole system disk: it won't boot again.
    Disk,
    /// Nothing of the system disk.
    Nothing,
    /// These partitions.
    Partitions(Vec<String>),
}

impl Wipe {
    /// Whether what etcd keeps goes with it.
    pub(super) fn takes_ephemeral(&self) -> bool {
        match self {
            Self::Disk => true,
            Self::Nothing => false,
            Self::Partitions(labels) => labels.iter().any(|label| label == "EPHEMERAL"),
        }
    }
}
