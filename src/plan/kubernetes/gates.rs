//! What must hold before a hop of Kubernetes, and before nodes are drained: everything wrong at once.

use super::{Hop, SeenKubernetes, removed};
use crate::plan::compatibility::{Minor, Table};
use crate::plan::observed::Finding;
use crate::types::Role;

/// Why a hop can't be made, or what should be known before. Empty where nothing speaks against it.
pub fn gates(hop: &Hop<'_>) -> Vec<Finding> {
    let mut found = path(hop);
    found.extend(machines(hop.seen));
    let removed = removed::in_use(hop.from, hop.to, &hop.seen.machines, &hop.seen.objects);
    if !removed.is_empty() {
        let mut finding = Finding::refusal(
            format!("Kubernetes {} no longer knows what is in use", hop.to),
            "take these out of the machines' configurations, or out of the cluster, then make a new plan",
        );
        finding.causes = removed;
        found.push(finding);
    }
    found
}

/// Only the same minor and the next, and only what the Talos of the moment runs.
fn path(hop: &Hop<'_>) -> Vec<Finding> {
    let (from, to) = (hop.from.minor(), hop.to.minor());
    let shown = format!("Kubernetes {} → {}", hop.from, hop.to);
    let mut found = Vec::new();
    if to < from {
        found.push(Finding::refusal(
            format!("{shown} is a downgrade"),
            "etcd's data may have moved on: Kubernetes never goes back by a minor version; restore a snapshot instead",
        ));
    } else if to.0 != from.0 || to.1 > from.1 + 1 {
        found.push(Finding::refusal(
            format!("{shown} skips a minor version"),
            format!("go to {}.{} first, and on from there one by one", from.0, from.1 + 1),
        ));
    }
    let wanted = Minor::from(hop.to);
    let own = hop.runs.filter(|runs| runs.talos == Minor::from(hop.talos)).map(|runs| runs.kubernetes);
    if to.1 > removed::NEWEST_MINOR {
        let what = format!("what Kubernetes {} removes is not known to this version of recast", hop.to);
        found.push(if own.is_some_and(|(first, last)| (first..=last).contains(&wanted)) {
            Finding::warning(what, "the compatibility table that was given has it: read its changelog before")
        } else {
            Finding::refusal(what, format!("go up to 1.{} at most, or take a newer recast", removed::NEWEST_MINOR))
        });
    }
    // A Talos that no table knows decides for itself.
    let known = own.or_else(|| Table::built_in().release(hop.talos).map(|release| release.kubernetes));
    if let Some((first, last)) = known.filter(|(first, last)| !(*first..=*last).contains(&wanted)) {
        let hint = if wanted > last { "upgrade Talos first" } else { "take a newer Kubernetes" };
        found.push(Finding::refusal(
            format!("Kubernetes {} does not run on Talos {}, which takes {first} to {last}", hop.to, hop.talos),
            hint,
        ));
    }
    found
}

fn machines(seen: &SeenKubernetes) -> Vec<Finding> {
    let mut found = Vec::new();
    if seen.of(Role::ControlPlane).next().is_none() {
        found.push(Finding::refusal(
            "no control plane was found",
            "look whether the machines of the profile run and answer",
        ));
    }
    for what in &seen.unseen {
        found.push(Finding::refusal(
            what.clone(),
            "what can't be seen can't be upgraded: see to it, then make a new plan",
        ));
    }
    let staged: Vec<&str> =
        seen.machines.iter().filter(|seen| seen.staged).map(|seen| seen.machine.name.as_str()).collect();
    if !staged.is_empty() {
        found.push(Finding::refusal(
            format!("a configuration other than the active one waits for the next boot of {}", staged.join(", ")),
            "reboot these machines, or apply the active configuration once more; a patch would overwrite what waits",
        ));
    }
    found
}

/// What will hold up or prevent draining these nodes: what is hopeless refuses the run, the rest is shown.
pub fn drain_gates<'a>(seen: &SeenKubernetes, nodes: impl Fn(&str) -> bool + 'a) -> Vec<Finding> {
    let mut found = Vec::new();
    let blockers: Vec<_> = seen.blockers.iter().filter(|blocker| nodes(&blocker.node)).collect();
    let lines = |hopeless: bool| -> Vec<String> {
        let of = blockers.iter().filter(|blocker| blocker.hopeless == hopeless);
        of.map(|blocker| format!("{} on {}: {}", blocker.pod, blocker.node, blocker.why)).collect()
    };
    let (never, later) = (lines(true), lines(false));
    if !never.is_empty() {
        let mut finding = Finding::refusal(
            "a PodDisruptionBudget will never let pods go, so that their nodes can't be drained",
            "loosen the budget, add replicas, or delete these pods yourself, then make a new plan",
        );
        finding.causes = never;
        found.push(finding);
    }
    if !later.is_empty() {
        let mut finding = Finding::warning(
            "pods will hold up the drain of their nodes, or end with it",
            "the drain waits for what can be waited for; see to the rest before",
        );
        finding.causes = later;
        found.push(finding);
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::plan::compatibility::Runs;
    use crate::plan::kubernetes::{Blocker, Component, LiveMachine, SeenMachine};
    use crate::plan::observed::Severity;
    use crate::types::Version;

    fn cluster() -> SeenKubernetes {
        let machine = SeenMachine {
            machine: LiveMachine { name: "cp-01".into(), role: Role::ControlPlane, address: [10, 0, 0, 1].into() },
            talos: Version::new(1, 12, 0),
            node: "cp-01".to_owned(),
            kubelet: None,
            images: BTreeMap::new(),
            args: BTreeMap::from([(Component::ApiServer, vec!["--cloud-config=/x".to_owned()])]),
            disabled: BTreeSet::new(),
            staged: false,
        };
        SeenKubernetes { machines: vec![machine], ..SeenKubernetes::default() }
    }

    fn told(seen: &SeenKubernetes, from: &str, to: &str, talos: &str) -> Vec<String> {
        let version = |text: &str| text.parse::<Version>().unwrap();
        let (from, to, talos) = (version(from), version(to), version(talos));
        let found = gates(&Hop { seen, from: &from, to: &to, talos: &talos, steady: 0, runs: None });
        assert!(found.iter().all(|finding| finding.severity == Severity::Refusal && finding.hint.is_some()));
        found.into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn downgrades_skips_and_what_talos_does_not_run_are_refused_by_name() {
        let seen = cluster();
        assert_eq!(told(&seen, "1.34.1", "1.35.2", "1.12.4"), Vec::<String>::new());
        assert_eq!(told(&seen, "1.34.5", "1.34.1", "1.12.4"), Vec::<String>::new(), "a patch may go back");
        assert_eq!(told(&seen, "1.35.0", "1.34.9", "1.12.4"), ["Kubernetes 1.35.0 → 1.34.9 is a downgrade"]);
        assert_eq!(told(&seen, "1.30.0", "1.32.0", "1.12.4"), ["Kubernetes 1.30.0 → 1.32.0 skips a minor version"]);
        assert_eq!(
            told(&seen, "1.35.0", "1.36.0", "1.12.4"),
            ["Kubernetes 1.36.0 does not run on Talos 1.12.4, which takes 1.30 to 1.35"]
        );
        assert_eq!(told(&seen, "1.32.0", "1.33.0", "1.12.4"), ["Kubernetes 1.33.0 no longer knows what is in use"]);
        assert_eq!(told(&seen, "1.37.0", "1.38.0", "1.99.0").len(), 1);
    }

    #[test]
    fn the_users_own_table_decides_where_it_knows_this_talos() {
        let seen = cluster();
        let found = |from: u64, talos: u64, runs: Runs| -> Vec<Severity> {
            let (from, to) = (Version::new(1, from, 0), Version::new(1, from + 1, 0));
            let talos = Version::new(1, talos, 4);
            let hop = Hop { seen: &seen, from: &from, to: &to, talos: &talos, steady: 0, runs: Some(runs) };
            gates(&hop).into_iter().map(|finding| finding.severity).collect()
        };
        let of = |talos: u64, last: u64| Runs { talos: Minor(1, talos), kubernetes: (Minor(1, 30), Minor(1, last)) };
        assert_eq!(found(35, 12, of(12, 36)), []);
        assert_eq!(found(35, 12, of(13, 36)), [Severity::Refusal], "it is about another Talos");
        assert_eq!(found(34, 12, of(12, 34)), [Severity::Refusal], "it may take away as well");
        assert_eq!(found(37, 99, of(99, 38)), [Severity::Warning]);
    }

    #[test]
    fn a_configuration_that_waits_for_a_boot_is_not_overwritten() {
        let mut seen = cluster();
        seen.machines[0].staged = true;
        seen.unseen.push("w-01 does not answer".to_owned());
        assert_eq!(told(&seen, "1.34.1", "1.35.2", "1.12.4").len(), 2);
    }

    #[test]
    fn only_hopeless_blockers_refuse() {
        let mut seen = cluster();
        let blocker = |pod: &str, hopeless| Blocker {
            node: "w-01".to_owned(),
            pod: pod.to_owned(),
            why: "because".to_owned(),
            hopeless,
        };
        seen.blockers = vec![blocker("a/never", true), blocker("a/later", false)];
        let found = drain_gates(&seen, |node| node == "w-01");
        let shown: Vec<(Severity, &str)> =
            found.iter().map(|finding| (finding.severity, finding.causes[0].as_str())).collect();
        assert_eq!(
            shown,
            [(Severity::Refusal, "a/never on w-01: because"), (Severity::Warning, "a/later on w-01: because")]
        );
        assert_eq!(drain_gates(&seen, |node| node == "w-02"), []);
    }
}
