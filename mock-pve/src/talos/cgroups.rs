//! The control groups of a machine: who runs in which, and what each may have and has.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::containers;
use crate::world::machine::{Machine, ServiceState};

/// Where they are mounted.
pub(super) const ROOT: &str = "/sys/fs/cgroup";

const MIB: u64 = 1 << 20;
/// What a process uses of a processor, in microseconds a second, and of memory.
const BUSY: u64 = 20_000;
const MEMORY: u64 = 50_000_000;

/// What Talos keeps free for its own groups, and how much of a processor they may have against the others.
const KEPT: [(&str, u64, u64); 11] = [
    ("init", 96 * MIB, 79),
    ("podruntime", 292 * MIB, 157),
    ("podruntime/etcd", 0, 79),
    ("podruntime/kubelet", 96 * MIB, 39),
    ("podruntime/runtime", 196 * MIB, 39),
    ("system", 96 * MIB, 59),
    ("system/apid", 16 * MIB, 20),
    ("system/dashboard", 0, 8),
    ("system/runtime", 48 * MIB, 20),
    ("system/trustd", 8 * MIB, 10),
    ("system/udevd", 8 * MIB, 10),
];

/// A group that waits for nothing (the kernel's Documentation/accounting/psi.rst).
const CALM: &str = "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
/// Nothing is ever swapped out.
const SWAP: [(&str, &str); 7] = [
    ("swap.current", "0"),
    ("swap.high", "max"),
    ("swap.max", "max"),
    ("swap.peak", "0"),
    ("zswap.current", "0"),
    ("zswap.max", "max"),
    ("zswap.writeback", "1"),
];

/// What a group and those below it use.
#[derive(Default)]
struct Group {
    /// Its own processes.
    processes: Vec<u32>,
    all: u64,
    memory: u64,
    microseconds: u64,
}

fn groups(machine: &Machine) -> BTreeMap<String, Group> {
    let (booted, own) = machine.see(|state| {
        let up = |id: &str| state.services.get(id).is_some_and(|one| one.state == ServiceState::Running);
        (state.booted, [("podruntime/runtime", 940, up("cri")), ("system/udevd", 950, up("udevd"))])
    });
    let mut all: BTreeMap<String, Group> = BTreeMap::new();
    for (path, ..) in KEPT {
        all.entry(path.to_owned()).or_default();
    }
    let mut put = |path: &str, pid: u32, memory: u64, since: SystemTime| {
        let seconds = SystemTime::now().duration_since(since).unwrap_or_default().as_secs();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for above in std::iter::once("").chain(ends.map(|end| &path[..end])) {
            let group = all.entry(above.to_owned()).or_default();
            group.all += 1;
            group.memory += memory;
            group.microseconds += seconds * BUSY;
        }
        all.entry(path.to_owned()).or_default().processes.push(pid);
    };
    put("init", 1, MEMORY, booted);
    put("system/runtime", 900, MEMORY, booted);
    for (path, pid, _) in own.into_iter().filter(|(.., up)| *up) {
        put(path, pid, MEMORY, booted);
    }
    for (pid, one) in (1000..).step_by(7).zip(containers::running(machine)) {
        let path = match (one.pod(), one.name.as_str()) {
            (None, "etcd" | "kubelet") => format!("podruntime/{}", one.name),
            (None, name) => format!("system/{name}"),
            (Some(_), _) => format!("kubepods/burstable/pod{}/{}", one.uid(), one.internal_id()),
        };
        put(&path, pid, if one.is_sandbox() { MIB } else { MEMORY }, one.since());
    }
    all
}

/// The files below the root, by their whole path.
pub(super) fn files(machine: &Machine) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for (path, group) in groups(machine) {
        let kept = KEPT.iter().find(|(one, ..)| *one == path);
        let folder = if path.is_empty() { ROOT.to_owned() } else { format!("{ROOT}/{path}") };
        let mut put = |name: &str, text: String| {
            files.insert(format!("{folder}/{name}"), text);
        };
        for of in ["cpu", "io", "memory"] {
            put(&format!("{of}.pressure"), CALM.to_owned());
        }
        let written = group.all << 22;
        put("io.stat", format!("8:0 rbytes={} wbytes={written} rios=512 wios=256 dbytes=0 dios=0\n", written * 2));
        put("cpuset.cpus.effective", format!("0-{}\n", machine.hardware().cores.saturating_sub(1)));
        put("cpuset.mems.effective", "0\n".to_owned());
        put("cgroup.procs", group.processes.iter().map(|pid| format!("{pid}\n")).collect());
        let used = group.microseconds;
        let mut stat = format!("usage_usec {used}\nuser_usec {}\nsystem_usec {}\n", used * 2 / 3, used / 3);
        if path.is_empty() {
            put("cpu.stat", stat);
            continue;
        }
        stat.push_str("nr_periods 0\nnr_throttled 0\nthrottled_usec 0\n");
        put("cpu.stat", stat);
        put("cpu.max", "max 100000\n".to_owned());
        put("cpu.weight.nice", "0\n".to_owned());
        put("cpuset.cpus", "\n".to_owned());
        put("cpuset.mems", "\n".to_owned());
        put("cpu.weight", format!("{}\n", kept.map_or(100, |(_, _, weight)| *weight)));
        put("memory.current", format!("{}\n", group.memory));
        put("memory.peak", format!("{}\n", group.memory * 5 / 4));
        put("memory.min", format!("{}\n", kept.map_or(0, |(_, kept, _)| *kept)));
        put("memory.low", format!("{}\n", kept.map_or(0, |(_, kept, _)| *kept * 2)));
        put("memory.high", "max\n".to_owned());
        put("memory.max", "max\n".to_owned());
        for (name, text) in SWAP {
            put(&format!("memory.{name}"), format!("{text}\n"));
        }
        put("pids.peak", format!("{}\n", group.all * 15));
        put("pids.current", format!("{}\n", group.all * 12));
        put("pids.max", "max\n".to_owned());
    }
    files
}
