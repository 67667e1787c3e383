//! Which right each config key needs, and how values are stored.
//!
//! Purpose: the privilege per key (Proxmox VE 8.4, PVE/API2/Qemu.pm, `check_vm_modify_config_perm`), the types of values,
//! normalised tags and NICs. Must not know: requests.

use super::drive;
use super::plan_disk::switch;
use super::property::Properties;
use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::state::State;

const CPU: &[&str] = &["cores", "cpu", "cpulimit", "cpuunits", "numa", "runningcpu", "smp", "sockets", "vcpus"];
const MEMORY: &[&str] = &["memory", "balloon", "shares", "allow-ksm"];
const HARDWARE: &[&str] = &[
    "acpi",
    "hotplug",
    "kvm",
    "machine",
    "runningmachine",
    "scsihw",
    "smbios1",
    "tablet",
    "vga",
    "watchdog",
    "audio0",
    "rng0",
];
const OPTIONS: &[&str] = &[
    "agent",
    "autostart",
    "bios",
    "description",
    "keyboard",
    "localtime",
    "migrate_downtime",
    "migrate_speed",
    "name",
    "onboot",
    "ostype",
    "protection",
    "reboot",
    "startdate",
    "startup",
    "tags",
    "tdf",
    "template",
];
const DISK: &[&str] = &["boot", "bootdisk", "vmstatestorage"];
const CLOUD_INIT: &[&str] =
    &["cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys"];

/// Keys that apply at once to a VM that runs.
pub const AT_ONCE: &[&str] = &[
    "description",
    "hookscript",
    "lock",
    "migrate_downtime",
    "migrate_speed",
    "name",
    "onboot",
    "protection",
    "shares",
    "startup",
    "tags",
    "vmstatestorage",
    "cicustom",
    "cipassword",
    "citype",
    "ciupgrade",
    "ciuser",
    "nameserver",
    "searchdomain",
    "sshkeys",
];

const INTEGERS: &[&str] = &[
    "allow-ksm",
    "balloon",
    "cores",
    "cpuunits",
    "migrate_speed",
    "shares",
    "smp",
    "snaptime",
    "sockets",
    "vcpus",
    "acpi",
    "autostart",
    "ciupgrade",
    "freeze",
    "keephugepages",
    "kvm",
    "localtime",
    "numa",
    "onboot",
    "protection",
    "reboot",
    "tablet",
    "tdf",
    "template",
];

/// Whether a key's value is shown as a number.
pub fn is_integer(key: &str) -> bool {
    INTEGERS.contains(&key)
}

/// Whether the right for a key depends on its value, so that it is asked only once the VM was looked at.
pub fn depends_on_value(key: &str) -> bool {
    let (stem, _) = drive::numbered(key).unwrap_or((key, 0));
    drive::is_drive(key)
        || drive::is_unused(key)
        || key == "tags"
        || matches!(stem, "serial" | "usb" | "hostpci" | "virtiofs")
}

/// What is done with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// A new VM gets it.
    Create(&'a str),
    /// It gets a new value.
    Set(&'a str),
    /// It is deleted; the present value.
    Delete(&'a str),
}

impl State {
    /// Refuses a change of a config key for which a right is missing. `pool` is that of a VM being made.
    pub fn check_key(&self, caller: &Caller, vmid: u32, pool: Option<&str>, key: &str, change: Change<'_>) -> Rule<()> {
        if caller.is_root() {
            return Ok(());
        }
        let (Change::Create(value) | Change::Set(value) | Change::Delete(value)) = change;
        let creating = matches!(change, Change::Create(_));
        let need = |privilege: &str| self.check_vm(caller, vmid, pool, &[privilege]);
        let (stem, _) = drive::numbered(key).unwrap_or((key, 0));
        if CPU.contains(&key) || stem == "numa" {
            need("VM.Config.CPU")
        } else if MEMORY.contains(&key) {
            need("VM.Config.Memory")
        } else if HARDWARE.contains(&key) || (stem == "serial" && value == "socket") {
            need("VM.Config.HWType")?;
            if key == "rng0" && Properties::parse(value, "source").get("source") == Some("/dev/hwrng") {
                return self.check(caller, "/mapping/hwrng", &["Mapping.Use"]);
            }
            Ok(())
        } else if key == "tags" && creating {
            // What a new VM is called, nobody asks.
            Ok(())
        } else if OPTIONS.contains(&key) {
            need("VM.Config.Options")?;
            if key == "startup" { self.check(caller, "/", &["Sys.Modify"]) } else { Ok(()) }
        } else if stem == "virtiofs" {
            need("VM.Config.Disk")?;
            let share = Properties::parse(value, "dirid");
            let path = format!("/mapping/dir/{}", share.get("dirid").unwrap_or_default());
            self.check(caller, &path, &["Mapping.Use"])
        } else if stem == "serial" {
            let doing = match change {
                Change::Create(_) => "set",
                Change::Set(_) => "modify",
                Change::Delete(_) => "delete",
            };
            Err(Refusal::failed(format!("only root can {doing} '{key}' config for real devices\n")))
        } else if stem == "usb" {
            need("VM.Config.HWType")?;
            let device = Properties::parse(value, "host");
            match (device.get("host"), device.get("mapping")) {
                (Some(host), _) if host.eq_ignore_ascii_case("spice") => Ok(()),
                (Some(_), _) => Err(Refusal::failed(format!("only root can set '{key}' config for real devices\n"))),
                (None, Some(name)) => self.check(caller, &format!("/mapping/usb/{name}"), &["Mapping.Use"]),
                (None, None) => Err(Refusal::failed("either 'host' or 'mapping' must be set.\n")),
            }
        } else if stem == "hostpci" {
            let device = Properties::parse(value, "host");
            match (device.get("host"), device.get("mapping")) {
                (Some(_), _) => {
                    return Err(Refusal::failed(format!("only root can set '{key}' config for non-mapped devices\n")));
                }
                (None, Some(name)) => self.check(caller, &format!("/mapping/pci/{name}"), &["Mapping.Use"])?,
                (None, None) => return Err(Refusal::failed("either 'host' or 'mapping' must be set.\n")),
            }
            need("VM.Config.HWType")?;
            if device.get("romfile").is_some() {
                return Err(Refusal::param(key, "only root@pam can set 'romfile' option"));
            }
            Ok(())
        } else if key == "freeze" {
            need("VM.PowerMgmt")
        } else if key == "vmstate" {
            self.check_vm(caller, vmid, pool, &["VM.Config.Disk", "VM.PowerMgmt"])
        } else if CLOUD_INIT.contains(&key) || stem == "ipconfig" {
            self.check_vm_any(caller, vmid, pool, &["VM.Config.Cloudinit", "VM.Config.Network"])
        } else if stem == "net" {
            need("VM.Config.Network")
        } else if drive::is_drive(key) || drive::is_unused(key) {
            let parsed = Properties::parse(value, "file");
            let file = parsed.get("file").unwrap_or_default();
            if creating {
                return Ok(());
            }
            if drive::is_cloudinit(file) {
                need("VM.Config.Cloudinit")?;
                need("VM.Config.CDROM")
            } else if drive::is_cdrom(&parsed) {
                need("VM.Config.CDROM")
            } else {
                need("VM.Config.Disk")
            }
        } else if DISK.contains(&key) {
            need("VM.Config.Disk")
        } else {
            Err(Refusal::failed(format!("only root can set '{key}' config\n")))
        }
    }

    fn check_vm(&self, caller: &Caller, vmid: u32, pool: Option<&str>, privileges: &[&str]) -> Rule<()> {
        if let Some(pool) = pool
            && self.may(caller, &format!("/pool/{pool}"), privileges)
        {
            return Ok(());
        }
        self.check(caller, &format!("/vms/{vmid}"), privileges)
    }

    fn check_vm_any(&self, caller: &Caller, vmid: u32, pool: Option<&str>, privileges: &[&str]) -> Rule<()> {
        if let Some(pool) = pool
            && self.may_any(caller, &format!("/pool/{pool}"), privileges)
        {
            return Ok(());
        }
        self.check_any(caller, &format!("/vms/{vmid}"), privileges)
    }
}

/// How the cluster wants its tags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TagStyle {
    /// Upper and lower case are two things.
    pub case_sensitive: bool,
    /// They keep the order in which they were given.
    pub as_given: bool,
}

impl State {
    /// The cluster's way with tags.
    pub fn tag_style(&self) -> TagStyle {
        let style = self.options.get("tag-style");
        let text = style.and_then(serde_json::Value::as_str).unwrap_or_default();
        let text = Properties::parse(text, "");
        let part = |key: &str| match style.and_then(|style| style.get(key)) {
            Some(serde_json::Value::String(text)) => Some(text.clone()),
            Some(other) => Some(other.to_string()),
            None => text.get(key).map(str::to_owned),
        };
        TagStyle {
            case_sensitive: part("case-sensitive")
                .is_some_and(|flag| matches!(flag.as_str(), "1" | "on" | "yes" | "true")),
            as_given: part("ordering").as_deref() == Some("config"),
        }
    }
}

/// Tags as the original stores them on update: once each, and unless told otherwise lower case and sorted.
pub fn normal_tags(text: &str, style: TagStyle) -> String {
    let mut tags: Vec<String> = Vec::new();
    for tag in text.split([';', ',', ' ']).filter(|tag| !tag.is_empty()) {
        let tag = if style.case_sensitive { tag.to_owned() } else { tag.to_ascii_lowercase() };
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if !style.as_given {
        tags.sort();
    }
    tags.join(";")
}

/// Values that are numbers with a fraction.
const NUMBERS: &[&str] = &["cpulimit", "migrate_downtime"];
/// Texts of any form: quotation marks around them are taken off, whenever they are written or read.
const FREE: &[&str] = &["args", "cipassword", "ciuser", "searchdomain"];

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// Digits, and perhaps a fraction: what the parser of the config file takes for a number.
fn is_plain_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    digits(whole) && digits(fraction)
}

/// A value as the config file gives it back (PVE/QemuServer.pm, `check_type` and `parse_vm_config`): without blanks around
/// it, an empty one as a blank; a description loses its last line ends. `Err`: it can't be written.
pub fn stored(key: &str, value: &str) -> Rule<Option<String>> {
    if key == "description" {
        let text = value.trim_end_matches('\n');
        return Ok((!text.is_empty()).then(|| text.to_owned()));
    }
    let refuse = |text: &str| Err(Refusal::failed(format!("unable to parse value of '{key}' - {text}\n")));
    if value.contains(['\n', '\r']) {
        return refuse("property contains a line feed");
    }
    if is_integer(key) && (value.contains('.') || !is_plain_number(value)) {
        return refuse(&format!("type check ('integer') failed - got '{value}'"));
    }
    if NUMBERS.contains(&key) && !is_plain_number(value) {
        return refuse(&format!("type check ('number') failed - got '{value}'"));
    }
    let free = FREE.contains(&key);
    let written = if free { unquoted(value) } else { value }.trim();
    let written = if written.is_empty() { " " } else { written };
    let read = if free && key != "args" { unquoted(written) } else { written };
    Ok(Some(if is_integer(key) { read.trim_start_matches('0').to_owned() } else { read.to_owned() })
        .map(|text| if text.is_empty() { "0".to_owned() } else { text }))
}

/// A NIC with its switches as 0 or 1, and a MAC: the given one, else the next made-up one.
pub fn normal_nic(value: &str, make_mac: impl FnOnce() -> String) -> Properties {
    let mut nic = drive::parse_nic(value);
    for (key, value) in &mut nic.parts {
        if key == "firewall" || key == "link_down" {
            *value = switch(value);
        }
    }
    if nic.get("macaddr").is_none_or(|mac| mac.is_empty() || mac == "auto") {
        nic.set("macaddr", make_mac());
    }
    nic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_lowered_sorted_and_unique() {
        let usual = TagStyle::default();
        assert_eq!(normal_tags("zulu;Alpha,mike Alpha", usual), "alpha;mike;zulu");
        assert_eq!(normal_tags(" b  a ", usual), "a;b");
        let other = TagStyle { case_sensitive: true, as_given: true };
        assert_eq!(normal_tags("zulu;Alpha,alpha zulu", other), "zulu;Alpha;alpha");
    }

    #[test]
    fn an_empty_value_reads_back_as_a_blank() {
        let stored = |key, value| stored(key, value).map_err(|refusal| refusal.text());
        let text = |text: &str| Ok(Some(text.to_owned()));
        for (key, value, kept) in [
            ("tags", "", " "),
            ("description", "a\r\nb\n", "a\r\nb"),
            ("ciuser", "\"root\"", "root"),
            ("ciuser", "  root ", "root"),
            ("ciuser", "\"\"", " "),
            ("args", "\"\"-S\"\"", "\"-S\""),
            ("cores", "007", "7"),
            ("onboot", "0", "0"),
            ("cpulimit", "1.50", "1.50"),
        ] {
            assert_eq!(stored(key, value), text(kept), "{key}: {value}");
        }
        assert_eq!(stored("description", "\n"), Ok(None));
        for (key, value, refused) in [
            ("ciuser", "a\nb", "property contains a line feed"),
            ("cores", "+1", "type check ('integer') failed - got '+1'"),
            ("cpulimit", "1e1", "type check ('number') failed - got '1e1'"),
            ("cpulimit", ".5", "type check ('number') failed - got '.5'"),
        ] {
            let refused = format!("unable to parse value of '{key}' - {refused}");
            assert_eq!(stored(key, value).map_err(|text| text.trim().to_owned()), Err(refused), "{key}: {value}");
        }
    }

    #[test]
    fn a_nic_without_a_mac_gets_one_and_keeps_a_given_one() {
        let made = || "BC:24:11:00:00:07".to_owned();
        assert_eq!(drive::print_nic(&normal_nic("virtio,bridge=b", made)), "virtio=BC:24:11:00:00:07,bridge=b");
        let nic = normal_nic("virtio=02:aa:bb:cc:dd:ee,link_down=yes", made);
        assert_eq!(drive::print_nic(&nic), "virtio=02:aa:bb:cc:dd:ee,link_down=1");
    }
}
