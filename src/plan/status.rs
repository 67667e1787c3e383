//! How a cluster stands, beside how its profile wants it: what `recast status` shows.
//!
//! Purpose: one serialisable picture, and the pure comparison that finds what is unwell and what has drifted.
//! Must not know: clients. `observe::status` fills it. Start reading at [`Status`], then [`Status::judge`].

use std::collections::BTreeSet;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;

use crate::types::{NodeName, Role, SchematicId, Version, VersionWish, VmId};

/// The observed state of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Status {
    /// The nodes of Proxmox VE.
    pub hosts: Vec<Host>,
    /// The profile's machines, and VMs that carry its tags without being one.
    pub machines: Vec<Machine>,
    /// Etcd; absent when no control plane answers, and for clusters that aren't Talos'.
    pub etcd: Option<Etcd>,
    /// The Kubernetes API; absent for clusters that aren't Talos'.
    pub kubernetes: Option<Kubernetes>,
    /// What is not as it should be in a healthy cluster, sentences.
    pub unwell: Vec<String>,
    /// What is not as the profile wants it.
    pub drift: Vec<Drift>,
}

/// A node of Proxmox VE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Host {
    /// Its name.
    pub name: NodeName,
    /// Whether it takes part.
    pub online: bool,
}

/// A machine and its VM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Its role, by the profile or by its tag.
    pub role: Option<Role>,
    /// Its VM; none when there is none.
    pub vm: Option<Vm>,
    /// Where it should answer, or was found.
    #[schemars(with = "Option<String>")]
    pub address: Option<IpAddr>,
    /// What it says itself; none when it does not answer, or is no Talos machine.
    pub talos: Option<Talos>,
    /// Why it does not answer.
    pub silence: Option<String>,
}

/// A VM, as Proxmox VE has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Vm {
    /// Its number.
    pub vmid: VmId,
    /// Where it lives.
    pub node: NodeName,
    /// `running`, `stopped` …
    pub power: String,
    /// Virtual CPUs.
    pub cores: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Size of the boot disk in GiB, when it is known.
    pub disk_gib: Option<u64>,
    /// Whether it carries all tags of the profile.
    pub tagged: bool,
}

/// What a Talos machine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Talos {
    /// Its version.
    #[schemars(with = "String")]
    pub version: Version,
    /// The schematic of its image, when the Image Factory made it.
    pub schematic: Option<SchematicId>,
    /// `running`, `booting` …
    pub stage: Option<String>,
    /// What keeps it from being ready.
    pub unmet: Vec<String>,
}

/// Etcd, as its members see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Etcd {
    /// The host names of its members.
    pub members: Vec<String>,
    /// The leader, when all members that answer name the same one.
    pub leader: Option<String>,
    /// Members that don't vote (yet).
    pub learners: Vec<String>,
    /// Alarms and errors of members.
    pub errors: Vec<String>,
}

/// The Kubernetes API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Kubernetes {
    /// Where it is to be found.
    pub endpoint: String,
    /// Its version; none when it does not answer.
    #[schemars(with = "Option<String>")]
    pub version: Option<Version>,
    /// Its nodes; none when they could not be listed.
    pub nodes: Option<Vec<KubernetesNode>>,
    /// Why it does not answer.
    pub silence: Option<String>,
}

/// A Node object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KubernetesNode {
    /// Its name.
    pub name: String,
    /// Whether it is Ready.
    pub ready: bool,
    /// Why it is not.
    pub because: Option<String>,
    /// Version of its kubelet.
    pub kubelet: String,
    /// Whether new pods are kept off it.
    pub cordoned: bool,
}

/// Something that is not as the profile wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Drift {
    /// The machine, or the cluster's part.
    pub about: String,
    /// What of it: `Talos`, `node`, `cores` …
    pub what: String,
    /// As it is.
    pub seen: String,
    /// As the profile wants it.
    pub wanted: String,
}

/// What the profile asks for, as far as it can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The machines.
    pub machines: Vec<WantedMachine>,
    /// Talos; none for clusters that aren't Talos'.
    pub talos: Option<VersionWish>,
    /// Kubernetes; none for clusters that aren't Talos'.
    pub kubernetes: Option<VersionWish>,
}

/// One machine of the profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedMachine {
    /// Its name.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its number, when the profile fixes it.
    pub vmid: Option<VmId>,
    /// Its node, when the profile fixes it.
    pub node: Option<NodeName>,
    /// Virtual CPUs.
    pub cores: u64,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Boot disk in GiB.
    pub disk_gib: u64,
    /// The schematic of its image, when the profile decides it.
    pub schematic: Option<SchematicId>,
}

impl Status {
    /// Fills `unwell` and `drift` from the rest.
    #[must_use]
    pub fn judge(mut self, wanted: &Wanted) -> Self {
        let mut judge = Judge { wanted, unwell: Vec::new(), drift: Vec::new() };
        judge.hosts(&self.hosts);
        for machine in &self.machines {
            judge.machine(machine);
        }
        for missing in wanted.machines.iter().filter(|want| !self.machines.iter().any(|seen| seen.name == want.name)) {
            judge.drifted(&missing.name, "VM", "missing", "one");
        }
        if wanted.talos.is_some() {
            judge.etcd(self.etcd.as_ref());
        }
        if let Some(kubernetes) = &self.kubernetes {
            judge.kubernetes(kubernetes);
        }
        self.unwell.extend(judge.unwell);
        self.drift.extend(judge.drift);
        self
    }
}

struct Judge<'a> {
    wanted: &'a Wanted,
    unwell: Vec<String>,
    drift: Vec<Drift>,
}

impl Judge<'_> {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers, versions and literals alike, without an & at each call"
    )]
    fn drifted(&mut self, about: &str, what: &str, seen: impl ToString, wanted: impl ToString) {
        let (seen, wanted) = (seen.to_string(), wanted.to_string());
        if seen != wanted {
            self.drift.push(Drift { about: about.to_owned(), what: what.to_owned(), seen, wanted });
        }
    }

    fn hosts(&mut self, hosts: &[Host]) {
        for host in hosts.iter().filter(|host| !host.online) {
            self.unwell.push(format!("PVE node {} is offline", host.name));
        }
    }

    fn machine(&mut self, seen: &Machine) {
        let Some(wanted) = self.wanted.machines.iter().find(|wanted| wanted.name == seen.name) else {
            self.drifted(&seen.name, "VM", "there", "none: the profile doesn't know it");
            return;
        };
        match &seen.vm {
            None => {
                self.drifted(&seen.name, "VM", "missing", "one");
                return;
            }
            Some(vm) => self.vm(seen, vm, wanted),
        }
        let Some(wish) = &self.wanted.talos else { return };
        match (&seen.talos, &seen.silence) {
            (Some(talos), _) => {
                if !fits(wish, &talos.version) {
                    self.drifted(&seen.name, "Talos", &talos.version, wish);
                }
                if let (Some(schematic), Some(wanted)) = (&talos.schematic, &wanted.schematic) {
                    self.drifted(&seen.name, "schematic", schematic, wanted);
                }
                let stage = talos.stage.as_deref().unwrap_or("running");
                if stage != "running" {
                    self.unwell.push(format!("{} is {stage}", seen.name));
                }
                for unmet in &talos.unmet {
                    self.unwell.push(format!("{}: {unmet}", seen.name));
                }
            }
            (None, Some(silence)) => self.unwell.push(format!("{} does not answer: {silence}", seen.name)),
            (None, None) => {}
        }
    }

    fn vm(&mut self, seen: &Machine, vm: &Vm, wanted: &WantedMachine) {
        let name = &seen.name;
        if vm.power != "running" {
            self.unwell.push(format!("VM {} ({name}) is {}", vm.vmid, vm.power));
        }
        if !vm.tagged {
            self.unwell.push(format!("VM {} has the name {name} and not the profile's tags", vm.vmid));
        }
        if let Some(vmid) = wanted.vmid {
            self.drifted(name, "VMID", vm.vmid, vmid);
        }
        if let Some(node) = &wanted.node {
            self.drifted(name, "node", &vm.node, node);
        }
        self.drifted(name, "cores", vm.cores, wanted.cores);
        self.drifted(name, "memory", format!("{} MB", vm.memory_mb), format!("{} MB", wanted.memory_mb));
        // A larger disk than asked for is left as it is.
        if let Some(gib) = vm.disk_gib.filter(|gib| *gib < wanted.disk_gib) {
            self.drifted(name, "disk", format!("{gib} GiB"), format!("{} GiB", wanted.disk_gib));
        }
    }

    fn etcd(&mut self, etcd: Option<&Etcd>) {
        let Some(etcd) = etcd else {
            self.unwell.push("no control plane says anything about etcd".to_owned());
            return;
        };
        if etcd.leader.is_none() {
            self.unwell.push("etcd's members agree on no leader".to_owned());
        }
        for learner in &etcd.learners {
            self.unwell.push(format!("etcd member {learner} does not vote"));
        }
        self.unwell.extend(etcd.errors.iter().map(|error| format!("etcd: {error}")));
        let members: BTreeSet<&str> = etcd.members.iter().map(String::as_str).collect();
        let planes = self.wanted.machines.iter().filter(|machine| machine.role == Role::ControlPlane);
        let planes: BTreeSet<&str> = planes.map(|machine| machine.name.as_str()).collect();
        for stray in members.difference(&planes) {
            self.drifted("etcd", &format!("member {stray}"), "there", "none: it is no control plane of the profile");
        }
        for missing in planes.difference(&members) {
            self.drifted("etcd", &format!("member {missing}"), "missing", "one");
        }
    }

    fn kubernetes(&mut self, kubernetes: &Kubernetes) {
        let wish = self.wanted.kubernetes.as_ref();
        match (&kubernetes.version, &kubernetes.silence) {
            (Some(version), _) => {
                if let Some(wish) = wish.filter(|wish| !fits(wish, version)) {
                    self.drifted("Kubernetes", "API", version, wish);
                }
            }
            (None, silence) => {
                let why = silence.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                self.unwell.push(format!("the Kubernetes API at {} does not answer{why}", kubernetes.endpoint));
            }
        }
        let Some(nodes) = &kubernetes.nodes else { return };
        for node in nodes {
            self.node(node);
        }
        for missing in &self.wanted.machines {
            if !nodes.iter().any(|node| node.name == missing.name) {
                self.unwell.push(format!("Kubernetes has no node {}", missing.name));
            }
        }
    }

    fn node(&mut self, node: &KubernetesNode) {
        if !self.wanted.machines.iter().any(|wanted| wanted.name == node.name) {
            self.drifted(&node.name, "Kubernetes node", "there", "none: the profile doesn't know it");
            return;
        }
        if !node.ready {
            let why = node.because.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            self.unwell.push(format!("Kubernetes node {} is not Ready{why}", node.name));
        }
        if node.cordoned {
            self.unwell.push(format!("Kubernetes node {} is cordoned", node.name));
        }
        if let (Some(wish), Ok(kubelet)) = (&self.wanted.kubernetes, node.kubelet.parse::<Version>())
            && !fits(wish, &kubelet)
        {
            self.drifted(&node.name, "kubelet", &kubelet, wish);
        }
    }
}

/// Whether a version is what is wished for; which one `latest` is can't be told from here.
fn fits(wish: &VersionWish, version: &Version) -> bool {
    match wish {
        VersionWish::Exact(exact) => exact == version,
        VersionWish::Minor(major, minor) => version.minor() == (*major, *minor),
        VersionWish::Latest => true,
    }
}

#[cfg(test)]
mod tests {
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
            (
                |status| status.machines[0].talos.as_mut().unwrap().schematic = Some("bb".into()),
                "cp-01: schematic bb → aa",
            ),
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
}
