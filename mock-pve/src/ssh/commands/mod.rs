//! The commands that are installed.
//!
//! Purpose: name → what it does. Must not know: pipes between commands. Start at [`run`].

mod arguments;
mod dd;
mod ends;
mod files;
mod kill;
mod perl;
mod pvesh;
mod pvesm;
mod qm;
mod remote;
mod shown;
mod sleep;
mod test;
mod text;
mod vzdump;
mod xz;

use std::io::{self, Write as _};

use super::pipe::words;
use super::shell::{Host, Streams};

/// One run of a command.
pub(super) struct Job<'a> {
    /// Where.
    pub(super) host: &'a Host,
    /// What it was called.
    pub(super) name: &'a str,
    /// Its arguments.
    pub(super) arguments: &'a [String],
    /// Its descriptors.
    pub(super) streams: Streams,
}

impl Job<'_> {
    /// `NAME: text`, and the exit code of a command that failed.
    fn fails(&mut self, text: &str) -> u8 {
        let line = format!("{}: {text}", self.name);
        self.streams.complain(&line);
        1
    }

    /// Prints a text as it is.
    fn print(&mut self, text: &str) -> u8 {
        let done = self.streams.output.write_all(text.as_bytes());
        self.written(&done)
    }

    /// The exit code of a command whose output nobody wants any more, or that couldn't write.
    fn written(&mut self, result: &io::Result<()>) -> u8 {
        match result {
            Ok(()) => 0,
            // As after SIGPIPE.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 141,
            Err(error) if error.kind() == io::ErrorKind::OutOfMemory => self.fails("memory exhausted"),
            Err(error) => self.fails(&format!("write error: {}", words(error))),
        }
    }
}

/// Runs a command; `None`: it isn't installed.
pub(super) fn run(host: &Host, name: &str, arguments: &[String], streams: &Streams) -> Option<u8> {
    let mut job = Job { host, name, arguments, streams: streams.clone() };
    let bare = ["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"].iter().find_map(|folder| name.strip_prefix(folder));
    job.name = bare.unwrap_or(name);
    let code = match job.name {
        "qm" => qm::run(&mut job),
        "pvesm" => pvesm::run(&mut job),
        "pvesh" => pvesh::run(&mut job),
        "vzdump" => vzdump::back_up(&mut job),
        "qmrestore" => vzdump::restore(&mut job),
        "pveversion" => {
            let line = format!("{} (running kernel: 6.8.12-1-pve)", host.api.manager_version());
            let said = job.streams.say(&line);
            job.written(&said)
        }
        "hostname" => {
            let said = job.streams.say(&host.node);
            job.written(&said)
        }
        "echo" => echo(&mut job),
        "true" | ":" | "sync" => 0,
        "false" => 1,
        "sleep" => sleep::run(&mut job),
        "kill" => kill::run(&mut job),
        "test" | "[" => test::run(&mut job),
        "dd" => dd::run(&mut job),
        "xz" | "unxz" | "xzcat" => xz::run(&mut job),
        "perl" => perl::run(&mut job),
        "cat" => files::cat(&mut job),
        "grep" | "egrep" => text::search(&mut job),
        "cut" => text::cut(&mut job),
        "wc" => text::count(&mut job),
        "head" | "tail" => ends::run(&mut job),
        "id" => text::identity(&mut job),
        "tee" => files::tee(&mut job),
        "rm" => files::remove(&mut job),
        "mv" => files::rename(&mut job),
        "mkdir" => files::make_folder(&mut job),
        "mktemp" => files::make_temporary(&mut job),
        "sha256sum" => files::digest(&mut job),
        "stat" => files::stat(&mut job),
        "blockdev" => files::block_device(&mut job),
        _ => return None,
    };
    Some(code)
}

fn echo(job: &mut Job<'_>) -> u8 {
    let (end, rest) = match job.arguments.split_first() {
        Some((first, rest)) if first == "-n" => ("", rest),
        _ => ("\n", job.arguments),
    };
    let text = format!("{}{end}", rest.join(" "));
    let said = job.streams.output.write_all(text.as_bytes());
    job.written(&said)
}
