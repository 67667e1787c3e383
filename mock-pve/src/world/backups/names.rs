//! What archives are called, and what their names say.

use crate::vma::Packing;

/// What an archive's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archive {
    /// `qemu`, `lxc`, `openvz`.
    pub kind: String,
    /// The rest, if the name is one that the original gives.
    pub standard: Option<Standard>,
}

/// What a name that the original gives says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standard {
    /// The guest.
    pub vmid: u32,
    /// Unix time.
    pub ctime: u64,
    /// The name without its extension.
    pub stem: String,
}

const EXTENSIONS: [&str; 11] =
    ["tar.gz", "tar.lzo", "tar.zst", "tar.bz2", "vma.gz", "vma.lzo", "vma.zst", "vma.bz2", "tgz", "tar", "vma"];

/// The extension of an archive; `None`: it can't be one.
pub fn extension(file: &str) -> Option<&'static str> {
    EXTENSIONS
        .into_iter()
        .find(|known| file.strip_suffix(known).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')))
}

fn kind_of(file: &str) -> Option<(&'static str, &str)> {
    let rest = file.strip_prefix("vzdump-")?;
    ["lxc", "openvz", "qemu"].into_iter().find_map(|kind| Some((kind, rest.strip_prefix(kind)?.strip_prefix('-')?)))
}

/// The guest that an archive belongs to.
pub fn owner(file: &str) -> Option<u32> {
    let (number, rest) = kind_of(file)?.1.split_once('-')?;
    if rest.is_empty() { None } else { number.parse().ok() }
}

/// Understands an archive's name; `None`: the original wouldn't take it for one.
pub fn archive(file: &str) -> Option<Archive> {
    let extension = extension(file)?;
    let (kind, rest) = kind_of(file)?;
    let rest = rest.strip_suffix(extension)?.strip_suffix('.')?;
    if rest.is_empty() {
        return None;
    }
    Some(Archive { kind: kind.to_owned(), standard: standard(kind, rest) })
}

fn standard(kind: &str, rest: &str) -> Option<Standard> {
    let (number, time) = rest.split_once('-')?;
    let digits = (3..=9).contains(&number.len()) && !number.starts_with('0');
    let vmid = number.parse().ok().filter(|_| digits)?;
    let at = jiff::civil::DateTime::strptime("%Y_%m_%d-%H_%M_%S", time).ok()?;
    if at.strftime("%Y_%m_%d-%H_%M_%S").to_string() != time {
        return None;
    }
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    Some(Standard { vmid, ctime: u64::try_from(at).ok()?, stem: format!("vzdump-{kind}-{rest}") })
}

/// A moment; years beyond all clocks are shown as the last one.
pub fn moment(time: u64) -> jiff::Timestamp {
    i64::try_from(time).ok().and_then(|time| jiff::Timestamp::from_second(time).ok()).unwrap_or(jiff::Timestamp::MAX)
}

/// A time as logs show it.
pub fn shown(time: u64) -> String {
    moment(time).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The name of a new archive without its extension.
pub(super) fn stem(vmid: u32, time: u64) -> String {
    format!("vzdump-qemu-{vmid}-{}", moment(time).strftime("%Y_%m_%d-%H_%M_%S"))
}

/// The name of a new archive.
pub(super) fn file(stem: &str, packing: Packing) -> String {
    format!("{stem}.vma{}", packing.suffix())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_original_gives_say_whose_and_when() {
        let name = file(&stem(100, 1_700_000_000), Packing::Zstd);
        assert_eq!(name, "vzdump-qemu-100-2023_11_14-22_13_20.vma.zst");
        let known = archive(&name).unwrap();
        assert_eq!(known.kind, "qemu");
        assert_eq!(known.standard.map(|it| (it.vmid, it.ctime)), Some((100, 1_700_000_000)));
        assert_eq!((extension(&name), owner(&name)), (Some("vma.zst"), Some(100)));
        let renamed = archive("vzdump-qemu-100-before-upgrade.vma").unwrap();
        assert_eq!((renamed.standard, owner("vzdump-qemu-100-before-upgrade.vma")), (None, Some(100)));
        assert_eq!(archive("vzdump-qemu-100-2023_13_14-22_13_20.vma").unwrap().standard, None);
        for foreign in ["x.vma", "vzdump-qemu-.vma", "vzdump-qemu-100-x.log", "vzdump-vbox-100-x.vma", ".vma"] {
            assert_eq!(archive(foreign), None, "{foreign}");
        }
        assert_eq!((extension("x.vma"), extension("x.vma.notes"), extension(".vma")), (Some("vma"), None, None));
    }
}
