use super::*;

fn wanted() -> Wanted {
    let machine = |name: &str, role: Role, vmid: u32| WantedMachine {
        name: name.to_owned(),
        role,
        vmid: Some(VmId(vmid)),
        node: Some("pve1".into()),
        cores: 2,
        memory_mb: 4096,
        disk_gib: 32,
        schematic: Some(if role == Role::Worker { "cc" } else { "aa" }.into()),
    };
    Wanted {
        machines: vec![machine("cp-01", Role::ControlPlane, 100), machine("worker-01", Role::Worker, 101)],
        talos: Some("1.13.9".parse().unwrap()),
        kubernetes: Some("1.35".parse().unwrap()),
    }
}

fn machine(name: &str, role: Role, vmid: u32) -> Machine {
    let vm = Vm {
        vmid: VmId(vmid),
        node: "pve1".into(),
        power: "running".to_owned(),
        cores: 2,
        memory_mb: 4096,
        disk_gib: Some(40),
        tagged: true,
    };
    let talos = Talos {
        version: "1.13.9".parse().unwrap(),
        schematic: Some(if role == Role::Worker { "cc" } else { "aa" }.into()),
        stage: Some("running".to_owned()),
        unmet: Vec::new(),
    };
    let (name, role) = (name.to_owned(), Some(role));
    Machine { name, role, vm: Some(vm), address: None, talos: Some(talos), silence: None }
}

fn node(name: &str) -> KubernetesNode {
    let (name, kubelet) = (name.to_owned(), "v1.35.2".to_owned());
    KubernetesNode { name, ready: true, because: None, kubelet, cordoned: false }
}

fn healthy() -> Status {
    Status {
        hosts: vec![Host { name: "pve1".into(), online: true }],
        machines: vec![machine("cp-01", Role::ControlPlane, 100), machine("worker-01", Role::Worker, 101)],
        etcd: Some(Etcd { members: vec!["cp-01".to_owned()], leader: Some("cp-01".to_owned()), ..Etcd::default() }),
        kubernetes: Some(Kubernetes {
            endpoint: "https://192.168.178.40:6443".to_owned(),
            version: Some("1.35.0".parse().unwrap()),
            nodes: Some(vec![node("cp-01"), node("worker-01")]),
            silence: None,
        }),
        ..Status::default()
    }
}

fn judged(change: impl FnOnce(&mut Status)) -> (Vec<String>, Vec<String>) {
    let mut status = healthy();
    change(&mut status);
    let status = status.judge(&wanted());
    let text = |drift: &Drift| format!("{}: {} {} → {}", drift.about, drift.what, drift.seen, drift.wanted);
    (status.unwell, status.drift.iter().map(text).collect())
}

#[test]
fn a_healthy_cluster_as_wanted_has_nothing_to_say() {
    assert_eq!(judged(|_| ()), (Vec::new(), Vec::new()));
}

#[test]
fn every_difference_from_the_profile_is_drift() {
    type Change = fn(&mut Status);
    let changes: [(Change, &str); 8] = [
        (|status| drop(status.machines.pop()), "worker-01: VM missing → one"),
        (|status| status.machines[0].vm.as_mut().unwrap().node = "pve2".into(), "cp-01: node pve2 → pve1"),
        (|status| status.machines[0].vm.as_mut().unwrap().cores = 1, "cp-01: cores 1 → 2"),
        (|status| status.machines[0].vm.as_mut().unwrap().disk_gib = Some(8), "cp-01: disk 8 GiB → 32 GiB"),
        (
            |status| status.machines[0].talos.as_mut().unwrap().version = "1.12.4".parse().unwrap(),
            "cp-01: Talos 1.12.4 → 1.13.9",
        ),
        (|status| status.machines[0].talos.as_mut().unwrap().schematic = Some("bb".into()), "cp-01: schematic bb → aa"),
        (
            |status| status.kubernetes.as_mut().unwrap().version = Some("1.34.1".parse().unwrap()),
            "Kubernetes: API 1.34.1 → 1.35",
        ),
        (
            |status| status.etcd.as_mut().unwrap().members.push("gone-01".to_owned()),
            "etcd: member gone-01 there → none: it is no control plane of the profile",
        ),
    ];
    for (change, expected) in changes {
        assert_eq!(judged(change), (Vec::new(), vec![expected.to_owned()]));
    }
    let (_, stranger) = judged(|status| status.machines.push(machine("other-01", Role::Worker, 105)));
    assert_eq!(stranger, ["other-01: VM there → none: the profile doesn't know it"]);
}

#[test]
fn what_is_not_healthy_is_said_whatever_the_profile_wants() {
    type Change = fn(&mut Status);
    let changes: [(Change, &str); 7] = [
        (|status| status.hosts[0].online = false, "PVE node pve1 is offline"),
        (
            |status| status.machines[1].vm.as_mut().unwrap().power = "stopped".to_owned(),
            "VM 101 (worker-01) is stopped",
        ),
        (
            |status| {
                status.machines[1].talos = None;
                status.machines[1].silence = Some("no route".to_owned());
            },
            "worker-01 does not answer: no route",
        ),
        (|status| status.etcd.as_mut().unwrap().leader = None, "etcd's members agree on no leader"),
        (|status| status.etcd = None, "no control plane says anything about etcd"),
        (
            |status| status.kubernetes.as_mut().unwrap().nodes.as_mut().unwrap()[0].ready = false,
            "Kubernetes node cp-01 is not Ready",
        ),
        (
            |status| drop(status.kubernetes.as_mut().unwrap().nodes.as_mut().unwrap().pop()),
            "Kubernetes has no node worker-01",
        ),
    ];
    for (change, expected) in changes {
        assert_eq!(judged(change), (vec![expected.to_owned()], Vec::new()));
    }
}

#[test]
fn a_generic_cluster_has_vms_only() {
    let mut status = Status { etcd: None, kubernetes: None, ..healthy() };
    status.machines.iter_mut().for_each(|machine| machine.talos = None);
    let generic = Wanted { talos: None, kubernetes: None, ..wanted() };
    let status = status.judge(&generic);
    assert_eq!((status.unwell, status.drift), (Vec::new(), Vec::new()));
}
