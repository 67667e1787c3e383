//! `xz`, `unxz`, `xzcat`.

use std::io::{self, BufReader};

use xz2::read::XzDecoder;

use super::Job;
use crate::ssh::pipe::{Input, words};
use crate::ssh::shell::{self, Opened};

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let mut decode = job.name != "xz";
    let (mut to_output, mut keep) = (job.name == "xzcat", false);
    let mut files: Vec<&str> = Vec::new();
    for argument in job.arguments {
        match argument.as_str() {
            "--decompress" | "--uncompress" => decode = true,
            "--stdout" | "--to-stdout" => to_output = true,
            "--keep" => keep = true,
            "--quiet" | "--verbose" | "--force" => {}
            long if long.starts_with("--threads=") || long.starts_with("--memlimit") => {}
            short if short.len() > 1 && short.starts_with('-') && !short.starts_with("--") => {
                for letter in short[1..].chars().take_while(|letter| *letter != 'T') {
                    match letter {
                        'd' => decode = true,
                        'c' => to_output = true,
                        'k' => keep = true,
                        'q' | 'v' | 'f' => {}
                        other => {
                            job.streams.complain(&format!("xz: invalid option -- '{other}'"));
                            return 1;
                        }
                    }
                }
            }
            file => files.push(file),
        }
    }
    if !decode {
        return job.fails("only decompressing is played here");
    }
    if files.is_empty() {
        files.push("-");
    }
    let files: Vec<String> = files.into_iter().map(str::to_owned).collect();
    files.iter().map(|file| one(job, file, to_output, keep)).max().unwrap_or(0)
}

fn one(job: &mut Job<'_>, file: &str, to_output: bool, keep: bool) -> u8 {
    if file == "-" {
        let input = job.streams.input.clone();
        return decode(job, "(stdin)", input);
    }
    let input = match shell::read(job.host, file) {
        Ok(input) => input,
        Err(why) => return job.fails(&format!("{file}: {why}")),
    };
    if to_output {
        return decode(job, file, input);
    }
    let Some(target) = file.strip_suffix(".xz") else {
        return job.fails(&format!("{file}: Filename has an unknown suffix, skipping"));
    };
    match shell::write(job.host, target, Opened::Emptied, &job.streams) {
        Ok(output) => {
            let before = std::mem::replace(&mut job.streams.output, output);
            let code = decode(job, file, input);
            job.streams.output = before;
            job.host.world.notice_file(&job.host.node, target);
            if code == 0 && !keep {
                super::files::delete(job.host, file);
            }
            code
        }
        Err(why) => job.fails(&format!("{target}: {why}")),
    }
}

fn decode(job: &mut Job<'_>, called: &str, input: Input) -> u8 {
    let mut decoder = XzDecoder::new_multi_decoder(BufReader::with_capacity(1 << 18, input));
    let mut output = io::BufWriter::with_capacity(1 << 20, job.streams.output.clone());
    let copied = io::copy(&mut decoder, &mut output).and_then(|_| io::Write::flush(&mut output));
    match copied {
        Ok(()) => 0,
        Err(error) => match error.kind() {
            io::ErrorKind::BrokenPipe => 141,
            io::ErrorKind::UnexpectedEof => job.fails(&format!("{called}: Unexpected end of input")),
            io::ErrorKind::StorageFull => job.fails(&format!("{called}: Write error: {}", words(&error))),
            _ => {
                let text = error.to_string();
                let why =
                    if text.contains("format") { "File format not recognized" } else { "Compressed data is corrupt" };
                job.fails(&format!("{called}: {why}"))
            }
        },
    }
}
