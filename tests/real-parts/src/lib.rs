//! The programs that tests compare with, where they are installed.
//!
//! Purpose: one way to skip a test because something real is missing. It shows in the output of a run that succeeds, and
//! is a failure where `RECAST_REQUIRE_REAL_PARTS` is set, as in CI. Must not know: what tests do with the programs.

use std::io::{Write as _, stderr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Whether a program can be started, tried with an argument that only makes it tell its version. Says so where it can't.
///
/// # Panics
///
/// Where real parts are required and it can't.
pub fn is_here(program: &str, version: &str) -> bool {
    let mut command = Command::new(program);
    let started = command.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if started.is_err() {
        skipped(&format!("{program} is missing"));
    }
    started.is_ok()
}

/// One of the clients in the folder that `RECAST_TEST_CLIENTS` names: `talosctl`, `kubectl`. Says so where it isn't there.
///
/// # Panics
///
/// Where real parts are required and it isn't there.
pub fn client(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("RECAST_TEST_CLIENTS").map(PathBuf::from);
    let found = folder.map(|folder| folder.join(name)).filter(|path| path.is_file());
    if found.is_none() {
        skipped(&format!("RECAST_TEST_CLIENTS names no folder with {name}"));
    }
    found
}

/// Says that a test is skipped, past the harness, which shows what a test prints only when it fails.
///
/// # Panics
///
/// Where real parts are required.
pub fn skipped(why: &str) {
    assert!(std::env::var_os("RECAST_REQUIRE_REAL_PARTS").is_none(), "a real part is required: {why}");
    // Nobody may be there to read it.
    let _unread = writeln!(stderr(), "skipped: {why}");
}
