//! One hop of Kubernetes: every image is there before anything changes, then one component on one machine at a time.
//!
//! Order as Talos' own client has it (siderolabs/talos `pkg/cluster/kubernetes`): the API server on every control plane
//! before anything else is newer, kubelets last, then the manifests that Talos renders. Each pair of component and machine
//! is a step of its own, so that a resumed run goes on at the very one.

use crate::plan::kubernetes::{Component, Hop, ImageStore, LiveMachine, ManifestWay, NodeImage, SeenMachine};
use crate::plan::make::planned;
use crate::plan::{Phase, Planned, Step};
use crate::types::{Role, StepId};

/// How many machines pull at once.
const PULLS: usize = 4;

/// The phases of a hop: `kubernetes-VERSION-images`, which changes nothing that runs, and `kubernetes-VERSION`.
pub(in crate::plan) fn phases(hop: &Hop<'_>) -> Vec<Phase> {
    vec![images(hop), components(hop)]
}

fn images(hop: &Hop<'_>) -> Phase {
    let name = format!("{}-images", hop.label());
    let machines = hop.seen.machines.iter().map(|seen| seen.machine.clone()).collect();
    let check = Step::ConfirmKubernetes { machines, from: hop.from.clone(), to: hop.to.clone(), runs: hop.runs };
    let check = planned(format!("{name}/check"), check, &[]);
    let pulls = pulls(hop, &name, &[&check.id]);
    Phase { name, steps: [check].into_iter().chain(pulls).collect(), width: PULLS }
}

/// Every machine pulls what it will run.
pub(in crate::plan) fn pulls(hop: &Hop<'_>, prefix: &str, after: &[&StepId]) -> Vec<Planned> {
    let pull = |seen: &SeenMachine| {
        let step = Step::PullImages { machine: seen.machine.clone(), images: needed(hop, seen) };
        planned(format!("{prefix}/{}", seen.machine.name), step, after)
    };
    hop.seen.machines.iter().map(pull).collect()
}

/// What a machine will run: kube-proxy and the others of the manifests are left to the kubelet, as they roll one by one.
fn needed(hop: &Hop<'_>, seen: &SeenMachine) -> Vec<NodeImage> {
    let mut images = Vec::new();
    if seen.machine.role == Role::ControlPlane {
        for component in Component::STATIC_PODS {
            if !seen.disabled.contains(&component) {
                images.push(NodeImage { reference: seen.image(component, hop.to), store: ImageStore::Pods });
            }
        }
    }
    images.push(NodeImage { reference: seen.image(Component::Kubelet, hop.to), store: ImageStore::System });
    images
}

fn components(hop: &Hop<'_>) -> Phase {
    let name = hop.label();
    let id = |component: Component, seen: &SeenMachine| format!("{name}/{component}/{}", seen.machine.name);
    let mut steps = Vec::new();
    let control: Vec<&SeenMachine> = hop.seen.of(Role::ControlPlane).collect();
    for component in Component::STATIC_PODS {
        for seen in &control {
            let image = seen.image(component, hop.to);
            let step = Step::SetStaticPod { machine: seen.machine.clone(), component, image };
            steps.push(planned(id(component, seen), step, &[]));
        }
    }
    for seen in &control {
        let image = seen.image(Component::Proxy, hop.to);
        let step = Step::SetProxyImage { machine: seen.machine.clone(), image };
        steps.push(planned(id(Component::Proxy, seen), step, &[]));
    }
    for seen in control.iter().copied().chain(hop.seen.of(Role::Worker)) {
        let image = seen.image(Component::Kubelet, hop.to);
        let step = Step::SetKubelet { machine: seen.machine.clone(), image, version: hop.to.clone() };
        steps.push(planned(id(Component::Kubelet, seen), step, &[]));
    }
    if let Some(first) = control.first() {
        let proxy = first.image(Component::Proxy, hop.to);
        let way = ManifestWay::of(hop.talos);
        let prune = if way == ManifestWay::Apply { hop.seen.left_manifests.clone() } else { Vec::new() };
        let expected = hop.seen.manifest_changes.get(hop.to).cloned().unwrap_or_default();
        let step = Step::SyncManifests { machine: first.machine.clone(), way, proxy, prune, expected };
        steps.push(planned(format!("{name}/manifests"), step, &[]));
    }
    let machines: Vec<LiveMachine> = hop.seen.machines.iter().map(|seen| seen.machine.clone()).collect();
    let ready = Step::AwaitKubernetes { machines, version: hop.to.clone(), steady: hop.steady };
    steps.push(planned(format!("{name}/ready"), ready, &[]));
    // One after the other, whatever a phase's width is later: the next one begins when the cluster stands again.
    for at in 1..steps.len() {
        let before: StepId = steps[at - 1].id.clone();
        steps[at].after = vec![before];
    }
    Phase { name, steps, width: 1 }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::plan::kubernetes::SeenKubernetes;
    use crate::types::Version;

    fn seen(name: &str, role: Role, last: u8) -> SeenMachine {
        SeenMachine {
            machine: LiveMachine { name: name.into(), role, address: [10, 0, 0, last].into() },
            talos: Version::new(1, 12, 4),
            node: name.to_owned(),
            kubelet: Some(Version::new(1, 34, 1)),
            images: BTreeMap::from([(Component::Kubelet, "mirror.lan:5000/kubelet:v1.34.1-fat".to_owned())]),
            args: BTreeMap::new(),
            disabled: BTreeSet::new(),
            staged: false,
        }
    }

    #[test]
    fn components_come_one_after_another_and_within_each_the_machines() {
        let mut two = seen("cp-02", Role::ControlPlane, 2);
        two.disabled.insert(Component::Scheduler);
        let machines = vec![seen("cp-01", Role::ControlPlane, 1), two, seen("w-01", Role::Worker, 3)];
        let seen = SeenKubernetes { machines, ..SeenKubernetes::default() };
        let (from, to, talos) = (Version::new(1, 34, 1), Version::new(1, 35, 2), Version::new(1, 12, 4));
        let hop = Hop { seen: &seen, from: &from, to: &to, talos: &talos, steady: 30, runs: None };
        let [images, components] = &phases(&hop)[..] else { panic!() };
        let ids: Vec<&str> = components.steps.iter().map(|planned| planned.id.as_str()).collect();
        assert_eq!(
            ids,
            [
                "kubernetes-1.35.2/kube-apiserver/cp-01",
                "kubernetes-1.35.2/kube-apiserver/cp-02",
                "kubernetes-1.35.2/kube-controller-manager/cp-01",
                "kubernetes-1.35.2/kube-controller-manager/cp-02",
                "kubernetes-1.35.2/kube-scheduler/cp-01",
                "kubernetes-1.35.2/kube-scheduler/cp-02",
                "kubernetes-1.35.2/kube-proxy/cp-01",
                "kubernetes-1.35.2/kube-proxy/cp-02",
                "kubernetes-1.35.2/kubelet/cp-01",
                "kubernetes-1.35.2/kubelet/cp-02",
                "kubernetes-1.35.2/kubelet/w-01",
                "kubernetes-1.35.2/manifests",
                "kubernetes-1.35.2/ready",
            ]
        );
        assert!(components.steps.windows(2).all(|pair| pair[1].after == [pair[0].id.clone()]));
        assert!(
            matches!(&components.steps[10].step, Step::SetKubelet { image, .. } if image == "mirror.lan:5000/kubelet:v1.35.2-fat")
        );
        assert!(matches!(components.steps[11].step, Step::SyncManifests { way: ManifestWay::Put, .. }));
        let pulls: Vec<usize> = images.steps[1..]
            .iter()
            .map(|planned| match &planned.step {
                Step::PullImages { images, .. } => images.len(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pulls, [4, 3, 1], "a component that is switched off needs no image, a worker the kubelet's only");
    }
}
