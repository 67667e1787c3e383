//! Lists, pipelines, commands and redirections.
//!
//! Must not know: quotes and expansions.

use super::{Command, Link, List, Pipeline, Redirection, SyntaxError, Target, Word, unexpected};

/// Where a list ends, apart from the end of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nowhere else.
    Text,
    /// Before this letter.
    Letter(char),
    /// Before one of these words, where a command could stand.
    Words(&'static [&'static str]),
}

/// Words that go on with a compound command, or end it.
const CLOSING: &[&str] = &["then", "elif", "else", "fi", "do", "done"];

/// A line and how far it is understood.
pub(super) struct Parser {
    pub(super) letters: Vec<char>,
    pub(super) at: usize,
    /// How deep what is being read stands in other things.
    pub(super) depth: u32,
}

/// How deep that may be.
const DEEPEST: u32 = 200;

impl Parser {
    pub(super) fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    pub(super) fn starts(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(offset, letter)| self.letters.get(self.at + offset) == Some(&letter))
    }

    pub(super) fn eat(&mut self, text: &str) -> bool {
        let there = self.starts(text);
        if there {
            self.at += text.chars().count();
        }
        there
    }

    /// The reserved word that stands here.
    pub(super) fn reserved(&self, words: &[&'static str]) -> Option<&'static str> {
        let ends = |letter: Option<&char>| letter.is_none_or(|letter| " \t\n\r;|&<>()".contains(*letter));
        words.iter().copied().find(|word| self.starts(word) && ends(self.letters.get(self.at + word.chars().count())))
    }

    /// Whether the list ends here.
    fn closes(&self, end: End) -> bool {
        match end {
            End::Text => false,
            End::Letter(letter) => self.peek() == Some(letter),
            End::Words(words) => self.reserved(words).is_some(),
        }
    }

    pub(super) fn blanks(&mut self) {
        loop {
            if self.eat("\\\n") {
                continue;
            }
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('#') if self.at == 0 || matches!(self.letters[self.at - 1], ' ' | '\t' | '\n' | ';') => {
                    while self.peek().is_some_and(|letter| letter != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    pub(super) fn separators(&mut self) -> bool {
        let mut any = false;
        loop {
            self.blanks();
            match self.peek() {
                Some('\n') => self.at += 1,
                Some(';') if any => return true,
                Some(';') if self.starts(";;") => return any,
                Some(';') => {
                    self.at += 1;
                    any = true;
                    continue;
                }
                _ => return any,
            }
            any = true;
        }
    }

    pub(super) fn newlines(&mut self) {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return;
            }
            self.at += 1;
        }
    }

    /// Up to the end, which is not eaten.
    pub(super) fn list(&mut self, until: End) -> Result<List, SyntaxError> {
        self.deeper()?;
        let list = self.inner_list(until);
        self.depth -= 1;
        list
    }

    /// What calls this makes `depth` smaller again.
    pub(super) fn deeper(&mut self) -> Result<(), SyntaxError> {
        self.depth += 1;
        if self.depth > DEEPEST { Err(SyntaxError("memory exhausted".to_owned())) } else { Ok(()) }
    }

    fn inner_list(&mut self, until: End) -> Result<List, SyntaxError> {
        let mut list = List::new();
        let mut link = Link::Always;
        self.newlines();
        loop {
            self.blanks();
            match self.peek() {
                None if link == Link::Always => return Ok(list),
                None => return Err(SyntaxError("syntax error: unexpected end of file".to_owned())),
                Some(_) if link == Link::Always && self.closes(until) => return Ok(list),
                Some('\n') if list.is_empty() => {
                    self.at += 1;
                    continue;
                }
                Some(_) => {}
            }
            list.push((link, self.pipeline(until)?));
            self.blanks();
            link = if self.eat("&&") {
                self.newlines();
                Link::And
            } else if self.eat("||") {
                self.newlines();
                Link::Or
            } else if self.separators() {
                Link::Always
            } else {
                match self.peek() {
                    None => return Ok(list),
                    Some(_) if self.closes(until) => return Ok(list),
                    Some(letter) => return Err(unexpected(&letter.to_string())),
                }
            };
        }
    }

    fn pipeline(&mut self, until: End) -> Result<Pipeline, SyntaxError> {
        let mut pipeline = Pipeline::default();
        if self.starts("! ") {
            self.at += 1;
            pipeline.negated = true;
        }
        loop {
            pipeline.commands.push(self.command(until)?);
            self.blanks();
            if self.starts("||") || !self.eat("|") {
                return Ok(pipeline);
            }
            self.newlines();
        }
    }

    pub(super) fn command(&mut self, until: End) -> Result<Command, SyntaxError> {
        self.blanks();
        if let Some(stray) = self.reserved(CLOSING) {
            return Err(unexpected(stray));
        }
        let mut command = Command { compound: self.compound()?, ..Command::default() };
        loop {
            self.blanks();
            if let Some(redirection) = self.redirection()? {
                command.redirections.push(redirection);
                continue;
            }
            let ends = match self.peek() {
                None | Some('\n' | ';' | '|' | ')') => true,
                Some('&') => {
                    if self.starts("&&") {
                        true
                    } else {
                        return Err(unexpected("&"));
                    }
                }
                Some('(') => return Err(unexpected("(")),
                Some('}') => until == End::Letter('}'),
                Some(_) => false,
            };
            if ends {
                let empty = command.words.is_empty() && command.assignments.is_empty() && command.compound.is_none();
                if empty && command.redirections.is_empty() {
                    let token = match self.peek() {
                        None => return Err(SyntaxError("syntax error: unexpected end of file".to_owned())),
                        Some('\n') => "newline".to_owned(),
                        Some(letter) if self.starts("||") || self.starts("&&") => format!("{letter}{letter}"),
                        Some(letter) => letter.to_string(),
                    };
                    return Err(unexpected(&token));
                }
                return Ok(command);
            }
            if command.compound.is_some() {
                return Err(unexpected(&self.peek().map(String::from).unwrap_or_default()));
            }
            if command.words.is_empty()
                && let Some(name) = self.assignment()
            {
                let value = self.word()?;
                command.assignments.push((name, value));
                continue;
            }
            let word = self.word()?;
            command.words.push(word);
        }
    }

    pub(super) fn closed(&mut self, by: char) -> Result<List, SyntaxError> {
        let list = self.list(End::Letter(by))?;
        self.newlines();
        if self.peek() != Some(by) {
            return Err(SyntaxError("syntax error: unexpected end of file".to_owned()));
        }
        self.at += 1;
        Ok(list)
    }

    fn assignment(&mut self) -> Option<String> {
        let mut end = self.at;
        while self.letters.get(end).is_some_and(|letter| letter.is_ascii_alphanumeric() || *letter == '_') {
            end += 1;
        }
        let named = end > self.at && !self.letters[self.at].is_ascii_digit() && self.letters.get(end) == Some(&'=');
        named.then(|| {
            let name = self.letters[self.at..end].iter().collect();
            self.at = end + 1;
            name
        })
    }

    fn redirection(&mut self) -> Result<Option<Redirection>, SyntaxError> {
        let begin = self.at;
        let both = self.starts("&>");
        let mut descriptor = None;
        if both {
            self.at += 1;
            descriptor = Some(3);
        } else if let Some(digit @ '0'..='2') = self.peek()
            && matches!(self.letters.get(self.at + 1), Some('<' | '>'))
        {
            descriptor = digit.to_digit(10).and_then(|digit| u8::try_from(digit).ok());
            self.at += 1;
        }
        let made = if self.starts("<<") {
            return Err(unexpected("<<"));
        } else if self.eat("<") {
            Redirection { descriptor: descriptor.unwrap_or(0), target: Target::Read(self.needed()?) }
        } else if self.eat(">>") {
            Redirection { descriptor: descriptor.unwrap_or(1), target: Target::Append(self.needed()?) }
        } else if self.eat(">&") {
            let to = match self.peek() {
                Some('1') => 1,
                Some('2') => 2,
                other => return Err(unexpected(&other.map_or_else(|| "newline".to_owned(), String::from))),
            };
            self.at += 1;
            Redirection { descriptor: descriptor.unwrap_or(1), target: Target::Same(to) }
        } else if self.eat(">") {
            Redirection { descriptor: descriptor.unwrap_or(1), target: Target::Write(self.needed()?) }
        } else {
            self.at = begin;
            return Ok(None);
        };
        Ok(Some(made))
    }

    fn needed(&mut self) -> Result<Word, SyntaxError> {
        self.blanks();
        match self.peek() {
            None | Some('\n') => Err(unexpected("newline")),
            Some(letter @ (';' | '|' | '&' | '<' | '>' | ')')) => Err(unexpected(&letter.to_string())),
            Some(_) => self.word(),
        }
    }
}
