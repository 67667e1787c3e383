//! A profile's groups as the VMs they stand for: names, VMIDs, nodes, hardware.
//!
//! Purpose: the one place that counts names and ids up and places VMs; pure, so that a plan, a dry run and a rehearsal
//! agree.
//! Must not know: clients. Start reading at [`expand`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::{Group, Inherit, Placement, Profile, Site, StartVmId};
use crate::types::{Mac, MachineName, NodeName, Role, VmId};

/// What is there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Every guest on PVE, templates and containers included.
    pub on_pve: BTreeSet<VmId>,
    /// Of these, the VMs that are being replaced: their ids count as free.
    pub replaced: BTreeSet<VmId>,
    /// Ids that sibling profiles claim ([`claimed`]), whether or not they run.
    pub siblings: BTreeSet<VmId>,
    /// Memory in MiB that new VMs may use on each node, with what the replaced VMs give back counted in. A node that isn't
    /// named has room for anything.
    pub room_mb: BTreeMap<NodeName, u64>,
}

/// One VM as the profile wants it; serialises as an item of `vms[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedVm {
    /// VM, host and node name.
    pub name: MachineName,
    /// Its role.
    pub role: Role,
    /// Its VMID.
    pub vmid: VmId,
    /// The PVE node.
    pub node: NodeName,
    /// Its static address; none when it is discovered.
    pub address: Option<IpAddr>,
    /// Cores.
    pub cores: u32,
    /// Memory in MiB.
    pub memory_mb: u64,
    /// Boot disk in GiB.
    pub disk_gib: u64,
    /// The first NIC's address, when one is asked for.
    pub mac: Option<Mac>,
    /// PVE configuration keys on top, the assignment's over the group's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub vm: BTreeMap<String, String>,
    /// What it takes over from the VM it replaces.
    #[serde(skip, default = "Inherit::all")]
    pub inherit: BTreeSet<Inherit>,
}

/// One VM before its id and node are chosen.
struct Member<'a> {
    role: Role,
    key: &'static str,
    group: &'a Group,
    index: u32,
    name: MachineName,
    vmid: Option<VmId>,
    node: Option<NodeName>,
}

/// The VMs of a profile, control planes first. Problems have key paths; the profile's `Source` places them.
pub fn expand(profile: &Profile, site: &Site, taken: &Taken) -> Result<Vec<WantedVm>, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut members: Vec<Member<'_>> = profile.nodes.iter().flat_map(members_of).collect();
    choose_ids(profile, site, taken, &mut members, &mut problems);
    choose_nodes(site, taken, &mut members, &mut problems);
    let wanted: Vec<WantedVm> = members.iter().filter_map(wanted).collect();
    if problems.is_empty() { Ok(wanted) } else { Err(problems) }
}

/// Ids that a profile claims by itself: assigned ones, and those a numeric `start_vmid` counts up to.
pub fn claimed(profile: &Profile) -> BTreeSet<VmId> {
    let assigned: BTreeSet<VmId> =
        profile.nodes.iter().flat_map(|(_, _, group)| group.assignments.iter().filter_map(|it| it.vmid)).collect();
    let mut all = assigned.clone();
    for member in profile.nodes.iter().flat_map(members_of) {
        if let (None, StartVmId::At(start)) = (member.vmid, member.group.start_vmid) {
            all.extend((start.0..=u32::MAX).map(VmId).find(|id| !all.contains(id)));
        }
    }
    all
}

fn members_of<'a>((role, key, group): (Role, &'static str, &'a Group)) -> impl Iterator<Item = Member<'a>> {
    (0..group.count).map(move |index| {
        let name = group.member(index);
        let assignment = group.assignment(&name);
        let (vmid, node) = (assignment.and_then(|it| it.vmid), assignment.and_then(|it| it.node.clone()));
        Member { role, key, group, index, name, vmid, node }
    })
}

impl Member<'_> {
    /// The key path that decides `what` of it.
    fn path(&self, what: &str, otherwise: &str) -> String {
        match self.group.assignments.iter().position(|it| it.name == self.name) {
            Some(at) => format!("nodes.{}.assignments[{at}].{what}", self.key),
            None => format!("nodes.{}.{otherwise}", self.key),
        }
    }
}

/// Assigned ids first, then groups that say where to start, then `auto`: so each gets what it asks for.
fn choose_ids(profile: &Profile, site: &Site, taken: &Taken, members: &mut [Member<'_>], problems: &mut Vec<Problem>) {
    let strangers: BTreeSet<VmId> = taken.on_pve.difference(&taken.replaced).copied().collect();
    let mut used: BTreeSet<VmId> = strangers.union(&taken.siblings).copied().collect();
    used.extend(profile.template);
    for member in members.iter() {
        let Some(vmid) = member.vmid else { continue };
        let owner = if taken.siblings.contains(&vmid) {
            "another profile"
        } else if strangers.contains(&vmid) {
            "a guest on PVE that is not this cluster's"
        } else {
            used.insert(vmid);
            continue;
        };
        problems.push(Problem::at(member.path("vmid", "start_vmid"), format!("VMID {vmid} is taken by {owner}")));
    }
    let mut take = |mut ids: std::ops::RangeInclusive<u32>| {
        let free = ids.find(|id| !used.contains(&VmId(*id))).map(VmId)?;
        used.insert(free);
        Some(free)
    };
    for member in members.iter_mut().filter(|member| member.vmid.is_none()) {
        if let StartVmId::At(start) = member.group.start_vmid {
            member.vmid = take(start.0..=999_999_999);
        }
    }
    let range = site.vmid_ranges.vms;
    for member in members.iter_mut().filter(|member| member.vmid.is_none()) {
        member.vmid = take(range.first.0..=range.last.0);
        if member.vmid.is_none() {
            let what = format!("no VMID from {} to {} is free for {}", range.first, range.last, member.name);
            problems.push(Problem::at(format!("nodes.{}.start_vmid", member.key), what));
        }
    }
}

/// Assigned nodes first, so that `pack` knows what they take.
fn choose_nodes(site: &Site, taken: &Taken, members: &mut [Member<'_>], problems: &mut Vec<Problem>) {
    let nodes: Vec<&NodeName> = site.nodes.iter().map(|node| &node.name).collect();
    if nodes.is_empty() {
        problems.push(Problem::at("nodes", "the site has no PVE nodes to place VMs on"));
        return;
    }
    let mut room = taken.room_mb.clone();
    for member in members.iter_mut() {
        if let Some(node) = &member.node {
            if !nodes.contains(&node) {
                let known: Vec<&str> = nodes.iter().map(|node| node.as_str()).collect();
                problems.push(
                    Problem::at(member.path("node", "placement"), format!("'{node}' is not a node of the site"))
                        .hinted(format!("the site has {}", known.join(", "))),
                );
            }
        } else if member.group.placement == Placement::Spread {
            member.node = Some(nodes[member.index as usize % nodes.len()].clone());
        }
        if let Some(node) = &member.node {
            occupy(&mut room, node, member.group.memory_mb);
        }
    }
    for member in members.iter_mut().filter(|member| member.node.is_none()) {
        let memory = member.group.memory_mb;
        let fits = |node: &&&NodeName| room.get(**node).is_none_or(|left| *left >= memory);
        if let Some(node) = nodes.iter().find(fits) {
            member.node = Some((*node).clone());
            occupy(&mut room, node, memory);
        } else {
            let what = format!("no node has {memory} MB of memory left for {}", member.name);
            problems.push(Problem::at(format!("nodes.{}.placement", member.key), what));
        }
    }
}

fn occupy(room: &mut BTreeMap<NodeName, u64>, node: &NodeName, memory_mb: u64) {
    if let Some(left) = room.get_mut(node) {
        *left = left.saturating_sub(memory_mb);
    }
}

fn wanted(member: &Member<'_>) -> Option<WantedVm> {
    let assignment = member.group.assignment(&member.name);
    let mut vm = member.group.vm.clone();
    vm.extend(assignment.map(|it| it.vm.clone()).unwrap_or_default());
    Some(WantedVm {
        name: member.name.clone(),
        role: member.role,
        vmid: member.vmid?,
        node: member.node.clone()?,
        address: assignment.and_then(|it| it.ip),
        cores: member.group.cores,
        memory_mb: member.group.memory_mb,
        disk_gib: member.group.disk_gib,
        mac: assignment.and_then(|it| it.mac),
        vm,
        inherit: assignment.and_then(|it| it.inherit.clone()).unwrap_or_else(|| member.group.inherit.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::load;

    const SITE: &str = "endpoints: [https://a:8006]\nnodes: [{name: a}, {name: b}]\nvmid_ranges: {vms: 1000-1005}\n";

    fn profile(groups: &str) -> Profile {
        let text = format!("name: x\ntype: generic\ntags: [x]\ntemplate: 101\nnodes:\n{groups}");
        load::profile("x.yaml", &text).unwrap_or_else(|problems| panic!("{problems}")).value
    }

    fn workers(rest: &str) -> String {
        format!("  workers: {{name_prefix: w-, cores: 1, memory: 1024, disk: 1G, {rest}}}\n")
    }

    fn run(groups: &str, taken: &Taken) -> Result<Vec<(u32, String)>, Vec<String>> {
        let site = load::site("site.yaml", SITE).unwrap().value;
        expand(&profile(groups), &site, taken)
            .map(|vms| vms.into_iter().map(|vm| (vm.vmid.0, vm.node.to_string())).collect())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    fn ids(ids: &[u32]) -> BTreeSet<VmId> {
        ids.iter().copied().map(VmId).collect()
    }

    fn on(found: Result<Vec<(u32, String)>, Vec<String>>) -> Vec<(u32, String)> {
        found.unwrap()
    }

    fn pairs(list: &[(u32, &str)]) -> Vec<(u32, String)> {
        list.iter().map(|(id, node)| (*id, (*node).to_owned())).collect()
    }

    #[test]
    fn the_rest_of_a_group_skips_what_is_taken() {
        let taken = Taken { on_pve: ids(&[1301, 1303]), siblings: ids(&[1304]), ..Taken::default() };
        let group = workers("count: 4, start_vmid: 1300, assignments: [{name: w-02, vmid: 1302, node: a}]");
        assert_eq!(on(run(&group, &taken)), pairs(&[(1300, "a"), (1302, "a"), (1305, "a"), (1306, "b")]));
    }

    #[test]
    fn ids_of_replaced_vms_are_free_and_strangers_are_not() {
        let group = workers("count: 2, start_vmid: auto");
        let mut taken = Taken { on_pve: ids(&[1000, 1001, 1002]), replaced: ids(&[1001]), ..Taken::default() };
        assert_eq!(on(run(&group, &taken)), pairs(&[(1001, "a"), (1003, "b")]));
        taken.on_pve.extend(ids(&[1003, 1004, 1005]));
        assert_eq!(
            run(&group, &taken).unwrap_err(),
            ["nodes.workers.start_vmid: no VMID from 1000 to 1005 is free for w-02"]
        );
    }

    #[test]
    fn an_assigned_id_that_is_taken_is_a_problem_of_that_assignment() {
        let group =
            workers("count: 2, start_vmid: 1300, assignments: [{name: w-01, vmid: 1300}, {name: w-02, node: c}]");
        let taken = Taken { on_pve: ids(&[1300]), ..Taken::default() };
        let problems = run(&group, &taken).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert!(problems[0].starts_with("nodes.workers.assignments[0].vmid: VMID 1300 is taken by a guest"));
        assert!(problems[1].starts_with("nodes.workers.assignments[1].node: 'c' is not a node of the site"));
    }

    #[test]
    fn packing_fills_the_first_node_that_has_room() {
        let room = |a, b| [("a".into(), a), ("b".into(), b)].into();
        let group = workers("count: 3, placement: pack, assignments: [{name: w-03, node: a}]");
        let taken = Taken { room_mb: room(2048, 4096), ..Taken::default() };
        assert_eq!(on(run(&group, &taken)), pairs(&[(1000, "a"), (1001, "b"), (1002, "a")]));
        let taken = Taken { room_mb: room(1024, 1023), ..Taken::default() };
        assert!(run(&group, &taken).unwrap_err()[0].contains("no node has 1024 MB of memory left for w-01"));
    }
}
