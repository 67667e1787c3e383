//! Disruption budgets: how many pods may go now (Kubernetes, pkg/controller/disruption).

use serde_json::{Map, Value, json};

use super::{Desk, Entry, generation, objects, pods, replicas};
use crate::world::cluster::pods::Rounding;

/// Seconds for which an evicted pod that is still there counts as gone.
const TIMEOUT: i64 = 120;

impl Desk<'_> {
    pub(super) fn budgets(&mut self) {
        for budget in self.all("/registry/poddisruptionbudgets/") {
            let status = self.budget(&budget);
            self.set_status(&budget, status);
        }
    }

    fn budget(&self, budget: &Entry) -> Value {
        let all = self.pods_in(pods::namespace(budget));
        let spec = &budget.value["spec"];
        let covered: Vec<&Entry> = all
            .into_iter()
            .filter(|pod| {
                !spec["selector"].is_null() && pods::matches(&spec["selector"], &pod.value["metadata"]["labels"])
            })
            .filter(|pod| !pods::is_over(&pod.value))
            .collect();
        let (expected, desired) = if let Some(most) = spec.get("maxUnavailable").filter(|most| !most.is_null()) {
            let expected = self.scale(&covered);
            (expected, expected.saturating_sub(pods::share(most, expected, Rounding::Up)))
        } else {
            match &spec["minAvailable"] {
                Value::String(_) => {
                    let expected = self.scale(&covered);
                    (expected, pods::share(&spec["minAvailable"], expected, Rounding::Up))
                }
                least => (covered.len() as u64, least.as_u64().unwrap_or(1)),
            }
        };
        let now = jiff::Timestamp::now();
        let mut disrupted = Map::new();
        for (name, since) in budget.value["status"]["disruptedPods"].as_object().into_iter().flatten() {
            let waits = covered.iter().any(|pod| pod.name() == name && !pods::is_going(&pod.value));
            let since = since.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
            if waits && since.is_some_and(|since| now.duration_since(since).as_secs() < TIMEOUT) {
                disrupted.insert(name.clone(), budget.value["status"]["disruptedPods"][name].clone());
            }
        }
        let healthy = covered
            .iter()
            .filter(|pod| {
                !pods::is_going(&pod.value) && !disrupted.contains_key(pod.name()) && pods::is_ready(&pod.value)
            })
            .count() as u64;
        let allowed = if expected > 0 { healthy.saturating_sub(desired) } else { 0 };
        let mut value = budget.value.clone();
        let conditions = value["status"]["conditions"].take();
        let mut status = json!({ "currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed,
            "expectedPods": expected, "observedGeneration": generation(&budget.value) });
        if conditions.is_array() {
            status["conditions"] = conditions;
        }
        if !disrupted.is_empty() {
            status["disruptedPods"] = Value::Object(disrupted);
        }
        value["status"] = status;
        if allowed > 0 {
            pods::set_condition(&mut value, "DisruptionAllowed", "True", "SufficientPods", "");
        } else {
            pods::set_condition(&mut value, "DisruptionAllowed", "False", "InsufficientPods", "");
        }
        let generation = generation(&budget.value);
        if let Some(one) = value.pointer_mut("/status/conditions/0") {
            one["observedGeneration"] = json!(generation);
            if one.get("message").is_none() {
                one["message"] = json!("");
            }
        }
        value["status"].take()
    }

    /// How many pods the owners of some pods want.
    fn scale(&self, covered: &[&Entry]) -> u64 {
        let mut owners: Vec<(&str, u64)> = Vec::new();
        let mut alone = 0;
        for pod in covered {
            let Some(owner) = pods::owner(&pod.value) else {
                alone += 1;
                continue;
            };
            let uid = owner["uid"].as_str().unwrap_or_default();
            if owners.iter().any(|(known, _)| *known == uid) {
                continue;
            }
            let resource = match owner["kind"].as_str() {
                Some("ReplicaSet") => "replicasets",
                Some("StatefulSet") => "statefulsets",
                _ => continue,
            };
            let name = owner["name"].as_str().unwrap_or_default();
            let found = self.view.get(&objects::key(resource, Some(pods::namespace(pod)), name));
            owners.push((uid, found.map_or(0, |owner| replicas(&owner.value))));
        }
        owners.iter().map(|(_, replicas)| replicas).sum::<u64>() + alone
    }
}
