//! Backup jobs and their turns.
//!
//! Purpose: which of the cluster's jobs is due, and what a node is then asked for. Every node runs a job that names none.
//! Must not know: who asks the nodes. Start at [`Timetable::due`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::world::World;
use crate::world::calendar::Calendar;
use crate::world::state::{Sections, State};

/// What a job says about itself, and not about the backups.
const ITS_OWN: &[&str] =
    &["id", "type", "schedule", "enabled", "comment", "repeat-missed", "next-run", "node", "starttime", "dow"];

/// A backup that a node is to make now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The node.
    pub node: String,
    /// What it is asked for.
    pub options: BTreeMap<String, Vec<String>>,
}

/// Where is kept since when a job waits that makes up for missed turns.
const KEPT: &str = "jobs/waiting";

/// Since when each job waits for its turn. A job that was missed while nobody looked isn't made up for, unless it says
/// so (`repeat-missed`).
#[derive(Debug, Default)]
pub struct Timetable {
    waiting: BTreeMap<String, (String, u64)>,
}

impl Timetable {
    /// The backups that are due, and when there may be others; a job that is new or whose schedule is another one waits
    /// from now on.
    pub fn due(&mut self, state: &mut State, now: u64) -> (Vec<Due>, Option<u64>) {
        let (mut due, mut next) = (Vec::new(), None::<u64>);
        let (mut waiting, mut kept) = (BTreeMap::new(), Sections::new());
        for job in &state.backup {
            let text = |key: &str| job.get(key).and_then(Value::as_str).unwrap_or_default();
            let (id, schedule) = (text("id"), text("schedule"));
            let enabled = job.get("enabled").is_none_or(|flag| option(flag) != "0");
            let Some(calendar) = Calendar::parse(schedule).filter(|_| enabled) else { continue };
            let known = self.waiting.get(id).filter(|(known, _)| known == schedule);
            let repeats = job.get("repeat-missed").is_some_and(|flag| option(flag) == "1");
            let missed = || {
                let missed = state.sections.get(KEPT)?.get(id).filter(|_| repeats)?;
                (missed.get("schedule")?.as_str()? == schedule).then(|| missed.get("since")?.as_u64()).flatten()
            };
            let mut since = known.map(|(_, since)| *since).or_else(missed).unwrap_or(now);
            if calendar.next(since).is_some_and(|at| at <= now) {
                due.extend(places(state, job).map(|node| Due { node, options: options(job) }));
                since = now;
            }
            next = next.into_iter().chain(calendar.next(since)).min();
            waiting.insert(id.to_owned(), (schedule.to_owned(), since));
            if repeats {
                let entry = [("schedule".to_owned(), schedule.into()), ("since".to_owned(), since.into())];
                kept.insert(id.to_owned(), Map::from_iter(entry));
            }
        }
        self.waiting = waiting;
        if kept.is_empty() {
            state.sections.remove(KEPT);
        } else {
            state.sections.insert(KEPT.to_owned(), kept);
        }
        (due, next)
    }
}

/// The nodes that run a job and are there.
fn places(state: &State, job: &Map<String, Value>) -> impl Iterator<Item = String> {
    let only = job.get("node").and_then(Value::as_str).map(str::to_owned);
    let nodes = state.nodes.keys().filter(|node| state.is_online(node)).cloned();
    nodes.filter(move |node| only.as_ref().is_none_or(|only| only == node)).collect::<Vec<_>>().into_iter()
}

/// A value as a request has it.
fn option(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Object(parts) => {
            let parts = parts.iter().map(|(key, value)| format!("{key}={}", option(value)));
            parts.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

fn options(job: &Map<String, Value>) -> BTreeMap<String, Vec<String>> {
    let given = job.iter().filter(|(key, _)| !ITS_OWN.contains(&key.as_str()));
    let mut options: BTreeMap<String, Vec<String>> =
        given.map(|(key, value)| (key.clone(), vec![option(value)])).collect();
    options.insert("quiet".to_owned(), vec!["1".to_owned()]);
    let id = job.get("id").map(option).unwrap_or_default();
    options.insert("job-id".to_owned(), vec![id]);
    options
}

impl World {
    /// Says that jobs are others now.
    pub fn reschedule(&self) {
        self.0.rescheduled.notify_one();
    }

    /// Waits until jobs are others.
    pub async fn rescheduled(&self) {
        self.0.rescheduled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::seed::Seed;
    use crate::world::{PveVersion, Settings};

    fn job(id: &str, more: &Value) -> Map<String, Value> {
        let mut job = json!({"id": id, "type": "vzdump", "schedule": "04:30", "enabled": 1});
        let more = more.as_object().cloned().unwrap_or_default();
        job.as_object_mut().unwrap().extend(more);
        job.as_object().unwrap().clone()
    }

    #[tokio::test]
    async fn a_job_has_its_turn_once_and_only_while_it_is_on() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { dir: dir.path().to_owned(), time_scale: 200.0, rng_seed: 1, pve: PveVersion::V8 };
        let world = World::new(Seed::single_node(), settings).unwrap();
        let mut state = world.state();
        state.backup = vec![
            job("off", &json!({"enabled": 0})),
            job("elsewhere", &json!({"node": "pve9"})),
            job("on", &json!({"all": 1, "comment": "x", "prune-backups": {"keep-last": "3"}, "storage": "local"})),
        ];
        let mut timetable = Timetable::default();
        let noon = 1_800_014_400 / 86_400 * 86_400 + 43_200;
        let turn = noon + 16 * 3600 + 1800;
        assert_eq!(timetable.due(&mut state, noon), (Vec::new(), Some(turn)), "a new job waits");
        assert_eq!(timetable.due(&mut state, turn - 1), (Vec::new(), Some(turn)));
        let (due, next) = timetable.due(&mut state, turn + 7);
        assert_eq!((due.len(), next), (1, Some(turn + 86_400)));
        let options: Vec<(&str, &str)> =
            due[0].options.iter().map(|(key, values)| (key.as_str(), values[0].as_str())).collect();
        let expected =
            [("all", "1"), ("job-id", "on"), ("prune-backups", "keep-last=3"), ("quiet", "1"), ("storage", "local")];
        assert_eq!((due[0].node.as_str(), options), ("pve1", expected.to_vec()));
        assert_eq!(timetable.due(&mut state, turn + 8).0, Vec::new(), "it had its turn");
        state.backup[2].insert("schedule".to_owned(), json!("05:00"));
        assert_eq!(timetable.due(&mut state, turn + 9), (Vec::new(), Some(turn + 1800)), "another schedule waits anew");
        let late = turn + 3 * 86_400;
        assert_eq!(Timetable::default().due(&mut state, late).0, Vec::new(), "what was missed is over");
        state.backup[2].insert("repeat-missed".to_owned(), json!(1));
        assert_eq!(Timetable::default().due(&mut state, late).0, Vec::new(), "it begins to wait");
        assert_eq!(Timetable::default().due(&mut state, late + 3 * 86_400).0.len(), 1, "it is made up for once");
        assert_eq!(Timetable::default().due(&mut state, late + 3 * 86_400 + 9).0, Vec::new());
    }
}
