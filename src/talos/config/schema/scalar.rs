//! Scalars as the real tool's types read and write them.
//!
//! Must not know: where they stand. Errors say what is wanted and never quote the value, which may be secret.

use std::net::{IpAddr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::shapes::Scalar;
use crate::talos::config::Url;
use crate::talos::config::yaml::{Number, Sort, Value};

impl Scalar {
    /// What an absent scalar of this kind is, where the real tool writes it nevertheless.
    pub(super) fn empty(self) -> Value {
        match self {
            Self::Bool => Value::Bool(false),
            Self::Integer { .. } | Self::DiskSize => Value::from(0_u32),
            Self::Mode => Number::octal("0").map_or(Value::Null, Value::Number),
            Self::Duration => Value::from("0s"),
            Self::OneOf(names) => Value::from(names.split('|').next().unwrap_or_default()),
            Self::Table => Value::from("unspec"),
            _ => Value::from(""),
        }
    }

    /// The value as the real tool would write it again.
    ///
    /// # Errors
    /// What is wanted instead, a lower-case fragment.
    pub(super) fn read(self, value: Value) -> Result<Value, String> {
        match self {
            Self::Bool => match &value {
                Value::Bool(_) => Ok(value),
                Value::Text(text) => old_bool(text).map(Value::Bool).ok_or_else(|| "must be true or false".to_owned()),
                other => Err(format!("must be true or false, this is {}", other.kind())),
            },
            Self::Integer { least, most } => match &value {
                Value::Number(number) => match number.whole() {
                    Some(given) if (least..=most).contains(&given) => {
                        Ok(Number::parse(&given.to_string()).map_or(value, Value::Number))
                    }
                    Some(_) => Err(format!("must be a number from {least} to {most}")),
                    None => Err("must be a whole number".to_owned()),
                },
                other => Err(format!("must be a number, this is {}", other.kind())),
            },
            Self::Mode => match &value {
                // Read once before: it is in its form already.
                Value::Number(number) if number.normal().starts_with("0o") => Ok(value),
                Value::Number(number) => number
                    .whole()
                    .and_then(|mode| Number::octal(&mode.to_string()))
                    .map(Value::Number)
                    .ok_or_else(|| "must be a file mode such as 0o644".to_owned()),
                Value::Text(_) => Err("must be a file mode such as 0o644, without quotes".to_owned()),
                other => Err(format!("must be a file mode such as 0o644, this is {}", other.kind())),
            },
            Self::Duration if matches!(value, Value::Number(_)) => match &value {
                Value::Number(number) if number.sort() == Sort::Whole && number.whole() == Some(0) => Ok(self.empty()),
                _ => Err("must be a duration with a unit, such as 30s".to_owned()),
            },
            _ => self.read_text(raw(&value)?),
        }
    }

    fn read_text(self, text: String) -> Result<Value, String> {
        if text.is_empty() && !matches!(self, Self::Duration | Self::DiskSize) {
            return Ok(Value::Text(text));
        }
        let wanted = |what: &str| format!("must be {what}");
        Ok(match self {
            Self::Trimmed => Value::from(text.trim_start_matches(['\t', '\n', '\x0b', '\x0c', '\r'])),
            Self::Duration => Value::Text(duration(&text).ok_or_else(|| wanted("a duration such as 30s or 1h30m"))?),
            Self::Address => {
                let (address, zone) = text.split_once('%').map_or((&text[..], None), |(a, z)| (a, Some(z)));
                let address: IpAddr = address.parse().map_err(|_| wanted("an IP address"))?;
                Value::Text(zone.map_or_else(|| address.to_string(), |zone| format!("{address}%{zone}")))
            }
            Self::AddressPort => {
                let address: SocketAddr = text.parse().map_err(|_| wanted("an address with a port"))?;
                Value::Text(address.to_string())
            }
            Self::Prefix => {
                let what = "a prefix such as 10.0.0.0/8";
                let (address, bits) = text.split_once('/').ok_or_else(|| wanted(what))?;
                let address: IpAddr = address.parse().map_err(|_| wanted(what))?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                let plain = bits == "0" || !bits.starts_with('0');
                let bits = bits.parse::<u8>().ok().filter(|bits| plain && *bits <= most).ok_or_else(|| wanted(what))?;
                Value::Text(format!("{address}/{bits}"))
            }
            Self::Mac => {
                let parts: Vec<&str> = text.split([':', '-']).collect();
                let good = matches!(parts.len(), 6 | 8 | 20)
                    && parts.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()));
                if !good {
                    return Err(wanted("a hardware address such as bc:24:11:00:12:01"));
                }
                Value::Text(parts.join(":").to_lowercase())
            }
            Self::Size => {
                bytes(text.trim_start_matches('-')).ok_or_else(|| wanted("a size such as 10GiB"))?;
                Value::Text(text)
            }
            Self::Share => {
                let good = match text.split_once('%') {
                    Some((part, "")) => part.parse::<u64>().is_ok_and(|part| part <= 100),
                    Some(_) => false,
                    None => bytes(text.trim_start_matches('-')).is_some(),
                };
                if !good {
                    return Err(wanted("a size such as 10GiB, or a percentage"));
                }
                Value::Text(text)
            }
            Self::DiskCondition => {
                let text = text.trim();
                let size = [">=", "<=", "==", ">", "<"].iter().find_map(|sign| text.strip_prefix(sign)).unwrap_or(text);
                bytes(size.trim()).ok_or_else(|| wanted("a size such as 100GB, with >=, <=, ==, > or < before it"))?;
                Value::from(text)
            }
            Self::DiskSize => disk_size(bytes(&text).ok_or_else(|| wanted("a size such as 100 GB"))?),
            Self::Url => {
                Value::Text(Url::parse(&text).map_err(|error| wanted(&format!("a URL: {error}")))?.to_string())
            }
            Self::Base64 => {
                let text = text.replace(['\r', '\n'], "");
                STANDARD.decode(&text).map_err(|_| wanted("base64"))?;
                Value::Text(text)
            }
            Self::PortRange => ports(&text).ok_or_else(|| wanted("a port, or a range such as 50000-50001"))?,
            Self::Table => Value::Text(table(&text).ok_or_else(|| wanted("a routing table: main, local or a number"))?),
            Self::OneOf(names) => {
                if !names.split('|').any(|name| name == text) {
                    return Err(wanted(&format!("one of {}", names.replace('|', ", "))));
                }
                Value::Text(text)
            }
            _ => Value::Text(text),
        })
    }
}

/// The text a scalar was written as: what a string takes.
pub(super) fn raw(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.raw().to_owned()),
        Value::Bool(value) => Ok(value.to_string()),
        other => Err(format!("must be a string, this is {}", other.kind())),
    }
}

/// YAML 1.1's booleans, where a boolean is wanted.
fn old_bool(text: &str) -> Option<bool> {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Some(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Some(false),
        _ => None,
    }
}

/// Go's durations, in the form Go writes: `90s` is `1m30s`.
fn duration(text: &str) -> Option<String> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some("0s".to_owned());
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        total += if whole.is_empty() { 0 } else { whole.parse::<i128>().ok()? * scale };
        let mut unit = scale;
        for digit in fraction.chars() {
            unit /= 10;
            total += i128::from(digit.to_digit(10)?) * unit;
        }
        rest = tail;
    }
    (total <= i128::from(i64::MAX)).then(|| shown_duration(if negative { -total } else { total }))
}

fn shown_duration(nanoseconds: i128) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let all = nanoseconds.unsigned_abs();
    let decimal = |value: u128, digits: usize, unit: &str| {
        let scale = 10_u128.pow(u32::try_from(digits).unwrap_or_default());
        let fraction = format!("{:0digits$}", value % scale);
        let fraction = fraction.trim_end_matches('0');
        let dot = if fraction.is_empty() { "" } else { "." };
        format!("{}{dot}{fraction}{unit}", value / scale)
    };
    let text = match all {
        0 => "0s".to_owned(),
        1..1_000 => format!("{all}ns"),
        1_000..1_000_000 => decimal(all, 3, "µs"),
        1_000_000..1_000_000_000 => decimal(all, 6, "ms"),
        _ => {
            let (minutes, seconds) = (all / 60_000_000_000, all % 60_000_000_000);
            let seconds = decimal(seconds, 9, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A number of bytes with an optional unit, as github.com/dustin/go-humanize reads it.
fn bytes(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let scale: f64 = match unit.trim().to_lowercase().as_str() {
        "" | "b" => 1.0,
        "kb" | "k" => 1e3,
        "mb" | "m" => 1e6,
        "gb" | "g" => 1e9,
        "tb" | "t" => 1e12,
        "pb" | "p" => 1e15,
        "eb" | "e" => 1e18,
        "kib" | "ki" => 1024.0,
        "mib" | "mi" => 1_048_576.0,
        "gib" | "gi" => 1_073_741_824.0,
        "tib" | "ti" => 1_099_511_627_776.0,
        "pib" | "pi" => 1_125_899_906_842_624.0,
        "eib" | "ei" => 1_152_921_504_606_846_976.0,
        _ => return None,
    };
    let value = number.replace(',', "").parse::<f64>().ok()? * scale;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is too large is refused before")]
    (value < LARGEST).then_some(value as u64)
}

/// 2^64: no number of bytes is as large.
const LARGEST: f64 = 18_446_744_073_709_551_616.0;

/// Bytes in a unit of thousands where that says exactly the same, else their number.
fn disk_size(bytes_wanted: u64) -> Value {
    let number = || Number::parse(&bytes_wanted.to_string()).map_or(Value::Null, Value::Number);
    if bytes_wanted == 0 || !bytes_wanted.is_multiple_of(1000) {
        return number();
    }
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let power = bytes_wanted.ilog(1000);
    let Some(unit) = units.get(power as usize) else { return number() };
    let scale = 1000_u64.pow(power);
    // One decimal below ten, none above, as the real library shows sizes.
    let tenths = (bytes_wanted * 10 + scale / 2) / scale;
    let shown = if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", (bytes_wanted + scale / 2) / scale)
    };
    if bytes(&shown) == Some(bytes_wanted) { Value::Text(shown) } else { number() }
}

fn ports(text: &str) -> Option<Value> {
    let port = |text: &str| text.trim().parse::<u16>().ok();
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (port(low)?, port(high)?),
        None => (port(text)?, port(text)?),
    };
    Some(if low == high { Value::from(low) } else { Value::Text(format!("{low}-{high}")) })
}

fn table(text: &str) -> Option<String> {
    let named = match text {
        "unspec" | "0" => "unspec",
        "default" | "253" => "default",
        "main" | "254" => "main",
        "local" | "255" => "local",
        number => return number.parse::<u32>().ok().map(|number| number.to_string()),
    };
    Some(named.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_written_in_the_form_of_the_real_tool() {
        let cases = [
            (Scalar::Duration, "90s", "1m30s"),
            (Scalar::Duration, "168h", "168h0m0s"),
            (Scalar::Duration, "1.5h", "1h30m0s"),
            (Scalar::Duration, "1500ms", "1.5s"),
            (Scalar::Address, "fd00:0:0::1", "fd00::1"),
            (Scalar::Prefix, "fd00:0::/64", "fd00::/64"),
            (Scalar::Mac, "BC-24-11-00-12-01", "bc:24:11:00:12:01"),
            (Scalar::DiskSize, "100GB", "100 GB"),
            (Scalar::DiskSize, "1500 MB", "1.5 GB"),
            (Scalar::Share, "50%", "50%"),
            (Scalar::PortRange, "50000-50001", "50000-50001"),
            (Scalar::Url, "HTTPS://a.b:6443/x", "https://a.b:6443/x"),
            (Scalar::Table, "254", "main"),
        ];
        for (scalar, given, written) in cases {
            assert_eq!(scalar.read(Value::from(given)).unwrap().as_text(), Some(written), "{given}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_without_the_value() {
        let cases = [
            (Scalar::Duration, "1 week"),
            (Scalar::Address, "10.0.0.0/8"),
            (Scalar::Prefix, "10.0.0.1"),
            (Scalar::Prefix, "10.0.0.0/33"),
            (Scalar::Mac, "bc-24"),
            (Scalar::Size, "lots"),
            (Scalar::DiskCondition, "> lots"),
            (Scalar::PortRange, "70000"),
            (Scalar::Bool, "maybe"),
            (Scalar::OneOf("a|b"), "c"),
            (Scalar::Url, "https://a b/"),
        ];
        for (scalar, given) in cases {
            let error = scalar.read(Value::from(given)).unwrap_err();
            assert!(error.starts_with("must be ") && !error.contains(given), "{given}: {error}");
        }
        assert!(Scalar::Integer { least: 0, most: 10 }.read(Value::from(11_u32)).is_err());
    }
}
