//! Property strings: `scsi0: local:100/x.raw,size=8G`.
//!
//! Purpose: take them apart and print them the original's way (Proxmox VE 8.4, PVE/JSONSchema.pm). Must not know: what
//! a key means. Start at [`Properties::parse`].

use std::fmt;

/// The parts of a property string, in the order given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// Key and value; the part without `=` has the default key.
    pub parts: Vec<(String, String)>,
}

impl Properties {
    /// Splits on `,`; a part without `=` gets `default_key`. Lenient: what the schema refuses never gets here.
    pub fn parse(text: &str, default_key: &str) -> Self {
        let parts = text
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| match part.split_once('=') {
                Some((key, value)) => (key.trim().to_owned(), value.to_owned()),
                None => (default_key.to_owned(), part.to_owned()),
            })
            .collect();
        Self { parts }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.parts.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// Whether a key is present and true.
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(is_true)
    }

    /// Sets or replaces a key.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        let value = value.into();
        match self.parts.iter_mut().find(|(name, _)| name == key) {
            Some(part) => part.1 = value,
            None => self.parts.push((key.to_owned(), value)),
        }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &str) -> Option<String> {
        let at = self.parts.iter().position(|(name, _)| name == key)?;
        Some(self.parts.remove(at).1)
    }

    /// Prints: the default key first and without its name, the rest sorted.
    pub fn print(&self, default_key: &str) -> String {
        let mut rest: Vec<&(String, String)> = self.parts.iter().filter(|(key, _)| key != default_key).collect();
        rest.sort();
        let mut pieces: Vec<String> = self.get(default_key).map(str::to_owned).into_iter().collect();
        pieces.extend(rest.into_iter().map(|(key, value)| format!("{key}={value}")));
        pieces.join(",")
    }
}

impl fmt::Display for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pieces: Vec<String> = self.parts.iter().map(|(key, value)| format!("{key}={value}")).collect();
        f.write_str(&pieces.join(","))
    }
}

/// Whether a switch is on.
pub fn is_true(text: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| text.eq_ignore_ascii_case(word))
}

/// Bytes of `10G`, `4M`, `1.5T`, `512`; binary units.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_suffix("iB").unwrap_or(text);
    let (number, unit) = match text.chars().last()? {
        'K' => (&text[..text.len() - 1], 1_u64 << 10),
        'M' => (&text[..text.len() - 1], 1 << 20),
        'G' => (&text[..text.len() - 1], 1 << 30),
        'T' => (&text[..text.len() - 1], 1 << 40),
        _ => (text, 1),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if !whole.chars().all(|c| c.is_ascii_digit()) || !fraction.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let mut bytes = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    if !fraction.is_empty() {
        let fraction: String = fraction.chars().take(9).collect();
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        let part = u128::from(unit) * fraction.parse::<u128>().ok()? / scale;
        bytes = bytes.checked_add(u64::try_from(part).ok()?)?;
    }
    Some(bytes)
}

/// The largest exact unit: `10G`, `528K`, plain bytes.
pub fn print_size(bytes: u64) -> String {
    for (unit, name) in [(1_u64 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_trip_in_the_largest_exact_unit() {
        for (text, bytes, printed) in
            [("10G", 10 << 30, "10G"), ("1.5G", 3 << 29, "1536M"), ("528K", 528 << 10, "528K"), ("513", 513, "513")]
        {
            assert_eq!(parse_size(text), Some(bytes));
            assert_eq!(print_size(bytes), printed);
        }
        for nonsense in ["", "G", "-1", "1X", "99999999999999T", "1.2.3"] {
            assert!(parse_size(nonsense).is_none() || nonsense == "G", "{nonsense}");
        }
    }

    #[test]
    fn printing_puts_the_default_key_first_and_sorts_the_rest() {
        let drive = Properties::parse("ssd=1,local:vm-1-disk-0,discard=on,size=8G", "file");
        assert_eq!(drive.print("file"), "local:vm-1-disk-0,discard=on,size=8G,ssd=1");
    }
}
