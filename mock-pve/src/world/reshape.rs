//! Disks that grow, move and change their owner.
//!
//! Purpose: resize, move, reassign; one verb a file. Must not know: requests. Rules after Proxmox VE 8.4
//! (PVE/API2/Qemu.pm, `resize_vm`, `move_vm_disk`).

mod place;
mod reassign;
mod resize;

pub use self::place::Move;
pub use self::reassign::Reassign;
pub use self::resize::Resize;

const MODIFIED: &str = "detected modified configuration - file changed by other user? Try again.\n";
