//! A reader of bbolt database files: what etcd keeps its data in.
//!
//! Purpose: reads a file that may be damaged or hostile, page by page, and either hands out every key and value of every
//! bucket in order or says which page is wrong and how. Every page is reached exactly once: as a meta page, as a page of a
//! tree, or (where the file has a free list) as a free one. Nothing is mapped into memory, no page is read twice, depth
//! and buffers are bounded.
//! Must not know: etcd, what keys and values mean. Start reading at [`Database::open`], then [`Database::walk`].
//!
//! The layout is bbolt's own (go.etcd.io/bbolt, file format version 2, which etcd 3.4 to 3.6 write): numbers are little
//! endian; pages 0 and 1 hold the meta, written in turns; the rest are branch, leaf and free list pages, each with as many
//! overflow pages behind it as it needs. What bbolt always writes the same way is required here too, so that a flipped bit
//! in a structure shows: elements in order without gaps, keys rising, no empty page but an empty bucket's root.

mod meta;
mod page;
#[cfg(test)]
mod tests;
mod walk;

pub use meta::{Fault, Meta};
pub use walk::{Database, Usage, Visit};

/// Number of a page; its place in the file is `number * page size`.
pub type PageId = u64;

/// What makes a file no sound database.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The file can't be read.
    #[error("the file can't be read at byte {at}")]
    Read {
        /// From where.
        at: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A meta page is damaged.
    #[error("meta page {page}: {fault}")]
    Meta {
        /// 0 or 1.
        page: PageId,
        /// How.
        fault: Fault,
    },
    /// The file ends before the database does.
    #[error("the database has {pages} pages of {page_size} bytes, and the file only {bytes} bytes: it was cut off")]
    Short {
        /// How many pages the meta page promises.
        pages: u64,
        /// Their size.
        page_size: u32,
        /// What there is.
        bytes: u64,
    },
    /// A page is damaged.
    #[error("page {page}: {what}")]
    Page {
        /// Which.
        page: PageId,
        /// How.
        what: Damage,
    },
    /// A page is neither used nor free.
    #[error("page {page} is neither used nor free")]
    Lost {
        /// Which.
        page: PageId,
    },
}

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A page is named that the database doesn't have.
    #[error("there is no such page")]
    Outside,
    /// Two places lead to it.
    #[error("it is used twice")]
    Twice,
    /// Its header names another page.
    #[error("its header says that it is page {0}")]
    Elsewhere(PageId),
    /// Another kind of page is needed here.
    #[error("it is of kind {found:#06x}, and a {wanted} page belongs here")]
    Kind {
        /// The header's flags.
        found: u16,
        /// What belongs here.
        wanted: &'static str,
    },
    /// Its elements reach past its end.
    #[error("element {0} reaches past the page's end")]
    Beyond(u32),
    /// Elements lie in order and without gaps.
    #[error("element {0} does not lie where it should")]
    Gap(u32),
    /// Only an empty bucket's root may be.
    #[error("it holds nothing")]
    Empty,
    /// Keys must rise, also from one page to the next.
    #[error("the key of element {0} is out of order")]
    Order(u32),
    /// Keys have 1 to 32768 bytes.
    #[error("element {0} has a key of {1} bytes")]
    Key(u32, u64),
    /// Unknown flags of an element.
    #[error("element {0} has the flags {1:#x}")]
    Flags(u32, u32),
    /// A bucket's header or its inline page is wrong.
    #[error("the bucket in element {0} is damaged")]
    Bucket(u32),
    /// Trees aren't that deep.
    #[error("it lies {0} levels deep")]
    Deep(usize),
    /// It is bigger than this reader takes.
    #[error("it has {0} bytes, more than etcd ever writes at once")]
    Huge(u64),
    /// More buckets than etcd has.
    #[error("there are more than {0} buckets")]
    Buckets(usize),
    /// The list of free pages is damaged.
    #[error("entry {0} of the list of free pages is out of order")]
    FreeOrder(u64),
}
