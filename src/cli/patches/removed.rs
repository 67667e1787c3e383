//! What a version of Kubernetes no longer knows and a patch still says.
//!
//! A component with a flag, a feature gate or a plugin that it doesn't know does not start, and a new cluster would have no
//! API server. What runs is held against it by an upgrade. Must not know: machines.

use std::collections::BTreeSet;

use crate::plan::kubernetes::Component;
use crate::plan::kubernetes::removed::of_flag;
use crate::talos::config::Patch;
use crate::talos::config::migrate::{Deed, Finding, Product, Weight, deeds};
use crate::types::{Role, Version};

use Component::{ApiServer, ControllerManager, Kubelet, Scheduler};

/// Where the flags of a component stand: its document, and the path in it.
const FLAGS: [(Component, &str, &str); 8] = [
    (ApiServer, "v1alpha1", "cluster.apiServer.extraArgs"),
    (ControllerManager, "v1alpha1", "cluster.controllerManager.extraArgs"),
    (Scheduler, "v1alpha1", "cluster.scheduler.extraArgs"),
    (Kubelet, "v1alpha1", "machine.kubelet.extraArgs"),
    (ApiServer, "KubeAPIServerConfig", "extraArgs"),
    (ControllerManager, "KubeControllerManagerConfig", "extraArgs"),
    (Scheduler, "KubeSchedulerConfig", "extraArgs"),
    (Kubelet, "KubeletConfig", "extraArgs"),
];

/// Everything in these patches with which a component of this version would not start on a machine of this role.
pub fn removed<'a>(patches: impl Iterator<Item = &'a Patch>, kubernetes: &Version, role: Role) -> Vec<Finding> {
    let runs = |component: Component| role == Role::ControlPlane || component == Kubelet;
    let (mut found, mut said, mut emptied) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    // What is said anew later, or taken out, nobody gets to see.
    for patch in patches.collect::<Vec<_>>().into_iter().rev() {
        let mut here = Vec::new();
        for (component, document, path) in FLAGS.into_iter().filter(|(component, ..)| runs(*component)) {
            let mut of_component = Vec::new();
            for deed in deeds(patch, document, path).into_iter().rev() {
                if emptied.contains(&(document, path)) {
                    break;
                }
                let entry = match deed {
                    Deed::Empties => {
                        emptied.insert((document, path));
                        continue;
                    }
                    Deed::TakesOut(key) => {
                        said.insert((document, path, key));
                        continue;
                    }
                    Deed::Sets(entry) => entry,
                };
                if !said.insert((document, path, entry.key.clone())) {
                    continue;
                }
                for gone in of_flag(component, &entry.key, &entry.values, kubernetes).into_iter().rev() {
                    of_component.push(Finding {
                        rule: "kubernetes-removed",
                        weight: Weight::Breaks,
                        origin: patch.origin().to_owned(),
                        spot: entry.spot,
                        document: document.to_owned(),
                        path: format!("{path}.{}", entry.key),
                        of: Product::Kubernetes,
                        since: Version::new(1, gone.since, 0),
                        what: format!("{} has no {}, and does not start with it", component.name(), gone.what),
                        instead: "leave it out: look into Kubernetes' change log for what took its place".to_owned(),
                    });
                }
            }
            here.extend(of_component.into_iter().rev());
        }
        found.splice(0..0, here);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_went_is_told_with_its_place_for_the_machines_that_run_its_component() {
        let text = "cluster:\n  apiServer:\n    extraArgs:\n      cloud-config: /etc/x\n      feature-gates: [AppArmor=true]\n\
                    machine: {kubelet: {extraArgs: {cloud-config: /etc/x}}}\n---\napiVersion: v1alpha1\nkind: \
                    KubeSchedulerConfig\nextraArgs: {feature-gates: \"A=true,KMSv2=true\"}\n";
        let patch = Patch::parse(text, "p.yaml").unwrap();
        let told = |minor: u64, role| -> Vec<String> {
            let found = removed([&patch].into_iter(), &Version::new(1, minor, 0), role);
            found.iter().map(Finding::told).collect()
        };
        assert_eq!(told(31, Role::ControlPlane), Vec::<String>::new());
        assert_eq!(
            told(33, Role::ControlPlane),
            [
                "p.yaml, line 4, column 7: cluster.apiServer.extraArgs.cloud-config: since Kubernetes 1.33 kube-apiserver \
                 has no flag --cloud-config, and does not start with it",
                "p.yaml, line 5, column 7: cluster.apiServer.extraArgs.feature-gates: since Kubernetes 1.33 kube-apiserver \
                 has no feature gate AppArmor, and does not start with it",
                "p.yaml, line 10, column 13: KubeSchedulerConfig extraArgs.feature-gates: since Kubernetes 1.32 \
                 kube-scheduler has no feature gate KMSv2, and does not start with it",
            ]
        );
        assert_eq!(told(33, Role::Worker), Vec::<String>::new());
        assert_eq!(told(34, Role::Worker).len(), 1, "the kubelet's");
    }

    #[test]
    fn the_last_word_counts() {
        let of = |text: &str| Patch::parse(text, "p.yaml").unwrap();
        let old = of("cluster: {apiServer: {extraArgs: {feature-gates: AppArmor=true}}}\n");
        let told =
            |patches: &[&Patch]| removed(patches.iter().copied(), &Version::new(1, 33, 0), Role::ControlPlane).len();
        assert_eq!(told(&[&old]), 1);
        let json = of("[{op: add, path: /cluster/apiServer/extraArgs/feature-gates, value: AppArmor=true}]");
        assert_eq!(told(&[&json]), 1);
        // In a JSON patch the last operation has it.
        let put =
            |value: &str| format!("{{op: add, path: /cluster/apiServer/extraArgs, value: {{feature-gates: {value}}}}}");
        let (good, bad) = (put("Other=true"), put("AppArmor=true"));
        assert_eq!((told(&[&of(&format!("[{good}, {bad}]"))]), told(&[&of(&format!("[{bad}, {good}]"))])), (1, 0));
        for later in [
            "cluster: {apiServer: {extraArgs: {feature-gates: Other=true}}}",
            "cluster: {apiServer: {extraArgs: {feature-gates: {$patch: delete}}}}",
            "[{op: replace, path: /cluster/apiServer, value: {extraArgs: {feature-gates: Other=true}}}]",
            "[{op: remove, path: /cluster/apiServer/extraArgs/feature-gates}]",
            "[{op: remove, path: /cluster/apiServer}]",
            "cluster: {apiServer: {extraArgs: {$patch: delete}}}",
        ] {
            let later = of(later);
            for old in [&old, &json] {
                assert_eq!((told(&[old, &later]), told(&[&later, old])), (0, 1));
            }
        }
    }
}
