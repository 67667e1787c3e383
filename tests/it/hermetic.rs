//! A rehearsal as the kernel sees it: every connection it opens, every file it changes.
//!
//! `strace` tells; where it is missing or not allowed to watch, the test says so and is skipped (and fails with
//! `RECAST_REQUIRE_REAL_PARTS`).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::site::{program, repository};

/// System calls that send somewhere.
const SENDING: &str = "connect,sendto,sendmsg,sendmmsg";
/// System calls that change files by name.
const CHANGING: &str = "open,openat,openat2,creat,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,\
                        linkat,symlink,symlinkat,truncate,chmod,fchmodat,chown,fchownat,utimensat,mknod,mknodat";

/// Whether strace can be used here.
fn watched() -> bool {
    let able = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    let able = able.is_ok_and(|output| output.status.success());
    if !able {
        real_parts::skipped("strace is not here, or may not watch");
    }
    able
}

/// The addresses in a line of the trace that are not this machine's own.
fn strangers(line: &str) -> Vec<&str> {
    let after = |mark: &'static str| line.match_indices(mark).map(move |(at, mark)| &line[at + mark.len()..]);
    let quoted = |rest: &'static str| after(rest).filter_map(|rest| rest.split('"').next()).collect::<Vec<_>>();
    let mut found = quoted("inet_addr(\"");
    found.retain(|address| !address.starts_with("127."));
    let six = quoted("inet_pton(AF_INET6, \"");
    found.extend(six.into_iter().filter(|address| *address != "::1"));
    found
}

/// The paths that a line of the trace changes, as absolute ones. strace writes the folder that a relative path is
/// relative to behind the descriptor: `AT_FDCWD</folder>, "file"`.
fn changed(line: &str) -> Vec<String> {
    let opens = line.contains("open");
    if opens && !["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC", "creat("].iter().any(|flag| line.contains(flag)) {
        return Vec::new();
    }
    let mut paths = Vec::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('"') {
        let Some((path, next)) = after.split_once('"') else { break };
        let folder = before.rsplit_once('<').and_then(|(_, folder)| folder.split('>').next()).unwrap_or_default();
        paths.push(if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") });
        rest = next;
    }
    paths
}

#[test]
fn lines_of_a_trace_are_understood() {
    let line = r#"7 connect(12, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.1")}, 16) = 0"#;
    assert_eq!(strangers(line), ["192.0.2.1"]);
    assert_eq!(strangers(&line.replace("192.0.2.1", "127.64.3.10")), [""; 0]);
    let line = r#"7 connect(12, {sa_family=AF_INET6, inet_pton(AF_INET6, "2001:db8::1", &sin6_addr)}, 28) = 0"#;
    assert_eq!(strangers(line), ["2001:db8::1"]);
    let read = r#"7 openat(AT_FDCWD</home>, "x", O_RDONLY|O_CLOEXEC) = 3</home/x>"#;
    assert_eq!(changed(read), [""; 0]);
    assert_eq!(changed(&read.replace("O_RDONLY", "O_WRONLY|O_CREAT")), ["/home/x"]);
    let moved = r#"7 renameat2(AT_FDCWD</home>, "/tmp/a", 5</tmp/b>, "c", 0) = 0"#;
    assert_eq!(changed(moved), ["/tmp/a", "/tmp/b/c"]);
}

#[test]
fn no_connection_leaves_loopback_and_no_file_outside_the_private_folder_changes() {
    if !watched() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (home, trace) = (place.path().join("home"), place.path().join("trace"));
    fs::create_dir_all(&home).unwrap();
    let inner = program(&home);
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-qq", "-e", "signal=none", "-s", "4096", "-e"])
        .arg(format!("trace={SENDING},{CHANGING}"));
    command.arg("-o").arg(&trace).arg(inner.get_program());
    command.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.current_dir(repository()).args(["rehearse", "--time-scale", "100", "--profile", "profiles/lab.yaml"]);
    command.args(["--", "rebuild", "--to", "1.13.9", "--kubernetes", "1.35.0", "--confirm", "lab"]);
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");

    let private = std::env::temp_dir().join("recast-rehearsal-");
    let allowed = |path: &str| {
        path.starts_with(&*private.to_string_lossy()) || path.starts_with("/dev/") || path.starts_with("/proc/self/")
    };
    let trace = fs::read_to_string(trace).unwrap();
    let mut connections = 0;
    for line in trace.lines() {
        // A call that was interrupted is told in two lines, and all that matters stands in the first.
        if line.contains(" resumed>") {
            continue;
        }
        let call = line.split_once(' ').map_or(line, |(_, call)| call.trim_start());
        if SENDING.split(',').any(|name| call.starts_with(&format!("{name}("))) {
            connections += u32::from(call.starts_with("connect("));
            assert_eq!(strangers(call), [""; 0], "{line}");
        } else {
            let wrong: Vec<String> = changed(call).into_iter().filter(|path| !allowed(path)).collect();
            assert!(wrong.is_empty(), "{line}");
        }
    }
    assert!(connections > 50, "the trace holds {connections} connections: it is not a rebuild's");
    assert!(Path::new(&home).read_dir().unwrap().next().is_none(), "the home folder stays empty");
}
