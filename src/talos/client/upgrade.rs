//! Another release on a machine's disk: by the old call, which does everything, and by the one since 1.13, which only writes.
//!
//! Purpose: pull, upgrade, install, roll back; what a machine refuses is told apart by its words here and nowhere else.
//! Must not know: other machines, etcd, when it is safe.
//!
//! Up to 1.12 `Upgrade` validates the image, looks at etcd, answers, and then drains, writes and reboots by itself. From
//! 1.13 on `LifecycleService.Upgrade` only writes the boot assets: everything else is the caller's (Talos 1.13,
//! internal/app/lifecycle and cmd/talosctl/cmd/talos/upgrade.go).

use tokio::time::timeout;

use super::{Machine, RebootMode, TalosError};
use crate::talos::proto::common::{ContainerDriver, ContainerdInstance, ContainerdNamespace};
use crate::talos::proto::machine::image_service_pull_response::Response as Pull;
use crate::talos::proto::machine::lifecycle_service_install_progress::Response as Progress;
use crate::talos::proto::machine::{
    ImagePullRequest, ImageServicePullRequest, InstallArtifactsSource, LifecycleServiceUpgradeRequest, RollbackRequest,
    UpgradeRequest, upgrade_request,
};

/// Lines of an installer that are kept to explain a failure.
const KEPT: usize = 5;

/// The container store of Talos itself, where installers are looked for.
fn own_store() -> ContainerdInstance {
    ContainerdInstance { driver: ContainerDriver::Cri.into(), namespace: ContainerdNamespace::NsSystem.into() }
}

/// What becomes of the EPHEMERAL partition, where a Talos asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ephemeral {
    /// Nothing is said: from 1.8 on it is never wiped, and from 1.12.9 on saying `preserve` skips the checks of etcd.
    Unsaid,
    /// It is kept. Up to 1.7 it is wiped otherwise, and etcd's data with it.
    Keep,
}

/// When a release is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once.
    Now,
    /// Early in the next boot, when nothing holds the disk. A second reboot follows.
    NextBoot,
}

/// An upgrade by the call that does everything.
#[derive(Clone, Copy, Debug)]
pub struct UpgradeOrder<'a> {
    /// The installer.
    pub image: &'a str,
    /// What becomes of EPHEMERAL.
    pub ephemeral: Ephemeral,
    /// When it is written.
    pub when: When,
    /// How it reboots.
    pub reboot: RebootMode,
}

/// Why a release was not written.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The installer said no, or failed. The machine runs on as it was.
    #[error("the installer ended with {code}: {}", lines.join(" / "))]
    Exit {
        /// Its exit code.
        code: i32,
        /// The last that it said.
        lines: Vec<String>,
    },
    /// It ended without saying how.
    #[error("the installer did not say how it ended; its last words: {}", lines.join(" / "))]
    NoOutcome {
        /// The last that it said.
        lines: Vec<String>,
    },
    /// It could not be asked.
    #[error(transparent)]
    Talos(#[from] TalosError),
}

/// What a machine means by a no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The installer image is not there, or is none.
    Image,
    /// Its etcd would not survive.
    Etcd,
    /// The release can't follow the one that runs.
    Version,
    /// Something holds the system disk.
    Busy,
    /// Another upgrade is at work.
    Underway,
    /// There is no other release to go back to.
    NothingBefore,
}

/// What a machine's words mean, as far as they are known ones.
pub fn refusal(words: &str) -> Option<Refusal> {
    const KNOWN: &[(&str, Refusal)] = &[
        ("error validating installer image", Refusal::Image),
        ("error pulling image", Refusal::Image),
        ("not found in containerd store", Refusal::Image),
        ("assuming invalid installer", Refusal::Image),
        ("error validating etcd for upgrade", Refusal::Etcd),
        ("is insufficient to maintain quorum", Refusal::Etcd),
        ("failed to acquire upgrade mutex", Refusal::Underway),
        ("upgrade is already in progress", Refusal::Underway),
        ("pre-flight checks failed", Refusal::Version),
        ("to upgrade to Talos", Refusal::Version),
        ("device or resource busy", Refusal::Busy),
        ("target is busy", Refusal::Busy),
        ("is in use", Refusal::Busy),
        ("label does not exist", Refusal::NothingBefore),
        ("cannot rollback", Refusal::NothingBefore),
        ("no previous", Refusal::NothingBefore),
    ];
    KNOWN.iter().find(|(phrase, _)| words.contains(phrase)).map(|(_, refusal)| *refusal)
}

impl Machine {
    /// Pulls an installer; one that is there already costs nothing. `heard` is told layers that arrive.
    pub async fn pull_installer(&self, reference: &str, mut heard: impl FnMut(u64, u64)) -> Result<(), TalosError> {
        let call = "ImageService.Pull";
        let request = ImageServicePullRequest { containerd: Some(own_store()), image_ref: reference.to_owned() };
        let mut stream = match self.link.answer(call, self.link.images().pull(request)).await {
            Ok(stream) => stream,
            Err(TalosError::Unimplemented { .. }) => return self.pull_by_old_call(reference).await,
            Err(error) => return Err(error),
        };
        loop {
            let next = timeout(self.link.patience, stream.message()).await.map_err(|_| self.link.silence(call))?;
            let item = match next {
                Ok(item) => item,
                Err(status) => match self.link.error(call, status) {
                    // A stream's status may come only after its headers.
                    TalosError::Unimplemented { .. } => return self.pull_by_old_call(reference).await,
                    error => return Err(error),
                },
            };
            match item.map(|item| item.response) {
                Some(Some(Pull::Name(_))) => return Ok(()),
                Some(Some(Pull::PullProgress(told))) => {
                    if let Some(layer) = told.progress {
                        let count = |number: i64| u64::try_from(number).unwrap_or_default();
                        heard(count(layer.offset), count(layer.total));
                    }
                }
                Some(None) => {}
                None => return Err(self.link.answer_is(call, "no name of an image")),
            }
        }
    }

    /// Before 1.13.
    async fn pull_by_old_call(&self, reference: &str) -> Result<(), TalosError> {
        let namespace = ContainerdNamespace::NsSystem.into();
        let request = ImagePullRequest { namespace, reference: reference.to_owned() };
        self.link.answer("ImagePull", self.link.machine().image_pull(request)).await.map(drop)
    }

    /// Sets an upgrade going, by the call of releases before 1.13, which later ones still have. When it answers the machine
    /// has found the image sound and begins to drain, write and reboot. The id of the call, as events name it.
    pub async fn upgrade(&self, order: UpgradeOrder<'_>) -> Result<String, TalosError> {
        let call = "Upgrade";
        let reboot_mode = match order.reboot {
            RebootMode::Default => upgrade_request::RebootMode::Default,
            RebootMode::PowerCycle => upgrade_request::RebootMode::Powercycle,
        };
        let request = UpgradeRequest {
            image: order.image.to_owned(),
            preserve: order.ephemeral == Ephemeral::Keep,
            stage: order.when == When::NextBoot,
            force: false,
            reboot_mode: reboot_mode.into(),
        };
        let answer = self.link.answer(call, self.link.machine().upgrade(request)).await?;
        Ok(self.link.only(call, answer.messages)?.actor_id)
    }

    /// Writes another release beside the one that runs (from 1.13 on); the next reboot boots it. The image must have been
    /// pulled. `heard` is told what the installer says.
    pub async fn install_release(&self, image: &str, mut heard: impl FnMut(&str)) -> Result<(), InstallError> {
        let call = "LifecycleService.Upgrade";
        let request = LifecycleServiceUpgradeRequest {
            containerd: Some(own_store()),
            source: Some(InstallArtifactsSource { image_name: image.to_owned() }),
        };
        let mut stream = self.link.answer(call, self.link.lifecycle().upgrade(request)).await?;
        let mut lines: Vec<String> = Vec::new();
        let mut ended = None;
        loop {
            let next = timeout(self.link.patience, stream.message()).await.map_err(|_| self.link.silence(call))?;
            let Some(item) = next.map_err(|status| self.link.error(call, status))? else { break };
            match item.progress.and_then(|progress| progress.response) {
                Some(Progress::Message(line)) => {
                    let line = line.trim_end().to_owned();
                    heard(&line);
                    lines.push(line);
                    if lines.len() > KEPT {
                        lines.remove(0);
                    }
                }
                Some(Progress::ExitCode(code)) => ended = Some(code),
                None => {}
            }
        }
        match ended {
            Some(0) => Ok(()),
            Some(code) => Err(InstallError::Exit { code, lines }),
            None => Err(InstallError::NoOutcome { lines }),
        }
    }

    /// Makes the release that it ran before the one to boot, and reboots: no drain, no look at etcd, no id to follow.
    pub async fn roll_back(&self) -> Result<(), TalosError> {
        self.link.answer("Rollback", self.link.machine().rollback(RollbackRequest {})).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machines_no_is_understood_by_its_words() {
        let words = [
            ("error validating installer image \"x\": not found", Refusal::Image),
            ("error validating etcd for upgrade: etcd member count(2) is insufficient to", Refusal::Etcd),
            ("failed to acquire upgrade mutex: locked", Refusal::Underway),
            ("pre-flight checks failed: host version 1.9.0 is too old to upgrade to Talos 1.13.0", Refusal::Version),
            ("sequence failed: error unmounting: device or resource busy", Refusal::Busy),
            ("cannot rollback to \"A\", label does not exist", Refusal::NothingBefore),
        ];
        for (words, meaning) in words {
            assert_eq!(refusal(words), Some(meaning), "{words}");
        }
        assert_eq!(refusal("something else"), None);
    }
}
