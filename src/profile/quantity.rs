//! Durations and disk sizes as people write them.
//!
//! Must not know: files, profiles.

use std::time::Duration;

/// What [`duration`] takes, for messages.
pub const A_DURATION: &str = "a duration such as 30s, 5m or 1h30m";
/// What [`disk_gib`] takes, for messages.
pub const A_DISK_SIZE: &str = "a disk size in whole GiB such as 100G or 2T";

/// Reads `30s`, `5m`, `1h30m`, `500ms`. A number without a unit is refused: nobody could tell which one was meant.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|at| *at > 0)?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        sum = sum.checked_add(match &rest[..letters] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            _ => return None,
        })?;
        rest = &rest[letters..];
    }
    (!text.is_empty()).then_some(sum)
}

/// Reads `100G`, `100GiB`, `2T` or `102400M` as GiB, at least one.
pub fn disk_gib(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let gib = match &text[digits..] {
        "M" | "MiB" => number.is_multiple_of(1024).then_some(number / 1024)?,
        "G" | "GiB" => number,
        "T" | "TiB" => number.checked_mul(1024)?,
        _ => return None,
    };
    (gib > 0).then_some(gib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_needed_and_add_up() {
        assert_eq!(duration("1h30m"), Some(Duration::from_mins(90)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for wrong in ["", "30", "s", "5 m", "1d", "-5s"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
        assert_eq!((disk_gib("100G"), disk_gib("2T"), disk_gib("2048M")), (Some(100), Some(2048), Some(2)));
        for wrong in ["", "100", "0G", "1.5T", "100M", "G", "10g"] {
            assert_eq!(disk_gib(wrong), None, "{wrong}");
        }
    }
}
