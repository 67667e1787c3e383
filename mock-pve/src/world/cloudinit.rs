//! What a cloud-init drive says.
//!
//! Purpose: the texts that are written to it, and which values differ from those that it holds. Must not know: requests,
//! volumes. Start at [`Drive::user`]. Rules after Proxmox VE 8.4 (PVE/QemuServer/Cloudinit.pm).

use std::fmt::Write as _;

use sha1::{Digest as _, Sha1};

use super::drive;
use super::property::Properties;
use super::state::{Config, Vm};

/// The key that lists what was added since the drive was written.
pub const ADDED: &str = "added";

/// Options of which the guest hears by the drive alone.
pub const OPTIONS: &[&str] =
    &["cicustom", "cipassword", "citype", "ciupgrade", "ciuser", "nameserver", "searchdomain", "sshkeys"];

/// How the node resolves names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Search domains.
    pub search: Vec<String>,
    /// Servers.
    pub servers: Vec<String>,
}

/// The drive of one VM.
#[derive(Clone, Debug)]
pub struct Drive<'a> {
    /// The VM.
    pub vmid: u32,
    /// Its config.
    pub config: &'a Config,
    /// The node's resolver, for a VM that has none of its own.
    pub node: Resolver,
    /// The password is shown as stars.
    pub masked: bool,
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// Writing to a string can't fail; here and below.
impl Drive<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key).map(String::as_str)
    }

    fn resolver(&self) -> Resolver {
        Resolver {
            search: self.get("searchdomain").map_or_else(|| self.node.search.clone(), words),
            servers: self.get("nameserver").map_or_else(|| self.node.servers.clone(), words),
        }
    }

    fn is_nocloud(&self) -> bool {
        match self.get("citype") {
            Some(kind) => kind == "nocloud",
            None => !self.get("ostype").is_some_and(super::pending::is_windows),
        }
    }

    /// Host name, user, keys.
    pub fn user(&self) -> String {
        let name = self.get("name").map_or_else(|| format!("VM{}", self.vmid), str::to_owned);
        let host = name.split('.').next().unwrap_or_default();
        let full = match self.get("searchdomain").filter(|domain| !domain.trim().is_empty() && !name.contains('.')) {
            Some(domain) => format!("{name}.{domain}"),
            None => name.clone(),
        };
        let mut text = format!("#cloud-config\nhostname: {host}\nmanage_etc_hosts: true\nfqdn: {full}\n");
        let user = self.get("ciuser");
        if let Some(user) = user {
            let _ = writeln!(text, "user: {user}");
        }
        if user == Some("root") {
            text.push_str("disable_root: False\n");
        }
        if let Some(password) = self.get("cipassword") {
            let _ = writeln!(text, "password: {}", if self.masked { "**********" } else { password });
        }
        if let Some(keys) = self.get("sshkeys") {
            text.push_str("ssh_authorized_keys:\n");
            let keys = percent_encoding::percent_decode_str(keys).decode_utf8_lossy().into_owned();
            for key in keys.split('\n').filter(|key| !key.trim().is_empty()) {
                let _ = writeln!(text, "  - {key}");
            }
        }
        text.push_str("chpasswd:\n  expire: False\n");
        if user != Some("root") {
            text.push_str("users:\n  - default\n");
        }
        if self.get("ciupgrade").is_none_or(|flag| flag != "0") {
            text.push_str("package_upgrade: true\n");
        }
        text
    }

    /// The cards that have an address config, with their numbers.
    fn cards(&self) -> Vec<(String, Properties, Properties)> {
        let mut cards: Vec<(String, Properties, Properties)> = drive::nics(self.config)
            .into_iter()
            .filter_map(|(key, nic)| {
                let config = self.get(&format!("ipconfig{}", &key[3..]))?;
                Some((key, nic, Properties::parse(config, "")))
            })
            .collect();
        // By name, as texts.
        cards.sort_by(|one, other| one.0.cmp(&other.0));
        cards
    }

    /// Addresses, in the format that the drive has.
    pub fn network(&self) -> String {
        if self.is_nocloud() { self.network_v1() } else { self.interfaces() }
    }

    fn network_v1(&self) -> String {
        let mut text = String::from("version: 1\nconfig:\n");
        for (key, nic, ip) in self.cards() {
            let mac = nic.get("macaddr").unwrap_or_default().to_ascii_lowercase();
            let number = &key[3..];
            let _ = write!(
                text,
                "    - type: physical\n      name: eth{number}\n      mac_address: '{mac}'\n      subnets:\n"
            );
            match ip.get("ip") {
                Some("dhcp") => text.push_str("      - type: dhcp4\n"),
                Some(address) => {
                    let (address, mask) = masked(address);
                    let _ =
                        write!(text, "      - type: static\n        address: '{address}'\n        netmask: '{mask}'\n");
                    if let Some(gateway) = ip.get("gw") {
                        let _ = writeln!(text, "        gateway: '{gateway}'");
                    }
                }
                None => {}
            }
            match ip.get("ip6") {
                Some("dhcp") => text.push_str("      - type: dhcp6\n"),
                Some("auto") => text.push_str("      - type: ipv6_slaac\n"),
                Some(address) => {
                    let _ = write!(text, "      - type: static6\n        address: '{address}'\n");
                    if let Some(gateway) = ip.get("gw6") {
                        let _ = writeln!(text, "        gateway: '{gateway}'");
                    }
                }
                None => {}
            }
        }
        let Resolver { search, servers } = self.resolver();
        text.push_str("    - type: nameserver\n");
        for (name, list) in [("address", servers), ("search", search)] {
            if !list.is_empty() {
                let _ = writeln!(text, "      {name}:");
            }
            for one in list {
                let _ = writeln!(text, "      - '{one}'");
            }
        }
        text
    }

    fn interfaces(&self) -> String {
        let mut text = String::from("auto lo\niface lo inet loopback\n\n");
        let Resolver { search, servers } = self.resolver();
        if !servers.is_empty() {
            let _ = writeln!(text, "        dns_nameservers {}", servers.join(" "));
        }
        if !search.is_empty() {
            let _ = writeln!(text, "        dns_search {}", search.join(" "));
        }
        for (key, _, ip) in self.cards() {
            let id = format!("eth{}", &key[3..]);
            let _ = writeln!(text, "auto {id}");
            match ip.get("ip") {
                Some("dhcp") => {
                    let _ = writeln!(text, "iface {id} inet dhcp");
                }
                Some(address) => {
                    let (address, mask) = masked(address);
                    let _ = write!(text, "iface {id} inet static\n        address {address}\n        netmask {mask}\n");
                    if let Some(gateway) = ip.get("gw") {
                        let _ = writeln!(text, "        gateway {gateway}");
                    }
                }
                None => {}
            }
            match ip.get("ip6") {
                Some(word @ ("auto" | "dhcp")) => {
                    let _ = writeln!(text, "iface {id} inet6 {word}");
                }
                Some(address) => {
                    let (address, mask) = address.split_once('/').unwrap_or((address, ""));
                    let _ =
                        write!(text, "iface {id} inet6 static\n        address {address}\n        netmask {mask}\n");
                    if let Some(gateway) = ip.get("gw6") {
                        let _ = writeln!(text, "        gateway {gateway}");
                    }
                }
                None => {}
            }
        }
        text
    }

    /// An id that changes with the rest.
    pub fn meta(&self) -> String {
        let open = Self { masked: false, ..self.clone() };
        let id = hex::encode(Sha1::digest(format!("{}{}", open.user(), open.network()).as_bytes()));
        if self.is_nocloud() {
            return format!("instance-id: {id}\n");
        }
        format!(
            "{{\n     \"uuid\": \"{id}\",\n     \"network_config\": {{ \"content_path\": \"/content/0000\" }}\n}}\n"
        )
    }
}

/// Address and netmask of `10.0.0.5/24`.
fn masked(address: &str) -> (String, String) {
    match address.parse::<ipnet::Ipv4Net>() {
        Ok(net) => (net.addr().to_string(), net.netmask().to_string()),
        Err(_) => (address.split('/').next().unwrap_or_default().to_owned(), String::new()),
    }
}

/// Whether a guest hears of a key by its drive.
fn is_told(key: &str) -> bool {
    OPTIONS.contains(&key)
        || key == "name"
        || drive::numbered(key).is_some_and(|(stem, _)| stem == "ipconfig" || stem == "net")
}

/// Notes that a running VM's drive no longer says what its config does.
pub(super) fn note_change(vm: &mut Vm, key: &str, old: Option<&str>, new: Option<&str>) {
    if !is_told(key) {
        return;
    }
    let noted = &mut vm.cloudinit;
    let mut added: Vec<String> = noted
        .remove(ADDED)
        .map(|text| text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect())
        .unwrap_or_default();
    let known = noted.get(key).cloned();
    let is_added = added.iter().any(|one| one == key);
    match (old, new, known) {
        (_, Some(new), Some(known)) if new == known => {
            noted.remove(key);
            added.retain(|one| one != key);
        }
        (None, Some(_), None) if !is_added => added.push(key.to_owned()),
        (Some(old), Some(_), None) if !is_added => {
            noted.insert(key.to_owned(), old.to_owned());
        }
        (Some(_), None, None) if is_added => added.retain(|one| one != key),
        (Some(old), None, None) => {
            noted.insert(key.to_owned(), old.to_owned());
        }
        _ => {}
    }
    if !added.is_empty() {
        added.sort();
        noted.insert(ADDED.to_owned(), added.join(","));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(lines: &[(&str, &str)]) -> Config {
        lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn resolver() -> Resolver {
        Resolver { search: Vec::new(), servers: vec!["192.0.2.1".to_owned()] }
    }

    #[test]
    fn the_user_part_follows_name_and_user() {
        let lines = config(&[("name", "web"), ("searchdomain", "example.org"), ("ciuser", "root"), ("ciupgrade", "0")]);
        let drive = Drive { vmid: 100, config: &lines, node: resolver(), masked: false };
        let text = drive.user();
        assert!(text.contains("hostname: web\nmanage_etc_hosts: true\nfqdn: web.example.org\n"), "{text}");
        assert!(text.contains("user: root\ndisable_root: False\n") && !text.contains("users:"), "{text}");
        assert!(text.ends_with("chpasswd:\n  expire: False\n"), "{text}");
        let lines = config(&[("cipassword", "secret")]);
        let drive = Drive { vmid: 100, config: &lines, node: resolver(), masked: true };
        assert!(drive.user().contains("hostname: VM100\n") && drive.user().contains("password: **********\n"));
    }

    #[test]
    fn a_card_without_address_config_is_not_mentioned() {
        let lines = config(&[
            ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr0"),
            ("net1", "virtio=BC:24:11:00:00:02,bridge=vmbr0"),
            ("ipconfig1", "ip=10.0.0.5/24,gw=10.0.0.1,ip6=auto"),
        ]);
        let drive = Drive { vmid: 100, config: &lines, node: resolver(), masked: false };
        let text = drive.network();
        assert!(
            !text.contains("eth0") && text.contains("name: eth1\n      mac_address: 'bc:24:11:00:00:02'"),
            "{text}"
        );
        assert!(text.contains("netmask: '255.255.255.0'\n        gateway: '10.0.0.1'\n      - type: ipv6_slaac\n"));
        assert!(text.ends_with("    - type: nameserver\n      address:\n      - '192.0.2.1'\n"), "{text}");
    }

    #[test]
    fn what_changed_since_the_drive_was_written_is_noted_once() {
        let mut vm = Vm::default();
        note_change(&mut vm, "ciuser", None, Some("a"));
        note_change(&mut vm, "ciuser", Some("a"), Some("b"));
        assert_eq!(vm.cloudinit, config(&[(ADDED, "ciuser")]));
        note_change(&mut vm, "ciuser", Some("b"), None);
        assert!(vm.cloudinit.is_empty());
        note_change(&mut vm, "name", Some("old"), Some("new"));
        note_change(&mut vm, "name", Some("new"), Some("newer"));
        assert_eq!(vm.cloudinit, config(&[("name", "old")]));
        note_change(&mut vm, "name", Some("newer"), Some("old"));
        assert!(vm.cloudinit.is_empty());
        note_change(&mut vm, "cores", None, Some("2"));
        assert!(vm.cloudinit.is_empty());
    }
}
