//! Branch, leaf and free list pages, over the bytes of one page with its overflow.

use std::ops::Range;

use super::meta::{u16_at, u32_at, u64_at};
use super::{Damage, PageId};

/// Bytes of a page's header, of a branch's element and of a leaf's.
pub(super) const HEADER: usize = 16;
const ELEMENT: usize = 16;

/// bbolt's own limit.
const LONGEST_KEY: u64 = 32768;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const FREELIST: u16 = 0x10;

/// Flag of a leaf's element: its value is a bucket.
const IS_BUCKET: u32 = 0x01;

/// A page's first 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) id: PageId,
    pub(super) flags: u16,
    pub(super) count: u16,
    pub(super) overflow: u32,
}

impl Header {
    /// From at least [`HEADER`] bytes.
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self { id: u64_at(bytes, 0), flags: u16_at(bytes, 8), count: u16_at(bytes, 10), overflow: u32_at(bytes, 12) }
    }

    /// What kind of a tree's page this is.
    pub(super) fn kind(&self) -> Result<Kind, Damage> {
        match self.flags {
            BRANCH => Ok(Kind::Branch),
            LEAF => Ok(Kind::Leaf),
            found => Err(Damage::Kind { found, wanted: "branch or leaf" }),
        }
    }
}

/// The two kinds of a tree's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Branch,
    Leaf,
}

/// An element of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) key: Vec<u8>,
    pub(super) page: PageId,
}

/// An element of a leaf: where its key and its value lie in the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
    pub(super) is_bucket: bool,
}

/// Goes along the elements' data, which lie behind the elements in their order and without gaps.
struct Along<'a> {
    bytes: &'a [u8],
    count: u16,
    next: usize,
}

impl<'a> Along<'a> {
    fn new(bytes: &'a [u8], count: u16) -> Result<Self, Damage> {
        let next = HEADER + ELEMENT * usize::from(count);
        if next > bytes.len() {
            return Err(Damage::Beyond(u32::from(count)));
        }
        Ok(Self { bytes, count, next })
    }

    /// The elements' offsets.
    fn elements(&self) -> impl Iterator<Item = (u32, usize)> + use<> {
        (0..self.count).map(|index| (u32::from(index), HEADER + ELEMENT * usize::from(index)))
    }

    /// The next `key` and `value` bytes of element `index` at `at`, whose position is relative to itself.
    fn take(
        &mut self,
        index: u32,
        at: usize,
        position: u32,
        key: u32,
        value: u32,
    ) -> Result<[Range<usize>; 2], Damage> {
        if key == 0 || u64::from(key) > LONGEST_KEY {
            return Err(Damage::Key(index, u64::from(key)));
        }
        if at as u64 + u64::from(position) != self.next as u64 {
            return Err(Damage::Gap(index));
        }
        if u64::from(key) + u64::from(value) > (self.bytes.len() - self.next) as u64 {
            return Err(Damage::Beyond(index));
        }
        // Both fit into the page, and a page's length is a usize.
        let middle = self.next + usize::try_from(key).unwrap_or(usize::MAX);
        let end = middle + usize::try_from(value).unwrap_or(usize::MAX);
        let taken = [self.next..middle, middle..end];
        self.next = end;
        Ok(taken)
    }
}

/// The children of a branch.
pub(super) fn children(bytes: &[u8], count: u16) -> Result<Vec<Child>, Damage> {
    if count == 0 {
        return Err(Damage::Empty);
    }
    let mut along = Along::new(bytes, count)?;
    let mut found = Vec::with_capacity(usize::from(count));
    for (index, at) in along.elements() {
        let (position, key) = (u32_at(bytes, at), u32_at(bytes, at + 4));
        let [key, _] = along.take(index, at, position, key, 0)?;
        found.push(Child { key: bytes[key].to_vec(), page: u64_at(bytes, at + 8) });
    }
    Ok(found)
}

/// The entries of a leaf, and where the last one ends.
pub(super) fn entries(bytes: &[u8], count: u16) -> Result<(Vec<Entry>, usize), Damage> {
    let mut along = Along::new(bytes, count)?;
    let mut found = Vec::with_capacity(usize::from(count));
    for (index, at) in along.elements() {
        let flags = u32_at(bytes, at);
        if flags & !IS_BUCKET != 0 {
            return Err(Damage::Flags(index, flags));
        }
        let (position, key, value) = (u32_at(bytes, at + 4), u32_at(bytes, at + 8), u32_at(bytes, at + 12));
        let [key, value] = along.take(index, at, position, key, value)?;
        found.push(Entry { key, value, is_bucket: flags == IS_BUCKET });
    }
    Ok((found, along.next))
}

/// A bucket's root: a page, or its only page itself, held inline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Page(PageId),
    /// With its entries.
    Inline(Vec<u8>, Vec<Entry>),
}

/// The root that a bucket's value in element `index` describes: root page and sequence, with root page 0 and the page
/// behind them when it is inline.
pub(super) fn root(value: &[u8], index: u32) -> Result<Root, Damage> {
    let damaged = || Damage::Bucket(index);
    if value.len() < 16 {
        return Err(damaged());
    }
    let page = u64_at(value, 0);
    if page != 0 {
        return if value.len() == 16 { Ok(Root::Page(page)) } else { Err(damaged()) };
    }
    let inline = &value[16..];
    if inline.len() < HEADER {
        return Err(damaged());
    }
    let header = Header::read(inline);
    if (header.id, header.flags, header.overflow) != (0, LEAF, 0) {
        return Err(damaged());
    }
    let (entries, end) = entries(inline, header.count)?;
    if end != inline.len() {
        return Err(damaged());
    }
    Ok(Root::Inline(inline.to_vec(), entries))
}

/// The ids in a page of the list of free pages. A count of 0xFFFF means that the first id is the count.
pub(super) fn free(bytes: &[u8], header: Header) -> Result<impl Iterator<Item = PageId> + '_, Damage> {
    if header.flags != FREELIST {
        return Err(Damage::Kind { found: header.flags, wanted: "free list" });
    }
    let all = (bytes.len() - HEADER) / 8;
    let (skip, count) = match header.count {
        u16::MAX if all == 0 => return Err(Damage::Beyond(0)),
        u16::MAX => (1, u64_at(bytes, HEADER)),
        count => (0, u64::from(count)),
    };
    match usize::try_from(count) {
        Ok(count) if count <= all - skip => {
            Ok((skip..skip + count).map(move |index| u64_at(bytes, HEADER + 8 * index)))
        }
        _ => Err(Damage::Beyond(0)),
    }
}
