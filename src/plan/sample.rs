//! A small world for the planner's tests: one PVE node, one old control plane, one template of another owner.

use std::collections::BTreeMap;

use super::errands::Errands;
use super::observed::{Known, Observed, SeenCluster, SeenNode, SeenStorage, SeenVm};
use super::step::{Discovery, Hardware, Image, MachineSpec, VmIdentity};
use super::wanted::{Limits, PlannedVm, Wanted};
use super::{ClusterConfig, Verb};
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
        installer: None,
        patches: Vec::new(),
        whole: None,
        digest: Sha256::of(b"config"),
    };
    Wanted {
        verb: Verb::Rebuild,
        run: "2026-11-20T22-31-05".into(),
        cluster: "single".to_owned(),
        profile: Sha256::of(b"profile"),
        secrets: Sha256::of(b"secrets"),
        talos: "1.13.9".parse().unwrap(),
        kubernetes: "1.35.0".parse().unwrap(),
        schematic: SCHEMATIC.into(),
        extensions: vec!["siderolabs/qemu-guest-agent".to_owned()],
        others: BTreeMap::new(),
        config: ClusterConfig {
            endpoint: "https://192.168.178.41:6443".to_owned(),
            pod_cidr: "10.244.0.0/16".to_owned(),
            service_cidr: "10.96.0.0/12".to_owned(),
            install_disk: "/dev/sda".to_owned(),
            schematic: SCHEMATIC.into(),
            installer: format!("factory.example/nocloud-installer/{SCHEMATIC}:v1.13.9"),
            mtu: None,
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
        inherit: BTreeMap::new(),
        pool: None,
        transport: crate::profile::Transport::Auto,
        template_ids: 100..=999,
        discovery: vec![Discovery::Scan("192.168.178.0/24".to_owned())],
        canary_discovery: vec![Discovery::Scan("192.168.178.0/24".to_owned())],
        cloud_init: false,
        limits: Limits { shutdown: 120, boot: 300, health: 600, task: 600, steady: 30, drain: 300 },
        max_destroy: None,
        destroy_disks: std::collections::BTreeSet::new(),
        data: super::Data::Fresh,
        before: None,
        errands: Errands::default(),
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
        ha: None,
        replicas: Vec::new(),
        backup_jobs: Vec::new(),
        snapshots: Vec::new(),
        firewall: None,
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
        images: vec![Image {
            url: "https://factory.example/image.raw.xz".to_owned(),
            schematic: wanted().schematic,
            version: wanted().talos,
            sha256: None,
            bytes: 100 << 20,
        }],
        cluster: Some(SeenCluster {
            talos: [("single-cp-01".to_owned(), "1.12.4".parse().unwrap())].into(),
            kubernetes: Some("1.34.1".parse().unwrap()),
            schematic: BTreeMap::new(),
            members: vec!["single-cp-01".to_owned()],
            differing_secrets: Vec::new(),
            unhealthy: Vec::new(),
            local_volumes: Some(Vec::new()),
            ..SeenCluster::default()
        }),
        ..Observed::default()
    }
}

/// One machine on each of these nodes, the first as it was, with storages as on `pve1`.
pub(super) fn nodes(wanted: &mut Wanted, seen: &mut Observed, names: &[&str]) {
    let (vm, machine) = (wanted.vms[0].clone(), wanted.machines[&"single-cp-01".into()].clone());
    let storages = seen.storages.clone();
    for (index, name) in names.iter().enumerate().skip(1) {
        let number = u32::try_from(index).unwrap();
        let mut next = vm.clone();
        next.name = format!("single-cp-{:02}", index + 1);
        next.vmid = VmId(vm.vmid.0 + number);
        next.node = (*name).into();
        next.address = Some(std::net::Ipv4Addr::from(0xC0A8_B229 + number).into());
        let mac = crate::types::Mac([0xBC, 0x24, 0x11, 0, 0x20, u8::try_from(index).unwrap()]);
        wanted
            .machines
            .insert(next.name.as_str().into(), MachineSpec { name: next.name.as_str().into(), mac, ..machine.clone() });
        wanted.vms.push(next);
        seen.nodes.push(SeenNode { name: (*name).into(), ..seen.nodes[0].clone() });
        seen.storages.extend(storages.iter().map(|storage| SeenStorage { node: (*name).into(), ..storage.clone() }));
    }
}

/// A rebuild of three control planes and two workers that keeps their data.
pub(super) fn keeping() -> Wanted {
    let mut wanted = wanted();
    let (vm, machine) = (wanted.vms[0].clone(), wanted.machines[&"single-cp-01".into()].clone());
    wanted.vms.clear();
    wanted.machines.clear();
    for (index, (name, role)) in (11..).zip(FIVE) {
        let mac = crate::types::Mac([0xBC, 0x24, 0x11, 0, 0x12, index]);
        wanted.vms.push(PlannedVm {
            name: name.to_owned(),
            role,
            vmid: VmId(1190 + u32::from(index)),
            address: Some(std::net::Ipv4Addr::new(192, 168, 178, index).into()),
            ..vm.clone()
        });
        wanted.machines.insert(name.into(), MachineSpec { name: name.into(), role, mac, ..machine.clone() });
    }
    wanted.data = super::Data::Keep(super::data::Keep {
        dir: "backups".into(),
        copies: Vec::new(),
        max_age: 600,
        require_copy: false,
    });
    wanted
}

const FIVE: [(&str, Role); 5] = [
    ("lab-cp-01", Role::ControlPlane),
    ("lab-cp-02", Role::ControlPlane),
    ("lab-cp-03", Role::ControlPlane),
    ("lab-worker-01", Role::Worker),
    ("lab-worker-02", Role::Worker),
];

/// What is seen before [`keeping`].
pub(super) fn seen_of_five() -> Observed {
    let mut seen = seen();
    seen.vms.clear();
    for (index, (name, role)) in (1201..).zip(FIVE) {
        let mut vm = vm(index, name, &["single", "talos"]);
        vm.role = Some(role);
        seen.vms.push(vm);
        seen.vmids.insert(VmId(index));
    }
    if let Some(cluster) = &mut seen.cluster {
        cluster.talos = FIVE.iter().map(|(name, _)| ((*name).to_owned(), "1.12.4".parse().unwrap())).collect();
        cluster.members = FIVE[..3].iter().map(|(name, _)| (*name).to_owned()).collect();
    }
    seen
}
