//! The nodes' SSH servers, asked by OpenSSH's own client.

#![expect(clippy::unwrap_used, reason = "a test says what broke by panicking")]

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use mock_pve::serve::{self, Options, ReadySsh, Running};
use mock_pve::world::lifecycle::{Lock, Shutdown};
use mock_pve::world::members::Outage;
use mock_pve::world::rights::Caller;
use mock_pve::world::seed::{NodeSeed, Seed, VmSeed};
use serde_json::json;

/// An order of SFTP with its fields, and the kind of the answer with its number.
type Order = (u8, Vec<Vec<u8>>, (u8, u32));

/// That of `root@pam`, and so of root on the nodes.
const PASSWORD: &str = "let me in";

/// Runs a test that would wait for ever where something is broken, and fails then: what hangs is left behind.
fn limited(test: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(Duration::from_mins(2), tokio::spawn(test)).await });
    runtime.shutdown_background();
    if let Err(error) = ended.expect("it hangs") {
        std::panic::resume_unwind(error.into_panic());
    }
}

struct Mock {
    running: Running,
    folder: tempfile::TempDir,
}

struct Done {
    code: i32,
    out: String,
    err: String,
}

async fn begin(vms: Vec<VmSeed>) -> Mock {
    let folder = tempfile::tempdir().unwrap();
    let node = |name: &str| NodeSeed { name: name.to_owned(), ..NodeSeed::default() };
    let seed = Seed {
        nodes: vec![node("pve1"), node("pve2")],
        cluster_name: Some("lab".to_owned()),
        vms,
        secrets: [("PVE_PASSWORD".to_owned(), PASSWORD.to_owned())].into(),
        ..Seed::single_node()
    };
    let options = Options { seed, state: Some(folder.path().join("state")), time_scale: 200.0, ..Options::default() };
    Mock { running: serve::start(options).await.unwrap(), folder }
}

impl Mock {
    fn ssh(&self, node: usize) -> &ReadySsh {
        &self.running.ready.nodes[node].ssh
    }

    fn known_hosts(&self, node: usize) -> PathBuf {
        let ssh = self.ssh(node);
        let path = self.folder.path().join(format!("known_hosts-{node}"));
        std::fs::write(&path, format!("[{}]:{} {}\n", ssh.host, ssh.port, ssh.host_key)).unwrap();
        path
    }

    fn client(&self, node: usize, command: &str) -> Command {
        let ssh = self.ssh(node);
        let mut client = Command::new("ssh");
        client.args(["-F", "/dev/null", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]);
        client.args(["-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=10"]);
        client.arg("-o").arg(format!("UserKnownHostsFile={}", self.known_hosts(node).display()));
        client.arg("-i").arg(&ssh.key).arg("-p").arg(ssh.port.to_string());
        client.arg(format!("{}@{}", ssh.user, ssh.host)).arg(command);
        client
    }

    async fn on(&self, node: usize, command: &str, input: Vec<u8>) -> Done {
        Self::run(self.client(node, command), input).await
    }

    async fn run(mut client: Command, input: Vec<u8>) -> Done {
        let output = tokio::task::spawn_blocking(move || -> Output {
            let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut into = child.stdin.take().unwrap();
            let feeding = std::thread::spawn(move || {
                // A command that reads less than it is given is no error.
                let _ = into.write_all(&input);
            });
            let output = child.wait_with_output().unwrap();
            feeding.join().unwrap();
            output
        })
        .await
        .unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs a command that has to succeed.
    async fn fine(&self, command: &str) -> String {
        let done = self.on(0, command, Vec::new()).await;
        assert_eq!(done.code, 0, "{command}\n{}\n{}", done.out, done.err);
        done.out
    }

    fn volume(&self, volid: &str) -> PathBuf {
        let world = self.running.world();
        let state = world.state();
        let key = state.volume_key("pve1", volid).unwrap();
        assert!(state.volumes.contains_key(&key), "{volid} doesn't exist");
        state.file_of(world.dir(), &key)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_streamed_into_an_allocated_volume_that_becomes_a_template() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let mock = begin(Vec::new()).await;
    let out = mock.fine("pvesm alloc local-lvm 9000 '' 64M").await;
    assert!(out.ends_with("successfully created 'local-lvm:vm-9000-disk-0'\n"), "{out}");
    assert_eq!(mock.fine("pvesm path local-lvm:vm-9000-disk-0").await, "/dev/pve/vm-9000-disk-0\n");
    assert_eq!(mock.fine("blockdev --getsize64 /dev/pve/vm-9000-disk-0").await, "67108864\n");

    // By dd: neither cut off nor grown.
    let image: Vec<u8> = (0..9_000_000_u32).map(|n| (n % 251) as u8).collect();
    let command = "dd of=/dev/pve/vm-9000-disk-0 bs=1M conv=fsync && sync";
    let done = mock.on(0, command, image.clone()).await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(done.err.contains("records in\n") && done.err.contains("9000000 bytes"), "{}", done.err);
    let real = mock.volume("local-lvm:vm-9000-disk-0");
    let stored = std::fs::read(&real).unwrap();
    assert!(stored.len() == 64 << 20 && stored.starts_with(&image), "{}", stored.len());

    // By perl, which gets the real path and only knows how to write.
    let script = r#"perl -e 'open(my $f, "+<", $ARGV[0]) or die "open: $!"; binmode STDIN; my $n = 0;
        while (my $r = sysread(STDIN, my $b, 65536)) { sysseek($f, $n, 0); syswrite($f, $b) == $r or die; $n += $r }
        print "$n\n"' /dev/pve/vm-9000-disk-0"#;
    let sevens = vec![7_u8; 3_000_000];
    let done = mock.on(0, script, sevens.clone()).await;
    assert_eq!((done.code, done.out.as_str()), (0, "3000000\n"), "{}", done.err);
    assert!(std::fs::read(&real).unwrap().starts_with(&sevens));

    mock.fine("qm create 9000 --name tmpl --memory 2048 --scsihw virtio-scsi-single --net0 virtio,bridge=vmbr0").await;
    let out =
        mock.fine("qm set 9000 --scsi0 local-lvm:vm-9000-disk-0,discard=on --boot order=scsi0 --tags 'a;b'").await;
    assert!(out.starts_with("update VM 9000: "), "{out}");
    mock.fine("qm template 9000").await;
    let config = mock.fine("qm config 9000").await;
    assert!(config.contains("\nscsi0: local-lvm:base-9000-disk-0,discard=on,size=64M\n"), "{config}");
    assert!(config.contains("\ntemplate: 1\n") && !config.contains("digest"), "{config}");
    mock.fine("qm clone 9000 101 --full --name x && qm start 101 && qm status 101 | cat > /tmp/state").await;
    assert_eq!(mock.fine("cat /tmp/state").await, "status: running\n");
    assert!(std::fs::read(mock.volume("local-lvm:vm-101-disk-0")).unwrap().starts_with(&sevens));
    let list = mock.fine("qm list").await;
    assert!(list.lines().count() == 3 && list.contains("running"), "{list}");
    mock.fine("qm stop 101 && qm destroy 101 --purge").await;
    assert!(!mock.fine("pvesm list local-lvm").await.contains("101"));
    mock.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_the_node_are_imported_and_become_volumes_of_its_storages() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let mock = begin(vec![VmSeed { vmid: 100, ..VmSeed::default() }]).await;
    let image = vec![5_u8; 1_500_000];
    let packed = {
        let mut encoder = xz2::read::XzEncoder::new(image.as_slice(), 1);
        let mut packed = Vec::new();
        encoder.read_to_end(&mut packed).unwrap();
        packed
    };
    let command = "F=$(mktemp /var/tmp/talos.XXXXXX) && xz -dc > \"$F\" && stat -c '%s %F' $F && sha256sum < $F && \
                   qm importdisk 100 $F local-lvm && rm -f $F && ! test -e $F";
    let done = mock.on(0, command, packed.clone()).await;
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(done.out.starts_with("1500000 regular file\n"), "{}", done.out);
    assert!(done.out.ends_with("unused0: successfully imported disk 'local-lvm:vm-100-disk-0'\n"), "{}", done.out);
    assert!(mock.fine("qm config 100").await.contains("unused0: local-lvm:vm-100-disk-0\n"));
    assert!(std::fs::read(mock.volume("local-lvm:vm-100-disk-0")).unwrap().starts_with(&image));
    // Half of it is damage.
    let done = mock.on(0, "xz -dc >/tmp/half", packed[..packed.len() / 2].to_vec()).await;
    assert_eq!((done.code, done.err.as_str()), (1, "xz: (stdin): Unexpected end of input\n"));

    let done =
        mock.on(0, "mkdir -p /var/lib/vz/import && tee /var/lib/vz/import/x.raw | sha256sum", image.clone()).await;
    assert_eq!(done.code, 0, "{}", done.err);
    let listed = mock.fine("pvesm list local --content import").await;
    assert!(listed.contains("local:import/x.raw") && listed.contains("1500000"), "{listed}");
    let out = mock.fine("qm set 100 --scsi0 local-lvm:0,import-from=/var/lib/vz/import/x.raw").await;
    assert!(out.contains("scsi0: successfully created disk 'local-lvm:vm-100-disk-1,size="), "{out}");
    mock.fine("mv /var/lib/vz/import/x.raw /var/lib/vz/import/y.raw; rm /var/lib/vz/import/y.raw").await;
    assert!(!mock.fine("pvesm list local").await.contains(".raw"));
    mock.fine("pvesm alloc local-lvm 200 vm-200-disk-5 1G; pvesm free local-lvm:vm-200-disk-5").await;
    assert!(!mock.fine("pvesm list local-lvm").await.contains("vm-200"));
    assert!(mock.fine("pvesm status --content images").await.lines().nth(1).unwrap().starts_with("local-lvm"));
    mock.running.stop().await;
}

#[test]
fn errors_have_the_texts_and_codes_of_the_originals_tools() {
    if real_parts::is_here("ssh", "-V") {
        limited(errors());
    }
}

async fn errors() {
    let locked = VmSeed { vmid: 100, config: [("lock".to_owned(), json!("backup"))].into(), ..VmSeed::default() };
    let mock = begin(vec![locked]).await;
    let deep = format!("f() {{ {}f; {}}}; f", "{ ".repeat(180), "} ".repeat(180));
    for (command, code, err) in [
        ("talosctl version", 127, "bash: line 1: talosctl: command not found\n"),
        ("/opt/x", 127, "bash: line 1: /opt/x: No such file or directory\n"),
        ("qm config 999", 2, "Configuration file 'nodes/pve1/qemu-server/999.conf' does not exist\n"),
        ("qm start 100", 255, "VM is locked (backup)\n"),
        ("qm frob 1", 255, "ERROR: unknown command 'qm frob'\nUSAGE: qm <COMMAND> [ARGS] [OPTIONS]\n"),
        ("pvesm path nowhere:vm-1-disk-0", 255, "storage 'nowhere' does not exist\n"),
        ("pvesm alloc nowhere 1 '' 1G", 255, "storage 'nowhere' does not exist\n"),
        ("cat /etc/shadow", 1, "cat: /etc/shadow: No such file or directory\n"),
        ("echo x > /etc/passwd", 1, "bash: line 1: /etc/passwd: Permission denied\n"),
        ("perl -e 'print 1' /etc/passwd", 13, "Can't open '/etc/passwd': Permission denied at -e line 1.\n"),
        ("perl -e 'unlink \"/home/x\"'", 13, "Can't open '/home/x': Permission denied at -e line 1.\n"),
        ("dd if=/dev/zero of=/dev/sda bs=1M count=1", 1, "dd: failed to open '/dev/sda': Permission denied\n"),
        ("pvesh ls /version", 255, "resource '/version' does not define child links\n"),
        ("pvesh ls /nonsense", 255, "no such resource '/nonsense'\n"),
        ("pvesh get /nodes/pve1/nonsense", 1, "No 'get' handler defined for '/nodes/pve1/nonsense'\n"),
        ("exit 7", 7, ""),
        ("(exit 3); echo $? >&2; { exit 4; }; echo no >&2", 4, "3\n"),
        ("false; echo $? >&2", 0, "1\n"),
        (
            "set -e; if false; then :; elif ! true; then :; else echo on >&2; fi; false || true; false; echo no >&2",
            1,
            "on\n",
        ),
        ("set -e; f() { false; echo in >&2; }; f && x=$(false; echo y) && echo $x >&2; f; echo no >&2", 1, "in\ny\n"),
        ("n() { echo $# >&2; }; f() { n \"$@\"; }; f; f 'a b' ''", 0, "0\n2\n"),
        ("f() { echo $# \"$1\" >&2; return 3; }; f 'a b' c; echo $? ${none:-\"d  e\"} >&2", 0, "2 a b\n3 d  e\n"),
        ("set -o pipefail; for n in a \"b c\"; do echo $n; done | grep -c c >&2; false | true", 1, "1\n"),
        ("n=; while [ \"$n\" != aaa ]; do n=a$n; done; bash -c 'echo \"$0 $1\" >&2; exit 5' x y", 5, "x y\n"),
        (
            "t=; while [ \"$t\" != aa ]; do t=a$t; for n in 1 2; do if [ $t = a ]; then continue 2; fi; break; done; \
             echo $t >&2; done; while :; do for n in 1; do break 2; done; done",
            0,
            "aa\n",
        ),
        (
            "for n in a b; do (break); break 7; done; sleep 0.2s; sleep x",
            1,
            "bash: line 1: break: only meaningful in a `for', `while', or `until' loop\n\
             sleep: invalid time interval ‘x’\nTry 'sleep --help' for more information.\n",
        ),
        ("while :; do echo x; done | head -1", 0, ""),
        (
            "return 5; echo $? >&2; set hello you; echo $1 $# >&2; set -e -- x; false; echo no >&2",
            1,
            "bash: line 1: return: can only `return' from a function or sourced script\n2\nhello 2\n",
        ),
        (deep.as_str(), 139, ""),
        ("f() { x=$(f); }; f", 139, ""),
        ("x=aaaaaaaa; while :; do x=$x$x; done; echo no >&2", 2, "bash: xrealloc: cannot allocate 33554432 bytes\n"),
        ("set -- ''; while :; do set -- \"$@\" \"$@\"; done", 2, "bash: xrealloc: cannot allocate 25165824 bytes\n"),
        ("f() { f | f; }; f", 254, "bash: fork: Resource temporarily unavailable\n"),
        ("echo a > /tmp/l; echo b >> /tmp/l; echo -n c >> /tmp/l; grep -e a -e c /tmp/l >&2", 0, "a\nc\n"),
        ("grep -C 1 a /tmp/l", 2, "grep: only lines that fit are played here\n"),
        (
            "head -n -2 /tmp/l >&2; head -c -3 /tmp/l >&2; tail -n +3 /tmp/l >&2; tail -c +4 /tmp/l >&2; \
             tail -c 4 /tmp/l | wc -w >&2",
            0,
            "a\na\nc\nc2\n",
        ),
        ("head -n 1 /dev/zero | tail -c +3 | head -c 2 | wc -c >&2", 0, "2\n"),
        ("x=$(cat /dev/zero)", 1, "cat: memory exhausted\n"),
        ("cut -c 1 /dev/zero", 1, "cut: memory exhausted\n"),
        ("grep x /dev/zero", 2, "grep: memory exhausted\n"),
        ("bash /dev/zero", 126, "/dev/zero: /dev/zero: cannot execute binary file\n"),
        ("sudo -n true", 127, "bash: line 1: sudo: command not found\n"),
        ("echo 'x", 2, "bash: -c: line 1: unexpected EOF while looking for matching `''\n"),
    ] {
        let done = mock.on(0, command, Vec::new()).await;
        assert_eq!((done.code, done.err.as_str()), (code, err), "{command}: {}", done.out);
    }
    let done = mock.on(0, "qm set 100 --cores x", Vec::new()).await;
    assert_eq!(done.code, 255);
    assert!(
        done.err.starts_with("400 Parameter verification failed.\ncores: type check ('integer') failed - got 'x'\n"),
        "{}",
        done.err
    );
    let done =
        mock.on(0, "pvesm alloc local-lvm 300 '' 1M && dd if=/dev/zero of=/dev/pve/vm-300-disk-0 bs=1M", Vec::new());
    let done = done.await;
    assert_eq!(done.code, 1);
    assert!(
        done.err.starts_with("dd: error writing '/dev/pve/vm-300-disk-0': No space left on device\n"),
        "{}",
        done.err
    );
    mock.fine("qm unlock 100 && qm set 100 --onboot 1").await;
    mock.running.stop().await;
}

/// The steps in which Terraform's provider brings a disk to a VM, and a snippet to a storage.
#[tokio::test(flavor = "multi_thread")]
async fn scripts_with_functions_and_files_by_sftp_do_what_providers_ask_of_a_node() {
    if !real_parts::is_here("sftp", "-h") {
        return;
    }
    let mock = begin(vec![VmSeed { vmid: 100, ..VmSeed::default() }]).await;
    let local = mock.folder.path().join("user data.yaml");
    std::fs::write(&local, b"#cloud-config\n").unwrap();
    let ssh = mock.ssh(0);
    let known = format!("UserKnownHostsFile={}", mock.known_hosts(0).display());
    let orders = |orders: String| {
        let mut client = Command::new("sftp");
        client.args(["-F", "/dev/null", "-o", "StrictHostKeyChecking=yes", "-o", &known, "-b", "-"]);
        client.arg("-i").arg(&ssh.key).arg("-P").arg(ssh.port.to_string()).arg(format!("root@{}", ssh.host));
        Mock::run(client, orders.into_bytes())
    };
    let folder = "/var/lib/vz/snippets";
    let sent = format!("put \"{}\" {folder}/made.yaml\nchmod 600 {folder}/made.yaml\n", local.display());
    let done = orders(sent + &format!("rename {folder}/made.yaml {folder}/user.yaml\nls -l {folder}\nls /var\n")).await;
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(done.out.contains(" 14 user.yaml\n"), "{}", done.out);
    assert!(done.out.contains("/var/lib") && done.out.contains("/var/tmp"), "{}", done.out);
    assert!(mock.fine("pvesm list local --content snippets").await.contains("local:snippets/user.yaml"));
    let back = mock.folder.path().join("back");
    let done = orders(format!("get {folder}/user.yaml \"{}\"\nrm {folder}/user.yaml\n", back.display())).await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(std::fs::read(&back).unwrap(), b"#cloud-config\n");
    assert!(!mock.fine("pvesm list local --content snippets").await.contains("user.yaml"));
    for (order, error) in [
        ("get /etc/shadow /dev/null", "File \"/etc/shadow\" not found."),
        ("mkdir /opt/x", "remote mkdir \"/opt/x\": No such file or directory"),
        ("put \"LOCAL\" /etc/passwd", "dest open \"/etc/passwd\": Permission denied"),
    ] {
        let done = orders(order.replace("LOCAL", &local.display().to_string()) + "\n").await;
        assert!(done.code != 0 && done.err.contains(error), "{order}: {}", done.err);
    }

    let image = vec![7_u8; 2_000_000];
    mock.on(0, "tee /var/lib/vz/template/iso/x.img", image.clone()).await;
    let script = r#"export HOW=direct; set -e; \
        _how() { if [ -z "${_known:-}" ]; then _how="${HOW:-sudo}"; _known=1; fi; }; \
        run() { _how; if [ "$_how" = sudo ]; then sudo "$@"; else "$@"; fi; }; \
        from=$(run /usr/sbin/pvesm path local:iso/x.img); options=discard=on; \
        disk=$(run qm disk import 100 $from local-lvm -format raw | grep unused0 | cut -d : -f 3 | cut -d \' -f 1); \
        run qm set 100 -scsi0 local-lvm:$disk,$options"#;
    let quoted = script.replace('\'', "'\"'\"'");
    let done = mock.on(0, &format!("/bin/bash -c '{quoted}'"), Vec::new()).await;
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert!(mock.fine("qm config 100").await.contains("scsi0: local-lvm:vm-100-disk-0,discard=on,size="));
    assert!(std::fs::read(mock.volume("local-lvm:vm-100-disk-0")).unwrap().starts_with(&image));

    // What its orders don't ask for.
    let number = |number: u32| number.to_be_bytes().to_vec();
    let text = |text: &str| [number(u32::try_from(text.len()).unwrap()), text.as_bytes().to_vec()].concat();
    let iso = |name: &str| text(&format!("/var/lib/vz/template/iso/{name}.img"));
    let length = |length: u64| [number(1), length.to_be_bytes().to_vec()].concat();
    let opened = || [number(4), number(1)].concat();
    let asked: [Order; 7] = [
        (3, vec![iso("x"), number(2), number(0)], (102, 4)),
        (10, vec![opened(), length(1 << 60)], (101, 4)),
        (9, vec![iso("x"), length(1 << 60)], (101, 4)),
        (10, vec![opened(), length(5)], (101, 0)),
        (3, vec![iso("y"), number(2 | 8), number(4), number(0o444)], (102, 4)),
        (4, vec![[number(4), number(2)].concat()], (101, 0)),
        (200, vec![text("posix-rename@openssh.com"), iso("y"), iso("x")], (101, 0)),
    ];
    let packet = |body: &[u8]| [&number(u32::try_from(body.len()).unwrap()), body].concat();
    let mut sent = packet(&[1, 0, 0, 0, 3]);
    for (order, fields, _) in &asked {
        sent.extend(packet(&[vec![*order], number(7), fields.concat()].concat()));
    }
    let mut deeds = mock.running.world().subscribe_deeds();
    let mut client = Command::new("ssh");
    client.arg("-s").args(mock.client(0, "sftp").get_args());
    let done = Mock::run(client, sent).await;
    let mut answers = Vec::new();
    let mut rest = done.out.as_bytes();
    while let Some((head, behind)) = rest.split_at_checked(4) {
        let (packet, behind) = behind.split_at(u32::from_be_bytes(head.try_into().unwrap()) as usize);
        answers.push((packet[0], u32::from_be_bytes(packet.get(5..9).unwrap().try_into().unwrap())));
        rest = behind;
    }
    let expected: Vec<_> = asked.iter().map(|(_, _, answer)| *answer).collect();
    assert_eq!(answers.get(1..), Some(expected.as_slice()), "{}", done.err);
    let told = std::iter::from_fn(|| deeds.try_recv().ok()).map(|deed| (deed.what, deed.object.unwrap_or_default()));
    let told: Vec<_> = told.map(|(what, volid)| format!("{what} {}", volid.trim_start_matches("local:iso/"))).collect();
    assert_eq!(told, ["overwrite x.img", "overwrite x.img", "remove-file y.img", "overwrite x.img"]);
    // The shell tells of the same.
    mock.fine("mv /var/lib/vz/template/iso/x.img /var/lib/vz/template/iso/z.img").await;
    assert_eq!(deeds.try_recv().unwrap().what, "remove-file");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(mock.volume("local:iso/z.img")).unwrap());
    assert_eq!(mode & 0o777, 0o644);
    mock.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_comes_in_with_the_password_of_the_api() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let mock = begin(Vec::new()).await;
    // That the API refuses root is nothing to PAM.
    mock.running.world().state().access.users.get_mut("root@pam").unwrap().enable = false;
    for (word, code) in [(PASSWORD, 0), ("nonsense", 255)] {
        let asked = mock.folder.path().join("ask");
        std::fs::write(&asked, format!("#!/bin/sh\necho '{word}'\n")).unwrap();
        std::fs::set_permissions(&asked, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let ssh = mock.ssh(0);
        let mut client = Command::new("ssh");
        client.args(["-F", "/dev/null", "-o", "PreferredAuthentications=password", "-o", "NumberOfPasswordPrompts=1"]);
        client.arg("-o").arg(format!("UserKnownHostsFile={}", mock.known_hosts(0).display()));
        client.arg("-p").arg(ssh.port.to_string()).arg(format!("root@{}", ssh.host)).arg("true");
        client.env("SSH_ASKPASS", &asked).env("SSH_ASKPASS_REQUIRE", "force");
        let done = Mock::run(client, Vec::new()).await;
        assert_eq!(done.code, code, "{word}: {}", done.err);
    }
    mock.running.stop().await;
}

/// Debian's client sends its language by itself, and asks for the command without waiting.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_send_its_language_and_offer_its_agent() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let mock = begin(Vec::new()).await;
    let mut client = mock.client(0, "pveversion");
    // Options come before the host.
    let arguments: Vec<std::ffi::OsString> = client.get_args().map(Into::into).collect();
    client = Command::new("ssh");
    client.args(["-o", "SendEnv=LANG LC_*", "-A"]).args(arguments).env("LANG", "C.UTF-8").env("LC_ALL", "C.UTF-8");
    let output = tokio::task::spawn_blocking(move || client.stdin(Stdio::null()).output().unwrap()).await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.starts_with("pve-manager/"), "{out}{err}");
    mock.running.stop().await;
}

#[test]
fn a_shell_takes_a_script_or_somebody_at_a_terminal() {
    if real_parts::is_here("ssh", "-V") {
        limited(shells());
    }
}

/// A client that was told something, once a word is on its screen.
async fn begun(mut client: Command, typed: &'static str, word: &'static str) -> Child {
    let seen = tokio::task::spawn_blocking(move || {
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(typed.as_bytes()).unwrap();
        let (mut seen, mut byte) = (String::new(), [0]);
        while !seen.contains(word) {
            assert_eq!(child.stdout.as_mut().unwrap().read(&mut byte).unwrap(), 1, "{seen}");
            seen.push(char::from(byte[0]));
        }
        child
    });
    seen.await.unwrap()
}

async fn shells() {
    let mock = begin(Vec::new()).await;
    // Without a command it is a shell.
    let done = mock.on(0, "", b"name=x\nhostname\nfalse || echo $name-1; exit 3\necho never\n".to_vec()).await;
    assert_eq!((done.code, done.out.as_str()), (3, "pve1\nx-1\n"), "{}", done.err);
    let arguments: Vec<std::ffi::OsString> = mock.client(0, "").get_args().map(Into::into).collect();
    let mut client = Command::new("ssh");
    client.arg("-tt").args(arguments);
    let done = Mock::run(client, b"hostx\x7fname\rexit 4\r".to_vec()).await;
    let screen = "root@pve1:~# hostx\x08 \x08name\r\npve1\r\nroot@pve1:~# exit 4\r\nlogout\r\n";
    assert_eq!((done.code, done.out.as_str()), (4, screen), "{}", done.err);

    // What says nothing ends by Ctrl-C, and with whoever wanted it.
    let arguments: Vec<std::ffi::OsString> = mock.client(0, "").get_args().map(Into::into).collect();
    let mut client = Command::new("ssh");
    client.arg("-tt").args(arguments);
    let mut child = begun(client, "echo be''gun; while :; do :; done; exit 5\r", "begun").await;
    child.stdin.as_mut().unwrap().write_all(b"\x03exit 4\r").unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(4));
    for silent in ["while :; do :; done", "f() { (f); (f); }; f", "sleep infinity", "sha256sum /dev/zero"] {
        let mut answers = mock.running.world().subscribe_answers();
        let waits = format!("hostname ; {silent}; echo > /tmp/after");
        let mut child = begun(mock.client(0, &waits), "", "pve1").await;
        child.kill().unwrap();
        child.wait().unwrap();
        let ended = answers.recv().await.unwrap();
        assert_eq!(ended.path, "hostname", "{silent}");
        assert_eq!(mock.on(0, "test -e /tmp/after", Vec::new()).await.code, 1, "{silent}");
    }
    mock.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_and_brought_back_on_the_command_line() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let mock = begin(Vec::new()).await;
    mock.fine("qm create 100 --name kept --scsi0 local-lvm:0.0625").await;
    mock.fine("echo -n precious | dd of=/dev/pve/vm-100-disk-0 conv=notrunc").await;
    let said = mock.fine("vzdump 100 --storage local --compress zstd --notes-template '{{guestname}}'").await;
    let archive = said.lines().find_map(|line| line.split_once("creating vzdump archive '")).unwrap().1;
    let archive = archive.trim_end_matches('\'');
    assert!(said.ends_with("INFO: Backup job finished successfully\n"), "{said}");
    assert_eq!(mock.fine(&format!("cat {archive}.notes")).await, "kept");
    let log = mock.fine(&format!("cat {}.log", archive.trim_end_matches(".vma.zst"))).await;
    assert!(log.contains(" INFO: Finished Backup of VM 100 ("), "{log}");
    let done = mock.on(0, &format!("qmrestore {archive} 100"), Vec::new()).await;
    assert!(done.code == 255 && done.err.contains("VM 100 already exists on node 'pve1'"), "{}", done.err);
    assert_eq!(mock.on(0, "qmrestore", Vec::new()).await.code, 255);
    mock.fine(&format!("qmrestore {archive} 101 --unique")).await;
    assert_eq!(mock.fine("dd if=/dev/pve/vm-101-disk-0 bs=8 count=1").await, "precious");
    mock.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_the_processes_of_their_own_node_only() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let mock = begin(vec![VmSeed { vmid: 100, node: Some("pve2".to_owned()), ..VmSeed::default() }]).await;
    let world = mock.running.world();
    let runs = || world.state().vms[&100].running.is_some();
    let root = Caller::root();
    let upid = world.start_vm(&root, "pve2", 100, Lock::default());
    assert_eq!(world.task_end(&upid, Duration::from_secs(30)).await.as_deref(), Some("OK"));
    let patiently = Shutdown { timeout: Some(100_000.0), ..Shutdown::default() };
    let upid = world.shutdown_vm(&root, "pve2", 100, patiently).unwrap();
    let pid = u32::from_str_radix(upid.split(':').nth(2).unwrap(), 16).unwrap();
    let elsewhere = mock.on(0, &format!("kill -9 {pid}"), Vec::new()).await;
    assert_eq!((elsewhere.code, elsewhere.err), (1, format!("bash: line 1: kill: ({pid}) - No such process\n")));
    assert_eq!(mock.on(1, &format!("kill -KILL {pid}"), Vec::new()).await.code, 0);
    let ended = world.task_end(&upid, Duration::from_secs(30)).await;
    assert_eq!((ended.as_deref(), runs()), (Some("unable to read tail (got 0 bytes)"), true));
    let guest = "$(cat /var/run/qemu-server/100.pid)";
    assert_eq!(mock.on(1, &format!("kill -0 {guest}"), Vec::new()).await.code, 0);
    assert!(runs());
    assert_eq!(mock.on(1, &format!("kill {guest}"), Vec::new()).await.code, 0);
    assert!(!runs());
    let none = mock.on(1, "kill x", Vec::new()).await;
    assert_eq!((none.code, &*none.err), (1, "bash: line 1: kill: x: arguments must be process or job IDs\n"));
    assert_eq!(mock.on(1, "kill", Vec::new()).await.code, 2);
    mock.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pvesh_speaks_json_and_each_node_is_itself() {
    if !real_parts::is_here("ssh", "-V") {
        return;
    }
    let mock = begin(vec![VmSeed { vmid: 100, node: Some("pve2".to_owned()), ..VmSeed::default() }]).await;
    let version: serde_json::Value =
        serde_json::from_str(&mock.fine("pvesh get /version --output-format json").await).unwrap();
    assert_eq!(version["release"], "8.4");
    assert!(mock.fine("pveversion").await.starts_with("pve-manager/8.4.21/"));
    assert_eq!(mock.fine("hostname").await, "pve1\n");
    assert_eq!(mock.on(1, "hostname", Vec::new()).await.out, "pve2\n");
    assert_ne!(mock.ssh(0).host_key, mock.ssh(1).host_key);
    // qm is local, pvesh is not.
    assert_eq!(mock.on(0, "qm status 100", Vec::new()).await.code, 2);
    mock.fine("pvesh set /nodes/pve2/qemu/100/config --name moved").await;
    assert!(mock.on(1, "qm config 100", Vec::new()).await.out.contains("name: moved\n"));
    let upid = mock.fine("pvesh create /nodes/pve2/qemu/100/status/start").await;
    assert!(upid.starts_with("UPID:pve2:"), "{upid}");
    let below = mock.fine("pvesh ls /nodes/pve2/qemu").await;
    assert_eq!(below, "Dr--d        100\n");
    let table = mock.fine("pvesh get /nodes --human-readable 0").await;
    assert!(table.starts_with("┌─") && table.contains("\n│ node │ status "), "{table}");
    let plain = mock.fine("pvesh get /cluster/resources --type vm --noborder --noheader").await;
    assert!(plain.starts_with("qemu/100 qemu "), "{plain}");

    // A foreign key is turned away.
    let other = mock.folder.path().join("other");
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&other).status();
    if made.is_ok_and(|status| status.success()) {
        let mut stranger = mock.client(0, "true");
        stranger.env_remove("SSH_AUTH_SOCK");
        let arguments: Vec<_> = stranger.get_args().map(ToOwned::to_owned).collect();
        let key = arguments.iter().position(|argument| argument == "-i").unwrap() + 1;
        let mut again = Command::new("ssh");
        again.args(&arguments[..key]).arg(&other).args(&arguments[key + 1..]).env_remove("SSH_AUTH_SOCK");
        let status = tokio::task::spawn_blocking(move || again.stderr(Stdio::null()).status().unwrap()).await.unwrap();
        assert_eq!(status.code(), Some(255));
    }

    mock.running.world().take_down("pve2", Outage::Off);
    let done = mock.on(1, "hostname", Vec::new()).await;
    assert_eq!(done.code, 255, "{}", done.out);
    mock.running.world().bring_up("pve2");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while mock.on(1, "hostname", Vec::new()).await.code != 0 {
        assert!(std::time::Instant::now() < deadline, "the node doesn't come back");
    }
    mock.running.stop().await;
}
