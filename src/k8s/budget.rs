//! `PodDisruptionBudget`s: which of them will never let a pod go, and which only not right now.
//!
//! Purpose: a pure judgement over objects, made before a drain begins. The rules are those of Kubernetes' disruption
//! controller and eviction subresource (`pkg/controller/disruption`, `pkg/registry/core/pod/storage/eviction.go`).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Client, K8sError};
use super::drain::stays;
use super::pods::Pod;

/// A budget.
#[derive(Clone, Debug, Deserialize)]
pub struct Budget {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    min_available: Option<Value>,
    max_unavailable: Option<Value>,
    selector: Option<Selector>,
    unhealthy_pod_eviction_policy: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Clone, Debug, Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    disruptions_allowed: i64,
    current_healthy: i64,
    desired_healthy: i64,
    expected_pods: i64,
}

/// A pod that will not simply go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Its node.
    pub node: String,
    /// `namespace/name`.
    pub pod: String,
    /// Why, a clause.
    pub why: String,
    /// Whether that never changes by itself.
    pub hopeless: bool,
}

impl Selector {
    /// An empty one matches everything of its namespace (policy/v1).
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let expression = |expression: &Expression| {
            let value = labels.get(&expression.key);
            match expression.operator.as_str() {
                "In" => value.is_some_and(|value| expression.values.contains(value)),
                "NotIn" => value.is_none_or(|value| !expression.values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        };
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(expression)
    }
}

impl Budget {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.metadata.namespace, self.metadata.name)
    }

    /// Whether the pod falls under it. One without a selector covers nothing.
    pub fn covers(&self, pod: &Pod) -> bool {
        pod.namespace == self.metadata.namespace
            && self.spec.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
    }

    /// Why an eviction of the pod would be refused, and whether for ever.
    fn holds(&self, pod: &Pod) -> Option<(String, bool)> {
        let Status { disruptions_allowed, current_healthy, desired_healthy, expected_pods } = self.status;
        let name = &self.metadata.name;
        if pod.phase == "Pending" {
            return None;
        }
        if !pod.ready {
            let policy = self.spec.unhealthy_pod_eviction_policy.as_deref();
            if policy == Some("AlwaysAllow") || (current_healthy >= desired_healthy && desired_healthy > 0) {
                return None;
            }
        }
        if let Some(most) = &self.spec.max_unavailable
            && is_zero(most)
        {
            return Some((
                format!("PodDisruptionBudget {name} allows no pod to be away (maxUnavailable: {})", shown(most)),
                true,
            ));
        }
        if expected_pods > 0 && desired_healthy >= expected_pods {
            let spec = self.spec.min_available.as_ref().map(|least| format!(" (minAvailable: {})", shown(least)));
            let spec = spec.unwrap_or_default();
            return Some((
                format!("PodDisruptionBudget {name} wants {desired_healthy} of {expected_pods} pods healthy{spec}"),
                true,
            ));
        }
        (disruptions_allowed <= 0).then(|| {
            let text = format!(
                "PodDisruptionBudget {name} needs {desired_healthy} healthy pods and has {current_healthy} of {expected_pods}"
            );
            (text, false)
        })
    }
}

fn is_zero(quantity: &Value) -> bool {
    match quantity {
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.trim_end_matches('%') == "0",
        _ => false,
    }
}

fn shown(quantity: &Value) -> String {
    quantity.as_str().map_or_else(|| quantity.to_string(), str::to_owned)
}

/// Which of the pods that a drain would evict won't simply go: those that a budget holds, and those that nobody makes
/// again once they are gone.
pub fn holds(budgets: &[Budget], pods: &[Pod]) -> Vec<Hold> {
    let mut found = Vec::new();
    for pod in pods.iter().filter(|pod| stays(pod).is_none() && !pod.node.is_empty()) {
        let mut add = |why: String, hopeless: bool| {
            found.push(Hold { node: pod.node.clone(), pod: pod.full_name(), why, hopeless });
        };
        let covering: Vec<&Budget> = budgets.iter().filter(|budget| budget.covers(pod)).collect();
        match &covering[..] {
            [] => {}
            [budget] => {
                if let Some((why, hopeless)) = budget.holds(pod) {
                    add(why, hopeless);
                }
            }
            several => {
                let names: Vec<&str> = several.iter().map(|budget| budget.metadata.name.as_str()).collect();
                add(
                    format!(
                        "it falls under several PodDisruptionBudgets ({}), which no eviction may",
                        names.join(", ")
                    ),
                    true,
                );
            }
        }
        if pod.controller.is_none() {
            add("no controller makes it again once it is evicted".to_owned(), false);
        }
    }
    found.sort_by(|a, b| (&a.node, &a.pod, &a.why).cmp(&(&b.node, &b.pod, &b.why)));
    found
}

impl Client {
    /// All budgets of the cluster.
    pub async fn budgets(&self) -> Result<Vec<Budget>, K8sError> {
        self.list_served("/apis/policy/v1/poddisruptionbudgets").await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "callers make them on the spot")]
    fn budget(name: &str, spec: Value, status: Value) -> Budget {
        let mut object = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec, "status": status});
        if object["spec"].get("selector").is_none() {
            object["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
        }
        serde_json::from_value(object).unwrap()
    }

    fn status(allowed: i64, current: i64, desired: i64, expected: i64) -> Value {
        json!({"disruptionsAllowed": allowed, "currentHealthy": current, "desiredHealthy": desired, "expectedPods": expected})
    }

    fn pod(name: &str) -> Pod {
        Pod {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            node: "w-01".to_owned(),
            phase: "Running".to_owned(),
            ready: true,
            controller: Some("ReplicaSet".to_owned()),
            labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
            ..Pod::default()
        }
    }

    fn judged(budgets: &[Budget], pod: &Pod) -> Option<(String, bool)> {
        holds(budgets, std::slice::from_ref(pod)).pop().map(|hold| (hold.why, hold.hopeless))
    }

    #[test]
    fn a_budget_that_can_never_be_satisfied_is_told_from_one_that_is_only_tight_now() {
        let cases = [
            (json!({"maxUnavailable": 0}), status(0, 2, 2, 2), Some(true)),
            (json!({"maxUnavailable": "0%"}), status(0, 2, 2, 2), Some(true)),
            (json!({"minAvailable": 1}), status(0, 1, 1, 1), Some(true)),
            (json!({"minAvailable": "100%"}), status(0, 3, 3, 3), Some(true)),
            (json!({"minAvailable": 5}), status(0, 3, 5, 3), Some(true)),
            (json!({"minAvailable": 1}), status(0, 1, 1, 2), Some(false)),
            (json!({"minAvailable": 1}), status(1, 2, 1, 2), None),
            (json!({"maxUnavailable": 1}), status(0, 2, 2, 3), Some(false)),
            (json!({"maxUnavailable": 1}), status(1, 3, 2, 3), None),
        ];
        for (spec, status, expected) in cases {
            let shown = format!("{spec} {status}");
            assert_eq!(
                judged(&[budget("b", spec, status)], &pod("web-1")).map(|(_, never)| never),
                expected,
                "{shown}"
            );
        }
    }

    #[test]
    fn a_pod_that_is_not_healthy_may_go_where_the_budget_lets_it() {
        let ill = Pod { ready: false, ..pod("web-1") };
        let tight = status(0, 1, 2, 2);
        let patient = budget("b", json!({"minAvailable": 2}), tight.clone());
        assert!(judged(&[patient], &ill).is_some(), "too few are healthy already");
        let always = budget("b", json!({"minAvailable": 2, "unhealthyPodEvictionPolicy": "AlwaysAllow"}), tight);
        assert_eq!(judged(&[always], &ill), None);
        let enough = budget("b", json!({"minAvailable": 2}), status(0, 2, 2, 3));
        assert_eq!(judged(&[enough], &ill), None, "enough others are healthy");
    }

    #[test]
    fn selectors_cover_as_in_policy_v1() {
        let covers = |selector: Value| {
            budget("b", json!({ "selector": selector, "maxUnavailable": 0 }), status(0, 1, 1, 1)).covers(&pod("web-1"))
        };
        assert!(covers(json!({})) && covers(json!({"matchLabels": {"app": "web"}})));
        assert!(covers(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "db"]}]})));
        assert!(covers(json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]})));
        assert!(!covers(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]})));
        assert!(!covers(json!({"matchLabels": {"app": "db"}})) && !covers(Value::Null));
        let elsewhere = Pod { namespace: "other".to_owned(), ..pod("web-1") };
        assert!(!budget("b", json!({}), status(0, 0, 0, 0)).covers(&elsewhere));
    }

    #[test]
    fn several_budgets_and_pods_without_a_controller_are_told() {
        let fine = || status(1, 2, 1, 2);
        let two = [budget("a", json!({"minAvailable": 1}), fine()), budget("b", json!({"minAvailable": 1}), fine())];
        let (why, hopeless) = judged(&two, &pod("web-1")).unwrap();
        assert!(hopeless && why.contains("(a, b)"));
        let alone = Pod { controller: None, labels: BTreeMap::new(), ..pod("bare") };
        assert!(!judged(&two, &alone).unwrap().1);
        let daemon = Pod { controller: Some("DaemonSet".to_owned()), ..pod("proxy") };
        assert_eq!(judged(&two, &daemon), None, "it is not evicted at all");
    }
}
