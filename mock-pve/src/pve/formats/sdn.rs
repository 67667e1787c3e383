//! Names and numbers of software-defined networks (libpve-network 0.11, PVE/Network/SDN).
//!
//! Must not know: networks that exist.

use super::name::only;
use super::network::cidr;
use super::refuse;

/// `zone` … may have letters and digits, a controller dashes and underscores within, too.
fn id(kind: &str, text: &str, within: &str, most: Option<usize>) -> Result<(), String> {
    let fits = text.len() > 1
        && only(text, within)
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric());
    refuse(fits, format!("{kind} ID '{text}' contains illegal characters\n"))?;
    match most.filter(|most| text.len() > *most) {
        Some(most) => Err(format!("{kind} ID '{text}' can't be more length than {most} characters\n")),
        None => Ok(()),
    }
}

fn number(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_digit()) && text.parse::<u32>().is_ok()
}

fn hex(text: &str, length: usize) -> bool {
    text.len() == length && text.chars().all(|c| c.is_ascii_hexdigit())
}

/// `49.0001.1921.6800.1002.00`
fn isis_net(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    match parts.as_slice() {
        [first, middle @ .., last] => {
            hex(first, 2) && hex(last, 2) && (3..=9).contains(&middle.len()) && middle.iter().all(|part| hex(part, 4))
        }
        _ => false,
    }
}

/// `10.0.0.0/24`, or `zone-10.0.0.0-24`.
fn subnet(text: &str) -> bool {
    let mut parts = text.split('-').skip(1);
    let mut dashed = || Some(format!("{}/{}", parts.next()?, parts.next()?));
    let range = if text.contains('/') { Some(text.to_owned()) } else { dashed() };
    range.is_some_and(|range| cidr(&range, 8).is_some())
}

/// Whether a text has one of the formats of the software-defined networks.
pub(super) fn check(format: &str, text: &str) -> Result<(), String> {
    match format {
        "pve-sdn-zone-id" => id("zone", text, "", Some(8)),
        "pve-sdn-vnet-id" => id("vnet", text, "", Some(8)),
        "pve-sdn-controller-id" => id("controller", text, "_-", Some(64)),
        "pve-sdn-dns-id" => id("dns", text, "", None),
        "pve-sdn-ipam-id" => id("ipam", text, "", None),
        "pve-sdn-subnet-id" => refuse(subnet(text), "value does not look like a valid CIDR network\n"),
        "pve-sdn-bgp-rt" => {
            let fits = text.split_once(':').is_some_and(|(system, id)| number(system) && number(id));
            refuse(fits, "value does not look like a valid bgp route-target\n")
        }
        "pve-sdn-isis-net" => refuse(isis_net(text), "value does not look like a valid isis net\n"),
        _ => Ok(()),
    }
}
