//! The part of bash that is understood.
//!
//! Purpose: words, quotes, variables, `$(…)`, pipes, `&&`, `||`, `;` and redirections. What is more than that is a syntax
//! error, in bash's words. Must not know: commands. Start at [`parse`].

mod parser;
#[cfg(test)]
mod tests;
mod word;

use parser::Parser;

/// Commands with what connects them.
pub(super) type List = Vec<(Link, Pipeline)>;

/// When a pipeline of a list runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// After `;`, or first.
    Always,
    /// After `&&`.
    And,
    /// After `||`.
    Or,
}

/// Commands that feed each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pipeline {
    /// `!` in front.
    pub(super) negated: bool,
    /// From left to right.
    pub(super) commands: Vec<Command>,
}

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// `NAME=value` in front.
    pub(super) assignments: Vec<(String, Word)>,
    /// Name and arguments.
    pub(super) words: Vec<Word>,
    /// In order.
    pub(super) redirections: Vec<Redirection>,
    /// `( … )` or `{ …; }` in place of words.
    pub(super) group: Option<(Group, List)>,
}

/// What commands are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// `{ …; }`: the shell itself.
    Braces,
    /// `( … )`: a shell of its own.
    Parentheses,
}

/// A redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirection {
    /// The descriptor: 0, 1 or 2; 3 stands for both outputs.
    pub(super) descriptor: u8,
    /// Where it goes.
    pub(super) target: Target,
}

/// Where a descriptor goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// `<`
    Read(Word),
    /// `>`
    Write(Word),
    /// `>>`
    Append(Word),
    /// `>&1`, `>&2`
    Same(u8),
}

/// A word before its expansion.
pub(super) type Word = Vec<Part>;

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// As it stands.
    Text(String),
    /// `$name`, `$?`; quoted ones aren't split.
    Variable(String, Quoted),
    /// `$(…)`.
    Output(List, Quoted),
}

/// Whether an expansion stands in double quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoted {
    /// It does.
    Yes,
    /// It doesn't: it is split at blanks.
    No,
}

/// Why a line isn't understood; bash's text without its prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct SyntaxError(String);

fn unexpected(token: &str) -> SyntaxError {
    SyntaxError(format!("syntax error near unexpected token `{token}'"))
}

/// Understands a line.
pub(super) fn parse(text: &str) -> Result<List, SyntaxError> {
    let mut parser = Parser { letters: text.chars().collect(), at: 0 };
    let list = parser.list(None)?;
    match parser.peek() {
        None => Ok(list),
        Some(letter) => Err(unexpected(&letter.to_string())),
    }
}
