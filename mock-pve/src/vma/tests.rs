//! Archives by themselves.

use super::*;

fn header(sizes: &[u64]) -> Header {
    let device =
        |(number, size): (u8, &u64)| (number, Device { name: format!("drive-scsi{}", number - 1), size: *size });
    Header {
        uuid: *b"0123456789abcdef",
        ctime: 1_700_000_000,
        configs: vec![("qemu-server.conf".to_owned(), b"cores: 2\n".to_vec())],
        devices: (1..).zip(sizes).map(device).collect(),
    }
}

fn archive(header: &Header, disks: &[Vec<u8>]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), header).unwrap();
    for (device, disk) in (1..).zip(disks) {
        for (number, cluster) in (0..).zip(disk.chunks(CLUSTER)) {
            writer.cluster(device, number, cluster).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn restored(bytes: &[u8]) -> Result<(Header, Vec<Vec<u8>>, Totals), VmaError> {
    let mut reader = Reader::open(bytes)?;
    let header = reader.header().clone();
    let mut disks: Vec<Vec<u8>> =
        header.devices.values().map(|device| vec![0; usize::try_from(device.size).unwrap()]).collect();
    let totals = reader.restore(|device, offset, data| {
        let offset = usize::try_from(offset).unwrap();
        disks[usize::from(device) - 1][offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    })?;
    Ok((header, disks, totals))
}

/// Two disks: one of many extents with holes, one that ends within a block.
fn disks() -> Vec<Vec<u8>> {
    let mut big = vec![0_u8; 130 * CLUSTER];
    for at in [0, 5000, CLUSTER * 61 + 70, CLUSTER * 129] {
        big[at..at + 3 * BLOCK].fill(7);
    }
    vec![big, vec![9_u8; CLUSTER + 1536]]
}

#[test]
fn damaged_archives_are_refused_with_the_reason() {
    let disks = disks();
    let head = header(&[disks[0].len() as u64, disks[1].len() as u64]);
    let good = archive(&head, &disks);
    let size = 12_288 + 512;
    let spoilt = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        restored(&bytes).unwrap_err().to_string()
    };
    assert_eq!(spoilt(0), "not a vma file - wrong magic number");
    assert_eq!(spoilt(30), "wrong vma header chechsum");
    assert_eq!(spoilt(size), "vma extent - wrong magic number");
    assert_eq!(spoilt(size + 45), "wrong vma extent header chechsum");
    let short = restored(&good[..good.len() - 5000]).unwrap_err().to_string();
    assert!(short.contains("short vma extent"), "{short}");
    assert_eq!(restored(&good[..100]).unwrap_err().to_string(), "can't read vma header - got EOF");
    assert_eq!(restored(b"").unwrap_err().to_string(), "can't read vma header - got EOF");
    // Whole extents that are missing are missing clusters.
    let missing = restored(&good[..size]).unwrap_err().to_string();
    assert!(missing.contains("missing clusters of stream drive-scsi0 (0 of 130)"), "{missing}");
}

#[test]
fn what_is_written_comes_back_and_zeros_take_no_room() {
    let disks = disks();
    let head = header(&[disks[0].len() as u64, disks[1].len() as u64]);
    let bytes = archive(&head, &disks);
    let (header, back, totals) = restored(&bytes).unwrap();
    assert_eq!((header, back), (head, disks));
    // 16 blocks of the second disk's first cluster, one of its second; three or four at each place of the first.
    assert!(bytes.len() < 40 * BLOCK, "{}", bytes.len());
    assert_eq!(totals.bytes, 132 * CLUSTER as u64);
    assert!(totals.zeros > totals.partial_zeros && totals.partial_zeros > 0);
}

#[test]
fn the_bytes_are_where_the_format_says() {
    let disk = vec![3_u8; CLUSTER];
    let bytes = archive(&header(&[CLUSTER as u64]), &[disk]);
    assert_eq!(&bytes[..8], b"VMA\0\0\0\0\x01");
    // Header size, the first config's name (blob 1: its length, little-endian, then a text that ends with zero).
    assert_eq!(bytes[56..60], 12_800_u32.to_be_bytes());
    assert_eq!(bytes[2044..2048], 1_u32.to_be_bytes());
    assert_eq!(&bytes[12_289..12_308], b"\x11\0qemu-server.conf\0");
    assert_eq!(bytes[4096 + 32 + 8..4096 + 32 + 16], (CLUSTER as u64).to_be_bytes());
    let extent = &bytes[12_800..];
    assert_eq!((&extent[..4], &extent[6..8]), (&b"VMAE"[..], &[0, 16][..]));
    assert_eq!(extent[40..48], [0xff, 0xff, 0, 1, 0, 0, 0, 0]);
    assert_eq!(extent.len(), 512 + CLUSTER);
}

#[test]
fn packed_archives_are_known_by_their_names() {
    assert_eq!(Packing::of("vzdump-qemu-100-x.vma.zst"), Some(Packing::Zstd));
    assert_eq!(
        (Packing::of("x.vma"), Packing::of("x.vma.lzo"), Packing::of("x.tar.gz")),
        (Some(Packing::Plain), Some(Packing::Lzop), None)
    );
    let dir = tempfile::tempdir().unwrap();
    for packing in [Packing::Plain, Packing::Gzip, Packing::Lzop, Packing::Zstd, Packing::Bzip2] {
        let path = dir.path().join("archive");
        pack(std::fs::File::create(&path).unwrap(), packing, |writer| writer.write_all(b"some bytes")).unwrap();
        let mut back = String::new();
        let mut reader = unpack(std::fs::File::open(&path).unwrap(), packing).unwrap();
        std::io::Read::read_to_string(&mut reader, &mut back).unwrap();
        assert_eq!(back, "some bytes", "{packing:?}");
    }
}
