//! Booleans with the text that they were written as.
//!
//! Must not know: where they stand.

use std::fmt;

/// A boolean as it was written; equal when it says the same.
#[derive(Clone, Copy)]
pub struct Flag {
    raw: &'static str,
    is_on: bool,
}

impl Flag {
    /// Reads one of the six forms; `None` for everything else, also for what YAML 1.1 took for a boolean.
    pub fn parse(text: &str) -> Option<Self> {
        let on = ["true", "True", "TRUE"].map(|raw| Self { raw, is_on: true });
        let off = ["false", "False", "FALSE"].map(|raw| Self { raw, is_on: false });
        on.into_iter().chain(off).find(|flag| flag.raw == text)
    }

    /// Whether it is true.
    pub fn is_on(self) -> bool {
        self.is_on
    }

    /// As it stood in the source: what a string-typed field takes.
    pub fn raw(self) -> &'static str {
        self.raw
    }

    /// As it is written.
    pub fn normal(self) -> &'static str {
        if self.is_on { "true" } else { "false" }
    }
}

impl From<bool> for Flag {
    fn from(is_on: bool) -> Self {
        Self { raw: if is_on { "true" } else { "false" }, is_on }
    }
}

impl PartialEq for Flag {
    fn eq(&self, other: &Self) -> bool {
        self.is_on == other.is_on
    }
}

impl fmt::Display for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.normal())
    }
}
