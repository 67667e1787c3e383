//! The rules of the API, each asked for over HTTP.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

mod backups;
mod clones;
mod configs;
mod consoles;
mod files;
mod firewall;
mod fresh;
mod interrupts;
mod kept;
mod nine;
mod requests;
mod seldom;
mod settings;
mod site;
mod snapshots;
mod switches;
mod transport;
mod updates;
mod written;
