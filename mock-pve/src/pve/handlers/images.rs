//! What came up or down: whether a file is what its name says.

use std::path::Path;

use super::arrival::blocking;
use crate::world::qcow2;
use crate::world::refusal::{Refusal, Rule};
use crate::world::state::VolumeKey;
use crate::world::work::Work;

/// Refuses a file that isn't what its name says, or that needs another one; `shown` is where the node has it (pve-storage
/// 8, PVE/Storage/Plugin.pm, `file_size_info`).
pub(super) async fn verify(work: &Work, key: &VolumeKey, file: &Path, shown: &str) -> Rule<()> {
    let (folder, name) = key.name.split_once('/').unwrap_or_default();
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    let format = match (folder, extension) {
        ("iso", _) => None,
        ("import", "qcow2" | "vmdk") => Some(extension),
        _ => return Ok(()),
    };
    let path = file.to_owned();
    let fault = if format == Some("vmdk") {
        let known = blocking(move || is_vmdk(&path)).await?;
        (!known).then_some("invalid VMDK image descriptor")
    } else {
        let info = blocking(move || qcow2::info(&path)).await;
        if info.as_ref().is_ok_and(|info| info.backing) {
            return Err(Refusal::failed(format!("backing file not allowed for untrusted image '{shown}'!\n")));
        }
        let fits = format.is_none() || info.is_ok_and(|info| Some(info.format) == format);
        (!fits).then_some("Image is not in qcow2 format")
    };
    let Some(fault) = fault else { return Ok(()) };
    let format = format.unwrap_or_default();
    work.log(format!("command '/usr/bin/qemu-img info '--output=json' {shown} -f {format}' failed: exit code 1"));
    Err(Refusal::failed(format!("qemu-img: Could not open '{shown}': {fault}\n")))
}

/// The names in a tar archive; none: it is no such archive.
pub(super) fn tar_members(path: &Path) -> std::io::Result<Option<Vec<String>>> {
    use std::os::unix::fs::FileExt as _;
    const BLOCK: usize = 512;
    let octal = |text: &[u8]| {
        let text = String::from_utf8_lossy(text);
        u64::from_str_radix(text.trim_matches([' ', '\0']), 8).ok()
    };
    let file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    let (mut names, mut at) = (Vec::new(), 0_u64);
    let mut head = [0_u8; BLOCK];
    while at.saturating_add(BLOCK as u64) <= length {
        file.read_exact_at(&mut head, at)?;
        if head == [0; BLOCK] {
            return Ok(Some(names));
        }
        let sum: u64 = head
            .iter()
            .enumerate()
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u64::from(*byte) })
            .sum();
        let (Some(size), true) = (octal(&head[124..136]), octal(&head[148..156]) == Some(sum)) else {
            return Ok((!names.is_empty()).then_some(names));
        };
        let name = head[..100].split(|byte| *byte == 0).next().unwrap_or_default();
        names.push(String::from_utf8_lossy(name).into_owned());
        at = at.saturating_add(BLOCK as u64).saturating_add(size.div_ceil(BLOCK as u64).saturating_mul(BLOCK as u64));
    }
    Ok((!names.is_empty()).then_some(names))
}

/// Whether a file begins as an image of that kind does, or as the text that describes one.
fn is_vmdk(file: &Path) -> std::io::Result<bool> {
    let mut head = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(std::fs::File::open(file)?, 2048), &mut head)?;
    let known = [&b"KDMV"[..], &b"COWD"[..]].iter().any(|magic| head.starts_with(magic));
    Ok(known || String::from_utf8_lossy(&head).contains("createType"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    /// A member of a tar archive without anything in it.
    fn member(name: &str) -> Vec<u8> {
        let mut head = vec![0_u8; 512];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[124..135].fill(b'0');
        head[148..156].fill(b' ');
        let sum: u64 = head.iter().map(|byte| u64::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        head
    }

    #[test]
    fn only_a_tar_archive_has_members() {
        for wrong in [Vec::new(), b"text".repeat(100), b"text".repeat(1000)] {
            assert_eq!(tar_members(file(&wrong).path()).unwrap(), None);
        }
        let good = [member("disk.vmdk"), member("vm.ovf"), vec![0; 1024]].concat();
        let names = ["disk.vmdk", "vm.ovf"].map(str::to_owned).to_vec();
        assert_eq!(tar_members(file(&good).path()).unwrap(), Some(names));
        assert_eq!(tar_members(file(&[0; 1024]).path()).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn a_vmdk_says_that_it_is_one() {
        for (bytes, is) in [
            (&b"KDMV and more"[..], true),
            (&b"# Disk DescriptorFile\ncreateType=\"monolithicFlat\"\n"[..], true),
            (&b"text"[..], false),
            (&b""[..], false),
        ] {
            assert_eq!(is_vmdk(file(bytes).path()).unwrap(), is);
        }
    }
}
