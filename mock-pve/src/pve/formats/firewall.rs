//! Words of firewall rules and options (pve-firewall 5, PVE/Firewall.pm).
//!
//! Must not know: rules.

use super::refuse;

/// Protocols whose connections the kernel can follow.
const HELPERS: [&str; 9] = ["amanda", "ftp", "irc", "netbios-ns", "pptp", "sane", "sip", "snmp", "tftp"];

pub(super) fn helpers(text: &str) -> Result<(), String> {
    refuse(!text.ends_with(','), "extraneous commas in list\n")?;
    let mut names = text.split(',').filter(|_| !text.is_empty());
    match names.find(|name| !HELPERS.contains(name)) {
        Some(name) => Err(format!("unknown helper {name} at /usr/share/perl5/PVE/Firewall.pm line 1207.\n")),
        None => Ok(()),
    }
}
