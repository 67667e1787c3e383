//! Quantities of Kubernetes: `250m`, `1.5`, `512Mi`, and how they are written once they were added up
//! (kubernetes/apimachinery, pkg/api/resource, `Quantity`).

use std::cmp::Ordering;
use std::fmt;
use std::ops::Add;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;
const DECIMAL: [(&str, i128); 9] = [
    ("E", 1_000_000_000_000_000_000 * NANO),
    ("P", 1_000_000_000_000_000 * NANO),
    ("T", 1_000_000_000_000 * NANO),
    ("G", 1_000_000_000 * NANO),
    ("M", 1_000_000 * NANO),
    ("k", 1_000 * NANO),
    ("", NANO),
    ("m", NANO / 1_000),
    ("u", NANO / 1_000_000),
];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// How a quantity is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Form {
    #[default]
    Decimal,
    Binary,
}

/// A quantity, in billionths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    nanos: i128,
    form: Form,
}

impl Amount {
    /// So many.
    pub fn count(number: usize) -> Self {
        Self { nanos: i128::try_from(number).unwrap_or(i128::MAX / NANO) * NANO, form: Form::Decimal }
    }

    /// What a value says, a text or a number.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(text) => Self::parse(text),
            Value::Number(number) => Self::parse(&number.to_string()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let at = text.find(|letter: char| !letter.is_ascii_digit() && !".+-".contains(letter)).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let binary = BINARY.iter().position(|one| *one == unit).filter(|power| *power > 0);
        let (factor, form) = match (binary, unit) {
            (Some(power), _) => (NANO << (10 * power), Form::Binary),
            (None, "n") => (1, Form::Decimal),
            (None, unit) => match DECIMAL.iter().find(|(one, _)| *one == unit) {
                Some((_, factor)) => (*factor, Form::Decimal),
                None => (NANO * 10_i128.checked_pow(unit.strip_prefix(['e', 'E'])?.parse().ok()?)?, Form::Decimal),
            },
        };
        let (sign, digits) = match number.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, number.trim_start_matches('+')),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
        let all: i128 = format!("{whole}{part}").parse().ok()?;
        let scaled = all.checked_mul(factor)?;
        // What is less than a billionth counts as one.
        Some(Self { nanos: sign * (scaled / scale + i128::from(scaled % scale != 0)), form })
    }

    /// What is more than another one; never less than nothing.
    #[must_use]
    pub fn beyond(self, other: Self) -> Self {
        Self { nanos: (self.nanos - other.nanos).max(0), form: self.form }
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.nanos.partial_cmp(&other.nanos)
    }
}

impl Add for Amount {
    type Output = Self;

    /// Written as the first one is, unless that is nothing.
    fn add(self, other: Self) -> Self {
        let form = if self.nanos == 0 { other.form } else { self.form };
        Self { nanos: self.nanos.saturating_add(other.nanos), form }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.form == Form::Binary && self.nanos % NANO == 0 && self.nanos.abs() >= 1024 * NANO {
            let (mut number, mut power) = (self.nanos / NANO, 0);
            while number % 1024 == 0 && power + 1 < BINARY.len() {
                (number, power) = (number / 1024, power + 1);
            }
            return write!(f, "{number}{}", BINARY[power]);
        }
        if self.nanos == 0 {
            return f.write_str("0");
        }
        match DECIMAL.iter().find(|(_, factor)| self.nanos % factor == 0) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.nanos / factor),
            None => write!(f, "{}n", self.nanos),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_written_as_short_as_they_can_be() {
        for (given, written) in [
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("1.5", "1500m"),
            ("1000", "1k"),
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("0.5Gi", "512Mi"),
            ("100Ki", "100Ki"),
            ("1e3", "1k"),
            ("3E", "3E"),
            ("0", "0"),
            ("0Mi", "0"),
            ("7n", "7n"),
            ("-2", "-2"),
        ] {
            assert_eq!(Amount::parse(given).unwrap().to_string(), written, "{given}");
        }
        assert_eq!(Amount::parse("x"), None);
        let sum = Amount::default() + Amount::parse("512Mi").unwrap() + Amount::parse("512Mi").unwrap();
        assert_eq!(sum.to_string(), "1Gi");
        assert_eq!(Amount::count(1).beyond(Amount::count(3)), Amount::default());
    }
}
