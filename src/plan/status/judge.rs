//! The comparison: what is unwell, and what is not as the profile wants it.

use std::collections::BTreeSet;

use super::{Drift, Etcd, Host, Kubernetes, KubernetesNode, Machine, Vm, Wanted, WantedMachine};
use crate::types::{Role, Version, VersionWish};

/// What was found so far.
pub(super) struct Judge<'a> {
    pub(super) wanted: &'a Wanted,
    pub(super) unwell: Vec<String>,
    pub(super) drift: Vec<Drift>,
}

impl Judge<'_> {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers, versions and literals alike, without an & at each call"
    )]
    pub(super) fn drifted(&mut self, about: &str, what: &str, seen: impl ToString, wanted: impl ToString) {
        let (seen, wanted) = (seen.to_string(), wanted.to_string());
        if seen != wanted {
            self.drift.push(Drift { about: about.to_owned(), what: what.to_owned(), seen, wanted });
        }
    }

    pub(super) fn hosts(&mut self, hosts: &[Host]) {
        for host in hosts.iter().filter(|host| !host.online) {
            self.unwell.push(format!("PVE node {} is offline", host.name));
        }
    }

    pub(super) fn machine(&mut self, seen: &Machine) {
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

    pub(super) fn etcd(&mut self, etcd: Option<&Etcd>) {
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

    pub(super) fn kubernetes(&mut self, kubernetes: &Kubernetes) {
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
