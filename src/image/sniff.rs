//! Tells a container by its first bytes.
//!
//! Purpose: names, extensions and content types lie (the factory serves `application/octet-stream`, proxies serve error
//! pages with status 200); magic bytes don't.
//! Must not know: how any container is decoded.

/// How many bytes of the beginning [`sniff`] wants to see.
pub(super) const WANTED: usize = 1024;

/// What a file's first bytes say it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Container {
    /// A plain disk: it has a boot sector.
    Raw,
    /// xz.
    Xz,
    /// zstd.
    Zstd,
    /// gzip.
    Gzip,
    /// QEMU's own format.
    Qcow2,
    /// Something known by name that isn't read.
    Unread(&'static str),
    /// Nothing known.
    Unknown,
}

/// Says what begins with `head`.
pub(super) fn sniff(head: &[u8]) -> Container {
    const NAMED: &[(&[u8], &str)] = &[
        (b"BZh", "bzip2 data"),
        (b"KDMV", "a VMDK image"),
        (b"conectix", "a VHD image"),
        (b"<", "a web page or XML document"),
    ];
    const READ: &[(&[u8], Container)] = &[
        (&[0xfd, b'7', b'z', b'X', b'Z', 0], Container::Xz),
        (&[0x28, 0xb5, 0x2f, 0xfd], Container::Zstd),
        (&[0x1f, 0x8b, 8], Container::Gzip),
        (b"QFI\xfb", Container::Qcow2),
    ];
    if let Some((_, read)) = READ.iter().find(|(magic, _)| head.starts_with(magic)) {
        return *read;
    }
    if let Some((_, name)) = NAMED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Container::Unread(name);
    }
    if head.get(257..262) == Some(b"ustar") {
        return Container::Unread("a tar archive");
    }
    // A protective or real MBR ends with this signature; every disk that boots has one.
    if head.get(510..512) == Some(&[0x55, 0xaa]) { Container::Raw } else { Container::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_told_by_its_first_bytes_only() {
        let mut disk = vec![0; WANTED];
        assert_eq!(sniff(&disk), Container::Unknown);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        assert_eq!(sniff(&disk), Container::Raw);
        assert_eq!(sniff(&[0xfd, b'7', b'z', b'X', b'Z', 0, 0, 4]), Container::Xz);
        assert_eq!(sniff(b"QFI\xfb\0\0\0\x03"), Container::Qcow2);
        assert_eq!(sniff(&[0x28, 0xb5, 0x2f, 0xfd, 4]), Container::Zstd);
        assert_eq!(sniff(&[0x1f, 0x8b, 8, 0]), Container::Gzip);
        assert_eq!(sniff(b"BZh9"), Container::Unread("bzip2 data"));
        assert_eq!(sniff(b"<!doctype html>"), Container::Unread("a web page or XML document"));
        assert_eq!(sniff(b""), Container::Unknown);
    }
}
