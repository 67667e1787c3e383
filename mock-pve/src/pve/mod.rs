//! The REST API.
//!
//! Purpose: HTTP in, the world's rules, HTTP out: routing, authentication, permission, parameter checks and envelopes,
//! in the original's order and words. No rule of its own. Must not know: listeners and certificates. Start at
//! [`Api::serve`], then `table.rs`.

pub mod anybody;
pub mod auth;
mod body;
mod call;
mod coding;
mod fetch;
mod formats;
mod handlers;
mod http;
mod json;
mod multipart;
mod params;
mod permission;
mod record;
mod reply;
pub mod returns;
mod route;
mod schema;
mod screen;
mod table;

pub use self::http::{Api, ApiError, Pages};
pub use self::record::Failure;
