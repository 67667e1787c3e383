//! Named formats of values.
//!
//! Purpose: does a text look like a VMID, a DNS name, a MAC …, with the original's words where it doesn't (Proxmox VE
//! 8.4, PVE/JSONSchema.pm and friends). Must not know: parameters. Start at [`check_format`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::world::PveVersion;
use crate::world::property::parse_size;
use crate::world::{firewall, roles};

/// Formats that need more than their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// A CPU model, and what of it a VM may change in that release.
    Cpu(PveVersion),
}

/// CPU models that come with the release.
pub(super) const CPU_MODELS: &[(&str, &str)] = &[
    ("486", "GenuineIntel"),
    ("Broadwell", "GenuineIntel"),
    ("Broadwell-IBRS", "GenuineIntel"),
    ("Broadwell-noTSX", "GenuineIntel"),
    ("Broadwell-noTSX-IBRS", "GenuineIntel"),
    ("Cascadelake-Server", "GenuineIntel"),
    ("Cascadelake-Server-noTSX", "GenuineIntel"),
    ("Cascadelake-Server-v2", "GenuineIntel"),
    ("Cascadelake-Server-v4", "GenuineIntel"),
    ("Cascadelake-Server-v5", "GenuineIntel"),
    ("Conroe", "GenuineIntel"),
    ("Cooperlake", "GenuineIntel"),
    ("Cooperlake-v2", "GenuineIntel"),
    ("EPYC", "AuthenticAMD"),
    ("EPYC-Genoa", "AuthenticAMD"),
    ("EPYC-IBPB", "AuthenticAMD"),
    ("EPYC-Milan", "AuthenticAMD"),
    ("EPYC-Milan-v2", "AuthenticAMD"),
    ("EPYC-Rome", "AuthenticAMD"),
    ("EPYC-Rome-v2", "AuthenticAMD"),
    ("EPYC-Rome-v3", "AuthenticAMD"),
    ("EPYC-Rome-v4", "AuthenticAMD"),
    ("EPYC-v3", "AuthenticAMD"),
    ("EPYC-v4", "AuthenticAMD"),
    ("GraniteRapids", "GenuineIntel"),
    ("Haswell", "GenuineIntel"),
    ("Haswell-IBRS", "GenuineIntel"),
    ("Haswell-noTSX", "GenuineIntel"),
    ("Haswell-noTSX-IBRS", "GenuineIntel"),
    ("Icelake-Client", "GenuineIntel"),
    ("Icelake-Client-noTSX", "GenuineIntel"),
    ("Icelake-Server", "GenuineIntel"),
    ("Icelake-Server-noTSX", "GenuineIntel"),
    ("Icelake-Server-v3", "GenuineIntel"),
    ("Icelake-Server-v4", "GenuineIntel"),
    ("Icelake-Server-v5", "GenuineIntel"),
    ("Icelake-Server-v6", "GenuineIntel"),
    ("IvyBridge", "GenuineIntel"),
    ("IvyBridge-IBRS", "GenuineIntel"),
    ("KnightsMill", "GenuineIntel"),
    ("Nehalem", "GenuineIntel"),
    ("Nehalem-IBRS", "GenuineIntel"),
    ("Opteron_G1", "AuthenticAMD"),
    ("Opteron_G2", "AuthenticAMD"),
    ("Opteron_G3", "AuthenticAMD"),
    ("Opteron_G4", "AuthenticAMD"),
    ("Opteron_G5", "AuthenticAMD"),
    ("Penryn", "GenuineIntel"),
    ("SandyBridge", "GenuineIntel"),
    ("SandyBridge-IBRS", "GenuineIntel"),
    ("SapphireRapids", "GenuineIntel"),
    ("SapphireRapids-v2", "GenuineIntel"),
    ("Skylake-Client", "GenuineIntel"),
    ("Skylake-Client-IBRS", "GenuineIntel"),
    ("Skylake-Client-noTSX-IBRS", "GenuineIntel"),
    ("Skylake-Client-v4", "GenuineIntel"),
    ("Skylake-Server", "GenuineIntel"),
    ("Skylake-Server-IBRS", "GenuineIntel"),
    ("Skylake-Server-noTSX-IBRS", "GenuineIntel"),
    ("Skylake-Server-v4", "GenuineIntel"),
    ("Skylake-Server-v5", "GenuineIntel"),
    ("Westmere", "GenuineIntel"),
    ("Westmere-IBRS", "GenuineIntel"),
    ("athlon", "AuthenticAMD"),
    ("core2duo", "GenuineIntel"),
    ("coreduo", "GenuineIntel"),
    ("host", "default"),
    ("kvm32", "default"),
    ("kvm64", "default"),
    ("max", "default"),
    ("pentium", "GenuineIntel"),
    ("pentium2", "GenuineIntel"),
    ("pentium3", "GenuineIntel"),
    ("phenom", "AuthenticAMD"),
    ("qemu32", "default"),
    ("qemu64", "default"),
    ("x86-64-v2", "default"),
    ("x86-64-v2-AES", "default"),
    ("x86-64-v3", "default"),
    ("x86-64-v4", "default"),
];

/// Flags of a CPU that a VM may switch.
const CPU_FLAGS: &[&str] = &[
    "pcid",
    "spec-ctrl",
    "ibpb",
    "ssbd",
    "virt-ssbd",
    "amd-ssbd",
    "amd-no-ssb",
    "pdpe1gb",
    "md-clear",
    "hv-tlbflush",
    "hv-evmcs",
    "aes",
];

/// Whether a VM's CPU exists and has only what a VM's may have; `Err` is the original's text (PVE/QemuServer/CPUConfig.pm,
/// `validate_vm_cpu_conf`).
pub(super) fn check_cpu(pve: PveVersion, given: &BTreeMap<String, String>) -> Result<(), String> {
    let Some(model) = given.get("cputype") else { return Err("CPU is missing cputype\n".to_owned()) };
    if let Some(custom) = model.strip_prefix("custom-") {
        return Err(format!("Custom cputype '{custom}' not found\n"));
    }
    if !CPU_MODELS.iter().any(|(name, _)| name == model) {
        return Err(format!("Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)\n"));
    }
    let known: Vec<&str> =
        if pve == PveVersion::V9 { [&["nested-virt"], CPU_FLAGS].concat() } else { CPU_FLAGS.to_vec() };
    let flags = given.get("flags").map_or("", String::as_str);
    let mut names = flags.split(';').filter(|flag| !flag.is_empty()).map(|flag| &flag[1..]);
    refuse(
        names.all(|name| known.contains(&name)),
        format!("VM-specific CPU flags must be a subset of: {}\n", known.join(", ")),
    )?;
    refuse(!given.contains_key("reported-model"), "Property 'reported-model' not allowed in VM-specific CPU config.\n")
}

fn only(text: &str, more: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
}

fn label(text: &str) -> bool {
    only(text, "-") && !text.starts_with('-') && !text.ends_with('-')
}

fn dns_name(text: &str) -> bool {
    text.split('.').all(label)
}

fn vmid(text: &str) -> bool {
    (3..=9).contains(&text.len()) && !text.starts_with('0') && text.chars().all(|c| c.is_ascii_digit())
}

fn storage_id(text: &str) -> bool {
    text.len() > 1
        && only(text, "-_.")
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
        && u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0)
}

fn cidr(text: &str, least: u8) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().ok().filter(|prefix| (least..=most).contains(prefix)).map(|_| address)
}

fn volume_id(text: &str) -> bool {
    text.split_once(':').is_some_and(|(storage, name)| storage_id(storage) && !name.is_empty())
}

fn boot_device(text: &str) -> bool {
    crate::world::drive::numbered(text).is_some_and(|(stem, number)| match stem {
        "ide" => number <= 3,
        "sata" => number <= 5,
        "scsi" => number <= 30,
        "virtio" | "hostpci" => number <= 15,
        "net" => number <= 31,
        "usb" => number <= 13,
        _ => false,
    })
}

fn email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, host)| {
        only(name, "._%+-=") && dns_name(host) && !text.contains(' ') && !name.starts_with('.')
    })
}

fn realm(text: &str) -> bool {
    text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && only(text, ".-_")
}

fn user_id(text: &str) -> Result<(), String> {
    if text.len() < 3 {
        return Err(format!("user name '{text}' is too short\n"));
    }
    if text.len() > 64 {
        return Err(format!("user name '{text}' is too long ({} > 64)\n", text.len()));
    }
    let name = |name: &str| !name.is_empty() && !name.contains([':', '/']) && !name.contains(char::is_whitespace);
    let fits = text.rsplit_once('@').is_some_and(|(user, of)| name(user) && realm(of));
    refuse(fits, format!("value '{text}' does not look like a valid user name\n"))
}

/// The first bytes of a MAC.
fn mac_prefix(text: &str) -> bool {
    let text = text.strip_suffix(':').unwrap_or(text);
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() <= 3
        && parts.iter().all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
        && u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0)
}

/// A node, and how much it is wanted.
fn node_priority(text: &str) -> bool {
    let (node, priority) = text.split_once(':').unwrap_or((text, "0"));
    label(node) && !priority.is_empty() && priority.chars().all(|c| c.is_ascii_digit())
}

/// `1`, a target, or `source:target`.
fn pair(text: &str, base: &str) -> Result<(), String> {
    let parts = match text.split_once(':') {
        Some((source, target)) if !source.is_empty() && !target.is_empty() && !target.contains(':') => {
            vec![source, target]
        }
        _ => vec![text],
    };
    let mut ids = parts.into_iter().filter(|_| text != "1");
    ids.try_for_each(|id| check_format(base, id))
        .map_err(|error| format!("entry '{text}' contains invalid ID - {error}\n\n"))
}

/// The guest and a number.
fn replication_id(text: &str) -> Result<(), String> {
    let number =
        |text: &str| -> Option<u64> { text.chars().all(|c| c.is_ascii_digit()).then(|| text.parse().ok()).flatten() };
    match text.split_once('-').and_then(|(guest, job)| Some((number(guest)?, number(job)?))) {
        Some((guest, _)) if guest >= 100 => Ok(()),
        Some(_) => Err(format!("invalid replication job id '{text}' (guest IDs < 100 are reserved)\n")),
        None => Err(format!("invalid replication job id '{text}'\n")),
    }
}

/// The name of a zone or a network in it.
fn sdn_id(kind: &str, text: &str) -> Result<(), String> {
    let fits = text.len() > 1 && text.starts_with(|c: char| c.is_ascii_alphabetic()) && only(text, "");
    refuse(fits, format!("{kind} ID '{text}' contains illegal characters\n"))?;
    refuse(text.len() <= 8, format!("{kind} ID '{text}' can't be more length than 8 characters\n"))
}

/// `eth0`, `vmbr0.7`, `eth0:1`.
fn interface(text: &str) -> bool {
    let (name, number) = match text.find([':', '.']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    (2..=21).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && only(name, "_")
        && number.is_none_or(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

fn vlans(text: &str) -> Result<(), String> {
    let tag = |text: &str| match text.parse::<u32>() {
        Ok(tag) if (2..=4094).contains(&tag) => Ok(tag),
        Ok(tag) => Err(format!("invalid VLAN tag '{tag}'\n")),
        Err(_) => Err(format!("invalid VLAN configuration '{text}'\n")),
    };
    match text.split_once('-') {
        None => tag(text).map(|_| ()),
        Some((from, to)) if tag(from)? < tag(to)? => Ok(()),
        Some(_) => Err(format!("VLAN range must go from lower to higher tag '{text}'\n")),
    }
}

/// Days and times as systemd writes them, roughly: what is no such thing at all is refused.
fn calendar_event(text: &str) -> bool {
    const WORDS: &[&str] =
        &["minutely", "hourly", "daily", "weekly", "monthly", "yearly", "annually", "quarterly", "semiannually", "utc"];
    const DAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let numbers = |part: &str| {
        part.chars().all(|c| c.is_ascii_digit() || ":*/,.-~".contains(c))
            && part.split([':', '-', ',', '.', '/']).all(|piece| {
                piece.is_empty() || piece == "*" || piece.parse::<u32>().is_ok_and(|number| number < 10_000)
            })
            && !(part.contains(':') && part.split(':').next().and_then(|hour| hour.parse::<u32>().ok()) > Some(23))
    };
    let days = |part: &str| part.split([',', '.']).filter(|day| !day.is_empty()).all(|day| DAYS.contains(&day));
    let text = text.to_ascii_lowercase();
    let mut parts = text.split_whitespace().peekable();
    parts.peek().is_some() && parts.all(|part| WORDS.contains(&part) || days(part) || numbers(part))
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
        "pve-poolid" if text.split('/').count() > 3 => {
            Err(format!("pool name '{text}' nested too deeply (max levels = 3)\n"))
        }
        "pve-poolid" => refuse(
            text.split('/').all(|part| only(part, "-_.")),
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
            let alias = format == "IPorCIDRorAlias" && firewall::check_addresses(text) == Ok(None);
            let plain = text.parse::<IpAddr>().is_ok() || text.parse::<ipnet::IpNet>().is_ok();
            refuse(alias || plain, "value does not look like a valid IP address or CIDR network\n")
        }
        "pve-fw-addr-spec" => firewall::check_addresses(text).map(|_| ()),
        "pve-fw-sport-spec" => firewall::check_ports(text, false),
        "pve-fw-dport-spec" => firewall::check_ports(text, true),
        "pve-fw-protocol-spec" => firewall::check_protocol(text),
        "disk-size" => refuse(
            text.starts_with(|c: char| c.is_ascii_digit()) && parse_size(text).is_some(),
            format!("value does not look like a valid disk size: {text}\n"),
        ),
        "email" => refuse(email(text), "value does not look like a valid email address\n"),
        "email-or-username" => {
            refuse(email(text) || only(text, "-_."), "value does not look like a valid email address or user name\n")
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
            refuse(calendar_event(text), format!("invalid calendar event '{text}' - parse error\n"))
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
        "pve-sdn-zone-id" => sdn_id("zone", text),
        "pve-sdn-vnet-id" => sdn_id("vnet", text),
        "pve-sdn-subnet-id" => {
            let cidr = text.split_once('-').map_or_else(|| text.to_owned(), |(_, cidr)| cidr.replacen('-', "/", 1));
            let cidr = if text.contains('/') { text } else { &cidr };
            let fits = cidr.contains('/') && cidr.parse::<ipnet::IpNet>().is_ok();
            refuse(fits, "value does not look like a valid CIDR network\n")
        }
        "pve-cpuset" => refuse(
            !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || "-,".contains(c)),
            "unable to parse cpuset option\n",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_refuses_in_its_own_words() {
        for (format, fits, refused, text) in [
            ("pve-userid", "a@pve", "ab", "user name 'ab' is too short\n"),
            ("pve-userid", "a@b@pve", "no at", "value 'no at' does not look like a valid user name\n"),
            ("pve-userid", "x!y@pam", "x@1st", "value 'x@1st' does not look like a valid user name\n"),
            ("pve-realm", "my.realm", "1st", "value does not look like a valid realm\n"),
            ("mac-prefix", "02:AB:", "03:AB", "value is not a valid unicast MAC address prefix\n"),
            ("ipv4mask", "255.255.240.0", "255.0.255.0", "value does not look like a valid IP netmask\n"),
            (
                "storage-pair-list",
                "1",
                "local:no!",
                "entry 'local:no!' contains invalid ID - storage ID 'no!' contains illegal characters\n\n\n",
            ),
            ("pve-ha-group-node-list", "pve1,pve2:2", "pve1:x", "value does not look like a valid ha group node\n"),
            ("pve-day-of-week-list", "mon,sun", "monday", "invalid day 'monday'\n"),
            ("pve-replication-job-id", "100-0", "100", "invalid replication job id '100'\n"),
            (
                "pve-sdn-zone-id",
                "inner",
                "toolongname",
                "zone ID 'toolongname' can't be more length than 8 characters\n",
            ),
            ("pve-sdn-vnet-id", "net1", "a-b", "vnet ID 'a-b' contains illegal characters\n"),
        ] {
            assert_eq!(check_format(format, fits), Ok(()), "{format}: {fits}");
            assert_eq!(check_format(format, refused), Err(text.to_owned()), "{format}: {refused}");
        }
    }
}
