//! CRC-32C (Castagnoli): the hash that etcd's own tools print of a snapshot.

/// The reversed polynomial 0x1EDC6F41.
const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256; `try_from` is not for constants yet")]
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// A CRC-32C of bytes that come in pieces.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crc32c(u32);

impl Crc32c {
    pub(super) fn new() -> Self {
        Self(u32::MAX)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |crc, byte| (crc >> 8) ^ TABLE[((crc ^ u32::from(*byte)) & 0xFF) as usize]);
    }

    pub(super) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of RFC 3720, appendix B.4.
    #[test]
    fn the_published_vectors() {
        for (bytes, crc) in
            [(vec![0; 32], 0x8A91_36AA), (vec![0xFF; 32], 0x62A8_AB43), ((0..32).collect(), 0x46DD_794E)]
        {
            let mut hash = Crc32c::new();
            hash.add(&bytes[..5]);
            hash.add(&bytes[5..]);
            assert_eq!(hash.value(), crc);
        }
    }
}
