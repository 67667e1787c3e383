//! Whether there is a cluster to work on, or room for a new one.
//!
//! Must not know: what becomes of the data.

use super::Here;
use crate::plan::Verb;
use crate::plan::check::victims;
use crate::plan::observed::{Finding, Known, Observed};
use crate::plan::wanted::Wanted;

/// Whether there is something to work on, or room for something new.
pub(super) fn existing(wanted: &Wanted, seen: &Observed, here: &Here, found: &mut Vec<Finding>) {
    for (vmid, name, node) in &here.out_of_reach {
        found.push(Finding::refusal(
            format!("VM {vmid} ({name}) is on PVE node {node}, which is down"),
            "bring the node up: what is on it can't be looked at, shut down or deleted",
        ));
    }
    let old: Vec<String> = victims(seen).map(|vm| format!("{} ({})", vm.identity.vmid, vm.identity.name)).collect();
    match wanted.verb {
        Verb::Create => {
            if !old.is_empty() {
                found.push(Finding::refusal(
                    format!("VMs of cluster {} exist: {}", wanted.cluster, old.join(", ")),
                    "`recast rebuild` replaces them and keeps the data; `recast teardown` removes them",
                ));
            }
            if let (true, Some(cluster)) = (old.is_empty(), &seen.cluster) {
                let names: Vec<&str> = cluster.talos.keys().map(String::as_str).collect();
                found.push(Finding::refusal(
                    format!(
                        "the cluster runs: {} answer at the profile's addresses",
                        or(&names.join(", "), "machines")
                    ),
                    "find out where they run; two clusters with the same addresses and secrets destroy each other",
                ));
            }
        }
        // A guest that merely has a machine's number or name is `check`'s to refuse, which says more.
        Verb::Rebuild if old.is_empty() && seen.vms.iter().any(|vm| !vm.tagged && vm.known == Known::Profile) => {}
        Verb::Rebuild | Verb::Teardown if old.is_empty() && here.out_of_reach.is_empty() => {
            let hint = if wanted.verb == Verb::Teardown {
                "there is nothing to tear down; check the profile's tags"
            } else {
                "`recast create` makes it, and `recast create --restore FILE` brings it back from a snapshot"
            };
            found.push(Finding::refusal(format!("no VM of cluster {} exists", wanted.cluster), hint));
        }
        // What is left of a cluster that a dead rebuild took apart may be nothing at all.
        Verb::Rebuild | Verb::Teardown | Verb::TemplateBuild | Verb::Rollback | Verb::Upgrade | Verb::GoBack => {}
    }
}

fn or<'a>(text: &'a str, other: &'a str) -> &'a str {
    if text.is_empty() { other } else { text }
}
