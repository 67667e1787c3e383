//! Which template each VM is cloned from, and where templates are made.
//!
//! Purpose: one decision for the check, which has to refuse where there is none, and for the plan. A template on local
//! storage serves its own node, so each node gets one; on shared storage one serves all; a node that can't have one gets
//! its VMs from another: cloned there, then moved (Proxmox VE clones to another node only from shared storage,
//! PVE/API2/Qemu.pm). Must not know: clients. Start reading at [`sources`].

use std::collections::{BTreeMap, BTreeSet};

use super::check::import_storage;
use super::observed::{Observed, SeenTemplate};
use super::phases::template_print;
use super::step::Unwritten;
use super::wanted::Wanted;
use crate::profile::Transport;
use crate::types::{NodeName, SchematicId, StorageId};

/// A PVE node and what its VMs are made from: the unit of templates and canaries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// The node.
    pub node: NodeName,
    /// What the image is made from.
    pub schematic: SchematicId,
}

impl Spot {
    fn beside(&self, node: &NodeName) -> Self {
        Self { node: node.clone(), schematic: self.schematic.clone() }
    }
}

/// Where a template comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Template<'a> {
    /// An earlier run made it.
    Found(&'a SeenTemplate),
    /// This run makes it.
    Made(Way),
}

/// How an image comes into a template's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The way.
    pub by: By,
    /// Why this one, a clause for the plan's text.
    pub because: String,
}

/// The ways there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    /// Fetched by the node itself and imported.
    Pull {
        /// The storage that it is fetched to.
        import: StorageId,
        /// Whether it is uploaded where the node can't.
        or_upload: bool,
    },
    /// Uploaded through the node's API and imported.
    Upload {
        /// The storage that the image is uploaded to.
        import: StorageId,
    },
    /// Written over SSH, straight into the allocated volume.
    Ssh {
        /// Whether the volume is a file in a folder of its VM.
        file: bool,
        /// What it holds before.
        unwritten: Unwritten,
    },
}

/// The way an image takes to this place; else what speaks against each way.
pub fn way(wanted: &Wanted, seen: &Observed, spot: &Spot) -> Result<Way, Vec<String>> {
    let node = &spot.node;
    let asked = |by: Result<By, String>| match by {
        Ok(by) => Ok(Way { by, because: "as asked for".to_owned() }),
        Err(no) => Err(vec![no]),
    };
    match wanted.transport {
        Transport::Pull => asked(pull(seen, spot).map(|import| By::Pull { import, or_upload: false })),
        Transport::Upload => asked(upload(seen, node)),
        Transport::Ssh => asked(ssh(wanted, seen, node)),
        Transport::Auto => {
            let no_pull = match pinned(seen, spot) {
                Ok(import) => {
                    let by = By::Pull { import, or_upload: true };
                    return Ok(Way { by, because: "it reaches the factory, and the lock has the digest".to_owned() });
                }
                Err(no) => no,
            };
            match upload(seen, node) {
                Ok(by) => Ok(Way { by, because: format!("the node takes uploads; {no_pull}") }),
                Err(no) => match ssh(wanted, seen, node) {
                    Ok(by) => Ok(Way { by, because: no }),
                    Err(neither) => Err(vec![no, neither]),
                },
            }
        }
    }
}

/// Whether a node may have to be used over SSH: looked at before anything else is decided.
pub fn may_need_ssh(transport: Transport, seen: &Observed, node: &NodeName) -> bool {
    match transport {
        Transport::Pull | Transport::Upload => false,
        Transport::Ssh => true,
        Transport::Auto => upload(seen, node).is_err(),
    }
}

/// Whether it has to be known if this node reaches the factory.
pub fn may_pull(transport: Transport, seen: &Observed, node: &NodeName) -> bool {
    let asked = match transport {
        Transport::Pull => true,
        Transport::Auto => seen.pulls.iter().any(|image| image.sha256.is_some()),
        Transport::Upload | Transport::Ssh => false,
    };
    asked && upload(seen, node).is_ok()
}

/// The storage that the node can fetch the image to.
fn pull(seen: &Observed, spot: &Spot) -> Result<StorageId, String> {
    let By::Upload { import } = upload(seen, &spot.node)? else {
        return Err(format!("{} takes no disk images", spot.node));
    };
    if seen.pull_of(&spot.schematic).is_none() {
        return Err("the factory has no .qcow2 of it".to_owned());
    }
    match seen.routes.get(&spot.node) {
        None => Err(format!("it is not known whether {} reaches the factory", spot.node)),
        Some(Some(no)) => Err(format!("{} can't fetch it: {no}", spot.node)),
        Some(None) => Ok(import),
    }
}

/// The same where nobody has to see the file first: the lock pins it.
fn pinned(seen: &Observed, spot: &Spot) -> Result<StorageId, String> {
    if seen.pull_of(&spot.schematic).is_none_or(|image| image.sha256.is_none()) {
        return Err("to let it pull, the lock needs the digest of the .qcow2 (`transport: pull` notes it)".to_owned());
    }
    pull(seen, spot)
}

fn upload(seen: &Observed, node: &NodeName) -> Result<By, String> {
    let import =
        import_storage(seen, node).ok_or_else(|| format!("no storage on {node} takes content type `import`"))?;
    let version = seen.nodes.iter().find(|seen| seen.name == *node).map_or("", |seen| seen.version.as_str());
    // Images can be uploaded since 8.4 (libpve-storage-perl 8.3.6). Where the version wasn't seen, the content type says it.
    if matches!(release(version), Some(release) if release < (8, 4)) {
        return Err(format!("{node} runs Proxmox VE {version}, which takes no uploads of disk images"));
    }
    Ok(By::Upload { import: import.id.clone() })
}

fn release(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

fn ssh(wanted: &Wanted, seen: &Observed, node: &NodeName) -> Result<By, String> {
    match seen.shells.get(node) {
        None => return Err(format!("the site says nothing about SSH to {node}")),
        Some(Some(problem)) => return Err(format!("{node} can't be used over SSH: {}", problem.what)),
        Some(None) => {}
    }
    let storage = seen.storage(node, &wanted.storage);
    let storage = storage.ok_or_else(|| format!("storage {} does not exist on {node}", wanted.storage))?;
    match storage.kind.as_str() {
        "dir" | "nfs" | "cifs" | "glusterfs" | "btrfs" => Ok(By::Ssh { file: true, unwritten: Unwritten::Zeros }),
        "lvmthin" | "zfspool" => Ok(By::Ssh { file: false, unwritten: Unwritten::Zeros }),
        // A new volume holds what was there before: PVE's own import zeroes it as well (no `sparseinit`).
        "lvm" => Ok(By::Ssh { file: false, unwritten: Unwritten::Garbage }),
        // Ceph and iSCSI volumes have addresses rather than paths.
        kind => Err(format!("volumes on {} ({kind}) are neither files nor devices on {node}", wanted.storage)),
    }
}

/// Where every VM comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources<'a> {
    /// The templates that are needed, by where they live.
    pub templates: BTreeMap<Spot, Template<'a>>,
    /// The node whose template serves a spot.
    pub origins: BTreeMap<Spot, NodeName>,
    /// Spots for which there is none.
    pub missing: BTreeSet<Spot>,
    /// Nodes that see the wanted storage as shared.
    shared: BTreeSet<NodeName>,
}

impl Sources<'_> {
    /// Whether VMs of this spot are cloned on another node and then moved.
    pub fn moves(&self, spot: &Spot) -> bool {
        self.origins.get(spot).is_some_and(|origin| {
            *origin != spot.node && !(self.shared.contains(origin) && self.shared.contains(&spot.node))
        })
    }
}

/// The spots at which there will be VMs.
pub fn spots(wanted: &Wanted) -> BTreeSet<Spot> {
    let spots =
        wanted.vms.iter().map(|vm| Spot { node: vm.node.clone(), schematic: wanted.schematic_of(vm.role).clone() });
    spots.collect()
}

/// Decides where every VM comes from.
pub fn sources<'a>(wanted: &Wanted, seen: &'a Observed) -> Sources<'a> {
    let on_storage: BTreeMap<&NodeName, bool> = seen
        .storages
        .iter()
        .filter(|storage| storage.id == wanted.storage && storage.usable)
        .map(|storage| (&storage.node, storage.shared))
        .collect();
    let is_shared = |node: &NodeName| on_storage.get(node) == Some(&true);
    let mut made = Sources {
        shared: on_storage.iter().filter(|(_, shared)| **shared).map(|(node, _)| (*node).clone()).collect(),
        ..Sources::default()
    };
    let spots = spots(wanted);
    let found = |spot: &Spot, node: &NodeName| {
        let (_, fingerprint) = template_print(wanted, &spot.schematic);
        // What no canary passed is never chosen again.
        seen.templates.iter().find(|found| found.proved && found.node == *node && found.fingerprint == fingerprint)
    };
    let made_at = |spot: &Spot| way(wanted, seen, spot).ok().map(Template::Made);
    // First what serves its own node.
    for spot in &spots {
        let own = match found(spot, &spot.node) {
            Some(template) => Some(Template::Found(template)),
            // On shared storage one is enough: that of the first node that can make it.
            None if is_shared(&spot.node) => None,
            None => made_at(spot),
        };
        if let Some(own) = own {
            made.templates.insert(spot.clone(), own);
            made.origins.insert(spot.clone(), spot.node.clone());
        }
    }
    // Then what is served from elsewhere: by what is there, or will be, or can be made, in this order.
    for spot in &spots {
        if made.origins.contains_key(spot) {
            continue;
        }
        let near = |node: &NodeName| !is_shared(&spot.node) || is_shared(node);
        let nodes = seen.nodes.iter().filter(|node| node.online).map(|node| &node.name);
        let nodes: Vec<&NodeName> = nodes.filter(|node| on_storage.contains_key(*node) && near(node)).collect();
        let there = nodes.iter().find(|node| made.templates.contains_key(&spot.beside(node)));
        let other = nodes.iter().find_map(|node| Some((*node, Template::Found(found(spot, node)?))));
        let own = is_shared(&spot.node).then(|| Some((&spot.node, made_at(spot)?))).flatten();
        let elsewhere = || nodes.iter().find_map(|node| Some((*node, made_at(&spot.beside(node))?)));
        if let Some(node) = there {
            made.origins.insert(spot.clone(), (*node).clone());
        } else if let Some((node, template)) = other.or(own).or_else(elsewhere) {
            made.origins.insert(spot.clone(), node.clone());
            made.templates.insert(spot.beside(node), template);
        } else {
            made.missing.insert(spot.clone());
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::super::sample::{nodes, seen, wanted};
    use super::super::step::Image;
    use super::*;

    /// Three machines on three nodes, and what is seen there.
    fn three() -> (Wanted, Observed) {
        let (mut wanted, mut seen) = (wanted(), seen());
        nodes(&mut wanted, &mut seen, &["pve1", "pve2", "pve3"]);
        (wanted, seen)
    }

    fn origins(sources: &Sources<'_>) -> Vec<String> {
        let of = |(spot, origin): (&Spot, &NodeName)| {
            format!("{} from {origin}{}", spot.node, if sources.moves(spot) { ", moved" } else { "" })
        };
        sources.origins.iter().map(of).collect()
    }

    fn without_import(seen: &mut Observed, node: &str) {
        for storage in seen.storages.iter_mut().filter(|storage| storage.node.as_str() == node) {
            storage.content.remove("import");
        }
    }

    #[test]
    fn local_storage_has_a_template_on_every_node() {
        let (wanted, seen) = three();
        let sources = sources(&wanted, &seen);
        assert_eq!(origins(&sources), ["pve1 from pve1", "pve2 from pve2", "pve3 from pve3"]);
        assert_eq!(sources.templates.len(), 3);
    }

    #[test]
    fn shared_storage_has_one_for_all() {
        let (wanted, mut seen) = three();
        for storage in &mut seen.storages {
            storage.shared = true;
        }
        without_import(&mut seen, "pve1");
        let sources = sources(&wanted, &seen);
        assert_eq!(origins(&sources), ["pve1 from pve2", "pve2 from pve2", "pve3 from pve2"]);
        assert_eq!(sources.templates.len(), 1);
    }

    #[test]
    fn a_node_that_can_have_none_gets_its_vms_from_another() {
        let (wanted, mut seen) = three();
        without_import(&mut seen, "pve2");
        let served = sources(&wanted, &seen);
        assert_eq!(origins(&served), ["pve1 from pve1", "pve2 from pve1, moved", "pve3 from pve3"]);
        assert_eq!(served.templates.len(), 2);
        for node in ["pve1", "pve3"] {
            without_import(&mut seen, node);
        }
        assert_eq!(sources(&wanted, &seen).missing.len(), 3);
    }

    #[test]
    fn a_template_that_is_there_is_taken_also_from_another_node() {
        let (wanted, mut seen) = three();
        for node in ["pve1", "pve2", "pve3"] {
            without_import(&mut seen, node);
        }
        let (_, fingerprint) = template_print(&wanted, &wanted.schematic);
        seen.templates.push(SeenTemplate {
            node: "pve3".into(),
            vmid: crate::types::VmId(107),
            name: "talos-1-13-9".to_owned(),
            mark: "recast: run=x step=template/pve3/create cluster=other".to_owned(),
            fingerprint,
            proved: true,
        });
        let served = sources(&wanted, &seen);
        assert_eq!(origins(&served), ["pve1 from pve3, moved", "pve2 from pve3, moved", "pve3 from pve3"]);
        assert!(matches!(served.templates.values().next(), Some(Template::Found(_))));
    }

    const UNPINNED: &str =
        "the node takes uploads; to let it pull, the lock needs the digest of the .qcow2 (`transport: pull` notes it)";

    fn at(node: &str) -> Spot {
        Spot { node: node.into(), schematic: wanted().schematic }
    }

    fn ways(wanted: &Wanted, seen: &Observed) -> Vec<String> {
        let of = |template: &Template<'_>| match template {
            Template::Found(_) => "found".to_owned(),
            Template::Made(way) => match &way.by {
                By::Pull { import, or_upload } => format!("pull to {import} {or_upload}: {}", way.because),
                By::Upload { import } => format!("upload to {import}: {}", way.because),
                By::Ssh { unwritten: Unwritten::Zeros, file } => format!("ssh {file}: {}", way.because),
                By::Ssh { unwritten: Unwritten::Garbage, .. } => format!("ssh, zeroed: {}", way.because),
            },
        };
        sources(wanted, seen).templates.values().map(of).collect()
    }

    #[test]
    fn an_image_takes_the_first_way_that_is_open() {
        let (mut wanted, mut seen) = (wanted(), seen());
        assert_eq!(ways(&wanted, &seen), [format!("upload to local: {UNPINNED}")]);
        seen.nodes[0].version = "8.2.7".to_owned();
        let too_old = "pve1 runs Proxmox VE 8.2.7, which takes no uploads of disk images";
        let no_ssh = "the site says nothing about SSH to pve1";
        assert_eq!(way(&wanted, &seen, &at("pve1")), Err(vec![too_old.to_owned(), no_ssh.to_owned()]));
        seen.shells.insert("pve1".into(), None);
        assert_eq!(ways(&wanted, &seen), [format!("ssh false: {too_old}")]);
        wanted.transport = Transport::Upload;
        assert_eq!(way(&wanted, &seen, &at("pve1")), Err(vec![too_old.to_owned()]));
        wanted.transport = Transport::Ssh;
        seen.nodes[0].version = "9.1.2".to_owned();
        for (kind, expected) in [
            ("lvmthin", "ssh false: as asked for"),
            ("zfspool", "ssh false: as asked for"),
            ("dir", "ssh true: as asked for"),
            ("lvm", "ssh, zeroed: as asked for"),
        ] {
            for storage in seen.storages.iter_mut().filter(|storage| storage.id == wanted.storage) {
                storage.kind = kind.to_owned();
            }
            assert_eq!(ways(&wanted, &seen), [expected], "{kind}");
        }
        for storage in &mut seen.storages {
            storage.kind = "rbd".to_owned();
        }
        assert!(way(&wanted, &seen, &at("pve1")).unwrap_err()[0].contains("neither files nor devices"));
    }

    #[test]
    fn a_node_pulls_when_it_can_and_the_digest_is_known() {
        let (mut wanted, mut seen) = (wanted(), seen());
        let qcow2 = Image { url: "https://factory.example/x.qcow2".to_owned(), ..seen.images[0].clone() };
        seen.pulls = vec![Image { sha256: None, ..qcow2.clone() }];
        seen.routes.insert("pve1".into(), None);
        assert_eq!(ways(&wanted, &seen), [format!("upload to local: {UNPINNED}")]);
        wanted.transport = Transport::Pull;
        assert_eq!(ways(&wanted, &seen), ["pull to local false: as asked for"]);
        seen.pulls[0].sha256 = Some(crate::types::Sha256::of(b"qcow2"));
        wanted.transport = Transport::Auto;
        let pulled = "pull to local true: it reaches the factory, and the lock has the digest";
        assert_eq!(ways(&wanted, &seen), [pulled]);
        assert!(may_pull(Transport::Auto, &seen, &"pve1".into()));
        seen.routes.insert("pve1".into(), Some("no route to host".to_owned()));
        let uploaded = "upload to local: the node takes uploads; pve1 can't fetch it: no route to host";
        assert_eq!(ways(&wanted, &seen), [uploaded]);
        wanted.transport = Transport::Pull;
        assert_eq!(way(&wanted, &seen, &at("pve1")), Err(vec!["pve1 can't fetch it: no route to host".to_owned()]));
        seen.nodes[0].version = "8.2.7".to_owned();
        assert!(!may_pull(Transport::Pull, &seen, &"pve1".into()));
    }

    #[test]
    fn a_template_that_no_canary_passed_is_not_chosen_again() {
        let (wanted, mut seen) = (wanted(), seen());
        let (_, fingerprint) = template_print(&wanted, &wanted.schematic);
        seen.templates.push(SeenTemplate {
            node: "pve1".into(),
            vmid: crate::types::VmId(107),
            name: "talos-1-13-9".to_owned(),
            mark: "recast: run=x step=template/pve1/create cluster=single".to_owned(),
            fingerprint,
            proved: false,
        });
        assert_eq!(ways(&wanted, &seen), [format!("upload to local: {UNPINNED}")]);
        seen.templates[0].proved = true;
        assert_eq!(ways(&wanted, &seen), ["found"]);
    }
}
