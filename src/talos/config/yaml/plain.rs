//! What a plain scalar means: the resolution rules of the YAML library that Talos reads and writes with.
//!
//! A mix of YAML 1.1 and 1.2 (gopkg.in/yaml.v3 resolve.go): `yes` and `on` are strings, `0777` and `0o777` are octal,
//! underscores may sit in numbers. Must not know: nodes or documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::civil::Date;

use super::{Flag, Number, Sort, Value};

/// What an unquoted scalar is.
pub(super) fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        _ => match (Flag::parse(text), date(text)) {
            (Some(flag), _) => Value::Bool(flag),
            (None, Some(normal)) => Value::Number(Number::date(text, normal)),
            (None, None) => Number::parse(text).map_or_else(|| Value::Text(text.to_owned()), Value::Number),
        },
    }
}

/// What a scalar behind the tag of a kind is, quoted or not; `None` when it is nothing of the kind.
pub(super) fn resolve_as(kind: &str, text: &str) -> Option<Value> {
    let value = resolve(text);
    match (kind, &value) {
        ("null", Value::Null) | ("bool", Value::Bool(_)) => Some(value),
        ("int", Value::Number(number)) => (number.sort() == Sort::Whole).then_some(value),
        ("timestamp", Value::Number(number)) => (number.sort() == Sort::Date).then_some(value),
        ("float", Value::Number(number)) => match number.sort() {
            Sort::Date | Sort::Bare => None,
            Sort::Fraction => Some(value),
            Sort::Whole => {
                number.normal().parse::<i64>().ok().and_then(|_| number.normal().parse().ok()).map(|whole| {
                    Value::Number(Number { raw: text.to_owned(), normal: float(whole), sort: Sort::Fraction })
                })
            }
        },
        _ => None,
    }
}

/// The text that a scalar in base64 stands for.
pub(super) fn binary(text: &str) -> Option<String> {
    let bytes = STANDARD.decode(text.replace(['\r', '\n'], "")).ok()?;
    String::from_utf8(bytes).ok()
}

/// The normal form of a number, or `None` when `raw` is none.
pub(super) fn number(raw: &str) -> Option<(String, Sort)> {
    let special = match raw {
        ".nan" | ".NaN" | ".NAN" => Some(".nan"),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(".inf"),
        "-.inf" | "-.Inf" | "-.INF" => Some("-.inf"),
        "-0" | "-0.0" => Some("-0"),
        _ => None,
    };
    if let Some(special) = special {
        return Some((special.to_owned(), Sort::Fraction));
    }
    if !raw.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    // Behind a leading point underscores are taken out between digits only.
    let bytes = raw.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let between = (0..bytes.len()).all(|at| bytes[at] != b'_' || (at > 0 && is_digit(at - 1) && is_digit(at + 1)));
    let text = if raw.starts_with('.') && !between { raw.to_owned() } else { raw.replace('_', "") };
    if let Some(value) = integer(&text) {
        return Some((value.to_string(), Sort::Whole));
    }
    let value = is_float(&text).then(|| text.parse::<f64>().ok()).flatten()?;
    // What is too large for a number is a text.
    value.is_finite().then(|| (float(value), Sort::Fraction))
}

/// A number without a fraction, as what it counts.
pub(super) fn whole(value: f64) -> Option<i128> {
    if value.fract() != 0.0 || value.abs() > 1e30 { None } else { format!("{value:.0}").parse().ok() }
}

fn integer(text: &str) -> Option<i128> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let parse = |digits: &str, radix| {
        digits
            .starts_with(|c: char| c.is_ascii_alphanumeric())
            .then(|| i128::from_str_radix(digits, radix).ok())
            .flatten()
    };
    let value = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        parse(hex, 16)
    } else if let Some(octal) = digits.strip_prefix("0o").or_else(|| digits.strip_prefix("0O")) {
        parse(octal, 8)
    } else if let Some(binary) = digits.strip_prefix("0b").or_else(|| digits.strip_prefix("0B")) {
        parse(binary, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        parse(&digits[1..], 8)
    } else {
        parse(digits, 10)
    }?;
    let value = if negative { -value } else { value };
    // With a sign there is one bit less.
    let most = if digits.len() == text.len() { i128::from(u64::MAX) } else { i128::from(i64::MAX) };
    (i128::from(i64::MIN)..=most).contains(&value).then_some(value)
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`
fn is_float(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mantissa_fits = match mantissa.split_once('.') {
        Some(("", fraction)) => !fraction.is_empty() && digits(fraction),
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_fits = exponent.is_none_or(|exponent| {
        let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
        !exponent.is_empty() && digits(exponent)
    });
    mantissa_fits && exponent_fits
}

/// Shortest form, with an exponent of two digits at least outside 10^-4 to 10^6 (strconv.FormatFloat 'g').
fn float(value: f64) -> String {
    general(format!("{value}"), &format!("{value:e}"))
}

/// The shortest form of a number that is kept in half as many bits: what a key of this number becomes on its way to JSON.
pub(super) fn short(normal: &str) -> String {
    let Ok(value) = normal.parse::<f64>() else { return normal.to_owned() };
    #[expect(clippy::cast_possible_truncation, reason = "what is lost is lost to the real tool too")]
    let value = value as f32;
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.to_owned();
    }
    general(format!("{value}"), &format!("{value:e}"))
}

/// One of two forms: without an exponent, or with one.
fn general(plain: String, scientific: &str) -> String {
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return plain };
    let Ok(power) = exponent.parse::<i32>() else { return plain };
    if (-4..6).contains(&power) {
        return plain;
    }
    let sign = if power < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", power.abs())
}

/// Whether a string can stand unquoted and still be read as a string, also by readers of YAML 1.1.
pub(super) fn stays_text(text: &str) -> bool {
    matches!(resolve(text), Value::Text(_)) && !is_old_bool(text) && !is_base60(text) && text != "<<"
}

/// How a text stands without quotes where only YAML 1.2 counts; `None` where that is how it stands anyway, or where it has
/// to have quotes.
pub(super) fn bare(text: &str) -> Option<String> {
    let is_text = matches!(resolve(text), Value::Text(_)) && (is_old_bool(text) || is_base60(text));
    let is_empty_lines = !text.is_empty() && text.bytes().all(|byte| byte == b'\n');
    if is_empty_lines { Some(format!("|+\n{text}")) } else { is_text.then(|| text.to_owned()) }
}

/// What YAML 1.1 took for a boolean.
pub(super) fn is_old_bool(text: &str) -> bool {
    matches!(
        text,
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF"
    )
}

/// `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`: `1:30` was a number once, and so was a MAC address of digits.
fn is_base60(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let text = match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') => whole,
        Some(_) => return false,
        None => text,
    };
    let mut parts = text.split(':');
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    first.starts_with(|c: char| c.is_ascii_digit())
        && first.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
        && !rest.is_empty()
        && rest.iter().all(|part| match part.as_bytes() {
            [unit] => unit.is_ascii_digit(),
            [ten, unit] => (b'0'..=b'5').contains(ten) && unit.is_ascii_digit(),
            _ => false,
        })
}

/// A date, or a date with a time (`2001-12-14`, `2001-12-14T21:59:43Z`, `2001-12-14 21:59:43.10`), as RFC 3339 has it.
fn date(text: &str) -> Option<String> {
    let (day, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
        None => (text, None),
    };
    let mut parts = day.split('-');
    let (year, month, date, None) = (parts.next()?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, parts.next())
    else {
        return None;
    };
    let year = digits(year, 4).filter(|_| year.len() == 4)?;
    let day = Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(date).ok()?).ok()?;
    let Some((mark, time)) = time else { return Some(format!("{day}T00:00:00Z")) };
    // With a space there is no zone, with a T there has to be one.
    let (clock, zone) = if mark == " " { (time, "Z") } else { time.split_at(time.find(['Z', '+', '-'])?) };
    let (clock, fraction) = clock.split_once(['.', ',']).map_or((clock, None), |(clock, rest)| (clock, Some(rest)));
    let mut parts = clock.split(':');
    let (hour, minute, second, None) =
        (digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, digits(parts.next()?, 2)?, parts.next())
    else {
        return None;
    };
    if hour > 23 || minute > 59 || second > 59 || fraction.is_some_and(|rest| digits(rest, 9).is_none()) {
        return None;
    }
    let fraction = fraction.map(|rest| rest.trim_end_matches('0')).filter(|rest| !rest.is_empty());
    let fraction = fraction.map(|rest| format!(".{rest}")).unwrap_or_default();
    let zone = match zone.split_at(1) {
        ("Z", "") => "Z".to_owned(),
        ("+" | "-", offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let fits = hours.len() == 2 && minutes.len() == 2 && digits(hours, 2)? <= 24 && digits(minutes, 2)? < 60;
            let is_none = offset == "00:00";
            fits.then(|| if is_none { "Z".to_owned() } else { zone.to_owned() })?
        }
        _ => return None,
    };
    Some(format!("{day}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"))
}

/// A number of this many digits at most.
fn digits(text: &str, most: usize) -> Option<u32> {
    let fits = !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_the_real_library_reads_them() {
        let cases = [
            ("0", Some("0")),
            ("0777", Some("511")),
            ("0o17", Some("15")),
            ("0x1F", Some("31")),
            ("1_000", Some("1000")),
            ("18446744073709551615", Some("18446744073709551615")),
            ("+18446744073709551615", Some("1.8446744073709552e+19")),
            ("-9223372036854775808", Some("-9223372036854775808")),
            ("-5", Some("-5")),
            ("1.50", Some("1.5")),
            ("1e3", Some("1000")),
            ("1e6", Some("1e+06")),
            ("1000000", Some("1000000")),
            ("0.00001", Some("1e-05")),
            ("v1.2", None),
            ("1.2.3", None),
            ("-", None),
            ("+-5", None),
            ("10.0.0.0/8", None),
        ];
        for (raw, normal) in cases {
            assert_eq!(number(raw).map(|(normal, _)| normal).as_deref(), normal, "{raw}");
        }
    }

    #[test]
    fn strings_that_read_as_something_else_are_told() {
        for text in ["", "yes", "off", "1", "1.5", "null", "~", "true", "1:30", "00:11:22:33:44:55", "2024-01-01", "<<"]
        {
            assert!(!stays_text(text), "{text}");
        }
        for text in ["bc:24:11:00:12:01", "168h0m0s", "10.0.0.1", "fd00::1", "a", "1.2.3", "2024-01"] {
            assert!(stays_text(text), "{text}");
        }
    }
}
