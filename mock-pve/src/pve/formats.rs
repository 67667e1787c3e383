//! Named formats of values.
//!
//! Purpose: does a text look like a VMID, a DNS name, a MAC …, with the original's words where it doesn't (Proxmox VE
//! 8.4, PVE/JSONSchema.pm and friends). Must not know: parameters. Start at [`check_format`].

mod cpu;
mod firewall;
mod name;
mod network;
mod sdn;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::world::PveVersion;
use crate::world::calendar::Calendar;
use crate::world::property::parse_size;
use crate::world::{firewall as rules, roles};
use name::{
    boot_device, certificate_name, dns_name, email, email_user, folder_override, label, node_priority, only, pair,
    realm, replication_id, storage_id, user_id, vmid, volume_id,
};
use network::{cidr, interface, mac, mac_prefix, portal, vlans};

pub(super) use cpu::{CPU_MODELS, check_cpu};

/// Formats that need more than their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A CPU model, and what of it a VM may change in that release.
    Cpu(PveVersion),
    /// How many backups are kept.
    Retention,
}

/// Whoever keeps everything counts nothing (PVE/Storage/Plugin.pm, `validate_prune_backups`).
pub(super) fn check_retention(given: &BTreeMap<String, String>) -> Result<(), String> {
    let everything = given.get("keep-all").is_some_and(|flag| flag == "1");
    let counted = given.iter().any(|(key, value)| key != "keep-all" && value.parse::<u64>().is_ok_and(|most| most > 0));
    refuse(!(everything && counted), "keep-all cannot be set together with other options.\n")
}

fn refuse(fits: bool, text: impl Into<String>) -> Result<(), String> {
    if fits { Ok(()) } else { Err(text.into()) }
}

#[expect(clippy::too_many_lines, reason = "a table")]
/// Whether a text has a format; `Err` is what follows `invalid format - `.
pub(super) fn check_format(format: &str, text: &str) -> Result<(), String> {
    if let Some(base) = format.strip_suffix("-opt") {
        return if text.is_empty() { Ok(()) } else { check_format(base, text) };
    }
    if let Some(base) = format.strip_suffix("-list") {
        let mut parts = text.split([',', ';', ' ', '\0', '\t', '\n']).filter(|part| !part.is_empty());
        return parts.try_for_each(|part| check_format(base, part));
    }
    match format {
        "pve-vmid" => refuse(vmid(text), "value does not look like a valid VM ID\n"),
        "pve-node" => refuse(label(text), "value does not look like a valid node name\n"),
        "pve-storage-id" => refuse(storage_id(text), format!("storage ID '{text}' contains illegal characters\n")),
        "pve-configid" => refuse(
            text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && only(text, "_-"),
            format!("invalid configuration ID '{text}'\n"),
        ),
        "dns-name" => refuse(dns_name(text), "value does not look like a valid DNS name\n"),
        // Slashes at the end make no level.
        "pve-poolid" if text.trim_end_matches('/').split('/').count() > 3 => {
            Err(format!("pool name '{text}' nested too deeply (max levels = 3)\n"))
        }
        "pve-poolid" => refuse(
            text.split('/').count() <= 3 && text.split('/').all(|part| only(part, "-_.")),
            format!("pool name '{text}' contains invalid characters\n"),
        ),
        "mac-addr" => refuse(mac(text), "value does not look like a valid unicast MAC address\n"),
        "ipv4" => refuse(text.parse::<Ipv4Addr>().is_ok(), "value does not look like a valid IPv4 address\n"),
        "ipv6" => refuse(text.parse::<Ipv6Addr>().is_ok(), "value does not look like a valid IPv6 address\n"),
        "ip" => refuse(text.parse::<IpAddr>().is_ok(), "value does not look like a valid IP address\n"),
        "CIDR" => refuse(cidr(text, 8).is_some(), "value does not look like a valid CIDR network\n"),
        "CIDRv4" => refuse(
            cidr(text, 8).is_some_and(|address| address.is_ipv4()),
            "value does not look like a valid IPv4 CIDR network\n",
        ),
        "CIDRv6" => refuse(
            cidr(text, 8).is_some_and(|address| address.is_ipv6()),
            "value does not look like a valid IPv6 CIDR network\n",
        ),
        "address" => {
            let fits = text.parse::<IpAddr>().is_ok() || dns_name(text);
            refuse(fits, format!("value does not look like a valid address: {text}\n"))
        }
        "pve-ipv4-config" => refuse(
            matches!(text, "dhcp" | "manual") || cidr(text, 8).is_some_and(|address| address.is_ipv4()),
            "value does not look like a valid ipv4 network configuration\n",
        ),
        "pve-ipv6-config" => refuse(
            matches!(text, "auto" | "dhcp" | "manual") || cidr(text, 8).is_some_and(|address| address.is_ipv6()),
            "value does not look like a valid ipv6 network configuration\n",
        ),
        "urlencoded" => refuse(
            text.chars().all(|c| c.is_ascii_alphanumeric() || "-%_.!~*'()".contains(c)),
            format!("invalid urlencoded string: {text}\n"),
        ),
        "pve-tag" => refuse(
            only(text, "_-+.") && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'),
            "invalid characters in tag\n",
        ),
        "pve-volume-id" => refuse(volume_id(text), format!("unable to parse volume ID '{text}'\n")),
        "pve-volume-id-or-absolute-path" => {
            refuse(text.starts_with('/') || volume_id(text), format!("unable to parse volume ID '{text}'\n"))
        }
        "pve-volume-id-or-qm-path" => refuse(
            matches!(text, "none" | "cdrom") || text.starts_with('/') || volume_id(text),
            format!("unable to parse volume ID '{text}'\n"),
        ),
        "pve-storage-content" => refuse(
            matches!(text, "images" | "rootdir" | "vztmpl" | "iso" | "backup" | "snippets" | "none" | "import"),
            format!("invalid content type '{text}'\n"),
        ),
        "pve-task-status-type" => refuse(
            matches!(text.to_ascii_lowercase().as_str(), "ok" | "error" | "warning" | "unknown"),
            format!("invalid status '{text}'\n"),
        ),
        "pve-userid" => user_id(text),
        "pve-groupid" => refuse(only(text, ".-_"), format!("group name '{text}' contains invalid characters\n")),
        "pve-roleid" => refuse(only(text, ".-_"), format!("role name '{text}' contains invalid characters\n")),
        "pve-realm" => refuse(realm(text), "value does not look like a valid realm\n"),
        "pve-priv" => refuse(roles::exists(PveVersion::V8, text), format!("invalid privilege '{text}'\n")),
        "pve-priv-9" => refuse(roles::exists(PveVersion::V9, text), format!("invalid privilege '{text}'\n")),
        "pve-bridge-id" => refuse(only(text, "-_."), format!("invalid bridge ID '{text}'\n")),
        "pve-qm-bootdev" => refuse(boot_device(text), format!("invalid boot device '{text}'\n")),
        "pve-qm-bootdisk" => refuse(crate::world::drive::is_drive(text), format!("invalid boot disk '{text}'\n")),
        "pve-phys-bits" => refuse(
            text == "host" || (text.len() <= 2 && text.parse::<u32>().is_ok_and(|bits| (8..=64).contains(&bits))),
            "value must be an integer between 8 and 64 or 'host'\n",
        ),
        "ldap-simple-attr" => {
            refuse(only(text, ""), format!("value '{text}' does not look like a simple ldap attribute name\n"))
        }
        "pve-hotplug-features" => refuse(
            text.is_empty()
                || matches!(text, "0" | "1")
                || text
                    .split([',', ';', ' '])
                    .filter(|part| !part.is_empty())
                    .all(|part| matches!(part, "network" | "disk" | "cpu" | "memory" | "usb" | "cloudinit")),
            format!("invalid hotplug feature '{text}'\n"),
        ),
        "pve-startup-order" => refuse(
            !matches!(text, "" | "0")
                && text.split(',').filter(|part| !part.trim().is_empty()).all(|part| {
                    let (key, value) = part.split_once('=').unwrap_or(("order", part));
                    let digits = !value.is_empty() && value.chars().all(|c| c.is_ascii_digit());
                    matches!(key, "order" | "up" | "down") && digits
                }),
            "unable to parse startup options\n",
        ),
        "IPorCIDR" | "IPorCIDRorAlias" => {
            let alias = format == "IPorCIDRorAlias" && rules::check_addresses(text) == Ok(None);
            let plain = text.parse::<IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok();
            refuse(alias || plain, "value does not look like a valid IP address or CIDR network\n")
        }
        "pve-fw-addr-spec" => rules::check_addresses(text).map(|_| ()),
        "pve-fw-sport-spec" => rules::check_ports(text, rules::Ports::Only),
        "pve-fw-dport-spec" => rules::check_ports(text, rules::Ports::OrIcmp),
        "pve-fw-protocol-spec" => rules::check_protocol(text),
        "disk-size" => refuse(
            text.starts_with(|c: char| c.is_ascii_digit()) && parse_size(text).is_some(),
            format!("value does not look like a valid disk size: {text}\n"),
        ),
        "email" => refuse(email(text), "value does not look like a valid email address\n"),
        "email-or-username" => {
            refuse(email(text) || email_user(text), "value does not look like a valid email address or user name\n")
        }
        "pve-iface" => refuse(interface(text), format!("invalid network interface name '{text}'\n")),
        "pve-vlan-id-or-range" => vlans(text),
        "pve-storage-path" => refuse(
            text.strip_prefix('/').is_some_and(|rest| rest.starts_with(|c| !";()".contains(c))),
            "value does not look like a valid absolute path\n",
        ),
        "pve-storage-server" => refuse(
            text.parse::<IpAddr>().is_ok() || dns_name(text),
            "value does not look like a valid server name or IP address\n",
        ),
        "pve-storage-vgname" => refuse(
            text.len() > 1
                && only(text, "-_.")
                && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                && text.ends_with(|c: char| c.is_ascii_alphanumeric()),
            format!("lvm name '{text}' contains illegal characters\n"),
        ),
        "pve-storage-options" => {
            refuse(!text.is_empty() && !text.contains(char::is_whitespace), format!("invalid options '{text}'\n"))
        }
        "pve-tokenid" => refuse(
            text.split_once('!').is_some_and(|(user, token)| {
                user.contains('@')
                    && token.len() > 1
                    && token.starts_with(|c: char| c.is_ascii_alphabetic())
                    && only(token, ".-_")
            }),
            format!("value '{text}' does not look like a valid token ID\n"),
        ),
        "pve-ha-resource-or-vm-id" | "pve-ha-resource-id" => {
            let number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
            let fits = (format == "pve-ha-resource-or-vm-id" && number(text))
                || text.split_once(':').is_some_and(|(kind, id)| {
                    !kind.is_empty()
                        && kind.chars().all(|c| c.is_ascii_lowercase())
                        && !id.is_empty()
                        && !id.contains(char::is_whitespace)
                });
            refuse(fits, "value does not look like a valid ha resource id\n")
        }
        "pve-calendar-event" => {
            let complaint = || format!("invalid calendar event '{text}' - {}\n\n", Calendar::complaint(text));
            Calendar::parse(text).map(|_| ()).ok_or_else(complaint)
        }
        "mac-prefix" => refuse(mac_prefix(text), "value is not a valid unicast MAC address prefix\n"),
        "ipv4mask" => refuse(
            text.parse::<Ipv4Addr>().is_ok_and(|mask| {
                let bits = u32::from(mask);
                bits.leading_ones() > 0 && bits.leading_ones() + bits.trailing_zeros() == 32
            }),
            "value does not look like a valid IP netmask\n",
        ),
        "storage-pair" => pair(text, "pve-storage-id"),
        "bridge-pair" => pair(text, "pve-bridge-id"),
        "pve-ha-node" => refuse(node_priority(text), "value does not look like a valid ha node\n"),
        "pve-ha-group-node" => refuse(node_priority(text), "value does not look like a valid ha group node\n"),
        "pve-day-of-week" => refuse(
            matches!(text, "mon" | "tue" | "wed" | "thu" | "fri" | "sat" | "sun"),
            format!("invalid day '{text}'\n"),
        ),
        "pve-replication-job-id" => replication_id(text),
        "graphite-path" => refuse(dns_name(text), "value does not look like a valid graphite path\n"),
        "pve-acme-domain" => {
            refuse(certificate_name(text, ""), format!("value '{text}' does not look like a valid domain name!\n"))
        }
        "pve-acme-alias" => {
            refuse(certificate_name(text, "_"), format!("value '{text}' does not look like a valid alias name!\n"))
        }
        "pve-dir-override" => folder_override(text),
        "pve-storage-path-in-property-string" => refuse(
            text.strip_prefix('/').is_some_and(|rest| rest.starts_with(|c| !";,=()".contains(c))),
            "Value does not look like a valid absolute path. These symbols are currently not allowed in path: ;,=()\n",
        ),
        "pve-storage-portal-dns" => refuse(portal(text), "value does not look like a valid portal address\n"),
        "pve-fw-conntrack-helper" => firewall::helpers(text),
        "pve-fw-icmp-type-spec" => rules::check_icmp_type(text),
        name if name.starts_with("pve-sdn-") => sdn::check(name, text),
        "pve-cpuset" => refuse(
            !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || "-,".contains(c)),
            "unable to parse cpuset option\n",
        ),
        _ => Ok(()),
    }
}
