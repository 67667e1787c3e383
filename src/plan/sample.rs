//! A small world for the planner's tests: one PVE node, one old control plane, one template of another owner.

use std::collections::BTreeMap;

use super::ClusterConfig;
use super::observed::{Known, Observed, SeenCluster, SeenNode, SeenStorage, SeenVm};
use super::step::{Discovery, Hardware, Image, MachineSpec, VmIdentity};
use super::wanted::{Limits, PlannedVm, Wanted};
use crate::types::{Role, Sha256, VmId};

const SCHEMATIC: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";

fn keys(pairs: &[(&str, &str)]) -> Hardware {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(super) fn wanted() -> Wanted {
    let machine = MachineSpec {
        name: "single-cp-01".into(),
        role: Role::ControlPlane,
        mac: "BC:24:11:00:11:00".parse().unwrap(),
        address: Some("192.168.178.41/24".to_owned()),
        gateway: Some("192.168.178.1".parse().unwrap()),
        nameservers: vec!["192.168.178.1".parse().unwrap()],
        patches: Vec::new(),
        digest: Sha256::of(b"config"),
    };
    Wanted {
        run: "2026-11-20T22-31-05".into(),
        cluster: "single".to_owned(),
        profile: Sha256::of(b"profile"),
        secrets: Sha256::of(b"secrets"),
        talos: "1.13.9".parse().unwrap(),
        kubernetes: "1.35.0".parse().unwrap(),
        schematic: SCHEMATIC.into(),
        extensions: vec!["siderolabs/qemu-guest-agent".to_owned()],
        config: ClusterConfig {
            endpoint: "https://192.168.178.41:6443".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/12".to_owned(),
            install_disk: "/dev/sda".to_owned(),
            schematic: SCHEMATIC.into(),
            installer: format!("factory.example/nocloud-installer/{SCHEMATIC}:v1.13.9"),
            vip: None,
        },
        tags: vec!["talos".to_owned(), "single".to_owned()],
        vms: vec![PlannedVm {
            name: "single-cp-01".to_owned(),
            role: Role::ControlPlane,
            vmid: VmId(1100),
            node: "pve1".into(),
            address: Some("192.168.178.41".parse().unwrap()),
            cores: 2,
            memory_mb: 4096,
            disk_gib: 32,
            mac: None,
            replaces: None,
        }],
        machines: [("single-cp-01".into(), machine)].into(),
        storage: "local-lvm".into(),
        nic: "virtio,bridge=vmbr0".to_owned(),
        hardware: keys(&[("bios", "ovmf"), ("machine", "q35"), ("cpu", "host"), ("scsihw", "virtio-scsi-single")]),
        extra: BTreeMap::new(),
        template_ids: 100..=999,
        discovery: vec![Discovery::Scan("192.168.178.0/24".to_owned())],
        limits: Limits { shutdown: 120, boot: 300, health: 600, task: 600, steady: 30 },
        max_destroy: None,
    }
}

/// An old machine with its number, name and tags.
pub(super) fn vm(vmid: u32, name: &str, tags: &[&str]) -> SeenVm {
    let volume = |n: u32| format!("local-lvm:vm-{vmid}-disk-{n}");
    SeenVm {
        identity: VmIdentity {
            node: "pve1".into(),
            vmid: VmId(vmid),
            name: name.to_owned(),
            uuid: format!("5f3f1d0e-0000-4000-8000-{vmid:012}"),
            vmgenid: None,
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            created: Some(1_700_000_000),
            disks: [
                ("efidisk0".to_owned(), volume(0).as_str().into()),
                ("scsi0".to_owned(), volume(1).as_str().into()),
            ]
            .into(),
        },
        tagged: tags.contains(&"talos") && tags.contains(&"single"),
        template: false,
        known: Known::Profile,
        role: Some(Role::ControlPlane),
        running: true,
        config: keys(&[("boot", "order=scsi0"), ("net0", "virtio=BC:24:11:00:11:00,bridge=vmbr0"), ("onboot", "1")]),
        pool: None,
        ha: false,
        replicated: false,
        snapshots: false,
    }
}

pub(super) fn seen() -> Observed {
    let storage = |id: &str, kind: &str, content: &[&str]| SeenStorage {
        node: "pve1".into(),
        id: id.into(),
        kind: kind.to_owned(),
        content: content.iter().map(|kind| (*kind).to_owned()).collect(),
        shared: false,
        usable: true,
        free: 100 << 30,
    };
    Observed {
        nodes: vec![SeenNode { name: "pve1".into(), online: true, version: "8.4.21".to_owned(), memory_mb: 32768 }],
        storages: vec![storage("local", "dir", &["iso", "import"]), storage("local-lvm", "lvmthin", &["images"])],
        vmids: [VmId(101), VmId(1100)].into(),
        vms: vec![vm(1100, "single-cp-01", &["controlplane", "single", "talos"])],
        image: Some(Image {
            url: "https://factory.example/image.raw.xz".to_owned(),
            schematic: wanted().schematic,
            version: wanted().talos,
            sha256: None,
            bytes: 100 << 20,
        }),
        cluster: Some(SeenCluster {
            talos: [("single-cp-01".to_owned(), "1.12.4".parse().unwrap())].into(),
            kubernetes: Some("1.34.1".parse().unwrap()),
            schematic: BTreeMap::new(),
            members: vec!["single-cp-01".to_owned()],
            differing_secrets: Vec::new(),
            unhealthy: Vec::new(),
        }),
        ..Observed::default()
    }
}
