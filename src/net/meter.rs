//! How clients tell that bytes move, without knowing who listens.

/// Counts bytes as they move. Shared between tasks, called often: implementations must be cheap and never block.
pub trait Meter: Sync {
    /// Bytes that moved.
    fn add(&self, bytes: u64);
    /// The total, once known.
    fn total(&self, bytes: u64);
}

/// The meter of those who don't ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Meter for Silent {
    fn add(&self, _: u64) {}
    fn total(&self, _: u64) {}
}
