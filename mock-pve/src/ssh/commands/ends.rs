//! `head`, `tail`.
//!
//! Purpose: what is passed on at once is never held; what has to be held is limited. Start at [`run`].

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};

use super::Job;
use super::text::{Given, inputs, whole_lines};
use crate::ssh::pipe::{Input, LONGEST, Output};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Lines,
    Bytes,
}

/// Which of them are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// `head -n 5`
    First(u64),
    /// `head -n -5`
    AllButLast(u64),
    /// `tail -n 5`
    Last(u64),
    /// `tail -n +5`, without the four before.
    After(u64),
}

/// What `text` means to a command; `None`: no number.
fn wanted(name: &str, text: &str) -> Option<Wanted> {
    let number = text.strip_prefix(['+', '-']).unwrap_or(text);
    let number = number.parse::<u64>().ok()?;
    Some(match (name, text.as_bytes().first()) {
        ("head", Some(b'-')) => Wanted::AllButLast(number),
        ("head", _) => Wanted::First(number),
        (_, Some(b'+')) => Wanted::After(number.saturating_sub(1)),
        _ => Wanted::Last(number),
    })
}

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let given = Given::read(job.arguments, "nc");
    let (unit, called, text) = match given.value('c') {
        Some(text) => (Unit::Bytes, "bytes", text),
        None => (Unit::Lines, "lines", given.value('n').unwrap_or("10")),
    };
    let Some(wanted) = wanted(job.name, text) else {
        return job.fails(&format!("invalid number of {called}: ‘{text}’"));
    };
    let (found, mut code) = inputs(job, &given.rest, 1);
    for (_, input) in found {
        let output = &mut job.streams.output;
        let written = match (wanted, unit) {
            (Wanted::First(number), Unit::Bytes) => io::copy(&mut input.take(number), output).map(|_| ()),
            (Wanted::First(number), Unit::Lines) => first_lines(input, number, output),
            (Wanted::After(number), Unit::Bytes) => after_bytes(input, number, output),
            (Wanted::After(number), Unit::Lines) => after_lines(input, number, output),
            (Wanted::Last(number), _) => held(input, unit, number, |_| Ok(()))
                .and_then(|kept| kept.iter().try_for_each(|one| output.write_all(one))),
            (Wanted::AllButLast(number), _) => held(input, unit, number, |one| output.write_all(one)).map(|_| ()),
        };
        code = code.max(job.written(&written));
    }
    code
}

/// How many of the bytes belong to the next lines, whose number gets smaller by those that end.
fn through(bytes: &[u8], lines: &mut u64) -> usize {
    for (place, byte) in bytes.iter().enumerate() {
        if *lines == 0 {
            return place;
        }
        *lines -= u64::from(*byte == b'\n');
    }
    bytes.len()
}

fn first_lines(mut input: Input, mut lines: u64, output: &mut Output) -> io::Result<()> {
    let mut block = vec![0; 64 * 1024];
    while lines > 0 {
        let read = input.read(&mut block)?;
        if read == 0 {
            break;
        }
        let end = through(&block[..read], &mut lines);
        output.write_all(&block[..end])?;
    }
    Ok(())
}

fn after_bytes(mut input: Input, bytes: u64, output: &mut Output) -> io::Result<()> {
    io::copy(&mut (&mut input).take(bytes), &mut io::sink())?;
    io::copy(&mut input, output).map(|_| ())
}

fn after_lines(mut input: Input, mut lines: u64, output: &mut Output) -> io::Result<()> {
    let mut block = vec![0; 64 * 1024];
    loop {
        let read = input.read(&mut block)?;
        if read == 0 {
            return Ok(());
        }
        let begin = through(&block[..read], &mut lines);
        output.write_all(&block[begin..read])?;
    }
}

/// Holds the last lines or bytes back, in pieces, and gives what comes before them on.
fn held(
    input: Input,
    unit: Unit,
    number: u64,
    mut before: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<VecDeque<Vec<u8>>> {
    let mut kept: VecDeque<Vec<u8>> = VecDeque::new();
    let mut bytes = 0;
    for piece in pieces(input, unit) {
        let piece = piece?;
        bytes += piece.len();
        kept.push_back(piece);
        loop {
            let all = if unit == Unit::Lines { kept.len() } else { bytes };
            let excess = (all as u64).saturating_sub(number);
            let Some(oldest) = kept.front_mut().filter(|_| excess > 0) else { break };
            let gone = match unit {
                Unit::Lines => oldest.len(),
                Unit::Bytes => usize::try_from(excess).unwrap_or(usize::MAX).min(oldest.len()),
            };
            before(&oldest[..gone])?;
            bytes -= gone;
            if gone == oldest.len() {
                kept.pop_front();
            } else {
                oldest.drain(..gone);
            }
        }
        if bytes > LONGEST {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
    }
    Ok(kept)
}

/// Lines, or bytes as they come.
fn pieces(mut input: Input, unit: Unit) -> Box<dyn Iterator<Item = io::Result<Vec<u8>>>> {
    match unit {
        Unit::Lines => Box::new(whole_lines(input)),
        Unit::Bytes => Box::new(std::iter::from_fn(move || {
            let mut block = vec![0; 64 * 1024];
            match input.read(&mut block) {
                Ok(0) => None,
                Ok(read) => {
                    block.truncate(read);
                    Some(Ok(block))
                }
                Err(error) => Some(Err(error)),
            }
        })),
    }
}
