//! `storage.StorageService`: the disks, in the older form.

use tonic::{Request, Response, Status};

use super::gate::{self, Need};
use super::proto::storage as api;
use super::proto::storage::storage_service_server::StorageService;
use super::service::Node;

/// The system disk as the machine sees it.
pub(super) fn device(machine: &crate::world::machine::Machine) -> String {
    let virtio = machine.hardware().disk_key.starts_with("virtio");
    format!("/dev/{}", if virtio { "vda" } else { "sda" })
}

#[tonic::async_trait]
impl StorageService for Node {
    async fn disks(&self, request: Request<()>) -> Result<Response<api::DisksResponse>, Status> {
        let peer = gate::peer(&request)?;
        let answer = |machine: &crate::world::machine::Machine| {
            let hardware = machine.hardware();
            let disk = api::Disk {
                size: machine.see(|state| state.disk_bytes),
                model: "QEMU HARDDISK".to_owned(),
                device_name: device(machine),
                serial: format!("drive-{}", hardware.disk_key),
                r#type: api::disk::DiskType::Ssd.into(),
                system_disk: true,
                subsystem: "/sys/class/block".to_owned(),
                ..Default::default()
            };
            Ok(api::Disks { metadata: None, disks: vec![disk] })
        };
        let messages = if peer.maintenance {
            // Maintenance mode always had this one.
            vec![answer(&self.here)?]
        } else {
            self.each(&request, Need::Read, answer)?
        };
        Ok(Response::new(api::DisksResponse { messages }))
    }
}
