//! The generated messages and clients of `proto/`: `machine`, `cluster`, `storage`, `time`, `common`, `cosi::resource`.
//!
//! Purpose: one place that includes generated code. Only `talos::client` uses it; nobody else sees a protobuf message.

#![allow(
    clippy::pedantic,
    clippy::enum_variant_names,
    clippy::allow_attributes_without_reason,
    dead_code,
    unreachable_pub,
    reason = "generated code has habits of its own"
)]

tonic::include_proto!("talos");
