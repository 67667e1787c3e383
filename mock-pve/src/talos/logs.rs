//! What a machine says: the kernel's log, the logs of services and containers, also as they grow.

use std::collections::VecDeque;
use std::time::SystemTime;

use futures_util::stream::{self, StreamExt as _};
use tonic::Status;
use tonic::codegen::BoxStream;

use super::containers;
use super::node::chunks;
use super::proto::{common, machine as api};
use crate::world::machine::Machine;

type Said = (SystemTime, String);

/// A log that may grow.
struct Tail {
    machine: Machine,
    changes: tokio::sync::watch::Receiver<u64>,
    boot: String,
    seen: usize,
}

/// The kernel's log, as `/dev/kmsg` is printed.
pub(super) fn dmesg(machine: &Machine, request: api::DmesgRequest) -> BoxStream<common::Data> {
    let line = |(at, said): &Said| {
        let text = format!("kern:    info: [{}]: {said}\n", at_nanoseconds(*at));
        common::Data { bytes: text.into_bytes(), ..Default::default() }
    };
    let (lines, boot): (Vec<Said>, String) = machine.see(|state| (state.dmesg.clone(), state.boot_id.clone()));
    let seen = lines.len();
    let begin: Vec<_> = lines.iter().filter(|_| !request.tail).map(line).map(Ok).collect();
    let begin = stream::iter(begin);
    if !request.follow {
        return begin.boxed();
    }
    let tail = Tail { machine: machine.clone(), changes: machine.changes(), boot, seen };
    let follow = stream::unfold(tail, move |mut tail| async move {
        tail.changes.changed().await.ok()?;
        let boot = tail.boot.clone();
        let lines: Vec<Said> = tail.machine.see(|state| {
            // The log of another boot is another log.
            if state.boot_id == boot { state.dmesg.iter().skip(tail.seen).cloned().collect() } else { Vec::new() }
        });
        tail.seen += lines.len();
        Some((stream::iter(lines.iter().map(line).map(Ok).collect::<Vec<_>>()), tail))
    });
    begin.chain(follow.flatten()).boxed()
}

/// A time as Talos and containerd write it into logs.
pub(super) fn at_nanoseconds(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string()
}

/// The ids of all logs.
pub(super) fn ids(machine: &Machine) -> Vec<String> {
    let mut ids: Vec<String> = machine.see(|state| state.services.keys().cloned().collect());
    for own in ["controller-runtime", "dns-resolve-cache", "kernel"] {
        ids.push(own.to_owned());
    }
    ids.sort();
    ids.dedup();
    ids
}

/// The log of a service, or of a container of Kubernetes.
pub(super) fn logs(machine: &Machine, request: &api::LogsRequest) -> Result<BoxStream<common::Data>, Status> {
    if request.namespace.is_empty() {
        return Err(Status::invalid_argument("namespace can't be empty"));
    }
    let tail = usize::try_from(request.tail_lines).unwrap_or(usize::MAX);
    let id = request.id.clone();
    if request.namespace != "system" && id != "kubelet" {
        let lines = containers::log(machine, &id)?;
        let from = lines.len().saturating_sub(tail);
        return Ok(chunks(format!("{}\n", lines[from..].join("\n")).as_bytes()));
    }
    if !ids(machine).contains(&id) {
        return Err(Status::unknown(format!("log \"{id}\" was not registered")));
    }
    let lines: VecDeque<String> = service(machine, &id).into();
    let seen = lines.len();
    let text: String = lines.iter().skip(seen.saturating_sub(tail)).map(|line| format!("{line}\n")).collect();
    let begin = chunks(text.as_bytes());
    if !request.follow {
        return Ok(begin);
    }
    let boot = machine.see(|state| state.boot_id.clone());
    let tail = Tail { machine: machine.clone(), changes: machine.changes(), boot, seen };
    let follow = stream::unfold((tail, id), |(mut tail, id)| async move {
        tail.changes.changed().await.ok()?;
        let lines = service(&tail.machine, &id);
        let new: String = lines.iter().skip(tail.seen).map(|line| format!("{line}\n")).collect();
        tail.seen = lines.len();
        Some((chunks(new.as_bytes()), (tail, id)))
    });
    Ok(begin.chain(follow.flatten()).boxed())
}

fn service(machine: &Machine, id: &str) -> Vec<String> {
    let stamped = |at: &SystemTime, text: &str| {
        let at = jiff::Timestamp::try_from(*at).unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
        format!("{at} {text}")
    };
    machine.see(|state| match id {
        "kernel" => state.dmesg.iter().map(|(at, line)| stamped(at, line)).collect(),
        "controller-runtime" => state
            .dmesg
            .iter()
            .filter(|(_, line)| line.starts_with("[talos]"))
            .map(|(at, line)| stamped(at, line))
            .collect(),
        _ => state.services.get(id).map_or_else(Vec::new, |service| {
            let events = service.events.iter();
            events.map(|(state, said, at)| stamped(at, &format!("{}: {said}", state.as_str()))).collect()
        }),
    })
}
