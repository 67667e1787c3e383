//! Expansions.
//!
//! Purpose: what words become: variables, defaults, arguments, what commands print, and where they are split, as bash does
//! it. Must not know: redirections, what commands do. Start at [`Shell::expand`].

use std::sync::{Arc, Mutex, PoisonError};

use super::{Shell, Streams};
use crate::ssh::grammar::{List, Missing, Part, Quoted, Word};
use crate::ssh::pipe::{LONGEST, Output};

/// Exit code of a shell that has no memory left.
const NO_MEMORY: u8 = 2;

impl Shell {
    /// The words that a word becomes; none where they are more than is held at once, and then nothing more begins.
    pub(super) fn expand(&mut self, word: &Word, streams: &Streams) -> Vec<String> {
        let others = |part: &Part| !matches!(part, Part::Arguments(_)) && *part != Part::Text(String::new());
        if self.arguments.is_empty()
            && word.iter().any(|part| matches!(part, Part::Arguments(_)))
            && !word.iter().any(others)
        {
            // `"$@"` of nothing is no word, not an empty one.
            return Vec::new();
        }
        let mut made: Vec<String> = Vec::new();
        let mut open: Option<String> = None;
        let mut held = 0;
        for part in word {
            if held > LONGEST {
                return self.exhausted(held, streams);
            }
            let (text, quoted) = match part {
                Part::Text(text) => (text.clone(), Quoted::Yes),
                Part::Variable(name, quoted) => (self.variable(name).unwrap_or_default(), *quoted),
                Part::Default { name, missing, word, quoted } => {
                    let value = self.variable(name).filter(|value| *missing == Missing::Unset || !value.is_empty());
                    match (value, quoted) {
                        (Some(value), _) => (value, *quoted),
                        (None, Quoted::Yes) => (self.expand(word, streams).join(" "), Quoted::Yes),
                        (None, Quoted::No) => {
                            // It is in words already.
                            held += append(&mut made, &mut open, self.expand(word, streams));
                            continue;
                        }
                    }
                }
                Part::Arguments(Quoted::No) => (self.arguments.join(" "), Quoted::No),
                Part::Arguments(Quoted::Yes) => {
                    held += append(&mut made, &mut open, self.arguments.clone());
                    continue;
                }
                Part::Output(list, quoted) => (self.output_of(list, streams), *quoted),
            };
            held += text.len();
            if quoted == Quoted::Yes {
                open.get_or_insert_default().push_str(&text);
                continue;
            }
            let blank = |letter: char| letter.is_ascii_whitespace();
            if text.starts_with(blank) {
                made.extend(open.take());
            }
            let mut pieces = text.split_ascii_whitespace().peekable();
            while let Some(piece) = pieces.next() {
                open.get_or_insert_default().push_str(piece);
                if pieces.peek().is_some() || text.ends_with(blank) {
                    made.extend(open.take());
                }
            }
        }
        if held > LONGEST {
            return self.exhausted(held, streams);
        }
        made.extend(open);
        made
    }

    fn exhausted(&self, bytes: usize, streams: &Streams) -> Vec<String> {
        if self.host.visit.cut(NO_MEMORY) {
            streams.clone().complain(&format!("bash: xrealloc: cannot allocate {bytes} bytes"));
        }
        Vec::new()
    }

    /// `None`: it isn't set.
    fn variable(&self, name: &str) -> Option<String> {
        if let Ok(place) = name.parse::<usize>() {
            return match place.checked_sub(1) {
                None => Some(self.called.clone()),
                Some(place) => self.arguments.get(place).cloned(),
            };
        }
        Some(match name {
            "?" => self.status.to_string(),
            "#" => self.arguments.len().to_string(),
            "*" => self.arguments.join(" "),
            "HOME" | "PWD" => "/root".to_owned(),
            "USER" | "LOGNAME" => "root".to_owned(),
            "HOSTNAME" => self.host.node.clone(),
            _ => return self.variables.get(name).cloned(),
        })
    }

    fn output_of(&mut self, list: &List, streams: &Streams) -> String {
        let text = Arc::new(Mutex::new(Vec::new()));
        let own = Streams { output: Output::Text(Arc::clone(&text)), ..streams.clone() };
        // `set -e` doesn't go into it.
        let mut shell = Self { strict: false, ..self.subshell() };
        self.status = shell.list(list, &own);
        let text = text.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).trim_end_matches('\n').to_owned()
    }
}

/// Adds whole words: the first belongs to the word that is open, the last stays so. Says how many bytes they hold.
fn append(made: &mut Vec<String>, open: &mut Option<String>, words: Vec<String>) -> usize {
    let held = words.iter().map(|word| word.len() + size_of::<String>()).sum();
    let mut words = words.into_iter();
    if let Some(first) = words.next() {
        open.get_or_insert_default().push_str(&first);
    }
    for next in words {
        made.extend(open.replace(next));
    }
    held
}
