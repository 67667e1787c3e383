//! One file per phase of a rebuild: what it consists of. What its steps do is in `steps/`.

mod canary;
mod cluster;
mod finish;
mod image;
mod provision;
mod retire;
mod template;

pub(super) use canary::canary;
pub(super) use cluster::{bootstrap, configure, verify};
pub(super) use finish::finish;
pub(super) use image::image;
pub(super) use provision::{mac_of, provision};
pub(super) use retire::{freeze, retire};
pub(super) use template::{choose_template, template};

use super::{Phase, Step, make};

/// Nothing has been touched yet: the plan's facts are read once more.
pub(super) fn check() -> Phase {
    Phase { name: "check".to_owned(), steps: vec![make::planned("check/facts", Step::ConfirmFacts, &[])], width: 1 }
}
