//! Lists in one word, `a,b,"c,d"`, as talosctl splits them: the first record of comma-separated values by the rules of Go's
//! `encoding/csv`, which has quotes, and line breaks inside them.
//!
//! Must not know: what is listed.

/// Why a word is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListError {
    /// A quote inside a value that doesn't begin with one.
    #[error("a value with a quote in it must be quoted as a whole, and each quote in it doubled: 'a\"\"b' in quotes")]
    BareQuote,
    /// Something between a closing quote and the next comma.
    #[error("after a closing quote comes a comma or the end")]
    AfterQuote,
    /// No closing quote.
    #[error("a quote is never closed")]
    Open,
    /// Line breaks and nothing else.
    #[error("there is nothing but line breaks in it")]
    Blank,
}

/// The values of all words, in their order; an empty word has none.
pub(super) fn values(words: &[String]) -> Result<Vec<String>, ListError> {
    let mut values = Vec::new();
    for word in words {
        values.extend(split(word)?);
    }
    Ok(values)
}

fn split(word: &str) -> Result<Vec<String>, ListError> {
    if word.is_empty() {
        return Ok(Vec::new());
    }
    let text = word.strip_suffix('\r').unwrap_or(word).replace("\r\n", "\n");
    let mut lines = text.split_inclusive('\n').skip_while(|line| *line == "\n");
    let mut rest = lines.next().ok_or(ListError::Blank)?;
    let mut values = Vec::new();
    loop {
        let next = if let Some(quoted) = rest.strip_prefix('"') {
            let (value, next) = closed(quoted, &mut lines)?;
            values.push(value);
            next
        } else {
            let (value, next) = match rest.split_once(',') {
                Some((value, next)) => (value, Some(next)),
                None => (rest.strip_suffix('\n').unwrap_or(rest), None),
            };
            if value.contains('"') {
                return Err(ListError::BareQuote);
            }
            values.push(value.to_owned());
            next
        };
        match next {
            Some(next) => rest = next,
            // What follows the line is another record, which nobody reads.
            None => return Ok(values),
        }
    }
}

/// The value up to its closing quote, over as many lines as it takes, and what follows a comma after it.
fn closed<'a>(
    quoted: &'a str,
    lines: &mut impl Iterator<Item = &'a str>,
) -> Result<(String, Option<&'a str>), ListError> {
    let (mut rest, mut value) = (quoted, String::new());
    loop {
        let Some((before, after)) = rest.split_once('"') else {
            value.push_str(rest);
            rest = lines.next().ok_or(ListError::Open)?;
            continue;
        };
        value.push_str(before);
        match after.strip_prefix('"') {
            Some(inside) => {
                value.push('"');
                rest = inside;
            }
            None if after.is_empty() || after == "\n" => return Ok((value, None)),
            None => return after.strip_prefix(',').map(|next| (value, Some(next))).ok_or(ListError::AfterQuote),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_one_record_of_comma_separated_values() {
        let cases: [(&str, &[&str]); 20] = [
            ("", &[]),
            ("a", &["a"]),
            ("a,b", &["a", "b"]),
            ("a,,b,", &["a", "", "b", ""]),
            (",", &["", ""]),
            (" a , b", &[" a ", " b"]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"a\"\"b\"", &["a\"b"]),
            ("\"\"", &[""]),
            ("\"\"\"\"", &["\""]),
            ("\"\",\"\"", &["", ""]),
            ("\"a\nb\",c", &["a\nb", "c"]),
            ("\"a\r\nb\"", &["a\nb"]),
            ("\"a\n\nb\"\n", &["a\n\nb"]),
            ("a\nb", &["a"]),
            ("\n\na", &["a"]),
            ("a\r", &["a"]),
            ("a\r\n", &["a"]),
            ("a\r\r\n", &["a\r"]),
            ("'a,b'", &["'a", "b'"]),
        ];
        for (word, wanted) in cases {
            assert_eq!(split(word).unwrap(), wanted, "{word:?}");
        }
        assert_eq!(values(&["a".to_owned(), String::new(), "b,c".to_owned()]).unwrap(), ["a", "b", "c"]);
    }

    #[test]
    fn quotes_that_do_not_fit_are_refused() {
        let cases = [
            ("a\"b", ListError::BareQuote),
            ("a,b\"", ListError::BareQuote),
            ("\"a\"b", ListError::AfterQuote),
            ("\"a\" ,b", ListError::AfterQuote),
            ("\"", ListError::Open),
            ("\"\"\"", ListError::Open),
            ("\"a\nb", ListError::Open),
            ("\n", ListError::Blank),
            ("\r", ListError::Blank),
            ("\r\n\r\n", ListError::Blank),
        ];
        for (word, wanted) in cases {
            assert_eq!(split(word), Err(wanted), "{word:?}");
        }
    }
}
