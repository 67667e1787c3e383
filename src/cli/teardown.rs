//! `recast teardown`: the first half of a rebuild, alone. The proof of backup comes first, unless it is forced.

use super::args::{Global, Teardown, Wishes};
use super::prepare::{DataWish, Order};
use super::rebuild::{After, plan_and_do};
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::plan::Verb;

/// `recast teardown`.
pub async fn teardown(global: &Global, asked: &Teardown, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let data = if asked.force { DataWish::Fresh } else { DataWish::Keep };
    let wishes = Wishes { destroy_disks: asked.destroy_disks.clone(), ..Wishes::default() };
    let order = Order { verb: Verb::Teardown, wishes, data, back: None };
    let after = After { dry_run: asked.dry_run, plan_out: asked.plan_out.as_deref() };
    Box::pin(plan_and_do(global, &order, after, surroundings)).await
}
