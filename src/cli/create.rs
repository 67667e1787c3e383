//! `recast create`: the second half of a rebuild, alone. With a snapshot it brings back a cluster that vanished.

use super::args::{Create, Global};
use super::prepare::{DataWish, Order};
use super::rebuild::{After, plan_and_do};
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::plan::Verb;

/// `recast create`.
pub async fn create(global: &Global, asked: &Create, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let data = asked.restore.as_ref().map_or(DataWish::Fresh, |file| DataWish::Restore(file.clone()));
    let order = Order { verb: Verb::Create, wishes: asked.wishes.clone(), data, back: None };
    let after = After { dry_run: asked.dry_run, plan_out: asked.plan_out.as_deref() };
    Box::pin(plan_and_do(global, &order, after, surroundings)).await
}
