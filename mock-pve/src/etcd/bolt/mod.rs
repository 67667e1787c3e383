//! bbolt's file format (etcd-io/bbolt, page.go, node.go, bucket.go): one file of pages, a B+tree per bucket.
//!
//! Purpose: write a file that the original opens, and read what the original wrote. Must not know: what is in the buckets.

mod read;
mod write;

pub(super) use read::{BadBolt, read};
pub(super) use write::write;

/// Pages are as long as those of the machines that Talos runs on.
const PAGE: usize = 4096;
const PAGE_HEADER: usize = 16;
const META: u16 = 0x04;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const FREELIST: u16 = 0x10;
/// A leaf element that is a bucket.
const IS_BUCKET: u32 = 0x01;
const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// Bytes of a meta page that its checksum covers.
const META_SUMMED: usize = 56;

/// FNV-1a, 64 bits.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
