//! A command line as talosctl's flag parser (cobra with pflag 1.0.10) reads it, spelled out so that clap can read it in no
//! other way: `--flag=value`, then `--`, then the arguments.
//!
//! The rules that differ from clap's: a flag takes the next word whatever it looks like (`--install-disk --force`); a switch
//! takes a value only behind `=`, long or short (`-f=false`); help is given once everything else was understood; a switch that
//! belongs to the group may stand before the verb. What is not understood is left for clap to tell.
//! Must not know: what flags mean.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::{Arg, Command};

/// What one flag's word came to.
enum Read {
    /// A flag in its long form, with the value if it has one.
    Flag(OsString),
    /// `--help`, or that it is not wanted after all.
    Help(bool),
    /// Not understood: the word for clap to complain about.
    Unknown,
}

/// The words after the verb, spelled out for `verb`.
pub(super) fn spelled_out(verb: &Command, words: &[OsString]) -> Vec<OsString> {
    let mut flags = Vec::new();
    let mut arguments = Vec::new();
    let mut help = false;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let bytes = word.as_bytes();
        if bytes == b"--" {
            arguments.extend(words.by_ref().cloned());
        } else if bytes.len() < 2 || bytes[0] != b'-' {
            arguments.push(word.clone());
        } else {
            let read = if bytes[1] == b'-' {
                long(verb, &bytes[2..], &mut words)
            } else {
                short(verb, &bytes[1..], &mut words)
            };
            for read in read {
                match read {
                    Read::Flag(flag) => flags.push(flag),
                    Read::Help(wanted) => help = wanted,
                    Read::Unknown => {
                        flags.push(word.clone());
                        return flags;
                    }
                }
            }
        }
    }
    if help {
        return vec![OsString::from("--help")];
    }
    flags.push(OsString::from("--"));
    flags.extend(arguments);
    flags
}

/// Whether the word is a switch of the group, which may stand before the verb.
pub(super) fn is_of_group(word: &OsStr) -> bool {
    let word = word.as_bytes();
    matches!(word, b"-f" | b"--force") || word.starts_with(b"-f=") || word.starts_with(b"--force=")
}

/// Whether a flag may stand without a value.
fn is_switch(flag: &Arg) -> bool {
    !flag.get_action().takes_values() || flag.get_num_args().is_some_and(|number| number.min_values() == 0)
}

fn written(name: &str, value: Option<&[u8]>) -> Read {
    if name == "help" {
        return match value {
            None | Some(b"1" | b"t" | b"T" | b"true" | b"True" | b"TRUE") => Read::Help(true),
            Some(b"0" | b"f" | b"F" | b"false" | b"False" | b"FALSE") => Read::Help(false),
            Some(_) => Read::Unknown,
        };
    }
    let mut flag = format!("--{name}").into_bytes();
    if let Some(value) = value {
        flag.push(b'=');
        flag.extend(value);
    }
    Read::Flag(OsString::from_vec(flag))
}

fn long<'a>(verb: &Command, word: &[u8], next: &mut impl Iterator<Item = &'a OsString>) -> Vec<Read> {
    let (name, value) = match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    let Ok(name) = std::str::from_utf8(name) else { return vec![Read::Unknown] };
    if name == "help" {
        return vec![written(name, value)];
    }
    let Some(flag) = verb.get_arguments().find(|flag| flag.get_long() == Some(name)) else {
        return vec![Read::Unknown];
    };
    match value {
        Some(value) => vec![written(name, Some(value))],
        None if is_switch(flag) => vec![written(name, None)],
        None => vec![next.next().map_or(Read::Unknown, |value| written(name, Some(value.as_bytes())))],
    }
}

/// One word of short flags: switches in a row, of which the last may be a flag with its value.
fn short<'a>(verb: &Command, word: &[u8], next: &mut impl Iterator<Item = &'a OsString>) -> Vec<Read> {
    let mut read = Vec::new();
    let mut rest = word;
    while let [letter, after @ ..] = rest {
        let flag = verb.get_arguments().find(|flag| flag.get_short() == Some(char::from(*letter)));
        let (name, switch) = match flag.and_then(|flag| Some((flag.get_long()?, is_switch(flag)))) {
            Some(known) => known,
            None if *letter == b'h' => ("help", true),
            None => return vec![Read::Unknown],
        };
        let value = match after {
            // An equals sign alone is not followed by a value.
            [b'=', value @ ..] if !value.is_empty() => Some(value),
            _ if switch => {
                read.push(written(name, None));
                rest = after;
                continue;
            }
            [] => next.next().map(|value| value.as_bytes()),
            value => Some(value),
        };
        read.push(value.map_or(Read::Unknown, |value| written(name, Some(value))));
        return read;
    }
    read
}

#[cfg(test)]
mod tests {
    use clap::ArgAction;

    use super::*;

    fn verb() -> Command {
        let switch = Arg::new("force").long("force").short('f').num_args(0..=1).require_equals(true);
        Command::new("verb")
            .arg(Arg::new("place").required(true))
            .arg(switch.action(ArgAction::Set).default_missing_value("true"))
            .arg(Arg::new("types").long("types").short('t').action(ArgAction::Append))
            .arg(Arg::new("disk").long("disk"))
    }

    fn spelled(words: &str) -> String {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let words = spelled_out(&verb(), &words);
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn flags_are_read_by_the_rules_of_pflag() {
        for (given, wanted) in [
            ("a --disk b c", "--disk=b -- a c"),
            ("a --disk --force", "--disk=--force -- a"),
            ("a --disk -- b", "--disk=-- -- a b"),
            ("a --disk=", "--disk= -- a"),
            ("a --disk==b", "--disk==b -- a"),
            ("-f a --force=0", "--force --force=0 -- a"),
            ("a --force true", "--force -- a true"),
            ("a -f=false", "--force=false -- a"),
            ("a -ff", "--force --force -- a"),
            ("a -ftb", "--force --types=b -- a"),
            ("a -ft=b", "--force --types=b -- a"),
            ("a -t b", "--types=b -- a"),
            ("a -t=", "--types== -- a"),
            ("a -tf", "--types=f -- a"),
            ("a -t -f", "--types=-f -- a"),
            ("a - -- -f", "-- a - -f"),
            ("a -- --disk -- b", "-- a --disk -- b"),
            ("a -h -f", "--help"),
            ("a -fh", "--help"),
            ("a --help=false", "-- a"),
        ] {
            assert_eq!(spelled(given), wanted, "{given}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_as_it_is_even_beside_help() {
        for (given, wanted) in [
            ("a --nope -f", "--nope"),
            ("-h --nope", "--nope"),
            ("--dis b", "--dis"),
            ("a -x", "-x"),
            ("a -fx", "-fx"),
            ("a -f=", "-f="),
            ("---x", "---x"),
            ("--=x", "--=x"),
            ("a --disk", "--disk"),
            ("a -t", "-t"),
            ("--help=x", "--help=x"),
        ] {
            assert_eq!(spelled(given), wanted, "{given}");
        }
    }
}
