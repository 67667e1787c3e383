//! The one integration test binary. `layers::no_test_file_is_forgotten` fails when a file here isn't listed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod certificates;
mod configs;
mod crash;
mod engine;
mod guards;
mod journal;
mod kill;
mod layers;
mod profile;
mod readme;
mod refusals;
mod rehearsal;
mod site;
