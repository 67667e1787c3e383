//! Running a program: start, feed, listen, and end it for sure.

use std::future::Future;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command as Process};

use super::{Command, CommandError, Commands, Program};

/// How much of what a program says is kept for people.
const TAIL: usize = 2000;

/// The most that a program may hand over: a secrets file is a few KiB.
const MOST: usize = 4 << 20;

/// How long a program that has ended is listened to.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How a program ended well.
#[derive(Debug)]
pub enum Done {
    /// It ran.
    Ran {
        /// What it wrote to stdout; may be secret.
        stdout: SecretString,
        /// The end of what it wrote to stderr.
        stderr: String,
    },
    /// It was only written down.
    Recorded,
}

impl Done {
    /// What it wrote to stdout; empty for one that was only written down.
    pub fn stdout(&self) -> &str {
        match self {
            Self::Ran { stdout, .. } => stdout.expose_secret(),
            Self::Recorded => "",
        }
    }
}

impl Commands {
    /// Whether programs are only written down.
    pub fn are_recorded(&self) -> bool {
        matches!(self, Self::Recorded(_))
    }

    /// Runs the command to its end, or until `stop` is ready; success only with status 0.
    ///
    /// The future may be dropped: the program is killed then, with all that it started.
    pub async fn run(&self, command: &Command, stop: impl Future<Output = ()>) -> Result<Done, CommandError> {
        let what = || command.what.clone();
        if let Self::Recorded(recorder) = self {
            recorder.record(command).map_err(|source| CommandError::Record { what: what(), source })?;
            tracing::info!(what = command.what, "a command was recorded, not run");
            return Ok(Done::Recorded);
        }
        let (mut process, name) = process(command);
        let child = process.spawn().map_err(|source| CommandError::Start { what: what(), program: name, source })?;
        let mut group = Group { child: Some(child) };
        let Some(child) = group.child.as_mut() else { return Err(CommandError::Cancelled { what: what() }) };
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let feed = async {
            if let (Some(mut stdin), Some(text)) = (stdin, &command.stdin) {
                // A program that doesn't read all of it may close it: its status says how it fared.
                let _closed_early = stdin.write_all(text.expose_secret().as_bytes()).await;
            }
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let talk = async {
            let (read_out, read_err) = (read(stdout, &mut out, Keep::Beginning), read(stderr, &mut err, Keep::End));
            let ((), heard, complained) = tokio::join!(feed, read_out, read_err);
            heard.and(complained)
        };
        let ended = tokio::select! {
            status = to_the_end(child, talk) => Some(status),
            () = tokio::time::sleep(command.within) => None,
            () = stop => return Err(CommandError::Cancelled { what: what() }),
        };
        let Some(status) = ended else {
            return Err(CommandError::TooLong { what: what(), within: command.within, tail: tail(&out, &err) });
        };
        let status = status.map_err(|source| CommandError::Pipe { what: what(), source })?;
        group.child = None;
        if !status.success() {
            let tail = tail(&out, &err);
            return Err(CommandError::Failed { what: what(), status: status.to_string(), tail, code: status.code() });
        }
        let stderr = String::from_utf8_lossy(&err).trim().to_owned();
        Ok(Done::Ran { stdout: String::from_utf8_lossy(&out).into_owned().into(), stderr })
    }
}

/// Waits until the program has ended and has been heard to the end. What it left behind may hold its output open for
/// long: it is not waited for.
async fn to_the_end(
    child: &mut Child,
    talk: impl Future<Output = std::io::Result<()>>,
) -> std::io::Result<std::process::ExitStatus> {
    let mut talk = pin!(talk);
    let status = tokio::select! {
        biased;
        talked = &mut talk => {
            talked?;
            return child.wait().await;
        }
        status = child.wait() => status?,
    };
    match tokio::time::timeout(LAST_WORDS, talk).await {
        Ok(talked) => talked.map(|()| status),
        Err(_) => Ok(status),
    }
}

fn process(command: &Command) -> (Process, String) {
    let (mut process, name) = match &command.program {
        Program::Shell(line) => {
            let mut process = Process::new("sh");
            process.arg("-c").arg(line);
            (process, "sh".to_owned())
        }
        Program::Argv(words) => {
            let program = words.first().cloned().unwrap_or_default();
            let mut process = Process::new(&program);
            process.args(words.iter().skip(1));
            (process, program.to_string_lossy().into_owned())
        }
    };
    process.envs(command.env.iter().map(|(name, value)| (name, value)));
    if let Some(folder) = &command.folder {
        process.current_dir(folder);
    }
    let stdin = if command.stdin.is_some() { Stdio::piped() } else { Stdio::null() };
    // A group of its own: a Ctrl-C reaches recast alone, which parks, and a kill reaches all that the program started.
    process.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    (process, name)
}

/// A program and all that it started: killed together unless it has ended.
struct Group {
    child: Option<Child>,
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(id) = self.child.as_ref().and_then(Child::id) else { return };
        // The standard library can't signal a group. The child isn't reaped yet, so its number is still its own.
        let killed = std::process::Command::new("sh")
            .args(["-c", &format!("kill -s KILL -- -{id}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(error) = killed {
            tracing::warn!(%error, "a program's group could not be killed");
        }
    }
}

/// Which part of a stream is kept when it is long.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Beginning,
    End,
}

async fn read(from: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, keep: Keep) -> std::io::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    let mut buffer = vec![0; 16 << 10];
    loop {
        let got = from.read(&mut buffer).await?;
        if got == 0 {
            return Ok(());
        }
        match keep {
            Keep::Beginning => into.extend_from_slice(&buffer[..got.min(MOST.saturating_sub(into.len()))]),
            Keep::End => {
                into.extend_from_slice(&buffer[..got]);
                if into.len() > 2 * TAIL {
                    into.drain(..into.len() - TAIL);
                }
            }
        }
    }
}

/// The end of what it complained about. Only of stderr: what it handed over on stdout may be secret.
fn tail(out: &[u8], err: &[u8]) -> String {
    let text = String::from_utf8_lossy(err);
    let text = text.trim();
    let cut = text.char_indices().rev().take(TAIL).last().map_or(0, |(at, _)| at);
    match (text.is_empty(), out.is_empty()) {
        (false, _) => text[cut..].to_owned(),
        (true, true) => "it said nothing".to_owned(),
        (true, false) => "it said nothing on stderr".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::time::Instant;

    use super::super::Recorder;
    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    async fn sh(line: &str) -> Result<Done, CommandError> {
        Commands::Real.run(&Command::shell("the test", line, LONG), pending()).await
    }

    #[tokio::test]
    async fn input_and_output_pass_through_and_a_failure_shows_the_end_of_what_was_said() {
        let command = Command::shell("the test", "read x; echo \"$x $Y\"", LONG).env("Y", "b").stdin("a\n".into());
        let done = Commands::Real.run(&command, pending()).await.unwrap();
        assert_eq!(done.stdout(), "a b\n");
        assert!(!format!("{done:?}").contains("a b"), "what it hands over may be secret");
        let failed = sh("echo secret; echo first >&2; echo because >&2; exit 7").await.unwrap_err();
        assert_eq!(failed.to_string(), "the test ended with exit status: 7: first\nbecause");
        assert!(matches!(sh("exit 1").await, Err(CommandError::Failed { code: Some(1), .. })));
        let absent = Command::argv("the test", ["no-such-program"], LONG);
        let absent = Commands::Real.run(&absent, pending()).await.unwrap_err();
        assert_eq!(absent.to_string(), "the test: no-such-program can't be run");
        // Input that nobody reads, and output that fills a pipe.
        let big = "x".repeat(1 << 20);
        let unread = Command::shell("the test", "exec <&-; head -c 300000 /dev/zero", LONG).stdin(big.into());
        assert_eq!(Commands::Real.run(&unread, pending()).await.unwrap().stdout().len(), 300_000);
        assert_eq!(
            sh("sleep 60 & echo done").await.unwrap().stdout(),
            "done\n",
            "what it left behind isn't waited for"
        );
    }

    #[tokio::test]
    async fn time_limit_and_cancel_end_the_program_with_all_that_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let line = format!("sleep 600 & echo $! > {}; wait", file.display());
        let alive = || {
            let pid = std::fs::read_to_string(&file).unwrap();
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !(stat.is_empty() || stat.contains(") Z "))
        };
        let gone = async || {
            let since = Instant::now();
            while alive() {
                assert!(since.elapsed() < LONG, "the grandchild survived");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let short = Command::shell("the test", &line, Duration::from_millis(300));
        let late = Commands::Real.run(&short, pending()).await.unwrap_err();
        assert!(late.to_string().starts_with("the test did not end within 0 s and was killed"), "{late}");
        gone().await;
        std::fs::remove_file(&file).unwrap();
        let written = async {
            while !std::fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let stopped = Commands::Real.run(&Command::shell("the test", &line, LONG), written).await.unwrap_err();
        assert!(matches!(stopped, CommandError::Cancelled { .. }));
        gone().await;
    }

    #[tokio::test]
    async fn a_recorded_command_is_written_down_and_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let commands = Commands::Recorded(Recorder::new(dir.path().join("commands.jsonl")));
        let touched = dir.path().join("touched");
        let command = Command::argv("the test", ["touch".into(), touched.clone().into_os_string()], LONG);
        let done = commands.run(&command.stdin("hush".into()), pending()).await.unwrap();
        assert!(matches!(done, Done::Recorded) && !touched.exists());
        let text = std::fs::read_to_string(dir.path().join("commands.jsonl")).unwrap();
        assert!(text.contains("\"command\":\"touch ") && !text.contains("hush"), "{text}");
    }
}
