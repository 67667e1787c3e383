//! `storage.StorageService`: the disks, in the older form.

use tonic::{Request, Response, Status};

use super::gate::{self, Need};
use super::node::Node;
use super::proto::storage as api;
use super::proto::storage::storage_service_server::StorageService;

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

    async fn block_device_wipe(
        &self,
        request: Request<api::BlockDeviceWipeRequest>,
    ) -> Result<Response<api::BlockDeviceWipeResponse>, Status> {
        let devices = &request.get_ref().devices;
        let check = |machine: &crate::world::machine::Machine| {
            if machine.see(|state| state.version().minor < 9) {
                return Err(Status::unimplemented("unknown method BlockDeviceWipe for service storage.StorageService"));
            }
            let own = device(machine).trim_start_matches("/dev/").to_owned();
            if let Some(wanted) = devices.iter().next() {
                let name = &wanted.device;
                if !name.starts_with(&own) {
                    return Err(Status::not_found(format!("blockdevice \"{name}\" not found")));
                }
                // All of the only disk is Talos' own.
                let configured = machine.see(|state| state.config.is_some());
                let volume = match name.strip_prefix(&own).unwrap_or_default() {
                    "" | "6" if configured => "EPHEMERAL",
                    "5" if configured => "STATE",
                    _ => "META",
                };
                let why = format!("blockdevice \"{name}\" is in use by volume \"{volume}\"");
                return Err(Status::failed_precondition(why));
            }
            Ok(api::BlockDeviceWipe::default())
        };
        let peer = gate::peer(&request)?;
        let messages =
            if peer.maintenance { vec![check(&self.here)?] } else { self.each(&request, Need::Admin, check)? };
        Ok(Response::new(api::BlockDeviceWipeResponse { messages }))
    }
}
