//! Somebody at a terminal of a node.
//!
//! Purpose: what the kernel and bash do with keys: echo, erase, line ends, prompt; and `login`, which believes nobody.
//! Runs on an ordinary thread. Commands that are started here read nothing. Must not know: who carries the keys. Start at
//! [`Seat::run`].

use std::io::{self, Read as _, Write as _};

use super::keyboard::{INTERRUPT, Keyboard};
use super::pipe::{Input, Output, pipe};
use super::shell::{Host, Shell, Streams};
use crate::world::consoles::Program;

/// How often `login` asks.
const TRIES: usize = 3;
/// The longest line that a terminal takes.
const LONGEST: usize = 4095;

/// What a person did at a prompt.
enum Typed {
    Line(String),
    /// Ctrl-C.
    Interrupted,
    /// Ctrl-D, or nobody is there any more.
    Over,
}

/// Whether what is typed is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Echo {
    On,
    Off,
}

/// A terminal, and who sits at it.
pub(super) struct Seat {
    keys: Keyboard,
    screen: Output,
}

impl Seat {
    /// Somebody who types `keys` and sees `screen`.
    pub(super) fn new(keys: Input, screen: Output) -> Self {
        Self { keys: Keyboard::new(keys), screen }
    }

    /// Runs a program until it ends, and says its exit code.
    pub(super) fn run(&mut self, host: Host, program: Program) -> u8 {
        let node = host.node.clone();
        let ended = match program {
            Program::Login => self.ask(&node),
            Program::Command(text) => self.command(&mut Shell::new(host), text),
            Program::Shell => self.shell(host),
        };
        // As for a program whose terminal hung up.
        ended.unwrap_or(129)
    }

    fn shell(&mut self, host: Host) -> io::Result<u8> {
        let prompt = format!("root@{}:~# ", host.node);
        let mut shell = Shell::new(host);
        loop {
            self.show(&prompt)?;
            match self.line(Echo::On)? {
                Typed::Line(text) if text.trim().is_empty() => {}
                Typed::Line(text) => {
                    self.command(&mut shell, text)?;
                }
                Typed::Interrupted => continue,
                Typed::Over => shell.leave(),
            }
            if shell.is_over() {
                self.show("logout\n")?;
                return Ok(shell.status());
            }
        }
    }

    /// Runs a line, and shows what it says as a terminal does.
    fn command(&mut self, shell: &mut Shell, text: String) -> io::Result<u8> {
        let (output, mut said) = pipe();
        let streams = Streams { input: Input::Empty, output: output.clone(), error: output };
        let outer = shell.visit().clone();
        let (visit, mut running) = (outer.inner(), shell.clone());
        *running.visit() = visit.clone();
        let thread = visit.spawn(move || {
            let code = running.run(&text, streams);
            (code, running)
        });
        let screen = &mut self.screen;
        let (shown, interrupted) = self.keys.watched(&visit, || -> io::Result<()> {
            let mut chunk = vec![0; 8192];
            loop {
                let read = said.read(&mut chunk)?;
                if read == 0 {
                    return Ok(());
                }
                show_on(screen, &chunk[..read])?;
            }
        });
        if shown.is_err() {
            // A terminal that hangs up breaks the command's pipe, and ends what says nothing.
            visit.end();
        }
        shown?;
        if interrupted {
            self.show("^C\n")?;
        }
        let Some(Ok((code, mut after))) = thread.map(std::thread::JoinHandle::join) else { return Ok(255) };
        *after.visit() = outer;
        *shell = after;
        Ok(code)
    }

    /// The users of Proxmox VE are not the system's, and the password of root is the system's secret.
    fn ask(&mut self, node: &str) -> io::Result<u8> {
        for _ in 0..TRIES {
            self.show(&format!("{node} login: "))?;
            let Typed::Line(name) = self.line(Echo::On)? else { return Ok(1) };
            if name.is_empty() {
                continue;
            }
            self.show("Password: ")?;
            let Typed::Line(_) = self.line(Echo::Off)? else { return Ok(1) };
            self.show("\nLogin incorrect\n")?;
        }
        Ok(1)
    }

    /// One line from the keyboard.
    fn line(&mut self, echo: Echo) -> io::Result<Typed> {
        let mut line: Vec<u8> = Vec::new();
        loop {
            let Some(key) = self.keys.key() else { return Ok(Typed::Over) };
            match key {
                b'\r' | b'\n' => {
                    self.show("\n")?;
                    return Ok(Typed::Line(String::from_utf8_lossy(&line).into_owned()));
                }
                INTERRUPT => {
                    self.show("^C\n")?;
                    return Ok(Typed::Interrupted);
                }
                0x04 if line.is_empty() => return Ok(Typed::Over),
                0x08 | 0x7f => self.erase(&mut line, 1, echo)?,
                // Ctrl-U
                0x15 => self.erase(&mut line, usize::MAX, echo)?,
                0x1b => self.skip_sequence(),
                0x20..=0x7e | 0x80.. if line.len() < LONGEST => {
                    line.push(key);
                    if echo == Echo::On {
                        self.screen.write_all(&[key])?;
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes the last characters away again.
    fn erase(&mut self, line: &mut Vec<u8>, most: usize, echo: Echo) -> io::Result<()> {
        for _ in 0..most {
            let Some(last) = line.pop() else { break };
            let mut byte = last;
            while byte & 0xc0 == 0x80
                && let Some(before) = line.pop()
            {
                byte = before;
            }
            if echo == Echo::On {
                self.screen.write_all(b"\x08 \x08")?;
            }
        }
        Ok(())
    }

    /// Arrows and the like mean nothing here.
    fn skip_sequence(&self) {
        if self.keys.key() == Some(b'[') {
            while self.keys.key().is_some_and(|key| !(0x40..=0x7e).contains(&key)) {}
        }
    }

    fn show(&mut self, text: &str) -> io::Result<()> {
        show_on(&mut self.screen, text.as_bytes())
    }
}

/// A terminal begins a line where it is told to, so that both is said.
fn show_on(screen: &mut Output, bytes: &[u8]) -> io::Result<()> {
    let mut shown = Vec::with_capacity(bytes.len() + 16);
    for byte in bytes {
        if *byte == b'\n' {
            shown.push(b'\r');
        }
        shown.push(*byte);
    }
    screen.write_all(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a seat shows for some keys.
    fn shown(keys: &str, run: impl FnOnce(&mut Seat) -> io::Result<Typed>) -> (Option<String>, String) {
        let text = std::sync::Arc::default();
        let mut seat = Seat::new(Input::text(keys.to_owned()), Output::Text(std::sync::Arc::clone(&text)));
        let typed = match run(&mut seat).unwrap() {
            Typed::Line(line) => Some(line),
            Typed::Interrupted | Typed::Over => None,
        };
        let shown = String::from_utf8(text.lock().unwrap().clone()).unwrap();
        (typed, shown)
    }

    #[test]
    fn keys_do_what_they_do_on_a_terminal() {
        for (keys, line, screen) in [
            ("qm list\r", Some("qm list"), "qm list\r\n"),
            ("qx\x7fm\n", Some("qm"), "qx\x08 \x08m\r\n"),
            ("ä\x7fb\r", Some("b"), "ä\x08 \x08b\r\n"),
            ("abc\x15d\r", Some("d"), "abc\x08 \x08\x08 \x08\x08 \x08d\r\n"),
            ("a\x1b[1;5Ab\r", Some("ab"), "ab\r\n"),
            ("a\x03", None, "a^C\r\n"),
            ("\x04", None, ""),
            ("a\x04b\r", Some("ab"), "ab\r\n"),
        ] {
            let (typed, shown) = shown(keys, |seat| seat.line(Echo::On));
            assert_eq!((typed.as_deref(), shown.as_str()), (line, screen), "{keys:?}");
        }
    }

    #[test]
    fn a_login_never_shows_a_password_and_believes_nobody() {
        let (_, shown) = shown("ci\rsecret\rroot\rsecret\r\rx\ry\r", |seat| seat.ask("pve1").map(|_| Typed::Over));
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(shown.matches("Login incorrect").count(), 2, "{shown}");
    }
}
