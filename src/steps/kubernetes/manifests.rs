//! The bootstrap manifests: kube-proxy, `CoreDNS`, the CNI and the roles follow what the machines render now.

use std::collections::BTreeSet;
use std::time::Duration;

use super::LOOK;
use crate::engine::{Class, StepCx, StepError};
use crate::k8s::bootstrap::{Change, Entry, Pruned, Standing, SyncError, Syncer, Way, proxy_image, stage, standing};
use crate::k8s::manifest::{Manifest, of_objects};
use crate::plan::Output;
use crate::plan::kubernetes::image::same;
use crate::plan::kubernetes::{LiveMachine, ManifestWay};
use crate::steps::World;
use crate::steps::classify::{by_kubernetes, by_talos, refused, wrong};

/// What was done so far.
#[derive(Default)]
struct Done {
    created: Vec<String>,
    changed: Vec<String>,
    /// Those that have to settle.
    touched: Vec<Manifest>,
}

impl World {
    /// How long a machine may take to render manifests anew, one object to be taken (its webhook, its kind or its
    /// namespace may come in a moment), and all of them to be as they are asked to be.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.plan.limits.health)
    }

    pub(in crate::steps) async fn sync_manifests(
        &self,
        machine: &LiveMachine,
        way: ManifestWay,
        proxy: &str,
        prune: &[String],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("bring the bootstrap manifests to those of {}", machine.name);
        let mut objects = self.rendered_manifests(&doing, machine, proxy, cx).await?;
        let client = self.cluster(&doing).await?;
        self.await_api(&doing, &client, cx).await?;
        let way = match way {
            ManifestWay::Put => Way::Put,
            ManifestWay::Apply => Way::Apply,
        };
        let mut syncer = Syncer::new(&client, way);
        let mut done = Done::default();
        if way == Way::Apply {
            objects.sort_by_key(stage);
            self.own(&doing, &mut syncer, &objects, cx).await?;
        }
        let mut standing_on = 0;
        for object in &objects {
            if way == Way::Apply && stage(object) > standing_on {
                self.settle(&doing, &mut syncer, &done.touched, cx).await?;
                standing_on = stage(object);
            }
            self.bring_up(&mut syncer, object, &mut done, cx).await?;
        }
        let pruned = match way {
            Way::Put => Vec::new(),
            Way::Apply => self.prune(&doing, &mut syncer, &objects, prune, cx).await?,
        };
        self.settle(&doing, &mut syncer, &done.touched, cx).await?;
        let Done { created, changed, .. } = done;
        if created.is_empty() && changed.is_empty() && pruned.is_empty() {
            return Ok(Output::Nothing);
        }
        for (what, names) in [("Made", &created), ("Changed", &changed), ("Deleted", &pruned)] {
            if !names.is_empty() {
                cx.notice(format!("{what}: {}.", names.join(", ")));
            }
        }
        Ok(Output::Manifests { created, changed, pruned })
    }

    /// The machine's manifests, once kube-proxy's has the image.
    async fn rendered_manifests(
        &self,
        doing: &str,
        machine: &LiveMachine,
        proxy: &str,
        cx: &StepCx<'_>,
    ) -> Result<Vec<Manifest>, StepError> {
        let talos = self.machine(doing, machine.address)?;
        let since = cx.elapsed();
        loop {
            let objects = talos.manifests().await.map_err(|error| by_talos(doing, error))?;
            let objects = of_objects(objects).map_err(|error| StepError::new(Class::Permanent, doing, error))?;
            match proxy_image(&objects) {
                Some(image) if !same(image, proxy) => {
                    if cx.elapsed().saturating_sub(since) >= self.patience() {
                        return Err(wrong(doing, format!("{} still renders {image}, not {proxy}", machine.name)));
                    }
                    cx.waiting("kube-proxy's manifest", Some(image));
                    cx.sleep(LOOK).await;
                }
                // None where kube-proxy is switched off, as with Cilium in its place.
                Some(_) | None => return Ok(objects),
            }
        }
    }

    /// Nothing is applied when a single object belongs to another inventory.
    async fn own(
        &self,
        doing: &str,
        syncer: &mut Syncer<'_>,
        objects: &[Manifest],
        cx: &StepCx<'_>,
    ) -> Result<(), StepError> {
        let mut foreign = Vec::new();
        for object in objects {
            loop {
                match syncer.owner_of(object).await {
                    Ok(Some(inventory)) => foreign.push(format!("{object} belongs to the inventory '{inventory}'")),
                    Ok(None) => {}
                    Err(error) if error.is_transient() && !cx.is_cancelled() => {
                        cx.waiting("the Kubernetes API", Some(&error.to_string()));
                        cx.sleep(LOOK).await;
                        continue;
                    }
                    Err(error) => return Err(by_kubernetes(doing, error)),
                }
                break;
            }
        }
        if foreign.is_empty() {
            return Ok(());
        }
        Err(refused(doing, foreign.join("; ")).hinted(
            "take these objects out of the machines' manifests, or out of what else manages them, then resume; all \
             components run the new version already",
        ))
    }

    async fn bring_up(
        &self,
        syncer: &mut Syncer<'_>,
        object: &Manifest,
        done: &mut Done,
        cx: &StepCx<'_>,
    ) -> Result<(), StepError> {
        let doing = format!("bring up {object}");
        let since = cx.elapsed();
        loop {
            match syncer.bring_up(object).await {
                Ok(Change::Same) => return Ok(()),
                Ok(Change::Create) => {
                    done.created.push(object.to_string());
                    done.touched.push(object.clone());
                    return Ok(());
                }
                Ok(Change::Alter(lines)) => {
                    for line in lines {
                        tracing::info!(object = %object, change = line, "a bootstrap manifest changed");
                    }
                    done.changed.push(object.to_string());
                    done.touched.push(object.clone());
                    return Ok(());
                }
                Err(error) => {
                    let may_come =
                        error.is_transient() || matches!(&error, SyncError::Api(error) if error.is_not_found());
                    if !may_come || cx.elapsed().saturating_sub(since) >= self.patience() {
                        return Err(by_sync(&doing, error));
                    }
                    cx.waiting(&object.to_string(), Some(&error.to_string()));
                    cx.sleep(LOOK).await;
                }
            }
        }
    }

    /// What left the manifests goes, if the plan named it; then the inventory is what the manifests are.
    async fn prune(
        &self,
        doing: &str,
        syncer: &mut Syncer<'_>,
        objects: &[Manifest],
        named: &[String],
        cx: &StepCx<'_>,
    ) -> Result<Vec<String>, StepError> {
        let failed = |error| by_kubernetes(doing, error);
        let mut wanted = BTreeSet::new();
        for object in objects {
            wanted.insert(syncer.entry(object).await.map_err(failed)?);
        }
        let before = syncer.inventory().await.map_err(failed)?;
        let mut inventory = before.clone().unwrap_or_default();
        inventory.entries.extend(wanted.iter().cloned());
        if before.as_ref() != Some(&inventory) {
            syncer.write_inventory(&inventory).await.map_err(failed)?;
        }
        let mut pruned = Vec::new();
        let left_over: Vec<Entry> = inventory.left_over(&wanted);
        for entry in &left_over {
            if !named.contains(&entry.key()) {
                cx.notice(format!("{entry} is no longer among the manifests; the plan doesn't name it, so it stays."));
                continue;
            }
            match syncer.prune(entry).await.map_err(failed)? {
                Pruned::Now => pruned.push(entry.to_string()),
                Pruned::NotThere => {}
                Pruned::Owned { inventory } => {
                    cx.notice(format!("{entry} belongs to the inventory '{inventory}' by now, and stays."));
                }
            }
            inventory.entries.remove(entry);
        }
        if left_over.iter().any(|entry| !inventory.entries.contains(entry)) {
            syncer.write_inventory(&inventory).await.map_err(failed)?;
        }
        Ok(pruned)
    }

    /// Waits until what was changed is as it was asked to be; fails at once where it never will.
    async fn settle(
        &self,
        doing: &str,
        syncer: &mut Syncer<'_>,
        touched: &[Manifest],
        cx: &StepCx<'_>,
    ) -> Result<(), StepError> {
        let since = cx.elapsed();
        loop {
            let mut waiting = Vec::new();
            for object in touched {
                match syncer.live(object).await {
                    Ok(None) => waiting.push(format!("{object} is not there")),
                    Ok(Some(live)) => match standing(&live) {
                        Standing::Current => {}
                        Standing::Waiting(why) => waiting.push(format!("{object}: {why}")),
                        Standing::Failed(why) => {
                            return Err(wrong(doing, format!("{object}: {why}"))
                                .hinted("look at its pods, then resume; all components run the new version already"));
                        }
                    },
                    Err(error) if error.is_transient() => waiting.push(error.to_string()),
                    Err(error) => return Err(by_kubernetes(doing, error)),
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if cx.elapsed().saturating_sub(since) >= self.patience() {
                let text = format!("after {} s {}", self.plan.limits.health, waiting.join("; "));
                return Err(wrong(doing, text).hinted("look at their pods, then resume"));
            }
            cx.waiting("the manifests' objects", Some(&waiting.join("; ")));
            cx.sleep(LOOK).await;
        }
    }
}

fn by_sync(doing: &str, error: SyncError) -> StepError {
    match error {
        SyncError::Api(error) => {
            let immutable = matches!(&error, crate::k8s::K8sError::Status { status: 409 | 422, message, .. } if message.contains("immutable"));
            let made = by_kubernetes(doing, error);
            if immutable {
                made.hinted("a field of it can't be changed: delete the object yourself, then resume makes it anew")
            } else {
                made
            }
        }
        error @ SyncError::Owned { .. } => StepError::new(Class::Refused, doing, error),
    }
}
