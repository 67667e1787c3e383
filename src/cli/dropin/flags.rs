//! A command line as talosctl's flag parser (cobra with pflag 1.0.10) reads it, spelled out so that clap can read it in no
//! other way: `--flag=value`, then `--`, then the arguments.
//!
//! The rules that differ from clap's: a flag takes the next word whatever it looks like (`--install-disk --force`); a switch
//! takes a value only behind `=`, long or short (`-f=false`); help is given once everything else was understood; flags may
//! stand before the verb. What is not understood is left for clap to tell.
//! Must not know: what flags mean.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use clap::{Arg, Command};

use super::switch;

/// What one flag came to.
enum Read<'a> {
    /// A flag in its long form, with the value if it has one.
    Flag(OsString),
    /// A switch for which clap takes no value, or `help`.
    Switch(&'a str, bool),
    /// Not understood: what of the word is left for clap to complain about.
    Unknown(OsString),
}

/// The words after the verb, spelled out for `verb`.
pub(super) fn spelled_out(verb: &Command, words: &[OsString]) -> Vec<OsString> {
    let mut flags = Vec::new();
    let mut switches: BTreeMap<&str, bool> = BTreeMap::new();
    let mut arguments = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let read = match word.as_bytes() {
            b"--" => {
                arguments.extend(words.by_ref().cloned());
                continue;
            }
            [b'-', b'-', name @ ..] => vec![long(verb, name, &mut words)],
            [b'-', letters @ ..] if !letters.is_empty() => short(verb, letters, &mut words),
            _ => {
                arguments.push(word.clone());
                continue;
            }
        };
        for read in read {
            match read {
                Read::Flag(flag) => flags.push(flag),
                Read::Switch(name, on) => {
                    switches.insert(name, on);
                }
                Read::Unknown(rest) => {
                    flags.push(rest);
                    return flags;
                }
            }
        }
    }
    let on = |name: &str| OsString::from(format!("--{name}"));
    if switches.remove("help") == Some(true) {
        return vec![on("help")];
    }
    flags.extend(switches.into_iter().filter(|(_, is_on)| *is_on).map(|(name, _)| on(name)));
    flags.push(OsString::from("--"));
    flags.extend(arguments);
    flags
}

/// How many of the words after a group stand before its verb: flags, which talosctl takes there as well. One that is no
/// switch of the group has the next word for its value, whatever it means to the verb. None when help is asked for, or when
/// there is no verb.
pub(super) fn before_verb(words: &[OsString]) -> Option<usize> {
    let mut at = 0;
    loop {
        match words.get(at)?.as_bytes() {
            b"--" | b"-h" | b"--help" => return None,
            b"-f" | b"--force" => at += 1,
            flag @ ([b'-', b'-', ..] | [b'-', _]) if !flag.contains(&b'=') => at += 2,
            [] | [b'-', ..] => at += 1,
            _ => return Some(at),
        }
    }
}

/// How a flag takes its value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Behind `=`, or as the next word.
    Any,
    /// Behind `=`, or none.
    Joined,
    /// As the one before, for a flag that clap gives no value.
    Hidden,
}

fn known(verb: &Command, is: impl Fn(&Arg) -> bool) -> Option<(&str, Takes)> {
    let flag = verb.get_arguments().find(|flag| is(flag))?;
    let optional = flag.get_num_args().is_some_and(|number| number.min_values() == 0);
    let takes = if !flag.get_action().takes_values() {
        Takes::Hidden
    } else if optional {
        Takes::Joined
    } else {
        Takes::Any
    };
    Some((flag.get_long()?, takes))
}

/// A flag with its value, or nothing where that can't be read.
fn written<'a>((name, takes): (&'a str, Takes), value: Option<&[u8]>) -> Option<Read<'a>> {
    if takes == Takes::Hidden {
        let text = value.map_or(Some("true"), |value| std::str::from_utf8(value).ok());
        return text.and_then(|text| switch(text).ok()).map(|on| Read::Switch(name, on));
    }
    let mut flag = format!("--{name}").into_bytes();
    if let Some(value) = value {
        flag.push(b'=');
        flag.extend(value);
    }
    Some(Read::Flag(OsString::from_vec(flag)))
}

fn long<'a, 'b>(verb: &'a Command, word: &[u8], next: &mut impl Iterator<Item = &'b OsString>) -> Read<'a> {
    let (name, value) = match word.iter().position(|byte| *byte == b'=') {
        Some(at) => (&word[..at], Some(&word[at + 1..])),
        None => (word, None),
    };
    let help = (name == b"help").then_some(("help", Takes::Hidden));
    let of_name = |flag: &Arg| flag.get_long().is_some_and(|long| long.as_bytes() == name);
    let read = help.or_else(|| known(verb, of_name)).and_then(|flag| match (value, flag.1) {
        (None, Takes::Any) => written(flag, Some(next.next()?.as_bytes())),
        (value, _) => written(flag, value),
    });
    read.unwrap_or_else(|| Read::Unknown(OsString::from_vec([b"--", word].concat())))
}

/// One word of short flags: switches in a row, of which the last may be a flag with its value.
fn short<'a, 'b>(verb: &'a Command, word: &[u8], next: &mut impl Iterator<Item = &'b OsString>) -> Vec<Read<'a>> {
    let mut read = Vec::new();
    let mut rest = word;
    // What was understood before it may be help, which clap would give.
    let unknown = |rest: &[u8]| vec![Read::Unknown(OsString::from_vec([b"-", rest].concat()))];
    while let [letter, after @ ..] = rest {
        let help = (*letter == b'h').then_some(("help", Takes::Hidden));
        let of_letter = |flag: &Arg| flag.get_short() == Some(char::from(*letter));
        let Some(flag) = known(verb, of_letter).or(help) else { return unknown(rest) };
        let value = match after {
            // An equals sign alone is not followed by a value.
            [b'=', value @ ..] if !value.is_empty() => Some(value),
            _ if flag.1 != Takes::Any => {
                read.extend(written(flag, None));
                rest = after;
                continue;
            }
            [] => next.next().map(|value| value.as_bytes()),
            value => Some(value),
        };
        return match value.and_then(|value| written(flag, Some(value))) {
            Some(last) => {
                read.push(last);
                read
            }
            None => unknown(rest),
        };
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
            .arg(Arg::new("strict").long("strict").short('s').action(ArgAction::SetTrue))
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
            ("a -hx", "-x"),
            ("a -h -s=x", "-s=x"),
            ("a -hd", "-d"),
            ("a --help=false", "-- a"),
            ("a --strict=0 -s", "--strict -- a"),
            ("a -fs -s=F", "--force -- a"),
        ] {
            assert_eq!(spelled(given), wanted, "{given}");
        }
    }

    #[test]
    fn flags_may_stand_before_the_verb() {
        for (words, wanted) in [
            ("generate -f", Some(0)),
            ("-f generate", Some(1)),
            ("--force=0 generate", Some(1)),
            ("-o out generate", Some(2)),
            ("-oout generate", Some(1)),
            ("--output out -t worker generate", Some(4)),
            ("--output=out generate", Some(1)),
            ("-o generate", None),
            ("-o generate generate", Some(2)),
            ("- generate", Some(1)),
            ("-h generate", None),
            ("-- generate", None),
        ] {
            let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
            assert_eq!(before_verb(&words), wanted, "{words:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_as_it_is_even_beside_help() {
        for (given, wanted) in [
            ("a --nope -f", "--nope"),
            ("-h --nope", "--nope"),
            ("--dis b", "--dis"),
            ("a -x", "-x"),
            ("a -fx", "-x"),
            ("a -f=", "-="),
            ("---x", "---x"),
            ("--=x", "--=x"),
            ("a --disk", "--disk"),
            ("a -t", "-t"),
            ("--help=x", "--help=x"),
            ("--strict=x", "--strict=x"),
        ] {
            assert_eq!(spelled(given), wanted, "{given}");
        }
    }
}
