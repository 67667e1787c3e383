//! Commands that are made of other commands.
//!
//! Must not know: words and redirections.

use std::sync::Arc;

use super::parser::{End, Parser};
use super::{Compound, List, SyntaxError, unexpected};

/// Words that begin one; `function` may stand before a function's name.
const OPENING: &[&str] = &["if", "while", "until", "for", "function"];

impl Parser {
    /// The compound command that begins here, if one does.
    pub(super) fn compound(&mut self) -> Result<Option<Compound>, SyntaxError> {
        if self.eat("(") {
            return Ok(Some(Compound::Parentheses(self.closed(')')?)));
        }
        if self.starts("{ ") || self.starts("{\n") {
            self.at += 1;
            return Ok(Some(Compound::Braces(self.closed('}')?)));
        }
        let Some(word) = self.reserved(OPENING) else {
            return match self.function_name() {
                Some(name) => self.function(name).map(Some),
                None => Ok(None),
            };
        };
        self.at += word.len();
        let made = match word {
            "if" => self.choice()?,
            "for" => self.each()?,
            "function" => {
                self.blanks();
                let name = self.name();
                self.blanks();
                if self.eat("(") {
                    self.blanks();
                    self.wanted(")")?;
                }
                self.function(name)?
            }
            _ => {
                let condition = self.until_word(&["do"])?;
                Compound::While { condition, succeeds: word == "while", body: self.body()? }
            }
        };
        Ok(Some(made))
    }

    fn wanted(&mut self, text: &'static str) -> Result<(), SyntaxError> {
        if self.eat(text) {
            return Ok(());
        }
        Err(self.stray())
    }

    /// The error for the word or letter that stands here.
    fn stray(&self) -> SyntaxError {
        let rest = self.letters.get(self.at..).unwrap_or_default();
        let word: String = rest.iter().take_while(|letter| !" \t\n\r;|&<>()".contains(**letter)).collect();
        match (word.is_empty(), rest.first()) {
            (false, _) => unexpected(&word),
            (true, Some(letter)) => unexpected(&letter.to_string()),
            (true, None) => SyntaxError("syntax error: unexpected end of file".to_owned()),
        }
    }

    /// A list that isn't empty, and the word behind it, which isn't eaten.
    fn until_word(&mut self, words: &'static [&'static str]) -> Result<List, SyntaxError> {
        let list = self.list(End::Words(words))?;
        match self.reserved(words) {
            None => Err(SyntaxError("syntax error: unexpected end of file".to_owned())),
            Some(word) if list.is_empty() => Err(unexpected(word)),
            Some(_) => Ok(list),
        }
    }

    fn choice(&mut self) -> Result<Compound, SyntaxError> {
        let mut branches = Vec::new();
        loop {
            let condition = self.until_word(&["then"])?;
            self.wanted("then")?;
            branches.push((condition, self.until_word(&["elif", "else", "fi"])?));
            if self.eat("elif") {
                continue;
            }
            let otherwise = if self.eat("else") { self.until_word(&["fi"])? } else { List::new() };
            self.wanted("fi")?;
            return Ok(Compound::If { branches, otherwise });
        }
    }

    /// `do …; done`
    fn body(&mut self) -> Result<List, SyntaxError> {
        self.wanted("do")?;
        let list = self.until_word(&["done"])?;
        self.wanted("done")?;
        Ok(list)
    }

    fn each(&mut self) -> Result<Compound, SyntaxError> {
        self.blanks();
        let name = self.name();
        self.newlines();
        let words = if self.reserved(&["in"]).is_some() {
            self.at += 2;
            let mut words = Vec::new();
            loop {
                self.blanks();
                match self.peek() {
                    None | Some(';' | '\n') => break,
                    Some(letter @ ('|' | '&' | '<' | '>' | '(' | ')')) => return Err(unexpected(&letter.to_string())),
                    Some(_) => words.push(self.word()?),
                }
            }
            Some(words)
        } else {
            None
        };
        self.separators();
        self.newlines();
        Ok(Compound::For { name, words, body: self.body()? })
    }

    fn name(&mut self) -> String {
        let begin = self.at;
        while self.peek().is_some_and(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter)) {
            self.at += 1;
        }
        self.letters[begin..self.at].iter().collect()
    }

    /// The name of the function that is defined here: `name()`.
    fn function_name(&mut self) -> Option<String> {
        let begin = self.at;
        let name = self.name();
        self.blanks();
        let defined = !name.is_empty() && self.eat("(") && {
            self.blanks();
            self.eat(")")
        };
        if defined {
            return Some(name);
        }
        self.at = begin;
        None
    }

    fn function(&mut self, name: String) -> Result<Compound, SyntaxError> {
        self.newlines();
        let begin = self.at;
        self.deeper()?;
        let body = self.command(End::Text)?;
        self.depth -= 1;
        if body.compound.is_none() {
            self.at = begin;
            return Err(self.stray());
        }
        Ok(Compound::Function { name, body: Arc::new(body) })
    }
}
