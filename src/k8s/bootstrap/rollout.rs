//! How far an object is: what it is asked to be, and what its controller has made of that.
//!
//! Rules of sigs.k8s.io/cli-utils `kstatus`, for the kinds that are waited for here.

use serde_json::Value;

/// How far an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it is asked to be.
    Current,
    /// On its way.
    Waiting(String),
    /// It will not get there by itself.
    Failed(String),
}

/// Judges an object as the API shows it.
pub fn standing(object: &Value) -> Standing {
    let number = |pointer: &str| object.pointer(pointer).and_then(Value::as_i64);
    let generation = number("/metadata/generation");
    if let (Some(wanted), Some(seen)) = (generation, number("/status/observedGeneration"))
        && seen < wanted
    {
        return Standing::Waiting("its controller has not seen the change yet".to_owned());
    }
    let condition = |kind: &str| {
        let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
        conditions.into_iter().flatten().find(|condition| condition["type"] == kind)
    };
    let at_least = |what: &str, pointer: &str, wanted: i64| {
        let found = number(pointer).unwrap_or_default();
        (found < wanted).then(|| Standing::Waiting(format!("{found} of {wanted} {what}")))
    };
    match object["kind"].as_str().unwrap_or_default() {
        "Deployment" => {
            let wanted = number("/spec/replicas").unwrap_or(1);
            if let Some(progress) = condition("Progressing")
                && progress["reason"] == "ProgressDeadlineExceeded"
            {
                let why = progress["message"].as_str().unwrap_or("its progress deadline is over");
                return Standing::Failed(why.to_owned());
            }
            if number("/status/observedGeneration").is_none() && wanted > 0 {
                return Standing::Waiting("its controller has not seen it yet".to_owned());
            }
            at_least("updated", "/status/updatedReplicas", wanted)
                .or_else(|| at_least("ready", "/status/readyReplicas", wanted))
                .or_else(|| at_least("available", "/status/availableReplicas", wanted))
                .unwrap_or(Standing::Current)
        }
        "DaemonSet" => {
            let Some(wanted) = number("/status/desiredNumberScheduled") else {
                return Standing::Waiting("its controller has not seen it yet".to_owned());
            };
            at_least("updated", "/status/updatedNumberScheduled", wanted)
                .or_else(|| at_least("available", "/status/numberAvailable", wanted))
                .or_else(|| at_least("ready", "/status/numberReady", wanted))
                .unwrap_or(Standing::Current)
        }
        "CustomResourceDefinition" => match condition("Established") {
            Some(established) if established["status"] == "True" => Standing::Current,
            _ => Standing::Waiting("it is not established yet".to_owned()),
        },
        _ => Standing::Current,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workloads_are_current_once_their_controller_is_through() {
        let daemon =
            |status: Value| standing(&json!({"kind": "DaemonSet", "metadata": {"generation": 2}, "status": status}));
        let all = json!({"observedGeneration": 2, "desiredNumberScheduled": 3, "updatedNumberScheduled": 3, "numberReady": 3, "numberAvailable": 3});
        assert_eq!(daemon(all.clone()), Standing::Current);
        for (key, value) in
            [("observedGeneration", 1), ("updatedNumberScheduled", 2), ("numberReady", 2), ("numberAvailable", 0)]
        {
            let mut less = all.clone();
            less[key] = json!(value);
            assert!(matches!(daemon(less), Standing::Waiting(_)), "{key}");
        }
        assert!(matches!(daemon(json!({})), Standing::Waiting(_)));
        let deployment = |status: Value| {
            standing(
                &json!({"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status}),
            )
        };
        let all = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": 2, "availableReplicas": 2});
        assert_eq!(deployment(all.clone()), Standing::Current);
        let mut late = all;
        late["conditions"] =
            json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "no"}]);
        assert_eq!(deployment(late), Standing::Failed("no".to_owned()));
        assert_eq!(standing(&json!({"kind": "ConfigMap"})), Standing::Current);
        assert!(matches!(standing(&json!({"kind": "CustomResourceDefinition"})), Standing::Waiting(_)));
    }
}
