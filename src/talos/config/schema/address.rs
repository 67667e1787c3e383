//! Addresses as Go's `net/netip` and Talos' hardware addresses have them, in the form that they are written.
//!
//! Must not know: where they stand.

use std::net::IpAddr;

/// An address, one of IPv6 perhaps with a zone.
pub(super) fn address(text: &str) -> Option<String> {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let address: IpAddr = address.parse().ok()?;
    match zone {
        Some(zone) if address.is_ipv4() || zone.is_empty() => None,
        Some(zone) => Some(format!("{address}%{zone}")),
        None => Some(address.to_string()),
    }
}

/// An address with a port; one of IPv6 in brackets.
pub(super) fn address_with_port(text: &str) -> Option<String> {
    let (given, port) = text.rsplit_once(':')?;
    let port = number(port)?;
    let inner = given.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = address(inner.unwrap_or(given))?;
    match (inner, address.contains(':')) {
        (Some(_), true) => Some(format!("[{address}]:{port}")),
        (None, false) => Some(format!("{address}:{port}")),
        _ => None,
    }
}

/// An address without a zone, and how many bits of it are the network's.
pub(super) fn prefix(text: &str) -> Option<String> {
    let (address, bits) = text.rsplit_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let is_bare = bits == "0" || !bits.starts_with('0');
    let bits = number(bits).filter(|bits| is_bare && *bits <= most)?;
    Some(format!("{address}/{bits}"))
}

/// A hardware address: pairs of hex digits, of which colons between them are not a part.
pub(super) fn hardware(text: &str) -> Option<String> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    let fits = digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]).collect::<Vec<_>>().join(":"))
}

/// Digits only, without a sign.
pub(super) fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_as_go_does() {
        type Read = fn(&str) -> Option<String>;
        let cases: &[(Read, &str, Option<&str>)] = &[
            (address, "fd00:0:0::1", Some("fd00::1")),
            (address, "fe80::1%eth0", Some("fe80::1%eth0")),
            (address, "fe80::1%", None),
            (address, "1.2.3.4%eth0", None),
            (address, "01.2.3.4", None),
            (address, "10.0.0.0/8", None),
            (address_with_port, "1.2.3.4:080", Some("1.2.3.4:80")),
            (address_with_port, "[FD00:0::1]:80", Some("[fd00::1]:80")),
            (address_with_port, "[fe80::1%eth0]:80", Some("[fe80::1%eth0]:80")),
            (address_with_port, "[1.2.3.4]:80", None),
            (address_with_port, "::1:80", None),
            (address_with_port, "1.2.3.4:+80", None),
            (address_with_port, "1.2.3.4:65536", None),
            (address_with_port, "1.2.3.4:", None),
            (address_with_port, "1.2.3.4", None),
            (prefix, "fd00:0::/64", Some("fd00::/64")),
            (prefix, "10.0.0.1/0", Some("10.0.0.1/0")),
            (prefix, "10.0.0.1", None),
            (prefix, "10.0.0.1/33", None),
            (prefix, "10.0.0.1/08", None),
            (prefix, "10.0.0.1/+8", None),
            (prefix, "fe80::1%eth0/64", None),
            (hardware, "BC:24:11:00:12:01", Some("bc:24:11:00:12:01")),
            (hardware, "bc2411001201", Some("bc:24:11:00:12:01")),
            (hardware, "BC-24-11-00-12-01", None),
            (hardware, "bc:24:1", None),
        ];
        for (read, given, written) in cases {
            assert_eq!(read(given).as_deref(), *written, "{given}");
        }
    }
}
