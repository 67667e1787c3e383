//! The one integration test binary. `layers::no_test_file_is_forgotten` fails when a file here isn't listed.

#![expect(clippy::large_futures, reason = "whole runs are awaited where they stand; nothing moves them")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod certificates;
mod config_edges;
mod config_options;
mod config_rules;
mod config_verbs;
mod configs;
mod crash;
mod dropin;
mod engine;
mod errands;
mod freeze;
mod guards;
mod hermetic;
mod image;
mod init;
mod inventory;
mod journal;
mod kill;
mod kubernetes;
mod lab;
mod layers;
mod profile;
mod readme;
mod refusals;
mod rehearsal;
mod report;
mod scenarios;
mod secrets;
mod site;
mod sites;
mod snapshot;
mod template;
mod told;
mod upgrade;
mod verbs;
mod way_back;
