//! Scripts that a guest's config names, for the moments around its start and its stop.
//!
//! Purpose: whether such a script can run, and what is said when it can't (pve-guest-common, PVE/GuestHelpers.pm). What it
//! would do isn't played: one that can run ends well and says nothing. Must not know: requests. Start at [`World::hook`].

use std::os::unix::fs::PermissionsExt as _;

use super::World;
use super::refusal::{Refusal, Rule};
use super::state::{Config, VolumeKey};
use super::volume::parse_name;
use super::work::Work;

/// A moment at which a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing runs yet, and nothing will if the script fails.
    PreStart,
    /// It runs.
    PostStart,
    /// It is about to be ended on purpose.
    PreStop,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::PreStart => "pre-start",
            Self::PostStart => "post-start",
            Self::PreStop => "pre-stop",
        }
    }
}

impl World {
    /// Whether a volume is a script that a node can run.
    pub fn check_hookscript(&self, node: &str, volid: &str) -> Rule<()> {
        let state = self.state();
        let failed = |text: String| Err(Refusal::failed(text));
        let Some((id, name)) = VolumeKey::split(volid) else {
            return failed(format!("unable to parse volume ID '{volid}'\n"));
        };
        let Some(storage) = state.storages.get(id) else {
            return failed(format!("storage '{id}' does not exist\n"));
        };
        if parse_name(storage, name).map_err(Refusal::Failed)?.content != "snippets" {
            return failed(format!("'{volid}' is not in the snippets directory\n"));
        }
        let key = state.key_on(node, id, name);
        if !state.volumes.contains_key(&key) {
            return failed(format!("script '{volid}' does not exist\n"));
        }
        // A volume that the world began with may have no file yet; it isn't held against it.
        let mode = std::fs::metadata(state.file_of(self.dir(), &key)).map(|meta| meta.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o111 == 0) {
            return failed(format!("script '{volid}' is not executable\n"));
        }
        Ok(())
    }

    /// The moment for a guest's script, if it has one. Only before a start a failure ends the task.
    pub(super) fn hook(&self, work: &Work, (node, vmid): (&str, u32), config: &Config, phase: Phase) -> Rule<()> {
        let Some(script) = config.get("hookscript") else { return Ok(()) };
        let Err(refusal) = self.check_hookscript(node, script) else { return Ok(()) };
        let text = format!("hookscript error for {vmid} on {}: {}", phase.name(), refusal.text());
        if phase == Phase::PreStart {
            return Err(Refusal::failed(text));
        }
        // The text it is made from ends a line already.
        work.log(format!("{text}\n"));
        Ok(())
    }
}
