//! Places header, tables and data clusters of the qcow2 file.
//!
//! Order in the file: header, reference count table, its blocks, L1 table, L2 tables, data clusters in the order of the
//! disk. Every cluster of the file is in use exactly once, so the file has no gap and no waste.

use super::super::inspect::{CLUSTER, ClusterMap};

/// Guest clusters that one L2 table maps (8-byte entries).
const PER_L2: u64 = CLUSTER / 8;
/// Clusters that one block of 16-bit reference counts covers.
const PER_REFCOUNT_BLOCK: u64 = CLUSTER / 2;
/// Set in a table entry when the cluster it points to has a reference count of exactly one.
const COPIED: u64 = 1 << 63;
const HEADER_BYTES: u32 = 104;

/// Where everything is in the file. Numbers are clusters of the file.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    disk_bytes: u64,
    refcount_blocks: u64,
    refcount_table_clusters: u64,
    l1_entries: u64,
    l1_clusters: u64,
    /// Numbers of the L2 tables that have an entry, ascending.
    l2_tables: Vec<u64>,
    data_clusters: u64,
}

impl Layout {
    /// Lays out a disk of `disk_bytes` whose data is in `clusters`.
    pub(super) fn new(disk_bytes: u64, clusters: &ClusterMap) -> Self {
        let mut l2_tables: Vec<u64> = clusters.iter().map(|cluster| cluster / PER_L2).collect();
        l2_tables.dedup();
        let l1_entries = disk_bytes.div_ceil(CLUSTER).div_ceil(PER_L2);
        let mut layout = Self {
            disk_bytes,
            refcount_blocks: 0,
            refcount_table_clusters: 1,
            l1_entries,
            l1_clusters: (l1_entries * 8).div_ceil(CLUSTER).max(1),
            l2_tables,
            data_clusters: clusters.count(),
        };
        // The counts count the clusters they are in themselves: grow until they fit.
        loop {
            let blocks = layout.clusters().div_ceil(PER_REFCOUNT_BLOCK);
            let table = (blocks * 8).div_ceil(CLUSTER);
            if (blocks, table) == (layout.refcount_blocks, layout.refcount_table_clusters) {
                return layout;
            }
            (layout.refcount_blocks, layout.refcount_table_clusters) = (blocks, table);
        }
    }

    /// Size of the file in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.clusters() * CLUSTER
    }

    fn clusters(&self) -> u64 {
        self.first_data() + self.data_clusters
    }

    fn first_refcount_block(&self) -> u64 {
        1 + self.refcount_table_clusters
    }

    fn l1(&self) -> u64 {
        self.first_refcount_block() + self.refcount_blocks
    }

    fn first_l2(&self) -> u64 {
        self.l1() + self.l1_clusters
    }

    fn first_data(&self) -> u64 {
        self.first_l2() + self.l2_tables.len() as u64
    }

    /// All clusters before the first data cluster, at once: under 1 MiB for a Talos disk.
    pub(super) fn metadata(&self, clusters: &ClusterMap) -> Vec<u8> {
        let mut file = Metadata::default();
        file.bytes(&self.header());
        file.pad();
        file.entries((0..self.refcount_blocks).map(|block| (self.first_refcount_block() + block) * CLUSTER));
        file.pad();
        for _ in 0..self.clusters() {
            file.bytes(&1_u16.to_be_bytes());
        }
        file.pad();
        let mut tables = self.l2_tables.iter().zip(self.first_l2()..).peekable();
        file.entries((0..self.l1_entries).map(|entry| match tables.next_if(|(table, _)| **table == entry) {
            Some((_, cluster)) => COPIED | (cluster * CLUSTER),
            None => 0,
        }));
        file.pad();
        let mut next = self.first_data();
        for table in &self.l2_tables {
            file.entries((table * PER_L2..(table + 1) * PER_L2).map(|cluster| {
                if !clusters.has(cluster) {
                    return 0;
                }
                next += 1;
                COPIED | ((next - 1) * CLUSTER)
            }));
        }
        file.0
    }

    fn header(&self) -> Vec<u8> {
        let mut header = Metadata::default();
        header.bytes(b"QFI\xfb");
        header.word(3); // version
        header.long(0); // no backing file
        header.word(0);
        header.word(CLUSTER.trailing_zeros());
        header.long(self.disk_bytes);
        header.word(0); // not encrypted
        header.word(u32::try_from(self.l1_entries).unwrap_or(u32::MAX));
        header.long(self.l1() * CLUSTER);
        header.long(CLUSTER); // the reference count table
        header.word(u32::try_from(self.refcount_table_clusters).unwrap_or(u32::MAX));
        header.word(0); // no snapshots
        header.long(0);
        header.long(0); // no incompatible, compatible or autoclear features
        header.long(0);
        header.long(0);
        header.word(4); // reference counts of 2^4 bits
        header.word(HEADER_BYTES);
        header.long(0); // end of header extensions
        header.0
    }
}

#[derive(Default)]
struct Metadata(Vec<u8>);

impl Metadata {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn word(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn long(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }

    fn entries(&mut self, entries: impl Iterator<Item = u64>) {
        for entry in entries {
            self.long(entry);
        }
    }

    /// Fills the last cluster up with zeros.
    fn pad(&mut self) {
        let cluster = usize::try_from(CLUSTER).unwrap_or(usize::MAX);
        self.0.resize(self.0.len().next_multiple_of(cluster), 0);
    }
}
