//! The ways, in turn, with their clock.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use sha2::Digest as _;

use crate::disks::{Disk, shell};
use crate::node::{Node, busy, looped, ticks};
use crate::server::{Server, served};
use crate::{Failure, say};

/// The volume that most ways write; recast's receiver insists on such a name.
const VOLUME: &str = "vm-900-recast-bench.raw";

/// What one run of a way took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Run {
    pub(crate) seconds: f64,
    /// Of this process, its children, the node's servers and all that they ran.
    pub(crate) cpu: f64,
    /// What everything else on this computer took meanwhile.
    pub(crate) others: f64,
    /// From the image server, to whoever asked.
    pub(crate) served: u64,
    /// Between the workstation and the node: what went over loopback besides.
    pub(crate) shipped: u64,
    /// Peak resident memory of recast, KiB; 0 for others.
    pub(crate) peak_kib: u64,
}

/// A way that is measured.
pub(crate) struct Way {
    /// Short, for `--only`.
    pub(crate) name: &'static str,
    /// What it does, for the table.
    pub(crate) what: &'static str,
    /// Whether it is recast's.
    pub(crate) ours: bool,
}

const fn way(name: &'static str, what: &'static str, ours: bool) -> Way {
    Way { name, what, ours }
}

/// In the order in which they run.
pub(crate) const WAYS: &[Way] = &[
    way("on-node", "on the node: `curl -O; xz -d; qemu-img convert` (`qm importdisk`)", false),
    way("workstation", "`curl -O; unxz; scp; qm importdisk`", false),
    way("pipe", "`curl | xz -dc | ssh dd`", false),
    way("pipe-best", "`curl | ssh 'xz -T2 -dc | dd conv=sparse'`", false),
    way("zst", "on the node: `curl -O .zst; zstd -d; qemu-img convert` (bpg, `iso`)", false),
    way("qcow2", "on the node: `curl -O .qcow2; qemu-img convert` (bpg, `import`)", false),
    way("recast-ssh", "recast `ssh`", true),
    way("recast-ssh-4", "recast `ssh`, four nodes at once", true),
    way("recast-upload", "recast `upload` (mock-pve)", true),
    way("recast-pull", "recast `pull` (mock-pve)", true),
    way("walk", "recast's decoder alone, every check and digest, from disk", true),
    way("xz-1", "`xz -T1 -dc > /dev/null` (liblzma, one thread)", false),
];

/// All runs of a disk.
pub(crate) struct Rows {
    pub(crate) runs: BTreeMap<&'static str, Vec<Run>>,
    only: Vec<String>,
}

impl Rows {
    pub(crate) fn new(_: &Disk, only: &[String]) -> Self {
        Self { runs: BTreeMap::new(), only: only.to_vec() }
    }

    /// Every way once.
    pub(crate) fn round(&mut self, round: usize, disk: &Disk, server: &Server, node: &Node) -> Result<(), Failure> {
        for way in WAYS.iter().filter(|way| self.only.is_empty() || self.only.iter().any(|only| only == way.name)) {
            let run = once(way, disk, server, node)?;
            say(&format!(
                "{} round {round}: {:13} {:7.2} s, {:6.2} s CPU ({:.2} others), {} MB served, {} MB shipped, {} MiB peak",
                disk.name,
                way.name,
                run.seconds,
                run.cpu,
                run.others,
                run.served / 1_000_000,
                run.shipped / 1_000_000,
                run.peak_kib >> 10
            ));
            self.runs.entry(way.name).or_default().push(run);
        }
        Ok(())
    }

    /// The median of something of a way; none where it did not run.
    pub(crate) fn median(&self, name: &str, of: impl Fn(&Run) -> f64) -> Option<f64> {
        let mut values: Vec<f64> = self.runs.get(name)?.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

/// What people type; nothing where it is recast's own process that is measured.
fn command(way: &Way, disk: &Disk, server: &Server, node: &Node) -> String {
    let volume = node.volumes.join(VOLUME);
    let (out, at, here) = (volume.display(), node.volumes.display(), node.here.display());
    let (ssh, scp) = node.ssh();
    let url = |suffix: &str| server.url(&format!("{}.{suffix}", disk.name));
    let fetch = "curl -sSfL";
    let flush = format!("sync -f {at}");
    match way.name {
        "on-node" => format!(
            "{ssh} 'cd {at} && {fetch} -o d.raw.xz {} && xz -d d.raw.xz && \
             qemu-img convert -f raw -O raw d.raw {out} && {flush}'",
            url("raw.xz")
        ),
        "workstation" => format!(
            "cd {here} && {fetch} -o d.raw.xz {} && unxz d.raw.xz && {scp} d.raw {}@127.0.0.1:{at}/d.raw && \
             {ssh} 'cd {at} && qemu-img convert -f raw -O raw d.raw {out} && {flush}'",
            url("raw.xz"),
            node.user
        ),
        "pipe" => format!("{fetch} {} | xz -dc | {ssh} 'dd of={out} bs=4M status=none && {flush}'", url("raw.xz")),
        "pipe-best" => format!(
            "{fetch} {} | {ssh} 'xz -T2 -dc | dd of={out} bs=1M conv=sparse status=none && truncate -s {} {out} && {flush}'",
            url("raw.xz"),
            disk.bytes
        ),
        "zst" => format!(
            "{ssh} 'cd {at} && {fetch} -o d.zst {} && zstd -q -dc d.zst > d.img && \
             qemu-img convert -f raw -O raw d.img {out} && {flush}'",
            url("raw.zst")
        ),
        "qcow2" => format!(
            "{ssh} 'cd {at} && {fetch} -o d.qcow2 {} && qemu-img convert -f qcow2 -O raw d.qcow2 {out} && {flush}'",
            url("qcow2")
        ),
        "xz-1" => format!("xz -T1 -dc {} > /dev/null", disk.raw.with_extension("raw.xz").display()),
        _ => String::new(),
    }
}

fn once(way: &Way, disk: &Disk, server: &Server, node: &Node) -> Result<Run, Failure> {
    let volumes = &node.volumes;
    for folder in [volumes, &node.here] {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
    }
    let mut made = match way.name {
        "walk" | "xz-1" => Vec::new(),
        "recast-ssh-4" => (1..=4).map(|n| volumes.join(format!("vm-90{n}-recast-bench.raw"))).collect(),
        _ => vec![volumes.join(VOLUME)],
    };
    let part = part(way.name, disk, server, node, &made)?;
    let through_api = matches!(way.name, "recast-upload" | "recast-pull");
    if through_api {
        clear(node)?;
    }
    // What the last way left to be written is not this one's.
    shell("sync")?;
    let spent = || ticks(std::process::id()) + node.ticks();
    let before = [spent(), busy(), served(), looped()];
    let begun = Instant::now();
    let mut run = Run::default();
    if let Some(words) = part {
        let done = Command::new(std::env::current_exe()?).arg("part").args(words).output()?;
        if !done.status.success() {
            return Err(format!("{}: {}", way.name, String::from_utf8_lossy(&done.stderr)).into());
        }
        if way.name != "walk" {
            shell(&format!("sync -f {}", volumes.display()))?;
        }
        run.peak_kib = String::from_utf8(done.stdout)?.trim().parse()?;
    } else {
        shell(&command(way, disk, server, node)).map_err(|error| format!("{}: {error}", way.name))?;
    }
    run.seconds = begun.elapsed().as_secs_f64();
    let [all, fetched, looped] = [busy() - before[1], served() - before[2], looped() - before[3]];
    let own = spent() - before[0];
    #[expect(clippy::cast_precision_loss, reason = "hundredths of seconds")]
    let seconds = |ticks: u64| ticks as f64 / 100.0;
    run.cpu = seconds(own);
    run.others = seconds(all.saturating_sub(own));
    run.served = fetched;
    run.shipped = looped.saturating_sub(fetched);
    if through_api {
        made = vec![node.volume_of(disk.bytes)?];
    }
    for volume in &made {
        same(&disk.raw, volume)?;
    }
    Ok(run)
}

/// What recast's own process is told; none where it has no part.
fn part(
    name: &str,
    disk: &Disk,
    server: &Server,
    node: &Node,
    volumes: &[PathBuf],
) -> Result<Option<Vec<String>>, Failure> {
    let cache = node.here.join("cache");
    let xz = server.https(&format!("{}.raw.xz", disk.name));
    let common = vec![format!("url={xz}"), format!("ca={}", server.ca.display()), format!("cache={}", cache.display())];
    let [address, token, secret, fingerprint] = node.api()?;
    let api = vec![
        format!("api={address}"),
        format!("token={token}"),
        format!("secret={secret}"),
        format!("fingerprint={fingerprint}"),
    ];
    let words = match name {
        "recast-ssh" | "recast-ssh-4" => {
            let volumes: Vec<String> = volumes.iter().map(|volume| volume.display().to_string()).collect();
            let own = vec![
                "ssh".to_owned(),
                format!("volumes={}", volumes.join(",")),
                format!("port={}", node.port),
                format!("user={}", node.user),
                format!("key={}", node.key.display()),
                format!("host_key={}", node.host_key),
            ];
            [own, common].concat()
        }
        "recast-upload" => [vec!["upload".to_owned()], common, api].concat(),
        "recast-pull" => {
            let qcow2 = disk.raw.with_extension("qcow2");
            let own = vec![
                "pull".to_owned(),
                format!("url={}", server.url(&format!("{}.qcow2", disk.name))),
                // The lock has it: an earlier run saw the file.
                format!("sha256={}", sha256(&qcow2)?),
            ];
            [own, api].concat()
        }
        "walk" => vec!["walk".to_owned(), format!("file={}", disk.raw.with_extension("raw.xz").display())],
        _ => return Ok(None),
    };
    Ok(Some(words))
}

fn clear(node: &Node) -> Result<(), Failure> {
    let [address, token, secret, fingerprint] = node.api()?;
    let done = Command::new(std::env::current_exe()?)
        .args(["part", "upload", "clear=1"])
        .arg(format!("api={address}"))
        .arg(format!("token={token}"))
        .arg(format!("secret={secret}"))
        .arg(format!("fingerprint={fingerprint}"))
        .output()?;
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned().into()) }
}

fn sha256(path: &Path) -> Result<String, Failure> {
    let (mut file, mut digest, mut piece) = (File::open(path)?, sha2::Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hex::encode(digest.finalize())),
            read => digest.update(&piece[..read]),
        }
    }
}

/// Compares the whole of both.
fn same(one: &Path, other: &Path) -> Result<(), Failure> {
    let mut files = [File::open(one)?, File::open(other)?];
    let mut pieces = [vec![0; 4 << 20], vec![0; 4 << 20]];
    let mut at = 0_u64;
    loop {
        let mut read = [0; 2];
        for index in 0..2 {
            while read[index] < pieces[index].len() {
                match files[index].read(&mut pieces[index][read[index]..])? {
                    0 => break,
                    more => read[index] += more,
                }
            }
        }
        if read[0] != read[1] || pieces[0][..read[0]] != pieces[1][..read[1]] {
            return Err(format!("{} differs from the disk after {at} bytes", other.display()).into());
        }
        if read[0] == 0 {
            return Ok(());
        }
        at += read[0] as u64;
    }
}
