//! The parts of a URL, and which characters each of them escapes.
//!
//! Must not know: how a URL is put together.

use super::UrlError;

/// A part that keeps how it was written, where that is not how it would be escaped anew.
#[derive(Clone, PartialEq, Eq, Default)]
pub(super) struct Escaped {
    pub(super) bytes: Vec<u8>,
    written: String,
}

/// A part of a URL; each lets other characters stand as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Path,
    Host,
    Zone,
    User,
    Fragment,
}

impl Part {
    /// Whether a character of this part is written as it is.
    fn has(self, byte: u8) -> bool {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            return true;
        }
        match self {
            Self::Path => b"$&+,/:;=@".contains(&byte),
            Self::Host | Self::Zone => b"!$&'()*+,;=:[]<>\"".contains(&byte),
            Self::User => b"$&+,;=".contains(&byte),
            Self::Fragment => b"$&+,/:;=?@!()*".contains(&byte),
        }
    }

    pub(super) fn escape(self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        for byte in bytes {
            if self.has(*byte) { text.push(char::from(*byte)) } else { text.push_str(&format!("%{byte:02X}")) }
        }
        text
    }

    pub(super) fn unescape(self, text: &str) -> Result<Vec<u8>, UrlError> {
        let hosts = matches!(self, Self::Host | Self::Zone);
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte != b'%' {
                if hosts && byte.is_ascii() && !self.has(byte) {
                    return Err(UrlError::Host);
                }
                bytes.push(byte);
                continue;
            }
            let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(rest.next()), digit(rest.next())) else {
                return Err(UrlError::Escape);
            };
            let value = u8::try_from(high * 16 + low).map_err(|_| UrlError::Escape)?;
            let hidden = match self {
                // Of ASCII a host may hide nothing but the mark itself.
                Self::Host => value.is_ascii() && value != b'%',
                Self::Zone => value != b'%' && value != b' ' && !Self::Host.has(value),
                _ => false,
            };
            if hidden {
                return Err(UrlError::Escape);
            }
            bytes.push(value);
        }
        Ok(bytes)
    }
}

impl Escaped {
    /// A part that is written as it is.
    pub(super) fn plain(text: &str) -> Self {
        Self { bytes: text.into(), written: String::new() }
    }

    pub(super) fn parse(part: Part, text: &str) -> Result<Self, UrlError> {
        let bytes = part.unescape(text)?;
        let written = if part.escape(&bytes) == text { String::new() } else { text.to_owned() };
        Ok(Self { bytes, written })
    }

    /// As it is written again: as it was, where each character may stand as it does and that is what it says, else
    /// escaped anew.
    pub(super) fn text(&self, part: Part) -> String {
        let fits = |byte: u8| part.has(byte) || b"!$&'()*+,;=:@[]%".contains(&byte);
        let is_kept = !self.written.is_empty()
            && self.written.bytes().all(fits)
            && part.unescape(&self.written).is_ok_and(|bytes| bytes == self.bytes);
        if is_kept {
            self.written.clone()
        } else if part == Part::Path && self.bytes == b"*" {
            "*".to_owned()
        } else {
            part.escape(&self.bytes)
        }
    }

    /// What is said and how it was written are taken over apart, as the real tool has it.
    pub(super) fn merge(&mut self, other: Self) {
        if !other.bytes.is_empty() {
            self.bytes = other.bytes;
        }
        pick(&mut self.written, other.written);
    }
}

/// Takes the other text if there is one.
pub(super) fn pick(text: &mut String, other: String) {
    if !other.is_empty() {
        *text = other;
    }
}
