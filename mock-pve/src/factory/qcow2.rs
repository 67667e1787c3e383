//! A raw image as qcow2: version 3, clusters of 8 KiB as the factory's, nothing stored for zeros.

#![expect(clippy::cast_possible_truncation, reason = "tables of an image of 256 MiB fit any usize")]

use std::io::{self, Read, Write};

const CLUSTER_BITS: u32 = 13;
const CLUSTER: u64 = 1 << CLUSTER_BITS;
const COPIED: u64 = 1 << 63;

/// Which clusters of an image of `bytes` hold data: the map that the first pass makes and the second one follows.
struct Layout {
    used: Vec<bool>,
    bytes: u64,
}

/// Writes what `open` reads (twice: for the map, then for the data) as qcow2 to `to`.
pub(super) fn convert<R: Read>(open: impl Fn() -> io::Result<R>, bytes: u64, to: &mut impl Write) -> io::Result<()> {
    let mut used = Vec::new();
    each_cluster(&mut open()?, |cluster| {
        used.push(cluster.iter().any(|byte| *byte != 0));
        Ok(())
    })?;
    let layout = Layout { used, bytes };
    layout.write_tables(to)?;
    let mut at = 0;
    each_cluster(&mut open()?, |cluster| {
        let used = layout.used.get(at).copied().unwrap_or_default();
        at += 1;
        if !used {
            return Ok(());
        }
        let mut whole = cluster.to_vec();
        whole.resize(CLUSTER as usize, 0);
        to.write_all(&whole)
    })
}

impl Layout {
    /// Header, refcount table and blocks, L1, L2; data follows.
    fn write_tables(&self, to: &mut impl Write) -> io::Result<()> {
        let per_l2 = CLUSTER / 8;
        let per_block = CLUSTER / 2;
        let data = self.used.iter().filter(|used| **used).count() as u64;
        let l2_tables: Vec<&[bool]> = self.used.chunks(per_l2 as usize).collect();
        let l2_used = l2_tables.iter().filter(|part| part.contains(&true)).count() as u64;
        let l1_clusters = (l2_tables.len() as u64 * 8).div_ceil(CLUSTER);
        // Refcount blocks count themselves: go round until the number settles.
        let mut blocks = 1_u64;
        let total = loop {
            let table = (blocks * 8).div_ceil(CLUSTER);
            let total = 1 + table + blocks + l1_clusters + l2_used + data;
            if total.div_ceil(per_block) <= blocks {
                break total;
            }
            blocks = total.div_ceil(per_block);
        };
        let table_clusters = (blocks * 8).div_ceil(CLUSTER);
        let first_block = 1 + table_clusters;
        let l1_at = first_block + blocks;
        let l2_at = l1_at + l1_clusters;

        let mut header = b"QFI\xfb".to_vec();
        push32(&mut header, 3);
        header.extend([0; 12]);
        push32(&mut header, CLUSTER_BITS);
        push64(&mut header, self.bytes);
        push32(&mut header, 0);
        push32(&mut header, u32::try_from(l2_tables.len()).map_err(io::Error::other)?);
        push64(&mut header, l1_at * CLUSTER);
        push64(&mut header, CLUSTER);
        push32(&mut header, u32::try_from(table_clusters).map_err(io::Error::other)?);
        header.extend([0; 4 + 8 + 8 + 8 + 8]);
        push32(&mut header, 4);
        push32(&mut header, 104);
        write_clusters(&header, 1, to)?;

        let mut table = Vec::new();
        (0..blocks).for_each(|block| push64(&mut table, (first_block + block) * CLUSTER));
        write_clusters(&table, table_clusters, to)?;
        let counts: Vec<u8> = (0..total).flat_map(|_| 1_u16.to_be_bytes()).collect();
        write_clusters(&counts, blocks, to)?;

        let (mut l1, mut l2) = (Vec::new(), Vec::new());
        let mut next_l2 = l2_at;
        let mut next_data = l2_at + l2_used;
        for part in l2_tables {
            if !part.contains(&true) {
                push64(&mut l1, 0);
                continue;
            }
            push64(&mut l1, (next_l2 * CLUSTER) | COPIED);
            next_l2 += 1;
            for used in part {
                push64(&mut l2, if *used { (next_data * CLUSTER) | COPIED } else { 0 });
                next_data += u64::from(*used);
            }
            l2.resize(l2.len().next_multiple_of(CLUSTER as usize), 0);
        }
        write_clusters(&l1, l1_clusters, to)?;
        to.write_all(&l2)
    }
}

fn each_cluster(from: &mut impl Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut cluster = Vec::with_capacity(CLUSTER as usize);
    loop {
        cluster.clear();
        from.take(CLUSTER).read_to_end(&mut cluster)?;
        if cluster.is_empty() {
            return Ok(());
        }
        each(&cluster)?;
    }
}

fn write_clusters(bytes: &[u8], clusters: u64, to: &mut impl Write) -> io::Result<()> {
    to.write_all(bytes)?;
    to.write_all(&vec![0; (clusters * CLUSTER) as usize - bytes.len()])
}

fn push32(to: &mut Vec<u8>, value: u32) {
    to.extend(value.to_be_bytes());
}

fn push64(to: &mut Vec<u8>, value: u64) {
    to.extend(value.to_be_bytes());
}
