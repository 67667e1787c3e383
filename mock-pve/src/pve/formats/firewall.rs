//! Words of firewall rules and options (pve-firewall 5, PVE/Firewall.pm).
//!
//! Must not know: rules.

use super::refuse;

/// Protocols whose connections the kernel can follow.
const HELPERS: [&str; 9] = ["amanda", "ftp", "irc", "netbios-ns", "pptp", "sane", "sip", "snmp", "tftp"];

/// Types of ICMP, of both versions of IP.
const ICMP_TYPES: &[&str] = &[
    "any",
    "echo-reply",
    "destination-unreachable",
    "network-unreachable",
    "host-unreachable",
    "protocol-unreachable",
    "port-unreachable",
    "fragmentation-needed",
    "source-route-failed",
    "network-unknown",
    "host-unknown",
    "network-prohibited",
    "host-prohibited",
    "TOS-network-unreachable",
    "TOS-host-unreachable",
    "communication-prohibited",
    "host-precedence-violation",
    "precedence-cutoff",
    "source-quench",
    "redirect",
    "network-redirect",
    "host-redirect",
    "TOS-network-redirect",
    "TOS-host-redirect",
    "echo-request",
    "router-advertisement",
    "router-solicitation",
    "time-exceeded",
    "ttl-zero-during-transit",
    "ttl-zero-during-reassembly",
    "parameter-problem",
    "ip-header-bad",
    "required-option-missing",
    "timestamp-request",
    "timestamp-reply",
    "address-mask-request",
    "address-mask-reply",
    "no-route",
    "beyond-scope",
    "address-unreachable",
    "failed-policy",
    "reject-route",
    "packet-too-big",
    "bad-header",
    "unknown-header-type",
    "unknown-option",
    "neighbor-solicitation",
    "neighbour-solicitation",
    "neighbor-advertisement",
    "neighbour-advertisement",
];

pub(super) fn helpers(text: &str) -> Result<(), String> {
    refuse(!text.ends_with(','), "extraneous commas in list\n")?;
    let mut names = text.split(',').filter(|_| !text.is_empty());
    match names.find(|name| !HELPERS.contains(name)) {
        Some(name) => Err(format!("unknown helper {name} at /usr/share/perl5/PVE/Firewall.pm line 1207.\n")),
        None => Ok(()),
    }
}

pub(super) fn icmp_type(text: &str) -> Result<(), String> {
    refuse(text.is_empty() || ICMP_TYPES.contains(&text), format!("invalid icmp-type value '{text}'\n"))
}
