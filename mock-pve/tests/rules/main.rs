//! The rules of the API, each asked for over HTTP.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

mod configs;
mod kept;
mod nine;
mod requests;
mod site;
mod switches;
mod updates;
