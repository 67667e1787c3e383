//! PEM text: one labelled block of base64.
//!
//! Written by hand because Talos labels an Ed25519 key `ED25519 PRIVATE KEY`, which PEM libraries for keys neither read
//! nor write. Must not know: what is in the block.

use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};

use super::Flaw;

/// Base64 as Go's library reads it: bits after the last byte mean nothing.
pub(super) const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// A PEM block.
pub(super) struct Block {
    pub(super) label: String,
    pub(super) der: Vec<u8>,
}

/// The first PEM block of `text`. Its BEGIN and END begin a line, else Talos does not see them.
pub(super) fn decode(text: &str) -> Result<Block, Flaw> {
    const BEGIN: &str = "-----BEGIN ";
    let mut lines = text.lines();
    let Some(first) = lines.find_map(|line| line.strip_prefix(BEGIN)) else {
        return Err(if text.contains(BEGIN) { Flaw::Truncated } else { Flaw::NoPem });
    };
    let label =
        first.trim_end().strip_suffix("-----").filter(|label| !label.contains("-----")).ok_or(Flaw::Truncated)?;
    let end = format!("-----END {label}-----");
    let mut body = String::new();
    loop {
        match lines.next() {
            Some(line) if line.starts_with(&end) => break,
            // Headers, as openssl wrote them once.
            Some(line) if body.is_empty() && line.contains(':') => {}
            Some(line) => body.extend(line.split_ascii_whitespace()),
            None => return Err(Flaw::Truncated),
        }
    }
    let der = BASE64.decode(body).map_err(|_| Flaw::Truncated)?;
    if der.is_empty() { Err(Flaw::Truncated) } else { Ok(Block { label: label.to_owned(), der }) }
}

/// `der` in lines of 64 characters under `label`, with a newline at the end.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let body = BASE64.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text + &format!("-----END {label}-----\n")
}
