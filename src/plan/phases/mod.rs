//! One file per phase of a rebuild: what it consists of. What its steps do is in `steps/`.

pub(super) mod back;
mod backup;
mod canary;
mod cluster;
pub(super) mod errands;
mod finish;
mod freeze;
mod image;
pub(super) mod kubernetes;
mod provision;
mod retire;
mod template;
pub(super) mod upgrade;

pub(super) use backup::backup;
pub(super) use canary::canary;
pub(super) use cluster::{bootstrap, configure, verify};
pub(super) use finish::{finish, finish_teardown, finish_templates};
pub(super) use freeze::freeze;
pub(super) use image::image;
pub(super) use provision::{changes, provision};
pub(super) use retire::retire;
pub(super) use template::{choose_template, template, template_print};

use super::{Phase, Step, make};

/// Nothing has been touched yet: the plan's facts are read once more.
pub(super) fn check() -> Phase {
    Phase { name: "check".to_owned(), steps: vec![make::planned("check/facts", Step::ConfirmFacts, &[])], width: 1 }
}
