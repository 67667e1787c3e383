//! The disks of a machine.
//!
//! Purpose: one list from two sources: resources since 1.8, the storage service before. Must not know: which disk is meant
//! for what.

use serde::{Deserialize, Serialize};

use super::TalosError;
use super::cosi::Kind;
use super::link::Link;

/// A disk as the machine sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// `/dev/sda`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// `QEMU HARDDISK` …
    pub model: String,
    /// Empty where there is none.
    pub serial: String,
    /// `virtio`, `sata` …; empty where the machine doesn't tell.
    pub transport: String,
    /// Whether it can be written.
    pub readonly: bool,
    /// Whether it is a CD drive, cloud-init's among them.
    pub cdrom: bool,
    /// Whether Talos is installed on it.
    pub system: bool,
}

#[derive(Deserialize)]
struct DiskSpec {
    dev_path: String,
    #[serde(default)]
    size: u64,
    #[serde(default)]
    model: String,
    #[serde(default)]
    serial: String,
    #[serde(default)]
    transport: String,
    #[serde(default)]
    readonly: bool,
    #[serde(default)]
    cdrom: bool,
}

#[derive(Deserialize)]
struct SystemDiskSpec {
    #[serde(rename = "devPath", default)]
    dev_path: String,
}

impl Link {
    /// All disks, by path; loop devices and the like are left out.
    pub(super) async fn disks(&self) -> Result<Vec<Disk>, TalosError> {
        let mut disks = match self.list(Kind::DISK).await {
            Ok(resources) => {
                let system = match self.get(Kind::SYSTEM_DISK, "system-disk").await? {
                    Some(resource) => resource.spec::<SystemDiskSpec>()?.dev_path,
                    None => String::new(),
                };
                let mut disks = Vec::new();
                for resource in &resources {
                    let spec: DiskSpec = resource.spec()?;
                    let virtual_device = ["/dev/loop", "/dev/dm-", "/dev/zram", "/dev/ram", "/dev/md"]
                        .iter()
                        .any(|prefix| spec.dev_path.starts_with(prefix));
                    if !virtual_device {
                        disks.push(Disk {
                            system: spec.dev_path == system,
                            path: spec.dev_path,
                            size: spec.size,
                            model: spec.model,
                            serial: spec.serial,
                            transport: spec.transport,
                            readonly: spec.readonly,
                            cdrom: spec.cdrom,
                        });
                    }
                }
                disks
            }
            Err(TalosError::UnknownResource { .. }) => self.disks_before_1_8().await?,
            Err(error) => return Err(error),
        };
        disks.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(disks)
    }

    async fn disks_before_1_8(&self) -> Result<Vec<Disk>, TalosError> {
        let answer = self.answer("Disks", self.storage().disks(())).await?;
        let disks = self.only("Disks", answer.messages)?.disks;
        let to_disk = |disk: crate::talos::proto::storage::Disk| Disk {
            cdrom: disk.device_name.starts_with("/dev/sr"),
            path: disk.device_name,
            size: disk.size,
            model: disk.model,
            serial: disk.serial,
            transport: String::new(),
            readonly: disk.readonly,
            system: disk.system_disk,
        };
        Ok(disks.into_iter().map(to_disk).collect())
    }
}
