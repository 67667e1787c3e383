//! Who a machine is to its cluster: 32 bytes by chance that it keeps on STATE, lost when that is wiped (Talos,
//! controllers/cluster, `NodeIdentityController`).

use sha2::{Digest as _, Sha256};

use super::life::{Boot, chain};
use crate::disk::{self, DiskError, Keep};

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Values of six bits that have no letter share their last five, and stand for those alone.
const COMPACT: u16 = 0x1e;

/// The bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity([u8; 32]);

impl Identity {
    /// As discovery names the machine.
    pub fn node_id(self) -> String {
        base62(&self.0)
    }

    /// As `/etc/machine-id` has it.
    pub fn machine_id(self) -> String {
        hex::encode(&self.0[..16])
    }
}

impl Boot {
    /// The identity that is on the disk, or a new one that is from now on.
    pub(super) fn identify(&self) {
        let path = self.path();
        let known = || -> Result<Identity, DiskError> {
            let kept = disk::load(&path, Keep::Identity)?;
            if let Some(bytes) = kept.and_then(|bytes| bytes.try_into().ok()) {
                return Ok(Identity(bytes));
            }
            let bytes: [u8; 32] = Sha256::digest(self.machine.world().random_uuid()).into();
            disk::store(&path, Keep::Identity, &bytes)?;
            Ok(Identity(bytes))
        };
        match known() {
            Ok(identity) => self.machine.update(|state| state.identity = Some(identity)),
            Err(error) => self.machine.says(&format!("[talos] error caching node identity: {}", chain(&error))),
        }
    }
}

/// The base 62 of `jxskiss/base62`: six bits a letter from the end on, five where six would have no letter.
fn base62(bytes: &[u8]) -> String {
    let (mut text, mut left) = (String::new(), bytes.len() * 8);
    while left > 0 {
        let at = left.div_ceil(8) - 1;
        let high = at.checked_sub(1).map_or(0, |above| u16::from(bytes[above]));
        let bits = (high << 8 | u16::from(bytes[at])) >> ((at + 1) * 8 - left) & 0x3f;
        let short = bits & COMPACT == COMPACT;
        let taken = if short && (left > 6 || bits > 0x1f) { 5 } else { 6 };
        let letter = if short { bits & 0x1f } else { bits };
        text.push(char::from(LETTERS[usize::from(letter)]));
        left = left.saturating_sub(taken);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_letters_of_the_original() {
        for (step, expected) in [
            (0, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
            (1, "g8hHdwxGakBGXYRFUMhERAxDO0ADLoQCIcgBFQwACEA"),
            (7, "gnt0LTcv2eVUDVzJZsQfdHcpJ2WU1kRfBnYUZEOqwhDA"),
            (255, "gHu4jTeyNf5onu6rze2df7wHv8zTf6tf94nve3nf97ffD"),
        ] {
            let bytes: [u8; 32] = std::array::from_fn(|at| u8::try_from((at * step + step) & 0xff).unwrap());
            assert_eq!(Identity(bytes).node_id(), expected);
        }
        assert_eq!(Identity([171; 32]).machine_id(), "ab".repeat(16));
    }
}
