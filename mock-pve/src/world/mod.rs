//! (being written)

pub mod power;
