use std::fs::File;

use super::page::Header;
use super::*;
use crate::backup::testing::{branch, buckets, database, free, kept, leaf};

/// Collects everything.
#[derive(Default)]
struct All(Vec<String>);

impl Visit for All {
    type Error = BoltError;

    fn bucket(&mut self, name: &[u8]) -> Result<(), BoltError> {
        self.0.push(format!("[{}]", String::from_utf8_lossy(name)));
        Ok(())
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), BoltError> {
        self.0.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
        Ok(())
    }
}

fn walk(bytes: &[u8]) -> Result<(Vec<String>, Usage), BoltError> {
    let kept = kept(bytes);
    let mut all = All::default();
    let database = Database::open(File::open(&kept.path).unwrap(), bytes.len() as u64)?;
    let usage = database.walk(&mut all)?;
    Ok((all.0, usage))
}

fn pair<'a>(key: &'a str, value: &str) -> (&'a [u8], Vec<u8>) {
    (key.as_bytes(), value.as_bytes().to_vec())
}

fn wrong(bytes: &[u8]) -> String {
    walk(bytes).unwrap_err().to_string()
}

#[test]
fn trees_inline_buckets_and_the_free_list() {
    let inline = [&[0; 16][..], &leaf(0, &[pair("i", "1")])].concat();
    let mut root = leaf(2, &[(b"a", [&3_u64.to_le_bytes()[..], &[0; 8]].concat()), (b"b", inline)]);
    root[16] = 1;
    root[32] = 1;
    let pages = [
        root,
        branch(3, &[(b"k1", 4), (b"k3", 5)]),
        leaf(4, &[pair("k1", "x"), pair("k2", "")]),
        leaf(5, &[pair("k4", "y")]),
        free(6, &[7, 8]),
        vec![],
        vec![],
    ];
    let (shown, usage) = walk(&database(2, Some(6), &pages)).unwrap();
    assert_eq!(shown, ["[a]", "k1=x", "k2=", "k4=y", "[b]", "i=1"]);
    assert_eq!(usage, Usage { used: 7, free: 2 });
    let (_, usage) = walk(&database(2, None, &pages)).unwrap();
    assert_eq!(usage, Usage { used: 6, free: 3 });
}

#[test]
fn every_page_belongs_somewhere_exactly_once() {
    let root = || buckets(2, &[(b"a", 3)]);
    let data = || leaf(3, &[pair("k", "v")]);
    let with_free = |ids: &[u64]| database(2, Some(4), &[root(), data(), free(4, ids), vec![], vec![]]);
    assert!(walk(&with_free(&[5, 6])).is_ok());
    assert_eq!(wrong(&with_free(&[5])), "page 6 is neither used nor free");
    assert_eq!(wrong(&with_free(&[3, 5, 6])), "page 3: it is used twice");
    assert_eq!(wrong(&with_free(&[4, 5, 6])), "page 4: it is used twice");
    assert_eq!(wrong(&with_free(&[1, 5, 6])), "page 4: entry 0 of the list of free pages is out of order");
    assert_eq!(wrong(&with_free(&[6, 5])), "page 4: entry 1 of the list of free pages is out of order");
    assert_eq!(wrong(&with_free(&[5, 6, 7])), "page 7: there is no such page");
    let twice = database(2, None, &[buckets(2, &[(b"a", 3), (b"b", 3)]), data()]);
    assert_eq!(wrong(&twice), "page 3: it is used twice");
    let away = database(2, None, &[buckets(2, &[(b"a", 9)]), data()]);
    assert_eq!(wrong(&away), "page 9: there is no such page");
    let moved = database(2, None, &[root(), leaf(7, &[pair("k", "v")])]);
    assert_eq!(wrong(&moved), "page 3: its header says that it is page 7");
}

/// A branch that leads to itself, and branches that lead nowhere for ever.
#[test]
fn there_is_no_way_round_in_circles() {
    let circle = database(2, None, &[buckets(2, &[(b"a", 3)]), branch(3, &[(b"k", 4)]), branch(4, &[(b"k", 3)])]);
    assert_eq!(wrong(&circle), "page 3: it is used twice");
    let mut pages = vec![buckets(2, &[(b"a", 3)])];
    pages.extend((3..40).map(|page| branch(page, &[(b"k", page + 1)])));
    pages.push(leaf(40, &[pair("k", "v")]));
    assert_eq!(wrong(&database(2, None, &pages)), "page 27: it lies 24 levels deep");
}

#[test]
fn keys_rise_from_page_to_page() {
    let of = |children: &[(&[u8], u64)], first: Vec<u8>, second: Vec<u8>| {
        database(2, None, &[buckets(2, &[(b"a", 3)]), branch(3, children), first, second])
    };
    let children: &[(&[u8], u64)] = &[(b"b", 4), (b"d", 5)];
    let (b, d) = (|| leaf(4, &[pair("b", ""), pair("c", "")]), || leaf(5, &[pair("d", "")]));
    assert!(walk(&of(children, b(), d())).is_ok());
    let order = |page: u64, element: u32| format!("page {page}: the key of element {element} is out of order");
    assert_eq!(wrong(&of(children, leaf(4, &[pair("a", "")]), d())), order(4, 0));
    assert_eq!(wrong(&of(children, leaf(4, &[pair("b", ""), pair("d", "")]), d())), order(4, 1));
    assert_eq!(wrong(&of(children, leaf(4, &[pair("c", ""), pair("b", "")]), d())), order(4, 1));
    assert_eq!(wrong(&of(children, leaf(4, &[pair("b", ""), pair("b", "")]), d())), order(4, 1));
    assert_eq!(wrong(&of(&[(b"d", 4), (b"b", 5)], b(), d())), order(3, 1));
    assert_eq!(wrong(&of(children, leaf(4, &[]), d())), "page 4: it holds nothing");
}

#[test]
fn elements_stay_inside_their_page() {
    let of = |page: Vec<u8>| database(2, None, &[buckets(2, &[(b"a", 3)]), page]);
    let changed = |at: usize, value: u32| {
        let mut page = leaf(3, &[pair("k", "v"), pair("l", "w")]);
        page[at..at + 4].copy_from_slice(&value.to_le_bytes());
        wrong(&of(page))
    };
    assert_eq!(changed(16 + 4, 33), "page 3: element 0 does not lie where it should");
    assert_eq!(changed(16 + 8, 0), "page 3: element 0 has a key of 0 bytes");
    assert_eq!(changed(16 + 8, u32::MAX), format!("page 3: element 0 has a key of {} bytes", u32::MAX));
    assert_eq!(changed(32 + 12, u32::MAX), "page 3: element 1 reaches past the page's end");
    assert_eq!(changed(16, 2), "page 3: element 0 has the flags 0x2");
    assert_eq!(changed(16, 1), "page 3: element 0 has the flags 0x1", "no buckets in buckets");
    assert_eq!(changed(10, 0xFFFF), "page 3: element 65535 reaches past the page's end");
    assert_eq!(changed(12, 1), "page 3: there is no such page", "its overflow");
    assert_eq!(changed(12, u32::MAX), "page 3: there is no such page");
    assert_eq!(wrong(&of(free(3, &[]))), "page 3: it is of kind 0x0010, and a branch or leaf page belongs here");
}

/// A file that is all hole costs nothing, whatever its header promises.
#[test]
fn a_huge_page_is_not_read() {
    let kept = kept(&database(2, None, &[buckets(2, &[(b"a", 3)]), leaf(3, &[pair("k", "v")])]));
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&kept.path).unwrap();
    let (pages, bytes) = (1_u64 << 20, 4096 << 20);
    let mut metas = std::fs::read(&kept.path).unwrap();
    file.set_len(bytes).unwrap();
    for page in [0, 4096] {
        metas[page + 16 + 40..page + 16 + 48].copy_from_slice(&pages.to_le_bytes());
    }
    crate::backup::testing::with_checksums(&mut metas);
    std::os::unix::fs::FileExt::write_all_at(&file, &metas, 0).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &100_000_u32.to_le_bytes(), 3 * 4096 + 12).unwrap();
    let database = Database::open(file, bytes).unwrap();
    let refused = database.walk(&mut All::default()).unwrap_err().to_string();
    assert_eq!(refused, "page 3: it has 409604096 bytes, more than etcd ever writes at once");
}

#[test]
fn both_meta_pages_must_be_sound() {
    let good = database(2, None, &[leaf(2, &[])]);
    assert_eq!(walk(&good).unwrap().0.len(), 0);
    for page in [0, 4096] {
        for at in 0..80 {
            let mut bad = good.clone();
            bad[page + at] ^= 0x40;
            assert!(wrong(&bad).starts_with("meta page"), "byte {at} of meta page {page}");
        }
    }
    assert!(wrong(&good[..100]).contains("cut off"));
    assert!(wrong(&good[..2 * 4096]).contains("3 pages of 4096 bytes, and the file only 8192"));
    assert!(wrong(b"SQLite format 3\0".repeat(600).as_slice()).contains("no bbolt database"));
}

#[test]
fn a_long_free_list_counts_in_its_first_entry() {
    let mut bytes = free(9, &[3, 20, 21, 22, 0]);
    bytes[10..12].copy_from_slice(&0xFFFF_u16.to_le_bytes());
    let ids: Vec<u64> = page::free(&bytes, Header::read(&bytes)).unwrap().collect();
    assert_eq!(ids, [20, 21, 22]);
    for count in [5_u64, u64::MAX] {
        bytes[16..24].copy_from_slice(&count.to_le_bytes());
        assert_eq!(page::free(&bytes, Header::read(&bytes)).err(), Some(Damage::Beyond(0)));
    }
    assert!(page::free(&bytes[..16], Header::read(&bytes)).is_err());
}
