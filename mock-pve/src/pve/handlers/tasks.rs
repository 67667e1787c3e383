//! `N/tasks/…`.

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::pve::call::{Answer, Call, Result};
use crate::world::State;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::tasks::Task;

/// Whether a caller may see a task: his own, a user his tokens' too, all with `Sys.Audit`.
pub(super) fn sees(state: &State, caller: &Caller, task: &Task) -> bool {
    owns(caller, &task.user) || state.may(caller, &format!("/nodes/{}", task.node), &["Sys.Audit"])
}

fn owns(caller: &Caller, owner: &str) -> bool {
    owner == caller.identity
        || (!caller.identity.contains('!') && owner.split('!').next() == Some(caller.identity.as_str()))
}

fn base(task: &Task) -> Map<String, Value> {
    let (user, token) = task.user.split_once('!').map_or((task.user.as_str(), None), |(u, t)| (u, Some(t)));
    let mut entry = json!({
        "upid": task.upid, "node": task.node, "pid": task.pid, "pstart": task.pstart, "starttime": task.starttime,
        "type": task.kind, "id": task.id, "user": user,
    });
    if let Some(token) = token {
        entry["tokenid"] = json!(token);
    }
    entry.as_object().cloned().unwrap_or_default()
}

/// A task's entry in the archive.
pub(super) fn entry(task: &Task) -> Map<String, Value> {
    let mut entry = base(task);
    if let (Some(endtime), Some(status)) = (task.endtime, &task.status) {
        entry.insert("endtime".to_owned(), json!(endtime));
        entry.insert("status".to_owned(), json!(status));
    }
    entry
}

fn is_upid(text: &str) -> bool {
    Regex::new(
        r"^UPID:([a-zA-Z0-9]([a-zA-Z0-9\-]*[a-zA-Z0-9])?):([0-9A-Fa-f]{8}):([0-9A-Fa-f]{8,9}):([0-9A-Fa-f]{8}):([^:\s/]+):([^:\s/]*):([^:\s/]+):$",
    )
    .is_ok_and(|regex| regex.is_match(text))
}

fn parsed(call: &Call) -> Rule<String> {
    let upid = call.text("upid");
    if is_upid(upid) { Ok(upid.to_owned()) } else { Err(Refusal::param("upid", "unable to parse worker upid")) }
}

fn owner_of(upid: &str) -> &str {
    upid.split(':').nth(7).unwrap_or_default()
}

/// `GET N/tasks/{upid}`
pub(in crate::pve) fn index(_: &Call) -> Result {
    Ok(vec![json!({"name": "log"}), json!({"name": "status"})].into())
}

/// `GET N/tasks/{upid}/status`
pub(in crate::pve) fn status(call: &Call) -> Result {
    let upid = parsed(call)?;
    let state = call.world.state();
    let Some(task) = state.tasks.by_upid.get(&upid).filter(|task| task.node == call.node()) else {
        return Err(Refusal::param("upid", "no such task"));
    };
    if !owns(&call.caller, owner_of(&upid)) {
        state.check(&call.caller, &format!("/nodes/{}", call.node()), &["Sys.Audit"])?;
    }
    let mut entry = base(task);
    match &task.status {
        Some(status) => {
            entry.insert("status".to_owned(), json!("stopped"));
            entry.insert("exitstatus".to_owned(), json!(status));
        }
        None => {
            entry.insert("status".to_owned(), json!("running"));
        }
    }
    Ok(entry.into())
}

/// `GET N/tasks/{upid}/log`
pub(in crate::pve) fn log(call: &Call) -> Result {
    let upid = parsed(call)?;
    let state = call.world.state();
    if !owns(&call.caller, owner_of(&upid)) {
        state.check(&call.caller, &format!("/nodes/{}", call.node()), &["Sys.Audit"])?;
    }
    let whole = call.params.is_on("download");
    if whole && (call.params.text("start").is_some() || call.params.text("limit").is_some()) {
        let text = "'download' cannot be used together with 'start' or 'limit' parameters\n";
        return Err(Refusal::failed(text));
    }
    let Some(task) = state.tasks.by_upid.get(&upid).filter(|task| task.node == call.node()) else {
        // One line where the list of lines would be: so does the original.
        let line = json!({"n": 1, "t": "unable to open file - No such file or directory"});
        return Ok(Answer { data: line, total: Some(1), ..Answer::default() });
    };
    if whole {
        return Ok(Answer { plain: Some(task.log.join("\n") + "\n"), ..Answer::default() });
    }
    if task.log.is_empty() {
        return Ok(Answer { data: json!([{"n": 1, "t": "no content"}]), total: Some(1), ..Answer::default() });
    }
    let start = call.params.count("start").unwrap_or(0);
    let limit = match call.params.count("limit").unwrap_or(50) {
        0 => usize::MAX,
        limit => limit,
    };
    let lines: Vec<Value> =
        task.log.iter().zip(1_usize..).skip(start).take(limit).map(|(text, n)| json!({"n": n, "t": text})).collect();
    Ok(Answer { data: Value::Array(lines), total: Some(task.log.len()), ..Answer::default() })
}

/// `DELETE N/tasks/{upid}`
pub(in crate::pve) fn stop(call: &Call) -> Result {
    let upid = parsed(call)?;
    {
        let state = call.world.state();
        if state.tasks.by_upid.get(&upid).is_none_or(|task| task.node != call.node()) {
            return Err(Refusal::param("upid", "no such task"));
        }
        if !owns(&call.caller, owner_of(&upid)) {
            state.check(&call.caller, &format!("/nodes/{}", call.node()), &["Sys.Modify"])?;
        }
    }
    call.world.stop_task(&upid);
    Ok(().into())
}

/// `GET N/tasks`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let node = call.node();
    let source = call.params.text("source").unwrap_or("archive");
    let (since, until) = (call.params.number::<u64>("since"), call.params.number::<u64>("until"));
    let statuses: Vec<String> =
        call.params.list("statusfilter").into_iter().map(|status| status.to_ascii_lowercase()).collect();
    let class = |status: &str| {
        if status == "OK" {
            "ok"
        } else if status.starts_with("WARNINGS: ") {
            "warning"
        } else if status.is_empty() || status == "unexpected status" {
            "unknown"
        } else {
            "error"
        }
    };
    let mut tasks: Vec<&Task> = state
        .tasks
        .by_upid
        .values()
        .filter(|task| task.node == node && sees(&state, &call.caller, task))
        .filter(|task| match source {
            "active" => task.status.is_none(),
            "archive" => task.status.is_some(),
            _ => true,
        })
        .filter(|task| call.params.text("vmid").is_none_or(|vmid| task.id == vmid))
        .filter(|task| call.params.text("typefilter").is_none_or(|kind| kind.is_empty() || task.kind == kind))
        .filter(|task| {
            // The archive knows the user apart from the token.
            let user = if task.status.is_some() {
                task.user.split('!').next().unwrap_or_default()
            } else {
                task.user.as_str()
            };
            call.params.text("userfilter").is_none_or(|want| user.to_lowercase().contains(&want.to_lowercase()))
        })
        .filter(|task| since.is_none_or(|since| task.starttime >= since))
        .filter(|task| until.is_none_or(|until| task.starttime <= until))
        .filter(|task| {
            // A task that runs has no status yet: the original calls that unknown.
            let class = class(task.status.as_deref().unwrap_or_default());
            if call.params.is_on("errors") {
                class != "ok"
            } else {
                statuses.is_empty() || statuses.iter().any(|want| want == class)
            }
        })
        .collect();
    tasks.sort_by_key(|task| (task.status.is_some(), std::cmp::Reverse(task.order)));
    let total = tasks.len();
    let start = call.params.count("start").unwrap_or(0);
    let limit = call.params.count("limit").unwrap_or(50);
    let list: Vec<Value> = tasks
        .into_iter()
        .skip(start)
        .take(limit)
        .map(|task| {
            let mut entry = entry(task);
            if task.status.is_none() {
                entry.insert("status".to_owned(), json!("RUNNING"));
                entry.insert("saved".to_owned(), json!("0"));
                entry.insert("user".to_owned(), json!(task.user));
                entry.remove("tokenid");
            }
            Value::Object(entry)
        })
        .collect();
    Ok(Answer { data: Value::Array(list), total: Some(total), ..Answer::default() })
}
