//! A cluster's state as text: one line about the whole, a table of machines, then what is unwell and what has drifted.
//!
//! Must not know: how it was seen. Start reading at [`text`].

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::text::count;
use crate::plan::status::{Etcd, Kubernetes, KubernetesNode, Machine, Status};

/// The whole text.
pub fn text(cluster: &str, status: &Status) -> String {
    let mut out = format!("{cluster}: {}\n\n", headline(status));
    table(status, &mut out);
    list("Not well", &status.unwell, &mut out);
    let drift: Vec<String> = status
        .drift
        .iter()
        .map(|drift| format!("{}: {} is {}, the profile wants {}", drift.about, drift.what, drift.seen, drift.wanted))
        .collect();
    list("Not as the profile wants it", &drift, &mut out);
    if status.unwell.is_empty() && drift.is_empty() {
        out.push_str("\nAll is well, and as the profile wants it.\n");
    }
    out
}

fn headline(status: &Status) -> String {
    let mut parts = Vec::new();
    let talos: BTreeSet<String> =
        status.machines.iter().filter_map(|machine| machine.talos.as_ref()).map(|it| it.version.to_string()).collect();
    if !talos.is_empty() {
        parts.push(format!("Talos {}", talos.into_iter().collect::<Vec<_>>().join(" and ")));
    }
    if let Some(version) = status.kubernetes.as_ref().and_then(|kubernetes| kubernetes.version.as_ref()) {
        parts.push(format!("Kubernetes {version}"));
    }
    if let Some(Etcd { members, leader, .. }) = &status.etcd {
        let led = leader.as_ref().map_or_else(|| "no leader".to_owned(), |leader| format!("leader {leader}"));
        parts.push(format!("etcd with {}, {led}", count(members.len(), "member")));
    }
    let running = status.machines.iter().filter(|machine| machine.vm.as_ref().is_some_and(|vm| vm.power == "running"));
    parts.push(format!("{} of {} running", running.count(), count(status.machines.len(), "VM")));
    parts.join(", ")
}

fn table(status: &Status, out: &mut String) {
    let of_talos = status.kubernetes.is_some();
    let mut heads = vec!["NAME", "ROLE", "VM", "NODE", "POWER", "ADDRESS"];
    if of_talos {
        heads.extend(["TALOS", "STAGE", "KUBELET", "READY"]);
    }
    let nodes = status.kubernetes.as_ref().and_then(|Kubernetes { nodes, .. }| nodes.as_deref()).unwrap_or_default();
    let mut rows: Vec<Vec<String>> = vec![heads.into_iter().map(str::to_owned).collect()];
    for machine in &status.machines {
        let node = nodes.iter().find(|node| node.name == machine.name);
        rows.push(row(machine, of_talos.then_some(node)));
    }
    let columns = rows.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "  {}", cells.join("  ").trim_end());
    }
}

#[expect(clippy::option_option, reason = "no answer from Kubernetes is something else than no node")]
fn row(machine: &Machine, node: Option<Option<&KubernetesNode>>) -> Vec<String> {
    let unknown = || "-".to_owned();
    let vm = machine.vm.as_ref();
    let mut cells = vec![
        machine.name.clone(),
        machine.role.map_or_else(unknown, |role| role.to_string()),
        vm.map_or_else(unknown, |vm| vm.vmid.to_string()),
        vm.map_or_else(unknown, |vm| vm.node.to_string()),
        vm.map_or_else(|| "missing".to_owned(), |vm| vm.power.clone()),
        machine.address.map_or_else(unknown, |address| address.to_string()),
    ];
    if let Some(node) = node {
        let talos = machine.talos.as_ref();
        let ready = |node: &KubernetesNode| if node.ready { "yes" } else { "no" }.to_owned();
        cells.extend([
            talos.map_or_else(|| "silent".to_owned(), |talos| talos.version.to_string()),
            talos.and_then(|talos| talos.stage.clone()).unwrap_or_else(unknown),
            node.map_or_else(unknown, |node| node.kubelet.trim_start_matches('v').to_owned()),
            node.map_or_else(unknown, ready),
        ]);
    }
    cells
}

fn list(title: &str, lines: &[String], out: &mut String) {
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{title}:");
    for line in lines {
        let _ = writeln!(out, "  {}", line.replace('\n', "\n  "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::status::{Drift, Talos, Vm};
    use crate::types::{Role, VmId};

    fn machine(name: &str, power: &str) -> Machine {
        let vm = Vm {
            vmid: VmId(1100),
            node: "pve1".into(),
            power: power.to_owned(),
            cores: 2,
            memory_mb: 4096,
            disk_gib: Some(32),
            tagged: true,
        };
        let address = Some("192.168.178.41".parse().unwrap());
        Machine { name: name.to_owned(), role: Some(Role::ControlPlane), vm: Some(vm), address, ..Machine::default() }
    }

    #[test]
    fn a_cluster_is_a_line_a_table_and_what_is_wrong() {
        let (version, stage) = ("1.12.4".parse().unwrap(), Some("running".to_owned()));
        let talos = Talos { version, schematic: None, stage, unmet: Vec::new() };
        let node = KubernetesNode {
            name: "single-cp-01".to_owned(),
            ready: true,
            because: None,
            kubelet: "v1.34.1".to_owned(),
            cordoned: false,
        };
        let status = Status {
            machines: vec![
                Machine { talos: Some(talos), ..machine("single-cp-01", "running") },
                Machine { silence: Some("timed out".to_owned()), ..machine("single-cp-02", "stopped") },
            ],
            etcd: Some(Etcd {
                members: vec!["single-cp-01".to_owned()],
                leader: Some("single-cp-01".to_owned()),
                ..Etcd::default()
            }),
            kubernetes: Some(Kubernetes {
                version: Some("1.34.1".parse().unwrap()),
                nodes: Some(vec![node]),
                ..Kubernetes::default()
            }),
            unwell: vec!["single-cp-02 does not answer: timed out".to_owned()],
            drift: vec![Drift {
                about: "single-cp-01".to_owned(),
                what: "Talos".to_owned(),
                seen: "1.12.4".to_owned(),
                wanted: "1.13.9".to_owned(),
            }],
            ..Status::default()
        };
        insta::assert_snapshot!(text("single", &status), @r"
        single: Talos 1.12.4, Kubernetes 1.34.1, etcd with 1 member, leader single-cp-01, 1 of 2 VMs running

          NAME          ROLE          VM    NODE  POWER    ADDRESS         TALOS   STAGE    KUBELET  READY
          single-cp-01  controlplane  1100  pve1  running  192.168.178.41  1.12.4  running  1.34.1   yes
          single-cp-02  controlplane  1100  pve1  stopped  192.168.178.41  silent  -        -        -

        Not well:
          single-cp-02 does not answer: timed out

        Not as the profile wants it:
          single-cp-01: Talos is 1.12.4, the profile wants 1.13.9
        ");
    }

    #[test]
    fn a_generic_cluster_has_vms_only() {
        let status = Status { machines: vec![machine("vm-01", "running")], ..Status::default() };
        insta::assert_snapshot!(text("generic", &status), @r"
        generic: 1 of 1 VM running

          NAME   ROLE          VM    NODE  POWER    ADDRESS
          vm-01  controlplane  1100  pve1  running  192.168.178.41

        All is well, and as the profile wants it.
        ");
    }
}
