//! What the headers of an xz file say, and what its end must be.
//!
//! The format: "The .xz File Format" 1.2.1 (tukaani.org/xz/xz-file-format.txt). Must not know: where bytes come from, and
//! what is in a block.

use crate::image::xz::XzError;

/// Where a stream's header names its check.
pub(super) const CHECK: usize = 7;
/// The number of this check in a stream's header.
pub(super) const CRC64: u8 = 4;

/// One block, as its header has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Bytes in the file, without the padding to a multiple of four.
    pub(super) unpadded: u64,
    /// Bytes it decodes to.
    pub(super) content: u64,
}

/// Confirms that a stream begins so.
pub(super) fn confirm_header(header: &[u8; 12]) -> Result<(), XzError> {
    if header[..6] != [0xfd, b'7', b'z', b'X', b'Z', 0] {
        return Err(XzError::Damaged { what: "not an xz header" });
    }
    if crc32fast::hash(&header[6..8]).to_le_bytes() != header[8..] {
        return Err(XzError::Damaged { what: "the header's check does not match" });
    }
    Ok(())
}

/// What a block's header says, if it says both sizes and nothing but LZMA2. liblzma verifies all of it once more.
pub(super) fn block_of(header: &[u8], check: u8) -> Result<Record, XzError> {
    let (fields, crc) = header.split_at(header.len() - 4);
    if crc32fast::hash(fields).to_le_bytes() != crc {
        return Err(XzError::Damaged { what: "the check of a block's header does not match" });
    }
    if fields[1] != 0xc0 {
        return Err(XzError::Unsuited);
    }
    let mut rest = &fields[2..];
    let sizes = take_number(&mut rest).zip(take_number(&mut rest));
    let (compressed, content) = sizes.ok_or(XzError::Damaged { what: "a block's header has no sizes" })?;
    // LZMA2's number, the length of its properties: one byte.
    let Some(rest) = rest.strip_prefix(&[0x21, 1]) else { return Err(XzError::Unsuited) };
    // The dictionary's size, and nothing but padding: what else it may be, the general decoder knows.
    if !rest.split_first().is_some_and(|(size, padding)| *size <= 40 && padding.iter().all(|byte| *byte == 0)) {
        return Err(XzError::Unsuited);
    }
    let check = match check {
        1 => 4,
        CRC64 => 8,
        10 => 32,
        _ => return Err(XzError::Unsuited),
    };
    let unpadded = (header.len() as u64 + check).checked_add(compressed).filter(|sum| *sum < 1 << 62);
    Ok(Record { unpadded: unpadded.ok_or(XzError::Damaged { what: "a block is too long" })?, content })
}

/// With what fills it up to a multiple of four.
pub(super) fn padded(unpadded: u64) -> u64 {
    unpadded.next_multiple_of(4)
}

/// A number in the format's encoding: seven bits a byte, the lowest first.
fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in 0..9 {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        number |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            // The shortest form is the only one allowed.
            return (shift == 0 || *byte != 0).then_some(number);
        }
    }
    None
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Index and footer of a stream that has just these blocks.
pub(super) fn end_of_stream(records: &[Record], header: [u8; 12]) -> Vec<u8> {
    let mut end = vec![0];
    put_number(&mut end, records.len() as u64);
    for record in records {
        put_number(&mut end, record.unpadded);
        put_number(&mut end, record.content);
    }
    end.resize(end.len().next_multiple_of(4), 0);
    end.extend(crc32fast::hash(&end).to_le_bytes());
    let mut fields = u32::try_from(end.len() / 4 - 1).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    fields.extend(&header[6..8]);
    end.extend(crc32fast::hash(&fields).to_le_bytes());
    end.extend(fields);
    end.extend(b"YZ");
    end
}
