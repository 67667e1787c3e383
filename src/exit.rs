//! The exit codes: public, documented, stable.

/// What the process ends with. Scripts branch on these; a number never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Everything asked for is done.
    Done = 0,
    /// It failed and can't be resumed.
    Failed = 1,
    /// A dry run found changes to make.
    Pending = 2,
    /// The command line, the profile or the site file is invalid. Nothing was touched.
    Invalid = 3,
    /// A gate said no: preflight, drift, proof of backup, identity.
    Refused = 4,
    /// A step failed; `resume` goes on.
    Resumable = 5,
    /// An undo failed: a person has to look.
    Stuck = 6,
    /// Ctrl-C or SIGTERM; `resume` goes on.
    Cancelled = 7,
    /// A bug in recast.
    Internal = 70,
}

impl ExitCode {
    /// All codes with their meaning, for the help text and the README.
    pub const TABLE: &[(Self, &str)] = &[
        (Self::Done, "done"),
        (Self::Failed, "failed, not resumable"),
        (Self::Pending, "changes pending (dry run)"),
        (Self::Invalid, "usage, profile or site invalid"),
        (Self::Refused, "refused by a gate (preflight, drift, proof of backup, identity)"),
        (Self::Resumable, "a step failed, resumable"),
        (Self::Stuck, "stuck: an undo failed, a person is needed"),
        (Self::Cancelled, "cancelled (Ctrl-C, SIGTERM), resumable"),
        (Self::Internal, "internal error"),
    ];
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_the_published_ones() {
        let numbers: Vec<u8> = ExitCode::TABLE.iter().map(|(code, _)| *code as u8).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7, 70]);
    }
}
