//! What is wrong with a JSON body.
//!
//! Purpose: the complaint of the original's reader (Perl's `JSON::XS`) about a text that is no JSON: its words, the
//! offset, and what stands there. Must not know: parameters. Start at [`complaint`].

use std::fmt::Write as _;

/// How deep the original reads.
const DEPTH: usize = 512;
/// How much of what stands there is shown.
const SHOWN: usize = 20;

const MALFORMED: &str = "malformed JSON string, neither tag, array, object, number, string or atom";

/// A text on its way through the grammar.
struct Scan<'a> {
    raw: &'a [u8],
    at: usize,
    depth: usize,
}

type Read = Result<(), &'static str>;

impl Scan<'_> {
    fn next(&self) -> Option<u8> {
        self.raw.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, complaint: &'static str) -> Read {
        if self.next() != Some(byte) {
            return Err(complaint);
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str, complaint: &'static str) -> Read {
        if !self.raw[self.at..].starts_with(word.as_bytes()) {
            return Err(complaint);
        }
        self.at += word.len();
        Ok(())
    }

    fn value(&mut self) -> Read {
        match self.next() {
            Some(b'"') => {
                self.at += 1;
                self.string()
            }
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", "'true' expected"),
            Some(b'f') => self.word("false", "'false' expected"),
            Some(b'n') => self.word("null", "'null' expected"),
            _ => Err(MALFORMED),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Read) -> Read {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("json text or perl structure exceeds maximum nesting level (max_depth set too low?)");
        }
        self.at += 1;
        self.blanks();
        inner(self)?;
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self) -> Read {
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.expect(b'"', "'\"' expected")?;
            self.string()?;
            self.blanks();
            self.expect(b':', "':' expected")?;
            self.blanks();
            self.value()?;
            self.blanks();
            if self.next() == Some(b'}') {
                self.at += 1;
                return Ok(());
            }
            self.expect(b',', ", or } expected while parsing object/hash")?;
            self.blanks();
        }
    }

    fn array(&mut self) -> Read {
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(());
        }
        loop {
            self.value()?;
            self.blanks();
            if self.next() == Some(b']') {
                self.at += 1;
                return Ok(());
            }
            self.expect(b',', ", or ] expected while parsing array")?;
            self.blanks();
        }
    }

    /// What follows an opening quote.
    fn string(&mut self) -> Read {
        loop {
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(0x20..=0x7f) => self.at += 1,
                Some(0x80..) => {
                    let rest = &self.raw[self.at..];
                    let shown = &rest[..rest.len().min(4)];
                    let valid = match std::str::from_utf8(shown) {
                        Ok(text) => text,
                        Err(error) => std::str::from_utf8(&shown[..error.valid_up_to()]).unwrap_or_default(),
                    };
                    let character = valid.chars().next().ok_or("malformed UTF-8 character in JSON string")?;
                    self.at += character.len_utf8();
                }
                None | Some(0) => return Err("unexpected end of string while parsing JSON string"),
                Some(_) => return Err("invalid character encountered while parsing JSON string"),
            }
        }
    }

    fn escape(&mut self) -> Read {
        match self.raw.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b't' | b'n' | b'f' | b'r') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                self.at += 2;
                let first = self.hex()?;
                match first {
                    0xD800..=0xDBFF => {
                        if !self.raw[self.at..].starts_with(b"\\u") {
                            return Err("missing low surrogate character in surrogate pair");
                        }
                        self.at += 2;
                        let second = self.hex()?;
                        if (0xDC00..=0xDFFF).contains(&second) { Ok(()) } else { Err("surrogate pair expected") }
                    }
                    0xDC00..=0xDFFF => Err("missing high surrogate character in surrogate pair"),
                    _ => Ok(()),
                }
            }
            _ => {
                self.at += 1;
                Err("illegal backslash escape sequence in string")
            }
        }
    }

    fn hex(&mut self) -> Result<u32, &'static str> {
        let digits = self.raw.get(self.at..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let number = number.ok_or("exactly four hexadecimal digits expected")?;
        self.at += 4;
        Ok(number)
    }

    fn digits(&mut self, complaint: &'static str) -> Read {
        if !self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(complaint);
        }
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Read {
        if self.next() == Some(b'-') {
            self.at += 1;
        }
        if self.next() == Some(b'0') {
            self.at += 1;
            if self.next().is_some_and(|byte| byte.is_ascii_digit()) {
                return Err("malformed number (leading zero must not be followed by another digit)");
            }
        } else {
            self.digits("malformed number (no digits after initial minus)")?;
        }
        if self.next() == Some(b'.') {
            self.at += 1;
            self.digits("malformed number (no digits after decimal point)")?;
        }
        if matches!(self.next(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.next(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("malformed number (no digits after exp sign)")?;
        }
        Ok(())
    }

    fn all(&mut self) -> Read {
        self.blanks();
        self.value()?;
        self.blanks();
        if self.next().is_some_and(|byte| byte != 0) { Err("garbage after JSON object") } else { Ok(()) }
    }
}

/// What stands at an offset, as far as it is shown.
fn shown(rest: &[u8]) -> String {
    if rest.is_empty() {
        return "(end of string)".to_owned();
    }
    let mut text = String::new();
    for character in String::from_utf8_lossy(rest).chars() {
        if text.len() >= SHOWN {
            return text + "...";
        }
        match character {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            '\u{c}' => text.push_str("\\f"),
            '\u{7}' => text.push_str("\\a"),
            '\\' => text.push_str("\\\\"),
            ' '..='~' => text.push(character),
            other => {
                // Writing to a text can't fail.
                let _ = write!(text, "\\x{{{:x}}}", u32::from(other));
            }
        }
    }
    text
}

/// What the original's reader says of a text that isn't JSON, without the place in its own code.
pub(super) fn complaint(raw: &[u8]) -> String {
    let mut scan = Scan { raw, at: 0, depth: 0 };
    let complaint = if let Err(complaint) = scan.all() {
        complaint
    } else {
        // It is JSON, but none that can be read here: a number that is too large, or something nested too deeply.
        scan.at = 0;
        MALFORMED
    };
    let at = scan.at.min(raw.len());
    format!("{complaint}, at character offset {at} (before \"{}\")", shown(&raw[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_the_place() {
        for (raw, said) in [
            ("{nonsense", "'\"' expected, at character offset 1 (before \"nonsense\")"),
            (
                "",
                "malformed JSON string, neither tag, array, object, number, string or atom, at character offset 0 (before \"(end of string)\")",
            ),
            ("{\"a\"1}", "':' expected, at character offset 4 (before \"1}\")"),
            (
                "{\"a\":1",
                ", or } expected while parsing object/hash, at character offset 6 (before \"(end of string)\")",
            ),
            ("{\"a\":1,}", "'\"' expected, at character offset 7 (before \"}\")"),
            ("[1 2]", ", or ] expected while parsing array, at character offset 3 (before \"2]\")"),
            ("{\"a\":tru}", "'true' expected, at character offset 5 (before \"tru}\")"),
            (
                "{\"a\":01}",
                "malformed number (leading zero must not be followed by another digit), at character offset 6 (before \"1}\")",
            ),
            (
                "{\"a\":\"x",
                "unexpected end of string while parsing JSON string, at character offset 7 (before \"(end of string)\")",
            ),
            ("{} x", "garbage after JSON object, at character offset 3 (before \"x\")"),
            (
                "cores=1&memory=512&balloon=0",
                "malformed JSON string, neither tag, array, object, number, string or atom, at character offset 0 (before \"cores=1&memory=512&b...\")",
            ),
            ("{\"a\":\"\\x\"}", "illegal backslash escape sequence in string, at character offset 7 (before \"x\"}\")"),
        ] {
            assert_eq!(complaint(raw.as_bytes()), said, "{raw}");
        }
        let deep = "[".repeat(600);
        assert!(complaint(deep.as_bytes()).starts_with("json text or perl structure exceeds maximum nesting level"));
        assert!(complaint(b"{\"a\":\"\xff\"}").starts_with("malformed UTF-8 character in JSON string"));
    }
}
