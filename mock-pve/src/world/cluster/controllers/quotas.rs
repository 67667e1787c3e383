//! Quotas: how much of each is used, and what their limits mean for pods that controllers make (Kubernetes,
//! pkg/controller/resourcequota).

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Desk, Entry, pods};
use crate::world::cluster::events::News;
use crate::world::cluster::quota;

/// How long what nobody watches may have changed without being counted.
const AGAIN: Duration = Duration::from_secs(2);

impl Desk<'_> {
    pub(super) fn quotas(&mut self) {
        let all = self.all("/registry/resourcequotas/");
        for one in &all {
            let look_up = self.look_up;
            let status = quota::status(&one.value, |prefix| values(look_up(prefix)));
            self.set_status(one, status);
        }
        if !all.is_empty() {
            self.round.wake(Instant::now() + AGAIN);
        }
    }

    /// Whether the quotas have room for a pod of that owner; else the refusal.
    pub(super) fn has_room(&self, owner: &Entry, pod: &Value) -> Result<(), String> {
        let namespace = pods::namespace(owner);
        let quotas: Vec<_> = self.view.list(&format!("/registry/resourcequotas/{namespace}/")).cloned().collect();
        if quotas.is_empty() {
            return Ok(());
        }
        let prefix = format!("/registry/pods/{namespace}/");
        let mut there = values((self.look_up)(&prefix));
        let begun = self.round.writes.iter().filter(|write| write.expected == 0 && write.key.starts_with(&prefix));
        there.extend(begun.filter_map(|write| write.value.clone()));
        for one in quotas {
            let name = pods::text(pod, "/metadata/name");
            quota::check(&one.value, "pods", pod, None, &there)
                .map_err(|why| format!("pods \"{name}\" is forbidden: {why}"))?;
        }
        Ok(())
    }

    /// Makes a pod of an owner where there is room, and tells of it; whether there was.
    pub(super) fn make(&mut self, owner: &Entry, by: &'static str, (key, pod): (String, Value)) -> Made {
        if let Err(why) = self.has_room(owner, &pod) {
            let why = format!("Error creating: {why}");
            self.round.news.push(News::of(&owner.value, by, "FailedCreate", why).warns());
            return Made::Refused;
        }
        let why = format!("Created pod: {}", pods::text(&pod, "/metadata/name"));
        self.round.create(key, pod);
        self.round.tell(News::of(&owner.value, by, "SuccessfulCreate", why));
        Made::Begun
    }
}

/// What became of a pod that was to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    Begun,
    Refused,
}

fn values(entries: Vec<Entry>) -> Vec<Value> {
    entries.into_iter().map(|entry| entry.value).collect()
}
