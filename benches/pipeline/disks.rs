//! Disks in the layout of Talos images, made of what is on this computer.
//!
//! The payload stands for kernel and initramfs: this system's programs as zstd data of level 18, as the imager makes it,
//! which no packer makes smaller. In `t111` it is there twice, as dual-boot images have it.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, say};

const MIB: u64 = 1 << 20;
/// Kernel and initramfs together.
const PAYLOAD: u64 = 103 * MIB;

/// A disk with its encodings, `<name>.raw`, `.raw.xz`, `.raw.zst`, `.qcow2`.
pub(crate) struct Disk {
    pub(crate) name: String,
    pub(crate) raw: PathBuf,
    pub(crate) bytes: u64,
    /// Size of the `.raw.xz`.
    pub(crate) packed: u64,
}

/// Name, first MiB, size in MiB.
type Partition = (&'static str, u64, u64);

/// A disk's size in MiB, its partitions, and where payloads begin.
fn shape(name: &str) -> Result<(u64, Vec<Partition>, Vec<u64>), Failure> {
    match name {
        // Talos 1.6 to 1.9, GRUB.
        "t19" => Ok((1246, vec![("EFI", 1, 100), ("BIOS", 101, 1), ("BOOT", 102, 1000), ("META", 1102, 1)], vec![110])),
        // Talos 1.11 and later, dual boot.
        "t111" => Ok((
            4247,
            vec![("EFI", 1, 2101), ("BIOS", 2102, 1), ("BOOT", 2103, 2000), ("META", 4103, 1)],
            vec![9, 2111],
        )),
        other => Err(format!("no disk is called {other}").into()),
    }
}

/// The disk of this name, made if it is not there.
pub(crate) fn make(name: &str, folder: &Path) -> Result<Disk, Failure> {
    let raw = folder.join(format!("{name}.raw"));
    let (mib, partitions, payloads) = shape(name)?;
    if !raw.exists() {
        say(&format!("making {name}"));
        let payload = payload(folder)?;
        let file = File::create(raw.with_extension("part"))?;
        file.set_len(mib * MIB)?;
        // Every file system has something at its beginning and, here and there, in its middle.
        for (index, (_, first, size)) in partitions.iter().enumerate().filter(|(_, (_, _, size))| *size > 1) {
            for step in 0..4 {
                let block = vec![u8::try_from(index + 1)?; 16 << 10];
                file.write_all_at(&block, (first + size / 4 * step) * MIB + 4096)?;
            }
        }
        for at in payloads {
            file.write_all_at(&payload, at * MIB)?;
        }
        table(&file, mib, &partitions)?;
        file.sync_all()?;
        fs::rename(raw.with_extension("part"), &raw)?;
    }
    let path = |suffix: &str| folder.join(format!("{name}.{suffix}"));
    pack(&path("raw.xz"), &format!("xz -0 -T0 -c {}", raw.display()))?;
    // The payload can't be packed further: a higher level changes nothing but the time that it takes.
    pack(&path("raw.zst"), &format!("zstd -q -3 -T0 -c {}", raw.display()))?;
    if !path("qcow2").exists() {
        let to = path("qcow2");
        shell(&format!("qemu-img convert -f raw -O qcow2 -o cluster_size=8192 {} {}", raw.display(), to.display()))?;
    }
    let packed = fs::metadata(path("raw.xz"))?.len();
    Ok(Disk { name: name.to_owned(), raw, bytes: mib * MIB, packed })
}

fn pack(to: &Path, command: &str) -> Result<(), Failure> {
    if to.exists() {
        return Ok(());
    }
    let part = to.with_extension("part");
    shell(&format!("{command} > {}", part.display()))?;
    Ok(fs::rename(part, to)?)
}

pub(crate) fn shell(command: &str) -> Result<(), Failure> {
    let done = Command::new("sh").args(["-ec", command]).status()?;
    if done.success() { Ok(()) } else { Err(format!("{done}: {command}").into()) }
}

fn payload(folder: &Path) -> Result<Vec<u8>, Failure> {
    let path = folder.join("payload");
    if !path.exists() {
        // The end of the stream is cut off, which tar and zstd complain about in vain.
        let sources = "/usr/bin /usr/lib /usr/share /usr/local";
        shell(&format!(
            "(tar -cf - {sources} 2>/dev/null | zstd -q -18 -T0 -c | head -c {PAYLOAD} > {}) || true",
            path.display()
        ))?;
    }
    let mut bytes = Vec::new();
    File::open(&path)?.read_to_end(&mut bytes)?;
    if (bytes.len() as u64) < PAYLOAD {
        return Err(format!("the programs of this computer make only {} bytes", bytes.len()).into());
    }
    Ok(bytes)
}

/// Protective MBR and both halves of the GUID partition table.
fn table(file: &File, mib: u64, partitions: &[Partition]) -> Result<(), Failure> {
    let mut boot = [0; 512];
    boot[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    boot[510..].copy_from_slice(&[0x55, 0xaa]);
    file.write_all_at(&boot, 0)?;
    let mut entries = vec![0; 128 * 128];
    for (index, (name, first, size)) in partitions.iter().enumerate() {
        let entry = &mut entries[index * 128..][..128];
        entry[..16].fill(0xa5);
        entry[16..32].fill(u8::try_from(index + 1)?);
        entry[32..40].copy_from_slice(&(first * 2048).to_le_bytes());
        entry[40..48].copy_from_slice(&((first + size) * 2048 - 1).to_le_bytes());
        for (at, unit) in name.encode_utf16().enumerate() {
            entry[56 + 2 * at..][..2].copy_from_slice(&unit.to_le_bytes());
        }
    }
    let last = mib * 2048 - 1;
    for (mine, other, table) in [(1, last, 2), (last, 1, last - 32)] {
        let mut header = [0; 512];
        header[..8].copy_from_slice(b"EFI PART");
        header[8..12].copy_from_slice(&[0, 0, 1, 0]);
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        for (at, value) in [(24, mine), (32, other), (40, 34), (48, last - 33), (72, table)] {
            header[at..at + 8].copy_from_slice(&u64::to_le_bytes(value));
        }
        header[80..84].copy_from_slice(&128_u32.to_le_bytes());
        header[84..88].copy_from_slice(&128_u32.to_le_bytes());
        header[88..92].copy_from_slice(&crc32fast::hash(&entries).to_le_bytes());
        let crc = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        file.write_all_at(&header, mine * 512)?;
        file.write_all_at(&entries, table * 512)?;
    }
    Ok(())
}
