//! The part of bash that is understood.
//!
//! Purpose: words, quotes, variables with their defaults, `$(…)`, pipes, `&&`, `||`, `;`, redirections, `if`, `for`,
//! `while`, `until` and functions. What is more than that is a syntax error, in bash's words. Must not know: commands.
//! Start at [`parse`].

mod compound;
mod parser;
#[cfg(test)]
mod tests;
mod word;

use std::sync::Arc;

use parser::{End, Parser};

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
    /// `( … )`, `if …; fi` and the like in place of words.
    pub(super) compound: Option<Compound>,
}

/// What is made of other commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Compound {
    /// `{ …; }`: the shell itself.
    Braces(List),
    /// `( … )`: a shell of its own.
    Parentheses(List),
    /// `if …; then …; elif …; then …; else …; fi`
    If {
        /// What is asked, and what is done then.
        branches: Vec<(List, List)>,
        /// What is done when nothing held.
        otherwise: List,
    },
    /// `while …; do …; done`, `until …; do …; done`
    While {
        /// Goes on as long as this gives …
        condition: List,
        /// … success (`while`) or failure (`until`).
        succeeds: bool,
        /// What is done.
        body: List,
    },
    /// `for name in …; do …; done`
    For {
        /// The variable.
        name: String,
        /// Its values; none: the arguments.
        words: Option<Vec<Word>>,
        /// What is done.
        body: List,
    },
    /// `name() { …; }`: what is run by that name from here on.
    Function {
        /// The name.
        name: String,
        /// A compound command.
        body: Arc<Command>,
    },
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
    /// `$name`, `$1`, `$?`; quoted ones aren't split.
    Variable(String, Quoted),
    /// `${name:-word}` and `${name-word}`: the word where the variable is empty, or isn't set.
    Default {
        /// The variable.
        name: String,
        /// What counts as having no value.
        missing: Missing,
        /// The word.
        word: Word,
        /// As for variables.
        quoted: Quoted,
    },
    /// `$@`; a quoted one is a word for each argument.
    Arguments(Quoted),
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

/// When a variable has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It was never set.
    Unset,
    /// That, or it is empty.
    Empty,
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
    let mut parser = Parser { letters: text.chars().collect(), at: 0, depth: 0 };
    let list = parser.list(End::Text)?;
    match parser.peek() {
        None => Ok(list),
        Some(letter) => Err(unexpected(&letter.to_string())),
    }
}
