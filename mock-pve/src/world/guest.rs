//! The guest that plays in VMs that aren't Talos machines.
//!
//! Purpose: a disk whose first sector says so boots into a minimal system: an agent after a few seconds, a clean
//! shutdown when asked. Any other disk boots nothing: the VM runs, has no agent and ignores the power button. Must not
//! know: Talos. Start at [`run`].

use std::io::Read as _;
use std::path::Path;

use super::power::{Boot, Power};
use super::{GuestInfo, GuestInterface, World};

const MARK: &[u8] = b"mock-pve guest\0";

/// A first sector that boots the minimal system.
pub(super) fn boot_sector() -> Vec<u8> {
    let mut sector = vec![0_u8; 512];
    sector[..MARK.len()].copy_from_slice(MARK);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn boots(disk: &Path) -> bool {
    let mut head = [0_u8; MARK.len()];
    std::fs::File::open(disk).and_then(|mut file| file.read_exact(&mut head)).is_ok() && head == *MARK
}

/// Whether a disk boots something else: it ends its first sector as bootable ones do.
pub(super) fn boots_another(disk: &Path) -> bool {
    let mut sector = [0_u8; 512];
    let read = std::fs::File::open(disk).and_then(|mut file| file.read_exact(&mut sector));
    read.is_ok() && sector[510..] == [0x55, 0xaa] && !sector.starts_with(MARK)
}

/// Plays the guest of every VM that boots such a disk, as long as the world lives.
pub(super) fn run(world: &World) {
    let weak = world.downgrade();
    let mut power = world.subscribe_power();
    tokio::spawn(async move {
        while let Some(event) = power.recv().await {
            let Some(world) = weak.upgrade() else { return };
            match event {
                Power::On(boot) => {
                    if boot.disk.as_deref().is_some_and(boots) {
                        tokio::spawn(up(world, *boot));
                    }
                }
                Power::Shutdown { vmid } => {
                    let ours = world.boot(vmid).and_then(|boot| boot.disk).is_some_and(|disk| boots(&disk));
                    if ours {
                        tokio::spawn(async move {
                            world.clock().sleep(3.0).await;
                            world.set_guest(vmid, None);
                            world.guest_powered_off(vmid);
                        });
                    }
                }
                Power::Off { vmid } => world.set_guest(vmid, None),
            }
        }
    });
}

async fn up(world: World, boot: Boot) {
    world.console(boot.vmid, "guest: booting");
    let Some(pid) = world.pid_of(boot.vmid) else { return };
    world.clock().sleep(4.0).await;
    if world.pid_of(boot.vmid) != Some(pid) {
        return;
    }
    let mut interfaces = vec![GuestInterface {
        name: "lo".to_owned(),
        mac: "00:00:00:00:00:00".to_owned(),
        addresses: ["127.0.0.1/8", "::1/128"].iter().filter_map(|text| text.parse().ok()).collect(),
    }];
    for (nic, number) in boot.nics.iter().zip(0..) {
        let lease = world.first_address(nic).map(|lease| lease.address);
        let fallback = format!("10.0.2.{}/24", 15 + number).parse().ok();
        let local = "fe80::be24:11ff:fe00:1/64".parse().ok();
        interfaces.push(GuestInterface {
            name: format!("eth{number}"),
            mac: nic.mac.to_ascii_lowercase(),
            addresses: lease.or(fallback).into_iter().chain(local).collect(),
        });
    }
    world.open_shell(boot.vmid);
    world.set_guest(boot.vmid, Some(GuestInfo { agent: true, hostname: "guest".to_owned(), interfaces }));
}
