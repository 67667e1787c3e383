//! Facts made up for tests.

use super::facts::{Factory, Facts, Group, Row};
use crate::types::VmId;

/// A cluster whose VMs have these numbers.
pub(super) fn facts(vms: &[u32], template: Option<u32>) -> Facts {
    let row = |vmid: &u32| Row {
        name: format!("cp-{vmid}").as_str().into(),
        node: "pve1".into(),
        vmid: VmId(*vmid),
        ip: None,
        mac: None,
        vm: <_>::default(),
    };
    let group = Group {
        key: "controlplane",
        prefix: "cp-".to_owned(),
        cores: 2,
        memory: 4096,
        disk_gib: 32,
        factory: None,
        vm: <_>::default(),
        rows: vms.iter().map(row).collect(),
    };
    Facts {
        name: "lab".to_owned(),
        talos: "1.12.4".parse().unwrap(),
        kubernetes: "1.34.1".parse().unwrap(),
        endpoint: "10.20.0.10:6443".to_owned(),
        pod_cidr: None,
        service_cidr: None,
        vip: None,
        gateway: None,
        prefix: None,
        nameservers: Vec::new(),
        mtu: None,
        bridge: None,
        vlan: None,
        install_disk: None,
        factory: Factory::default(),
        groups: vec![group],
        template: template.map(VmId),
        tags: vec!["lab".to_owned()],
        notes: Vec::new(),
    }
}
