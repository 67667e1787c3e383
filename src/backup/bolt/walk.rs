//! The way through a database: every page once.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::meta::{META_BYTES, Meta, u32_at};
use super::page::{self, Child, HEADER, Header, Kind, Root};
use super::{BoltError, Damage, PageId};

/// etcd's trees have three or four levels.
const DEEPEST: usize = 24;

/// A branch holds keys and page numbers only.
const BIGGEST_BRANCH: u64 = 1 << 20;

/// etcd takes requests of 1.5 MiB unless told otherwise; a leaf may hold a few values.
const BIGGEST_LEAF: u64 = 64 << 20;

/// The ids of free pages of the biggest etcd (8 GiB is what its own documentation allows).
const BIGGEST_FREELIST: u64 = 64 << 20;

/// etcd has about a dozen.
const MOST_BUCKETS: usize = 256;

/// Who is shown what a database holds, in its order.
pub trait Visit {
    /// What may be wrong with what is shown.
    type Error: From<BoltError>;
    /// The bucket that all entries until the next call belong to.
    fn bucket(&mut self, name: &[u8]) -> Result<(), Self::Error>;
    /// A key and its value.
    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;
}

/// How a database's pages are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Meta pages, pages of trees, and those of the list of free pages.
    pub used: u64,
    /// Pages on the list of free pages; all others where no list is kept.
    pub free: u64,
}

/// A database file whose meta pages are sound.
#[derive(Debug)]
pub struct Database {
    file: File,
    meta: Meta,
}

impl Database {
    /// Reads the meta pages of a database in the first `bytes` bytes of a file.
    pub fn open(file: File, bytes: u64) -> Result<Self, BoltError> {
        if bytes < 2 * META_BYTES as u64 {
            return Err(BoltError::Short { pages: 2, page_size: 512, bytes });
        }
        let mut first = [0; META_BYTES];
        read(&file, 0, &mut first)?;
        // Only a sound page says where the other one is.
        let page_size = u32_at(&first, 16 + 8);
        let first = Meta::read(0, &first)?;
        let short = |pages| BoltError::Short { pages, page_size, bytes };
        if first.pages.checked_mul(u64::from(page_size)).is_none_or(|size| size > bytes) {
            return Err(short(first.pages));
        }
        let mut second = [0; META_BYTES];
        read(&file, u64::from(page_size), &mut second)?;
        let meta = Meta::newest(first, Meta::read(1, &second)?)?;
        if meta.pages.checked_mul(u64::from(page_size)).is_none_or(|size| size > bytes) {
            return Err(short(meta.pages));
        }
        Ok(Self { file, meta })
    }

    /// The newer meta page.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// Bytes of the database: what its pages take. The file may be longer.
    pub fn bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_size)
    }

    /// Shows everything to `visit`, bucket by bucket in the order of their names, and accounts for every page.
    pub fn walk<V: Visit>(&self, visit: &mut V) -> Result<Usage, V::Error> {
        let mut walk = Walk { db: self, seen: Seen::new(self.meta.pages), buffer: Vec::new() };
        walk.seen.claim(0, 2)?;
        let mut buckets = Vec::new();
        walk.tree(self.meta.root, &mut |page, bytes, index, entry| {
            let at = |what| BoltError::Page { page, what };
            if !entry.is_bucket {
                return Err(at(Damage::Flags(index, 0)));
            }
            if buckets.len() == MOST_BUCKETS {
                return Err(at(Damage::Buckets(MOST_BUCKETS)));
            }
            let root = page::root(&bytes[entry.value.clone()], index).map_err(at)?;
            buckets.push((page, index, bytes[entry.key.clone()].to_vec(), root));
            Ok(())
        })?;
        for (page, index, name, root) in buckets {
            visit.bucket(&name)?;
            match root {
                Root::Page(root) => {
                    walk.tree(root, &mut |page, bytes, index, entry| show(page, bytes, index, entry, visit))?;
                }
                Root::Inline(bytes, entries) => {
                    let mut last: Option<&[u8]> = None;
                    for entry in &entries {
                        let key = &bytes[entry.key.clone()];
                        if last.is_some_and(|last| last >= key) {
                            return Err(BoltError::Page { page, what: Damage::Bucket(index) }.into());
                        }
                        last = Some(key);
                        show(page, &bytes, index, entry, visit)?;
                    }
                }
            }
        }
        Ok(walk.finish()?)
    }
}

/// One entry of a bucket; etcd puts no buckets into buckets.
fn show<V: Visit>(page: PageId, bytes: &[u8], index: u32, entry: &page::Entry, visit: &mut V) -> Result<(), V::Error> {
    if entry.is_bucket {
        return Err(BoltError::Page { page, what: Damage::Flags(index, 1) }.into());
    }
    visit.entry(&bytes[entry.key.clone()], &bytes[entry.value.clone()])
}

fn read(file: &File, at: u64, into: &mut [u8]) -> Result<(), BoltError> {
    file.read_exact_at(into, at).map_err(|source| BoltError::Read { at, source })
}

/// Which pages were reached.
struct Seen {
    bits: Vec<u64>,
    pages: u64,
    used: u64,
}

impl Seen {
    fn new(pages: u64) -> Self {
        // The database's length was compared with the file's: this is a 32768th of it at most.
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(usize::MAX);
        Self { bits: vec![0; words], pages, used: 0 }
    }

    /// Takes `count` pages from `first` on, none of which was taken before.
    fn claim(&mut self, first: PageId, count: u64) -> Result<(), BoltError> {
        let wrong = |what| BoltError::Page { page: first, what };
        if first.checked_add(count).is_none_or(|end| end > self.pages) {
            return Err(wrong(Damage::Outside));
        }
        for page in first..first + count {
            let (word, bit) = Self::place(page);
            if self.bits[word] & bit != 0 {
                return Err(BoltError::Page { page, what: Damage::Twice });
            }
            self.bits[word] |= bit;
        }
        self.used += count;
        Ok(())
    }

    fn place(page: PageId) -> (usize, u64) {
        (usize::try_from(page / 64).unwrap_or(usize::MAX), 1 << (page % 64))
    }

    fn unclaimed(&self) -> Option<PageId> {
        (0..self.pages).find(|page| {
            let (word, bit) = Self::place(*page);
            self.bits[word] & bit == 0
        })
    }
}

/// Between which keys a page's own must lie.
#[derive(Clone, Default)]
struct Bounds {
    from: Option<Vec<u8>>,
    below: Option<Vec<u8>>,
}

impl Bounds {
    fn hold(&self, key: &[u8]) -> bool {
        self.from.as_deref().is_none_or(|from| from <= key) && self.below.as_deref().is_none_or(|below| key < below)
    }
}

struct Walk<'a> {
    db: &'a Database,
    seen: Seen,
    buffer: Vec<u8>,
}

impl Walk<'_> {
    /// Claims a page with its overflow and reads it into the buffer.
    fn load(&mut self, page: PageId, biggest: impl FnOnce(Header) -> Result<u64, Damage>) -> Result<Header, BoltError> {
        let wrong = |what| BoltError::Page { page, what };
        if page < 2 || page >= self.db.meta.pages {
            return Err(wrong(Damage::Outside));
        }
        let at = page * u64::from(self.db.meta.page_size);
        let mut header = [0; HEADER];
        read(&self.db.file, at, &mut header)?;
        let header = Header::read(&header);
        if header.id != page {
            return Err(wrong(Damage::Elsewhere(header.id)));
        }
        let biggest = biggest(header).map_err(wrong)?;
        let span = 1 + u64::from(header.overflow);
        let bytes = span * u64::from(self.db.meta.page_size);
        self.seen.claim(page, span)?;
        match usize::try_from(bytes) {
            Ok(length) if bytes <= biggest => self.buffer.resize(length, 0),
            _ => return Err(wrong(Damage::Huge(bytes))),
        }
        read(&self.db.file, at, &mut self.buffer)?;
        Ok(header)
    }

    /// Shows every entry of the tree with this root, in order.
    fn tree<E: From<BoltError>>(
        &mut self,
        root: PageId,
        show: &mut impl FnMut(PageId, &[u8], u32, &page::Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        self.subtree(root, &Bounds::default(), 0, show)
    }

    fn subtree<E: From<BoltError>>(
        &mut self,
        page: PageId,
        bounds: &Bounds,
        depth: usize,
        show: &mut impl FnMut(PageId, &[u8], u32, &page::Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let wrong = |what| BoltError::Page { page, what };
        if depth == DEEPEST {
            return Err(wrong(Damage::Deep(depth)).into());
        }
        let header = self.load(page, |header| {
            Ok(match header.kind()? {
                Kind::Branch => BIGGEST_BRANCH,
                Kind::Leaf => BIGGEST_LEAF,
            })
        })?;
        match header.kind().map_err(wrong)? {
            Kind::Leaf if header.count == 0 && depth > 0 => Err(wrong(Damage::Empty).into()),
            Kind::Leaf => self.leaf(page, header, bounds, show),
            Kind::Branch => {
                let children = page::children(&self.buffer, header.count).map_err(wrong)?;
                check_order(children.iter().map(|child| &*child.key), bounds).map_err(wrong)?;
                for (index, Child { key, page }) in children.iter().enumerate() {
                    let next = children.get(index + 1).map(|next| next.key.clone());
                    let bounds = Bounds { from: Some(key.clone()), below: next.or_else(|| bounds.below.clone()) };
                    self.subtree(*page, &bounds, depth + 1, show)?;
                }
                Ok(())
            }
        }
    }

    fn leaf<E: From<BoltError>>(
        &mut self,
        page: PageId,
        header: Header,
        bounds: &Bounds,
        show: &mut impl FnMut(PageId, &[u8], u32, &page::Entry) -> Result<(), E>,
    ) -> Result<(), E> {
        let wrong = |what| BoltError::Page { page, what };
        let (entries, _) = page::entries(&self.buffer, header.count).map_err(wrong)?;
        check_order(entries.iter().map(|entry| &self.buffer[entry.key.clone()]), bounds).map_err(wrong)?;
        for (index, entry) in (0..).zip(&entries) {
            show(page, &self.buffer, index, entry)?;
        }
        // A big value's buffer isn't kept for the small pages that follow.
        if self.buffer.capacity() as u64 > BIGGEST_BRANCH {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Accounts for the pages that no tree reached.
    fn finish(mut self) -> Result<Usage, BoltError> {
        let Some(page) = self.db.meta.freelist else {
            return Ok(Usage { used: self.seen.used, free: self.seen.pages - self.seen.used });
        };
        let header = self.load(page, |_| Ok(BIGGEST_FREELIST))?;
        let used = self.seen.used;
        let wrong = |what| BoltError::Page { page, what };
        let mut last = 1;
        for (index, id) in (0..).zip(page::free(&self.buffer, header).map_err(wrong)?) {
            if id <= last {
                return Err(wrong(Damage::FreeOrder(index)));
            }
            last = id;
            self.seen.claim(id, 1)?;
        }
        match self.seen.unclaimed() {
            Some(page) => Err(BoltError::Lost { page }),
            None => Ok(Usage { used, free: self.seen.used - used }),
        }
    }
}

/// Keys rise, within their bounds.
fn check_order<'a>(keys: impl Iterator<Item = &'a [u8]>, bounds: &Bounds) -> Result<(), Damage> {
    let mut last: Option<&[u8]> = None;
    for (index, key) in (0..).zip(keys) {
        if last.is_some_and(|last| last >= key) || !bounds.hold(key) {
            return Err(Damage::Order(index));
        }
        last = Some(key);
    }
    Ok(())
}
