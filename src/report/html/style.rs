//! The page's look, in the file beside this one.

/// Inlined into the page: nothing is loaded.
pub(super) const STYLE: &str = include_str!("style.css");
