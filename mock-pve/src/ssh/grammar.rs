//! The part of bash that is understood.
//!
//! Purpose: words, quotes, variables, `$(…)`, pipes, `&&`, `||`, `;` and redirections. What is more than that is a syntax
//! error, in bash's words. Must not know: commands. Start at [`parse`].

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

struct Parser {
    letters: Vec<char>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.letters.get(self.at).copied()
    }

    fn starts(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(offset, letter)| self.letters.get(self.at + offset) == Some(&letter))
    }

    fn eat(&mut self, text: &str) -> bool {
        let there = self.starts(text);
        if there {
            self.at += text.chars().count();
        }
        there
    }

    fn blanks(&mut self) {
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

    fn separators(&mut self) -> bool {
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

    fn newlines(&mut self) {
        loop {
            self.blanks();
            if self.peek() != Some('\n') {
                return;
            }
            self.at += 1;
        }
    }

    /// Up to the end or the closing letter, which is not eaten.
    fn list(&mut self, until: Option<char>) -> Result<List, SyntaxError> {
        let mut list = List::new();
        let mut link = Link::Always;
        self.newlines();
        loop {
            self.blanks();
            match self.peek() {
                None if link == Link::Always => return Ok(list),
                None => return Err(SyntaxError("syntax error: unexpected end of file".to_owned())),
                Some(letter) if Some(letter) == until && link == Link::Always => return Ok(list),
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
                    Some(letter) if Some(letter) == until => return Ok(list),
                    Some(letter) => return Err(unexpected(&letter.to_string())),
                }
            };
        }
    }

    fn pipeline(&mut self, until: Option<char>) -> Result<Pipeline, SyntaxError> {
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

    fn command(&mut self, until: Option<char>) -> Result<Command, SyntaxError> {
        let mut command = Command::default();
        self.blanks();
        if self.peek() == Some('(') {
            self.at += 1;
            command.group = Some((Group::Parentheses, self.closed(')')?));
        } else if self.starts("{ ") || self.starts("{\n") {
            self.at += 1;
            command.group = Some((Group::Braces, self.closed('}')?));
        }
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
                Some('}') => until == Some('}'),
                Some(_) => false,
            };
            if ends {
                let empty = command.words.is_empty() && command.assignments.is_empty() && command.group.is_none();
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
            if command.group.is_some() {
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

    fn closed(&mut self, by: char) -> Result<List, SyntaxError> {
        let list = self.list(Some(by))?;
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

    fn word(&mut self) -> Result<Word, SyntaxError> {
        let mut word = Word::new();
        let text = |word: &mut Word, letter: Option<char>| match word.last_mut() {
            Some(Part::Text(text)) => text.extend(letter),
            _ => word.push(Part::Text(letter.map(String::from).unwrap_or_default())),
        };
        loop {
            match self.peek() {
                None | Some(' ' | '\t' | '\n' | '\r' | ';' | '|' | '&' | '<' | '>' | '(' | ')') => return Ok(word),
                Some('\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some('\n') => {}
                        letter => text(&mut word, letter),
                    }
                    self.at += 1;
                }
                Some('\'') => {
                    text(&mut word, None);
                    self.at += 1;
                    loop {
                        match self.peek() {
                            None => return Err(unmatched('\'')),
                            Some('\'') => break,
                            letter => text(&mut word, letter),
                        }
                        self.at += 1;
                    }
                    self.at += 1;
                }
                Some('"') => {
                    text(&mut word, None);
                    self.at += 1;
                    loop {
                        match self.peek() {
                            None => return Err(unmatched('"')),
                            Some('"') => break,
                            Some('\\') => {
                                let next = self.letters.get(self.at + 1).copied();
                                if matches!(next, Some('"' | '\\' | '$' | '`')) {
                                    text(&mut word, next);
                                    self.at += 1;
                                } else if next == Some('\n') {
                                    self.at += 1;
                                } else {
                                    text(&mut word, Some('\\'));
                                }
                                self.at += 1;
                            }
                            Some('$') => self.expansion(&mut word, Quoted::Yes)?,
                            letter => {
                                text(&mut word, letter);
                                self.at += 1;
                            }
                        }
                    }
                    self.at += 1;
                }
                Some('$') => self.expansion(&mut word, Quoted::No)?,
                Some('`') => return Err(unexpected("`")),
                letter => {
                    text(&mut word, letter);
                    self.at += 1;
                }
            }
        }
    }

    /// At a `$`.
    fn expansion(&mut self, word: &mut Word, quoted: Quoted) -> Result<(), SyntaxError> {
        self.at += 1;
        if self.starts("((") {
            return Err(unexpected("("));
        }
        if self.eat("(") {
            let list = self.closed(')')?;
            word.push(Part::Output(list, quoted));
            return Ok(());
        }
        let braced = self.eat("{");
        let begin = self.at;
        if self.peek() == Some('?') {
            self.at += 1;
        } else {
            while self.peek().is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
                self.at += 1;
            }
        }
        let name: String = self.letters[begin..self.at].iter().collect();
        if braced && (!self.eat("}") || name.is_empty()) {
            return Err(SyntaxError("bad substitution".to_owned()));
        }
        if name.is_empty() {
            match word.last_mut() {
                Some(Part::Text(text)) => text.push('$'),
                _ => word.push(Part::Text("$".to_owned())),
            }
        } else {
            word.push(Part::Variable(name, quoted));
        }
        Ok(())
    }
}

fn unmatched(quote: char) -> SyntaxError {
    SyntaxError(format!("unexpected EOF while looking for matching `{quote}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let list = parse(text).unwrap();
        let command = &list[0].1.commands[0];
        let plain = |word: &Word| match word.as_slice() {
            [] => String::new(),
            [Part::Text(text)] => text.clone(),
            other => format!("{other:?}"),
        };
        command.words.iter().map(plain).collect()
    }

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(
            words(r#"qm set 9000 --scsi0 'a b,c=d' "x\"y$" z\ w"""#),
            ["qm", "set", "9000", "--scsi0", "a b,c=d", "x\"y$", "z w"]
        );
        assert_eq!(words("echo a#b # comment"), ["echo", "a#b"]);
    }

    #[test]
    fn lists_pipes_and_redirections() {
        let list = parse("xz -dc </tmp/a | dd of=/dev/x bs=1M 2>&1 && sync; ! test -e /x || { echo no >&2; }").unwrap();
        assert_eq!(
            list.iter().map(|(link, _)| *link).collect::<Vec<_>>(),
            [Link::Always, Link::And, Link::Always, Link::Or]
        );
        assert_eq!(list[0].1.commands.len(), 2);
        assert_eq!(list[0].1.commands[1].redirections, [Redirection { descriptor: 2, target: Target::Same(1) }]);
        assert!(list[2].1.negated && list[3].1.commands[0].group.is_some());
        let assigned = parse("V=$(pvesm path \"$X\") LC_ALL=C cat $V").unwrap();
        assert_eq!(assigned[0].1.commands[0].assignments.len(), 2);
        assert_eq!(parse("a\nb;\nc").unwrap().len(), 3);
    }

    #[test]
    fn what_is_not_understood_is_a_syntax_error() {
        for (text, expected) in [
            ("a &", "syntax error near unexpected token `&'"),
            ("cat <<EOF", "syntax error near unexpected token `<<'"),
            ("| a", "syntax error near unexpected token `|'"),
            ("a &&", "syntax error: unexpected end of file"),
            ("echo 'x", "unexpected EOF while looking for matching `''"),
            ("a ) b", "syntax error near unexpected token `)'"),
            ("( a", "syntax error: unexpected end of file"),
            ("a > ", "syntax error near unexpected token `newline'"),
            ("echo `date`", "syntax error near unexpected token ``'"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
