//! Removing backups that need not stay.

use std::collections::BTreeMap;
use std::path::Path;

use super::names::archive;
use super::retention::{Keep, Mark, mark};
use crate::world::World;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::state::{State, VolumeKey};

/// A backup, and what would become of it.
#[derive(Clone, Debug)]
pub struct Prunable {
    /// Which.
    pub key: VolumeKey,
    /// Unix time.
    pub ctime: u64,
    /// `qemu`, `lxc`, `openvz`, `unknown`.
    pub kind: String,
    /// The guest, if that is known.
    pub vmid: Option<u32>,
    /// What becomes of it.
    pub mark: Mark,
}

/// Which backups of a storage are meant.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// Those of one guest.
    pub vmid: Option<u32>,
    /// Those of one kind of guests.
    pub kind: Option<String>,
}

impl State {
    /// Backups on a storage as a node sees it.
    pub(super) fn backups_on(&self, node: &str, storage: &str, vmid: Option<u32>) -> Vec<(VolumeKey, bool)> {
        let here = |key: &VolumeKey| key.storage == storage && (key.node.is_empty() || key.node == node);
        let found = self.volumes.iter().filter(|(key, volume)| here(key) && volume.content == "backup");
        let found = found.filter(|(_, volume)| vmid.is_none() || volume.vmid == vmid);
        found.map(|(key, volume)| (key.clone(), volume.protected)).collect()
    }

    /// Refuses one more protected backup of a guest than the storage allows.
    pub(super) fn check_more_protected(&self, caller: &Caller, node: &str, storage: &str, vmid: u32) -> Rule<()> {
        let own = self.storages.get(storage).and_then(|known| known.options.get("max-protected-backups"));
        let own = own.and_then(|most| most.as_i64().or_else(|| most.as_str().and_then(|text| text.parse().ok())));
        let unlimited = self.may(caller, &format!("/storage/{storage}"), &["Datastore.Allocate"]);
        let most = own.unwrap_or(if unlimited { -1 } else { 5 });
        let count = self.backups_on(node, storage, Some(vmid)).into_iter().filter(|(_, protected)| *protected).count();
        match u64::try_from(most) {
            Ok(limit) if count as u64 >= limit => Err(Refusal::failed(format!(
                "The number of protected backups per guest is limited to {limit} on storage '{storage}'\n"
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses to protect a backup where there are enough protected ones of its guest.
    pub fn check_protected(&self, caller: &Caller, node: &str, key: &VolumeKey) -> Rule<()> {
        match self.volumes.get(key).filter(|volume| !volume.protected).and_then(|volume| volume.vmid) {
            Some(vmid) => self.check_more_protected(caller, node, &key.storage, vmid),
            None => Ok(()),
        }
    }

    /// What would become of the backups on a storage.
    pub fn prunable(&self, node: &str, storage: &str, keep: Option<&Keep>, choice: &Choice) -> Rule<Vec<Prunable>> {
        let known = self.storages.get(storage);
        let known = known.ok_or_else(|| Refusal::failed(format!("storage '{storage}' does not exist\n")))?;
        if !known.holds("backup") {
            return Err(Refusal::failed(format!("storage '{storage}' does not support backups\n")));
        }
        let own = known.option("prune-backups").map(Keep::parse);
        let Some(keep) = keep.cloned().or(own) else {
            let text = format!("no prune-backups options configured for storage '{storage}'\n");
            return Err(Refusal::failed(text));
        };
        self.storage_on(storage, node)?;
        let mut list = Vec::new();
        let mut groups: BTreeMap<(String, u32), Vec<usize>> = BTreeMap::new();
        for (key, protected) in self.backups_on(node, storage, choice.vmid) {
            let Some(volume) = self.volumes.get(&key) else { continue };
            let named = archive(key.file_name());
            let kind = named.as_ref().map_or("unknown", |named| named.kind.as_str()).to_owned();
            if choice.kind.as_ref().is_some_and(|wanted| *wanted != kind) {
                continue;
            }
            let standard = named.and_then(|named| named.standard);
            let first = match &standard {
                Some(standard) => {
                    groups.entry((kind.clone(), standard.vmid)).or_default().push(list.len());
                    None
                }
                None => Some(Mark::Renamed),
            };
            let vmid = standard.as_ref().map(|standard| standard.vmid).or(volume.vmid);
            let ctime = standard.map_or(volume.ctime, |standard| standard.ctime);
            list.push((key, ctime, kind, vmid, if protected { Some(Mark::Protected) } else { first }));
        }
        for places in groups.values() {
            let mut group: Vec<(u64, Option<Mark>)> = places.iter().map(|at| (list[*at].1, list[*at].4)).collect();
            mark(&mut group, &keep);
            for (at, (_, mark)) in places.iter().zip(group) {
                list[*at].4 = mark;
            }
        }
        let marked = list.into_iter().map(|(key, ctime, kind, vmid, mark)| {
            let mark = mark.unwrap_or(Mark::Keep);
            Prunable { key, ctime, kind, vmid, mark }
        });
        Ok(marked.collect())
    }
}

impl World {
    /// Removes an archive with all that lies beside it, but never a protected one.
    pub fn remove_backup(&self, key: &VolumeKey) -> Rule<()> {
        {
            let state = self.state();
            if state.volumes.get(key).is_some_and(|volume| volume.protected) {
                let path = state.path_of(key);
                return Err(Refusal::failed(format!("cannot remove protected archive '{path}'\n")));
            }
        }
        let path = self.state().file_of(self.dir(), key);
        self.free(key)?;
        forget_beside(&path);
        Ok(())
    }

    /// Removes what need not stay; `log` hears of each. Says how many went.
    pub fn prune(
        &self,
        node: &str,
        storage: &str,
        keep: Option<&Keep>,
        choice: &Choice,
        mut log: impl FnMut(String),
    ) -> Rule<usize> {
        let list = self.state().prunable(node, storage, keep, choice)?;
        let (mut removed, mut failed) = (0, false);
        for backup in list.into_iter().filter(|backup| backup.mark == Mark::Remove) {
            let volid = backup.key.volid();
            log(format!("removing backup '{volid}'"));
            match self.remove_backup(&backup.key) {
                Ok(()) => removed += 1,
                Err(refusal) => {
                    log(format!("error when removing backup '{volid}' - {}", refusal.text()));
                    failed = true;
                }
            }
        }
        if failed { Err(Refusal::failed("error pruning backups - check log\n")) } else { Ok(removed) }
    }

    /// Writes what is said about a backup beside it, for those who are logged in on the node.
    pub fn describe_backup(&self, key: &VolumeKey, notes: Option<&str>, protected: Option<bool>) -> Rule<()> {
        let mut state = self.state();
        let path = state.file_of(self.dir(), key);
        let Some(volume) = state.volumes.get_mut(key) else {
            // What lies beside an archive is written whether the archive is there or not, and nobody sees it.
            return Ok(());
        };
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            std::path::PathBuf::from(name)
        };
        let put = |path: std::path::PathBuf, text: Option<&str>| match text {
            Some(text) => std::fs::write(path, text),
            None => std::fs::remove_file(path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            }),
        };
        let failed = |error: std::io::Error| Refusal::failed(format!("could not write beside the backup - {error}\n"));
        if let Some(notes) = notes {
            let notes = Some(notes).filter(|text| !text.is_empty());
            volume.notes = notes.map(str::to_owned);
            if path.exists() {
                put(beside(".notes"), notes).map_err(failed)?;
            }
        }
        if let Some(protected) = protected {
            volume.protected = protected;
            if path.exists() {
                put(beside(".protected"), protected.then_some("")).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Removes what lies beside an archive: its protection and notes, and the log, if the name says which is its own.
pub(super) fn forget_beside(path: &Path) {
    let Some(file) = path.file_name().and_then(|name| name.to_str()) else { return };
    let log = archive(file).and_then(|named| named.standard).map(|standard| format!("{}.log", standard.stem));
    for name in [format!("{file}.notes"), format!("{file}.protected")].into_iter().chain(log) {
        // What was never written needs no removing.
        let _ = std::fs::remove_file(path.with_file_name(name));
    }
}
