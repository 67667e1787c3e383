//! Questions about rights and identities: `kubectl auth can-i`, `auth whoami`; and tokens for accounts.

use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{self, Answer, Cause, Refusal};
use super::ask::Ask;
use super::decode;
use super::rbac::{self, Deed, User};
use super::tokens::Tokens;
use crate::etcd::Client;
use crate::world::cluster::{self, objects, pods};

/// Answers a question that is asked by making an object.
pub(super) fn ask(client: &Client, tokens: &Tokens, user: &User, ask: &Ask, body: &[u8]) -> Result<Answer, Refusal> {
    let mut review =
        decode::object(decode::value(&ask.content_type, body)?, &ask.kind, decode::Strictness::Ignore)?.object;
    let spec = review["spec"].clone();
    review["status"] = match ask.kind.kind.as_str() {
        "SelfSubjectReview" => json!({ "userInfo": info(user) }),
        "TokenReview" => match tokens.user(client, pods::text(&spec, "/token")) {
            Some(user) => json!({ "authenticated": true, "user": info(&user), "audiences": [tokens.issuer()] }),
            None => json!({ "user": {}, "error": "[invalid bearer token]" }),
        },
        "SelfSubjectRulesReview" => rules(client, user, pods::text(&spec, "/namespace")),
        "SelfSubjectAccessReview" => verdict(client, user, &spec),
        _ => {
            let groups = spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
            let asked =
                User { name: pods::text(&spec, "/user").to_owned(), groups: groups.collect(), ..User::default() };
            verdict(client, &asked, &spec)
        }
    };
    Ok(answer::json(StatusCode::CREATED, &review))
}

fn info(user: &User) -> Value {
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = json!(user.uid);
    }
    if !user.credential.is_empty() {
        info["extra"] = json!({ "authentication.kubernetes.io/credential-id": [user.credential] });
    }
    info
}

fn verdict(client: &Client, user: &User, spec: &Value) -> Value {
    let text = |pointer: &str| pods::text(spec, pointer).to_owned();
    let deed = if spec["nonResourceAttributes"].is_object() {
        let path = text("/nonResourceAttributes/path");
        Deed { verb: text("/nonResourceAttributes/verb"), path: Some(path), ..Deed::default() }
    } else {
        let below = text("/resourceAttributes/subresource");
        let mut resource = text("/resourceAttributes/resource");
        if !below.is_empty() {
            resource = format!("{resource}/{below}");
        }
        let namespace = text("/resourceAttributes/namespace");
        Deed {
            verb: text("/resourceAttributes/verb"),
            group: text("/resourceAttributes/group"),
            resource,
            namespace: (!namespace.is_empty()).then_some(namespace),
            name: text("/resourceAttributes/name"),
            path: None,
        }
    };
    if rbac::may(client, user, &deed) { json!({ "allowed": true }) } else { json!({ "allowed": false }) }
}

fn rules(client: &Client, user: &User, namespace: &str) -> Value {
    let mut all = rbac::rules(client, user, Some(namespace));
    if user.groups.iter().any(|group| group == "system:masters") {
        all.insert(0, json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
        all.insert(1, json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
    }
    let (paths, resources): (Vec<Value>, Vec<Value>) =
        all.into_iter().partition(|rule| rule.get("nonResourceURLs").is_some());
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}

/// `serviceaccounts/NAME/token`.
pub(super) fn token(client: &Client, tokens: &Tokens, ask: &Ask, name: &str, body: &[u8]) -> Result<Answer, Refusal> {
    let mut request = decode::value(&ask.content_type, body)?;
    let namespace = ask.namespace.as_deref().unwrap_or_default();
    let account = cluster::get(client, &objects::key("serviceaccounts", Some(namespace), name))
        .ok_or_else(|| Refusal::not_found(&ask.kind, name))?;
    let seconds = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or(3600);
    let why = match seconds {
        ..600 => Some("may not specify a duration less than 10 minutes"),
        seconds if seconds > 1 << 32 => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(why) = why {
        let cause = Cause::invalid("spec.expirationSeconds", &json!(seconds), why);
        let kind = ("authentication.k8s.io", "TokenRequest");
        return Err(Refusal::invalid_as("TokenRequest.authentication.k8s.io", kind, "", &[cause]));
    }
    let until = jiff::Timestamp::now().as_second().saturating_add(seconds);
    let uid = pods::text(&account.value, "/metadata/uid");
    let token = tokens.issue(namespace, name, uid, until).ok_or_else(|| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "the service account key can't sign")
    })?;
    let until = jiff::Timestamp::from_second(until).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    if !request.is_object() {
        request = json!({});
    }
    request["kind"] = json!("TokenRequest");
    request["apiVersion"] = json!("authentication.k8s.io/v1");
    request["metadata"] = json!({ "name": name, "namespace": namespace, "creationTimestamp": objects::now() });
    request["spec"]["expirationSeconds"] = json!(seconds);
    request["spec"]["audiences"] = json!([tokens.issuer()]);
    request["status"] = json!({ "token": token, "expirationTimestamp": until });
    Ok(answer::json(StatusCode::CREATED, &request))
}
