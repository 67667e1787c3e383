//! A file out of buckets.

use super::{BRANCH, FREELIST, IS_BUCKET, LEAF, MAGIC, META, META_SUMMED, PAGE, PAGE_HEADER, VERSION, checksum};

const LEAF_ELEMENT: usize = 16;
const BRANCH_ELEMENT: usize = 16;
/// Pages are filled this far, as the original fills those it only appends to.
const FILL: usize = PAGE * 9 / 10;

type Pair = (Vec<u8>, Vec<u8>);

/// Pages one after the other, from page 3 on.
struct Pages(Vec<u8>);

impl Pages {
    fn next(&self) -> u64 {
        (self.0.len() / PAGE) as u64 + 3
    }

    /// Adds a page, over as many as its body needs.
    fn add(&mut self, flags: u16, count: usize, body: &[u8]) -> u64 {
        let id = self.next();
        let pages = (PAGE_HEADER + body.len()).div_ceil(PAGE);
        self.0.extend(header(id, flags, count, pages - 1));
        self.0.extend(body);
        self.0.resize(self.0.len().div_ceil(PAGE) * PAGE, 0);
        id
    }
}

fn header(id: u64, flags: u16, count: usize, overflow: usize) -> Vec<u8> {
    let mut header = id.to_le_bytes().to_vec();
    header.extend(flags.to_le_bytes());
    header.extend(u16::try_from(count).unwrap_or(u16::MAX).to_le_bytes());
    header.extend(u32::try_from(overflow).unwrap_or(u32::MAX).to_le_bytes());
    header
}

fn small(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes()
}

/// A leaf page's body: elements, then keys and values.
fn leaf(pairs: &[(Pair, u32)]) -> Vec<u8> {
    let (mut elements, mut data): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    for (at, ((key, value), flags)) in pairs.iter().enumerate() {
        let position = (pairs.len() - at) * LEAF_ELEMENT + data.len();
        elements.extend(flags.to_le_bytes());
        elements.extend(small(position));
        elements.extend(small(key.len()));
        elements.extend(small(value.len()));
        data.extend(key);
        data.extend(value);
    }
    elements.extend(data);
    elements
}

/// A branch page's body: the first key of each child, and where it is.
fn branch(children: &[(Vec<u8>, u64)]) -> Vec<u8> {
    let (mut elements, mut data): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
    for (at, (key, page)) in children.iter().enumerate() {
        let position = (children.len() - at) * BRANCH_ELEMENT + data.len();
        elements.extend(small(position));
        elements.extend(small(key.len()));
        elements.extend(page.to_le_bytes());
        data.extend(key);
    }
    elements.extend(data);
    elements
}

/// Splits items into runs that fit a page each, never fewer than two unless there is but one.
fn split<T>(items: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut runs, mut run, mut bytes) = (Vec::new(), Vec::new(), PAGE_HEADER);
    for item in items {
        if run.len() >= 2 && bytes + size(&item) > FILL {
            runs.push(std::mem::take(&mut run));
            bytes = PAGE_HEADER;
        }
        bytes += size(&item);
        run.push(item);
    }
    if !run.is_empty() || runs.is_empty() {
        runs.push(run);
    }
    runs
}

/// Writes a tree; its root's page.
fn tree(pages: &mut Pages, pairs: Vec<(Pair, u32)>) -> u64 {
    let runs = split(pairs, |((key, value), _)| LEAF_ELEMENT + key.len() + value.len());
    let mut level: Vec<(Vec<u8>, u64)> = runs
        .iter()
        .map(|run| {
            let first = run.first().map(|((key, _), _)| key.clone()).unwrap_or_default();
            (first, pages.add(LEAF, run.len(), &leaf(run)))
        })
        .collect();
    while level.len() > 1 {
        let runs = split(level, |(key, _)| BRANCH_ELEMENT + key.len());
        level = runs
            .iter()
            .map(|run| {
                let first = run.first().map(|(key, _)| key.clone()).unwrap_or_default();
                (first, pages.add(BRANCH, run.len(), &branch(run)))
            })
            .collect();
    }
    level.first().map_or(0, |(_, page)| *page)
}

fn meta(page: u64, root: u64, end: u64, transaction: u64) -> Vec<u8> {
    let mut meta = Vec::new();
    meta.extend(MAGIC.to_le_bytes());
    meta.extend(VERSION.to_le_bytes());
    meta.extend(small(PAGE));
    meta.extend(0_u32.to_le_bytes());
    // The root bucket: its page, and a sequence that nobody uses.
    meta.extend(root.to_le_bytes());
    meta.extend(0_u64.to_le_bytes());
    // The freelist's page, the first page that doesn't exist, the transaction.
    meta.extend(2_u64.to_le_bytes());
    meta.extend(end.to_le_bytes());
    meta.extend(transaction.to_le_bytes());
    meta.extend(checksum(&meta[..META_SUMMED]).to_le_bytes());
    let mut bytes = header(page, META, 0, 0);
    bytes.extend(meta);
    bytes.resize(PAGE, 0);
    bytes
}

/// A database of buckets; names and keys must come in order.
pub(crate) fn write(buckets: Vec<(&str, Vec<Pair>)>, transaction: u64) -> Vec<u8> {
    let mut pages = Pages(Vec::new());
    let mut root = Vec::new();
    for (name, pairs) in buckets {
        let top = tree(&mut pages, pairs.into_iter().map(|pair| (pair, 0)).collect());
        let mut bucket = top.to_le_bytes().to_vec();
        bucket.extend(0_u64.to_le_bytes());
        root.push(((name.as_bytes().to_vec(), bucket), IS_BUCKET));
    }
    let root = tree(&mut pages, root);
    let end = pages.next();
    // Two metas of two transactions with the same content, as in a copy that the original makes of itself; the newer
    // one lies where its number says.
    let older = transaction.max(1) - 1;
    let (even, odd) = if transaction.is_multiple_of(2) { (transaction, older) } else { (older, transaction) };
    let mut file = meta(0, root, end, even);
    file.extend(meta(1, root, end, odd));
    // No page is free.
    file.extend(header(2, FREELIST, 0, 0));
    file.resize(3 * PAGE, 0);
    file.extend(pages.0);
    file
}
