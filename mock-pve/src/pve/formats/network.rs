//! Addresses, interfaces and VLANs.
//!
//! Must not know: networks that exist.

use std::net::{IpAddr, Ipv6Addr};

use super::name::only;

pub(super) fn mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6
        && parts.iter().all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
        && u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0)
}

pub(super) fn cidr(text: &str, least: u8) -> Option<IpAddr> {
    let (address, prefix) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    prefix.parse::<u8>().ok().filter(|prefix| (least..=most).contains(prefix)).map(|_| address)
}

/// A host with a port or without: `name:1`, `[address]:1`, `fe80::1.1`.
pub(super) fn portal(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let with_port = |text: &str, separator: char, host: fn(&str) -> bool| {
        host(text) || text.rsplit_once(separator).is_some_and(|(before, port)| host(before) && number(port))
    };
    let name = |text: &str| only(text, "-.");
    let bracketed = |text: &str| {
        let inside = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        inside.is_some_and(|inside| only(inside, "-.") || inside.parse::<Ipv6Addr>().is_ok())
    };
    let plain = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    with_port(text, ':', name) || with_port(text, ':', bracketed) || with_port(text, '.', plain)
}

/// The first bytes of a MAC.
pub(super) fn mac_prefix(text: &str) -> bool {
    let text = text.strip_suffix(':').unwrap_or(text);
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() <= 3
        && parts.iter().all(|part| part.len() == 2 && part.chars().all(|c| c.is_ascii_hexdigit()))
        && u8::from_str_radix(parts[0], 16).is_ok_and(|first| first & 1 == 0)
}

/// `eth0`, `vmbr0.7`, `eth0:1`.
pub(super) fn interface(text: &str) -> bool {
    let (name, number) = match text.find([':', '.']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    (2..=21).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && only(name, "_")
        && number.is_none_or(|number| !number.is_empty() && number.chars().all(|c| c.is_ascii_digit()))
}

pub(super) fn vlans(text: &str) -> Result<(), String> {
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
