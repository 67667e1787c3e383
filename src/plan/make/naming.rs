//! How steps and VMs are called, and what a step of a phase is put together from.
//!
//! Must not know: why a step is planned.

use crate::plan::sources::Spot;
use crate::plan::step::Image;
use crate::plan::wanted::Wanted;
use crate::plan::{Planned, Step, Undo};
use crate::types::{SchematicId, StepId};

/// The step that brings an image into the cache.
pub(in crate::plan) fn fetch_id(wanted: &Wanted, image: &Image) -> StepId {
    let mut id = "image/fetch".to_owned();
    if image.schematic != wanted.schematic {
        id = format!("{id}-{}", short(&image.schematic));
    }
    // The encoding that nodes fetch themselves, where it had to be seen first.
    if image.url.ends_with(".qcow2") {
        id.push_str("-qcow2");
    }
    StepId::new(id)
}

/// A spot in the ids of steps and the names of VMs: its node, and its schematic where that isn't the cluster's.
pub(in crate::plan) fn label(wanted: &Wanted, spot: &Spot) -> String {
    if spot.schematic == wanted.schematic {
        return spot.node.to_string();
    }
    format!("{}-{}", spot.node, short(&spot.schematic))
}

/// The first digits of a schematic: enough to tell those of one cluster apart.
pub(in crate::plan) fn short(schematic: &SchematicId) -> &str {
    schematic.as_str().get(..8).unwrap_or(schematic.as_str())
}

/// A step after others, undone by nothing.
pub(in crate::plan) fn planned(id: impl Into<String>, step: Step, after: &[&StepId]) -> Planned {
    Planned { id: StepId::new(id), step, after: after.iter().map(|id| (*id).clone()).collect(), undo: Undo::Nothing }
}

/// The same, with how it is undone.
pub(in crate::plan) fn undone_by(mut planned: Planned, undo: Step) -> Planned {
    planned.undo = Undo::By(Box::new(undo));
    planned
}

/// The same, for what can't be taken back.
pub(in crate::plan) fn irreversible(mut planned: Planned, because: &str) -> Planned {
    planned.undo = Undo::Irreversible { because: because.to_owned() };
    planned
}
