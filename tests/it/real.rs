//! Real programs, where they are here.
//!
//! `RECAST_TEST_CLIENTS` names the folder with them; without it a test that needs one says that it is skipped, and fails
//! where `RECAST_REQUIRE_REAL_PARTS` is set. Must not know: what they are used for.

use std::path::{Path, PathBuf};

/// The real talosctl.
#[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
pub(crate) fn talosctl() -> Option<PathBuf> {
    let found = std::env::var_os("RECAST_TEST_CLIENTS").map(|folder| Path::new(&folder).join("talosctl"));
    let found = found.filter(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("RECAST_REQUIRE_REAL_PARTS").is_none(), "talosctl is required and not here");
        eprintln!("skipped: RECAST_TEST_CLIENTS names no folder with talosctl");
    }
    found
}
