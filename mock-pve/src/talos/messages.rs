//! What a reply needs to say where it comes from.

use super::proto::{cluster, common, machine, storage};

/// A message that carries metadata.
pub(super) trait Tagged: Default {
    fn metadata(&mut self) -> &mut Option<common::Metadata>;
}

macro_rules! tagged {
    ($($kind:ty),+ $(,)?) => {
        $(impl Tagged for $kind {
            fn metadata(&mut self) -> &mut Option<common::Metadata> {
                &mut self.metadata
            }
        })+
    };
}

tagged!(
    cluster::HealthCheckProgress,
    common::Data,
    machine::ApplyConfiguration,
    machine::Bootstrap,
    machine::EtcdAlarm,
    machine::EtcdAlarmDisarm,
    machine::EtcdDefragment,
    machine::EtcdForfeitLeadership,
    machine::EtcdLeaveCluster,
    machine::EtcdMembers,
    machine::EtcdRecover,
    machine::EtcdRemoveMemberById,
    machine::EtcdStatus,
    machine::Event,
    machine::Hostname,
    machine::ImageListResponse,
    machine::ImagePull,
    machine::LogsContainer,
    machine::Memory,
    machine::Reboot,
    machine::Reset,
    machine::Rollback,
    machine::ServiceList,
    machine::Shutdown,
    machine::Upgrade,
    machine::Version,
    storage::Disks,
);
