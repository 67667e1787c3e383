//! The files of a first profile, as a person would write them.
//!
//! Purpose: texts only, with comments where a reader would ask. What the defaults say is left out. Must not know: how any
//! of it was found.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::ask::{Draft, Shown};
use super::facts::{Factory, Facts, Group};
use super::keep::Whose;
use crate::net::tls::Fingerprint;
use crate::profile::{Defaults, VmIdRange, VmIdRanges};
use crate::types::{NodeName, Role, VmId};

/// A scalar that is read as this text: plain where that is safe, else as JSON writes it.
pub(super) fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_./=@!".contains(&c))
        && !["true", "false", "yes", "no", "on", "off", "null", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// A PVE node of a site.
pub(super) struct Node {
    pub(super) name: NodeName,
    /// `host:port` of its own API, where it answers, with its certificate's fingerprint.
    pub(super) api: Option<(String, Option<Fingerprint>)>,
}

/// The site file.
pub(super) fn site(draft: &Draft, nodes: &[Node], defaults: &Defaults, ranges: &VmIdRanges) -> String {
    let mut text = String::from("# The place that the profiles beside this file live in; written by recast init.\n\n");
    text.push_str(&draft.head());
    text.push_str("\nnodes:  # VMs are placed on these, in this order\n");
    for node in nodes {
        let name = quoted(node.name.as_str());
        let line = match &node.api {
            None => format!("{{name: {name}}}"),
            Some((api, None)) => format!("{{name: {name}, api: {}}}", quoted(api)),
            Some((api, Some(fingerprint))) => {
                format!("{{name: {name}, api: {}, fingerprint: \"{fingerprint}\"}}", quoted(api))
            }
        };
        let _ = writeln!(text, "  - {line}");
    }
    text.push_str(
        "\n# Without SSH, images go through the API (Proxmox VE 8.4 and newer). To allow it:\n#ssh: {user: root, key: ~/.ssh/id_ed25519}\n",
    );
    text.push_str("\ndefaults:  # what a profile's VMs have that says nothing else\n");
    for (key, value) in [
        ("storage", defaults.storage.as_str()),
        ("bridge", &defaults.bridge),
        ("bios", &defaults.bios),
        ("machine", &defaults.machine),
        ("cpu", &defaults.cpu),
        ("scsihw", &defaults.scsihw),
        ("ostype", &defaults.ostype),
    ] {
        let _ = writeln!(text, "  {key}: {}", quoted(value));
    }
    let _ = writeln!(text, "  agent: {}", defaults.agent);
    let range = |range: VmIdRange| format!("{}-{}", range.first, range.last);
    let _ = write!(
        text,
        "\nvmid_ranges:  # new templates get numbers from the one, new VMs from the other\n  templates: {}\n  vms: {}\n",
        range(ranges.templates),
        range(ranges.vms)
    );
    text
}

impl Draft {
    /// Without the pin, where a node has it.
    pub(super) fn unpinned(self, nodes: &[Node]) -> Self {
        let at_node = nodes.iter().any(|node| {
            node.api.as_ref().is_some_and(|(api, fingerprint)| *api == self.address() && fingerprint.is_some())
        });
        match self.trust {
            Shown::Pinned(_) if at_node => Self { trust: Shown::System, ..self },
            _ => self,
        }
    }
}

/// Ranges that hold the numbers that are there.
pub(super) fn ranges(facts: &Facts) -> VmIdRanges {
    let usual = VmIdRanges::default();
    let numbers: Vec<u32> = facts.groups.iter().flat_map(|group| &group.rows).map(|row| row.vmid.0).collect();
    let (first, last) = (numbers.iter().min().copied().unwrap_or(1000), numbers.iter().max().copied().unwrap_or(1999));
    let vms = if usual.vms.contains(VmId(first)) && usual.vms.contains(VmId(last)) {
        usual.vms
    } else {
        VmIdRange { first: VmId((first / 100 * 100).max(100)), last: VmId(last / 100 * 100 + 99) }
    };
    let apart = |range: VmIdRange| range.last < vms.first || vms.last < range.first;
    let around =
        |number: u32| VmIdRange { first: VmId((number / 100 * 100).max(100)), last: VmId(number / 100 * 100 + 99) };
    let own = facts.template.filter(|template| !usual.templates.contains(*template)).map(|template| around(template.0));
    let templates = [own, Some(usual.templates), Some(around(9000)), Some(around(90_000))];
    let templates = templates.into_iter().flatten().find(|range| apart(*range)).unwrap_or(usual.templates);
    VmIdRanges { templates, vms }
}

/// Where a patch is kept in the patch folder. Files of one machine have its name.
pub(super) fn patch_path(whose: &Whose, what: &str, parts: usize) -> String {
    // The one that removes comes first by its name, as it must.
    let number = if what == "remove" { 1 } else { 2 };
    match whose {
        Whose::All => format!("all/{number}-{what}.yaml"),
        Whose::Role(Role::ControlPlane) => format!("control-plane/{number}-{what}.yaml"),
        Whose::Role(Role::Worker) => format!("worker/{number}-{what}.yaml"),
        Whose::Machine(name) if parts == 1 => format!("{name}.yaml"),
        Whose::Machine(name) => format!("node/{name}/{number}-{what}.yaml"),
    }
}

/// A patch file.
pub(super) fn patch(whose: &Whose, what: &str, body: &str) -> String {
    let who = match whose {
        Whose::All => "All machines".to_owned(),
        Whose::Role(Role::ControlPlane) => "All control planes".to_owned(),
        Whose::Role(Role::Worker) => "All workers".to_owned(),
        Whose::Machine(name) => name.to_string(),
    };
    let says =
        if what == "remove" { "lack this, which would be rendered" } else { "have this beyond what is rendered" };
    let says = if matches!(whose, Whose::Machine(_)) {
        says.replacen("lack", "lacks", 1).replacen("have", "has", 1)
    } else {
        says.to_owned()
    };
    format!("# {who} {says}; found by recast init.\n{body}")
}

/// The profile.
pub(super) fn profile(facts: &Facts, site: Option<&str>, patches: bool) -> String {
    let name = &facts.name;
    let mut text = format!(
        "# {name}: written by recast init from what runs.\n#\n#   recast check --profile {name}.yaml\n#   recast rebuild --profile {name}.yaml --dry-run\n\nname: {}\ntype: talos\n",
        quoted(name)
    );
    if let Some(site) = site {
        let _ = writeln!(text, "site: {}", quoted(site));
    }
    let _ = write!(
        text,
        "\ntalos:\n  version: \"{}\"             # what runs; recast writes it after a rebuild or upgrade\n  kubernetes_version: \"{}\"\n  config_dir: {}               # beside this file\n  secrets_file: secrets.yaml    # keep it out of git, or encrypted: without it nothing can be rebuilt\n",
        facts.talos,
        facts.kubernetes,
        quoted(name)
    );
    if patches {
        text.push_str(
            "  patches_dir: patches          # all/, control-plane/, worker/, and <machine>.yaml or node/<machine>/\n",
        );
    }
    if let Some(disk) = facts.install_disk.as_deref().filter(|disk| *disk != "/dev/sda") {
        let _ = writeln!(text, "  install_disk: {}", quoted(disk));
    }
    if let Some(vip) = facts.vip {
        let _ = write!(
            text,
            "  vip:\n    ip: {}  # where the Kubernetes API is reached, whichever control plane holds it\n",
            address(vip)
        );
    }
    text.push_str(&factory(&facts.factory, "  "));
    network(facts, &mut text);
    text.push_str("\nnodes:\n");
    for group in &facts.groups {
        self::group(group, &mut text);
    }
    text.push('\n');
    match facts.template {
        Some(template) => {
            let _ = writeln!(text, "template: {template}  # recast puts the new one's number here");
        }
        None => text.push_str(
            "# No template of this version was found; the first rebuild makes one and puts its number here.\n",
        ),
    }
    let tags: Vec<String> = facts.tags.iter().map(|tag| quoted(tag)).collect();
    let _ = writeln!(text, "tags: [{}]  # a VM belongs to this cluster when it carries all of them", tags.join(", "));
    text
}

fn network(facts: &Facts, text: &mut String) {
    let _ = write!(text, "\nnetwork:\n  api_endpoint: {}\n", quoted(&facts.endpoint));
    if let Some(gateway) = facts.gateway {
        let _ = writeln!(text, "  gateway: {}", address(gateway));
    }
    if let Some(prefix) = facts.prefix {
        let _ = writeln!(text, "  prefix: {prefix}");
    }
    if !facts.nameservers.is_empty() {
        let servers: Vec<String> = facts.nameservers.iter().map(|server| address(*server)).collect();
        let _ = writeln!(text, "  nameservers: [{}]", servers.join(", "));
    }
    for (key, net) in [("pod_cidr", facts.pod_cidr), ("service_cidr", facts.service_cidr)] {
        if let Some(net) = net {
            let _ = writeln!(text, "  {key}: {}", quoted(&net.to_string()));
        }
    }
    if let Some(bridge) = &facts.bridge {
        let _ = writeln!(text, "  bridge: {}", quoted(bridge));
    }
    for (key, number) in [("vlan", facts.vlan), ("mtu", facts.mtu)] {
        if let Some(number) = number {
            let _ = writeln!(text, "  {key}: {number}");
        }
    }
}

fn address(address: std::net::IpAddr) -> String {
    if address.is_ipv4() { address.to_string() } else { format!("\"{address}\"") }
}

fn factory(factory: &Factory, margin: &str) -> String {
    if factory.schematic.is_none() && factory.extensions.is_empty() {
        return String::new();
    }
    let mut text = format!("{margin}factory:\n");
    if let Some(schematic) = &factory.schematic {
        let _ = writeln!(text, "{margin}  schematic_id: \"{schematic}\"");
    }
    if !factory.extensions.is_empty() {
        let why =
            if factory.schematic.is_some() { "  # what the machines run; schematic_id is what counts" } else { "" };
        let _ = writeln!(text, "{margin}  extensions:{why}");
        for extension in &factory.extensions {
            let _ = writeln!(text, "{margin}    - {extension}");
        }
    }
    if factory.arm {
        let _ = writeln!(text, "{margin}  arch: arm64");
    }
    text
}

fn group(group: &Group, text: &mut String) {
    let first = group.rows.iter().map(|row| row.vmid).min().unwrap_or(VmId(1000));
    let _ = write!(
        text,
        "  {}:\n    count: {}\n    name_prefix: {}\n    cores: {}\n    memory: {}    # MB\n    disk: {}G\n    start_vmid: {first}\n",
        group.key,
        group.rows.len(),
        quoted(&group.prefix),
        group.cores,
        group.memory,
        group.disk_gib,
    );
    if let Some(own) = &group.factory {
        text.push_str(&factory(own, "    "));
    }
    if !group.vm.is_empty() {
        text.push_str("    vm:  # PVE's own keys, on every VM of the group\n");
        for (key, value) in &group.vm {
            let _ = writeln!(text, "      {key}: {}", quoted(value));
        }
    }
    text.push_str("    assignments:\n");
    for row in &group.rows {
        let mut keys = vec![
            format!("name: {}", quoted(row.name.as_str())),
            format!("node: {}", quoted(row.node.as_str())),
            format!("vmid: {}", row.vmid),
        ];
        keys.extend(row.ip.map(|ip| format!("ip: {}", address(ip))));
        keys.extend(row.mac.map(|mac| format!("mac: \"{mac}\"")));
        if !row.vm.is_empty() {
            keys.push(format!("vm: {}", flow(&row.vm)));
        }
        let _ = writeln!(text, "      - {{{}}}", keys.join(", "));
    }
}

fn flow(keys: &BTreeMap<String, String>) -> String {
    let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}: {}", quoted(value))).collect();
    format!("{{{}}}", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_yaml_would_read_as_something_else_is_quoted() {
        for plain in ["vmbr0", "talos-cp-", "/dev/sda", "root@pam!ci", "local-lvm"] {
            assert_eq!(quoted(plain), plain);
        }
        for other in ["on", "1.34", "10.0.0.1:6443", "a: b", "x # y", "", "~", "{a}", "[x]", "\"", "0x1", "y"] {
            let written = quoted(other);
            let read: String = serde_saphyr::from_str(&written).unwrap();
            assert_eq!((written.starts_with('"'), read.as_str()), (true, other), "{written}");
        }
    }

    #[test]
    fn ranges_hold_what_is_there_and_stay_apart() {
        let range = |range: VmIdRange| (range.first.0, range.last.0);
        for (vms, template, expected) in [
            (vec![1200, 1211], Some(102), ((100, 999), (1000, 1999))),
            (vec![110, 111], Some(9000), ((9000, 9099), (100, 199))),
            (vec![110, 512], None, ((9000, 9099), (100, 599))),
            (vec![5000], Some(101), ((100, 999), (5000, 5099))),
            (vec![8001], Some(8000), ((100, 999), (8000, 8099))),
        ] {
            let facts = super::super::testing::facts(&vms, template);
            let found = ranges(&facts);
            assert_eq!((range(found.templates), range(found.vms)), expected, "{vms:?}");
        }
    }
}
