//! PVE's own syntax for the values of a VM's configuration: drives, network devices, boot order, tags, sizes.
//!
//! Purpose: read, compare and print them in one place, for the plan that writes them and the client that sends them.
//! Compare parsed values, never texts: PVE stores most of them exactly as they were sent. Pure. Must not know: HTTP, plans.
//! Start reading at [`Properties`], then [`Disk`] and [`Nic`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::types::{Mac, Malformed, StorageId, VolumeId};

/// Whether a property string's boolean is on.
pub fn is_on(text: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|on| text.eq_ignore_ascii_case(on))
}

/// Whether a configuration key holds a drive: disks, CD-ROMs, EFI and TPM state, and the detached (`unused0` …).
pub fn is_drive(key: &str) -> bool {
    ["scsi", "virtio", "sata", "ide", "efidisk", "tpmstate", "unused"].iter().any(|bus| is_numbered(key, bus))
}

/// Whether a configuration key holds a network device.
pub fn is_nic(key: &str) -> bool {
    is_numbered(key, "net")
}

/// Whether a key is `prefix` with a number (`scsihw` is not `scsi`).
fn is_numbered(key: &str, prefix: &str) -> bool {
    key.strip_prefix(prefix)
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether two values of a configuration key mean the same. PVE reorders the parts of NICs, drives and tags, stores other
/// values as sent, and gives a cloud-init drive a volume's name.
pub fn same(key: &str, now: &str, wanted: &str) -> bool {
    match key {
        _ if now == wanted => true,
        "tags" => Tags::parse(now) == Tags::parse(wanted),
        "description" => now.trim() == wanted.trim(),
        _ if is_drive(key) => match (now.parse::<Disk>(), wanted.parse::<Disk>()) {
            (Ok(now), Ok(wanted)) if now.is_cloudinit() && wanted.is_cloudinit() => now.storage() == wanted.storage(),
            (now, wanted) => now.is_ok() && now == wanted,
        },
        _ if is_nic(key) => {
            let (now, wanted) = (now.parse::<Nic>(), wanted.parse::<Nic>());
            now.is_ok() && now == wanted
        }
        _ => {
            let parts = |text: &str| {
                text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect::<BTreeSet<_>>()
            };
            parts(now) == parts(wanted)
        }
    }
}

/// A property string: a value without a name (of the default key) and named ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The piece without `=`.
    pub bare: Option<String>,
    /// The others, by name.
    pub named: BTreeMap<String, String>,
}

impl Properties {
    /// A named value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.named.get(key).map(String::as_str)
    }

    /// Whether a named boolean is on.
    pub fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(is_on)
    }
}

impl FromStr for Properties {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parsed = Self::default();
        for piece in text.split(',').map(str::trim).filter(|piece| !piece.is_empty()) {
            let twice = match piece.split_once('=') {
                Some((key, value)) => parsed.named.insert(key.to_owned(), value.to_owned()).is_some(),
                None => parsed.bare.replace(piece.to_owned()).is_some(),
            };
            if twice {
                return Err(Malformed::new(text, "a property string with each property once"));
            }
        }
        Ok(parsed)
    }
}

impl fmt::Display for Properties {
    /// The default key first, the others by name, as PVE prints them (PVE/JSONSchema.pm `print_property_string`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = self.bare.iter().cloned();
        let named = self.named.iter().map(|(key, value)| format!("{key}={value}"));
        f.write_str(&bare.chain(named).collect::<Vec<_>>().join(","))
    }
}

/// A drive of a VM: `local-lvm:vm-100-disk-0,discard=on,size=10G`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What it holds: a volume id, an absolute path, `none`, or on creation `storage:GiB` and `storage:cloudinit`.
    pub file: String,
    /// The options.
    pub options: BTreeMap<String, String>,
}

impl Disk {
    /// A disk to be created by importing a volume: `storage:0,import-from=…`.
    pub fn import(storage: &StorageId, source: &VolumeId) -> Self {
        let options = [("import-from".to_owned(), source.to_string())].into();
        Self { file: format!("{storage}:0"), options }
    }

    /// With an option.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.options.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Its volume, unless it is empty or a path of the host.
    pub fn volume(&self) -> Option<VolumeId> {
        (self.file.contains(':') && !self.file.starts_with('/')).then(|| VolumeId::new(self.file.as_str()))
    }

    /// The storage its volume is on.
    pub fn storage(&self) -> Option<StorageId> {
        self.volume()?.as_str().split_once(':').map(|(storage, _)| StorageId::new(storage))
    }

    /// Its size in bytes, as recorded in the configuration.
    pub fn size(&self) -> Option<u64> {
        self.options.get("size").and_then(|size| parse_size(size))
    }

    /// Whether it is a CD-ROM drive, the cloud-init one included.
    pub fn is_cdrom(&self) -> bool {
        self.options.get("media").is_some_and(|media| media == "cdrom")
    }

    /// Whether it is a drive whose medium is nobody's own: a CD-ROM drive, but not the cloud-init one.
    pub fn holds_medium(&self) -> bool {
        self.is_cdrom() && !self.is_cloudinit()
    }

    /// Whether it holds cloud-init data.
    pub fn is_cloudinit(&self) -> bool {
        let name = self.file.rsplit([':', '/']).next().unwrap_or_default();
        name == "cloudinit"
            || (name.starts_with("vm-") && name.split('.').next().is_some_and(|stem| stem.ends_with("-cloudinit")))
    }
}

impl FromStr for Disk {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let Properties { bare, named: mut options } = text.parse()?;
        // `file=` is the default key's long name, `volume=` its alias.
        let file = bare.or_else(|| options.remove("file")).or_else(|| options.remove("volume"));
        let file = file.ok_or_else(|| Malformed::new(text, "a drive with a volume"))?;
        Ok(Self { file, options })
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Properties { bare: Some(self.file.clone()), named: self.options.clone() }.fmt(f)
    }
}

/// A network device: `virtio=BC:24:11:AA:BB:CC,bridge=vmbr0,tag=20`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// The card's model.
    pub model: String,
    /// Its address. **Without one PVE makes a new one on every update.**
    pub mac: Option<Mac>,
    /// The options: `bridge`, `tag`, `firewall`, `mtu`, `link_down` …
    pub options: BTreeMap<String, String>,
}

impl Nic {
    /// The bridge or vnet it is plugged into.
    pub fn bridge(&self) -> Option<&str> {
        self.options.get("bridge").map(String::as_str)
    }

    /// The VLAN tag.
    pub fn tag(&self) -> Option<u16> {
        self.options.get("tag").and_then(|tag| tag.parse().ok())
    }

    /// With an option.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.options.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Without an option.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        self.options.remove(key);
        self
    }

    /// With another address.
    #[must_use]
    pub fn addressed(self, mac: Mac) -> Self {
        Self { mac: Some(mac), ..self }
    }
}

const NIC_MODELS: &[&str] = &[
    "e1000",
    "e1000-82540em",
    "e1000-82544gc",
    "e1000-82545em",
    "e1000e",
    "i82551",
    "i82557b",
    "i82559er",
    "ne2k_isa",
    "ne2k_pci",
    "pcnet",
    "rtl8139",
    "virtio",
    "vmxnet3",
];

impl FromStr for Nic {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let Properties { bare, named: mut options } = text.parse()?;
        let known = options.keys().find(|key| NIC_MODELS.contains(&key.as_str())).cloned();
        let (model, mac) = if let Some(model) = known {
            let mac = options.remove(&model);
            (model, mac)
        } else {
            let model = bare.or_else(|| options.remove("model"));
            (model.ok_or_else(|| Malformed::new(text, "a network device with a model"))?, options.remove("macaddr"))
        };
        Ok(Self { model, mac: mac.map(|mac| mac.parse()).transpose()?, options })
    }
}

impl fmt::Display for Nic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = match self.mac {
            Some(mac) => format!("{}={mac}", self.model),
            None => self.model.clone(),
        };
        Properties { bare: Some(first), named: self.options.clone() }.fmt(f)
    }
}

/// The devices a VM boots from, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BootOrder(pub Vec<String>);

impl FromStr for BootOrder {
    type Err = Malformed;

    /// Reads `order=scsi0;net0`; an empty text boots nothing. The old letters (`cdn`) name no device and give nothing.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let parsed: Properties = text.parse()?;
        let order = parsed.get("order").unwrap_or_default();
        Ok(Self(order.split(';').filter(|device| !device.is_empty()).map(str::to_owned).collect()))
    }
}

impl fmt::Display for BootOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, "order={}", self.0.join(";")) }
    }
}

/// The tags of a guest: a set, lower case. PVE itself lower-cases and sorts unless told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(pub BTreeSet<String>);

impl Tags {
    /// Reads tags separated by `;`, `,` or blanks.
    pub fn parse(text: &str) -> Self {
        Self(text.split([';', ',', ' ']).filter(|tag| !tag.is_empty()).map(str::to_lowercase).collect())
    }

    /// Whether all of `wanted` are among them.
    pub fn contains_all<'a>(&self, wanted: impl IntoIterator<Item = &'a str>) -> bool {
        wanted.into_iter().all(|tag| self.0.contains(&tag.to_lowercase()))
    }
}

impl fmt::Display for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().cloned().collect::<Vec<_>>().join(";"))
    }
}

/// A size in bytes from PVE's spelling: `10G`, `528K`, `1.5T`, `4194304`; units are binary.
pub fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim_end_matches("iB").trim() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return None,
    };
    if let Ok(whole) = digits.parse::<u64>() {
        return whole.checked_mul(1 << shift);
    }
    let fraction = digits.parse::<f64>().ok().filter(|size| size.is_finite() && *size >= 0.0)?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a decimal size is approximate as written"
    )]
    Some((fraction * (1_u64 << shift) as f64) as u64)
}

/// A size in the largest unit that gives a whole number, as PVE prints it.
pub fn print_size(bytes: u64) -> String {
    for (shift, unit) in [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')] {
        if bytes > 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_are_read_and_printed_as_pve_stores_them() {
        for stored in [
            "local-lvm:vm-100-disk-0,discard=on,iothread=1,size=10G,ssd=1",
            "vmstore:120/vm-120-disk-0.raw,efitype=4m,pre-enrolled-keys=0,size=528K",
            "none,media=cdrom",
        ] {
            assert_eq!(stored.parse::<Disk>().unwrap().to_string(), stored);
        }
        let disk: Disk = "file=local-lvm:vm-100-disk-0,size=4M".parse().unwrap();
        assert_eq!((disk.storage(), disk.size()), (Some("local-lvm".into()), Some(4 << 20)));
        assert_eq!("none,media=cdrom".parse::<Disk>().unwrap().volume(), None);
        for (drive, cloudinit) in [
            ("local-lvm:vm-100-cloudinit,media=cdrom", true),
            ("vmstore:100/vm-100-cloudinit.qcow2,media=cdrom", true),
            ("local-lvm:cloudinit", true),
            ("local:iso/my-cloudinit.iso,media=cdrom", false),
            ("local-lvm:vm-100-disk-0", false),
        ] {
            let disk: Disk = drive.parse().unwrap();
            assert_eq!(disk.is_cloudinit(), cloudinit, "{drive}");
            assert_eq!(disk.holds_medium(), drive.starts_with("local:iso/"), "{drive}");
        }
        assert!("a:b,size=1G,size=2G".parse::<Disk>().is_err());
        let import = Disk::import(&"lvm".into(), &"local:import/t.qcow2".into()).with("discard", "on");
        assert_eq!(import.to_string(), "lvm:0,discard=on,import-from=local:import/t.qcow2");
    }

    #[test]
    fn network_devices_keep_their_mac_in_both_spellings() {
        let nic: Nic = "virtio=BC:24:11:AA:BB:CC,bridge=vmbr0,tag=20".parse().unwrap();
        assert_eq!((nic.model.as_str(), nic.bridge(), nic.tag()), ("virtio", Some("vmbr0"), Some(20)));
        assert_eq!("model=virtio,macaddr=bc:24:11:aa:bb:cc,bridge=vmbr0,tag=20".parse::<Nic>().unwrap(), nic);
        assert_eq!(nic.to_string(), "virtio=BC:24:11:AA:BB:CC,bridge=vmbr0,tag=20");
        assert_eq!("virtio,bridge=vmbr0".parse::<Nic>().unwrap().mac, None);
        assert!("bridge=vmbr0".parse::<Nic>().is_err());
    }

    #[test]
    fn values_are_compared_by_meaning() {
        for (key, now, wanted, alike) in [
            ("tags", "controlplane;single;talos", "talos;single;Controlplane", true),
            (
                "net0",
                "virtio=BC:24:11:00:12:01,bridge=vmbr0,firewall=1",
                "virtio=bc:24:11:00:12:01,firewall=1,bridge=vmbr0",
                true,
            ),
            ("net0", "virtio=BC:24:11:00:12:01,bridge=vmbr1", "virtio=BC:24:11:00:12:01,bridge=vmbr0", false),
            ("ide2", "local-lvm:vm-100-cloudinit,media=cdrom,size=4M", "local-lvm:cloudinit", true),
            ("ide2", "local:100/vm-100-cloudinit.qcow2,media=cdrom", "local-lvm:cloudinit", false),
            ("description", "a\nb\n", "a\nb", true),
            ("ipconfig0", "gw=10.0.0.1,ip=10.0.0.5/24", "ip=10.0.0.5/24,gw=10.0.0.1", true),
            ("cores", "2", "4", false),
        ] {
            assert_eq!(same(key, now, wanted), alike, "{key}: {now} {wanted}");
        }
    }

    #[test]
    fn boot_order_tags_and_sizes() {
        assert_eq!("order=scsi0;net0".parse::<BootOrder>().unwrap().0, ["scsi0", "net0"]);
        for nothing in [" ", "", "cdn"] {
            assert_eq!(nothing.parse::<BootOrder>().unwrap(), BootOrder::default());
        }
        assert_eq!(Tags::parse("B;a, c").to_string(), "a;b;c");
        assert!(Tags::parse("talos;lab").contains_all(["Lab"]));
        for (text, bytes) in
            [("10G", 10 << 30), ("528K", 528 << 10), ("1.5G", 3 << 29), ("4194304", 4 << 20), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        assert_eq!(parse_size("tenG"), None);
        assert_eq!(
            (print_size(10 << 30), print_size(528 << 10), print_size(1000)),
            ("10G".into(), "528K".into(), "1000".into())
        );
    }
}
