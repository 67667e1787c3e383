use super::*;
use crate::image::walker::tests::{file, odd_disk, xz};

fn open(bytes: &[u8]) -> Result<XzBlocks, XzError> {
    XzBlocks::open(Input::open(file(bytes).path()).unwrap())
}

fn decode(blocks: &mut XzBlocks) -> Result<Vec<u8>, XzError> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 300_000]);
    loop {
        match blocks.read(&mut buffer)? {
            0 => return Ok(all),
            made => all.extend_from_slice(&buffer[..made]),
        }
    }
}

fn decoded(bytes: &[u8]) -> Result<Vec<u8>, XzError> {
    open(bytes).and_then(|mut blocks| decode(&mut blocks))
}

/// Twelve MiB, of which three hold something.
fn mostly_zeros() -> Vec<u8> {
    let mut disk = odd_disk();
    disk.resize(12 << 20, 0);
    disk[(9 << 20) + 77] = 1;
    disk
}

/// Where each block of the file begins and how long it is, and where the index begins.
fn blocks(bytes: &[u8]) -> (Vec<(usize, usize)>, usize) {
    let mut walked = open(bytes).unwrap();
    decode(&mut walked).unwrap();
    let mut at = 12;
    let mut found = Vec::new();
    for record in &walked.records {
        let length = usize::try_from(padded(record.unpadded)).unwrap();
        found.push((at, length));
        at += length;
    }
    (found, at)
}

#[test]
fn zeros_are_decoded_once() {
    let disk = mostly_zeros();
    let mut blocks = open(&xz(&disk)).unwrap();
    assert!(decode(&mut blocks).unwrap() == disk);
    let with_data = disk.chunks(1 << 20).filter(|chunk| !is_zeros(chunk)).count();
    assert_eq!(blocks.decoded, with_data + 1);
}

#[test]
fn runs_of_zeros_are_told_without_being_made() {
    let mut blocks = open(&xz(&mostly_zeros())).unwrap();
    let (mut skipped, mut buffer) = (0, vec![0; 1 << 20]);
    let mut made = 0;
    loop {
        match blocks.zeros().unwrap() {
            0 => {}
            more => {
                skipped += more;
                continue;
            }
        }
        match blocks.read(&mut buffer).unwrap() {
            0 => break,
            more => made += more as u64,
        }
    }
    assert_eq!((skipped + made, skipped % GRAIN), (12 << 20, 0));
    // The first block of zeros is decoded, the six others are not.
    assert_eq!(skipped, 6 << 20);
}

#[test]
fn a_block_that_only_looks_like_the_zeros_is_decoded_and_refused() {
    let file = xz(&mostly_zeros());
    let (blocks, _) = blocks(&file);
    // The last block, one of zeros: every byte of it counts.
    let (start, length) = *blocks.last().unwrap();
    assert!(length < 1000, "the last block was meant to be zeros");
    for at in start..start + length {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        assert!(decoded(&damaged).is_err(), "a flip at {at} was taken");
    }
}

#[test]
fn every_bit_of_header_index_and_footer_counts() {
    let file = xz(&mostly_zeros());
    let (_, index) = blocks(&file);
    for at in (0..12).chain(index..file.len()) {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(decoded(&damaged).is_err(), "bit {bit} at {at} of {}", file.len());
        }
    }
}

#[test]
fn a_cut_at_any_edge_and_anything_appended_is_refused() {
    let file = xz(&mostly_zeros());
    let (blocks, index) = blocks(&file);
    let edges = blocks.iter().map(|(at, _)| *at).chain([0, 6, 12, index, file.len() - 12, file.len() - 1]);
    for cut in edges {
        assert!(decoded(&file[..cut]).is_err(), "cut at {cut}");
    }
    for tail in [&[0; 1][..], &[0; 3], &[1; 4], b"more", &file[..12], &file[..file.len() - 4]] {
        assert!(decoded(&[&file[..], tail].concat()).is_err(), "{} more", tail.len());
    }
}

#[test]
fn the_index_must_be_that_of_the_blocks() {
    let file = xz(&mostly_zeros());
    let (blocks, index) = blocks(&file);
    // An index that is sound in itself and tells of one block less, of one more, of another order.
    let header: [u8; 12] = file[..12].try_into().unwrap();
    let mut walked = open(&file).unwrap();
    decode(&mut walked).unwrap();
    let records = walked.records;
    let less = end_of_stream(&records[1..], header);
    let more = end_of_stream(&[&records[..], &records[..1]].concat(), header);
    let mut swapped = records.clone();
    swapped.swap(0, 1);
    for wrong in [less, more, end_of_stream(&swapped, header)] {
        assert!(decoded(&[&file[..index], &wrong].concat()).is_err());
    }
    // A block taken out of the middle, or one put in twice, with the index as it was.
    let (at, length) = blocks[1];
    assert!(decoded(&[&file[..at], &file[at + length..]].concat()).is_err());
    assert!(decoded(&[&file[..at + length], &file[at..]].concat()).is_err());
}

#[test]
fn streams_may_follow_each_other_with_padding_between() {
    let (file, disk) = (xz(&mostly_zeros()), mostly_zeros());
    let twice = [&disk[..], &disk].concat();
    assert!(decoded(&[&file[..], &file].concat()).unwrap() == twice);
    assert!(decoded(&[&file[..], &[0; 8], &file, &[0; 4]].concat()).unwrap() == twice);
}

#[test]
fn blocks_without_sizes_are_left_to_the_general_decoder() {
    use xz2::stream::{Action, Check, Stream};
    let mut stream = Stream::new_easy_encoder(6, Check::Crc64).unwrap();
    let mut file = Vec::with_capacity(1 << 20);
    stream.process_vec(&odd_disk(), &mut file, Action::Finish).unwrap();
    assert!(matches!(decoded(&file), Err(XzError::Unsuited)));
}
