//! Whether two answers are the same, but for what differs from run to run.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value, json};

/// The levels at which an answer is right.
#[derive(Clone, Copy, Debug, Default)]
pub struct Equal {
    pub status: bool,
    pub shape: bool,
    pub exact: bool,
}

static TEXTS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"UPID:([\w-]+):[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8}:", "UPID:$1:-:-:-:"),
        (r#"(PVE(?:VNC)?:[^\s:"]*:)[0-9A-F]{8}::[A-Za-z0-9+/=%]+"#, "${1}-"),
        (r"(?i)\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<uuid>"),
        (r"\b([0-9A-F]{2}:){31}[0-9A-F]{2}\b", "<fingerprint>"),
        (r"(?i)\b(BC:24:11)(:[0-9A-F]{2}){3}\b", "$1:-"),
        (r"\bctime=\d+", "ctime=-"),
        (r"\bcreation-qemu=[\d.]+", "creation-qemu=-"),
        (r"/usr/(?:local/)?share/perl(?:5|/[\d.]+)/", "/perl/"),
        (r"( at /perl/\S+ line )\d+", "${1}-"),
        (r"pveupload-[0-9a-f]{32}", "pveupload"),
        (r"\bpid (\d+)", "pid -"),
    ]
    .into_iter()
    .map(|(pattern, with)| (Regex::new(pattern).unwrap(), with))
    .collect()
});

static PROGRESS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(transferred |drive-\S+: (transferred|Completing|mirror)|mirror )").unwrap());

/// Keys whose values are never the same twice; their type still counts.
const VOLATILE: &[&str] = &[
    "pid",
    "pstart",
    "starttime",
    "endtime",
    "ctime",
    "uptime",
    "snaptime",
    "used",
    "avail",
    "used_fraction",
    "used-fraction",
    "idle",
    "wait",
    "loadavg",
    "ssl_fingerprint",
    "ticket",
    "CSRFPreventionToken",
    "digest",
    "vmgenid",
    "version",
    "release",
    "repoid",
    "pveversion",
    "kversion",
    "running-machine",
    "running-qemu",
    "freemem",
    "ip",
    "cgroup-mode",
    "clustername",
    "time",
    "localtime",
];

const STATISTICS: &[&str] = &["cpu", "mem", "disk", "netin", "netout", "diskread", "diskwrite"];

fn plain(text: &str) -> String {
    TEXTS.iter().fold(text.to_owned(), |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

fn neutral(value: &Value) -> Value {
    match value {
        Value::Number(_) => json!("<number>"),
        Value::String(_) => json!("<string>"),
        Value::Array(_) => json!("<list>"),
        Value::Object(_) => json!("<object>"),
        other => other.clone(),
    }
}

fn is_log(value: &Value) -> bool {
    value.as_array().is_some_and(|lines| {
        !lines.is_empty() && lines.iter().all(|line| line.get("n").is_some() && line["t"].is_string())
    })
}

fn is_task_list(value: &Value) -> bool {
    value.as_array().and_then(|list| list.first()).is_some_and(|first| first.get("upid").is_some())
}

fn names(rules: &Value, key: &str) -> Vec<String> {
    rules[key].as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

struct Rules {
    keep: Vec<String>,
    volatile: Vec<String>,
    ordered: bool,
}

impl Rules {
    fn hides(&self, key: &str) -> bool {
        self.volatile.iter().any(|name| name == key)
            || (VOLATILE.contains(&key) && !self.keep.iter().any(|name| name == key))
    }

    fn object(&self, object: &Map<String, Value>) -> Value {
        let stopped = object.get("status") == Some(&json!("stopped")) && object.contains_key("vmid");
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        let hidden = |key: &str| {
            (!stopped && STATISTICS.contains(&key))
                || (kind == "node" && ["maxcpu", "maxmem", "maxdisk"].contains(&key))
                || (kind == "storage" && ["disk", "maxdisk"].contains(&key))
                || (key == "total" && (object.contains_key("avail") || object.get("data").is_some_and(is_task_list)))
                || (key == "value"
                    && (object.contains_key("full-tokenid")
                        || object.get("key").and_then(Value::as_str).is_some_and(|key| VOLATILE.contains(&key))))
        };
        let mut shown: Map<String, Value> = object
            .iter()
            .map(|(key, value)| (key.clone(), if hidden(key) { neutral(value) } else { self.value(value, Some(key)) }))
            .collect();
        if let (Some(data), Some(total)) = (object.get("data").filter(|data| is_log(data)), object.get("total"))
            && let Some(total) = total.as_i64()
        {
            let dropped = data.as_array().map_or(0, Vec::len) - shown["data"].as_array().map_or(0, Vec::len);
            shown.insert("total".to_owned(), json!(total - i64::try_from(dropped).unwrap()));
        }
        Value::Object(shown)
    }

    fn value(&self, value: &Value, key: Option<&str>) -> Value {
        if key.is_some_and(|key| self.hides(key)) {
            return neutral(value);
        }
        match value {
            Value::String(text) if matches!(key, Some("content" | "privs")) && text.contains(',') => {
                let parts: BTreeSet<&str> = text.split(',').collect();
                json!(parts)
            }
            Value::String(_) if self.keep.iter().any(|name| name == "text") => value.clone(),
            Value::String(text) => json!(plain(text)),
            Value::Object(object) => self.object(object),
            Value::Array(lines) if is_log(value) => {
                let text = |line: &Value| line["t"].as_str().unwrap_or_default().to_owned();
                let lines = lines.iter().map(text).filter(|line| !PROGRESS.is_match(line));
                lines.map(|line| json!({"t": plain(&line)})).collect()
            }
            Value::Array(list) => {
                let mut list: Vec<Value> = list.iter().map(|item| self.value(item, None)).collect();
                if !self.ordered && list.iter().all(Value::is_object) {
                    list.sort_by_key(ToString::to_string);
                }
                Value::Array(list)
            }
            // 1 and 1.0 are one number.
            Value::Number(number) => number.as_f64().map_or_else(|| value.clone(), |number| json!(number)),
            other => other.clone(),
        }
    }
}

/// Keys and types only; a list has the set of the shapes of its elements.
fn shape(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(object.iter().map(|(key, value)| (key.clone(), shape(value))).collect()),
        Value::Array(list) => {
            let shapes: BTreeSet<String> = list.iter().map(|item| shape(item).to_string()).collect();
            json!({"list of": shapes})
        }
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
    }
}

/// Takes out what a dotted path names; `*` is every element.
fn drop_path(value: &mut Value, path: &str) {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    match value {
        Value::Array(list) if head == "*" => {
            for item in list {
                if let Some(rest) = rest {
                    drop_path(item, rest);
                }
            }
        }
        Value::Object(object) => match rest {
            None => object.retain(|key, _| key != head && head != "*"),
            Some(rest) => {
                object.iter_mut().filter(|(key, _)| *key == head || head == "*").for_each(|(_, v)| drop_path(v, rest));
            }
        },
        _ => {}
    }
}

/// Compares what came with what was recorded, as strictly as the step asks for.
pub fn compare(rules: &Value, wanted: &Value, got: &Value) -> (Equal, String) {
    if got.get("status").is_none() {
        return (Equal::default(), format!("no answer: {}", got["problem"]));
    }
    let (mut wanted, mut got) = (wanted.clone(), got.clone());
    for path in names(rules, "ignore") {
        drop_path(&mut wanted["body"], &path);
        drop_path(&mut got["body"], &path);
    }
    let how = Rules {
        keep: names(rules, "keep"),
        volatile: names(rules, "volatile"),
        ordered: rules["ordered"].as_bool().unwrap_or(false),
    };
    let reason = |answer: &Value| plain(answer["reason"].as_str().unwrap_or_default());
    let form = |answer: &Value| {
        if answer["kind"] == "json" { shape(&answer["body"]) } else { json!(answer["body"] == "") }
    };
    let bodies = (how.value(&wanted["body"], None), how.value(&got["body"], None));
    let status = wanted["status"] == got["status"];
    let same_shape =
        status && reason(&wanted) == reason(&got) && wanted["kind"] == got["kind"] && form(&wanted) == form(&got);
    let exact = same_shape && bodies.0 == bodies.1;
    let level = rules["compare"].as_str().unwrap_or("exact");
    // A step that asks for less is right at the levels above when its own holds.
    let equal = match level {
        "status" => Equal { status, shape: status, exact: status },
        "shape" => Equal { status, shape: same_shape, exact: same_shape },
        _ => Equal { status, shape: same_shape, exact },
    };
    let brief = |answer: &Value, body: &Value| {
        let text: String = body.to_string().chars().take(400).collect();
        format!("{} {} {text}", answer["status"], answer["reason"])
    };
    (equal, format!("expected {}\n    got {}", brief(&wanted, &bodies.0), brief(&got, &bodies.1)))
}
