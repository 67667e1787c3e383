//! Where the disks of a VM that moves may go.
//!
//! Must not know: the move itself.

use std::collections::BTreeMap;

use super::disks::drives;
use crate::world::config::volid;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::state::{State, Vm, VolumeKey};

/// Storages of the source and where their volumes go.
#[derive(Debug, Default)]
pub(super) struct StorageMap {
    default: Option<String>,
    pairs: BTreeMap<String, String>,
}

impl StorageMap {
    /// `1`, a storage, or pairs.
    pub(super) fn parse(text: Option<&str>) -> Rule<Self> {
        let mut map = Self::default();
        let Some(text) = text.filter(|text| *text != "1") else { return Ok(map) };
        for part in text.split([',', ';', ' ']).filter(|part| !part.is_empty()) {
            let doubled = match part.split_once(':') {
                Some((from, to)) => map.pairs.insert(from.to_owned(), to.to_owned()).is_some(),
                None => map.default.replace(part.to_owned()).is_some(),
            };
            if doubled {
                return Err(Refusal::param(
                    "targetstorage",
                    format!("failed to parse storage map: duplicate mapping for storage '{part}'\n"),
                ));
            }
        }
        Ok(map)
    }

    /// Where this storage's volumes go.
    pub(super) fn of<'a>(&'a self, storage: &'a str) -> &'a str {
        self.pairs.get(storage).or(self.default.as_ref()).map_or(storage, String::as_str)
    }

    /// All storages that are named as targets.
    pub(super) fn targets(&self) -> impl Iterator<Item = &String> {
        self.pairs.values().chain(&self.default)
    }
}

impl State {
    /// Every storage of the VM has to be on the target.
    pub(super) fn storages_on_target(&self, vm: &Vm, target: &str) -> Rule<()> {
        for (_, value) in drives(vm) {
            let Some(volid) = volid(&value) else { continue };
            if let Some((storage, _)) = VolumeKey::split(&volid)
                && self.storages.contains_key(storage)
            {
                self.storage_on(storage, target)?;
            }
        }
        Ok(())
    }

    pub(super) fn check_target_storage(&self, caller: &Caller, storage: &str, target: &str) -> Rule<()> {
        let found = self.storage_on(storage, target)?;
        self.check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        if !found.holds("images") {
            return Err(Refusal::failed(format!("storage '{storage}' does not support vm images\n")));
        }
        Ok(())
    }
}
