//! What scalars must look like, as Go's library and Talos' helpers take them.
//!
//! Must not know: where they stand.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipnet::IpNet;

use crate::talos::config::yaml::Value;

/// Whether this is an address, or a network.
pub(super) fn is_address_or_network(text: &str) -> bool {
    if text.contains('/') { text.parse::<IpNet>().is_ok() } else { text.parse::<IpAddr>().is_ok() }
}

/// Whether this is a filter: an address or a network, with `!` before what is left out.
pub(super) fn is_subnet_filter(text: &str) -> bool {
    is_address_or_network(text.strip_prefix('!').unwrap_or(text))
}

/// Whether this is a key of `WireGuard`, or of AES-256: 32 bytes in base64.
pub(super) fn is_32_bytes(text: &str) -> bool {
    STANDARD.decode(text).is_ok_and(|key| key.len() == 32)
}

/// Whether this is `host:port`.
pub(super) fn is_host_with_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || (host.starts_with('[') && host.ends_with(']')))
}

/// The text of a list's elements.
pub(super) fn texts(list: &[Value]) -> impl Iterator<Item = (usize, &str)> {
    list.iter().enumerate().filter_map(|(at, value)| Some((at, value.as_text()?)))
}

/// A whole number; 0 where there is none.
pub(super) fn number(value: Option<&Value>) -> i64 {
    match value {
        Some(Value::Number(number)) => number.normal().parse().unwrap_or_default(),
        _ => 0,
    }
}

/// Whether a key holds something.
pub(super) fn holds(value: &Value, key: &str) -> bool {
    match value.at(&[key]) {
        None | Some(Value::Null) => false,
        Some(Value::Text(text)) => !text.is_empty(),
        Some(Value::List(list)) => !list.is_empty(),
        Some(Value::Map(map)) => !map.is_empty(),
        Some(_) => true,
    }
}

/// A list below a value.
pub(super) fn list<'a>(value: &'a Value, path: &[&str]) -> &'a [Value] {
    value.at(path).and_then(Value::as_list).unwrap_or_default()
}

/// A text below a value; empty where there is none.
pub(super) fn text<'a>(value: &'a Value, path: &[&str]) -> &'a str {
    value.at(path).and_then(Value::as_text).unwrap_or_default()
}
