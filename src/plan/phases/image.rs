//! Phase `image`: the disk images in the cache, whole and verified.

use crate::plan::make::{Draft, fetch_id, planned};
use crate::plan::{Phase, Step};

/// Nothing to do when every template is already there.
pub(in crate::plan) fn image(draft: &Draft<'_>) -> Option<Phase> {
    let fetch = |image: &&crate::plan::step::Image| {
        let id = fetch_id(draft.wanted, image);
        planned(id.as_str(), Step::FetchImage { image: (*image).clone() }, &[])
    };
    let steps: Vec<_> = draft.images.iter().map(fetch).collect();
    (!steps.is_empty()).then(|| Phase { name: "image".to_owned(), steps, width: 1 })
}
