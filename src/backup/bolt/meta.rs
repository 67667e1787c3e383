//! The two meta pages.

use super::{BoltError, PageId};

/// Bytes of a meta page that say something: the page's header and the meta.
pub(super) const META_BYTES: usize = 16 + 64;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// The page size that says "no list of free pages is kept", etcd's own choice on Linux.
const NO_FREELIST: PageId = u64::MAX;
/// Flag of a meta page.
const META: u16 = 0x04;

/// Page sizes that processors have, and bbolt takes over.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 512..=1 << 20;

/// What a meta page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Bytes of a page.
    pub page_size: u32,
    /// Root page of the bucket of buckets.
    pub root: PageId,
    /// The list of free pages, if one is kept.
    pub freelist: Option<PageId>,
    /// How many pages the database has; those behind aren't part of it.
    pub pages: u64,
    /// The transaction that wrote it.
    pub txid: u64,
}

/// What is wrong with a meta page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Not a meta page at all.
    #[error("this is no bbolt database")]
    Foreign,
    /// A later format.
    #[error("format version {0} is unknown, only 2 is")]
    Version(u32),
    /// The checksum doesn't fit.
    #[error("its checksum is {found:#018x} and should be {computed:#018x}")]
    Checksum {
        /// As stored.
        found: u64,
        /// As computed.
        computed: u64,
    },
    /// The page's header is wrong.
    #[error("its page header is damaged")]
    Header,
    /// The page size is none.
    #[error("{0} is no page size")]
    PageSize(u32),
    /// A page that it names can't be.
    #[error("it names page {0}, which the database doesn't have")]
    Outside(PageId),
    /// The two differ where they can't.
    #[error("the two meta pages have different page sizes")]
    Sizes,
}

/// A little-endian number at an offset. The callers' buffers are always long enough.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// A little-endian number at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// A little-endian number at an offset.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// FNV-1a, 64 bits.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

impl Meta {
    /// Reads the page `number` (0 or 1) from its first [`META_BYTES`] bytes.
    pub(super) fn read(number: PageId, bytes: &[u8; META_BYTES]) -> Result<Self, BoltError> {
        let fault = |fault| BoltError::Meta { page: number, fault };
        let (header, meta) = bytes.split_at(16);
        let (magic, version) = (u32_at(meta, 0), u32_at(meta, 4));
        if magic != MAGIC {
            return Err(fault(Fault::Foreign));
        }
        let (found, computed) = (u64_at(meta, 56), fnv1a(&meta[..56]));
        if found != computed {
            return Err(fault(Fault::Checksum { found, computed }));
        }
        if version != VERSION {
            return Err(fault(Fault::Version(version)));
        }
        if (u64_at(header, 0), u16_at(header, 8), u16_at(header, 10), u32_at(header, 12)) != (number, META, 0, 0) {
            return Err(fault(Fault::Header));
        }
        let page_size = u32_at(meta, 8);
        if !page_size.is_power_of_two() || !PAGE_SIZES.contains(&page_size) {
            return Err(fault(Fault::PageSize(page_size)));
        }
        let (root, freelist, pages) = (u64_at(meta, 16), u64_at(meta, 32), u64_at(meta, 40));
        let freelist = (freelist != NO_FREELIST).then_some(freelist);
        for page in freelist.into_iter().chain([root]) {
            if page < 2 || page >= pages {
                return Err(fault(Fault::Outside(page)));
            }
        }
        Ok(Self { page_size, root, freelist, pages, txid: u64_at(meta, 48) })
    }

    /// The newer of both. Both must be sound: a database that was closed, and a snapshot always, has two.
    pub(super) fn newest(first: Self, second: Self) -> Result<Self, BoltError> {
        if first.page_size != second.page_size {
            return Err(BoltError::Meta { page: 1, fault: Fault::Sizes });
        }
        Ok(if second.txid > first.txid { second } else { first })
    }
}
