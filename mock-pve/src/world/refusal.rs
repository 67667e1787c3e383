//! How the world says no.
//!
//! Purpose: one type for all refusals, in the original's words. Must not know: status lines, though the variants are
//! what a protocol makes its codes of.

use std::collections::BTreeMap;

/// A refusal. Texts are the original's and end where its texts end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The operation failed: not found, locked, running, exists …
    #[error("{0}")]
    Failed(String),
    /// Parameters are wrong: name → text.
    #[error("Parameter verification failed.")]
    Params(BTreeMap<String, String>),
    /// A right is missing.
    #[error("Permission check failed{}", parenthesised(.0))]
    Forbidden(String),
    /// What was named isn't there, where the original says so by its status too.
    #[error("{0}")]
    NotFound(String),
    /// The request as a whole makes no sense, whatever its parameters are.
    #[error("{0}")]
    Unfit(String),
}

fn parenthesised(what: &str) -> String {
    if what.is_empty() { String::new() } else { format!(" ({what})") }
}

impl Refusal {
    /// A failure.
    pub fn failed(text: impl Into<String>) -> Self {
        Self::Failed(text.into())
    }

    /// One wrong parameter.
    pub fn param(name: &str, text: impl Into<String>) -> Self {
        Self::Params(BTreeMap::from([(name.to_owned(), text.into())]))
    }

    /// A missing right.
    pub fn forbidden(what: impl Into<String>) -> Self {
        Self::Forbidden(what.into())
    }

    /// What work behind a lock makes of it: a failure that begins with what failed.
    #[must_use]
    pub fn within(&self, what: &str) -> Self {
        Self::Failed(format!("{what}: {}\n", self.text()))
    }

    /// The text that a task ends with: what HTTP says by its status is part of it.
    pub fn text(&self) -> String {
        match self {
            Self::Failed(text) => text.trim_end().to_owned(),
            Self::Params(errors) => {
                let lines: Vec<String> = errors.iter().map(|(name, text)| format!("{name}: {text}")).collect();
                format!("400 Parameter verification failed.\n{}", lines.join("\n"))
            }
            Self::Forbidden(_) => format!("403 {self}"),
            Self::NotFound(_) => format!("404 {}", self.to_string().trim_end()),
            Self::Unfit(_) => format!("400 {}", self.to_string().trim_end()),
        }
    }
}

/// What most rules return.
pub type Rule<T> = Result<T, Refusal>;
