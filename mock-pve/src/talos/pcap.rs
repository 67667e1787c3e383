//! What passes on a machine's interfaces, in libpcap's format.

use futures_util::stream::{self, StreamExt as _};
use tonic::Status;
use tonic::codegen::BoxStream;

use super::proto::{common, machine as api};
use crate::world::machine::Machine;

/// How a capture begins (pcap-savefile(5)): magic number, version 2.4, two words of 0, bytes of a packet at most, Ethernet.
const HEADER: [u8; 24] = [0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
/// Where the bytes at most stand, and how many they are unless somebody says so.
const AT_MOST: std::ops::Range<usize> = 16..20;
const FRAME: u32 = 4096;

/// A capture on an interface that goes on until the caller leaves. Nothing passes there that could be shown.
pub(super) fn capture(
    machine: &Machine,
    request: &api::PacketCaptureRequest,
) -> Result<BoxStream<common::Data>, Status> {
    let name = &request.interface;
    if name != "lo" && !machine.see(|state| state.links.iter().any(|link| link.name == *name)) {
        return Err(Status::not_found(format!("interface \"{name}\" not found")));
    }
    let most = if request.snap_len == 0 { FRAME } else { request.snap_len };
    let mut bytes = HEADER.to_vec();
    bytes[AT_MOST].copy_from_slice(&most.to_le_bytes());
    let header = common::Data { bytes, ..Default::default() };
    Ok(stream::once(async { Ok(header) }).chain(stream::pending()).boxed())
}
