//! The files that a machine shows: few, but the ones that clients look at, in a tree that can be listed.

use std::collections::BTreeMap;
use std::time::SystemTime;

use futures_util::stream::{self, StreamExt as _};
use tonic::Status;
use tonic::codegen::BoxStream;

use super::proto::machine as api;
use super::{cgroups, etcd, resources, stats};
use crate::world::machine::{COMPONENTS, Machine, MachineType, State};

const DIRECTORY: u32 = 0x8000_0000 | 0o755;
const FILE: u32 = 0o644;

/// A file's content.
pub(super) fn read(machine: &Machine, path: &str) -> Result<Vec<u8>, Status> {
    let path = clean(path);
    if path == etcd::DATABASE {
        return etcd::database(machine);
    }
    if path.starts_with(cgroups::ROOT)
        && let Some(text) = cgroups::files(machine).remove(&path)
    {
        return Ok(text.into_bytes());
    }
    if directories(machine).contains_key(&path) {
        return Err(Status::invalid_argument("path must be a regular file"));
    }
    if let Some((_, text)) = measured(machine).into_iter().find(|(name, _)| *name == path) {
        return Ok(text.into_bytes());
    }
    let absent = || Status::not_found(format!("stat {path}: no such file or directory"));
    machine.see(|state| content(state, &path)).map(String::into_bytes).ok_or_else(absent)
}

/// A name below what is copied, and what a file holds; a folder holds nothing.
pub(super) type Copied = (String, Option<Vec<u8>>);

/// A file, or a folder with all that lies in it: names from there on, and contents of files.
pub(super) fn copied(machine: &Machine, path: &str) -> Result<Vec<Copied>, Status> {
    let root = clean(path);
    let folders = directories(machine);
    if !folders.contains_key(&root) {
        let name = root.rsplit('/').next().unwrap_or_default().to_owned();
        return Ok(vec![(name, Some(read(machine, &root)?))]);
    }
    let below = if root == "/" { "/".to_owned() } else { format!("{root}/") };
    let inside = folders.into_keys().filter_map(|path| Some((path.strip_prefix(&below)?.to_owned(), None)));
    let mut all: Vec<Copied> = inside.filter(|(name, _)| !name.is_empty()).collect();
    let mut groups = cgroups::files(machine);
    for path in files(machine).into_keys() {
        if let Some(name) = path.strip_prefix(&below) {
            let content = match groups.remove(&path) {
                Some(text) => text.into_bytes(),
                None => read(machine, &path)?,
            };
            all.push((name.to_owned(), Some(content)));
        }
    }
    // A folder before what is in it.
    all.sort();
    Ok(all)
}

/// The files that follow from more than the state.
fn measured(machine: &Machine) -> [(&'static str, String); 3] {
    let load = stats::load(machine);
    let load = format!("{:.2} {:.2} {:.2} 1/200 2000\n", load.load1, load.load5, load.load15);
    [("/proc/bus/pci/devices", resources::bus(machine)), ("/proc/loadavg", load), ("/proc/meminfo", meminfo(machine))]
}

/// What `/proc/meminfo` says of the memory that the machine has.
fn meminfo(machine: &Machine) -> String {
    let all = stats::memory(machine).meminfo.unwrap_or_default();
    let lines = [
        ("MemTotal", all.memtotal),
        ("MemFree", all.memfree),
        ("MemAvailable", all.memavailable),
        ("Buffers", all.buffers),
        ("Cached", all.cached),
        ("SwapTotal", all.swaptotal),
        ("SwapFree", all.swapfree),
    ];
    lines
        .map(|(name, size)| {
            let label = format!("{name}:");
            format!("{label:<16}{size:>8} kB\n")
        })
        .concat()
}

fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            other => parts.push(other),
        }
    }
    format!("/{}", parts.join("/"))
}

const FILES: &[&str] = &[
    "/etc/hostname",
    "/etc/machine-id",
    "/etc/os-release",
    "/etc/resolv.conf",
    "/proc/cmdline",
    "/proc/sys/kernel/random/boot_id",
    "/proc/uptime",
    "/proc/version",
    "/usr/lib/os-release",
];

fn content(state: &State, path: &str) -> Option<String> {
    let manifest = path.strip_prefix("/etc/kubernetes/manifests/talos-").and_then(|name| name.strip_suffix(".yaml"));
    if let Some(pod) = manifest.and_then(|name| state.static_pods.get(name)) {
        let name = manifest.unwrap_or_default();
        return Some(format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: kube-system\nspec:\n  containers:\n  - name: \
             {name}\n    image: {}\n",
            pod.image
        ));
    }
    let up = SystemTime::now().duration_since(state.booted).unwrap_or_default().as_secs_f64();
    Some(match path {
        "/proc/sys/kernel/random/boot_id" => format!("{}\n", state.boot_id),
        "/proc/cmdline" => format!("{}\n", resources::command_line(state)),
        "/proc/uptime" => format!("{up:.2} {:.2}\n", up * 0.9),
        "/proc/version" => format!("{}\n", state.dmesg.first().map_or("", |(_, line)| line)),
        "/etc/os-release" | "/usr/lib/os-release" => {
            format!("NAME=\"Talos\"\nID=talos\nVERSION_ID={0}\nPRETTY_NAME=\"Talos ({0})\"\n", state.tag())
        }
        "/etc/hostname" => format!("{}\n", state.hostname()),
        "/etc/machine-id" => format!("{}\n", state.identity?.machine_id()),
        "/etc/resolv.conf" => "nameserver 127.0.0.53\n".to_owned(),
        _ => return None,
    })
}

/// All files with their sizes, and the directories above them with what lies below.
fn directories(machine: &Machine) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (path, size) in files(machine) {
        let mut above = path.as_str();
        while let Some((parent, _)) = above.rsplit_once('/') {
            let name = if parent.is_empty() { "/" } else { parent };
            *all.entry(name.to_owned()).or_default() += size;
            above = parent;
        }
    }
    for own in
        ["/dev", "/opt", "/run", "/sys", "/sys/dev/block", "/system/state", "/tmp", "/var/log", "/var/lib/kubelet"]
    {
        all.entry(own.to_owned()).or_default();
    }
    all
}

fn files(machine: &Machine) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> = machine.see(|state| {
        let sized = |path: &str| Some((path.to_owned(), content(state, path)?.len() as u64));
        let manifests = COMPONENTS.iter().map(|name| format!("/etc/kubernetes/manifests/talos-{name}.yaml"));
        FILES.iter().map(|path| (*path).to_owned()).chain(manifests).filter_map(|path| sized(&path)).collect()
    });
    all.extend(measured(machine).map(|(path, text)| (path.to_owned(), text.len() as u64)));
    all.extend(cgroups::files(machine).into_iter().map(|(path, text)| (path, text.len() as u64)));
    if machine.see(|state| state.machine_type() == Some(MachineType::ControlPlane) && state.membership.is_some()) {
        let status = machine.see(|state| state.membership.as_ref().and_then(crate::etcd::Client::status));
        all.insert(etcd::DATABASE.to_owned(), status.map_or(0, |status| status.bytes));
    }
    all
}

/// Lists a directory, or names a file.
pub(super) fn list(machine: &Machine, request: &api::ListRequest) -> Result<BoxStream<api::FileInfo>, Status> {
    let root = clean(&request.root);
    let (files, directories) = (files(machine), directories(machine));
    if !files.contains_key(&root) && !directories.contains_key(&root) {
        return Err(Status::unknown(format!("lstat {root}: no such file or directory")));
    }
    let depth = match (request.recurse, usize::try_from(request.recursion_depth).unwrap_or_default()) {
        (false, _) => 1,
        (true, 0) => usize::MAX,
        (true, depth) => depth,
    };
    let booted = machine.see(|state| state.booted);
    let modified = booted.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let modified = i64::try_from(modified).unwrap_or_default();
    let wanted = |is_dir: bool| {
        let kind = if is_dir { api::list_request::Type::Directory } else { api::list_request::Type::Regular };
        request.types.is_empty() || request.types.contains(&kind.into())
    };
    let below = if root == "/" { "/".to_owned() } else { format!("{root}/") };
    let mut all: BTreeMap<&String, (u64, bool)> =
        directories.iter().map(|(path, size)| (path, (*size, true))).collect();
    all.extend(files.iter().map(|(path, size)| (path, (*size, false))));
    let items: Vec<_> = all
        .into_iter()
        .filter(|(path, (_, is_dir))| {
            let inside =
                path.strip_prefix(&below).is_some_and(|rest| !rest.is_empty() && rest.split('/').count() <= depth);
            (**path == root || inside) && wanted(*is_dir)
        })
        .map(|(path, (size, is_dir))| {
            let relative = path.strip_prefix(&below).filter(|rest| !rest.is_empty());
            let name =
                relative.unwrap_or_else(|| if is_dir { "." } else { path.rsplit('/').next().unwrap_or_default() });
            Ok(api::FileInfo {
                metadata: None,
                name: path.clone(),
                size: if is_dir { 4096 } else { i64::try_from(size).unwrap_or_default() },
                mode: if is_dir { DIRECTORY } else { FILE },
                modified,
                is_dir,
                relative_name: name.to_owned(),
                ..Default::default()
            })
        })
        .collect();
    Ok(stream::iter(items).boxed())
}

/// How much lies below directories.
pub(super) fn usage(machine: &Machine, request: &api::DiskUsageRequest) -> BoxStream<api::DiskUsageInfo> {
    let (files, directories) = (files(machine), directories(machine));
    let depth = usize::try_from(request.recursion_depth).unwrap_or_default();
    let mut items = Vec::new();
    for path in &request.paths {
        let root = clean(path);
        let below = if root == "/" { "/".to_owned() } else { format!("{root}/") };
        if !directories.contains_key(&root) && !files.contains_key(&root) {
            let error = format!("stat {root}: no such file or directory");
            items.push(Ok(api::DiskUsageInfo { name: root, error, ..Default::default() }));
            continue;
        }
        let mut all: Vec<(&String, u64)> = directories.iter().map(|(path, size)| (path, *size)).collect();
        all.extend(files.iter().filter(|_| request.all).map(|(path, size)| (path, *size)));
        all.sort_by(|left, right| right.0.cmp(left.0));
        for (path, size) in all {
            let relative = path.strip_prefix(&below).unwrap_or_default();
            let level = if relative.is_empty() { 0 } else { relative.split('/').count() };
            if (*path == root || !relative.is_empty()) && level <= depth {
                let size = i64::try_from(size).unwrap_or_default();
                let over = if request.threshold >= 0 { size >= request.threshold } else { size <= -request.threshold };
                if over {
                    let relative_name = if relative.is_empty() { ".".to_owned() } else { relative.to_owned() };
                    items.push(Ok(api::DiskUsageInfo {
                        name: path.clone(),
                        size,
                        relative_name,
                        ..Default::default()
                    }));
                }
            }
        }
    }
    stream::iter(items).boxed()
}
