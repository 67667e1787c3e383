//! What is wrong with a file, where, and what would be right.
//!
//! Purpose: one shape for everything that profile, site and lock can get wrong, so that all of it is shown at once.
//! Must not know: YAML, profiles. Start reading at [`Problem`].

use std::fmt;

/// Whether a problem stops the verb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does: exit code 3.
    Error,
    /// It is only shown.
    Warning,
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it stops the verb.
    pub severity: Severity,
    /// The file, as the user named it.
    pub file: String,
    /// Line, from 1; 0 when the problem has no place in the file.
    pub line: usize,
    /// Column in characters, from 1; 0 when the problem has no place in the file.
    pub column: usize,
    /// The key path: `nodes.workers.assignments[0].vmid`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, a lower-case fragment.
    pub what: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line of the file, with secrets blanked.
    pub snippet: Option<String>,
}

impl Problem {
    /// An error at a key path that has no place in a file yet; `Source::place` finds it.
    pub fn at(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: String::new(),
            line: 0,
            column: 0,
            key: key.into(),
            what: what.into(),
            hint: None,
            snippet: None,
        }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same, as something that is only shown.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.severity = Severity::Warning;
        self
    }

    /// `file:line:column`, or what of it is known.
    pub fn place(&self) -> String {
        match (self.file.is_empty(), self.line) {
            (true, _) => String::new(),
            (false, 0) => self.file.clone(),
            (false, line) => format!("{}:{line}:{}", self.file, self.column),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        if !place.is_empty() {
            write!(f, "{place}: ")?;
        }
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.what)?;
        if let Some(snippet) = &self.snippet {
            let number = self.line.to_string();
            let margin = " ".repeat(number.len());
            // Tabs keep the caret under its column, however wide the terminal shows them.
            let lead: String = snippet
                .chars()
                .take(self.column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(f, "\n {margin} |\n {number} | {snippet}\n {margin} | {lead}^")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_points_at_the_column_also_behind_tabs() {
        let mut problem = Problem::at("talos.verson", "unknown key").hinted("did you mean `version`?");
        problem.file = "a.yaml".into();
        (problem.line, problem.column) = (12, 4);
        problem.snippet = Some("\t  verson: 1".into());
        assert_eq!(
            problem.to_string(),
            "a.yaml:12:4: talos.verson: unknown key\n    |\n 12 | \t  verson: 1\n    | \t  ^\n  hint: did you mean `version`?"
        );
    }
}
