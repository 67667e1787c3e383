//! Keeps the arrows of `src/lib.rs` pointing one way.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules each module of `src/` may use.
const ALLOWED: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("exit", &[]),
    ("profile", &["types"]),
    ("property", &["types"]),
    ("plan", &["types", "profile", "property"]),
    ("event", &["types", "plan"]),
    ("journal", &["types", "plan", "event"]),
    ("engine", &["types", "plan", "event", "journal"]),
    ("net", &["types"]),
    ("command", &["types"]),
    ("pve", &["types", "property", "net"]),
    ("backup", &["types", "net"]),
    ("image", &["types", "net"]),
    ("talos", &["types", "net"]),
    ("k8s", &["types", "net"]),
    ("ssh", &["types", "net"]),
    ("observe", &["types", "profile", "plan", "net", "pve", "image", "talos", "k8s", "ssh"]),
    (
        "steps",
        &[
            "types", "profile", "plan", "event", "engine", "net", "command", "backup", "pve", "image", "talos", "k8s",
            "ssh", "observe",
        ],
    ),
    ("report", &["types", "plan", "event", "journal"]),
    (
        "cli",
        &[
            "types", "exit", "property", "profile", "plan", "event", "journal", "engine", "net", "command", "backup",
            "pve", "image", "talos", "k8s", "ssh", "observe", "steps", "report",
        ],
    ),
];

/// Which rooms each room of `mock-pve/src/` may use.
const ROOMS: &[(&str, &[&str])] = &[
    ("disk", &[]),
    ("etcd", &["disk"]),
    ("vma", &[]),
    ("tar", &[]),
    ("world", &["disk", "etcd", "vma"]),
    ("scenario", &["world", "etcd"]),
    ("audit", &["world"]),
    ("pve", &["world", "scenario", "vma", "tar"]),
    ("factory", &["world", "scenario", "disk"]),
    ("ssh", &["world", "scenario", "pve"]),
    ("talos", &["world", "scenario", "etcd", "tar"]),
    ("kube", &["world", "scenario", "etcd"]),
    ("serve", &["world", "scenario", "pve", "ssh", "factory", "talos", "kube", "audit", "disk"]),
];

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The first segments after every `crate::` of a file, `use crate::{a::b, c}` included.
fn used_modules(source: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let names: Vec<&str> = if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_i32;
            group
                .split_inclusive(['{', '}', ','])
                .scan(false, |closed, part| {
                    if *closed {
                        return None;
                    }
                    let top = depth == 0;
                    depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
                    *closed = depth < 0;
                    Some(if top { part } else { "" })
                })
                .collect()
        } else {
            vec![rest]
        };
        for name in names {
            let name: String =
                name.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                used.insert(name);
            }
        }
    }
    used
}

fn offences(src: &Path, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let mut offences = Vec::new();
    for file in rust_files(src) {
        let relative = file.strip_prefix(src).unwrap();
        let module = relative.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        // A room's tests may start the whole double.
        if ["lib", "main"].contains(&module) || file.ends_with("tests.rs") {
            continue;
        }
        let Some((_, may)) = allowed.iter().find(|(name, _)| *name == module) else {
            offences.push(format!("{} belongs to no layer", relative.display()));
            continue;
        };
        for used in used_modules(&fs::read_to_string(&file).unwrap()) {
            if used != module && !may.contains(&used.as_str()) {
                offences.push(format!("{} uses crate::{used}", relative.display()));
            }
        }
    }
    offences
}

#[test]
fn arrows_of_use_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = offences(&root.join("src"), ALLOWED);
    found.extend(offences(&root.join("mock-pve/src"), ROOMS));
    assert!(found.is_empty(), "against the layers of src/lib.rs and mock-pve/src/lib.rs:\n{}", found.join("\n"));
}

#[test]
fn the_double_shares_no_code_with_the_clients() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("mock-pve/Cargo.toml");
    assert!(!fs::read_to_string(manifest).unwrap().contains("talos-recast"));
}

#[test]
fn groups_and_paths_are_both_seen() {
    let used = used_modules("use crate::{pve::{Client, task}, plan}; fn f() { crate::net::dial() }");
    assert_eq!(used, ["net", "plan", "pve"].map(str::to_owned).into());
}

/// The files of a folder and those below it that the file above them does not list.
fn unlisted(dir: &Path, parent: &Path) -> Vec<PathBuf> {
    let listed = fs::read_to_string(parent).unwrap_or_default();
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_str().unwrap();
        if path.is_dir() {
            found.extend(unlisted(&path, &path.with_extension("rs")));
        }
        if path != parent && !listed.contains(&format!("mod {module};")) {
            found.push(path);
        }
    }
    found
}

#[test]
fn no_test_file_is_forgotten() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let found = unlisted(&dir, &dir.join("main.rs"));
    assert!(found.is_empty(), "neither main.rs nor the file of their folder lists {found:?}");
}
