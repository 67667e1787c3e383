//! Numbers of bytes with a unit, as github.com/dustin/go-humanize reads and writes them.
//!
//! Must not know: where they stand.

use crate::talos::config::yaml::{Number, Value};

/// 2^64: no number of bytes is as large.
const LARGEST: f64 = 18_446_744_073_709_551_616.0;

/// A number of bytes with an optional unit, of which letter case and spaces around it don't count.
pub(super) fn bytes(text: &str) -> Option<u64> {
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

/// Whether this is a size of a volume: bytes, perhaps with a `-` before them.
pub(super) fn is_size(text: &str) -> bool {
    bytes(text.strip_prefix('-').unwrap_or(text)).is_some()
}

/// Whether this is a share of a disk: up to 100%, perhaps with a `-` before it. (Go also takes hexadecimal ones.)
pub(super) fn is_share(text: &str) -> bool {
    let Some(number) = text.strip_suffix('%') else { return false };
    let number = number.strip_prefix('-').unwrap_or(number);
    // No share at all is one to Go.
    number.eq_ignore_ascii_case("nan") || float(number).is_some_and(|share| (0.0..=100.0).contains(&share))
}

/// A number of digits, with a point or an exponent; underscores may stand between digits.
fn float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let is_digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let between = |at: usize| at > 0 && is_digit(at - 1) && is_digit(at + 1);
    let fits = |(at, byte): (usize, &u8)| match byte {
        b'_' => between(at),
        byte => byte.is_ascii_digit() || b".+-eE".contains(byte),
    };
    bytes.iter().enumerate().all(fits).then(|| text.replace('_', "").parse().ok()).flatten()
}

/// Whether this is a condition for a disk's size: bytes, perhaps with a comparison before them.
pub(super) fn is_condition(text: &str) -> bool {
    // Only the last line counts: Go's expression looks no further.
    let text = text.rsplit('\n').next().unwrap_or(text);
    let size = [">=", "<=", "==", ">", "<"].iter().find_map(|sign| text.strip_prefix(sign)).unwrap_or(text);
    bytes(size.trim()).is_some()
}

/// Bytes in a unit of thousands where that says exactly the same, else their number.
pub(super) fn disk_size(wanted: u64) -> Value {
    let number = || Number::parse(&wanted.to_string()).map_or(Value::Null, Value::Number);
    if wanted == 0 || !wanted.is_multiple_of(1000) {
        return number();
    }
    let units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let power = wanted.ilog(1000);
    let Some(unit) = units.get(power as usize) else { return number() };
    let scale = u128::from(1000_u64.pow(power));
    // One decimal below ten, none above, as the real library shows sizes.
    let tenths = (u128::from(wanted) * 10 + scale / 2) / scale;
    let shown = if tenths < 100 {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    } else {
        format!("{} {unit}", tenths / 10)
    };
    if bytes(&shown) == Some(wanted) { Value::Text(shown) } else { number() }
}
