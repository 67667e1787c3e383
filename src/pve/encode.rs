//! How calls are spelled: forms and paths. The values in them are [`property`](crate::property)'s.
//!
//! Purpose: print what the API takes as text. Pure. Must not know: endpoints, HTTP.
//! PVE's form decoder splits on `&` and `;` and at every `=`, and cuts a value off at its second `=` (pve-http-server,
//! PVE/APIServer/AnyEvent.pm), so everything but letters, digits and `-._~` is percent-encoded, always.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is escaped in forms, queries and path segments: all but RFC 3986's unreserved characters.
const STRICT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encodes a text so strictly that it is safe as a value, a key and one path segment.
pub fn escape(text: &str) -> String {
    utf8_percent_encode(text, STRICT).to_string()
}

/// A path from its segments, each escaped: `/nodes/pve1/qemu/100`.
pub fn path(segments: &[&str]) -> String {
    segments.iter().fold(String::new(), |path, segment| path + "/" + &escape(segment))
}

/// Parameters of a call, in order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// No parameters yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more parameter.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.0.push((key.to_owned(), value.to_string()));
        self
    }

    /// With one more parameter, if there is a value for it.
    #[must_use]
    pub fn with_some(self, key: &str, value: Option<impl fmt::Display>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// With all pairs of a map.
    #[must_use]
    pub fn with_all<'a>(mut self, pairs: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        self.0.extend(pairs.into_iter().map(|(key, value)| (key.clone(), value.clone())));
        self
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The parameters' names, which may be logged; values may not.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// As a form body or a query string.
    pub fn encode(&self) -> String {
        let pairs: Vec<String> =
            self.0.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
        pairs.join("&")
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_pve_splits_on_leaves_unescaped() {
        let form = Form::new().with("boot", "order=scsi0;net0").with("description", "a&b+c 100%\nü");
        assert_eq!(form.encode(), "boot=order%3Dscsi0%3Bnet0&description=a%26b%2Bc%20100%25%0A%C3%BC");
        assert_eq!(path(&["nodes", "pve1", "tasks", "UPID:a:b/c%"]), "/nodes/pve1/tasks/UPID%3Aa%3Ab%2Fc%25");
        assert_eq!(format!("{:?}", Form::new().with("password", "secret")), r#"["password"]"#);
    }
}
