//! Durations as Go reads and writes them: `90s` is `1m30s`.
//!
//! Must not know: where they stand.

/// 2^63 nanoseconds: nothing is longer.
const LONGEST: u64 = 1 << 63;

/// A duration in the form that Go writes, `None` when the text is none.
pub(super) fn duration(text: &str) -> Option<String> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some("0s".to_owned());
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.')?);
        let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        total = total.checked_add(part(number, scale(unit)?)?).filter(|total| *total <= LONGEST)?;
        rest = tail;
    }
    let total = i128::from(total);
    (is_negative || total < i128::from(LONGEST)).then(|| shown(if is_negative { -total } else { total }))
}

/// How many nanoseconds a unit has.
fn scale(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// The nanoseconds of a number with this unit.
fn part(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut nanoseconds = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()?.checked_mul(scale)? };
    // Digits that don't fit are dropped, as Go drops them.
    let (mut counted, mut below): (u64, f64) = (0, 1.0);
    for digit in fraction.bytes() {
        if counted > (LONGEST - 1) / 10 {
            break;
        }
        let more = counted * 10 + u64::from(digit - b'0');
        if more > LONGEST {
            break;
        }
        counted = more;
        below *= 10.0;
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is rounded as Go rounds it, and is less than a unit"
    )]
    let rest = (counted as f64 * (scale as f64 / below)) as u64;
    nanoseconds = nanoseconds.checked_add(rest)?;
    (nanoseconds <= LONGEST).then_some(nanoseconds)
}

fn shown(nanoseconds: i128) -> String {
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

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        let cases = [
            ("90s", Some("1m30s")),
            ("168h", Some("168h0m0s")),
            ("1.5h", Some("1h30m0s")),
            (".5s", Some("500ms")),
            ("5.s", Some("5s")),
            ("1h1h", Some("2h0m0s")),
            ("-0", Some("0s")),
            ("1.0005us", Some("1µs")),
            ("0.33333333333333333333h", Some("20m0s")),
            ("0.9999999999999999999s", Some("1s")),
            ("9223372036854775807ns", Some("2562047h47m16.854775807s")),
            ("-9223372036854775808ns", Some("-2562047h47m16.854775808s")),
            ("9223372036854775808ns", None),
            ("2562047h47m16.854775808s", None),
            ("99999999999999999999s", None),
            ("1.1.1s", None),
            (".s", None),
            ("5", None),
            ("1 h", None),
            ("1d", None),
            ("+", None),
            ("", None),
        ];
        for (given, written) in cases {
            assert_eq!(duration(given).as_deref(), written, "{given}");
        }
    }
}
