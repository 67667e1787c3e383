//! Scalars with a tag and without one.
//!
//! Must not know: tokens.

use super::scan::Style;
use super::{Spot, Value, YamlError, plain};

/// What the tags that begin with `!!` stand for.
pub(super) const OWN: &str = "tag:yaml.org,2002:";

/// What is wrong at a place.
pub(super) fn wrong<T>(spot: Spot, what: &str) -> Result<T, YamlError> {
    Err(YamlError::Syntax { line: spot.line, column: spot.column, what: what.to_owned() })
}

/// Whether a tag says that there is nothing.
pub(super) fn is_null(tag: Option<&str>) -> bool {
    tag.and_then(|tag| tag.strip_prefix(OWN)) == Some("null")
}

/// What a scalar is by its tag, or else by its text.
pub(super) fn scalar(text: String, style: Style, tag: Option<&str>, spot: Spot) -> Result<Value, YamlError> {
    let resolved = |text: &str| if style == Style::Plain { plain::resolve(text) } else { Value::from(text) };
    let Some(tag) = tag.filter(|tag| *tag != "!") else { return Ok(resolved(&text)) };
    let unfit = "the text is not what its tag says";
    match tag.strip_prefix(OWN) {
        Some("binary") => match plain::binary(&text) {
            Some(text) => Ok(Value::Text(text)),
            None => wrong(spot, "!!binary takes base64 of a text"),
        },
        Some(kind @ ("null" | "bool" | "int" | "float" | "timestamp")) => {
            plain::resolve_as(kind, &text).map_or_else(|| wrong(spot, unfit), Ok)
        }
        _ => Ok(Value::Text(text)),
    }
}
