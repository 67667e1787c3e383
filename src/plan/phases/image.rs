//! Phase `image`: the disk image in the cache, whole and verified.

use crate::plan::make::{Draft, FETCH, planned};
use crate::plan::{Phase, Step};

/// Nothing to do when every template is already there.
pub(in crate::plan) fn image(draft: &Draft<'_>) -> Option<Phase> {
    let image = draft.image?;
    let fetch = planned(FETCH, Step::FetchImage { image: image.clone() }, &[]);
    Some(Phase { name: "image".to_owned(), steps: vec![fetch], width: 1 })
}
