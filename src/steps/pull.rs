//! The step that has a node fetch the image itself.
//!
//! Only ever with a digest: the lock's, or that of the same file, fetched and decoded here right before. Proxmox VE
//! compares it before the file gets its name (PVE/API2/Storage/Status.pm, `download_url`), so a file of that name is whole.

use super::World;
use super::classify::{by_pve, wrong};
use super::image::Target;
use super::task::finish;
use crate::engine::{Class, StepCx, StepError};
use crate::plan::step::Image;
use crate::plan::{Output, Step};
use crate::pve::storage::{Fetch, UploadKind};
use crate::types::{Sha256, StepId};

/// What a node fetches.
#[derive(Clone, Copy)]
pub(super) struct Pull<'a> {
    pub(super) image: &'a Image,
    pub(super) fetched: Option<&'a StepId>,
    pub(super) instead: Option<&'a Image>,
}

impl World {
    pub(super) async fn pull(&self, pull: Pull<'_>, target: Target<'_>, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("let {} fetch {}", target.node, pull.image.url);
        let known = match pull.fetched {
            Some(step) => match cx.output_of(step) {
                Some(Output::Image { sha256, .. }) => Some(*sha256),
                _ => None,
            },
            None => pull.image.sha256,
        };
        let sha256 = known.ok_or_else(|| wrong(&doing, "its digest is not known"))?;
        let error = match self.fetch_there(&doing, pull.image, sha256, target, cx).await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // What may still be going on, or may work in a moment, is looked at again before anything else is tried.
        let Some(instead) = pull.instead.filter(|_| error.class == Class::Permanent) else { return Err(error) };
        cx.notice(format!(
            "{} can't fetch the image itself, so it is uploaded: {}",
            target.node,
            error.to_failure().causes.join(": ")
        ));
        let image = self.cached(instead, cx).await?;
        let takers = self.plan.steps().filter(|planned| match &planned.step {
            Step::PullImage { instead: Some(other), .. } => other == instead && cx.output_of(&planned.id).is_none(),
            _ => false,
        });
        self.send(&image, takers.count(), target, cx).await
    }

    async fn fetch_there(
        &self,
        doing: &str,
        image: &Image,
        sha256: Sha256,
        target: Target<'_>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let fetch = Fetch {
            node: target.node.clone(),
            storage: target.storage.clone(),
            kind: UploadKind::Import,
            file: target.file.to_owned(),
            url: image.url.clone(),
            sha256,
        };
        let sent = self.pve.download_url(&fetch).await;
        let upid = sent.map_err(|error| by_pve(doing, error))?;
        finish(self, doing.to_owned(), &upid, cx).await?;
        let done = self.confirm_upload(doing.to_owned(), target).await?;
        cx.bytes("pull", image.bytes, Some(image.bytes), 0);
        Ok(done)
    }
}
