//! `GET /cluster/metrics/export`: what the statistics rounds saw, metric by metric.
//!
//! Names and types after pve-manager 8 (PVE/PullMetric.pm). A round of the past tells what is seen now: nothing else is
//! kept that finely.

use serde_json::{Value, json};

use super::{nodes, views};
use crate::pve::call::{Call, Result};
use crate::world::State;

/// Seconds between two rounds.
const ROUND: u64 = 10;
/// Rounds that are kept beside the last one.
const KEPT: u64 = 180;

fn metric(id: &str, time: u64, (name, kind): (&str, &str), value: &Value) -> Value {
    json!({"id": id, "timestamp": time, "metric": name, "type": kind, "value": value})
}

/// What a round tells of a node.
fn of_node(call: &Call, node: &str, time: u64) -> Vec<Value> {
    let status = nodes::status_of(call, node);
    let id = format!("node/{node}");
    let load = |at: usize| json!(status["loadavg"][at].as_str().and_then(|text| text.parse::<f64>().ok()));
    let gauges = [
        ("uptime", status["uptime"].clone()),
        ("cpu_avg1", load(0)),
        ("cpu_avg5", load(1)),
        ("cpu_avg15", load(2)),
        ("cpu_max", status["cpuinfo"]["cpus"].clone()),
        ("cpu_current", status["cpu"].clone()),
        ("cpu_iowait", status["wait"].clone()),
        ("mem_total", status["memory"]["total"].clone()),
        ("mem_used", status["memory"]["used"].clone()),
        ("swap_total", status["swap"]["total"].clone()),
        ("swap_used", status["swap"]["used"].clone()),
        ("disk_total", status["rootfs"]["total"].clone()),
        ("disk_used", status["rootfs"]["used"].clone()),
    ];
    let mut told: Vec<Value> = gauges.iter().map(|(name, value)| metric(&id, time, (name, "gauge"), value)).collect();
    told.extend(["net_in", "net_out"].map(|name| metric(&id, time, (name, "derive"), &json!(0))));
    told
}

fn of_guests(call: &Call, state: &State, node: &str, time: u64) -> Vec<Value> {
    let mut told = Vec::new();
    for (vmid, vm) in state.vms.iter().filter(|(_, vm)| vm.node == node) {
        let seen = Value::Object(views::vm(&call.world, state, *vmid, vm, views::Detail::Brief));
        let id = format!("qemu/{vmid}");
        if vm.running.is_some() {
            for (name, key) in [("cpu_current", "cpu"), ("mem_used", "mem")] {
                told.push(metric(&id, time, (name, "gauge"), &seen[key]));
            }
            for name in ["disk_read", "disk_write", "net_in", "net_out"] {
                told.push(metric(&id, time, (name, "derive"), &json!(0)));
            }
        }
        let always = [("uptime", "uptime"), ("cpu_max", "cpus"), ("mem_total", "maxmem"), ("disk_total", "maxdisk")];
        told.extend(always.map(|(name, key)| metric(&id, time, (name, "gauge"), &seen[key])));
    }
    told
}

fn of_storages(call: &Call, state: &State, node: &str, time: u64) -> Vec<Value> {
    let mut told = Vec::new();
    for (name, storage) in &state.storages {
        if storage.on_node(node) && !storage.flag("disable") {
            let id = format!("storage/{node}/{name}");
            let used = state.used(call.world.dir(), node, name).min(storage.capacity);
            told.push(metric(&id, time, ("disk_total", "gauge"), &json!(storage.capacity)));
            told.push(metric(&id, time, ("disk_used", "gauge"), &json!(used)));
        }
    }
    told
}

/// When the rounds were that are asked for, the oldest first.
fn rounds(call: &Call) -> Vec<u64> {
    let (now, start) = (call.world.clock().unix(), call.params.number::<u64>("start-time"));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, not years")]
    let lasted = call.world.clock().elapsed() as u64;
    let last = now - lasted % ROUND;
    let older = match start {
        _ if !call.params.is_on("history") => 0,
        Some(start) => now.saturating_sub(start) / ROUND,
        None => KEPT + 1,
    };
    let there = older.min(KEPT).min(lasted / ROUND);
    (0..=there).rev().map(|back| last - back * ROUND).filter(|time| start.is_none_or(|start| *time > start)).collect()
}

/// `GET /cluster/metrics/export`
pub(in crate::pve) fn export(call: &Call) -> Result {
    let names: Vec<String> = {
        let state = call.world.state();
        let here = |name: &&String| **name == call.local || (!call.params.is_on("local-only") && state.is_online(name));
        state.nodes.keys().filter(here).cloned().collect()
    };
    let mut told = Vec::new();
    for time in rounds(call) {
        for node in &names {
            told.extend(of_node(call, node, time));
            let state = call.world.state();
            told.extend(of_guests(call, &state, node, time));
            told.extend(of_storages(call, &state, node, time));
        }
    }
    Ok(json!({"data": told}).into())
}
