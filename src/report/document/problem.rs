//! One thing that is wrong, in the document.

use schemars::JsonSchema;
use serde::Serialize;

use crate::event::{Class, Failure};
use crate::report::fold::StepFailure;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// What sort of problem.
    pub kind: Kind,
    /// What failed, a lower-case fragment.
    pub what: String,
    /// Why, outermost cause first.
    pub causes: Vec<String>,
    /// What to do next.
    pub hints: Vec<String>,
    /// The step, or the place in a file.
    #[serde(rename = "where")]
    pub place: Option<String>,
}

/// What sort of problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The command line, the profile or the site.
    Invalid,
    /// A gate.
    Refused,
    /// A step, or a verb that has no steps.
    Failed,
    /// The undo of a step.
    Undo,
    /// Worth knowing; nothing failed for it.
    Warning,
    /// A bug in recast.
    Internal,
}

impl Problem {
    /// A failure of this kind.
    pub fn new(kind: Kind, failure: &Failure) -> Self {
        let Failure { what, causes, hints } = failure.clone();
        Self { kind, what, causes, hints, place: None }
    }

    /// Its causes without those that say what stands above them already: many errors name their cause themselves.
    pub fn new_causes(&self) -> Vec<&str> {
        new_causes(&self.what, &self.causes)
    }

    /// With the place it is about.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }
}

/// Causes that add something to what was said before them.
pub(in crate::report) fn new_causes<'a>(what: &'a str, causes: &'a [String]) -> Vec<&'a str> {
    let mut above = what;
    let mut new = Vec::new();
    for cause in causes {
        if !cause.trim().is_empty() && !above.contains(cause.trim()) {
            new.push(cause.as_str());
            above = cause;
        }
    }
    new
}

impl From<&StepFailure> for Problem {
    fn from(failed: &StepFailure) -> Self {
        let kind = match failed.class {
            Some(Class::Refused) => Kind::Refused,
            Some(Class::Transient | Class::Permanent | Class::Ambiguous) => Kind::Failed,
            None => Kind::Undo,
        };
        Self::new(kind, &failed.failure).at(failed.step.as_str())
    }
}
