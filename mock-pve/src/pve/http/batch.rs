//! `POST N/execute`: several methods of a node in one request.
//!
//! Each runs as root, whatever became of the one before it (pve-manager 8, PVE/API2/Nodes.pm, `execute`). Must not know:
//! what methods do. Start at [`Api::batch`].

use serde_json::{Value, json};

use super::super::auth::Means;
use super::super::call::Call;
use super::super::json;
use super::super::params::{Params, decode_json};
use super::super::reply::{Body, Reply, run};
use super::Api;
use crate::world::refusal::Refusal;

/// Where the original complains.
const AT: &str = "at /usr/share/perl5/PVE/API2/Nodes.pm line";

/// One method that is to run.
struct Order {
    verb: String,
    path: String,
    args: Value,
}

/// What is wrong with the list, by the place in it.
fn complaints(list: &Value) -> Vec<String> {
    let Some(list) = list.as_array() else { return vec!["_root: type check ('array') failed\n".to_owned()] };
    let mut found = Vec::new();
    for (at, item) in list.iter().enumerate() {
        if !item.is_object() {
            found.push(format!("[{at}]: type check ('object') failed\n"));
            continue;
        }
        for key in ["path", "method"] {
            match &item[key] {
                Value::Null => found.push(format!("[{at}].{key}: property is missing and it is not optional\n")),
                Value::Array(_) => found.push(format!("[{at}].{key}: type check ('string') failed - got ARRAY\n")),
                Value::Object(_) => found.push(format!("[{at}].{key}: type check ('string') failed - got HASH\n")),
                value if key == "method" && !["GET", "POST", "PUT", "DELETE"].iter().any(|verb| value == verb) => {
                    found.push(format!("[{at}].{key}: value does not match the regex pattern\n"));
                }
                _ => {}
            }
        }
        if !matches!(item["args"], Value::Null | Value::Object(_)) {
            found.push(format!("[{at}].args: type check ('object') failed\n"));
        }
    }
    found
}

fn orders(given: &str) -> Result<Vec<Order>, String> {
    let list = json::read(given.as_bytes())
        .map_err(|complaint| format!("commands param did not contain valid JSON: {complaint} {AT} 98.\n"))?;
    let wrong = complaints(&list);
    if !wrong.is_empty() {
        let text = format!("400 Parameter verification failed.\n{}", wrong.concat());
        return Err(format!("commands is not a valid array of commands: {text}"));
    }
    let text = |item: &Value, key: &str| item[key].as_str().map_or_else(|| item[key].to_string(), str::to_owned);
    let orders = list.as_array().into_iter().flatten().map(|item| Order {
        verb: text(item, "method"),
        path: text(item, "path"),
        args: item["args"].clone(),
    });
    Ok(orders.collect())
}

/// What came of one method.
fn told(reply: Reply) -> Value {
    match reply.body {
        Body::Json(mut body) if reply.status == 200 => json!({"status": 200, "data": body["data"].take()}),
        Body::Json(mut body) => {
            let mut told = json!({"status": reply.status, "message": body["message"].take()});
            if body["errors"].is_object() {
                told["errors"] = body["errors"].take();
            }
            told
        }
        _ => json!({"status": reply.status, "message": reply.reason}),
    }
}

impl Api {
    /// Runs the methods of a batch.
    pub(super) async fn batch(&self, call: &Call) -> Reply {
        let orders = match orders(call.text("commands")) {
            Ok(orders) => orders,
            Err(text) => return Reply::refusal(&Refusal::param("commands", format!("invalid format - {text}"))),
        };
        let mut answers = Vec::new();
        for order in orders {
            answers.push(told(self.one_of_batch(call, &order).await));
        }
        Reply { status: 200, reason: String::new(), body: Body::Json(json!({"data": answers})) }
    }

    async fn one_of_batch(&self, call: &Call, order: &Order) -> Reply {
        let path = format!("nodes/{}/{}", call.text("node"), order.path);
        let rooted = format!("/{path}");
        let Some(found) = self.find(&order.verb, &rooted) else {
            return Reply::refusal(&Refusal::failed(format!("no handler for '{path}'\n")));
        };
        let args = if order.args.is_null() { "{}".to_owned() } else { order.args.to_string() };
        let params = decode_json(args.as_bytes()).unwrap_or_else(|_| Params::default());
        if let Some((name, _)) = found.captured.iter().find(|(name, _)| params.0.contains_key(name)) {
            return Reply::refusal(&Refusal::param(name, "duplicate parameter"));
        }
        match self.admit(&order.verb, &rooted, found, params, (call.caller.clone(), Means::Ticket)) {
            Ok((call, handler)) => run(handler, call).await,
            Err(reply) => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_none_is_refused_place_by_place() {
        for (given, text) in [
            ("{}", "_root: type check ('array') failed\n"),
            ("[1]", "[0]: type check ('object') failed\n"),
            (
                r#"[{"path":"x","method":"HEAD","args":1}]"#,
                "[0].method: value does not match the regex pattern\n[0].args: type check ('object') failed\n",
            ),
            (r#"[{"method":"GET"}]"#, "[0].path: property is missing and it is not optional\n"),
        ] {
            let expected =
                format!("commands is not a valid array of commands: 400 Parameter verification failed.\n{text}");
            assert_eq!(orders(given).err().as_deref(), Some(expected.as_str()), "{given}");
        }
        assert!(
            orders("x").is_err_and(|text| text.starts_with("commands param did not contain valid JSON: malformed"))
        );
        assert_eq!(orders(r#"[{"path":"version","method":"GET"}]"#).map(|orders| orders.len()), Ok(1));
    }
}
