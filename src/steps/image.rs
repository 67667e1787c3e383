//! Steps of the phases `image` and `template` that move the image: cache, upload, removal.

use std::sync::Arc;

use super::World;
use super::classify::{by_fetch, by_pve, by_qcow2, wrong};
use super::task::finish;
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::image::{Cached, Inspected, Limits, Meters, Qcow2Stream, Wanted};
use crate::net::Meter;
use crate::plan::step::Image;
use crate::plan::{Output, Step};
use crate::pve::storage::{Upload, UploadKind};
use crate::types::{NodeName, StepId, StorageId, VolumeId};

/// Reports bytes to the run's events.
pub(super) struct Counted<'a>(pub(super) crate::engine::Counter<'a>);

impl Meter for Counted<'_> {
    fn add(&self, bytes: u64) {
        self.0.add(bytes);
    }

    fn total(&self, bytes: u64) {
        self.0.total(bytes);
    }
}

/// An upload as the plan describes it.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) node: &'a NodeName,
    pub(super) storage: &'a StorageId,
    pub(super) file: &'a str,
}

impl Target<'_> {
    fn volume(self) -> VolumeId {
        VolumeId::new(format!("{}:import/{}", self.storage, self.file))
    }
}

impl World {
    /// The image in the cache with what is in it. A second call in one process only looks it up.
    pub(super) async fn cached(&self, image: &Image, cx: &StepCx<'_>) -> Result<Arc<(Cached, Inspected)>, StepError> {
        let mut known = self.image.images.lock().await;
        if let Some(found) = known.get(&image.url) {
            return Ok(found.clone());
        }
        let wanted = Wanted { url: image.url.clone(), sha256: image.sha256, bytes: Some(image.bytes) };
        let (download, decode) = (Counted(cx.counter("download")), Counted(cx.counter("decode")));
        let meters = Meters { download: &download, decode: &decode };
        let doing = format!("fetch {}", image.url);
        let fetched = self.cache.fetch(&self.http, &wanted, Limits::default(), meters).await;
        let fetched = Arc::new(fetched.map_err(|error| by_fetch(doing, error))?);
        known.insert(image.url.clone(), fetched.clone());
        Ok(fetched)
    }

    pub(super) async fn fetch_image(&self, image: &Image, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let fetched = self.cached(image, cx).await?;
        let (cached, inspected) = &*fetched;
        if cached.fetched == 0 {
            cx.bytes("download", cached.bytes, Some(cached.bytes), cached.bytes);
        }
        Ok(Output::Image {
            sha256: cached.sha256,
            bytes: cached.bytes,
            disk_bytes: inspected.content.disk_bytes,
            content: inspected.content.sha256,
        })
    }

    /// The image that step `fetched` of this plan brought, which must still be the same.
    pub(super) async fn fetched(
        &self,
        fetched: &StepId,
        cx: &StepCx<'_>,
    ) -> Result<Arc<(Cached, Inspected)>, StepError> {
        let doing = "find the image in the cache";
        let image = self.plan.steps().find_map(|planned| match &planned.step {
            Step::FetchImage { image } if planned.id == *fetched => Some(image),
            _ => None,
        });
        let image = image.ok_or_else(|| wrong(doing, format!("the plan has no step {fetched}")))?;
        let Some(Output::Image { sha256, .. }) = cx.output_of(fetched) else {
            return Err(wrong(doing, format!("{fetched} has not been done")));
        };
        let pinned = Image { sha256: Some(*sha256), ..image.clone() };
        self.cached(&pinned, cx).await
    }

    pub(super) async fn probe_upload(&self, target: Target<'_>, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        if let Some(upid) = cx.attached() {
            // The verdict alone proves nothing: what counts is whether the file is there.
            super::task::settle(self, upid, cx).await?;
        }
        Ok(if self.has_upload(target).await? { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn has_upload(&self, target: Target<'_>) -> Result<bool, StepError> {
        let doing = || format!("list storage {} on {}", target.storage, target.node);
        let held = self.pve.volumes(target.node, target.storage, Some("import"), None).await;
        let held = held.map_err(|error| by_pve(doing(), error))?;
        Ok(held.iter().any(|volume| volume.volid == target.volume()))
    }

    pub(super) async fn upload(
        &self,
        fetched: &StepId,
        target: Target<'_>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let image = self.fetched(fetched, cx).await?;
        // Those who take the same file at the same time: the other nodes whose upload is still to be made.
        let takers = self.plan.steps().filter(|planned| match &planned.step {
            Step::UploadImage { fetched: other, .. } => other == fetched && cx.output_of(&planned.id).is_none(),
            _ => false,
        });
        self.send(&image, takers.count(), target, cx).await
    }

    /// Uploads the image, in the shape that Proxmox VE imports, and looks whether it is there.
    pub(super) async fn send(
        &self,
        image: &Arc<(Cached, Inspected)>,
        takers: usize,
        target: Target<'_>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = || format!("upload {} to {} on {}", target.file, target.storage, target.node);
        let shipment = self.image.qcow2(image, takers).await.map_err(|error| by_qcow2(doing(), error))?;
        let stream = Qcow2Stream::of(&shipment.fanout).map_err(|error| by_qcow2(doing(), error))?;
        let meter = Counted(cx.counter("ship"));
        let upload = Upload {
            node: target.node.clone(),
            storage: target.storage.clone(),
            kind: UploadKind::Import,
            file: target.file.to_owned(),
            size: shipment.qcow2.file_bytes(),
            sha256: Some(shipment.qcow2.sha256()),
        };
        let sent = self.node_client(target.node).upload(&upload, stream, &meter).await;
        let upid = sent.map_err(|error| by_pve(doing(), error))?;
        finish(self, doing(), &upid, cx).await?;
        self.confirm_upload(doing(), target).await
    }

    /// Looks whether the file is there: a task that ended well is no proof.
    pub(super) async fn confirm_upload(&self, doing: String, target: Target<'_>) -> Result<Output, StepError> {
        if self.has_upload(target).await? {
            Ok(Output::Nothing)
        } else {
            Err(wrong(doing, "the task ended well and the file is not there".to_owned()))
        }
    }

    pub(super) async fn probe_removal(&self, target: Target<'_>) -> Result<Seen, StepError> {
        Ok(if self.has_upload(target).await? { Seen::Missing } else { Seen::Done(Output::Nothing) })
    }

    pub(super) async fn remove_upload(&self, target: Target<'_>, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = || format!("remove {} from {} on {}", target.file, target.storage, target.node);
        // The name holds the run's id; nothing else can have it. A plan that says otherwise is not carried out.
        if !target.file.starts_with(&format!("recast-{}-", self.plan.run)) {
            return Err(StepError::new(Class::Refused, doing(), "the file does not carry this run's id"));
        }
        let sent = self.pve.delete_volume(target.node, &target.volume()).await;
        if let Some(upid) = sent.map_err(|error| by_pve(doing(), error))? {
            finish(self, doing(), &upid, cx).await?;
        }
        Ok(Output::Nothing)
    }
}
