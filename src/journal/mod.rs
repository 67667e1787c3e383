//! What a run meant to do and what came of it: the intent log that makes `resume` possible.
//!
//! Purpose: records are written before an effect and after it, each one on disk before the next thing happens; a run's
//! state is a fold over its records, the same fold live and after a crash.
//! Must not know: clients, what a step does, how records are shown.
//! Start reading at [`Entry`], then [`RunState::record`], then [`Journal`].

mod downtime;
mod file;
pub mod lock;
mod record;
mod requests;
pub mod runs;
mod state;

pub use downtime::Downtime;
pub use file::{Journal, JournalError, Log, Memory, Opening, read};
pub use record::{Entry, JournalFormat, Record};
pub use requests::requests;
pub use runs::{RunDir, RunStatus, StateDir};
pub use state::{IllegalTransition, Life, RunState, StepState, Todo};
