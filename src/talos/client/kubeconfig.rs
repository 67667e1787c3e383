//! The kubeconfig's parcel: a gzipped tar whose archive never ends.
//!
//! Talos closes the gzip writer but not the tar writer: there is neither padding nor an end-of-archive block
//! (internal/app/machined, Kubeconfig), so a strict tar reader calls it cut off. The header says how long the file is.

use std::io::Read;

use flate2::read::GzDecoder;
use secrecy::SecretString;

const BLOCK: usize = 512;
const LIMIT: u64 = 4 << 20;

/// The text of the first regular file; the error says what is wrong, as a noun phrase.
pub(super) fn unpack(packed: &[u8]) -> Result<SecretString, &'static str> {
    let mut tar = Vec::new();
    GzDecoder::new(packed)
        .take(LIMIT)
        .read_to_end(&mut tar)
        .map_err(|_| "something that isn't gzip, or a part of it")?;
    let mut rest = tar.as_slice();
    loop {
        let (header, after) = rest.split_at_checked(BLOCK).ok_or("a tar archive without a file")?;
        let size = size(&header[124..136]).ok_or("a tar archive with a damaged header")?;
        let content = after.get(..size).ok_or("a part of a tar archive")?;
        // '0' and NUL are regular files; extended headers go before the file they describe.
        if matches!(header[156], b'0' | 0) {
            return std::str::from_utf8(content).map(SecretString::from).map_err(|_| "a file that isn't text");
        }
        rest = after.get(size.next_multiple_of(BLOCK)..).ok_or("a tar archive without a file")?;
    }
}

/// Octal digits, ended by NUL or space.
fn size(field: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    usize::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use secrecy::ExposeSecret;

    use super::*;

    /// As Talos packs it: one header, the content, and nothing after it.
    pub(in super::super) fn pack(content: &str, announced: usize) -> Vec<u8> {
        let mut header = [0_u8; BLOCK];
        header[..10].copy_from_slice(b"kubeconfig");
        header[124..136].copy_from_slice(format!("{announced:011o}\0").as_bytes());
        header[156] = b'0';
        let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
        gzip.write_all(&header).unwrap();
        gzip.write_all(content.as_bytes()).unwrap();
        gzip.finish().unwrap()
    }

    #[test]
    fn an_archive_without_padding_and_end_is_read() {
        let text = "apiVersion: v1\nkind: Config\n";
        assert_eq!(unpack(&pack(text, text.len())).unwrap().expose_secret(), text);
    }

    #[test]
    fn what_was_cut_off_is_refused() {
        let text = "apiVersion: v1\n";
        assert_eq!(unpack(&pack(text, text.len() + 1)).unwrap_err(), "a part of a tar archive");
        let whole = pack(text, text.len());
        assert!(unpack(&whole[..whole.len() - 12]).is_err());
        assert!(unpack(b"").is_err());
    }
}
