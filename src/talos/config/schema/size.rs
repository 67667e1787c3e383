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

/// Whether this is a share of a disk: up to 100%, perhaps with a `-` before it.
pub(super) fn is_share(text: &str) -> bool {
    let Some(number) = text.strip_suffix('%') else { return false };
    let number = number.strip_prefix('-').unwrap_or(number);
    // No share at all is one to Go.
    number.eq_ignore_ascii_case("nan") || float(number).is_some_and(|share| (0.0..=100.0).contains(&share))
}

/// A number of digits, with a point or an exponent, or a hexadecimal one as Go reads it; underscores may stand between
/// digits.
fn float(text: &str) -> Option<f64> {
    let bytes = text.as_bytes();
    let is_hex =
        text.strip_prefix(['+', '-']).unwrap_or(text).get(..2).is_some_and(|base| base.eq_ignore_ascii_case("0x"));
    let is_digit = |byte: &u8| byte.is_ascii_digit() || is_hex && byte.is_ascii_hexdigit();
    let joins = |byte: &u8| is_digit(byte) || is_hex && byte.eq_ignore_ascii_case(&b'x');
    let between = |at: usize| at > 0 && joins(&bytes[at - 1]) && bytes.get(at + 1).is_some_and(is_digit);
    let fits = |(at, byte): (usize, &u8)| match byte {
        b'_' => between(at),
        byte => is_digit(byte) || b".+-eE".contains(byte) || is_hex && b"xXpP".contains(byte),
    };
    let text = bytes.iter().enumerate().all(fits).then(|| text.replace('_', ""))?;
    if is_hex { hexadecimal(&text) } else { text.parse().ok() }
}

/// `0x1.8p1` is 3: digits, perhaps a point in them, and always an exponent of two.
fn hexadecimal(text: &str) -> Option<f64> {
    let (sign, text) = text.strip_prefix('-').map_or((1.0, text), |rest| (-1.0, rest));
    let digits = text.strip_prefix('+').unwrap_or(text).get(2..)?;
    let (mantissa, exponent) = digits.split_once(['p', 'P'])?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, part].concat();
    let value = digits.chars().try_fold(0.0, |sum, digit| Some(sum * 16.0 + f64::from(digit.to_digit(16)?)))?;
    let shift = i32::try_from(part.len()).ok()?.checked_mul(4)?;
    let exponent = exponent.parse::<i32>().ok()?.checked_sub(shift)?;
    // Nothing stays nothing, however far it is moved.
    let moved = if value == 0.0 { 0.0 } else { value * 2.0_f64.powi(exponent) };
    (!digits.is_empty()).then_some(sign * moved)
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
