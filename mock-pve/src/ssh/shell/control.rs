//! What a shell does by itself: choices, loops, functions, and the commands that are its own.
//!
//! Must not know: expansions, redirections.

use std::io::Read as _;
use std::sync::Arc;

use super::{Leaving, NOT_FOUND, Shell, Streams, read};
use crate::ssh::grammar::{Command, Compound};
use crate::ssh::pipe::Input;

/// How deep functions call each other. The original's dies of its stack some time later.
const DEEPEST: u32 = 200;

impl Shell {
    pub(super) fn compound(&mut self, compound: &Compound, own: &Streams, outer: &Streams) -> u8 {
        match compound {
            Compound::Braces(list) => self.list(list, own),
            Compound::Parentheses(list) => self.clone().list(list, own),
            Compound::If { branches, otherwise } => {
                for (condition, then) in branches {
                    if self.ask(condition, own) {
                        return self.list(then, own);
                    }
                    if self.leaving != Leaving::No {
                        return self.status;
                    }
                }
                self.status = 0;
                self.list(otherwise, own)
            }
            Compound::While { condition, succeeds, body } => {
                let mut status = 0;
                while !self.breaks() && self.ask(condition, own) == *succeeds && !self.breaks() {
                    status = self.list(body, own);
                }
                if self.leaving == Leaving::No { status } else { self.status }
            }
            Compound::For { name, words, body } => {
                let values: Vec<String> = match words {
                    Some(words) => words.iter().flat_map(|word| self.expand(word, outer)).collect(),
                    None => self.arguments.clone(),
                };
                let mut status = 0;
                for value in values {
                    self.variables.insert(name.clone(), value);
                    status = self.list(body, own);
                    if self.breaks() {
                        break;
                    }
                }
                status
            }
            Compound::Function { name, body } => {
                self.functions.insert(name.clone(), Arc::clone(body));
                0
            }
        }
    }

    pub(super) fn function(&mut self, body: &Command, arguments: &[String], streams: &Streams) -> u8 {
        if self.depth >= DEEPEST {
            // As after SIGSEGV.
            self.leaving = Leaving::Shell;
            return 139;
        }
        let own = std::mem::replace(&mut self.arguments, arguments.to_vec());
        self.depth += 1;
        let status = self.command(body, streams);
        self.depth -= 1;
        self.arguments = own;
        if self.leaving == Leaving::Function {
            self.leaving = Leaving::No;
        }
        status
    }

    /// What only the shell itself can do; `None`: no such thing.
    pub(super) fn builtin(&mut self, name: &str, arguments: &[String], streams: &Streams) -> Option<u8> {
        let code: Option<u8> = arguments.first().and_then(|code| code.parse().ok());
        match name {
            "exit" => {
                self.leaving = Leaving::Shell;
                return Some(code.unwrap_or(self.status));
            }
            "return" => {
                self.leaving = Leaving::Function;
                return Some(code.unwrap_or(self.status));
            }
            "export" | "local" | "readonly" | "declare" => {
                for (name, value) in arguments.iter().filter_map(|argument| argument.split_once('=')) {
                    self.variables.insert(name.to_owned(), value.to_owned());
                }
            }
            "unset" => self.variables.retain(|name, _| !arguments.contains(name)),
            "shift" => {
                let places = usize::from(code.unwrap_or(1)).min(self.arguments.len());
                self.arguments.drain(..places);
            }
            "set" => self.set(arguments),
            "bash" | "/bin/bash" | "/usr/bin/bash" | "sh" | "/bin/sh" => return Some(self.another(arguments, streams)),
            _ => return None,
        }
        Some(0)
    }

    fn set(&mut self, arguments: &[String]) {
        let mut given = arguments.iter();
        while let Some(argument) = given.next() {
            let on = argument.starts_with('-');
            if argument == "--" {
                self.arguments = given.cloned().collect();
                return;
            }
            for letter in argument.chars().skip(1) {
                match letter {
                    'e' => self.strict = on,
                    'o' if given.next().is_some_and(|option| option == "pipefail") => self.pipefail = on,
                    _ => {}
                }
            }
        }
    }

    /// `bash -c TEXT NAME ARGUMENT…`, or a script that comes in.
    fn another(&self, arguments: &[String], streams: &Streams) -> u8 {
        let mut shell = Self::new(self.host.clone());
        shell.depth = self.depth + 1;
        shell.listener.clone_from(&self.listener);
        if shell.depth >= DEEPEST {
            return 139;
        }
        let mut given = arguments.iter();
        let mut by_text = false;
        let mut first = None;
        for argument in given.by_ref() {
            if !argument.starts_with('-') || argument == "-" {
                first = Some(argument.clone());
                break;
            }
            by_text |= !argument.starts_with("--") && argument.contains('c');
            shell.strict |= !argument.starts_with("--") && argument.contains('e');
        }
        let mut streams = streams.clone();
        let text = match first {
            Some(text) if by_text => {
                // The next word is what it is called.
                shell.called = given.next().cloned().unwrap_or(shell.called);
                text
            }
            Some(file) if file != "-" => match read(&self.host, &file) {
                Ok(mut input) => {
                    let mut text = String::new();
                    // A script that isn't text is none.
                    let _ = input.read_to_string(&mut text);
                    text
                }
                Err(why) => {
                    streams.complain(&format!("bash: {file}: {why}"));
                    return NOT_FOUND;
                }
            },
            _ if by_text => {
                streams.complain("bash: -c: option requires an argument");
                return 2;
            }
            _ => {
                let mut text = Vec::new();
                // What came before the line broke is what there is.
                let _ = std::mem::replace(&mut streams.input, Input::Empty).read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            }
        };
        shell.arguments = given.cloned().collect();
        shell.run(&text, streams)
    }
}
