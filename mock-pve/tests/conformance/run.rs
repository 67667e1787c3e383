//! Carries out a scenario: its requests in order, variables taken from answers, tasks waited for.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use regex::Regex;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::client::{Asked, Server, form, quote};

type Answers = BTreeMap<String, Value>;

static VARIABLE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\$\{([^}]+)\}").unwrap());

/// The steps of a scenario, those that run at the same time one after the other.
fn steps(scenario: &Value) -> Vec<&Value> {
    let mut list = Vec::new();
    for step in scenario["steps"].as_array().into_iter().flatten() {
        match step.get("parallel").and_then(Value::as_array) {
            Some(inner) => list.extend(inner),
            None => list.push(step),
        }
    }
    list
}

/// Every answer of a scenario by name, with the rules for comparing it.
pub(crate) fn expected(scenario: &Value) -> Vec<(String, Value)> {
    let mut list = Vec::new();
    for step in steps(scenario) {
        let name = step["name"].as_str().unwrap_or_default();
        list.push((name.to_owned(), step.clone()));
        let asked = |key: &str| json!({"compare": step.get(key).cloned().unwrap_or(json!("exact"))});
        match step.get("wait_task") {
            None | Some(Value::Bool(false) | Value::Null) => {}
            Some(Value::String(_)) => {
                list.push((format!("{name} (task)"), asked("compare_task")));
                list.push((format!("{name} (log)"), asked("compare_log")));
            }
            Some(_) => list.push((format!("{name} (task)"), asked("compare_task"))),
        }
    }
    list
}

fn bytes_of(size: &Value) -> usize {
    let text = size.as_str().map_or_else(|| size.to_string(), str::to_owned);
    let (number, shift) = match text.chars().last() {
        Some('K') => (&text[..text.len() - 1], 10),
        Some('M') => (&text[..text.len() - 1], 20),
        Some('G') => (&text[..text.len() - 1], 30),
        _ => (text.as_str(), 0),
    };
    number.parse::<usize>().unwrap() << shift
}

/// A qcow2 image with nothing in it.
fn empty_qcow2(size: usize) -> Vec<u8> {
    const CLUSTER: usize = 1 << 16;
    let entries = size.div_ceil(CLUSTER * CLUSTER / 8).max(1);
    let tables = (entries * 8).div_ceil(CLUSTER);
    let mut image = vec![0_u8; (3 + tables) * CLUSTER];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let wide = |number: usize| (number as u64).to_be_bytes();
    let short = |number: u32| number.to_be_bytes();
    put(0, b"QFI\xfb");
    put(4, &short(3));
    put(20, &short(16));
    put(24, &wide(size));
    put(36, &short(u32::try_from(entries).unwrap()));
    put(40, &wide(3 * CLUSTER));
    put(48, &wide(CLUSTER));
    put(56, &short(1));
    put(96, &short(4));
    put(100, &short(104));
    put(CLUSTER, &wide(2 * CLUSTER));
    for cluster in 0..3 + tables {
        put(2 * CLUSTER + 2 * cluster, &1_u16.to_be_bytes());
    }
    image
}

fn file_of(spec: &Value) -> Vec<u8> {
    match spec["kind"].as_str().unwrap_or_default() {
        "qcow2" => empty_qcow2(bytes_of(&spec["size"])),
        "zeros" => vec![0; bytes_of(&spec["size"])],
        "iso" => {
            let mut image = vec![0; bytes_of(&spec["size"])];
            image[32_768..32_775].copy_from_slice(b"\x01CD001\x01");
            image
        }
        _ => {
            let times = usize::try_from(spec["times"].as_u64().unwrap_or(1)).unwrap();
            spec["text"].as_str().unwrap_or_default().repeat(times).into_bytes()
        }
    }
}

/// `data.0.upid`, and `[vmid=100]` for the element of a list.
fn look_up(value: &Value, path: &str) -> Value {
    let mut at = value.clone();
    for part in path.split('.').filter(|part| !part.is_empty()) {
        at = match (&at, part.strip_prefix('[').and_then(|part| part.strip_suffix(']'))) {
            (Value::Array(list), Some(choice)) => {
                let (key, wanted) = choice.split_once('=').unwrap_or((choice, ""));
                list.iter().find(|item| item.get(key).is_some_and(|v| text_of(v) == wanted)).cloned()
            }
            (Value::Array(list), None) => part.parse::<usize>().ok().and_then(|at| list.get(at).cloned()),
            (Value::Object(object), _) => object.get(part).cloned(),
            _ => None,
        }
        .unwrap_or_default();
    }
    at
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// One scenario against one server.
pub(crate) struct Run<'a> {
    server: &'a Server,
    scenario: &'a Value,
    files: BTreeMap<String, Vec<u8>>,
    variables: Mutex<BTreeMap<String, String>>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(server: &'a Server, scenario: &'a Value) -> Self {
        let files = scenario["files"].as_object().into_iter().flatten();
        let files = files.map(|(name, spec)| (name.clone(), file_of(spec))).collect();
        Self { server, scenario, files, variables: Mutex::default() }
    }

    async fn variable(&self, name: &str) -> String {
        match name.split_once(':') {
            Some(("sha256", file)) => hex::encode(Sha256::digest(&self.files[file])),
            Some(("size", file)) => self.files[file].len().to_string(),
            Some(("secret", identity)) => self.server.secret(identity),
            Some(("ticket", identity)) => self.server.ticket(identity).await.0,
            Some(("csrf", identity)) => self.server.ticket(identity).await.1,
            _ => self.variables.lock().unwrap().get(name).cloned().unwrap_or_default(),
        }
    }

    async fn fill(&self, text: &str, encode: bool) -> String {
        let (mut filled, mut at) = (String::new(), 0);
        for found in VARIABLE.captures_iter(text) {
            let whole = found.get(0).unwrap();
            filled.push_str(&text[at..whole.start()]);
            let raw = found[1].strip_prefix("raw:");
            let value = self.variable(raw.unwrap_or(&found[1])).await;
            filled.push_str(&if encode && raw.is_none() { quote(&value) } else { value });
            at = whole.end();
        }
        filled.push_str(&text[at..]);
        filled
    }

    async fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => json!(self.fill(text, false).await),
            Value::Array(list) => {
                let mut filled = Vec::new();
                for item in list {
                    filled.push(Box::pin(self.fill_value(item)).await);
                }
                Value::Array(filled)
            }
            Value::Object(object) if object.len() == 2 && object.contains_key("repeat") => {
                let times = usize::try_from(object["times"].as_u64().unwrap()).unwrap();
                json!(object["repeat"].as_str().unwrap().repeat(times))
            }
            Value::Object(object) => {
                let mut filled = Map::new();
                for (key, item) in object {
                    filled.insert(key.clone(), Box::pin(self.fill_value(item)).await);
                }
                Value::Object(filled)
            }
            other => other.clone(),
        }
    }

    fn multipart(&self, upload: &Value) -> (Vec<u8>, String) {
        let boundary = "conformance-0123456789abcdef";
        let mut body = Vec::new();
        let fields = |body: &mut Vec<u8>, key: &str| {
            for pair in upload[key].as_array().into_iter().flatten() {
                let field = format!(
                    "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"\r\n\r\n{}\r\n",
                    text_of(&pair[0]),
                    text_of(&pair[1])
                );
                body.extend_from_slice(field.as_bytes());
            }
        };
        fields(&mut body, "fields");
        if let Some(name) = upload["filename"].as_str() {
            let field = upload["file_field"].as_str().unwrap_or("filename");
            let head = format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\
                 Content-Type: application/octet-stream\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(&self.files[upload["file"].as_str().unwrap()]);
            body.extend_from_slice(b"\r\n");
        }
        fields(&mut body, "fields_after");
        body.extend_from_slice(format!("--{boundary}--").as_bytes());
        let quoted = upload["quoted_boundary"].as_bool().unwrap_or(false);
        let shown = if quoted { format!("\"{boundary}\"") } else { boundary.to_owned() };
        (body, format!("multipart/form-data; boundary={shown}"))
    }

    async fn request(&self, step: &Value) -> Asked {
        let method = step["method"].as_str().unwrap().to_owned();
        let mut headers = self.server.credentials(step["as"].as_str().unwrap_or("full"), &method).await;
        let mut target = self.fill(step["path"].as_str().unwrap(), true).await;
        if !target.starts_with("/api2") && step.get("literal_path").is_none() {
            target = format!("/api2/json{target}");
        }
        let mut body = None;
        let mut kind = None;
        if let Some(params) = step.get("params") {
            let pairs: Vec<(String, String)> = match self.fill_value(params).await {
                Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), text_of(value))).collect(),
                Value::Array(list) => list.iter().map(|pair| (text_of(&pair[0]), text_of(&pair[1]))).collect(),
                _ => Vec::new(),
            };
            if method == "GET" || method == "DELETE" {
                target = format!("{target}{}{}", if target.contains('?') { '&' } else { '?' }, form(&pairs));
            } else {
                body = Some(form(&pairs).into_bytes());
                kind = Some("application/x-www-form-urlencoded".to_owned());
            }
        } else if let Some(sent) = step.get("json") {
            body = Some(self.fill_value(sent).await.to_string().into_bytes());
            kind = Some("application/json".to_owned());
        } else if let Some(raw) = step.get("raw") {
            body = Some(self.fill(raw["text"].as_str().unwrap(), false).await.into_bytes());
            kind = raw["content_type"].as_str().map(str::to_owned);
        } else if let Some(upload) = step.get("upload") {
            let (sent, with) = self.multipart(&self.fill_value(upload).await);
            (body, kind) = (Some(sent), Some(with));
        }
        if let Some(kind) = kind {
            headers.insert("content-type".to_owned(), kind);
        }
        for (name, value) in step["headers"].as_object().into_iter().flatten() {
            match self.fill_value(value).await {
                Value::Null => headers.remove(&name.to_lowercase()),
                value => headers.insert(name.to_lowercase(), text_of(&value)),
            };
        }
        Asked { method, target, headers, body }
    }

    async fn send(&self, step: &Value) -> Value {
        match self.server.send(&self.request(step).await).await {
            Err(problem) => json!({"problem": problem}),
            Ok(answer) => {
                let (kind, body) = match serde_json::from_str::<Value>(&answer.text) {
                    Ok(body) => ("json", body),
                    Err(_) => (if answer.text.is_empty() { "empty" } else { "text" }, json!(answer.text)),
                };
                json!({"status": answer.status, "reason": answer.reason, "kind": kind, "body": body})
            }
        }
    }

    async fn satisfied(&self, answer: &Value, until: &Value) -> bool {
        if until.get("status").is_some_and(|status| *status != answer["status"]) {
            return false;
        }
        for (path, wanted) in until["body"].as_object().into_iter().flatten() {
            if text_of(&look_up(&answer["body"], path)) != text_of(&self.fill_value(wanted).await) {
                return false;
            }
        }
        true
    }

    async fn execute(&self, step: &Value) -> Answers {
        tokio::time::sleep(Duration::from_secs_f64(step["sleep"].as_f64().unwrap_or(0.0))).await;
        let retry = &step["retry"];
        let began = Instant::now();
        let patience = Duration::from_secs_f64(retry["seconds"].as_f64().unwrap_or(0.0));
        let mut answer = self.send(step).await;
        while !retry.is_null() && !self.satisfied(&answer, &retry["until"]).await && began.elapsed() < patience {
            tokio::time::sleep(Duration::from_secs_f64(retry["every"].as_f64().unwrap_or(0.5))).await;
            answer = self.send(step).await;
        }
        for (name, source) in step["capture"].as_object().into_iter().flatten() {
            let (path, pattern) = match source {
                Value::Array(both) => (both[0].as_str().unwrap(), both[1].as_str()),
                other => (other.as_str().unwrap(), None),
            };
            let value = look_up(&answer["body"], path);
            let value = match pattern {
                None if value.is_null() => None,
                None => Some(text_of(&value)),
                Some(pattern) => {
                    let found = Regex::new(pattern).unwrap();
                    value.as_str().and_then(|text| found.captures(text)).map(|found| found[1].to_owned())
                }
            };
            if let Some(value) = value {
                self.variables.lock().unwrap().insert(name.clone(), value);
            }
        }
        let upid = look_up(&answer["body"], "data");
        let mut answers = Answers::from([(step["name"].as_str().unwrap_or_default().to_owned(), answer)]);
        if step.get("wait_task").is_some_and(|wait| *wait != json!(false)) {
            answers.extend(self.wait(step, &upid).await);
        }
        answers
    }

    async fn wait(&self, step: &Value, upid: &Value) -> Answers {
        let (name, upid) = (step["name"].as_str().unwrap_or_default(), text_of(upid));
        let parts: Vec<&str> = upid.split(':').collect();
        if parts.len() != 9 {
            return Answers::new();
        }
        let path = format!("/nodes/{}/tasks/{}", parts[1], quote(&upid));
        let who = step.get("as").cloned().unwrap_or(json!("full"));
        let ask = |end: &str, params: Value| json!({"method": "GET", "as": who, "path": format!("{path}/{end}"), "params": params});
        let began = Instant::now();
        let mut refusals = 0;
        let mut status = Value::Null;
        while began.elapsed() < Duration::from_mins(2) && refusals < 10 {
            status = self.send(&ask("status", json!({}))).await;
            if look_up(&status["body"], "data.status") == "stopped" {
                break;
            }
            refusals = if status["status"] == 200 { 0 } else { refusals + 1 };
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut answers = Answers::from([(format!("{name} (task)"), status)]);
        if step["wait_task"] == "log" {
            let log = self.send(&ask("log", json!({"limit": 500}))).await;
            answers.insert(format!("{name} (log)"), log);
        }
        answers
    }

    /// All answers by name. The server is the scenario's own, so that nothing has to be cleared away after it.
    pub(crate) async fn run(&self) -> Answers {
        let mut answers = Answers::new();
        for step in self.scenario["always"].as_array().into_iter().flatten() {
            self.execute(step).await;
        }
        for step in self.scenario["steps"].as_array().into_iter().flatten() {
            match step.get("parallel").and_then(Value::as_array) {
                Some(inner) => {
                    join_all(inner.iter().map(|step| self.execute(step)))
                        .await
                        .into_iter()
                        .for_each(|a| answers.extend(a));
                }
                None => answers.extend(self.execute(step).await),
            }
        }
        answers
    }
}
