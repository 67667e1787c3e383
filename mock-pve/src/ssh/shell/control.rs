//! What a shell does by itself: choices, loops, functions, and the commands that are its own.
//!
//! Must not know: expansions, redirections.

use std::sync::Arc;

use super::{Leaving, NOT_FOUND, Shell, Streams, read};
use crate::ssh::grammar::{Command, Compound};
use crate::ssh::pipe::Input;

impl Shell {
    pub(super) fn compound(&mut self, compound: &Compound, own: &Streams, outer: &Streams) -> u8 {
        match compound {
            Compound::Braces(list) => self.list(list, own),
            Compound::Parentheses(list) => self.subshell().list(list, own),
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
                self.loops += 1;
                while !self.host.visit.breaks() {
                    let holds = self.ask(condition, own) == *succeeds;
                    // What is asked may leave the loop, too.
                    if self.leaving == Leaving::No {
                        if !holds {
                            break;
                        }
                        status = self.list(body, own);
                    }
                    if self.ends_loop() {
                        break;
                    }
                }
                self.loops -= 1;
                if self.leaving == Leaving::No { status } else { self.status }
            }
            Compound::For { name, words, body } => {
                let values: Vec<String> = match words {
                    Some(words) => words.iter().flat_map(|word| self.expand(word, outer)).collect(),
                    None => self.arguments.clone(),
                };
                let mut status = 0;
                self.loops += 1;
                for value in values {
                    self.variables.insert(name.clone(), value);
                    status = self.list(body, own);
                    if self.ends_loop() {
                        break;
                    }
                }
                self.loops -= 1;
                status
            }
            Compound::Function { name, body } => {
                self.functions.insert(name.clone(), Arc::clone(body));
                0
            }
        }
    }

    pub(super) fn function(&mut self, body: &Command, arguments: &[String], streams: &Streams) -> u8 {
        // Functions that call each other are a loop, too.
        if self.host.visit.breaks() {
            return self.status;
        }
        let own = std::mem::replace(&mut self.arguments, arguments.to_vec());
        let loops = std::mem::take(&mut self.loops);
        self.called_functions += 1;
        let status = self.command(body, streams);
        self.called_functions -= 1;
        (self.arguments, self.loops) = (own, loops);
        if self.leaving == Leaving::Function {
            self.leaving = Leaving::No;
        }
        status
    }

    /// Whether a loop ends after a round: somebody left it, or nobody is there any more.
    fn ends_loop(&mut self) -> bool {
        let (left, ends) = match self.leaving {
            Leaving::No | Leaving::Continue(1) => (Leaving::No, self.host.visit.breaks()),
            Leaving::Break(1) => (Leaving::No, true),
            Leaving::Break(loops) => (Leaving::Break(loops - 1), true),
            Leaving::Continue(loops) => (Leaving::Continue(loops - 1), true),
            further @ (Leaving::Function | Leaving::Shell) => (further, true),
        };
        self.leaving = left;
        ends
    }

    /// `break`, `continue`
    fn leave_loops(&mut self, name: &str, arguments: &[String], streams: &Streams) -> u8 {
        let complain = |text: &str| streams.clone().complain(&format!("bash: line 1: {name}: {text}"));
        if self.loops == 0 {
            complain("only meaningful in a `for', `while', or `until' loop");
            return 0;
        }
        let text = arguments.first().map_or("1", String::as_str);
        let Ok(loops) = text.parse::<i64>() else {
            complain(&format!("{text}: numeric argument required"));
            self.leaving = Leaving::Shell;
            return 128;
        };
        let loops = u32::try_from(loops).unwrap_or(if loops < 0 { 0 } else { u32::MAX });
        if loops == 0 {
            complain(&format!("{text}: loop count out of range"));
            self.leaving = Leaving::Break(self.loops);
            return 1;
        }
        let loops = loops.min(self.loops);
        self.leaving = if name == "break" { Leaving::Break(loops) } else { Leaving::Continue(loops) };
        0
    }

    /// What only the shell itself can do; `None`: no such thing.
    pub(super) fn builtin(&mut self, name: &str, arguments: &[String], streams: &Streams) -> Option<u8> {
        let code: Option<u8> = arguments.first().and_then(|code| code.parse().ok());
        match name {
            "exit" => {
                self.leaving = Leaving::Shell;
                return Some(code.unwrap_or(self.status));
            }
            "return" if self.called_functions == 0 => {
                streams.clone().complain("bash: line 1: return: can only `return' from a function or sourced script");
                return Some(2);
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
            "break" | "continue" => return Some(self.leave_loops(name, arguments, streams)),
            "set" => self.set(arguments),
            "bash" | "/bin/bash" | "/usr/bin/bash" | "sh" | "/bin/sh" => return Some(self.another(arguments, streams)),
            _ => return None,
        }
        Some(0)
    }

    fn set(&mut self, arguments: &[String]) {
        let mut given = arguments.iter().peekable();
        while let Some(argument) = given.next_if(|word| word.starts_with(['-', '+'])) {
            let on = argument.starts_with('-');
            if argument == "--" {
                self.arguments = given.cloned().collect();
                return;
            }
            if argument == "-" {
                break;
            }
            for letter in argument.chars().skip(1) {
                match letter {
                    'e' => self.strict = on,
                    'o' => match given.next().map(String::as_str) {
                        Some("errexit") => self.strict = on,
                        Some("pipefail") => self.pipefail = on,
                        _ => {}
                    },
                    _ => {}
                }
            }
        }
        if given.peek().is_some() {
            self.arguments = given.cloned().collect();
        }
    }

    /// `bash -c TEXT NAME ARGUMENT…`, or a script that comes in.
    fn another(&self, arguments: &[String], streams: &Streams) -> u8 {
        let mut shell = Self::new(self.host.clone());
        shell.depth = self.depth;
        // Scripts that run each other are a loop, too.
        if self.host.visit.breaks() {
            return self.status;
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
                Ok(input) => {
                    let Some(text) = input.whole().filter(|text| !text.contains('\0')) else {
                        streams.complain(&format!("{file}: {file}: cannot execute binary file"));
                        return 126;
                    };
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
                shell.arguments = given.cloned().collect();
                return shell.read(streams);
            }
        };
        shell.arguments = given.cloned().collect();
        shell.run(&text, streams)
    }

    /// Runs the script that comes in.
    pub(in crate::ssh) fn read(&mut self, mut streams: Streams) -> u8 {
        if let Some(text) = std::mem::replace(&mut streams.input, Input::Empty).whole() {
            return self.run(&text, streams);
        }
        streams.complain("bash: line 1: memory exhausted");
        2
    }
}
