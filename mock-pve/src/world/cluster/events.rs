//! What is told of objects: events, where the same news that comes again is only counted (client-go, tools/record).
//!
//! Must not know: who tells, and when. Start at [`News`]; [`post`] writes one down, [`forget`] drops what is old.

use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Entry, objects, pods};
use crate::etcd::{Client, EtcdError};

/// Where events are kept.
const PREFIX: &str = "/registry/events/";

/// How much news matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// All is as it should be.
    Normal,
    /// Somebody should know.
    Warning,
}

/// One piece of news about an object.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    about: Value,
    weight: Weight,
    reason: &'static str,
    message: String,
    component: &'static str,
    host: String,
    /// What was done, for those who write events in the newer way (`events.k8s.io`).
    action: &'static str,
}

impl News {
    /// A component's news about an object.
    pub fn of(object: &Value, component: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        let metadata = &object["metadata"];
        let mut about = json!({ "kind": object["kind"], "apiVersion": object["apiVersion"], "name": metadata["name"],
            "uid": metadata["uid"] });
        if let Some(namespace) = metadata["namespace"].as_str() {
            about["namespace"] = json!(namespace);
        }
        let (message, host) = (message.into(), String::new());
        Self { about, weight: Weight::Normal, reason, message, component, host, action: "" }
    }

    /// A kubelet's news about its node, which it knows by name alone.
    pub fn of_node(node: &str, reason: &'static str, message: impl Into<String>) -> Self {
        let about = json!({ "kind": "Node", "name": node, "uid": node });
        let (message, host) = (message.into(), node.to_owned());
        Self { about, weight: Weight::Normal, reason, message, component: "kubelet", host, action: "" }
    }

    /// It is a warning.
    #[must_use]
    pub fn warns(mut self) -> Self {
        self.weight = Weight::Warning;
        self
    }

    /// It was seen on that machine.
    #[must_use]
    pub fn on(mut self, host: &str) -> Self {
        host.clone_into(&mut self.host);
        self
    }

    /// It is about one of a pod's containers.
    #[must_use]
    pub fn in_container(mut self, name: &str) -> Self {
        self.about["fieldPath"] = json!(format!("spec.containers{{{name}}}"));
        self
    }

    /// It is told in the newer way: with what was done.
    #[must_use]
    pub fn doing(mut self, action: &'static str) -> Self {
        self.action = action;
        self
    }

    fn namespace(&self) -> &str {
        self.about["namespace"].as_str().unwrap_or("default")
    }

    /// Where it is kept: the same news in the same place.
    fn key(&self) -> String {
        let name = pods::text(&self.about, "/name");
        let of = format!("{} {} {} {} {}", self.about, self.reason, self.message, self.component, self.host);
        let name = format!("{name}.{}", &hex::encode(Sha256::digest(of))[..16]);
        objects::key("events", Some(self.namespace()), &name)
    }

    /// The event: a new one, or the known one counted once more.
    fn event(&self, known: Option<Value>, key: &str) -> Value {
        let (now, exact) = (objects::now(), micro_now());
        if let Some(mut event) = known {
            if self.action.is_empty() {
                event["count"] = json!(pods::count(&event, "/count").saturating_add(1));
                event["lastTimestamp"] = json!(now);
            } else {
                let count = pods::count(&event, "/series/count").max(1).saturating_add(1);
                event["series"] = json!({ "count": count, "lastObservedTime": exact });
            }
            return event;
        }
        let name = key.rsplit('/').next().unwrap_or_default();
        let uid = objects::uid(&format!("{key} {exact}"));
        let metadata = json!({ "name": name, "namespace": self.namespace(), "uid": uid, "creationTimestamp": now });
        let mut event = json!({ "apiVersion": "v1", "kind": "Event", "metadata": metadata, "involvedObject": self.about,
            "reason": self.reason, "message": self.message, "reportingComponent": self.component,
            "reportingInstance": self.host, "type": if self.weight == Weight::Normal { "Normal" } else { "Warning" } });
        if self.action.is_empty() {
            event["source"] = json!({ "component": self.component });
            if !self.host.is_empty() {
                event["source"]["host"] = json!(self.host);
            }
            for field in ["firstTimestamp", "lastTimestamp"] {
                event[field] = json!(now);
            }
            event["count"] = json!(1);
            event["eventTime"] = Value::Null;
        } else {
            event["action"] = json!(self.action);
            event["source"] = json!({});
            event["eventTime"] = json!(exact);
            event["firstTimestamp"] = Value::Null;
            event["lastTimestamp"] = Value::Null;
        }
        event
    }
}

fn micro_now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Writes news down, unless its namespace is going or gone: nothing new comes into that.
pub async fn post(client: &Client, news: &News) -> Result<(), EtcdError> {
    let namespace = super::get(client, &objects::key("namespaces", None, news.namespace()));
    if namespace.is_none_or(|namespace| pods::is_going(&namespace.value)) {
        return Ok(());
    }
    let key = news.key();
    let known = super::get(client, &key).map(|entry| entry.value);
    super::put(client, &key, &news.event(known, &key), None).await.map(|_| ())
}

/// Drops the events that were written longer ago than that.
pub async fn forget(client: &Client, age: Duration) -> Result<(), EtcdError> {
    let now = jiff::Timestamp::now();
    for entry in super::list(client, PREFIX).0 {
        if written(&entry).is_some_and(|at| now.duration_since(at).unsigned_abs() > age && at < now) {
            match client.delete(&entry.key, Some(entry.modified)).await {
                Ok(_) | Err(EtcdError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// When an event was last written, as far as it says so.
fn written(event: &Entry) -> Option<jiff::Timestamp> {
    let times = ["/metadata/creationTimestamp", "/lastTimestamp", "/series/lastObservedTime"];
    times.iter().filter_map(|pointer| pods::text(&event.value, pointer).parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "namespace": "shop", "uid": "1" } })
    }

    #[test]
    fn the_same_news_is_counted_and_other_news_is_kept_beside_it() {
        let news = News::of(&pod(), "kubelet", "Started", "Started container web").on("worker-01").in_container("web");
        let key = news.key();
        assert!(key.starts_with("/registry/events/shop/a."), "{key}");
        let first = news.event(None, &key);
        assert_eq!(first["involvedObject"]["fieldPath"], "spec.containers{web}");
        assert_eq!(first["source"], json!({ "component": "kubelet", "host": "worker-01" }));
        assert_eq!((&first["count"], &first["type"]), (&json!(1), &json!("Normal")));
        let second = news.event(Some(first.clone()), &key);
        assert_eq!((&second["count"], &second["metadata"]["uid"]), (&json!(2), &first["metadata"]["uid"]));
        let other = News::of(&pod(), "kubelet", "Killing", "Stopping container web").on("worker-01");
        assert_ne!(other.key(), key);
    }

    #[test]
    fn a_scheduler_tells_in_the_newer_way() {
        let news =
            News::of(&pod(), "default-scheduler", "FailedScheduling", "0/0 nodes are available").doing("Scheduling");
        let first = news.warns().event(None, "/registry/events/shop/a.1");
        assert!(first["eventTime"].is_string() && first["firstTimestamp"].is_null() && first.get("count").is_none());
        assert_eq!((&first["type"], &first["source"]), (&json!("Warning"), &json!({})));
        let again = News::of(&pod(), "default-scheduler", "FailedScheduling", "x").doing("Scheduling");
        assert_eq!(again.event(Some(first), "k")["series"]["count"], 2);
    }

    #[test]
    fn news_of_nodes_is_in_the_default_namespace() {
        let key = News::of_node("worker-01", "NodeReady", "Node worker-01 status is now: NodeReady").key();
        assert!(key.starts_with("/registry/events/default/worker-01."), "{key}");
    }
}
