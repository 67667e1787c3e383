//! Quotas of namespaces, and what is answered when objects are made and deleted.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::Lab;

const JSON: &str = "application/json";

impl Lab {
    async fn make(&self, path: &str, value: &Value) -> (u16, Value) {
        self.ask("POST", path, JSON, &value.to_string()).await
    }

    /// Asks until an object is as it has to be.
    async fn becomes(&self, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let found = self.get(path).await;
            if is_so(&found) {
                return found;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{path}: {found}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_kept() {
    let lab = Lab::begin("").await;
    let at = |kind: &str| format!("/api/v1/namespaces/tight/{kind}");
    let map = |name: &str| json!({ "metadata": { "name": name } });
    assert_eq!(lab.make("/api/v1/namespaces", &map("tight")).await.0, 201);
    lab.becomes(&at("configmaps"), |found| found["items"].as_array().is_some_and(|list| list.len() == 1)).await;
    let hard = json!({ "configmaps": "2", "pods": "1", "requests.cpu": "1" });
    let quota = json!({ "metadata": { "name": "small" }, "spec": { "hard": hard } });
    let (code, made) = lab.make(&at("resourcequotas"), &quota).await;
    assert_eq!((code, &made["status"]), (201, &json!({})));
    let quota = at("resourcequotas/small");
    let used = |count: &'static str| move |found: &Value| found["status"]["used"]["configmaps"] == count;
    let found = lab.becomes(&quota, used("1")).await;
    assert_eq!(found["status"]["hard"], hard);
    assert_eq!(lab.make(&at("configmaps"), &map("a")).await.0, 201);
    lab.becomes(&quota, used("2")).await;
    let (code, refused) = lab.make(&at("configmaps"), &map("b")).await;
    let why = "configmaps \"b\" is forbidden: exceeded quota: small, requested: configmaps=1, used: configmaps=2, limited: \
               configmaps=2";
    assert_eq!((code, refused["message"].as_str(), refused["reason"].as_str()), (403, Some(why), Some("Forbidden")));
    let pod = |name: &str, cpu: &str| {
        let resources = if cpu.is_empty() { json!({}) } else { json!({ "requests": { "cpu": cpu } }) };
        json!({ "metadata": { "name": name }, "spec": { "containers": [{ "name": "c", "image": "a", "resources": resources }] } })
    };
    for (name, cpu, why) in [
        ("bare", "", "failed quota: small: must specify requests.cpu for: c"),
        (
            "large",
            "1500m",
            "exceeded quota: small, requested: requests.cpu=1500m, used: requests.cpu=0, limited: requests.cpu=1",
        ),
    ] {
        let (code, refused) = lab.make(&at("pods"), &pod(name, cpu)).await;
        assert_eq!((code, refused["message"].as_str()), (403, Some(&*format!("pods \"{name}\" is forbidden: {why}"))));
    }
    // Controllers are refused like everybody.
    let template = json!({ "metadata": { "labels": { "app": "web" } }, "spec": pod("x", "100m")["spec"] });
    let spec = json!({ "replicas": 3, "selector": { "matchLabels": { "app": "web" } }, "template": template });
    let web = json!({ "metadata": { "name": "web" }, "spec": spec });
    let (code, made) = lab.make("/apis/apps/v1/namespaces/tight/deployments", &web).await;
    assert_eq!((code, &made["status"]), (201, &json!({})));
    let warned = |found: &Value| {
        let events = found["items"].as_array().cloned().unwrap_or_default();
        events.iter().any(|event| {
            let says = event["message"].as_str().unwrap_or_default();
            event["reason"] == "FailedCreate" && says.contains("is forbidden: exceeded quota: small, requested: pods=1")
        })
    };
    lab.becomes(&at("events"), warned).await;
    assert_eq!(lab.get(&at("pods")).await["items"].as_array().map(Vec::len), Some(1));
    let (code, gone) = lab.ask("DELETE", &quota, JSON, "").await;
    assert_eq!((code, &gone["kind"], &gone["metadata"]["name"]), (200, &json!("ResourceQuota"), &json!("small")));
    let (_, gone) = lab.ask("DELETE", &at("configmaps/a"), JSON, "").await;
    assert_eq!(gone["kind"], "Status");
    lab.becomes("/apis/apps/v1/namespaces/tight/deployments/web", |found| found["status"]["availableReplicas"] == 3)
        .await;
    lab.end().await;
}
