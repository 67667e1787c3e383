//! The generated messages and server traits of `proto/`: `machine`, `cluster`, `storage`, `time`, `inspect`, `common`,
//! `cosi::resource`. A method that isn't written answers Unimplemented, as Talos does.

#![allow(
    clippy::pedantic,
    clippy::enum_variant_names,
    clippy::allow_attributes_without_reason,
    dead_code,
    unreachable_pub,
    reason = "generated code has habits of its own"
)]

tonic::include_proto!("talos");
