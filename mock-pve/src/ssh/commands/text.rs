//! `grep`, `cut`, `wc`: what pipes are made of.
//!
//! `head` and `tail` are in `ends.rs`.

use std::io::{self, BufRead as _, BufReader, Read as _};

use regex::{Regex, RegexBuilder};

use super::Job;
use crate::ssh::pipe::{Input, LONGEST, words};
use crate::ssh::shell;

/// Options with their values, and the rest.
pub(super) struct Given {
    options: Vec<(char, String)>,
    pub(super) rest: Vec<String>,
}

impl Given {
    /// `valued` are the letters that a value follows.
    pub(super) fn read(arguments: &[String], valued: &str) -> Self {
        let (mut options, mut rest) = (Vec::new(), Vec::new());
        let mut given = arguments.iter();
        while let Some(argument) = given.next() {
            if argument == "--" {
                rest.extend(given.by_ref().cloned());
                break;
            }
            let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
                rest.push(argument.clone());
                continue;
            };
            // `-5` is `-n 5`.
            if letters.starts_with(|letter: char| letter.is_ascii_digit()) {
                options.push(('n', letters.to_owned()));
                continue;
            }
            let mut letters = letters.chars();
            while let Some(letter) = letters.next() {
                if valued.contains(letter) {
                    let joined: String = letters.by_ref().collect();
                    let value = if joined.is_empty() { given.next().cloned().unwrap_or_default() } else { joined };
                    options.push((letter, value));
                } else {
                    options.push((letter, String::new()));
                }
            }
        }
        Self { options, rest }
    }

    pub(super) fn has(&self, letter: char) -> bool {
        self.options.iter().any(|(known, _)| *known == letter)
    }

    pub(super) fn value(&self, letter: char) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| *known == letter).map(|(_, value)| value.as_str())
    }
}

/// The files that were named, or the input; one that can't be read is told and costs the code.
pub(super) fn inputs(job: &mut Job<'_>, files: &[String], failed: u8) -> (Vec<(String, Input)>, u8) {
    if files.is_empty() {
        return (vec![("(standard input)".to_owned(), job.streams.input.clone())], 0);
    }
    let mut code = 0;
    let mut found = Vec::new();
    for file in files {
        let opened = if file == "-" { Ok(job.streams.input.clone()) } else { shell::read(job.host, file) };
        match opened {
            Ok(input) => found.push((file.clone(), input)),
            Err(why) => {
                job.fails(&format!("{file}: {why}"));
                code = failed;
            }
        }
    }
    (found, code)
}

/// Lines with their ends; one that is too long is an error, and whatever else can't be read is the end.
pub(super) fn whole_lines(input: Input) -> impl Iterator<Item = io::Result<Vec<u8>>> {
    let mut reader = BufReader::new(input);
    std::iter::from_fn(move || {
        let mut line = Vec::new();
        let read = (&mut reader).take(LONGEST as u64 + 1).read_until(b'\n', &mut line).unwrap_or(0);
        match read {
            0 => None,
            1..=LONGEST => Some(Ok(line)),
            _ => Some(Err(io::ErrorKind::OutOfMemory.into())),
        }
    })
}

/// The same as texts, without their ends.
fn lines(input: Input) -> impl Iterator<Item = io::Result<String>> {
    whole_lines(input).map(|line| {
        let line = line?;
        Ok(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned())
    })
}

/// A basic expression, as an extended one: there `\+` is what `+` is here, and the other way round.
fn extended(basic: &str) -> String {
    let mut text = String::new();
    let mut letters = basic.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(next @ ('+' | '?' | '|' | '(' | ')' | '{' | '}')) => text.push(next),
                Some(next) => text.extend(['\\', next]),
                None => text.push('\\'),
            },
            '+' | '?' | '|' | '(' | ')' | '{' | '}' => text.extend(['\\', letter]),
            other => text.push(other),
        }
    }
    text
}

/// What fits one of the patterns, which are lines.
fn expression(given: &Given, patterns: &str, name: &str) -> Option<Regex> {
    let alone = |pattern: &str| {
        if given.has('F') {
            regex::escape(pattern)
        } else if name == "egrep" || given.has('E') || given.has('P') {
            pattern.to_owned()
        } else {
            extended(pattern)
        }
    };
    let text = patterns.split('\n').map(|pattern| format!("(?:{})", alone(pattern))).collect::<Vec<_>>().join("|");
    let text = match (given.has('x'), given.has('w')) {
        (true, _) => format!("^(?:{text})$"),
        (_, true) => format!("\\b(?:{text})\\b"),
        _ => text,
    };
    RegexBuilder::new(&text).case_insensitive(given.has('i')).build().ok()
}

/// 0 when something fits, 1 when nothing does, 2 when it can't be looked.
pub(super) fn search(job: &mut Job<'_>) -> u8 {
    let mut given = Given::read(job.arguments, "emABC");
    if ['A', 'B', 'C'].into_iter().any(|around| given.has(around)) {
        job.fails("only lines that fit are played here");
        return 2;
    }
    let named: Vec<&str> =
        given.options.iter().filter(|(letter, _)| *letter == 'e').map(|(_, value)| value.as_str()).collect();
    let pattern = match named.as_slice() {
        [_, ..] => named.join("\n"),
        [] if given.rest.is_empty() => {
            job.streams.complain("Usage: grep [OPTION]... PATTERNS [FILE]...");
            return 2;
        }
        [] => given.rest.remove(0),
    };
    let Some(expression) = expression(&given, &pattern, job.name) else {
        job.fails("Invalid regular expression");
        return 2;
    };
    let files = std::mem::take(&mut given.rest);
    let (found, failed) = inputs(job, &files, 2);
    let named = files.len() > 1 && !given.has('h');
    let most = given.value('m').and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    let mut any = false;
    for (file, input) in found {
        let prefix = if named { format!("{file}:") } else { String::new() };
        let mut count = 0;
        for (number, line) in lines(input).enumerate() {
            if count >= most {
                break;
            }
            let line = match line {
                Ok(line) => line,
                Err(error) => return job.written(&Err(error)).max(2),
            };
            if expression.is_match(&line) == given.has('v') {
                continue;
            }
            any = true;
            count += 1;
            if given.has('q') {
                return 0;
            }
            if given.has('c') {
                continue;
            }
            let prefix = if given.has('n') { format!("{prefix}{}:", number + 1) } else { prefix.clone() };
            let shown: Vec<&str> = if given.has('o') {
                expression.find_iter(&line).map(Into::into).collect()
            } else {
                vec![line.as_str()]
            };
            for text in shown {
                let said = job.streams.say(&format!("{prefix}{text}"));
                if said.is_err() {
                    return job.written(&said);
                }
            }
        }
        if given.has('c') && !given.has('q') {
            let said = job.streams.say(&format!("{prefix}{count}"));
            if said.is_err() {
                return job.written(&said);
            }
        }
    }
    if failed > 0 { failed } else { u8::from(!any) }
}

/// `1,3-5,7-`: which places are meant.
fn places(list: &str) -> Option<Vec<(usize, usize)>> {
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number > 0);
    list.split(',')
        .map(|part| match part.split_once('-') {
            None => number(part).map(|at| (at, at)),
            Some((from, "")) => number(from).map(|from| (from, usize::MAX)),
            Some(("", to)) => number(to).map(|to| (1, to)),
            Some((from, to)) => Some((number(from)?, number(to)?)),
        })
        .collect()
}

pub(super) fn cut(job: &mut Job<'_>) -> u8 {
    let given = Given::read(job.arguments, "dfcb");
    let (fields, list) = match (given.value('f'), given.value('c').or(given.value('b'))) {
        (Some(list), _) => (true, list),
        (None, Some(list)) => (false, list),
        (None, None) => return job.fails("you must specify a list of bytes, characters, or fields"),
    };
    let Some(wanted) = places(list) else { return job.fails("invalid field value") };
    let delimiter = given.value('d').and_then(|text| text.chars().next()).unwrap_or('\t');
    let is_wanted = |place: usize| wanted.iter().any(|(from, to)| (*from..=*to).contains(&(place + 1)));
    let (found, code) = inputs(job, &given.rest, 1);
    for (_, input) in found {
        for line in lines(input) {
            let line = match line {
                Ok(line) => line,
                Err(error) => return job.written(&Err(error)),
            };
            let shown: String = if fields && line.contains(delimiter) {
                let kept = line.split(delimiter).enumerate().filter(|(place, _)| is_wanted(*place));
                kept.map(|(_, field)| field).collect::<Vec<_>>().join(&delimiter.to_string())
            } else if fields && given.has('s') {
                continue;
            } else if fields {
                line
            } else {
                line.chars().enumerate().filter(|(place, _)| is_wanted(*place)).map(|(_, letter)| letter).collect()
            };
            let said = job.streams.say(&shown);
            if said.is_err() {
                return job.written(&said);
            }
        }
    }
    code
}

/// What `wc` counts.
#[derive(Default)]
struct Counts {
    lines: u64,
    words: u64,
    bytes: u64,
}

fn counted(input: &mut Input) -> io::Result<Counts> {
    let mut counts = Counts::default();
    let mut block = vec![0; 256 * 1024];
    let mut in_word = false;
    loop {
        let read = input.read(&mut block)?;
        if read == 0 {
            return Ok(counts);
        }
        counts.bytes += read as u64;
        for byte in &block[..read] {
            let blank = byte.is_ascii_whitespace();
            counts.words += u64::from(!blank && !in_word);
            in_word = !blank;
            counts.lines += u64::from(*byte == b'\n');
        }
    }
}

pub(super) fn count(job: &mut Job<'_>) -> u8 {
    let given = Given::read(job.arguments, "");
    let (found, mut code) = inputs(job, &given.rest, 1);
    for (file, mut input) in found {
        let counts = match counted(&mut input) {
            Ok(counts) => counts,
            Err(error) => {
                code = job.fails(&format!("{file}: {}", words(&error)));
                continue;
            }
        };
        let all = [('l', counts.lines), ('w', counts.words), ('c', counts.bytes)];
        let chosen: Vec<u64> =
            all.iter().filter(|(letter, _)| given.has(*letter) || given.options.is_empty()).map(|(_, n)| *n).collect();
        let mut line = match chosen.as_slice() {
            [one] => one.to_string(),
            several => several.iter().map(|number| format!("{number:>7}")).collect::<Vec<_>>().join(" "),
        };
        if !given.rest.is_empty() {
            line = format!("{line} {file}");
        }
        let said = job.streams.say(&line);
        code = code.max(job.written(&said));
    }
    code
}

pub(super) fn identity(job: &mut Job<'_>) -> u8 {
    let given = Given::read(job.arguments, "");
    let number = given.has('u') || given.has('g') || given.has('G');
    let line = match (number, given.has('n')) {
        (true, true) => "root",
        (true, false) => "0",
        (false, _) => "uid=0(root) gid=0(root) groups=0(root)",
    };
    let said = job.streams.say(line);
    job.written(&said)
}
