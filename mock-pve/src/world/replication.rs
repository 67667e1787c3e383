//! Storage replication: what of a guest can be copied to another node, and when that is done.
//!
//! Purpose: state, turns and logs of jobs (Proxmox VE 8.4, PVE/ReplicationState.pm, PVE/Replication.pm). No byte is
//! copied: the other node shows no second volume. Must not know: requests. Start at [`World::replicate`].

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::calendar::Calendar;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::{State, World, disks, drive};

type Object = Map<String, Value>;

/// How the runs of each job went.
const STATES: &str = "replication/state";
/// What the last run of each job said.
const LOGS: &str = "replication/log";
/// When a job has its turn that doesn't say it.
const USUAL: &str = "*/15";
/// Bytes a second that are as if copied.
const SPEED: f64 = 250e6;

fn text<'a>(job: &'a Object, key: &str) -> &'a str {
    job.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn number(entry: &Object, key: &str) -> u64 {
    entry.get(key).and_then(Value::as_u64).unwrap_or_default()
}

/// The guest of a job.
pub fn guest_of(job: &Object) -> u32 {
    let guest = job.get("guest");
    let number = guest.and_then(|guest| guest.as_u64().or_else(|| guest.as_str()?.parse().ok()));
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or_default()
}

/// What a node that a guest goes to is to its replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replicated {
    /// The guest has no job.
    Nowhere,
    /// The target of that one.
    Here(String),
    /// The target of none.
    Elsewhere,
}

impl State {
    /// What a node is to the replication of a guest.
    pub(super) fn replicated(&self, vmid: u32, target: &str) -> Replicated {
        let mut of_guest = self.replication.iter().filter(|job| guest_of(job) == vmid).peekable();
        if of_guest.peek().is_none() {
            return Replicated::Nowhere;
        }
        let here = of_guest.find(|job| text(job, "target") == target);
        here.map_or(Replicated::Elsewhere, |job| Replicated::Here(text(job, "id").to_owned()))
    }

    /// A job that is to go after its next run.
    pub(super) fn replication_goes(&self, id: &str) -> bool {
        self.replication_job(id).is_some_and(|job| job.contains_key("remove_job"))
    }

    /// The guest has moved: the job that copied to its new node copies back from there.
    pub(super) fn turn_replication(&mut self, vmid: u32, (from, to): (&str, &str)) {
        for job in self.replication.iter_mut().filter(|job| guest_of(job) == vmid) {
            if text(job, "target") == to {
                job.insert("target".to_owned(), json!(from));
            }
            job.insert("source".to_owned(), json!(to));
        }
    }

    /// The volumes of a guest that a job copies; `Err`: one that should be can't.
    pub fn replicatable(&self, vmid: u32) -> Rule<Vec<String>> {
        let mut volumes = Vec::new();
        let Some(vm) = self.vms.get(&vmid) else { return Ok(volumes) };
        for key in disks::drive_keys(&vm.config) {
            let Some(value) = vm.config.get(&key) else { continue };
            let options = Properties::parse(value, "file");
            let off = matches!(options.get("replicate"), Some("0" | "no" | "off" | "false"));
            let volid = options.get("file").unwrap_or_default();
            if drive::is_cdrom(&options) || off || volid == "none" {
                continue;
            }
            if volid.starts_with('/') {
                return Err(Refusal::failed(format!("unable to replicate local file/device '{volid}'\n")));
            }
            let storage = volid.split(':').next().and_then(|id| self.storages.get(id));
            match storage {
                Some(storage) if storage.shared() => {}
                Some(storage) if storage.kind == "zfspool" => volumes.push(volid.to_owned()),
                _ => return Err(Refusal::failed(format!("missing replicate feature on volume '{volid}'\n"))),
            }
        }
        volumes.sort();
        volumes.dedup();
        Ok(volumes)
    }

    fn replication_job(&self, id: &str) -> Option<&Object> {
        self.replication.iter().find(|job| text(job, "id") == id)
    }

    /// A job as its node sees it: with how it went, and when it has its next turn.
    pub fn replication_status(&self, job: &Object) -> Object {
        let mut shown = job.clone();
        let known = self.sections.get(STATES).and_then(|states| states.get(text(job, "id")));
        let known = known.cloned().unwrap_or_default();
        for key in ["last_sync", "last_try", "fail_count"] {
            shown.insert(key.to_owned(), json!(number(&known, key)));
        }
        for key in ["error", "duration"] {
            shown.extend(known.get(key).map(|value| (key.to_owned(), value.clone())));
        }
        shown.insert("vmtype".to_owned(), json!("qemu"));
        let (failed, tried) = (number(&known, "fail_count"), number(&known, "last_try"));
        let next = if job.contains_key("remove_job") {
            1
        } else if failed > 0 {
            let online = self.is_online(text(job, "target"));
            if online { tried + 60 * if failed <= 3 { 5 * failed } else { 30 } } else { 0 }
        } else {
            let schedule = Some(text(job, "schedule")).filter(|schedule| !schedule.is_empty()).unwrap_or(USUAL);
            Calendar::parse(schedule).and_then(|calendar| calendar.next(tried)).unwrap_or_default()
        };
        shown.insert("next_sync".to_owned(), json!(next));
        shown
    }

    /// What the last run of a job said.
    pub fn replication_log(&self, id: &str) -> Vec<String> {
        let log = self.sections.get(LOGS).and_then(|logs| logs.get(id)?.get("lines")?.as_array());
        log.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// A job that ran has its turn as soon as possible.
    pub fn replicate_soon(&mut self, id: &str) {
        if let Some(known) = self.sections.get_mut(STATES).and_then(|states| states.get_mut(id)) {
            known.insert("last_try".to_owned(), json!(0));
        }
    }

    /// Nothing is known any more of a job that is gone.
    pub fn forget_replication(&mut self, id: &str) {
        for file in [STATES, LOGS] {
            if let Some(file) = self.sections.get_mut(file) {
                file.remove(id);
            }
        }
    }

    /// Whether anybody runs a job: its guest is there, its node is, and it is on.
    fn runs(&self, job: &Object) -> bool {
        let node = self.vms.get(&guest_of(job)).map(|vm| vm.node.as_str());
        let elsewhere = node.is_some_and(|node| self.is_online(node) && text(job, "target") != node);
        elsewhere && !job.contains_key("remove_job") && job.get("disable").and_then(Value::as_u64) != Some(1)
    }

    /// When a job has its next turn, if it ever has.
    fn turn(&self, job: &Object) -> Option<u64> {
        let next = number(&self.replication_status(job), "next_sync");
        (next > 0 && self.runs(job)).then_some(next)
    }

    /// Runs a job. Says what it says.
    pub(super) fn run_replication(&mut self, id: &str, now: u64) -> Rule<Vec<String>> {
        let Some(job) = self.replication_job(id).cloned() else { return Ok(Vec::new()) };
        let vmid = guest_of(&job);
        let mut known = self.sections.get(STATES).and_then(|states| states.get(id)).cloned().unwrap_or_default();
        let last = number(&known, "last_sync");
        let running = self.vms.get(&vmid).is_some_and(|vm| vm.running.is_some());
        let mut said = vec!["start replication job".to_owned()];
        let copied = self.replicatable(vmid).and_then(|volumes| {
            said.push(format!("guest => VM {vmid}, running => {}", u8::from(running)));
            said.push(format!("volumes => {}", volumes.join(",")));
            let target = text(&job, "target");
            if !self.is_online(target) {
                let ssh = format!("/usr/bin/ssh -e none -o 'BatchMode=yes' -o 'HostKeyAlias={target}'");
                let ip = self.nodes.get(target).map_or("", |node| node.ip.as_str());
                let command = format!("{ssh} root@{ip} -- pvesr prepare-local-job {id} {}", volumes.join(" "));
                return Err(Refusal::failed(format!("command '{command}' failed: exit code 255\n")));
            }
            let snapshot = |time: u64| format!("__replicate_{id}_{time}__");
            for volid in &volumes {
                said.push(format!("create snapshot '{}' on {volid}", snapshot(now)));
            }
            let rate = job.get("rate").map(|rate| format!("{} MByte/s", rate.to_string().trim_matches('"')));
            said.push(format!("using secure transmission, rate limit: {}", rate.as_deref().unwrap_or("none")));
            for volid in &volumes {
                said.push(match last {
                    0 => format!("full sync '{volid}' ({})", snapshot(now)),
                    last => format!("incremental sync '{volid}' ({} => {})", snapshot(last), snapshot(now)),
                });
            }
            for volid in volumes.iter().filter(|_| last > 0) {
                said.push(format!("delete previous replication snapshot '{}' on {volid}", snapshot(last)));
            }
            Ok(volumes)
        });
        known.insert("last_try".to_owned(), json!(now));
        let mut refusal = None;
        match copied {
            Ok(volumes) => {
                let whole = |volid: &String| {
                    let node = self.vms.get(&vmid).map_or("", |vm| vm.node.as_str());
                    self.volume_key(node, volid).and_then(|key| self.volumes.get(&key)).map_or(0, |volume| volume.size)
                };
                let bytes: u64 = if last == 0 { volumes.iter().map(whole).sum() } else { 0 };
                #[expect(clippy::cast_precision_loss, reason = "about how long it would take")]
                let duration = 1.0 + bytes as f64 / SPEED;
                known.insert("last_sync".to_owned(), json!(now));
                known.insert("fail_count".to_owned(), json!(0));
                known.insert("duration".to_owned(), json!(duration));
                known.remove("error");
                said.push("end replication job".to_owned());
            }
            Err(why) => {
                let error = why.text();
                refusal = Some(why);
                let failed = number(&known, "fail_count") + 1;
                known.insert("fail_count".to_owned(), json!(failed));
                known.insert("duration".to_owned(), json!(1.0));
                said.push(format!("end replication job with error: {error}"));
                known.insert("error".to_owned(), json!(error));
            }
        }
        let time = i64::try_from(now).ok().and_then(|now| Timestamp::from_second(now).ok()).unwrap_or_default();
        let time = time.strftime("%F %H:%M:%S").to_string();
        let lines: Vec<String> = said.iter().map(|line| format!("{time} {id}: {line}")).collect();
        self.sections.entry(STATES.to_owned()).or_default().insert(id.to_owned(), known);
        let log = Object::from_iter([("lines".to_owned(), json!(lines))]);
        self.sections.entry(LOGS.to_owned()).or_default().insert(id.to_owned(), log);
        refusal.map_or(Ok(said), Err)
    }
}

impl World {
    /// Runs the jobs whose turn it is, and says when the next one has its turn.
    pub fn replicate(&self, now: u64) -> Option<u64> {
        let mut state = self.state();
        let due = |job: &&Object| state.turn(job).is_some_and(|next| next <= now);
        let due: Vec<String> = state.replication.iter().filter(due).map(|job| text(job, "id").to_owned()).collect();
        for id in due {
            // How it went stands in its state and its log.
            let _ = state.run_replication(&id, now);
        }
        state.replication.iter().filter_map(|job| state.turn(job)).map(|next| next.max(now + 1)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::seed::Seed;
    use crate::world::state::{Storage, Vm};
    use crate::world::{PveVersion, Settings};

    #[tokio::test]
    async fn a_job_has_its_turn_and_a_guest_without_such_disks_fails_it() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { dir: dir.path().to_owned(), time_scale: 200.0, rng_seed: 1, pve: PveVersion::V8 };
        let mut seed = Seed::single_node();
        let mut other = seed.nodes[0].clone();
        "pve2".clone_into(&mut other.name);
        seed.nodes.push(other);
        let world = World::new(seed, settings).unwrap();
        let object = |value: Value| value.as_object().cloned().unwrap();
        {
            let mut state = world.state();
            let storage = Storage { kind: "zfspool".to_owned(), options: Object::new(), capacity: 1 << 30 };
            state.storages.insert("tank".to_owned(), storage);
            let config = [("scsi0", "tank:vm-100-disk-0"), ("scsi1", "local-lvm:vm-100-disk-1,replicate=0")];
            let config = config.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            state.vms.insert(100, Vm { node: "pve1".to_owned(), config, ..Vm::default() });
            let job = json!({"id": "100-0", "type": "local", "guest": 100, "target": "pve2", "schedule": "*/5"});
            state.replication.push(object(job));
        }
        let now = 1_800_000_007;
        assert_eq!(world.replicate(now), Some(1_800_000_300));
        let status = |world: &World| {
            let state = world.state();
            Value::Object(state.replication_status(&state.replication[0]))
        };
        assert_eq!((&status(&world)["last_sync"], &status(&world)["fail_count"]), (&json!(now), &json!(0)));
        let log = world.state().replication_log("100-0");
        assert!(log.iter().any(|line| line.ends_with("volumes => tank:vm-100-disk-0")), "{log:?}");
        assert!(log.iter().any(|line| line.contains("full sync")), "{log:?}");
        if let Some(vm) = world.state().vms.get_mut(&100) {
            vm.config.insert("scsi1".to_owned(), "local-lvm:vm-100-disk-1".to_owned());
        }
        world.state().replicate_soon("100-0");
        assert_eq!(world.replicate(now + 60), Some(now + 60 + 300));
        let text = "missing replicate feature on volume 'local-lvm:vm-100-disk-1'";
        assert_eq!((&status(&world)["error"], &status(&world)["last_sync"]), (&json!(text), &json!(now)));
    }
}
