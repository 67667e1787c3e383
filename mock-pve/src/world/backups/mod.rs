//! Backups of VMs.
//!
//! Purpose: what `vzdump` and a restore do: whole archives with a guest's real bytes, how many of them stay, and the way
//! back. Must not know: requests. Rules after Proxmox VE 8.4 (PVE/VZDump.pm, PVE/VZDump/QemuServer.pm, PVE/Storage.pm).
//! Start at [`job::Job`], then `guest.rs` for one VM's backup and `restore.rs` for the way back.

mod bring;
mod conf;
mod grip;
mod guest;
pub mod job;
pub mod names;
pub mod notes;
pub mod prune;
pub mod restore;
pub mod retention;
pub mod schedule;
mod shelf;
mod source;
mod write;

/// `12.3 GiB`, as the original prints bytes.
fn rendered(bytes: u64, digits: usize) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = (bytes.max(1).ilog2() / 10).min(5);
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let value = bytes as f64 / (1_u64 << (10 * unit)) as f64;
    format!("{value:.digits$} {}", units[usize::try_from(unit).unwrap_or(0)])
}

/// The same a second.
fn speed(bytes: u64, seconds: u64) -> String {
    if bytes == 0 { "0 B/s".to_owned() } else { format!("{}/s", rendered(bytes / seconds.max(1), 1)) }
}

/// `1h 2m 3s`.
fn duration(seconds: u64) -> String {
    let parts = [(seconds / 3600, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown: Vec<String> =
        parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

/// The size of an archive, in the original's own old units.
fn archive_size(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let gigabytes = bytes as f64 / f64::from(1_u32 << 30);
    match bytes {
        0..0x10_0000 => format!("{}KB", bytes >> 10),
        0x10_0000..0x4000_0000 => format!("{}MB", bytes >> 20),
        _ if gigabytes < 1024.0 => format!("{gigabytes:.2}GB"),
        _ => format!("{:.2}TB", gigabytes / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_as_the_originals() {
        assert_eq!((rendered(0, 2), rendered(1 << 30, 1)), ("0.00 B".to_owned(), "1.0 GiB".to_owned()));
        assert_eq!((speed(0, 3), speed(3 << 20, 3)), ("0 B/s".to_owned(), "1.0 MiB/s".to_owned()));
        assert_eq!((duration(0), duration(3723)), ("0s".to_owned(), "1h 2m 3s".to_owned()));
        assert_eq!((archive_size(2048), archive_size(5 << 20)), ("2KB".to_owned(), "5MB".to_owned()));
        assert_eq!(archive_size(3 << 29), "1.50GB");
    }
}
