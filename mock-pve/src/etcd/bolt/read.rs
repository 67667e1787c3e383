//! Buckets out of a file.

use std::collections::BTreeMap;

use super::{BRANCH, IS_BUCKET, LEAF, MAGIC, META, META_SUMMED, PAGE_HEADER, VERSION, checksum};

/// No tree is deeper than this; a loop of pages is.
const DEEPEST: u32 = 40;

/// Why a file isn't a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadBolt {
    /// Neither meta page is whole.
    #[error("invalid database")]
    NoMeta,
    /// The file is shorter than it says.
    #[error("file size too small: {bytes} bytes, {needed} are needed")]
    Short {
        /// Bytes of the file.
        bytes: u64,
        /// Bytes that its meta page tells of.
        needed: u64,
    },
    /// A page isn't what it must be.
    #[error("page {page}: {why}")]
    Page {
        /// Which page.
        page: u64,
        /// What is wrong with it.
        why: &'static str,
    },
}

struct File<'a> {
    bytes: &'a [u8],
    page: usize,
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let slice = bytes.get(at..at.checked_add(length)?)?;
    Some(slice.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn size(bytes: &[u8], at: usize) -> Option<usize> {
    number(bytes, at, 4).and_then(|number| usize::try_from(number).ok())
}

struct Meta {
    page_size: usize,
    root: u64,
    end: u64,
    transaction: u64,
}

fn meta(bytes: &[u8], at: usize) -> Option<Meta> {
    let page = bytes.get(at..at.checked_add(PAGE_HEADER + 64)?)?;
    let body = &page[PAGE_HEADER..];
    let sound = number(page, 8, 2)? == u64::from(META)
        && number(body, 0, 4)? == u64::from(MAGIC)
        && number(body, 4, 4)? == u64::from(VERSION)
        && number(body, META_SUMMED, 8)? == checksum(&body[..META_SUMMED]);
    let page_size = size(body, 8)?;
    let sound = sound && page_size.is_power_of_two() && (512..=65_536).contains(&page_size);
    sound.then_some(Meta {
        page_size,
        root: number(body, 16, 8)?,
        end: number(body, 40, 8)?,
        transaction: number(body, 48, 8)?,
    })
}

/// Buckets by name, with their keys in order.
pub(crate) type Buckets = BTreeMap<String, Vec<(Vec<u8>, Vec<u8>)>>;

/// All buckets of the top level.
pub(crate) fn read(bytes: &[u8]) -> Result<Buckets, BadBolt> {
    let first = meta(bytes, 0);
    let second = match &first {
        Some(first) => meta(bytes, first.page_size),
        None => (9..17).find_map(|power| meta(bytes, 1 << power).filter(|found| found.page_size == 1 << power)),
    };
    let meta = [first, second].into_iter().flatten().max_by_key(|meta| meta.transaction).ok_or(BadBolt::NoMeta)?;
    let needed = meta.end.saturating_mul(meta.page_size as u64);
    if (bytes.len() as u64) < needed {
        return Err(BadBolt::Short { bytes: bytes.len() as u64, needed });
    }
    let file = File { bytes, page: meta.page_size };
    let mut buckets = BTreeMap::new();
    let mut elements = Vec::new();
    file.walk(meta.root, 0, &mut elements)?;
    for (flags, name, value) in elements {
        if flags & IS_BUCKET == 0 {
            continue;
        }
        let broken = BadBolt::Page { page: meta.root, why: "a bucket without a header" };
        let root = number(&value, 0, 8).ok_or(broken)?;
        let mut found = Vec::new();
        if root == 0 {
            // A small bucket lies in its parent's page.
            leaf(value.get(16..).unwrap_or_default(), meta.root, &mut found)?;
        } else {
            file.walk(root, 0, &mut found)?;
        }
        let pairs = found.into_iter().map(|(_, key, value)| (key, value)).collect();
        buckets.insert(String::from_utf8_lossy(&name).into_owned(), pairs);
    }
    Ok(buckets)
}

type Elements = Vec<(u32, Vec<u8>, Vec<u8>)>;

impl File<'_> {
    fn walk(&self, page: u64, depth: u32, into: &mut Elements) -> Result<(), BadBolt> {
        let bad = |why| BadBolt::Page { page, why };
        if depth > DEEPEST {
            return Err(bad("the tree has a loop"));
        }
        let start = usize::try_from(page).ok().and_then(|page| page.checked_mul(self.page));
        let start =
            start.filter(|start| *start + PAGE_HEADER <= self.bytes.len()).ok_or_else(|| bad("out of bounds"))?;
        let head = &self.bytes[start..start + PAGE_HEADER];
        if number(head, 0, 8) != Some(page) {
            return Err(bad("it says it is another one"));
        }
        let overflow = size(head, 12).unwrap_or_default();
        let end =
            overflow.checked_add(1).and_then(|pages| pages.checked_mul(self.page)).and_then(|n| n.checked_add(start));
        let end = end.filter(|end| *end <= self.bytes.len()).ok_or_else(|| bad("it ends behind the file"))?;
        let bytes = &self.bytes[start..end];
        match number(head, 8, 2) {
            Some(flags) if flags == u64::from(LEAF) => leaf(bytes, page, into),
            Some(flags) if flags == u64::from(BRANCH) => {
                let count = number(head, 10, 2).unwrap_or_default();
                for at in 0..usize::try_from(count).unwrap_or_default() {
                    let child = number(bytes, PAGE_HEADER + at * 16 + 8, 8).ok_or_else(|| bad("a cut-off element"))?;
                    self.walk(child, depth + 1, into)?;
                }
                Ok(())
            }
            _ => Err(bad("neither branch nor leaf")),
        }
    }
}

fn leaf(bytes: &[u8], page: u64, into: &mut Elements) -> Result<(), BadBolt> {
    let bad = || BadBolt::Page { page, why: "a cut-off element" };
    let count = number(bytes, 10, 2).ok_or_else(bad)?;
    for at in 0..usize::try_from(count).unwrap_or_default() {
        let element = PAGE_HEADER + at * 16;
        let flags = number(bytes, element, 4).ok_or_else(bad)?;
        let position = size(bytes, element + 4).ok_or_else(bad)?;
        let key = size(bytes, element + 8).ok_or_else(bad)?;
        let value = size(bytes, element + 12).ok_or_else(bad)?;
        let start = element.checked_add(position).ok_or_else(bad)?;
        let middle = start.checked_add(key).ok_or_else(bad)?;
        let end = middle.checked_add(value).ok_or_else(bad)?;
        let key = bytes.get(start..middle).ok_or_else(bad)?;
        let value = bytes.get(middle..end).ok_or_else(bad)?;
        into.push((u32::try_from(flags).unwrap_or_default(), key.to_vec(), value.to_vec()));
    }
    Ok(())
}
