//! What runs in the cluster, and how much of it is ready: for the comparison of before and after.

use serde::{Deserialize, Serialize};

use super::client::{Client, K8sError};

/// A Deployment, `StatefulSet` or `DaemonSet` and how ready it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Workload {
    /// `Deployment`, `StatefulSet`, `DaemonSet`.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How many pods it wants.
    pub desired: u64,
    /// How many of them are ready.
    pub ready: u64,
}

impl Workload {
    /// Whether all that it wants is ready; one that wants nothing is.
    pub fn is_ready(&self) -> bool {
        self.ready >= self.desired
    }
}

impl std::fmt::Display for Workload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{} ({} of {} ready)", self.kind, self.namespace, self.name, self.ready, self.desired)
    }
}

/// Those that were ready in `before` and are not in `now`, as they are now; one that is gone counts as not ready.
pub fn regressions(before: &[Workload], now: &[Workload]) -> Vec<Workload> {
    let was_ready = before.iter().filter(|old| old.desired > 0 && old.is_ready());
    let today = was_ready.map(|old| {
        let same =
            now.iter().find(|new| (&new.kind, &new.namespace, &new.name) == (&old.kind, &old.namespace, &old.name));
        same.cloned().unwrap_or_else(|| Workload { ready: 0, ..old.clone() })
    });
    today.filter(|workload| !workload.is_ready()).collect()
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Default, Deserialize)]
struct Spec {
    replicas: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    ready_replicas: u64,
    desired_number_scheduled: u64,
    number_ready: u64,
}

fn workload(kind: &str, object: Object) -> Workload {
    let (desired, ready) = if kind == "DaemonSet" {
        (object.status.desired_number_scheduled, object.status.number_ready)
    } else {
        // One replica is what an absent number means (apps/v1).
        (object.spec.replicas.unwrap_or(1), object.status.ready_replicas)
    };
    let Metadata { name, namespace } = object.metadata;
    Workload { kind: kind.to_owned(), namespace, name, desired, ready }
}

impl Client {
    /// All workloads of the cluster, sorted.
    pub async fn workloads(&self) -> Result<Vec<Workload>, K8sError> {
        let mut all = Vec::new();
        for (plural, kind) in
            [("deployments", "Deployment"), ("statefulsets", "StatefulSet"), ("daemonsets", "DaemonSet")]
        {
            let objects: Vec<Object> = self.list(&format!("/apis/apps/v1/{plural}")).await?;
            all.extend(objects.into_iter().map(|object| workload(kind, object)));
        }
        all.sort();
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, name: &str, desired: u64, ready: u64) -> Workload {
        Workload { kind: kind.to_owned(), namespace: "a".to_owned(), name: name.to_owned(), desired, ready }
    }

    #[test]
    fn readiness_is_counted_as_each_kind_counts_it() {
        let read = |kind: &str, text: &str| workload(kind, serde_json::from_str(text).unwrap());
        let deployment =
            read("Deployment", r#"{"metadata":{"name":"x","namespace":"a"},"spec":{},"status":{"readyReplicas":1}}"#);
        assert_eq!(deployment, of("Deployment", "x", 1, 1));
        let scaled =
            read("StatefulSet", r#"{"metadata":{"name":"x","namespace":"a"},"spec":{"replicas":3},"status":{}}"#);
        assert_eq!(scaled, of("StatefulSet", "x", 3, 0));
        let everywhere =
            r#"{"metadata":{"name":"x","namespace":"a"},"status":{"desiredNumberScheduled":5,"numberReady":5}}"#;
        assert!(read("DaemonSet", everywhere).is_ready());
    }

    #[test]
    fn only_what_was_ready_and_is_not_any_more_is_a_regression() {
        let before = [
            of("Deployment", "ok", 2, 2),
            of("Deployment", "gone", 1, 1),
            of("Deployment", "off", 0, 0),
            of("Deployment", "ill", 2, 1),
        ];
        let now = [of("Deployment", "ok", 2, 1), of("Deployment", "off", 1, 0), of("Deployment", "ill", 2, 0)];
        assert_eq!(regressions(&before, &now), [of("Deployment", "ok", 2, 1), of("Deployment", "gone", 1, 0)]);
        assert_eq!(regressions(&before, &before), []);
        assert_eq!(of("Deployment", "ok", 2, 1).to_string(), "Deployment a/ok (1 of 2 ready)");
    }
}
