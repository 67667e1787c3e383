//! Scalars as the real tool's types read and write them.
//!
//! Must not know: where they stand. Errors say what is wanted and never quote the value, which may be secret.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use super::shapes::Scalar;
use super::{address, duration, size};
use crate::talos::config::Url;
use crate::talos::config::yaml::{Number, Sort, Value};

/// Base64 as Go reads it: what the last letter says beyond the last byte is passed over.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

impl Scalar {
    /// What an absent scalar of this kind is, where the real tool writes it nevertheless.
    pub(in crate::talos::config) fn empty(self) -> Value {
        match self {
            Self::Bool => false.into(),
            Self::Integer { .. } | Self::DiskSize => Value::from(0_u32),
            Self::Mode => Number::octal("0").map_or(Value::Null, Value::Number),
            Self::Duration => Value::from("0s"),
            Self::OneOf(names) | Self::Numbered(names) => match names.split('|').next().unwrap_or_default() {
                name if is_choice(name) => Value::from(name),
                other => Value::Number(Number::nameless(other)),
            },
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
                Value::Bool(flag) => Ok(flag.is_on().into()),
                Value::Text(text) => old_bool(text).map(Value::from).ok_or_else(|| "must be true or false".to_owned()),
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
            // Read once before, and nothing was chosen.
            Self::OneOf(_) if matches!(&value, Value::Number(number) if number.sort() == Sort::Bare) => Ok(value),
            Self::PortRange => match &value {
                Value::Number(number) => match number.whole().and_then(|port| u16::try_from(port).ok()) {
                    Some(port) => Ok(port.into()),
                    None => self.read_text(number.raw().to_owned()),
                },
                _ => self.read_text(raw(&value)?),
            },
            _ => self.read_text(raw(&value)?),
        }
    }

    fn read_text(self, text: String) -> Result<Value, String> {
        if text.is_empty() && self.may_be_empty() {
            return Ok(Value::Text(text));
        }
        let or_else = |read: Option<String>, what: &str| read.map(Value::Text).ok_or_else(|| format!("must be {what}"));
        let kept = |fits: bool, text: &str, what: &str| or_else(fits.then(|| text.to_owned()), what);
        match self {
            Self::Trimmed => Ok(text.trim_start_matches(['\t', '\n', '\x0b', '\x0c', '\r']).into()),
            Self::Duration => or_else(duration::duration(&text), "a duration such as 30s or 1h30m"),
            Self::Address => or_else(address::address(&text), "an IP address"),
            Self::AddressPort => or_else(address::address_with_port(&text), "an address with a port"),
            Self::Prefix => or_else(address::prefix(&text), "a prefix such as 10.0.0.0/8"),
            Self::Mac => or_else(address::hardware(&text), "a hardware address such as bc:24:11:00:12:01"),
            Self::Size => kept(size::is_size(&text), &text, "a size such as 10GiB"),
            Self::Share => {
                let fits = if text.contains('%') { size::is_share(&text) } else { size::is_size(&text) };
                kept(fits, &text, "a size such as 10GiB, or a percentage")
            }
            Self::DiskCondition => {
                let text = text.trim();
                let what = "a size such as 100GB, with >=, <=, ==, > or < before it";
                kept(size::is_condition(text), text, what)
            }
            Self::DiskSize => match size::bytes(&text) {
                Some(bytes) => Ok(size::disk_size(bytes)),
                None => Err("must be a size such as 100 GB".to_owned()),
            },
            Self::Url => match Url::parse(&text) {
                Ok(url) => Ok(url.to_string().into()),
                Err(error) => Err(format!("must be a URL: {error}")),
            },
            Self::Base64 => match LENIENT.decode(text.replace(['\r', '\n'], "")) {
                Ok(bytes) => Ok(STANDARD.encode(bytes).into()),
                Err(_) => Err("must be base64".to_owned()),
            },
            Self::PortRange => ports(&text).ok_or_else(|| "must be a port, or a range such as 50000-50001".to_owned()),
            Self::Table => or_else(table(&text), "a routing table: main, local or a number from 1 to 252"),
            Self::OneOf(names) => or_else(one_of(names, &text), &format!("one of {}", listed(names))),
            Self::Numbered(names) => or_else(numbered(names, &text), &format!("one of {}", listed(names))),
            _ => Ok(Value::Text(text)),
        }
    }

    /// Whether an empty text stands for nothing.
    fn may_be_empty(self) -> bool {
        !matches!(
            self,
            Self::Duration
                | Self::DiskSize
                | Self::DiskCondition
                | Self::PortRange
                | Self::Table
                | Self::OneOf(_)
                | Self::Numbered(_)
        )
    }
}

/// The text a scalar was written as: what a string takes.
pub(super) fn raw(value: &Value) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.raw().to_owned()),
        Value::Bool(flag) => Ok(flag.raw().to_owned()),
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

/// A range of ports, as a number where it is one port.
fn ports(text: &str) -> Option<Value> {
    let (low, high) = text.split_once('-')?;
    let (low, high) = (address::number(low)?, address::number(high)?);
    Some(if low == high { Value::from(low) } else { Value::Text(format!("{low}-{high}")) })
}

/// A routing table by its name: some of them are called by their number.
fn table(text: &str) -> Option<String> {
    let named = one_of("unspec|default|main|local", text);
    named.or_else(|| (1..=252_u8).map(|number| number.to_string()).find(|name| name == text))
}

/// Whether a name out of a list is one: a first one that is none is only written, where nothing was chosen.
fn is_choice(name: &str) -> bool {
    !name.ends_with(')')
}

fn choices(names: &str) -> impl Iterator<Item = &str> {
    names.split('|').filter(|name| is_choice(name))
}

fn listed(names: &str) -> String {
    choices(names).collect::<Vec<_>>().join(", ")
}

/// The one of these names that is meant, in whatever letter case.
fn one_of(names: &str, text: &str) -> Option<String> {
    let lower = text.to_lowercase();
    let names = || choices(names);
    names().find(|name| *name == text).or_else(|| names().find(|name| name.to_lowercase() == lower)).map(str::to_owned)
}

/// The one of these names that is meant, by itself or by its place among them; nothing stands for the first.
fn numbered(names: &str, text: &str) -> Option<String> {
    let named = names.split('|').find(|name| *name == text || text.is_empty());
    let place = || text.parse::<i8>().ok().and_then(|place| usize::try_from(place).ok());
    named.or_else(|| names.split('|').nth(place()?)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_written_in_the_form_of_the_real_tool() {
        let cases = [
            (Scalar::Duration, "90s", "1m30s"),
            (Scalar::Mac, "BC:24:11:00:12:01", "bc:24:11:00:12:01"),
            (Scalar::DiskSize, "100GB", "100 GB"),
            (Scalar::DiskSize, "1500 MB", "1.5 GB"),
            (Scalar::DiskSize, "18EB", "18 EB"),
            (Scalar::Size, "-10 GiB", "-10 GiB"),
            (Scalar::Share, "-50.5%", "-50.5%"),
            (Scalar::Share, "1_0%", "1_0%"),
            (Scalar::DiskCondition, " >= 4 GB ", ">= 4 GB"),
            (Scalar::DiskCondition, "x\n4GB", "x\n4GB"),
            (Scalar::PortRange, "50000-050001", "50000-50001"),
            (Scalar::Url, "HTTPS://a.b:6443/x", "https://a.b:6443/x"),
            (Scalar::Table, "Main", "main"),
            (Scalar::Table, "252", "252"),
            (Scalar::Base64, "YR==", "YQ=="),
            (Scalar::OneOf("off|Do53"), "dO53", "Do53"),
            (Scalar::Numbered("none|active"), "", "none"),
            (Scalar::Numbered("none|active"), "+1", "active"),
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
            (Scalar::Size, "--10"),
            (Scalar::Share, "101%"),
            (Scalar::Share, "5%GB"),
            (Scalar::DiskCondition, "> lots"),
            (Scalar::PortRange, "70000"),
            (Scalar::PortRange, "80 - 90"),
            (Scalar::Bool, "maybe"),
            (Scalar::OneOf("on|off"), "neither"),
            (Scalar::Numbered("none|active"), "NONE"),
            (Scalar::Numbered("none|active"), "2"),
            (Scalar::Table, "254"),
            (Scalar::Table, "01"),
            (Scalar::Url, "https://a b/"),
        ];
        for (scalar, given) in cases {
            let error = scalar.read(Value::from(given)).unwrap_err();
            assert!(error.starts_with("must be ") && !error.contains(given), "{given}: {error}");
        }
        for scalar in
            [Scalar::OneOf("on|off"), Scalar::Table, Scalar::PortRange, Scalar::DiskCondition, Scalar::Duration]
        {
            assert!(scalar.read(Value::from("")).is_err(), "{scalar:?}");
        }
        assert!(Scalar::Integer { least: 0, most: 10 }.read(Value::from(11_u32)).is_err());
    }
}
