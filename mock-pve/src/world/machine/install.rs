//! Another version of Talos on a machine's disk: what an installer does, what a legacy upgrade asks of etcd first, and
//! the way back.

use std::collections::BTreeMap;

use super::config::MachineType;
use super::faults::Fault;
use super::state::{Machine, State};
use super::versions::{self, Version};
use crate::disk::{self, DiskError, Recipe};
use crate::etcd::Client;

/// Seconds that an installer takes.
const INSTALL: f64 = 12.0;

/// Why an installer gave up.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// From this version there is no way to that one.
    #[error("pre-flight checks failed: {0}")]
    Preflight(String),
    /// Somebody uses the disk.
    #[error("failed to install bootloader: failed to open blockdevice /dev/sda: device or resource busy")]
    Busy,
    /// It failed by itself.
    #[error("failed to install bootloader: failed to write kernel: input/output error")]
    Failed,
    /// The disk is broken.
    #[error("failed to install bootloader: {0}")]
    Disk(#[from] DiskError),
}

impl InstallError {
    /// The installer's exit code, where it tells errors apart (since 1.14).
    pub fn exit_code(&self, version: Version) -> i32 {
        match self {
            _ if version.minor < 14 => 1,
            Self::Preflight(_) => 4,
            Self::Busy | Self::Disk(_) => 6,
            Self::Failed => 7,
        }
    }
}

/// Why an upgrade doesn't begin.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeRefused {
    /// etcd would lose its majority, or isn't well.
    #[error("error validating etcd for upgrade: {0}")]
    Etcd(String),
    /// Somebody else is about to.
    #[error("failed to acquire upgrade mutex: mutex: Locked by another session")]
    Locked,
    /// etcd doesn't answer.
    #[error("failed to create etcd client: {0}")]
    NoClient(String),
}

/// Where an installer starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum From {
    /// A system that runs.
    Running,
    /// The beginning of a boot, when nothing uses the disk.
    Boot,
}

impl Machine {
    /// What an installer image does on a running machine; `say` is told what it prints.
    pub async fn install(&self, recipe: &Recipe, say: impl FnMut(&str)) -> Result<(), InstallError> {
        self.install_from(From::Running, recipe, say).await
    }

    pub(super) async fn install_from(
        &self,
        from: From,
        recipe: &Recipe,
        mut say: impl FnMut(&str),
    ) -> Result<(), InstallError> {
        let (world, vmid) = (self.world().clone(), self.vmid());
        let (host, slot, recent) = self.see(|state| (state.version(), state.slot, state.tag().to_owned()));
        say("running pre-flight checks");
        say(&format!("host Talos version: {recent}"));
        versions::check_upgrade(host, Version::of(&recipe.version)).map_err(InstallError::Preflight)?;
        say("all pre-flight checks successful");
        world.clock().sleep(INSTALL / 3.0).await;
        // At the beginning of a boot nothing uses the disk: then it happens, and harms nobody.
        if world.goes_wrong(vmid, Fault::DiskBusy) && from == From::Running {
            return Err(InstallError::Busy);
        }
        let target = slot.other();
        say(&format!("installing Talos to disk /dev/sda, boot entry {}", target.as_str()));
        world.clock().sleep(INSTALL * 2.0 / 3.0).await;
        if world.goes_wrong(vmid, Fault::InstallerFails) {
            return Err(InstallError::Failed);
        }
        let spoilt = world.goes_wrong(vmid, Fault::BootFails);
        let (path, recipe) = (self.hardware().disk.clone().unwrap_or_default(), recipe.clone());
        let write = move || -> Result<(), DiskError> {
            disk::install(&path, target, &recipe)?;
            if spoilt {
                disk::spoil(&path, target)?;
            }
            let mut meta = disk::meta(&path)?;
            (meta.boot, meta.fallback) = (target, Some(slot));
            disk::store_meta(&path, &meta)
        };
        tokio::task::spawn_blocking(write).await.map_err(|_| InstallError::Failed)??;
        say(&format!("installation of {} complete", self.next_version()));
        Ok(())
    }

    /// The version in the slot that boots next.
    fn next_version(&self) -> String {
        let path = self.hardware().disk.clone().unwrap_or_default();
        let found = disk::meta(&path).and_then(|meta| disk::slot(&path, meta.boot));
        found.ok().flatten().map(|recipe| recipe.version).unwrap_or_default()
    }

    /// What an upgrade asks of etcd before it begins (Talos, internal/pkg/etcd, `ValidateForUpgrade`): not who leads, not
    /// learners, not alarms.
    pub async fn ask_etcd_about_upgrade(&self, preserve: bool) -> Result<(), UpgradeRefused> {
        if self.see(State::machine_type) != Some(MachineType::ControlPlane) {
            return Ok(());
        }
        let none = || UpgradeRefused::NoClient("etcdserver: no leader".to_owned());
        let client = self.see(|state| state.membership.clone()).ok_or_else(none)?;
        let mutex = format!("talos:v1:etcdUpgradeMutex/{:x}", client.id);
        let others = client.view(|store| store.list(b"talos:v1:etcdUpgradeMutex/").len()).unwrap_or_default();
        if others > 0 {
            return Err(UpgradeRefused::Locked);
        }
        client
            .put(&mutex, bytes::Bytes::new(), None)
            .await
            .map_err(|error| UpgradeRefused::NoClient(error.to_string()))?;
        let verdict = self.validate_for_upgrade(&client, preserve).map_err(UpgradeRefused::Etcd);
        // The mutex only guards the checks.
        let _ = client.delete(&mutex, None).await;
        verdict
    }

    fn validate_for_upgrade(&self, client: &Client, preserve: bool) -> Result<(), String> {
        let members = client.members();
        if members.len() == 2 {
            return Err("etcd member count(2) is insufficient to maintain quorum if upgrade commences".to_owned());
        }
        if members.len() == 1 && !preserve && self.see(|state| state.version().wipes_on_upgrade()) {
            let why = "only 1 etcd member found; assuming this is not an HA setup and upgrade would wipe data, use --preserve";
            return Err(why.to_owned());
        }
        for member in &members {
            if member.name.is_empty() {
                return Err(format!(
                    "etcd member {:016x} is not started, all members must be running to perform an upgrade",
                    member.id
                ));
            }
            let healthy = Client { etcd: client.etcd.clone(), id: member.id }.is_healthy();
            if !healthy {
                return Err(format!("failed to validate etcd member {}: context deadline exceeded", member.name));
            }
        }
        Ok(())
    }

    /// Makes the other slot the one that boots next; the text is the boot loader's refusal.
    pub fn revert(&self) -> Result<(), String> {
        let path = self.hardware().disk.clone().unwrap_or_default();
        let other = self.see(|state| state.slot).other();
        let failed = |error: DiskError| error.to_string();
        if disk::slot(&path, other).map_err(failed)?.is_none() {
            return Err(format!("cannot rollback to \"{}\", label does not exist", other.as_str()));
        }
        let mut meta = disk::meta(&path).map_err(failed)?;
        (meta.boot, meta.fallback) = (other, None);
        disk::store_meta(&path, &meta).map_err(failed)
    }

    /// The tags in META: those that somebody wrote, and Talos' own about upgrades (pkg/machinery/meta: 6 to 8).
    pub fn meta_tags(&self) -> BTreeMap<u8, Vec<u8>> {
        let path = self.hardware().disk.clone().unwrap_or_default();
        let Ok(meta) = disk::meta(&path) else { return BTreeMap::new() };
        let mut tags = meta.tags;
        tags.extend(meta.fallback.map(|slot| (6, slot.as_str().as_bytes().to_vec())));
        if let Some(staged) = meta.staged {
            tags.insert(7, staged.image.into_bytes());
            tags.insert(8, format!("{{\"preserve\":{}}}", staged.preserve).into_bytes());
        }
        tags
    }

    /// Writes a tag into META, or takes it out; whether it had been there.
    pub fn set_meta_tag(&self, key: u8, value: Option<Vec<u8>>) -> Result<bool, String> {
        let path = self.hardware().disk.clone().unwrap_or_default();
        let change = || -> Result<bool, DiskError> {
            let mut meta = disk::meta(&path)?;
            let before = match value {
                Some(value) => meta.tags.insert(key, value),
                None => meta.tags.remove(&key),
            };
            disk::store_meta(&path, &meta)?;
            Ok(before.is_some())
        };
        let done = change().map_err(|error| error.to_string());
        self.update(|_| ());
        done
    }

    /// The version that booted has proven itself: there is no way back any more but the one that somebody asks for.
    pub(super) fn proven(&self) {
        let path = self.hardware().disk.clone().unwrap_or_default();
        let drop = || -> Result<(), DiskError> {
            let mut meta = disk::meta(&path)?;
            if meta.fallback.take().is_some() {
                disk::store_meta(&path, &meta)?;
            }
            Ok(())
        };
        self.update(|state| state.unproven = false);
        if let Err(error) = drop() {
            self.says(&format!("[talos] {error}"));
        }
    }
}
