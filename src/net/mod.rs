//! The ground all clients stand on: one connector, one set of TLS rules, one small HTTPS client.
//!
//! Purpose: decide in one place where a connection may go ([`Reach`]), where it really goes ([`DialMap`]), through which
//! proxy, and whom it trusts ([`Trust`]). Must not know: what is said over the connection, environment variables, plans.
//! Start reading at [`connector`].

mod body;
pub mod connector;
pub mod dial;
pub mod http;
pub mod meter;
pub mod pem;
pub mod tls;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod wire_tests;

pub use connector::{ConnectError, Connector, Options, Proxy, Reach};
pub use dial::{DialError, DialMap};
pub use meter::{Meter, Silent};
pub use tls::{Fingerprint, Identity, PinMismatch, SpkiPin, TlsError, Trust};
