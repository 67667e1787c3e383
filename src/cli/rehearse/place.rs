//! The site of a rehearsal: what is taken from the real one, and the file that leads to the double.
//!
//! Purpose: node names, defaults and ranges stay as they are; endpoints, certificates, credentials and the factory are
//! the double's. No command of the real site is run and none of its secrets is read. Must not know: the profile's VMs.
//! Start reading at [`Place`].

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::profile::{Defaults, Dial, Profile, Site, SiteFactory, SiteNode, Tls, VmIdRanges};
use crate::types::NodeName;

/// The node of a profile that names none, without a site file.
const ONLY_NODE: &str = "pve1";

/// What a rehearsal knows of the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The PVE nodes, in the order of placement.
    pub nodes: Vec<NodeName>,
    /// Hardware that profiles don't spell out.
    pub defaults: Defaults,
    /// Which VMIDs are taken for what.
    pub vmid_ranges: VmIdRanges,
}

/// Where the double answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doors {
    /// URL of the PVE API.
    pub pve: String,
    /// The CA of everything (PEM).
    pub ca_file: PathBuf,
    /// URL of the Image Factory, if the double has one.
    pub factory: Option<String>,
    /// Each node's own API.
    pub nodes: Vec<Door>,
    /// The file that holds the token.
    pub token_file: PathBuf,
    /// Where the profile's addresses are dialled.
    pub dial: Vec<Dial>,
}

/// One node's own API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Door {
    /// The node.
    pub name: String,
    /// `host:port`.
    pub api: String,
    /// SHA-256 of its certificate.
    pub fingerprint: String,
}

impl Place {
    /// The place of `site`; without one, the place that `profile` needs.
    pub fn of(site: Option<&Site>, profile: &Profile) -> Self {
        if let Some(site) = site {
            let nodes = site.nodes.iter().map(|node| node.name.clone()).collect();
            return Self { nodes, defaults: site.defaults.clone(), vmid_ranges: site.vmid_ranges };
        }
        let assigned = profile.nodes.iter().flat_map(|(_, _, group)| &group.assignments);
        let named: BTreeSet<NodeName> = assigned.filter_map(|assignment| assignment.node.clone()).collect();
        let nodes = if named.is_empty() { vec![NodeName::new(ONLY_NODE)] } else { named.into_iter().collect() };
        Self { nodes, defaults: Defaults::default(), vmid_ranges: VmIdRanges::default() }
    }

    /// As a site that leads nowhere, for expanding a profile.
    pub fn site(&self) -> Site {
        let node = |name: &NodeName| SiteNode { name: name.clone(), api: None, fingerprint: None, ssh: None };
        Site {
            endpoints: Vec::new(),
            tls: Tls::default(),
            auth: None,
            ssh: None,
            nodes: self.nodes.iter().map(node).collect(),
            factory: SiteFactory::default(),
            defaults: self.defaults.clone(),
            vmid_ranges: self.vmid_ranges,
            dial: Vec::new(),
        }
    }

    /// The text of a site file that leads to the double. JSON, which is YAML.
    pub fn file(&self, doors: &Doors) -> String {
        let range = |range: crate::profile::VmIdRange| format!("{}-{}", range.first, range.last);
        let dial = doors.dial.iter().map(|dial| json!({"from": dial.from.to_string(), "to": dial.to.to_string()}));
        let order = |door: &&Door| self.nodes.iter().position(|name| name.as_str() == door.name);
        let mut nodes: Vec<&Door> = doors.nodes.iter().collect();
        nodes.sort_by_key(order);
        let mut file = json!({
            "endpoints": [doors.pve],
            "tls": {"ca": text(&doors.ca_file)},
            "auth": {"token": {"file": text(&doors.token_file)}},
            "nodes": nodes,
            "defaults": self.defaults(),
            "vmid_ranges": {"templates": range(self.vmid_ranges.templates), "vms": range(self.vmid_ranges.vms)},
            "dial": dial.collect::<Vec<_>>(),
        });
        if let Some(factory) = &doors.factory {
            file["factory"] = json!({"url": factory, "ca": text(&doors.ca_file)});
        }
        format!("{file:#}\n")
    }

    fn defaults(&self) -> Map<String, Value> {
        let Defaults { storage, bridge, bios, machine, cpu, scsihw, ostype, agent, vlan, pool, transport } =
            &self.defaults;
        let mut keys = Map::new();
        for (key, value) in [
            ("bridge", bridge),
            ("bios", bios),
            ("machine", machine),
            ("cpu", cpu),
            ("scsihw", scsihw),
            ("ostype", ostype),
        ] {
            keys.insert(key.to_owned(), json!(value));
        }
        keys.insert("storage".to_owned(), json!(storage));
        keys.insert("agent".to_owned(), json!(agent));
        keys.insert("transport".to_owned(), json!(transport.as_str()));
        keys.extend(vlan.map(|vlan| ("vlan".to_owned(), json!(vlan))));
        keys.extend(pool.as_ref().map(|pool| ("pool".to_owned(), json!(pool))));
        keys
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::load;

    const REAL: &str = "endpoints: [https://10.9.9.9:8006]\nauth: {token: {command: touch /nowhere}}\n\
        nodes: [{name: b, api: \"10.9.9.9:8006\"}, {name: a}]\nfactory: {url: https://factory.example.org}\n\
        defaults: {storage: fast, bridge: vmbr7, vlan: 20, pool: lab, agent: false}\nvmid_ranges: {vms: 5000-5999}\n";

    #[test]
    fn the_file_keeps_names_defaults_and_ranges_and_leads_to_the_double_only() {
        let real = load::site("site.yaml", REAL).unwrap().value;
        let profile = "name: x\ntype: generic\ntags: [x]\nnodes: {workers: {count: 1, name_prefix: w-, cores: 1, memory: 1024, disk: 1G}}\n";
        let profile = load::profile("x.yaml", profile).unwrap_or_else(|problems| panic!("{problems}")).value;
        let place = Place::of(Some(&real), &profile);
        let door =
            |name: &str| Door { name: name.to_owned(), api: "127.0.0.1:1".to_owned(), fingerprint: "ab".repeat(32) };
        let doors = Doors {
            pve: "https://127.0.0.1:1".to_owned(),
            ca_file: "/p/ca.pem".into(),
            factory: Some("https://127.0.0.1:2".to_owned()),
            nodes: vec![door("a"), door("b")],
            token_file: "/p/token".into(),
            dial: vec![Dial { from: "10.0.0.0/24".parse().unwrap(), to: "127.70.1.0/24".parse().unwrap() }],
        };
        let text = place.file(&doors);
        assert!(!text.contains("10.9.9.9") && !text.contains("example.org") && !text.contains("touch"), "{text}");
        let written = load::site("site.yaml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}")).value;
        assert_eq!((&written.defaults, written.vmid_ranges), (&real.defaults, real.vmid_ranges));
        assert_eq!(written.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        assert_eq!((written.dial, Some(written.factory.url)), (doors.dial, doors.factory));
        assert!(Place::of(None, &profile).nodes == [NodeName::new("pve1")]);
    }
}
