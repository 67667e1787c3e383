//! `perl`: the host's own, on the node's files.
//!
//! Paths in the script and among the arguments are replaced by the real ones; a script that names any other is refused.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::process::{Command, Stdio};

use regex::Regex;

use super::Job;
use crate::ssh::pipe::Input;
use crate::world::node_files::NodeFile;

/// Paths that mean the same everywhere.
const EVERYWHERE: [&str; 5] = ["/dev/null", "/dev/stdin", "/dev/stdout", "/dev/stderr", "/usr/bin/"];
/// How the paths begin that a script is searched for.
const PATHS: &str = r"/(?:dev|var|tmp|root|mnt|srv|etc|proc|sys|home|usr|run|opt|boot|bin|lib)/[A-Za-z0-9_./@:+=-]+";

/// Exit code after `die` for want of permission: the C library's number.
const DENIED: u8 = 13;

pub(super) fn run(job: &mut Job<'_>) -> u8 {
    let mut mapped = Mapped::default();
    let mut arguments = Vec::new();
    let mut script_follows = false;
    for argument in job.arguments {
        let made = if script_follows {
            script_follows = false;
            mapped.script(job, argument)
        } else if argument.starts_with('-') {
            script_follows = argument.ends_with('e') || argument.ends_with('E');
            Ok(argument.clone())
        } else if argument.starts_with('/') {
            mapped.path(job, argument)
        } else {
            Ok(argument.clone())
        };
        match made {
            Ok(made) => arguments.push(made),
            Err(path) => {
                job.streams.complain(&format!("Can't open '{path}': Permission denied at -e line 1."));
                return DENIED;
            }
        }
    }
    let began = std::time::SystemTime::now();
    let code = match spawn(job, &arguments, &mapped) {
        Ok(code) => code,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            job.streams.complain("bash: line 1: perl: command not found");
            127
        }
        Err(error) => job.fails(&error.to_string()),
    };
    for (shown, device) in mapped.used {
        match device {
            // A device doesn't grow.
            Some((real, size)) => {
                if std::fs::metadata(&real).and_then(|meta| meta.modified()).is_ok_and(|written| written >= began) {
                    job.host.world.tell_of_file(&job.host.node, &shown, "overwrite");
                }
                if let Ok(file) = std::fs::OpenOptions::new().write(true).open(real)
                    && file.metadata().is_ok_and(|meta| meta.len() != size)
                {
                    // A volume that is gone meanwhile has no size to keep.
                    let _ = file.set_len(size);
                }
            }
            None => job.host.world.notice_file(&job.host.node, &shown),
        }
    }
    code
}

/// Paths that were replaced.
#[derive(Default)]
struct Mapped {
    /// By the path shown, with place and size of devices.
    used: BTreeMap<String, Option<(std::path::PathBuf, u64)>>,
    /// Real path → shown path.
    back: BTreeMap<String, String>,
}

impl Mapped {
    fn path(&mut self, job: &Job<'_>, shown: &str) -> Result<String, String> {
        if EVERYWHERE.iter().any(|path| shown.starts_with(path)) {
            return Ok(shown.to_owned());
        }
        let (real, device) = match job.host.world.node_file(&job.host.node, shown) {
            Some(NodeFile::Device { real, size }) => (real.clone(), Some((real, size))),
            Some(NodeFile::File { real, .. }) => (real, None),
            _ => return Err(shown.to_owned()),
        };
        let real = std::path::absolute(&real).unwrap_or(real).display().to_string();
        self.used.insert(shown.to_owned(), device);
        self.back.insert(real.clone(), shown.to_owned());
        Ok(real)
    }

    fn script(&mut self, job: &Job<'_>, script: &str) -> Result<String, String> {
        let Ok(paths) = Regex::new(PATHS) else { return Ok(script.to_owned()) };
        let mut made = String::new();
        let mut end = 0;
        for found in paths.find_iter(script) {
            // Only what begins a word is a path; a division is none.
            let before = script[..found.start()].chars().next_back();
            if before.is_some_and(|letter| letter.is_ascii_alphanumeric() || letter == '/' || letter == '}') {
                continue;
            }
            made.push_str(&script[end..found.start()]);
            let path = found.as_str().trim_end_matches(['.', ',', ':', ';']);
            // What the kernel tells of mounts and processes is nobody's file.
            let kernel = path.starts_with("/proc/") || path.starts_with("/sys/");
            made.push_str(&if kernel { path.to_owned() } else { self.path(job, path)? });
            made.push_str(&found.as_str()[path.len()..]);
            end = found.end();
        }
        made.push_str(&script[end..]);
        Ok(made)
    }
}

fn spawn(job: &mut Job<'_>, arguments: &[String], mapped: &Mapped) -> io::Result<u8> {
    let scratch = job.host.world.dir().join("nodes").join(&job.host.node).join(".root").join("root");
    std::fs::create_dir_all(&scratch)?;
    let nothing_comes = matches!(job.streams.input, Input::Empty);
    let mut child = Command::new("perl")
        .args(arguments)
        .current_dir(scratch)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("LC_ALL", "C")
        .stdin(if nothing_comes { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut into) = child.stdin.take() {
        let mut input = job.streams.input.clone();
        // Ends with its input or with the child, whichever is first; a child that reads no more is no error.
        std::thread::spawn(move || {
            let mut block = vec![0; 256 * 1024];
            while let Ok(read) = input.read(&mut block) {
                if read == 0 || into.write_all(&block[..read]).is_err() {
                    return;
                }
            }
        });
    }
    let complaints = child.stderr.take().map(|mut from| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What can't be read is not repeated.
            let _ = from.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        })
    });
    if let Some(mut from) = child.stdout.take() {
        let mut output = job.streams.output.clone();
        let mut block = vec![0; 64 * 1024];
        loop {
            let read = from.read(&mut block)?;
            if read == 0 || output.write_all(&block[..read]).is_err() {
                break;
            }
        }
    }
    let status = child.wait()?;
    let mut text = complaints.and_then(|thread| thread.join().ok()).unwrap_or_default();
    for (real, shown) in &mapped.back {
        text = text.replace(real, shown);
    }
    if !text.is_empty() {
        // Nobody may be there to hear it.
        let _ = job.streams.error.write_all(text.as_bytes());
    }
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255))
}
