//! The first seconds of a boot: what firmware, boot loader and kernel make of the disk and the hardware.

use std::time::SystemTime;

use super::config::NodeConfig;
use super::faults::Fault;
use super::life::{Boot, chain};
use super::state::Link;
use super::versions::{self, Version};
use crate::disk::{self, DiskError, Keep, Verified};

impl Boot {
    /// What the firmware and the boot loader look at.
    pub(super) async fn load(&self) -> Result<(Verified, Option<Vec<u8>>), String> {
        let hardware = self.machine.hardware().clone();
        if !runs_talos(&hardware.cpu) {
            return Err(format!("CPU model {} lacks x86-64-v2: the kernel halts", hardware.cpu));
        }
        let path = self.path();
        let read = move || -> Result<_, DiskError> { Ok((disk::read(&path)?, disk::load(&path, Keep::Config)?)) };
        let found = tokio::task::spawn_blocking(read).await.map_err(|error| error.to_string())?;
        let (disk, config) = found.map_err(|error| chain(&error))?;
        if hardware.secure_boot && !disk.marker.recipe.signed {
            return Err("Security Violation: the boot loader isn't signed, and Secure Boot is on".to_owned());
        }
        if hardware.disk_key.starts_with("scsi") && !hardware.scsihw.starts_with("virtio") {
            return Err(format!("the kernel has no driver for SCSI controller {}: no system disk", hardware.scsihw));
        }
        Ok((disk, config))
    }

    pub(super) fn kernel(&self, disk: &Verified) {
        let machine = &self.machine;
        let links = self.links(None);
        let uuid = machine.world().random_uuid();
        // Only what an upgrade brought is to be blamed.
        let sick = disk.meta.fallback.is_some() && machine.world().goes_wrong(machine.vmid(), Fault::NeverReady);
        machine.update(|state| {
            state.boot_id = uuid;
            state.booted = SystemTime::now();
            state.recipe = Some(disk.marker.recipe.clone());
            state.links = links;
            state.disk_bytes = disk.bytes;
            state.slot = disk.meta.boot;
            (state.sick, state.unproven) = (sick, disk.meta.fallback.is_some());
        });
        let recipe = &disk.marker.recipe;
        let kernel = versions::kernel(Version::of(&recipe.version));
        machine.says(&format!("Linux version {kernel} (Talos {})", recipe.version));
        machine.says(&format!("Command line: talos.platform=nocloud {}", recipe.kernel_args.join(" ")));
        machine.says(&format!("[talos] schematic {}", recipe.schematic));
    }

    /// The slot that booted before, if the one that doesn't boot is an upgrade's.
    pub(super) fn fall_back(&self) -> bool {
        let revert = || -> Result<bool, DiskError> {
            let mut meta = disk::meta(&self.path())?;
            let Some(old) = meta.fallback.take() else { return Ok(false) };
            let console = format!("error: boot entry {} failed, falling back to {}", meta.boot.as_str(), old.as_str());
            self.machine.world().console(self.machine.vmid(), &console);
            meta.boot = old;
            disk::store_meta(&self.path(), &meta)?;
            Ok(true)
        };
        revert().unwrap_or(false)
    }

    pub(super) fn unstage(&self) {
        let forgotten = disk::meta(&self.path()).and_then(|mut meta| {
            meta.staged = None;
            disk::store_meta(&self.path(), &meta)
        });
        if let Err(error) = forgotten {
            self.machine.says(&format!("[talos] {}", chain(&error)));
        }
    }

    /// The network cards with what is configured or leased.
    pub(super) fn links(&self, config: Option<&NodeConfig>) -> Vec<Link> {
        let machine = &self.machine;
        let number = machine.hardware().nics.iter().enumerate();
        number
            .map(|(number, nic)| {
                let name = format!("eth{number}");
                let fixed = config.map(|config| config.addresses(&name, &nic.mac)).unwrap_or_default();
                let dhcp = config.is_none_or(|config| config.dhcp(&name, &nic.mac));
                let lease = if dhcp && nic.link_up { machine.world().first_address(nic) } else { None };
                let gateway = lease.as_ref().and_then(|lease| lease.gateway);
                let gateway = gateway.or_else(|| machine.world().network(&nic.bridge)?.gateway);
                let addresses = fixed.into_iter().chain(lease.map(|lease| lease.address)).collect();
                let addresses = if nic.link_up { addresses } else { Vec::new() };
                Link { name, mac: nic.mac.to_lowercase(), up: nic.link_up, addresses, gateway }
            })
            .collect()
    }
}

/// CPU models with x86-64-v2, which Talos' kernel is built for. PVE's default kvm64 isn't one.
fn runs_talos(cpu: &str) -> bool {
    let model = cpu.split(',').next().unwrap_or_default().trim_start_matches("cputype=");
    ![
        "",
        "kvm32",
        "kvm64",
        "qemu32",
        "qemu64",
        "486",
        "pentium",
        "pentium2",
        "pentium3",
        "coreduo",
        "athlon",
        "core2duo",
        "Conroe",
        "Opteron_G1",
        "Opteron_G2",
        "phenom",
    ]
    .contains(&model)
}
