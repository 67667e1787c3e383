//! Archives on their storage: how many there may be, the new one's name and notes, the end of older ones.

use std::path::PathBuf;

use super::grip::Grip;
use super::guest::Dump;
use super::prune::Choice;
use super::retention::{Mark, mark};
use super::{archive_size, names, notes};
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::{Vm, Volume, VolumeKey};

impl Dump<'_> {
    /// Refuses a backup beyond what there may be.
    pub(super) fn check_limits(&self) -> Rule<()> {
        let (world, place) = (self.world(), self.place);
        let limit = place.keep.limit();
        // A folder protects nothing.
        if let Some(storage) = place.storage.as_ref().filter(|_| self.job.protected) {
            return world.state().check_more_protected(self.who, &self.job.node, storage, self.vmid);
        }
        if limit == 0 || place.remove {
            return Ok(());
        }
        let count = match &place.storage {
            Some(storage) => {
                let state = world.state();
                let all = state.backups_on(&self.job.node, storage, Some(self.vmid));
                all.into_iter().filter(|(_, protected)| !protected).count()
            }
            None => self.in_folder().into_iter().filter(|(_, _, mark)| mark.is_none()).count(),
        };
        if count as u64 >= limit {
            return Err(Refusal::failed(format!(
                "There is a max backup limit of {limit} enforced by the target storage or the vzdump parameters. Either \
                 increase the limit or delete old backups.\n"
            )));
        }
        Ok(())
    }

    /// Archives of this VM in the folder: path, time, and whether they are protected.
    fn in_folder(&self) -> Vec<(PathBuf, u64, Option<Mark>)> {
        let entries = std::fs::read_dir(&self.place.real).into_iter().flatten().flatten();
        let found = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let standard = names::archive(&name)?.standard.filter(|standard| standard.vmid == self.vmid)?;
            let protected = self.place.real.join(format!("{name}.protected")).exists();
            Some((entry.path(), standard.ctime, protected.then_some(Mark::Protected)))
        });
        found.collect()
    }

    /// Gives the whole archive its name. Says which volume it is, if it is on a storage.
    pub(super) fn put(&mut self, grip: &Grip, file: &str) -> Rule<Option<VolumeKey>> {
        let world = self.world();
        let target = self.place.real.join(file);
        let shown = |path: &std::path::Path| {
            format!("{}/{}", self.place.shown, path.file_name().unwrap_or_default().to_string_lossy())
        };
        std::fs::rename(&grip.partial, &target).map_err(|_| {
            Refusal::failed(format!("unable to rename '{}' to '{}'\n", shown(&grip.partial), shown(&target)))
        })?;
        let size = std::fs::metadata(&target).map_or(0, |meta| meta.len());
        self.info(&format!("archive file size: {}", archive_size(size)));
        let Some(storage) = &self.place.storage else {
            world.notice_file(&self.job.node, &format!("{}/{file}", self.place.shown));
            return Ok(None);
        };
        let mut state = world.state();
        let key = state.key_on(&self.job.node, storage, &format!("backup/{file}"));
        let volume = Volume {
            content: "backup".to_owned(),
            format: names::extension(file).unwrap_or_default().to_owned(),
            size,
            vmid: Some(self.vmid),
            parent: None,
            ctime: names::archive(file).and_then(|named| named.standard).map_or(0, |standard| standard.ctime),
            notes: None,
            protected: false,
            snapshots: std::collections::BTreeSet::new(),
        };
        state.volumes.insert(key.clone(), volume);
        Ok(Some(key))
    }

    pub(super) fn describe(&mut self, key: &VolumeKey, vm: &Vm) -> Rule<()> {
        let world = self.world();
        if let Some(template) = self.job.notes.as_deref().filter(|template| !template.is_empty()) {
            self.info("adding notes to backup");
            let cluster = world.state().cluster_name.clone();
            let text = notes::filled(template, |name| match name {
                "cluster" => cluster.clone().unwrap_or_else(|| "standalone node".to_owned()),
                "guestname" => vm.config.get("name").cloned().unwrap_or_else(|| format!("VM {}", self.vmid)),
                "node" => self.job.node.clone(),
                _ => self.vmid.to_string(),
            });
            if let Err(refusal) = world.describe_backup(key, Some(&text), None) {
                self.warn(&format!("unable to add notes - {}", refusal.text()));
            }
        }
        if self.job.protected {
            self.info("marking backup as protected");
            world
                .describe_backup(key, None, Some(true))
                .map_err(|refusal| Refusal::failed(format!("unable to set protected flag - {}\n", refusal.text())))?;
        }
        Ok(())
    }

    pub(super) fn remove_older(&mut self) -> Rule<()> {
        if !self.place.remove {
            return Ok(());
        }
        let (world, keep) = (self.world(), &self.place.keep);
        self.info(&format!("prune older backups with retention: {}", keep.shown()));
        let removed = if let Some(storage) = &self.place.storage {
            let choice = Choice { vmid: Some(self.vmid), kind: Some("qemu".to_owned()) };
            let mut lines = Vec::new();
            let result = world.prune(&self.job.node, storage, Some(keep), &choice, |line| lines.push(line));
            if !lines.is_empty() {
                world.tell(self.who, "prune", Some(self.vmid), Some(storage));
            }
            for line in lines {
                self.info(&line);
            }
            result?
        } else {
            let all = self.in_folder();
            let mut marks: Vec<(u64, Option<Mark>)> = all.iter().map(|(_, time, mark)| (*time, *mark)).collect();
            mark(&mut marks, keep);
            let gone = all.iter().zip(marks).filter(|(_, (_, mark))| *mark == Some(Mark::Remove));
            let gone: Vec<PathBuf> = gone.map(|((path, ..), _)| path.clone()).collect();
            if !gone.is_empty() {
                world.tell(self.who, "prune", Some(self.vmid), Some(&self.place.shown));
            }
            for path in &gone {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let shown = format!("{}/{name}", self.place.shown);
                self.info(&format!("delete old backup '{shown}'"));
                let removed = std::fs::remove_file(path);
                removed.map_err(|error| Refusal::failed(format!("removing archive {shown} failed: {error}\n")))?;
                super::prune::forget_beside(path);
                world.notice_file(&self.job.node, &shown);
            }
            gone.len()
        };
        let more = if removed > 0 { " not covered by keep-retention policy" } else { "" };
        self.info(&format!("pruned {removed} backup(s){more}"));
        Ok(())
    }
}
