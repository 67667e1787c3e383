//! Methods of the API, run on the node itself as root.
//!
//! Purpose: what `qm`, `pvesm` and `pvesh` have in common: they run a method, wait for its task, print its log, and say
//! errors as the original's command line does (Proxmox VE 8.4, PVE/CLIHandler.pm).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Job;
use crate::pve::Failure;

/// Exit code of everything that dies.
pub(super) const DIED: u8 = 255;

/// Parameters by name.
pub(super) type Parameters = BTreeMap<String, Vec<String>>;

/// One value per name.
pub(super) fn parameters<const N: usize>(pairs: [(&str, &str); N]) -> Parameters {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).collect()
}

impl Job<'_> {
    /// Runs a method.
    pub(super) fn call(&self, verb: &str, path: &str, parameters: Parameters) -> Result<Value, Failure> {
        self.host.runtime.block_on(self.host.api.as_root(verb, path, parameters))
    }

    /// Runs a method and waits for its task, whose log is printed.
    pub(super) fn run(&mut self, verb: &str, path: &str, parameters: Parameters) -> Result<Value, Failure> {
        let answer = self.call(verb, path, parameters)?;
        match answer.as_str() {
            Some(upid) if upid.starts_with("UPID:") => {
                self.follow(upid)?;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    /// Runs a method of which only success matters; says the exit code.
    pub(super) fn act(&mut self, verb: &str, path: &str, parameters: Parameters, usage: &str) -> u8 {
        match self.run(verb, path, parameters) {
            Ok(_) => 0,
            Err(failure) => self.died(&failure, usage),
        }
    }

    fn follow(&mut self, upid: &str) -> Result<(), Failure> {
        let world = self.host.world.clone();
        let mut shown = 0;
        loop {
            let step = Duration::from_millis(50);
            let ended = self.host.runtime.block_on(world.task_end(upid, step));
            let lines: Vec<String> = {
                let state = world.state();
                state
                    .tasks
                    .by_upid
                    .get(upid)
                    .map(|task| task.log.iter().skip(shown).cloned().collect())
                    .unwrap_or_default()
            };
            shown += lines.len();
            for line in lines.iter().filter(|line| !line.starts_with("TASK ")) {
                // The work goes on when nobody listens any more.
                let _ = self.streams.say(line);
            }
            match ended {
                None => {}
                Some(status) if status == "OK" || status.starts_with("WARNINGS") => return Ok(()),
                Some(status) => return Err(Failure { status: 500, text: status, errors: BTreeMap::new() }),
            }
        }
    }

    /// Says an error as the command line does; answers with the exit code.
    pub(super) fn died(&mut self, failure: &Failure, usage: &str) -> u8 {
        if failure.errors.is_empty() {
            self.streams.complain(failure.text.trim_end());
            let missing = failure.text.starts_with("Configuration file '") && failure.text.contains("does not exist");
            return if missing { 2 } else { DIED };
        }
        self.streams.complain(&format!("{} {}", failure.status, failure.text.trim_end()));
        for (name, text) in &failure.errors {
            self.streams.complain(&format!("{name}: {}", text.trim_end()));
        }
        if !usage.is_empty() {
            self.streams.complain(&format!("\n{usage}"));
        }
        DIED
    }

    /// A command line that isn't complete.
    pub(super) fn misused(&mut self, what: &str, usage: &str) -> u8 {
        self.streams.complain(&format!("400 {what}\n{usage}"));
        DIED
    }
}
