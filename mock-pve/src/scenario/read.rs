//! From the tree to a scenario.
//!
//! The schema has been checked before, and what it refused is left out here; what a schema can't say is said here. Must
//! not know: the world. Start at [`scenario`].

use std::collections::BTreeMap;

use super::pattern::Pattern;
use super::tree::{At, Node};
use super::{Due, Event, Happens, Latency, Matcher, Problem, Rule, Scenario, VmName};
use crate::world::script::{Ends, Fault, Service, Step, When};

const SERVICES: [Service; 5] = [Service::Pve, Service::Ssh, Service::Factory, Service::Talos, Service::Kubernetes];
const TARGETS: [&str; 7] = ["pve", "task", "talos", "kubernetes", "factory", "ssh", "connect"];

/// The scenario in a document; what is wrong is added to `problems`.
pub(super) fn scenario(root: &Node, problems: &mut Vec<Problem>) -> Scenario {
    let mut reader = Reader { problems };
    let items = |key: &str| root.get(key).map(Node::list).unwrap_or_default();
    Scenario {
        latency: root.get("latency").map(latency).unwrap_or_default(),
        storages: root
            .get("storages")
            .map(Node::entries)
            .unwrap_or_default()
            .iter()
            .filter_map(|(name, _, value)| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the pattern has no minus")]
                let bytes = size(value.text()?)? as u64;
                Some((name.clone(), bytes))
            })
            .collect(),
        faults: items("faults").iter().zip(1..).filter_map(|(node, number)| reader.rule(node, number)).collect(),
        events: items("events").iter().zip(1..).filter_map(|(node, number)| reader.event(node, number)).collect(),
    }
}

/// Seconds.
fn duration(text: &str) -> Option<f64> {
    let (number, factor) = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)]
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

/// Bytes.
fn size(text: &str) -> Option<f64> {
    let units = [("KiB", 1024.0_f64), ("MiB", 1_048_576.0), ("GiB", 1_073_741_824.0), ("TiB", 1_099_511_627_776.0)];
    let (number, factor) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))?;
    Some(number.parse::<f64>().ok()? * factor)
}

fn latency(node: &Node) -> Latency {
    let time = |key: &str| duration(node.get(key)?.text()?);
    let rate = |key: &str| size(node.get(key)?.text()?.strip_suffix("/s")?);
    Latency {
        boot: time("boot"),
        shutdown: time("shutdown"),
        clone: time("clone"),
        copy: rate("copy"),
        upload: rate("upload"),
        download: rate("download"),
        services: SERVICES.iter().filter_map(|one| Some((one.as_str(), time(one.as_str())?))).collect(),
        jitter: time("jitter").unwrap_or_default(),
    }
}

fn vm(node: &Node) -> Option<VmName> {
    let text = node.text()?;
    Some(text.parse().map_or_else(|_| VmName::Name(text.to_owned()), VmName::Number))
}

fn texts(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.map(Node::entries).unwrap_or_default();
    entries.iter().filter_map(|(key, _, value)| Some((key.clone(), value.text()?.to_owned()))).collect()
}

struct Reader<'a> {
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn say(&mut self, at: At, what: impl Into<String>, hint: Option<&str>) {
        let hint = hint.map(str::to_owned);
        self.problems.push(Problem { line: at.line, column: at.column, what: what.into(), hint });
    }

    fn rule(&mut self, node: &Node, number: usize) -> Option<Rule> {
        let on = self.matcher(node.get("on")?)?;
        let then = self.fault(node.get("then")?, &on)?;
        let count = |key: &str| node.get(key).and_then(Node::integer);
        let name = node.get("name").and_then(Node::text).map_or_else(|| format!("fault {number}"), str::to_owned);
        let times = count("times").or(count("nth").map(|_| 1));
        Some(Rule { name, on, nth: count("nth").unwrap_or(1), times, then })
    }

    fn matcher(&mut self, node: &Node) -> Option<Matcher> {
        let given: Vec<&str> = TARGETS.into_iter().filter(|key| node.get(key).is_some()).collect();
        let [target] = given.as_slice() else {
            let what = if given.is_empty() {
                "this says nothing that could be matched".to_owned()
            } else {
                format!("{} are there, and only one can be", given.join(" and "))
            };
            self.say(node.at, what, Some("exactly one of pve, task, talos, kubernetes, factory, ssh, connect"));
            return None;
        };
        let place = node.get(target)?;
        let text = place.text()?;
        let (service, step, verbs, path) = match *target {
            "connect" => {
                let service = SERVICES.into_iter().find(|one| one.as_str() == text)?;
                (service, Step::Connect, Vec::new(), "**")
            }
            "task" => (Service::Pve, Step::Task, vec![text.to_owned()], "**"),
            "talos" => {
                let method = text.rsplit('/').next().unwrap_or(text);
                let verbs = if method == "*" { Vec::new() } else { vec![method.to_owned()] };
                (Service::Talos, Step::Request, verbs, "**")
            }
            "ssh" => (Service::Ssh, Step::Request, Vec::new(), text),
            _ => {
                let Some((verb, path)) = text.split_once(' ').filter(|(_, path)| path.starts_with(['/', '*'])) else {
                    self.say(place.at, format!("`{text}` is not METHOD PATH"), Some("such as `GET /version`"));
                    return None;
                };
                let (service, known): (_, &[&str]) = match *target {
                    "pve" => (Service::Pve, &["GET", "POST", "PUT", "DELETE"]),
                    "factory" => (Service::Factory, &["GET", "HEAD", "POST"]),
                    _ => (
                        Service::Kubernetes,
                        &[
                            "get", "list", "watch", "create", "update", "patch", "delete", "GET", "POST", "PUT",
                            "PATCH", "DELETE",
                        ],
                    ),
                };
                if verb != "*" && !known.contains(&verb) {
                    let all = known.join(", ");
                    self.say(place.at, format!("`{verb}` is no method of {target}"), Some(&format!("{all} or *")));
                    return None;
                }
                let meant: &[&str] = match (service, verb) {
                    (_, "*") => &[],
                    (Service::Kubernetes, "GET") => &["get", "list", "watch"],
                    (Service::Kubernetes, "POST") => &["create"],
                    (Service::Kubernetes, "PUT") => &["update"],
                    (Service::Kubernetes, "PATCH") => &["patch"],
                    (Service::Kubernetes, "DELETE") => &["delete"],
                    (_, verb) => &[verb],
                };
                (service, Step::Request, meant.iter().map(|verb| (*verb).to_owned()).collect(), path.trim())
            }
        };
        let narrowed = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
        Some(Matcher {
            service,
            step,
            verbs,
            path: Pattern::new(path),
            node: narrowed("node"),
            vm: node.get("vm").and_then(vm),
            user: narrowed("user").map(|user| Pattern::new(&user)),
        })
    }

    fn fault(&mut self, node: &Node, on: &Matcher) -> Option<Fault> {
        let text = |key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
        let number = |key: &str| node.get(key).and_then(Node::integer);
        let mut given = Vec::new();
        match node.text() {
            Some("refuse") => given.push(Fault::Refuse),
            Some("reset-before") => given.push(Fault::Reset(When::Before)),
            Some("reset-after") => given.push(Fault::Reset(When::After)),
            _ => {}
        }
        if let Some(code) = number("status").and_then(|code| u16::try_from(code).ok()) {
            given.push(Fault::Status { code, reason: text("reason").unwrap_or_default() });
        } else if node.get("reason").is_some() && node.get("status").is_none() {
            self.say(node.at, "`reason` needs `status`", None);
        }
        given.extend(text("task-error").map(|text| Fault::Task { text, done: false }));
        given.extend(text("task-error-after").map(|text| Fault::Task { text, done: true }));
        given.extend(text("stall").and_then(|text| match text.as_str() {
            "forever" => Some(Fault::Stall(None)),
            text => duration(text).map(|seconds| Fault::Stall(Some(seconds))),
        }));
        given.extend(number("corrupt").map(Fault::Corrupt));
        for (key, ends) in [("lacks", Ends::Well), ("breaks-off", Ends::Broken)] {
            let messages = number(key).and_then(|messages| usize::try_from(messages).ok());
            given.extend(messages.map(|messages| Fault::Short { messages, ends }));
        }
        if given.len() > 1 {
            self.say(node.at, "`then` says several things, and must say one", Some("write a fault for each"));
            return None;
        }
        let fault = given.pop()?;
        let fits = match (&fault, on.step) {
            (Fault::Stall(_), _) => true,
            (Fault::Refuse, step) => step == Step::Connect,
            (Fault::Reset(when), step) => step == Step::Request || step == Step::Connect && *when == When::Before,
            (Fault::Task { .. }, step) => step == Step::Task,
            (Fault::Status { .. } | Fault::Corrupt(_), step) => step == Step::Request,
            (Fault::Short { .. }, step) => step == Step::Request && on.service == Service::Talos,
        };
        if !fits {
            let (what, hint) = match on.step {
                Step::Connect => ("a connection can only be refused, reset-before, or stalled", ""),
                Step::Task => ("a task can only fail or be stalled", "task-error, task-error-after or stall"),
                Step::Request if fault == Fault::Refuse => {
                    ("a request that has come can't be refused any more", "reset-before, or on: {connect: …}")
                }
                Step::Request if matches!(fault, Fault::Short { .. }) => {
                    ("only streams of machines lack messages", "on: {talos: EtcdSnapshot}")
                }
                Step::Request => ("a request is no task", "match it with on: {task: qmclone}"),
            };
            self.say(node.at, what, (!hint.is_empty()).then_some(hint));
            return None;
        }
        if let Fault::Status { code, .. } = &fault {
            let (least, most) = match on.service {
                Service::Pve | Service::Factory | Service::Kubernetes => (200, 599),
                Service::Talos => (1, 16),
                Service::Ssh => (1, 255),
            };
            if !(least..=most).contains(code) {
                self.say(node.at, format!("`status` is {code}, and must be {least} to {most} there"), None);
                return None;
            }
        }
        Some(fault)
    }

    fn event(&mut self, node: &Node, number: usize) -> Option<Event> {
        let name = node.get("name").and_then(Node::text).map_or_else(|| format!("event {number}"), str::to_owned);
        let time = |key: &str| node.get(key).and_then(Node::text).and_then(duration);
        let when = match (node.get("at"), node.get("after")) {
            (Some(_), None) => {
                for key in ["wait", "nth"] {
                    if let Some(extra) = node.get(key) {
                        self.say(extra.at, format!("`{key}` needs `after`"), None);
                    }
                }
                Due::At(time("at")?)
            }
            (None, Some(after)) => {
                let nth = node.get("nth").and_then(Node::integer).unwrap_or(1);
                Due::After { on: self.matcher(after)?, nth, wait: time("wait").unwrap_or_default() }
            }
            _ => {
                self.say(node.at, "an event needs either `at` or `after`", None);
                return None;
            }
        };
        let (key, _, value) = node.get("do")?.entries().first()?;
        let deed = self.deed(key, value)?;
        Some(Event { name, when, deed })
    }

    fn deed(&mut self, key: &str, value: &Node) -> Option<Happens> {
        let text = || value.text().map(str::to_owned);
        let time = |key: &str| value.get(key).and_then(Node::text).and_then(duration).unwrap_or_default();
        Some(match key {
            "node-dies" => Happens::NodeDies(text()?),
            "node-hangs" => Happens::NodeHangs(text()?),
            "node-returns" => Happens::NodeReturns(text()?),
            "vm-vanishes" => Happens::VmVanishes(vm(value)?),
            "vm-starts" => Happens::VmStarts(vm(value)?),
            "vm-stops" => Happens::VmStops(vm(value)?),
            "machine-powers-off" => Happens::MachinePowersOff(vm(value)?),
            "machine-fails" => {
                let how = value.get("how")?.text()?;
                Happens::MachineFails {
                    vm: vm(value.get("vm")?)?,
                    fault: serde_json::from_value(serde_json::Value::from(how)).ok()?,
                }
            }
            "vm-changes" => Happens::VmChanges { vm: vm(value.get("vm")?)?, set: texts(value.get("set")) },
            "etcd-leader-moves" => Happens::EtcdLeaderMoves(text()?),
            "etcd-lags" => Happens::EtcdLags {
                member: value.get("member")?.text()?.to_owned(),
                receive: time("receive"),
                apply: time("apply"),
            },
            "request" => {
                let call = value.get("call")?;
                let found = call.text()?.split_once(' ');
                let known = |verb: &&str| ["GET", "POST", "PUT", "DELETE"].contains(verb);
                let Some((verb, path)) = found.filter(|(verb, path)| known(verb) && path.starts_with('/')) else {
                    self.say(call.at, "`call` is not METHOD PATH", Some("such as `PUT /nodes/pve1/qemu/100/config`"));
                    return None;
                };
                Happens::Request { verb: verb.to_owned(), path: path.to_owned(), with: texts(value.get("with")) }
            }
            _ => return None,
        })
    }
}
