//! `N/apt/repositories`: where a node gets its packages.
//!
//! What a fresh installation has, the standard repositories that can be added, and what was switched on or off; rules
//! after Proxmox VE 8.4 and 9.1 (the crate proxmox-apt). Nothing is ever fetched from there.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::host::{section, write};
use crate::pve::call::{Call, Result};
use crate::world::refusal::Refusal;
use crate::world::{PveVersion, State};

type Object = Map<String, Value>;

/// Where a node's files are kept.
const KEY: &str = "repositories";
const LISTS: &str = "/etc/apt/sources.list";
const CHANNELS: [(&str, &str, &str); 3] = [
    (
        "enterprise",
        "Enterprise",
        "This is the default, stable, and recommended repository, available for all Proxmox subscription users.",
    ),
    (
        "no-subscription",
        "No-Subscription",
        "This is the recommended repository for testing and non-production use. Its packages are not as heavily tested \
         and validated as the production ready enterprise repository. You don't need a subscription key to access this \
         repository.",
    ),
    (
        "test",
        "Test",
        "This repository contains the latest packages and is primarily used for test labs and by developers to test new \
         features.",
    ),
];

fn suite(pve: PveVersion) -> &'static str {
    match pve {
        PveVersion::V8 => "bookworm",
        PveVersion::V9 => "trixie",
    }
}

fn ceph(pve: PveVersion) -> &'static [(&'static str, &'static str)] {
    match pve {
        PveVersion::V8 => &[("quincy", "Quincy"), ("reef", "Reef"), ("squid", "Squid")],
        PveVersion::V9 => &[("squid", "Squid"), ("tentacle", "Tentacle")],
    }
}

/// A repository that can be added by its handle.
struct Standard {
    handle: String,
    name: String,
    description: String,
    uri: String,
    component: String,
    path: String,
}

/// All of a release, in the original's order.
fn standards(pve: PveVersion) -> Vec<Standard> {
    let domain = |channel: &str| match channel {
        "enterprise" => "https://enterprise.proxmox.com/debian",
        _ => "http://download.proxmox.com/debian",
    };
    let file = |list: &str, sources: &str| match pve {
        PveVersion::V8 => list.to_owned(),
        PveVersion::V9 => format!("{LISTS}.d/{sources}"),
    };
    let own = CHANNELS.iter().map(|(channel, title, description)| Standard {
        handle: (*channel).to_owned(),
        name: (*title).to_owned(),
        description: (*description).to_owned(),
        uri: format!("{}/pve", domain(channel)),
        component: match pve {
            PveVersion::V8 if *channel == "test" => "pvetest".to_owned(),
            _ => format!("pve-{channel}"),
        },
        path: match *channel {
            "enterprise" => file(&format!("{LISTS}.d/pve-enterprise.list"), "pve-enterprise.sources"),
            _ => file(LISTS, "proxmox.sources"),
        },
    });
    let others = ceph(pve).iter().flat_map(|(release, name)| {
        CHANNELS.iter().map(move |(channel, title, _)| Standard {
            handle: format!("ceph-{release}-{channel}"),
            name: format!("Ceph {name} {title}"),
            description: match *channel {
                "enterprise" => format!("This repository holds the production-ready Proxmox Ceph {name} packages."),
                "no-subscription" => {
                    format!("This repository holds the Proxmox Ceph {name} packages intended for non-production use.")
                }
                _ => format!(
                    "This repository contains the Ceph {name} packages before they are moved to the main repository."
                ),
            },
            uri: format!("{}/ceph-{release}", domain(channel)),
            component: (*channel).to_owned(),
            path: file(&format!("{LISTS}.d/ceph.list"), "ceph.sources"),
        })
    });
    own.chain(others).collect()
}

fn kind_of(path: &str) -> &'static str {
    if path.ends_with(".sources") { "sources" } else { "list" }
}

fn repository(path: &str, uri: &str, suites: &[&str], components: &[&str]) -> Value {
    json!({
        "Types": ["deb"], "URIs": [uri], "Suites": suites, "Components": components, "FileType": kind_of(path),
        "Enabled": 1,
    })
}

/// The files of a fresh installation: path → repositories.
fn installed(pve: PveVersion) -> Object {
    let suite = suite(pve);
    let updates = format!("{suite}-updates");
    let security = format!("{suite}-security");
    let debian = match pve {
        PveVersion::V8 => LISTS.to_owned(),
        PveVersion::V9 => format!("{LISTS}.d/debian.sources"),
    };
    let parts: &[&str] = match pve {
        PveVersion::V8 => &["main", "contrib"],
        PveVersion::V9 => &["main", "contrib", "non-free-firmware"],
    };
    let (mirror, safe) = ("http://ftp.debian.org/debian", "http://security.debian.org/debian-security");
    let list = match pve {
        PveVersion::V8 => vec![
            repository(&debian, mirror, &[suite], parts),
            repository(&debian, mirror, &[&updates], parts),
            repository(&debian, safe, &[&security], parts),
        ],
        PveVersion::V9 => {
            vec![repository(&debian, mirror, &[suite, &updates], parts), repository(&debian, safe, &[&security], parts)]
        }
    };
    let mut files = Object::from_iter([(debian, json!(list))]);
    let first = if pve == PveVersion::V8 { "ceph-quincy-enterprise" } else { "ceph-squid-enterprise" };
    for standard in standards(pve).iter().filter(|one| one.handle == "enterprise" || one.handle == first) {
        let entry = repository(&standard.path, &standard.uri, &[suite], &[&standard.component]);
        files.insert(standard.path.clone(), json!([entry]));
    }
    files
}

fn files(state: &State, call: &Call) -> Object {
    section(state, call, KEY).cloned().unwrap_or_else(|| installed(state.pve))
}

fn digest(value: &impl serde::Serialize) -> [u8; 32] {
    Sha256::digest(serde_json::to_vec(value).unwrap_or_default()).into()
}

/// Whether an entry is that standard repository.
fn is_standard(entry: &Value, standard: &Standard) -> bool {
    let has = |key: &str, wanted: &str| {
        entry[key].as_array().into_iter().flatten().any(|value| value.as_str() == Some(wanted))
    };
    has("URIs", &standard.uri) && has("Components", &standard.component)
}

fn all(files: &Object) -> impl Iterator<Item = &Value> {
    files.values().filter_map(Value::as_array).flatten()
}

/// `GET N/apt/repositories`
pub(in crate::pve) fn list(call: &Call) -> Result {
    let state = call.world.state();
    let files = files(&state, call);
    let shown: Vec<Value> = files
        .iter()
        .map(|(path, list)| {
            let digest = digest(list).to_vec();
            json!({"path": path, "file-type": kind_of(path), "repositories": list, "digest": digest})
        })
        .collect();
    let mut infos = Vec::new();
    for (path, list) in &files {
        for (index, entry) in list.as_array().into_iter().flatten().enumerate() {
            let uri = entry["URIs"][0].as_str().unwrap_or_default();
            let origin = if uri.contains("proxmox.com") { "Proxmox" } else { "Debian" };
            infos.push(json!({"path": path, "index": index, "kind": "origin", "message": origin}));
        }
    }
    let standard = |standard: &Standard| {
        let mut shown = json!({"handle": standard.handle, "name": standard.name, "description": standard.description});
        let found: Vec<bool> =
            all(&files).filter(|entry| is_standard(entry, standard)).map(|entry| entry["Enabled"] == 1).collect();
        if !found.is_empty() {
            shown["status"] = json!(u8::from(found.contains(&true)));
        }
        shown
    };
    let standards: Vec<Value> = standards(state.pve).iter().map(standard).collect();
    Ok(json!({
        "files": shown, "errors": [], "digest": hex::encode(digest(&files)), "infos": infos,
        "standard-repos": standards,
    })
    .into())
}

fn check_digest(call: &Call, files: &Object) -> std::result::Result<(), Refusal> {
    match call.params.text("digest") {
        Some(wanted) if !wanted.is_empty() && wanted != hex::encode(digest(files)) => {
            let text = "detected modified configuration - file changed by other user? Try again.\n";
            Err(Refusal::failed(text))
        }
        _ => Ok(()),
    }
}

/// `PUT N/apt/repositories`: adds a standard repository, or switches it on.
pub(in crate::pve) fn add(call: &Call) -> Result {
    let state = call.world.state();
    let pve = state.pve;
    let mut files = files(&state, call);
    drop(state);
    check_digest(call, &files)?;
    let handle = call.text("handle");
    let standard = standards(pve).into_iter().find(|standard| standard.handle == handle);
    let standard = standard
        .ok_or_else(|| Refusal::failed(format!("proxmox-apt error - unknown repository handle '{handle}'\n")))?;
    let mut known = files.values_mut().filter_map(Value::as_array_mut).flatten();
    if let Some(entry) = known.find(|entry| is_standard(entry, &standard)) {
        entry["Enabled"] = json!(1);
    } else {
        let entry = repository(&standard.path, &standard.uri, &[suite(pve)], &[&standard.component]);
        let file = files.entry(standard.path).or_insert_with(|| json!([]));
        if let Some(list) = file.as_array_mut() {
            list.push(entry);
        }
    }
    write(call, KEY, files);
    Ok(().into())
}

/// `POST N/apt/repositories`: switches one on or off.
pub(in crate::pve) fn change(call: &Call) -> Result {
    let mut files = files(&call.world.state(), call);
    check_digest(call, &files)?;
    let (path, index) = (call.text("path"), call.text("index"));
    let list = files.get_mut(path).and_then(Value::as_array_mut);
    let list = list.ok_or_else(|| Refusal::failed(format!("invalid path - {path}\n")))?;
    let entry = index.parse::<usize>().ok().and_then(|index| list.get_mut(index));
    let entry = entry.ok_or_else(|| Refusal::failed(format!("invalid index - {index}\n")))?;
    if call.params.text("enabled").is_some() {
        entry["Enabled"] = json!(u8::from(call.params.is_on("enabled")));
    }
    write(call, KEY, files);
    Ok(().into())
}
