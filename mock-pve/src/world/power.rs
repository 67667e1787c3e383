//! The cable between a virtual machine and the guest in it.
//!
//! Purpose: the hypervisor's rules (`world`) say when a VM is switched on or asked to stop; the guests (`machine`)
//! say when they have switched themselves off. Neither knows more of the other than this file.

use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;

/// What the hypervisor does to a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Power {
    /// Power on: the guest boots from its disk.
    On(Box<Boot>),
    /// The power button was pressed, or the agent was asked to shut down. The guest answers, if it does, with
    /// `World::guest_powered_off`.
    Shutdown {
        /// The VM.
        vmid: u32,
    },
    /// The plug was pulled. The guest is gone at once.
    Off {
        /// The VM.
        vmid: u32,
    },
}

/// All that a guest can see of its hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The PVE host it runs on.
    pub node: String,
    /// The VM's number.
    pub vmid: u32,
    /// The VM's name.
    pub name: String,
    /// What the cloud-init drive says of the guest's name; `None` without such a drive, or when somebody else's user data
    /// is on it.
    pub cloud_name: Option<String>,
    /// SMBIOS UUID, lower case.
    pub uuid: String,
    /// The NICs in order (`net0` first): MAC in upper case, bridge, whether the cable is plugged in.
    pub nics: Vec<Nic>,
    /// The raw file behind the disk that the boot order names first; `None` boots nothing.
    pub disk: Option<PathBuf>,
    /// PVE key of that disk, `scsi0`; decides the device name in the guest (`/dev/sda`, `/dev/vda`).
    pub disk_key: String,
    /// `ovmf` or `seabios`.
    pub bios: String,
    /// CPU model as configured (`host`, `kvm64` …): Talos needs x86-64-v2.
    pub cpu: String,
    /// SCSI controller as configured; Talos has no driver for the default `lsi`.
    pub scsihw: String,
    /// Virtual CPUs.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Whether Secure Boot keys are enrolled (`pre-enrolled-keys=1`).
    pub secure_boot: bool,
}

/// One network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Hardware address, upper case.
    pub mac: String,
    /// The bridge it is plugged into.
    pub bridge: String,
    /// `link_down` is not set.
    pub link_up: bool,
    /// What the cloud-init drive says of its address; `None`: there is no such drive.
    pub cloud_init: Option<CloudInit>,
}

/// What a cloud-init drive says of a network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudInit {
    /// Nothing: the card has no address.
    Nothing,
    /// `ip=dhcp`
    Dhcp,
    /// `ip=ADDRESS/PREFIX`
    Static {
        /// The address.
        address: IpNet,
        /// The router.
        gateway: Option<IpAddr>,
    },
}
