//! JSON bodies.
//!
//! Purpose: reads what the original's reader (Perl's `JSON::XS`) reads, and complains in its words about the rest: what
//! is wrong, the offset, and what stands there. Must not know: parameters. Start at [`read`].

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

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

type Read<T> = Result<T, &'static str>;

impl Scan<'_> {
    fn next(&self) -> Option<u8> {
        self.raw.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8, complaint: &'static str) -> Read<()> {
        if self.next() != Some(byte) {
            return Err(complaint);
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &str, means: Value, complaint: &'static str) -> Read<Value> {
        if !self.raw[self.at..].starts_with(word.as_bytes()) {
            return Err(complaint);
        }
        self.at += word.len();
        Ok(means)
    }

    fn value(&mut self) -> Read<Value> {
        match self.next() {
            Some(b'"') => {
                self.at += 1;
                self.string().map(Value::String)
            }
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true), "'true' expected"),
            Some(b'f') => self.word("false", Value::Bool(false), "'false' expected"),
            Some(b'n') => self.word("null", Value::Null, "'null' expected"),
            _ => Err(MALFORMED),
        }
    }

    fn nested(&mut self, inner: fn(&mut Self) -> Read<Value>) -> Read<Value> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("json text or perl structure exceeds maximum nesting level (max_depth set too low?)");
        }
        self.at += 1;
        self.blanks();
        let value = inner(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn object(&mut self) -> Read<Value> {
        let mut object = Map::new();
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(object.into());
        }
        loop {
            self.expect(b'"', "'\"' expected")?;
            let key = self.string()?;
            self.blanks();
            self.expect(b':', "':' expected")?;
            self.blanks();
            let value = self.value()?;
            object.insert(key, value);
            self.blanks();
            if self.next() == Some(b'}') {
                self.at += 1;
                return Ok(object.into());
            }
            self.expect(b',', ", or } expected while parsing object/hash")?;
            self.blanks();
        }
    }

    fn array(&mut self) -> Read<Value> {
        let mut array = Vec::new();
        if self.next() == Some(b']') {
            self.at += 1;
            return Ok(array.into());
        }
        loop {
            array.push(self.value()?);
            self.blanks();
            if self.next() == Some(b']') {
                self.at += 1;
                return Ok(array.into());
            }
            self.expect(b',', ", or ] expected while parsing array")?;
            self.blanks();
        }
    }

    /// What follows an opening quote.
    fn string(&mut self) -> Read<String> {
        let mut text = String::new();
        loop {
            match self.next() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.escape()?),
                Some(byte @ 0x20..=0x7f) => {
                    text.push(char::from(byte));
                    self.at += 1;
                }
                Some(0x80..) => {
                    let rest = &self.raw[self.at..];
                    let shown = &rest[..rest.len().min(4)];
                    let valid = match std::str::from_utf8(shown) {
                        Ok(text) => text,
                        Err(error) => std::str::from_utf8(&shown[..error.valid_up_to()]).unwrap_or_default(),
                    };
                    let character = valid.chars().next().ok_or("malformed UTF-8 character in JSON string")?;
                    text.push(character);
                    self.at += character.len_utf8();
                }
                None | Some(0) => return Err("unexpected end of string while parsing JSON string"),
                Some(_) => return Err("invalid character encountered while parsing JSON string"),
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let plain = match self.raw.get(self.at + 1) {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
            Some(b'b') => '\u{8}',
            Some(b't') => '\t',
            Some(b'n') => '\n',
            Some(b'f') => '\u{c}',
            Some(b'r') => '\r',
            Some(b'u') => {
                self.at += 2;
                return self.code();
            }
            _ => {
                self.at += 1;
                return Err("illegal backslash escape sequence in string");
            }
        };
        self.at += 2;
        Ok(plain)
    }

    /// What follows `\u`: one character, in two halves where one is too small for it.
    fn code(&mut self) -> Read<char> {
        let first = self.hex()?;
        let code = match first {
            0xD800..=0xDBFF => {
                if !self.raw[self.at..].starts_with(b"\\u") {
                    return Err("missing low surrogate character in surrogate pair");
                }
                self.at += 2;
                let second = self.hex()?;
                if !(0xDC00..=0xDFFF).contains(&second) {
                    return Err("surrogate pair expected");
                }
                0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00)
            }
            0xDC00..=0xDFFF => return Err("missing high surrogate character in surrogate pair"),
            code => code,
        };
        char::from_u32(code).ok_or("surrogate pair expected")
    }

    fn hex(&mut self) -> Read<u32> {
        let digits = self.raw.get(self.at..self.at + 4).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let number = number.ok_or("exactly four hexadecimal digits expected")?;
        self.at += 4;
        Ok(number)
    }

    fn digits(&mut self, complaint: &'static str) -> Read<()> {
        if !self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            return Err(complaint);
        }
        while self.next().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Read<Value> {
        let from = self.at;
        let mut whole = true;
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
            whole = false;
            self.at += 1;
            self.digits("malformed number (no digits after decimal point)")?;
        }
        if matches!(self.next(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.next(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits("malformed number (no digits after exp sign)")?;
        }
        // Only ASCII was let in.
        let text = std::str::from_utf8(&self.raw[from..self.at]).unwrap_or_default();
        Ok(if whole { integer(text) } else { fraction(text) })
    }

    fn all(&mut self) -> Read<Value> {
        self.blanks();
        let value = self.value()?;
        self.blanks();
        if self.next().is_some_and(|byte| byte != 0) { Err("garbage after JSON object") } else { Ok(value) }
    }
}

/// An integer; one that no machine word holds stays the text that it is.
fn integer(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return number.into();
    }
    text.parse::<u64>().map_or_else(|_| text.into(), Value::from)
}

/// A number with a point or an exponent; one without an end is a word.
fn fraction(text: &str) -> Value {
    let number = text.parse::<f64>().unwrap_or_default();
    let endless = if number < 0.0 { "-Inf" } else { "Inf" };
    Number::from_f64(number).map_or_else(|| endless.into(), Value::Number)
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

/// What a text means as JSON. `Err` is what the original's reader says of it, without the place in its own code.
pub(super) fn read(raw: &[u8]) -> Result<Value, String> {
    let mut scan = Scan { raw, at: 0, depth: 0 };
    scan.all().map_err(|complaint| {
        let at = scan.at.min(raw.len());
        format!("{complaint}, at character offset {at} (before \"{}\")", shown(&raw[at..]))
    })
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
            assert_eq!(read(raw.as_bytes()), Err(said.to_owned()), "{raw}");
        }
        let bytes = read(b"{\"a\":\"\xff\"}").unwrap_err();
        assert!(bytes.starts_with("malformed UTF-8 character in JSON string"), "{bytes}");
    }

    #[test]
    fn five_hundred_and_twelve_levels_are_read_and_no_more() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let error = read(nested(513).as_bytes()).unwrap_err();
        assert!(error.starts_with("json text or perl structure exceeds maximum nesting level"), "{error}");
        let mut value = read(nested(512).as_bytes()).unwrap();
        let mut levels = 0;
        while let Value::Array(mut inner) = value {
            levels += 1;
            value = inner.pop().unwrap_or_default();
        }
        assert_eq!(levels, 512);
    }

    #[test]
    fn what_is_json_is_read_as_any_other_reader_does() {
        for text in [
            r#"{"a":[1,-2,3.5,1e3,true,false,null],"b":{"c":"d"},"a2":"\u00e4\ud83d\ude00\n\/\"\\"}"#,
            " [ ] ",
            "{}",
            "\"\u{e4}\"",
            "18446744073709551615",
            "-9223372036854775808",
        ] {
            assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
        // The last of a name counts; what is too large for a number is kept as it stands.
        assert_eq!(read(br#"{"a":1,"a":2}"#).unwrap()["a"], 2);
        assert_eq!(read(b"123456789012345678901234567890").unwrap(), "123456789012345678901234567890");
        assert_eq!((read(b"1e999").unwrap(), read(b"-1e999").unwrap()), ("Inf".into(), "-Inf".into()));
    }
}
