//! Words: quotes, variables and `$(…)`.
//!
//! Must not know: what a word is for.

use super::parser::Parser;
use super::{Missing, Part, Quoted, SyntaxError, Word, unexpected};

impl Parser {
    /// Up to a blank or what ends a word.
    pub(super) fn word(&mut self) -> Result<Word, SyntaxError> {
        self.word_until(|letter| " \t\n\r;|&<>()".contains(letter))
    }

    fn word_until(&mut self, ends: fn(char) -> bool) -> Result<Word, SyntaxError> {
        let mut word = Word::new();
        let text = |word: &mut Word, letter: Option<char>| match word.last_mut() {
            Some(Part::Text(text)) => text.extend(letter),
            _ => word.push(Part::Text(letter.map(String::from).unwrap_or_default())),
        };
        loop {
            match self.peek() {
                None => return Ok(word),
                Some(letter) if ends(letter) => return Ok(word),
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
        if matches!(self.peek(), Some('?' | '#' | '@' | '*' | '0'..='9')) {
            self.at += 1;
        } else {
            while self.peek().is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
                self.at += 1;
            }
        }
        let name: String = self.letters[begin..self.at].iter().collect();
        if braced && !name.is_empty() && (self.starts(":-") || self.starts("-")) {
            let missing = if self.eat(":") { Missing::Empty } else { Missing::Unset };
            self.at += 1;
            self.deeper()?;
            let default = self.word_until(|letter| letter == '}')?;
            self.depth -= 1;
            if !self.eat("}") {
                return Err(unmatched('}'));
            }
            word.push(Part::Default { name, missing, word: default, quoted });
            return Ok(());
        }
        if braced && (!self.eat("}") || name.is_empty()) {
            return Err(SyntaxError("bad substitution".to_owned()));
        }
        if name == "@" {
            word.push(Part::Arguments(quoted));
            return Ok(());
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
