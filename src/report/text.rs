//! Amounts as people read them.

/// `0.4 s`, `12.3 s`, `4 min 5 s`, `1 h 2 min`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole seconds of a run, never negative")]
pub(super) fn seconds(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 59.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    if whole < 3600 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    }
}

/// `512 B`, `3.4 MiB`, `1.2 GiB`.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
pub(super) fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    for (unit, size) in [("GiB", 1_073_741_824.0), ("MiB", 1_048_576.0), ("KiB", 1024.0)] {
        if bytes >= size {
            return format!("{:.1} {unit}", bytes / size);
        }
    }
    format!("{bytes:.0} B")
}

/// Bytes per second; nothing for a time too short to tell.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shown with one decimal"
)]
pub(super) fn rate(moved: u64, seconds: f64) -> Option<u64> {
    (seconds >= 0.1).then(|| (moved as f64 / seconds) as u64)
}

/// `1 VM`, `3 VMs`.
pub(super) fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// The same for large numbers.
pub(super) fn count_of(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        let times = [0.04, 12.34, 59.96, 245.4, 3720.0].map(seconds);
        assert_eq!(times, ["0.0 s", "12.3 s", "1 min 0 s", "4 min 5 s", "1 h 2 min"]);
        let sizes = [512, 3 << 20, 5 << 30].map(bytes);
        assert_eq!(sizes, ["512 B", "3.0 MiB", "5.0 GiB"]);
        assert_eq!((rate(1000, 2.0), rate(1000, 0.0)), (Some(500), None));
    }
}
