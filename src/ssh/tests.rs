//! The client against OpenSSH's server.

use std::fs;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::Digest as _;

use super::real::Sshd;
use super::{Done, Login, Ssh, SshError, word};
use crate::net::{Connector, Meter, Options, Reach, Silent};

/// Everything goes through a connector that knows loopback only.
fn connector() -> Connector {
    Connector::new(Options { reach: Reach::LoopbackOnly, ..Options::default() }).unwrap()
}

async fn connect(login: &Login) -> Result<Ssh, SshError> {
    Ssh::connect(&connector(), login).await
}

async fn connected(sshd: &Sshd) -> Ssh {
    connect(&sshd.login()).await.unwrap_or_else(|error| panic!("{error:?}\n{}", sshd.log()))
}

/// That many bytes that don't repeat soon, with a digest of what was read of them.
struct Stream {
    left: u64,
    state: u64,
    digest: Arc<Mutex<sha2::Sha256>>,
}

impl Stream {
    fn new(bytes: u64) -> (Self, Arc<Mutex<sha2::Sha256>>) {
        let digest = Arc::new(Mutex::new(sha2::Sha256::new()));
        (Self { left: bytes, state: 0x9e37_79b9_7f4a_7c15, digest: digest.clone() }, digest)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        for chunk in buffer[..wanted].chunks_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let bytes = self.state.to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
        self.left -= wanted as u64;
        self.digest.lock().unwrap().update(&buffer[..wanted]);
        Ok(wanted)
    }
}

#[derive(Clone, Default)]
struct Digesting(Arc<Mutex<(sha2::Sha256, u64)>>);

impl Write for Digesting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut held = self.0.lock().unwrap();
        held.0.update(bytes);
        held.1 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[derive(Default)]
struct Counting(AtomicU64);

impl Meter for Counting {
    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn total(&self, _: u64) {}
}

#[tokio::test]
async fn commands_end_with_their_exit_code_output_and_complaints() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = connected(&sshd).await;
    assert!(sshd.log().contains("cipher: aes128-gcm@openssh.com"), "{}", sshd.log());
    let done = |status, stderr: &str| Done { status, signal: None, stderr: stderr.to_owned() };
    for (command, ended, said) in [
        ("echo hello", done(0, ""), "hello\n"),
        ("echo oh >&2; echo out; exit 3", done(3, "oh\n"), "out\n"),
        ("cat", done(0, ""), ""),
        ("exit 255", done(255, ""), ""),
        ("printf %s 'a b'", done(0, ""), "a b"),
    ] {
        assert_eq!(ssh.ask(command).await.unwrap(), (ended, said.to_owned()), "{command}");
    }
    let (killed, said) = ssh.ask("echo before; kill -KILL $$").await.unwrap();
    assert_eq!((killed.signal.as_deref(), said.as_str()), (Some("KILL"), "before\n"));
    assert!(!killed.is_ok());
    assert_eq!(killed.why(), "ended by signal KILL");
    let odd = "it's $HOME `x` \"y\"";
    assert_eq!(ssh.ask(&format!("printf %s {}", word(odd))).await.unwrap().1, odd);
    let (one, other) = tokio::join!(ssh.ask("sleep 0.1; echo 1"), ssh.ask("echo 2"));
    assert_eq!((one.unwrap().1.as_str(), other.unwrap().1.as_str()), ("1\n", "2\n"));
}

#[tokio::test]
async fn sixty_four_mebibytes_go_through_cat_both_ways() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = connected(&sshd).await;
    let (stream, sent) = Stream::new(64 << 20);
    let back = Digesting::default();
    let meter = Counting::default();
    let done = ssh.run("cat", Some(Box::new(stream)), Some(Box::new(back.clone())), &meter).await.unwrap();
    assert_eq!(done, Done { status: 0, signal: None, stderr: String::new() });
    let sent: [u8; 32] = sent.lock().unwrap().clone().finalize().into();
    let (digest, bytes) = back.0.lock().unwrap().clone();
    assert_eq!(bytes, 64 << 20);
    assert_eq!(<[u8; 32]>::from(digest.finalize()), sent);
    assert_eq!(meter.0.load(Ordering::Relaxed), 128 << 20, "both directions are counted");
}

#[tokio::test]
async fn no_stream_waits_for_another() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = connected(&sshd).await;
    // Far more than all windows and pipes hold, on all three.
    let (stream, _) = Stream::new(8 << 20);
    let back = Digesting::default();
    let command = "(yes complaint | head -c 8388608 >&2) & cat; wait; echo end >&2";
    let done = ssh.run(command, Some(Box::new(stream)), Some(Box::new(back.clone())), &Silent).await.unwrap();
    assert_eq!(back.0.lock().unwrap().1, 8 << 20);
    assert!(done.is_ok() && done.stderr.len() == 64 << 10 && done.stderr.ends_with("end\n"), "{}", done.stderr.len());
    // A command that doesn't want all it could get, and one that gets nothing to put its output into.
    let (stream, _) = Stream::new(1 << 40);
    let done = ssh.run("head -c 10 >/dev/null; exit 4", Some(Box::new(stream)), None, &Silent).await.unwrap();
    assert_eq!(done.status, 4);
    let done = ssh.run("head -c 4194304 /dev/zero", None, None, &Silent).await.unwrap();
    assert!(done.is_ok());
}

#[tokio::test]
async fn only_the_right_key_gets_in() {
    let Some(sshd) = Sshd::start() else { return };
    let dir = sshd.dir.path();
    let stranger = Login { keys: vec![dir.join("none"), dir.join("stranger")], ..sshd.login() };
    let error = connect(&stranger).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SshError::Denied { .. }) && !error.is_transient(), "{error:?}");
    assert!(text.contains("none can't be read") && text.contains("stranger does not fit"), "{text}");
    let both = Login { keys: vec![dir.join("stranger"), dir.join("key")], ..sshd.login() };
    assert!(connect(&both).await.unwrap().ask("true").await.unwrap().0.is_ok());
    let nothing = Login { keys: Vec::new(), ..sshd.login() };
    let error = connect(&nothing).await.unwrap_err();
    assert!(error.to_string().ends_with("there is neither a key file nor an agent"), "{error}");
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn the_agents_keys_are_asked_for() {
    let Some(sshd) = Sshd::start() else { return };
    let socket = sshd.dir.path().join("agent");
    let mut agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let since = Instant::now();
    while !socket.exists() {
        assert!(since.elapsed() < Duration::from_secs(10), "ssh-agent does not start");
        std::thread::yield_now();
    }
    let add = |key: &str| {
        let key = sshd.dir.path().join(key);
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    };
    let login = Login { keys: Vec::new(), agent: Some(socket.clone()), ..sshd.login() };
    add("stranger");
    let error = connect(&login).await.unwrap_err();
    assert!(error.to_string().contains("none of the agent's keys fits"), "{error}");
    add("key");
    let ssh = connect(&login).await;
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(ssh.unwrap().ask("true").await.unwrap().0.is_ok());
    let error = connect(&login).await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[tokio::test]
async fn a_host_that_is_not_known_is_refused_before_anything_is_shown_to_it() {
    let Some(sshd) = Sshd::start() else { return };
    let unknown = Login { host_keys: Vec::new(), ..sshd.login() };
    let printed = Command::new("ssh-keygen").arg("-lf").arg(sshd.dir.path().join("host.pub")).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let error = connect(&unknown).await.unwrap_err();
    let SshError::UnknownHostKey { fingerprint, line, .. } = &error else { panic!("{error:?}") };
    assert!(printed.contains(fingerprint.as_str()), "{printed}");
    assert!(error.hint().unwrap().contains(line), "{error:?}");
    // What is to be added lets it in.
    let key = line.split('"').nth(1).unwrap().parse().unwrap();
    connect(&Login { host_keys: vec![key], ..sshd.login() }).await.unwrap();

    let changed = Login { host_keys: vec![sshd.host_key("stranger")], ..sshd.login() };
    let error = connect(&changed).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, SshError::ChangedHostKey { .. }), "{error:?}");
    for key in ["host", "stranger"] {
        assert!(text.contains(&sshd.host_key(key).fingerprint()), "{text}");
    }
    assert!(!sshd.log().contains("Accepted publickey for nobody"));
    assert_eq!(sshd.log().matches("Accepted publickey").count(), 1, "refused hosts saw no key: {}", sshd.log());
}

#[tokio::test]
async fn known_hosts_is_believed() {
    let Some(sshd) = Sshd::start() else { return };
    let file = sshd.dir.path().join("known_hosts");
    let login = Login { host_keys: Vec::new(), known_hosts: Some(file.clone()), ..sshd.login() };
    assert!(matches!(connect(&login).await, Err(SshError::UnknownHostKey { .. })), "there is no such file yet");
    fs::write(&file, format!("[{}]:{} {}\n", login.host, login.port, sshd.host_key("host"))).unwrap();
    // Hashed, as Debian's client keeps it.
    let hashed = Command::new("ssh-keygen").args(["-q", "-H", "-f"]).arg(&file).output().unwrap();
    assert!(hashed.status.success() && fs::read_to_string(&file).unwrap().starts_with("|1|"));
    connect(&login).await.unwrap();
    fs::write(&file, format!("[{}]:{} {}\n", login.host, login.port, sshd.host_key("stranger"))).unwrap();
    let error = connect(&login).await.unwrap_err();
    assert!(error.to_string().contains("known_hosts, line 1"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_an_error_and_never_an_end() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = connected(&sshd).await;
    let back = Digesting::default();
    let running = ssh.run("head -c 100000 /dev/zero; sleep 600", None, Some(Box::new(back.clone())), &Silent);
    let cutting = async {
        while back.0.lock().unwrap().1 < 100_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sshd.cut();
    };
    let (ended, ()) = tokio::join!(running, cutting);
    let error = ended.unwrap_err();
    assert!(matches!(error, SshError::Lost { .. }) && error.may_have_run(), "{error:?}");
    assert!(matches!(ssh.ask("true").await, Err(SshError::Closed { .. })));
    // While it is being sent to.
    let ssh = connected(&sshd).await;
    let (stream, _) = Stream::new(1 << 40);
    let meter = Counting::default();
    let running = ssh.run("cat >/dev/null", Some(Box::new(stream)), None, &meter);
    let cutting = async {
        while meter.0.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sshd.cut();
    };
    assert!(matches!(tokio::join!(running, cutting).0, Err(SshError::Lost { .. })));
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_ends() {
    let Some(sshd) = Sshd::start() else { return };
    let ssh = connected(&sshd).await;
    let ended = sshd.dir.path().join("ended");
    let command = format!("cat >/dev/null; touch {}", word(&ended.display().to_string()));
    let (reader, writer) = io::pipe().unwrap();
    let dropped =
        tokio::time::timeout(Duration::from_millis(300), ssh.run(&command, Some(Box::new(reader)), None, &Silent));
    assert!(dropped.await.is_err(), "it waits for its stdin");
    drop(writer);
    let since = Instant::now();
    while !ended.exists() {
        assert!(since.elapsed() < Duration::from_secs(20), "it goes on: {}", sshd.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(ssh.ask("true").await, Err(SshError::Closed { .. })));
}

#[tokio::test]
async fn what_can_not_be_read_or_put_away_is_said() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the disk is gone"))
        }
    }
    let Some(sshd) = Sshd::start() else { return };
    let error = connected(&sshd).await.run("cat", Some(Box::new(Broken)), None, &Silent).await.unwrap_err();
    assert!(matches!(&error, SshError::Input(why) if why.to_string() == "the disk is gone"), "{error:?}");
    let too_much = connected(&sshd).await.ask("head -c 2000000 /dev/zero").await.unwrap_err();
    assert!(matches!(&too_much, SshError::Output(_)), "{too_much:?}");
}

#[tokio::test]
async fn who_does_not_speak_ssh_is_told_from_who_is_not_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let login = Login {
        host: "127.0.0.1".to_owned(),
        port,
        user: "root".to_owned(),
        keys: Vec::new(),
        agent: None,
        host_keys: Vec::new(),
        known_hosts: None,
        program: None,
    };
    std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
    });
    assert!(matches!(connect(&login).await, Err(SshError::Handshake { .. })));
    let outside = Login { host: "192.0.2.7".to_owned(), ..login };
    let error = connect(&outside).await.unwrap_err();
    assert!(matches!(error, SshError::Connect(_)) && !error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn the_systems_own_ssh_does_the_same() {
    let Some(sshd) = Sshd::start() else { return };
    let anywhere = Connector::new(Options::default()).unwrap();
    let login = Login { program: Some("ssh".into()), ..sshd.login() };
    let ssh = Ssh::connect(&anywhere, &login).await.unwrap_or_else(|error| panic!("{error:?}\n{}", sshd.log()));
    assert!(sshd.log().contains("cipher: aes128-gcm@openssh.com"), "{}", sshd.log());
    for (command, status, said) in
        [("echo hello", 0, "hello\n"), ("echo oh >&2; exit 255", 255, ""), ("printf %s 'a  b'", 0, "a  b")]
    {
        let (done, out) = ssh.ask(command).await.unwrap();
        assert_eq!((done.status, out.as_str()), (status, said), "{command}: {}", done.stderr);
    }
    let (stream, sent) = Stream::new(16 << 20);
    let back = Digesting::default();
    let meter = Counting::default();
    let done = ssh.run("cat", Some(Box::new(stream)), Some(Box::new(back.clone())), &meter).await.unwrap();
    let (digest, bytes) = back.0.lock().unwrap().clone();
    assert!(done.is_ok() && bytes == 16 << 20);
    assert_eq!(digest.finalize(), sent.lock().unwrap().clone().finalize());
    assert_eq!(meter.0.load(Ordering::Relaxed), 32 << 20);
    // One that nobody waits for any more ends.
    let hangs = tokio::time::timeout(Duration::from_millis(300), ssh.ask("sleep 1000")).await;
    assert!(hangs.is_err());
    assert_eq!(ssh.ask("echo still").await.unwrap().1, "still\n");
    let stranger = Login { host_keys: vec![sshd.host_key("stranger")], ..login.clone() };
    let refused = Ssh::connect(&anywhere, &stranger).await.unwrap_err();
    assert!(matches!(refused, SshError::Unproven { .. }), "{refused:?}");
    let denied = Login { keys: vec![sshd.dir.path().join("stranger")], ..login.clone() };
    let refused = Ssh::connect(&anywhere, &denied).await.unwrap_err();
    assert!(matches!(refused, SshError::Denied { .. }), "{refused:?}");
    // A connection that breaks is no exit code.
    let back = Digesting::default();
    let running = ssh.run("head -c 100000 /dev/zero; sleep 600", None, Some(Box::new(back.clone())), &Silent);
    let cutting = async {
        while back.0.lock().unwrap().1 < 100_000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sshd.cut();
    };
    let broken = tokio::join!(running, cutting).0;
    assert!(matches!(broken, Err(SshError::Lost { .. })), "{broken:?}");
    // Where it goes can't be watched, so a rehearsal doesn't use it.
    assert!(Ssh::connect(&connector(), &login).await.is_err());
}
