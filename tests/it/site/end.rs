//! What a rebuild must leave behind, read through Proxmox VE's and Talos' APIs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use recast::cli::carry_out::access;
use recast::observe::cluster;
use recast::plan::PlannedVm;
use recast::profile::{Taken, WantedVm, expand};
use recast::pve::vm::VmRef;
use recast::types::StorageId;

use super::{Cluster, Folder, VM};

/// What there is when nothing goes on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct End {
    /// `1100 single-cp-01 running`, `100 talos-1-13-9 template`.
    pub(crate) vms: Vec<String>,
    /// How many disks belong to each VM; those of no VM count for number 0.
    pub(crate) disks: BTreeMap<u32, usize>,
    /// Files among the uploads.
    pub(crate) uploads: Vec<String>,
    /// What runs: Talos by machine, and Kubernetes.
    pub(crate) versions: Vec<String>,
    /// Etcd's members.
    pub(crate) members: Vec<String>,
    /// Secrets that the cluster doesn't share with the secrets file.
    pub(crate) differing_secrets: Vec<String>,
    /// The versions and the template in the profile.
    pub(crate) profile: Vec<String>,
}

impl End {
    /// What every rebuild of this cluster must end with, however often it was interrupted.
    pub(crate) fn rebuilt(cluster: Cluster) -> Self {
        let text = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let single = Self {
            vms: text(&["100 talos-1-13-9 template", "101 talos-1-12-4 template", "1100 single-cp-01 running"]),
            disks: BTreeMap::from([(100, 2), (101, 2), (VM, 2)]),
            uploads: Vec::new(),
            versions: text(&["single-cp-01 1.13.9", "kubernetes 1.35.0"]),
            members: text(&["single-cp-01"]),
            differing_secrets: Vec::new(),
            profile: text(&["version: \"1.13.9\"", "kubernetes_version: \"1.35.0\"", "template: 100"]),
        };
        match cluster {
            Cluster::Single | Cluster::SingleOverSsh => single,
            Cluster::Lab => Self {
                vms: text(&[
                    "100 talos-1-13-9 template",
                    "101 talos-1-13-9 template",
                    "102 talos-1-12-4 template",
                    "103 talos-1-13-9 template",
                    "1200 lab-cp-01 running",
                    "1201 lab-cp-02 running",
                    "1202 lab-cp-03 running",
                    "1210 lab-worker-01 running",
                    "1211 lab-worker-02 running",
                ]),
                disks: [100, 101, 102, 103, 1200, 1201, 1202, 1210, 1211].map(|vmid| (vmid, 2)).into(),
                versions: text(&[
                    "lab-cp-01 1.13.9",
                    "lab-cp-02 1.13.9",
                    "lab-cp-03 1.13.9",
                    "lab-worker-01 1.13.9",
                    "lab-worker-02 1.13.9",
                    "kubernetes 1.35.0",
                ]),
                members: text(&["lab-cp-01", "lab-cp-02", "lab-cp-03"]),
                ..single
            },
        }
    }

    /// Looks.
    pub(crate) async fn of(folder: &Folder, site: &Path) -> Self {
        let session = folder.session(site);
        let (mut vms, mut disks, mut uploads) = (Vec::new(), BTreeMap::new(), Vec::new());
        for node in session.pve.nodes().await.unwrap() {
            let node = node.node;
            for vm in session.pve.vms(&node).await.unwrap() {
                let at = VmRef::new(node.clone(), vm.vmid);
                let config = session.pve.vm_config(&at).await.unwrap();
                let status = session.pve.vm_status(&at).await.unwrap();
                let state = match (config.is_template(), status.is_running()) {
                    (true, _) => "template",
                    (false, true) => "running",
                    (false, false) => "stopped",
                };
                vms.push((vm.vmid, format!("{} {} {state}", vm.vmid, config.name().unwrap_or("?"))));
            }
            for disk in session.pve.volumes(&node, &StorageId::new("local-lvm"), None, None).await.unwrap() {
                *disks.entry(disk.vmid().map_or(0, |vmid| vmid.0)).or_insert(0) += 1;
            }
            let files = session.pve.volumes(&node, &StorageId::new("local"), Some("import"), None).await.unwrap();
            uploads.extend(files.iter().map(|file| format!("{} on {node}", file.volid)));
        }
        vms.sort();
        let now = jiff::Timestamp::now();
        let secrets = session.secrets(now).unwrap();
        let profile = &session.profile.value;
        let machines: Vec<PlannedVm> =
            expand(profile, &session.site, &Taken::default()).unwrap().iter().map(row).collect();
        let endpoint = profile.network.api_endpoint.as_ref().unwrap().url();
        let access = access(&secrets, now).unwrap();
        let seen = cluster::observe(&session.connector, &secrets, &access, &machines, &endpoint, now).await;
        let mut seen = seen.unwrap_or_default();
        seen.members.sort();
        let mut versions: Vec<String> = seen.talos.iter().map(|(name, version)| format!("{name} {version}")).collect();
        versions.extend(seen.kubernetes.map(|version| format!("kubernetes {version}")));
        let profile = fs::read_to_string(folder.profile()).unwrap();
        let keys = ["version:", "kubernetes_version:", "template:"];
        let line = |line: &str| line.split(" #").next().unwrap_or_default().trim().to_owned();
        Self {
            vms: vms.into_iter().map(|(_, text)| text).collect(),
            disks,
            uploads,
            versions,
            members: seen.members,
            differing_secrets: seen.differing_secrets,
            profile: profile.lines().map(line).filter(|line| keys.iter().any(|key| line.starts_with(key))).collect(),
        }
    }
}

fn row(vm: &WantedVm) -> PlannedVm {
    PlannedVm {
        name: vm.name.to_string(),
        role: vm.role,
        vmid: vm.vmid,
        node: vm.node.clone(),
        address: vm.address,
        cores: vm.cores,
        memory_mb: vm.memory_mb,
        disk_gib: vm.disk_gib,
        mac: vm.mac,
        replaces: None,
    }
}
