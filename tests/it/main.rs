//! The one integration test binary. `layers::no_test_file_is_forgotten` fails when a file here isn't listed.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops where it is")]

mod layers;
