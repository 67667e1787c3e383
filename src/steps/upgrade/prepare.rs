//! What comes before a machine goes down: credentials, a look at it, the installer, and the release beside the one that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::judge::Cause;
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::plan::Output;
use crate::plan::upgrade::{Member, Release, Way};
use crate::steps::World;
use crate::steps::classify::{by_talos, refused, wrong};
use crate::steps::files::{read_lock, replace};
use crate::talos::access;
use crate::talos::client::upgrade::{InstallError, Refusal, refusal};
use crate::types::{SchematicId, Version};

impl World {
    /// A kubeconfig from the first control plane that gives one, for this run alone.
    pub(in crate::steps) async fn open_access(&self, controlplanes: &[Member]) -> Result<Output, StepError> {
        let doing = "fetch credentials for the Kubernetes API";
        let mut last = wrong(doing, "there is no control plane");
        for member in controlplanes {
            match self.machine(doing, member.address)?.kubeconfig().await {
                Ok(kubeconfig) => {
                    let path = self.files.run.join("kubeconfig");
                    access::write_private(&path, &kubeconfig)
                        .map_err(|error| StepError::new(Class::Permanent, doing, error))?;
                    return Ok(Output::Nothing);
                }
                Err(error) => last = by_talos(doing, error),
            }
        }
        Err(last)
    }

    /// It runs what the plan was made for; which boot that is tells later whether it rebooted.
    pub(in crate::steps) async fn meet(&self, member: &Member, version: &Version) -> Result<Output, StepError> {
        let doing = format!("look at {}", member.name);
        let machine = self.machine(&doing, member.address)?;
        let running = machine.release().await.map_err(|error| by_talos(&doing, error))?.version;
        if running != *version {
            return Err(refused(doing, format!("it runs Talos {running}, and the plan was made for {version}"))
                .hinted("make a new plan"));
        }
        let boot_id = machine.boot_id().await.map_err(|error| by_talos(&doing, error))?;
        Ok(Output::Machine { address: member.address, pin: None, boot_id: Some(boot_id) })
    }

    /// The installer is on the machine, so that nothing waits for a registry while it is cordoned, and a reference that
    /// leads nowhere is found while everything still runs.
    pub(in crate::steps) async fn pull_installer(
        &self,
        member: &Member,
        release: &Release,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("pull {} onto {}", release.image, member.name);
        let machine = self.machine(&doing, member.address)?.waiting(Duration::from_secs(self.plan.limits.task));
        let pulled = machine
            .pull_installer(&release.image, |done, total| {
                cx.bytes("pull", done, (total > 0).then_some(total), 0);
            })
            .await;
        match pulled {
            Ok(()) => Ok(Output::Nothing),
            Err(error) if error.is_transient() => Err(by_talos(doing, error)),
            // A pull changes nothing that runs: whatever the registry says, nothing was touched.
            Err(error) => Err(StepError::new(Class::Refused, doing, error).hinted(
                "nothing went down: look whether the machine reaches the registry and whether the image is there; then \
                 resume",
            )),
        }
    }

    /// From 1.13 on: the boot assets beside those that run. The machine goes on as it is until it reboots.
    pub(in crate::steps) async fn write_release(
        &self,
        member: &Member,
        release: &Release,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("write Talos {} onto {}", release.version, member.name);
        let machine = self.machine(&doing, member.address)?.waiting(Duration::from_secs(self.plan.limits.task));
        let written = machine.install_release(&release.image, |line| cx.waiting("the installer", Some(line))).await;
        let error = match written {
            Ok(()) => return Ok(Output::Nothing),
            Err(InstallError::Talos(error)) => {
                return match refusal(&error.to_string()) {
                    // Another one is at it, perhaps this run's own that was cut off.
                    Some(Refusal::Underway) => Err(StepError::new(Class::Transient, doing, error)),
                    Some(meaning) => {
                        let cause = Cause::of("", Some(meaning));
                        let hint = cause.hint(member, Way::Written);
                        Err(StepError::new(cause.class(), doing, error).hinted(hint))
                    }
                    None => Err(by_talos(doing, error)),
                };
            }
            Err(error) => error,
        };
        let meaning = refusal(&error.to_string());
        let busy = meaning == Some(Refusal::Busy);
        let class = match (&error, meaning) {
            (InstallError::Exit { .. }, Some(meaning)) => Cause::of("", Some(meaning)).class(),
            (InstallError::Exit { .. }, None) => Class::Permanent,
            _ => Class::Transient,
        };
        let error = StepError::new(class, doing, error);
        Err(if busy {
            error.hinted("`recast upgrade --stage` writes it early in the next boot, when nothing holds the disk")
        } else {
            error.hinted(format!("{} runs on as it was: settle what the installer says, then resume", member.name))
        })
    }

    /// Whether the lock holds these schematics.
    pub(in crate::steps) fn probe_schematics(
        &self,
        schematics: &BTreeMap<SchematicId, String>,
    ) -> Result<Seen, StepError> {
        let lock = read_lock(&self.files.lock)?;
        let held = schematics.iter().all(|(id, text)| lock.schematics.get(id) == Some(text));
        Ok(if held { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    /// Puts them there.
    pub(in crate::steps) fn lock_schematics(
        &self,
        schematics: &BTreeMap<SchematicId, String>,
    ) -> Result<Output, StepError> {
        let path = &self.files.lock;
        let mut lock = read_lock(path)?;
        lock.schematics.extend(schematics.clone());
        replace(path, &lock.to_text())
            .map_err(|error| StepError::new(Class::Permanent, format!("write {}", path.display()), error))?;
        Ok(Output::Nothing)
    }

    /// Whether the lock holds none of these any more.
    pub(in crate::steps) fn probe_forgotten(&self, schematics: &BTreeSet<SchematicId>) -> Result<Seen, StepError> {
        let lock = read_lock(&self.files.lock)?;
        let held = schematics.iter().any(|id| lock.schematics.contains_key(id));
        Ok(if held { Seen::Missing } else { Seen::Done(Output::Nothing) })
    }

    /// Takes them out.
    pub(in crate::steps) fn forget_schematics(&self, schematics: &BTreeSet<SchematicId>) -> Result<Output, StepError> {
        let path = &self.files.lock;
        let mut lock = read_lock(path)?;
        lock.schematics.retain(|id, _| !schematics.contains(id));
        replace(path, &lock.to_text())
            .map_err(|error| StepError::new(Class::Permanent, format!("write {}", path.display()), error))?;
        Ok(Output::Nothing)
    }
}
