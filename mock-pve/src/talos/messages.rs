//! What a reply needs to say where it comes from.

use super::proto::{cluster, common, inspect, machine, storage, time};

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
    inspect::ControllerRuntimeDependency,
    machine::ApplyConfiguration,
    machine::Bootstrap,
    machine::Container,
    machine::CpUsInfo,
    machine::DiskStats,
    machine::DiskUsageInfo,
    machine::EtcdAlarm,
    machine::EtcdAlarmDisarm,
    machine::EtcdDefragment,
    machine::EtcdDowngradeCancel,
    machine::EtcdDowngradeEnable,
    machine::EtcdDowngradeValidate,
    machine::EtcdForfeitLeadership,
    machine::EtcdLeaveCluster,
    machine::EtcdMembers,
    machine::EtcdRecover,
    machine::EtcdRemoveMemberById,
    machine::EtcdStatus,
    machine::Event,
    machine::FileInfo,
    machine::GenerateClientConfiguration,
    machine::Hostname,
    machine::ImageListResponse,
    machine::ImagePull,
    machine::LoadAvg,
    machine::LogsContainer,
    machine::Memory,
    machine::MetaDelete,
    machine::MetaWrite,
    machine::Mounts,
    machine::Netstat,
    machine::NetworkDeviceStats,
    machine::Process,
    machine::Reboot,
    machine::Reset,
    machine::Restart,
    machine::Rollback,
    machine::ServiceList,
    machine::ServiceRestart,
    machine::ServiceStart,
    machine::ServiceStop,
    machine::Shutdown,
    machine::Stats,
    machine::SystemStat,
    machine::Upgrade,
    machine::Version,
    storage::BlockDeviceWipe,
    storage::Disks,
    time::Time,
);
