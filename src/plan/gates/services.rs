//! Whether something that recast needs while the cluster is away goes away with it.
//!
//! Must not know: how names are resolved.

use ipnet::IpNet;

use super::{Here, Host};
use crate::plan::PlannedVm;
use crate::plan::observed::{Finding, Observed, SeenCluster};
use crate::plan::wanted::Wanted;

/// Nothing that recast needs while the cluster is away may run in it.
pub(super) fn services(wanted: &Wanted, seen: &Observed, here: &Here, found: &mut Vec<Finding>) {
    for service in &here.services {
        let inside: Vec<String> =
            service.hosts.iter().filter_map(|host| lives_inside(host, wanted, seen.cluster.as_ref())).collect();
        if inside.is_empty() {
            continue;
        }
        let what = format!("{} lives in the cluster: {}", service.what, inside.join(", "));
        found.push(if inside.len() == service.hosts.len() {
            Finding::refusal(what, "recast needs it while the cluster is away: name one that lives elsewhere")
        } else {
            Finding::warning(what, "it will not answer while the cluster is away; the others are used")
        });
    }
}

/// Why a host goes away with the cluster, in words.
fn lives_inside(host: &Host, wanted: &Wanted, cluster: Option<&SeenCluster>) -> Option<String> {
    let name = host.name.trim_end_matches('.').to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    if labels.ends_with(&["svc"]) || labels.ends_with(&["cluster", "local"]) {
        return Some(format!("{name} is a name of the cluster's own DNS"));
    }
    host.addresses.iter().find_map(|address| {
        let shown = if name == address.to_string() { name.clone() } else { format!("{name} ({address})") };
        let machine = |vm: &&PlannedVm| vm.address == Some(*address);
        if let Some(vm) = wanted.vms.iter().find(machine) {
            return Some(format!("{shown} is {}", vm.name));
        }
        if wanted.config.vip == Some(*address) {
            return Some(format!("{shown} is the control planes' shared address"));
        }
        for (what, net) in [("pod", &wanted.config.pod_cidr), ("service", &wanted.config.service_cidr)] {
            if net.parse::<IpNet>().is_ok_and(|net| net.contains(address)) {
                return Some(format!("{shown} is in the {what} network {net}"));
            }
        }
        let service = cluster.is_some_and(|cluster| cluster.services.contains(address));
        service.then(|| format!("{shown} is a Service of it"))
    })
}
