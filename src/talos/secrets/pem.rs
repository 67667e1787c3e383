//! PEM text: one labelled block of base64.
//!
//! Written by hand because Talos labels an Ed25519 key `ED25519 PRIVATE KEY`, which PEM libraries for keys neither read
//! nor write. Must not know: what is in the block.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Flaw;

/// A PEM block.
pub(super) struct Block {
    pub(super) label: String,
    pub(super) der: Vec<u8>,
}

/// The first PEM block of `text`.
pub(super) fn decode(text: &str) -> Result<Block, Flaw> {
    let start = text.find("-----BEGIN ").ok_or(Flaw::NoPem)?;
    let rest = &text[start + "-----BEGIN ".len()..];
    let (label, rest) = rest.split_once("-----").ok_or(Flaw::Truncated)?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----")).ok_or(Flaw::Truncated)?;
    let body: String = body.split_ascii_whitespace().collect();
    let der = STANDARD.decode(body).map_err(|_| Flaw::Truncated)?;
    if der.is_empty() { Err(Flaw::Truncated) } else { Ok(Block { label: label.to_owned(), der }) }
}

/// `der` in lines of 64 characters under `label`, with a newline at the end.
pub(super) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
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
