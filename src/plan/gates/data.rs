//! Whether the data can go where they shall: out of the running cluster or a snapshot, into the versions wanted.
//!
//! Must not know: how a snapshot is proven.

use super::Snapshot;
use crate::plan::Verb;
use crate::plan::check::victims;
use crate::plan::compatibility::{etcd, jump};
use crate::plan::observed::{Finding, Observed};
use crate::plan::wanted::Wanted;
use crate::types::Version;

/// The running cluster's data are kept: it has to be there, to be well, and to be able to follow.
pub(super) fn running(wanted: &Wanted, seen: &Observed, found: &mut Vec<Finding>) {
    if victims(seen).next().is_none() {
        return;
    }
    let Some(cluster) = &seen.cluster else {
        found.push(Finding::refusal(
            "the running cluster does not answer, so its data can't be saved",
            match wanted.verb {
                Verb::Teardown => "bring it up, or say --force to delete it without a backup",
                _ => "bring it up, or rebuild with --restore FILE from a snapshot, or with --fresh without its data",
            },
        ));
        return;
    };
    for complaint in &cluster.unhealthy {
        found.push(Finding::refusal(
            format!("the running cluster is not healthy: {complaint}"),
            "a run that keeps its data needs it to be: mend it first",
        ));
    }
    if wanted.verb == Verb::Teardown {
        return;
    }
    if let Some(kubernetes) = &cluster.kubernetes {
        kubernetes_jump(kubernetes, &wanted.kubernetes, found);
    }
    // The oldest machine names the cluster: etcd's own cluster version is that of its oldest member.
    if let Some((from, talos)) = cluster.talos.values().min().and_then(|talos| Some((etcd(talos)?, talos))) {
        etcd_jump(from, &format!("Talos {talos} runs"), &wanted.talos, found);
    }
}

/// Nothing of the running cluster is kept: how it is, is worth knowing and stops nothing.
pub(super) fn not_kept(seen: &Observed, found: &mut Vec<Finding>) {
    match &seen.cluster {
        None if victims(seen).any(|vm| vm.running) => found.push(Finding::warning(
            "the running cluster does not answer: its versions and secrets could not be compared",
            "that is survivable, since nothing of it is kept",
        )),
        Some(cluster) => found.extend(cluster.unhealthy.iter().map(|complaint| {
            let what = format!("the running cluster is not healthy: {complaint}");
            Finding::warning(what, "it does not have to be, since nothing of it is kept")
        })),
        None => {}
    }
}

fn kubernetes_jump(from: &Version, to: &Version, found: &mut Vec<Finding>) {
    if let Some(why) = jump(from.minor(), to.minor()) {
        found.push(Finding::refusal(
            format!("the data were written by Kubernetes {from} and would be taken over by {to}"),
            format!("{why}: name a Kubernetes of {}", minors(from.minor())),
        ));
    }
}

fn etcd_jump(from: (u64, u64), who: &str, talos: &Version, found: &mut Vec<Finding>) {
    let Some(to) = etcd(talos) else { return };
    if let Some(why) = jump(from, to) {
        found.push(Finding::refusal(
            format!("{who} etcd {}.{}, and Talos {talos} brings etcd {}.{}", from.0, from.1, to.0, to.1),
            format!("{why}: go through a Talos whose etcd is in between"),
        ));
    }
}

fn minors((major, minor): (u64, u64)) -> String {
    format!("{major}.{minor} or {major}.{}", minor + 1)
}

/// The data come from a file: it has to be sound, of this cluster, and not too far away.
pub(super) fn file(wanted: &Wanted, seen: &Observed, snapshot: &Snapshot, found: &mut Vec<Finding>) {
    let file = snapshot.file.display();
    if let Some((damage, hints)) = &snapshot.damage {
        let mut finding = Finding::refusal(
            format!("the snapshot {file} can't be restored"),
            hints.first().cloned().unwrap_or_else(|| "`recast snapshot list` shows others".to_owned()),
        );
        finding.causes.push(damage.clone());
        found.push(finding);
        return;
    }
    let running = seen.cluster.as_ref();
    let (live, saved) = (running.and_then(|cluster| cluster.namespace_uid.as_ref()), &snapshot.namespace_uid);
    match (live, saved) {
        (Some(live), Some(saved)) if live != saved => found.push(Finding::refusal(
            format!("the snapshot {file} is of another cluster: its kube-system is {saved}, and this one's {live}"),
            "name a snapshot of this cluster; one of an earlier life of it is restored after `recast teardown` by `recast create --restore`",
        )),
        (_, None) => found.push(Finding::refusal(
            format!("the snapshot {file} holds no namespace kube-system"),
            "it is not a Kubernetes cluster's",
        )),
        _ => {}
    }
    let own = snapshot.etcd.as_deref().and_then(|version| {
        let mut parts = version.split('.').map(str::parse::<u64>);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    });
    if let Some(from) = own {
        etcd_jump(from, "the snapshot was written by", &wanted.talos, found);
    }
    match &snapshot.kubernetes {
        Some(from) => kubernetes_jump(from, &wanted.kubernetes, found),
        None => found.push(Finding::warning(
            format!("which Kubernetes wrote the snapshot {file} is not known"),
            format!("make sure that it was {} or one minor older", wanted.kubernetes),
        )),
    }
}
