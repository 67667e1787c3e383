//! Rules between the clusters of one site.
//!
//! Purpose: no cluster may sweep up another's VMs, ids, addresses or Flux folder.
//! Must not know: files, what runs. Start reading at [`compare`].

use std::collections::BTreeSet;

use super::check::{assignments, overlaps};
use super::expand::claimed;
use super::problem::Problem;
use super::{Kind, Profile};

/// What sets clusters of one site apart: VMIDs, a tag of its own, networks, Flux paths. `siblings` are the other
/// profiles with the names of their files. Problems have key paths of `profile`; its `Source` places them.
pub fn compare(profile: &Profile, siblings: &[(String, Profile)]) -> Vec<Problem> {
    let mut found = Vec::new();
    let mine = claimed(profile);
    for (file, other) in siblings.iter().filter(|(_, other)| other.name != profile.name) {
        let shared: Vec<String> = claimed(other).intersection(&mine).map(ToString::to_string).collect();
        if !shared.is_empty() {
            found.push(Problem::at("nodes", format!("VMIDs {} are those of {file} as well", shared.join(", "))));
        }
        let lower = |tags: &[String]| tags.iter().map(|tag| tag.to_ascii_lowercase()).collect::<BTreeSet<_>>();
        let (ours, theirs) = (lower(&profile.tags), lower(&other.tags));
        if ours.is_subset(&theirs) {
            found.push(
                Problem::at("tags", format!("every VM of {file} carries all of these tags too"))
                    .hinted("add a tag that no other cluster has"),
            );
        }
        if profile.kind == Kind::Talos && other.kind == Kind::Talos {
            for (key, a) in [("pod_cidr", profile.network.pod_cidr), ("service_cidr", profile.network.service_cidr)] {
                for b in [other.network.pod_cidr, other.network.service_cidr] {
                    if overlaps(&a, &b) {
                        // Whether they share a layer 2 network can't be known here, and most don't route pod networks.
                        let what = format!("{a} overlaps {b} of {file}");
                        found.push(Problem::at(format!("network.{key}"), what).warning());
                    }
                }
            }
        }
        if let (Some(a), Some(b)) = (&profile.flux, &other.flux)
            && (&a.repo, &a.path, &a.branch) == (&b.repo, &b.path, &b.branch)
        {
            found.push(Problem::at("flux.path", format!("{} is that of {file} as well", a.path)));
        }
        for (path, assignment) in assignments(profile) {
            if let Some(ip) = assignment.ip
                && assignments(other).any(|(_, theirs)| theirs.ip == Some(ip))
            {
                found.push(Problem::at(format!("{path}.ip"), format!("address {ip} is used in {file} as well")));
            }
        }
    }
    found
}
