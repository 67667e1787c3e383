//! `recast config render`, `diff` and `check`: the machines' configurations from the profile.
//!
//! Purpose: what a rebuild would apply, to look at, to compare and to check, without one. The verbs with talosctl's
//! flags are in `dropin`. Start with [`ground`], which brings together what a configuration is made from.

mod address;
mod check;
mod diff;
pub(super) mod ground;
mod image;
mod moved;
mod range;
mod render;

use super::args::{Config as Asked, Global};
use super::stop::Stop;
use super::{Answer, Surroundings, dropin};

/// `recast config`.
pub async fn config(global: &Global, asked: &Asked, surroundings: &Surroundings) -> Result<Answer, Stop> {
    match asked {
        Asked::Render(asked) => render::render(global, asked, surroundings).await,
        Asked::Diff(asked) => diff::diff(global, asked, surroundings).await,
        Asked::Check(asked) => check::check(global, asked, surroundings).await,
        Asked::Other(words) => Err(dropin::misplaced("config", words)),
    }
}
