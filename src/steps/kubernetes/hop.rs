//! What holds for a whole hop: the gates once more, images before they are needed, nodes at the end.

use std::time::Duration;

use super::LOOK;
use crate::engine::{Class, StepCx, StepError};
use crate::k8s::Node;
use crate::observe::components;
use crate::plan::Output;
use crate::plan::compatibility::Runs;
use crate::plan::kubernetes::{Hop, ImageStore, LiveMachine, NodeImage, gates};
use crate::plan::observed::Severity;
use crate::steps::World;
use crate::steps::classify::{by_talos, refused, wrong};
use crate::talos::client::TalosError;
use crate::talos::client::kubernetes::Images;
use crate::types::Version;

impl World {
    /// The same gates that the plan passed, on what runs now: other machines, other flags, another version stop the hop.
    pub(in crate::steps) async fn confirm_kubernetes(
        &self,
        machines: &[LiveMachine],
        from: &Version,
        to: &Version,
        runs: Option<Runs>,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("confirm that Kubernetes can go from {from} to {to}");
        let client = self.cluster(&doing).await?;
        self.await_api(&doing, &client, cx).await?;
        let seen = components::observe(&self.connector, &self.access, machines, &client).await;
        let Some(lowest) = seen.lowest.clone() else {
            return Err(refused(&doing, "no pod of the control plane tells which version runs"));
        };
        let oldest = seen.machines.iter().map(|seen| &seen.talos).min();
        let Some(talos) = oldest else { return Err(refused(&doing, seen.unseen.join("; "))) };
        // A hop that was begun before is gone on with: what is at its target already is no reason to stop.
        let from = if lowest.minor() == to.minor() { &lowest } else { from };
        let mut problems: Vec<String> = Vec::new();
        if lowest.minor() < from.minor() || lowest.minor() > to.minor() {
            problems.push(format!("the cluster runs {lowest} and the plan goes from {from}"));
        }
        for finding in gates(&Hop { seen: &seen, from, to, talos, steady: 0, runs }) {
            if finding.severity == Severity::Refusal {
                let causes =
                    if finding.causes.is_empty() { String::new() } else { format!(": {}", finding.causes.join(", ")) };
                problems.push(format!("{}{causes}", finding.what));
            }
        }
        if problems.is_empty() {
            return Ok(Output::Nothing);
        }
        Err(refused(&doing, problems.join("; ")).hinted("nothing of this hop has begun; make a new plan"))
    }

    pub(in crate::steps) async fn pull_images(
        &self,
        machine: &LiveMachine,
        images: &[NodeImage],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let talos = self.machine("pull images", machine.address)?;
        for image in images {
            let doing = format!("pull {} onto {}", image.reference, machine.name);
            cx.waiting(&format!("{} to be pulled", image.reference), None);
            let into = match image.store {
                ImageStore::Pods => Images::Pods,
                ImageStore::System => Images::System,
            };
            match talos.pull_image(&image.reference, into).await {
                Ok(()) => {}
                Err(TalosError::Unimplemented { .. }) => {
                    cx.notice(format!("{} can't pull images beforehand: they are pulled when needed.", machine.name));
                    return Ok(Output::Nothing);
                }
                Err(error) if error.is_transient() => return Err(by_talos(doing, error)),
                // A pull changes nothing that runs.
                Err(error) => {
                    return Err(StepError::new(Class::Refused, doing, error).hinted(
                        "look whether the registry has this image and the machine reaches it; nothing changed",
                    ));
                }
            }
        }
        Ok(Output::Nothing)
    }

    pub(in crate::steps) async fn await_kubernetes(
        &self,
        machines: &[LiveMachine],
        version: &Version,
        steady: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("wait until all nodes run {}", version.tag());
        let client = self.cluster(&doing).await?;
        let mut names = Vec::new();
        for machine in machines {
            names.push(self.node_of(&doing, machine).await?);
        }
        let (hold, limit) = (Duration::from_secs(steady), Duration::from_secs(self.plan.limits.health + steady));
        let begun = cx.elapsed();
        let mut since = None;
        loop {
            let trouble = match client.nodes().await {
                Ok(nodes) => judge(&names, version, &nodes),
                Err(error) => Some(error.to_string()),
            };
            let now = cx.elapsed();
            let told = if let Some(trouble) = trouble {
                since = None;
                trouble
            } else {
                let held = now.saturating_sub(*since.get_or_insert(now));
                if held >= hold {
                    return Ok(Output::Nothing);
                }
                format!("all Ready for {} of {steady} s", held.as_secs())
            };
            if now.saturating_sub(begun) >= limit {
                return Err(wrong(&doing, told).hinted("look at these nodes, then resume"));
            }
            cx.waiting("the Kubernetes nodes", Some(&told));
            cx.sleep(LOOK).await;
        }
    }
}

/// What is wrong with the nodes; none where all are Ready with the version.
fn judge(names: &[String], version: &Version, nodes: &[Node]) -> Option<String> {
    let wrong: Vec<String> = names
        .iter()
        .filter_map(|name| match nodes.iter().find(|node| node.name == *name) {
            None => Some(format!("{name} is not there")),
            Some(node) if node.kubelet != version.tag() => Some(format!("{name} runs {}", node.kubelet)),
            Some(node) => node.ready.as_ref().err().map(|why| format!("{name} is not Ready: {why}")),
        })
        .collect();
    (!wrong.is_empty()).then(|| wrong.join("; "))
}
