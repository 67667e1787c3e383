//! `cat`, `tee`, `rm`, `mv`, `mkdir`, `mktemp`, `sha256sum`, `stat`, `blockdev`.

use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::Job;
use crate::ssh::pipe::{Input, Output, words};
use crate::ssh::shell::{self, Host, Opened};
use crate::world::node_files::NodeFile;

/// Options (single letters and long words) and the rest.
fn split(arguments: &[String]) -> (Vec<&str>, Vec<String>) {
    let mut options = Vec::new();
    let mut rest = Vec::new();
    let mut plain = false;
    for argument in arguments {
        if plain || argument == "-" || !argument.starts_with('-') {
            rest.push(argument.clone());
        } else if argument == "--" {
            plain = true;
        } else {
            options.push(argument.as_str());
        }
    }
    (options, rest)
}

fn has(options: &[&str], letter: char, long: &str) -> bool {
    options.iter().any(|option| *option == long || (!option.starts_with("--") && option[1..].contains(letter)))
}

fn inputs(job: &mut Job<'_>) -> Vec<String> {
    let (_, files) = split(job.arguments);
    if files.is_empty() { vec!["-".to_owned()] } else { files }
}

fn open(job: &Job<'_>, file: &str) -> Result<Input, &'static str> {
    if file == "-" { Ok(job.streams.input.clone()) } else { shell::read(job.host, file) }
}

pub(super) fn cat(job: &mut Job<'_>) -> u8 {
    let mut code = 0;
    for file in inputs(job) {
        let result = match open(job, &file) {
            Ok(mut input) => {
                let copied = pour(&mut input, &mut [&mut job.streams.output]);
                job.written(&copied)
            }
            Err(why) => job.fails(&format!("{file}: {why}")),
        };
        code = code.max(result);
    }
    code
}

fn pour(input: &mut Input, outputs: &mut [&mut Output]) -> io::Result<()> {
    let mut block = vec![0; 256 * 1024];
    loop {
        let read = input.read(&mut block)?;
        if read == 0 {
            return Ok(());
        }
        for output in &mut *outputs {
            output.write_all(&block[..read])?;
        }
    }
}

pub(super) fn tee(job: &mut Job<'_>) -> u8 {
    let (options, files) = split(job.arguments);
    let how = if has(&options, 'a', "--append") { Opened::Append } else { Opened::Emptied };
    let mut code = 0;
    let mut opened = Vec::new();
    for file in &files {
        match shell::write(job.host, file, how, &job.streams) {
            Ok(output) => opened.push(output),
            Err(why) => code = job.fails(&format!("{file}: {why}")),
        }
    }
    let mut input = job.streams.input.clone();
    let mut own = job.streams.output.clone();
    let mut outputs: Vec<&mut Output> = std::iter::once(&mut own).chain(&mut opened).collect();
    let copied = pour(&mut input, &mut outputs);
    for file in &files {
        job.host.world.notice_file(&job.host.node, file);
    }
    code.max(job.written(&copied))
}

/// Removes a file of the node; a volume goes with it.
pub(super) fn delete(host: &Host, file: &str) {
    if let Some(NodeFile::File { real, .. }) = host.world.node_file(&host.node, file) {
        // What is gone already is as good as what goes now.
        let _ = std::fs::remove_file(real);
        host.world.notice_file(&host.node, file);
    }
}

fn tree(real: &Path, shown: &str, found: &mut Vec<(PathBuf, String)>) {
    if let Ok(entries) = std::fs::read_dir(real)
        && !real.is_symlink()
    {
        for entry in entries.flatten() {
            tree(&entry.path(), &format!("{shown}/{}", entry.file_name().to_string_lossy()), found);
        }
    } else {
        found.push((real.to_owned(), shown.to_owned()));
    }
}

pub(super) fn remove(job: &mut Job<'_>) -> u8 {
    let (options, files) = split(job.arguments);
    let force = has(&options, 'f', "--force");
    let recursive = has(&options, 'r', "--recursive") || has(&options, 'R', "--recursive");
    let mut code = 0;
    for file in files {
        let real = match job.host.world.node_file(&job.host.node, &file) {
            Some(NodeFile::File { real, .. }) => real,
            Some(_) => {
                code = job.fails(&format!("cannot remove '{file}': Operation not permitted"));
                continue;
            }
            None if force => continue,
            None => {
                code = job.fails(&format!("cannot remove '{file}': No such file or directory"));
                continue;
            }
        };
        if real.is_dir() && !recursive {
            code = job.fails(&format!("cannot remove '{file}': Is a directory"));
            continue;
        }
        let mut found = Vec::new();
        tree(&real, &file, &mut found);
        let missing = !real.exists() && !real.is_symlink();
        for (real, shown) in found {
            job.host.world.tell_of_file(&job.host.node, &shown, "remove-file");
            if let Err(error) = std::fs::remove_file(&real)
                && !(force && missing)
            {
                code = job.fails(&format!("cannot remove '{shown}': {}", words(&error)));
            }
            job.host.world.notice_file(&job.host.node, &shown);
        }
        if recursive && real.is_dir() {
            // Only empty folders are left.
            let _ = std::fs::remove_dir_all(&real);
        }
    }
    code
}

pub(super) fn rename(job: &mut Job<'_>) -> u8 {
    let (options, files) = split(job.arguments);
    let [from, to] = files.as_slice() else { return job.fails("missing file operand") };
    let place = |file: &str| match job.host.world.node_file(&job.host.node, file) {
        Some(NodeFile::File { real, .. }) => Some(real),
        _ => None,
    };
    let (Some(real), Some(target)) = (place(from), place(to)) else {
        let text = format!("cannot move '{from}' to '{to}': Permission denied");
        return job.fails(&text);
    };
    let (target, shown) = match real.file_name() {
        Some(name) if target.is_dir() => (target.join(name), format!("{to}/{}", name.to_string_lossy())),
        _ => (target, to.clone()),
    };
    if has(&options, 'n', "--no-clobber") && target.exists() {
        return 0;
    }
    let moved = std::fs::rename(&real, &target);
    match moved {
        Ok(()) => {
            job.host.world.moved_file(&job.host.node, from, &shown);
            0
        }
        Err(error) => job.fails(&format!("cannot move '{from}' to '{to}': {}", words(&error))),
    }
}

pub(super) fn make_folder(job: &mut Job<'_>) -> u8 {
    let (options, files) = split(job.arguments);
    let parents = has(&options, 'p', "--parents");
    let mut code = 0;
    for file in files {
        let made = match job.host.world.node_file(&job.host.node, &file) {
            Some(NodeFile::File { real, .. }) if parents => std::fs::create_dir_all(real),
            Some(NodeFile::File { real, .. }) => std::fs::create_dir(real),
            Some(_) => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
            None => Err(io::Error::from(io::ErrorKind::PermissionDenied)),
        };
        if let Err(error) = made {
            code = job.fails(&format!("cannot create directory ‘{file}’: {}", words(&error)));
        }
    }
    code
}

pub(super) fn make_temporary(job: &mut Job<'_>) -> u8 {
    let mut folder = "/tmp".to_owned();
    let (mut is_folder, mut template) = (false, None);
    let mut arguments = job.arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-d" | "--directory" => is_folder = true,
            "-q" | "--quiet" | "-t" => {}
            "-p" => folder = arguments.next().cloned().unwrap_or_default(),
            long if long.starts_with("--tmpdir=") => long["--tmpdir=".len()..].clone_into(&mut folder),
            "--tmpdir" => {}
            other => template = Some(other.to_owned()),
        }
    }
    let template = template.unwrap_or_else(|| "tmp.XXXXXXXXXX".to_owned());
    let marks = template.chars().rev().take_while(|letter| *letter == 'X').count();
    if marks < 3 {
        return job.fails(&format!("too few X's in template ‘{template}’"));
    }
    let template = if template.starts_with('/') { template } else { format!("{folder}/{template}") };
    let chance = job.host.world.random_uuid().replace('-', "");
    let path = format!("{}{}", &template[..template.len() - marks], chance.repeat(4).get(..marks).unwrap_or_default());
    let made = match job.host.world.node_file(&job.host.node, &path) {
        Some(NodeFile::File { real, .. }) if is_folder => std::fs::create_dir(real),
        Some(NodeFile::File { real, .. }) => std::fs::File::create_new(real).map(|_| ()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    match made {
        Ok(()) => {
            let said = job.streams.say(&path);
            job.written(&said)
        }
        Err(error) => job.fails(&format!("failed to create file via template ‘{template}’: {}", words(&error))),
    }
}

fn hashed(input: &mut Input) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut block = vec![0; 256 * 1024];
    loop {
        let read = input.read(&mut block)?;
        if read == 0 {
            return Ok(hex::encode(hasher.finalize()));
        }
        hasher.update(&block[..read]);
    }
}

pub(super) fn digest(job: &mut Job<'_>) -> u8 {
    let mut code = 0;
    for file in inputs(job) {
        let result = match open(job, &file) {
            Ok(mut input) => match hashed(&mut input) {
                Ok(hash) => {
                    let said = job.streams.say(&format!("{hash}  {file}"));
                    job.written(&said)
                }
                Err(error) => job.fails(&format!("{file}: {}", words(&error))),
            },
            Err(why) => job.fails(&format!("{file}: {why}")),
        };
        code = code.max(result);
    }
    code
}

pub(super) fn stat(job: &mut Job<'_>) -> u8 {
    let mut format = None;
    let mut files = Vec::new();
    let mut arguments = job.arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "-c" => format = arguments.next().cloned(),
            "-L" => {}
            long if long.starts_with("--format=") => format = Some(long["--format=".len()..].to_owned()),
            short if short.starts_with("-c") => format = Some(short[2..].to_owned()),
            "--format" => format = arguments.next().cloned(),
            other => files.push(other.to_owned()),
        }
    }
    let Some(format) = format else { return job.fails("only formats (-c) are played here") };
    let mut code = 0;
    for file in files {
        match facts(job, &file) {
            Ok(facts) => {
                let said = job.streams.say(&filled(&format, &file, &facts));
                code = code.max(job.written(&said));
            }
            Err(why) => code = job.fails(&format!("cannot statx '{file}': {why}")),
        }
    }
    code
}

struct Facts {
    size: u64,
    blocks: u64,
    kind: &'static str,
    modified: i64,
}

fn facts(job: &Job<'_>, file: &str) -> Result<Facts, &'static str> {
    use std::os::unix::fs::MetadataExt as _;
    match job.host.world.node_file(&job.host.node, file) {
        None => Err("No such file or directory"),
        // A device has no size of its own: ask `blockdev`.
        Some(NodeFile::Device { real, .. }) => {
            let modified = std::fs::metadata(real).map_or(0, |meta| meta.mtime());
            Ok(Facts { size: 0, blocks: 0, kind: "block special file", modified })
        }
        Some(NodeFile::File { real, .. }) => {
            let meta = std::fs::metadata(real).map_err(|error| words(&error))?;
            let kind = match (meta.is_dir(), meta.len()) {
                (true, _) => "directory",
                (false, 0) => "regular empty file",
                (false, _) => "regular file",
            };
            Ok(Facts { size: meta.len(), blocks: meta.blocks(), kind, modified: meta.mtime() })
        }
        Some(NodeFile::Text(text)) => {
            Ok(Facts { size: text.len() as u64, blocks: 8, kind: "regular file", modified: 0 })
        }
        Some(_) => Ok(Facts { size: 0, blocks: 0, kind: "character special file", modified: 0 }),
    }
}

fn filled(format: &str, file: &str, facts: &Facts) -> String {
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('s') => text.push_str(&facts.size.to_string()),
            Some('b') => text.push_str(&facts.blocks.to_string()),
            Some('B') => text.push_str("512"),
            Some('n') => text.push_str(file),
            Some('F') => text.push_str(facts.kind),
            Some('Y') => text.push_str(&facts.modified.to_string()),
            Some('U' | 'G') => text.push_str("root"),
            Some('u' | 'g') => text.push('0'),
            Some('a') => text.push_str(if facts.kind == "directory" { "755" } else { "644" }),
            Some('%') => text.push('%'),
            _ => text.push('?'),
        }
    }
    text
}

pub(super) fn block_device(job: &mut Job<'_>) -> u8 {
    let (options, files) = split(job.arguments);
    let [file] = files.as_slice() else { return job.fails("bad usage") };
    let size = match job.host.world.node_file(&job.host.node, file) {
        Some(NodeFile::Device { size, .. }) => size,
        None => return job.fails(&format!("cannot open {file}: No such file or directory")),
        Some(_) => return job.fails(&format!("ioctl error on {}: Inappropriate ioctl for device", options.join(" "))),
    };
    let number = match options.as_slice() {
        ["--getsize64"] => size,
        ["--getsz" | "--getsize"] => size / 512,
        ["--getss" | "--getpbsz" | "--getbsz"] => 512,
        ["--flushbufs"] => return 0,
        _ => return job.fails(&format!("unknown command: {}", options.join(" "))),
    };
    let said = job.streams.say(&number.to_string());
    job.written(&said)
}
