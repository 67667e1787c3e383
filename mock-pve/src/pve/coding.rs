//! Packed answers.
//!
//! Purpose: which answers are packed for whom (Proxmox VE 8.4, PVE/APIServer/AnyEvent.pm, `response`), and how. Must
//! not know: what is in them. Start at [`Coding::accepted`].

use std::io::{self, Write as _};

use ::http::HeaderMap;
use ::http::header::ACCEPT_ENCODING;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// What is no longer than this isn't worth it.
pub(super) const WORTH: usize = 1024;

/// How an answer is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// As `gzip` does.
    Gzip,
    /// As `zlib` does.
    Deflate,
}

impl Coding {
    /// The one that a client takes. The original looks for the word and for nothing else, and likes `gzip` best.
    pub(super) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let says = |word: &str| {
            headers.get_all(ACCEPT_ENCODING).iter().any(|value| value.to_str().is_ok_and(|text| text.contains(word)))
        };
        if says("gzip") { Some(Self::Gzip) } else { says("deflate").then_some(Self::Deflate) }
    }

    /// Its name in a header.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Bytes, packed.
    pub(super) fn pack(self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
                encoder.write_all(bytes)?;
                encoder.finish()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn the_word_is_enough_and_gzip_comes_first() {
        for (said, coding) in [
            ("", None),
            ("identity, br", None),
            ("GZIP", None),
            ("deflate", Some(Coding::Deflate)),
            ("deflate, gzip;q=0.1", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
        ] {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(said))]);
            assert_eq!(Coding::accepted(&headers), coding, "{said}");
        }
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }

    #[test]
    fn what_is_packed_can_be_unpacked() {
        let text = "all the same ".repeat(1000);
        let (gzip, zlib) =
            (Coding::Gzip.pack(text.as_bytes()).unwrap(), Coding::Deflate.pack(text.as_bytes()).unwrap());
        assert!(gzip.len() < text.len() / 10 && zlib.len() < gzip.len());
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
        unpacked.clear();
        flate2::read::ZlibDecoder::new(&zlib[..]).read_to_string(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
    }
}
