//! Running what was understood.
//!
//! Purpose: expansions, redirections, pipes and exit codes, as bash does them. Each command runs on an ordinary thread.
//! Must not know: what commands do, SSH. Start at [`Shell::run`].

mod control;
mod expand;
mod files;

pub(super) use self::files::{Opened, read, write};

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::commands;
use super::grammar::{self, Command, Link, List, Part, Pipeline, Redirection, Target, Word};
use super::pipe::{Input, Output, pipe};
use super::visit::Visit;
use crate::pve::Api;
use crate::world::World;

/// The node that somebody is logged in to.
#[derive(Clone)]
pub(super) struct Host {
    /// The world.
    pub(super) world: World,
    /// The node's name.
    pub(super) node: String,
    /// The API of that node.
    pub(super) api: Api,
    /// For what has to wait.
    pub(super) runtime: tokio::runtime::Handle,
    /// Whose work it is.
    pub(super) visit: Visit,
}

/// The three descriptors of a command.
#[derive(Clone)]
pub(super) struct Streams {
    /// 0
    pub(super) input: Input,
    /// 1
    pub(super) output: Output,
    /// 2
    pub(super) error: Output,
}

impl Streams {
    /// A line for whoever looks; that nobody does is no error.
    pub(super) fn complain(&mut self, line: &str) {
        let _ = writeln!(self.error, "{line}");
    }

    /// A line of output.
    pub(super) fn say(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.output, "{line}")
    }
}

/// A shell of a node.
#[derive(Clone)]
pub(super) struct Shell {
    host: Host,
    variables: BTreeMap<String, String>,
    functions: BTreeMap<String, Arc<Command>>,
    /// `$0`
    called: String,
    /// `$1` …
    arguments: Vec<String>,
    status: u8,
    leaving: Leaving,
    /// `set -e`: a failure ends it.
    strict: bool,
    /// `set -o pipefail`: a pipeline fails with any of its commands.
    pipefail: bool,
    /// How many conditions are being asked, whose failures end nothing.
    asking: u32,
    /// How many commands run inside each other.
    depth: u32,
    /// How many functions do.
    called_functions: u32,
    /// How many loops do that `break` can leave.
    loops: u32,
}

/// What is being left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Nothing.
    No,
    /// That many loops: `break`.
    Break(u32),
    /// The round of the loop that is so far out: `continue`.
    Continue(u32),
    /// The function that runs: `return`.
    Function,
    /// The shell: `exit`, or a failure where none is allowed.
    Shell,
}

/// A redirection that can't be done, in bash's words.
struct Broken(String);

/// Exit code of a command that doesn't exist.
const NOT_FOUND: u8 = 127;
/// Exit code of a shell that can't begin another process.
const NO_PROCESS: u8 = 254;
/// Exit code of what wrote to nobody: as after SIGPIPE.
const BROKEN_PIPE: u8 = 141;
/// How deep commands stand in each other, through functions, compound commands and `$(…)`. The original's shell dies of its
/// stack some time later, too.
const DEEPEST: u32 = 500;

impl Shell {
    /// A fresh shell.
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            variables: BTreeMap::new(),
            functions: BTreeMap::new(),
            called: "bash".to_owned(),
            arguments: Vec::new(),
            status: 0,
            leaving: Leaving::No,
            strict: false,
            pipefail: false,
            asking: 0,
            depth: 0,
            called_functions: 0,
            loops: 0,
        }
    }

    /// Runs `bash -c TEXT` and says the exit code.
    pub(super) fn run(&mut self, text: &str, mut streams: Streams) -> u8 {
        match grammar::parse(text) {
            Ok(list) => self.list(&list, &streams),
            Err(error) => {
                let line = text.lines().next().unwrap_or_default();
                streams.complain(&format!("bash: -c: line 1: {error}"));
                if error.to_string().contains("unexpected token") {
                    streams.complain(&format!("bash: -c: line 1: `{line}'"));
                }
                2
            }
        }
    }

    /// Ends, as `exit` does.
    pub(super) fn leave(&mut self) {
        self.leaving = Leaving::Shell;
    }

    /// Who it works for.
    pub(super) fn visit(&mut self) -> &mut Visit {
        &mut self.host.visit
    }

    /// Whether it was left.
    pub(super) fn is_over(&self) -> bool {
        self.leaving == Leaving::Shell
    }

    /// The exit code of its last command.
    pub(super) fn status(&self) -> u8 {
        self.status
    }

    fn list(&mut self, list: &List, streams: &Streams) -> u8 {
        for (number, (link, pipeline)) in list.iter().enumerate() {
            if self.leaving != Leaving::No || self.host.visit.is_cut().is_some() {
                break;
            }
            let runs = match link {
                Link::Always => true,
                Link::And => self.status == 0,
                Link::Or => self.status != 0,
            };
            if runs {
                // What `&&` or `||` waits for, or `!` turns around, is a question.
                let last = list.get(number + 1).is_none_or(|(next, _)| *next == Link::Always);
                let asks = u32::from(!last || pipeline.negated);
                self.asking += asks;
                let status = self.pipeline(pipeline, streams);
                self.asking -= asks;
                self.status = if pipeline.negated { u8::from(status == 0) } else { status };
                if self.strict && self.status != 0 && asks == 0 && self.asking == 0 {
                    self.leaving = Leaving::Shell;
                }
            }
        }
        self.status = self.host.visit.is_cut().unwrap_or(self.status);
        self.status
    }

    /// A list whose failure is an answer.
    fn ask(&mut self, list: &List, streams: &Streams) -> bool {
        self.asking += 1;
        let status = self.list(list, streams);
        self.asking -= 1;
        status == 0
    }

    /// A shell of its own, in which no loop runs.
    fn subshell(&self) -> Self {
        Self { loops: 0, ..self.clone() }
    }

    fn pipeline(&mut self, pipeline: &Pipeline, streams: &Streams) -> u8 {
        if let [command] = pipeline.commands.as_slice() {
            return self.command(command, streams);
        }
        let mut threads = Vec::new();
        let mut input = streams.input.clone();
        let last = pipeline.commands.len().saturating_sub(1);
        for (number, command) in pipeline.commands.iter().enumerate() {
            let (output, next) = if number == last { (streams.output.clone(), Input::Empty) } else { pipe() };
            let own = Streams { input: std::mem::replace(&mut input, next), output, error: streams.error.clone() };
            let (mut shell, command) = (self.subshell(), command.clone());
            let Some(thread) = self.host.visit.spawn(move || shell.command(&command, &own)) else {
                if self.host.visit.cut(NO_PROCESS) {
                    streams.clone().complain("bash: fork: Resource temporarily unavailable");
                }
                break;
            };
            threads.push(thread);
        }
        // What nobody will read is not waited for.
        drop(input);
        let codes: Vec<u8> = threads.into_iter().map(|thread| thread.join().unwrap_or(255)).collect();
        let failed = codes.iter().rev().copied().find(|code| *code != 0);
        if self.pipefail { failed.unwrap_or(0) } else { codes.last().copied().unwrap_or(0) }
    }

    fn command(&mut self, command: &Command, streams: &Streams) -> u8 {
        if self.depth >= DEEPEST {
            // As after SIGSEGV.
            self.leaving = Leaving::Shell;
            return 139;
        }
        self.depth += 1;
        let status = self.redirected(command, streams);
        self.depth -= 1;
        status
    }

    fn redirected(&mut self, command: &Command, streams: &Streams) -> u8 {
        let mut own = streams.clone();
        let mut written = Vec::new();
        for redirection in &command.redirections {
            if let Err(Broken(text)) = self.redirect(redirection, &mut own, streams, &mut written) {
                let mut streams = streams.clone();
                streams.complain(&format!("bash: line 1: {text}"));
                return 1;
            }
        }
        let status = self.inside(command, &own, streams);
        drop(own);
        for path in written {
            self.host.world.notice_file(&self.host.node, &path);
        }
        status
    }

    fn inside(&mut self, command: &Command, own: &Streams, outer: &Streams) -> u8 {
        if let Some(compound) = &command.compound {
            return self.compound(compound, own, outer);
        }
        let assigned: Vec<(String, String)> = command
            .assignments
            .iter()
            .map(|(name, value)| (name.clone(), self.expand(value, outer).join(" ")))
            .collect();
        let arguments: Vec<String> = command.words.iter().flat_map(|word| self.expand(word, outer)).collect();
        let Some((name, rest)) = arguments.split_first() else {
            let computed =
                command.assignments.iter().flat_map(|(_, value)| value).any(|part| matches!(part, Part::Output(..)));
            self.variables.extend(assigned);
            return if computed { self.status } else { 0 };
        };
        if let Some(function) = self.functions.get(name).cloned() {
            return self.function(&function, rest, own);
        }
        if let Some(code) = self.builtin(name, rest, own) {
            return code;
        }
        if let Some(code) = commands::run(&self.host, name, rest, own) {
            // It is the shell itself that says this, and that dies of it.
            if name == "echo" && code == BROKEN_PIPE {
                self.leaving = Leaving::Shell;
            }
            return code;
        }
        let why = if name.contains('/') { "No such file or directory" } else { "command not found" };
        own.clone().complain(&format!("bash: line 1: {name}: {why}"));
        NOT_FOUND
    }

    fn redirect(
        &mut self,
        redirection: &Redirection,
        own: &mut Streams,
        outer: &Streams,
        written: &mut Vec<String>,
    ) -> Result<(), Broken> {
        let (word, append) = match &redirection.target {
            Target::Same(to) => {
                let same = if *to == 1 { own.output.clone() } else { own.error.clone() };
                match redirection.descriptor {
                    2 => own.error = same,
                    _ => own.output = same,
                }
                return Ok(());
            }
            Target::Read(word) => {
                let path = self.one(word, outer)?;
                own.input = read(&self.host, &path).map_err(|why| Broken(format!("{path}: {why}")))?;
                return Ok(());
            }
            Target::Write(word) => (word, false),
            Target::Append(word) => (word, true),
        };
        let path = self.one(word, outer)?;
        let how = if append { Opened::Append } else { Opened::Emptied };
        let output = write(&self.host, &path, how, own).map_err(|why| Broken(format!("{path}: {why}")))?;
        match redirection.descriptor {
            2 => own.error = output,
            3 => {
                own.error = output.clone();
                own.output = output;
            }
            _ => own.output = output,
        }
        written.push(path);
        Ok(())
    }

    fn one(&mut self, word: &Word, streams: &Streams) -> Result<String, Broken> {
        let mut found = self.expand(word, streams);
        match (found.pop(), found.is_empty()) {
            (Some(path), true) => Ok(path),
            _ => Err(Broken("ambiguous redirect".to_owned())),
        }
    }
}
