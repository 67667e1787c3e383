//! Repeatable chance.
//!
//! Purpose: MACs, UUIDs and made-up secrets, the same ones for the same `--rng-seed`. Not for cryptography.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// `SplitMix64`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rng(u64);

impl Rng {
    /// A sequence that depends on the seed only.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A random UUID (version 4), lower case.
    pub fn uuid(&mut self) -> String {
        let mut bytes = [0_u8; 16];
        bytes[..8].copy_from_slice(&self.draw().to_be_bytes());
        bytes[8..].copy_from_slice(&self.draw().to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        let hex = hex::encode(bytes);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// A MAC with that prefix (`BC:24:11`), upper case.
    pub fn mac(&mut self, prefix: &str) -> String {
        let bytes = self.draw().to_be_bytes();
        let have = prefix.split(':').filter(|part| !part.is_empty()).count().min(6);
        let mut mac = prefix.trim_end_matches(':').to_ascii_uppercase();
        for byte in bytes.iter().take(6 - have) {
            // Writing to a string can't fail.
            let _ = write!(mac, ":{byte:02X}");
        }
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_values() {
        let (mut one, mut two) = (Rng::new(7), Rng::new(7));
        assert_eq!(one.uuid(), two.uuid());
        let mac = one.mac("BC:24:11");
        assert_eq!(mac, two.mac("BC:24:11"));
        assert!(mac.starts_with("BC:24:11:") && mac.len() == 17, "{mac}");
    }
}
