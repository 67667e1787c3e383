//! What can be run in the minimal guest.
//!
//! Purpose: a handful of commands and files in memory, for clients that ask a guest agent to run something. Must not know:
//! requests. Start at [`World::guest_exec`].

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::{World, held};

/// The inside of one guest, from its boot to its end.
#[derive(Debug, Default)]
pub struct Shell {
    files: BTreeMap<String, String>,
    last_pid: u32,
    processes: BTreeMap<u32, Process>,
}

/// A command that was run.
#[derive(Clone, Debug)]
pub struct Process {
    ends: Instant,
    /// What it exits with.
    pub code: i32,
    /// What it says.
    pub out: String,
    /// What it complains of.
    pub err: String,
}

impl Process {
    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }
}

/// What a command does.
#[derive(Debug, Default, PartialEq, Eq)]
struct Deed {
    seconds: u64,
    code: i32,
    out: String,
    err: String,
}

const COMMANDS: &[&str] = &["busybox", "cat", "echo", "false", "hostname", "sh", "sleep", "true", "uname"];

impl Shell {
    /// The file behind a word: `None` where there is none to run.
    fn command(word: &str) -> Option<&str> {
        let name = word.strip_prefix("/usr/bin/").or(word.strip_prefix("/bin/")).unwrap_or(word);
        COMMANDS.contains(&name).then_some(name)
    }

    fn run(&self, words: &[String], input: &str) -> Option<Deed> {
        let (first, rest) = words.split_first()?;
        let words: Vec<&str> = rest.iter().map(String::as_str).collect();
        let said = |out: String| Some(Deed { out, ..Deed::default() });
        match Self::command(first)? {
            "busybox" if rest.is_empty() => said("BusyBox\n".to_owned()),
            "busybox" => self.run(rest, input).or_else(|| {
                let err = format!("{}: applet not found\n", rest[0]);
                Some(Deed { code: 127, err, ..Deed::default() })
            }),
            "true" => said(String::new()),
            "false" => Some(Deed { code: 1, ..Deed::default() }),
            "echo" => said(words.join(" ") + "\n"),
            "hostname" => said("guest\n".to_owned()),
            "uname" => said("Linux\n".to_owned()),
            "sleep" => {
                let seconds = words.first().and_then(|text| text.parse().ok()).unwrap_or(0);
                Some(Deed { seconds, ..Deed::default() })
            }
            "cat" if words.is_empty() => said(input.to_owned()),
            "cat" => {
                let mut deed = Deed::default();
                for name in words {
                    if let Some(text) = self.files.get(name) {
                        deed.out.push_str(text);
                    } else {
                        deed.code = 1;
                        deed.err = format!("cat: can't open '{name}': No such file or directory\n");
                    }
                }
                Some(deed)
            }
            _ => Some(self.script(words.iter().skip_while(|word| **word != "-c").nth(1).copied().unwrap_or(input))),
        }
    }

    /// Simple commands one after the other; `>&2`, `exit`.
    fn script(&self, text: &str) -> Deed {
        let mut all = Deed::default();
        for line in text.split(['\n', ';']).map(str::trim).filter(|line| !line.is_empty()) {
            let complains = line.contains(">&2");
            let words: Vec<String> = line
                .split_whitespace()
                .filter(|word| *word != ">&2" && *word != "1>&2")
                .map(|word| word.trim_matches(['"', '\'']).to_owned())
                .collect();
            if words.first().is_some_and(|word| word == "exit") {
                all.code = words.get(1).and_then(|code| code.parse().ok()).unwrap_or(all.code);
                break;
            }
            let deed = self.run(&words, "").unwrap_or_else(|| Deed {
                code: 127,
                err: format!("sh: {}: not found\n", words.first().map_or("", String::as_str)),
                ..Deed::default()
            });
            all.seconds += deed.seconds;
            all.code = deed.code;
            if complains {
                all.err.push_str(&deed.out);
            } else {
                all.out.push_str(&deed.out);
            }
            all.err.push_str(&deed.err);
        }
        all
    }
}

impl World {
    /// The minimal guest is up.
    pub(super) fn open_shell(&self, vmid: u32) {
        let mut shell = Shell { last_pid: 110, ..Shell::default() };
        shell.files.insert("/etc/hostname".to_owned(), "guest\n".to_owned());
        let release = "PRETTY_NAME=\"Testguest 1\"\nNAME=\"Testguest\"\nVERSION_ID=\"1\"\nID=testguest\n";
        shell.files.insert("/etc/os-release".to_owned(), release.to_owned());
        held(&self.0.shells).insert(vmid, shell);
    }

    /// Whether a guest has anything to run.
    pub fn has_shell(&self, vmid: u32) -> bool {
        held(&self.0.shells).contains_key(&vmid)
    }

    /// Runs a command in a guest and says its process id; `None`: there is no such command.
    pub fn guest_exec(&self, vmid: u32, words: &[String], input: &str) -> Option<u32> {
        let mut shells = held(&self.0.shells);
        let shell = shells.get_mut(&vmid)?;
        let deed = shell.run(words, input)?;
        shell.last_pid += 2;
        let ends = Instant::now() + self.clock().scaled(0.1) + Duration::from_secs(deed.seconds);
        let process = Process { ends, code: deed.code, out: deed.out, err: deed.err };
        shell.processes.insert(shell.last_pid, process);
        Some(shell.last_pid)
    }

    /// A command that was run. Who has seen its end sees it no more.
    pub fn guest_process(&self, vmid: u32, pid: u32) -> Option<Process> {
        let mut shells = held(&self.0.shells);
        let shell = shells.get_mut(&vmid)?;
        let process = shell.processes.get(&pid)?.clone();
        if process.is_over() {
            shell.processes.remove(&pid);
        }
        Some(process)
    }

    /// A file of a guest.
    pub fn guest_file(&self, vmid: u32, path: &str) -> Option<String> {
        held(&self.0.shells).get(&vmid)?.files.get(path).cloned()
    }

    /// Writes a file of a guest.
    pub fn write_guest_file(&self, vmid: u32, path: &str, text: &str) {
        if let Some(shell) = held(&self.0.shells).get_mut(&vmid) {
            shell.files.insert(path.to_owned(), text.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str], input: &str) -> Option<Deed> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        Shell::default().run(&words, input)
    }

    #[test]
    fn a_few_commands_do_what_they_say() {
        assert_eq!(run(&["/bin/busybox", "echo", "a", "b"], "").unwrap().out, "a b\n");
        let failing = run(&["sh", "-c", "echo err >&2; exit 3"], "").unwrap();
        assert_eq!((failing.code, failing.err.as_str(), failing.out.as_str()), (3, "err\n", ""));
        assert_eq!(run(&["/bin/cat"], "some input").unwrap().out, "some input");
        assert_eq!(run(&["sleep", "30"], "").unwrap().seconds, 30);
        assert!(run(&["/no/such"], "").is_none());
        assert_eq!(run(&["busybox", "nonsense"], "").unwrap().code, 127);
    }
}
