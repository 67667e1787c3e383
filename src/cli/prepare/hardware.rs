//! The hardware of VMs, before the profile's own keys.
//!
//! Must not know: which VMs there are.

use std::fmt::Write as _;

use crate::cli::session::Session;
use crate::plan::step::Hardware;

/// Hardware of all VMs, before the site's and the profile's own keys.
const HARDWARE: &str = include_str!("../../../templates/vm-hardware.json");

/// The extension without which a guest agent is never there.
const AGENT: &str = "siderolabs/qemu-guest-agent";

/// The hardware that all VMs have before the site's and the profile's own keys.
pub(super) fn preset() -> Hardware {
    serde_json::from_str(HARDWARE).expect("it is part of the program, and a test reads it")
}

pub(super) fn nic(session: &Session) -> String {
    let network = &session.profile.value.network;
    let defaults = &session.site.defaults;
    let mut nic = format!("virtio,bridge={}", network.bridge.as_ref().unwrap_or(&defaults.bridge));
    if let Some(vlan) = network.vlan.or(defaults.vlan) {
        let _ = write!(nic, ",tag={vlan}");
    }
    if let Some(mtu) = network.mtu {
        let _ = write!(nic, ",mtu={mtu}");
    }
    nic
}

pub(super) fn hardware(session: &Session, extensions: &[String]) -> Hardware {
    let defaults = &session.site.defaults;
    let mut hardware = preset();
    for (key, value) in [
        ("bios", &defaults.bios),
        ("machine", &defaults.machine),
        ("cpu", &defaults.cpu),
        ("scsihw", &defaults.scsihw),
        ("ostype", &defaults.ostype),
    ] {
        hardware.insert(key.to_owned(), value.clone());
    }
    // An agent that is configured and not there makes every shutdown wait for it.
    if defaults.agent && extensions.iter().any(|name| name == AGENT) {
        hardware.insert("agent".to_owned(), "enabled=1".to_owned());
    }
    hardware
}
