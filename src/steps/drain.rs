//! Steps that take a machine's pods away before it goes down, and let pods onto it again afterwards.

use std::time::Duration;

use super::World;
use super::classify::{by_kubernetes, by_talos, wrong};
use crate::engine::{Seen, StepCx, StepError};
use crate::k8s::Client;
use crate::k8s::drain::{Cordon, Left, Way, Why};
use crate::plan::Output;
use crate::plan::kubernetes::{Leftover, LiveMachine};

/// Between two looks at pods and volumes.
const LOOK: Duration = Duration::from_secs(1);

/// How long pods that are deleted rather than evicted may take: their grace periods end some day.
const LAST: Duration = Duration::from_mins(2);

/// How many pods a message names.
const NAMED: usize = 8;

impl World {
    /// The name of a machine's Kubernetes node.
    pub(super) async fn node_of(&self, doing: &str, machine: &LiveMachine) -> Result<String, StepError> {
        let talos = self.machine(doing, machine.address)?;
        let name = talos.nodename().await.map_err(|error| by_talos(doing, error))?;
        name.ok_or_else(|| wrong(doing, format!("{} has no Kubernetes node", machine.name)))
    }

    pub(super) async fn probe_cordoned(&self, machine: &LiveMachine, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let doing = format!("look whether {} is cordoned", machine.name);
        let (client, node) = (self.cluster(&doing).await?, self.node_of(&doing, machine).await?);
        Ok(match client.cordon_of(&node).await.map_err(|error| by_kubernetes(&doing, error))? {
            Cordon::Marked { by } if by == cx.run_id().to_string() => Seen::Done(Output::Nothing),
            Cordon::Theirs => Seen::NotNeeded,
            Cordon::Marked { .. } | Cordon::Open => Seen::Missing,
        })
    }

    pub(super) async fn cordon(&self, machine: &LiveMachine, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("cordon {}", machine.name);
        let (client, node) = (self.cluster(&doing).await?, self.node_of(&doing, machine).await?);
        let by = cx.run_id().to_string();
        if client.cordon(&node, &by).await.map_err(|error| by_kubernetes(&doing, error))? == Cordon::Theirs {
            cx.notice(format!("{node} was cordoned by somebody else, and stays so."));
        }
        Ok(Output::Nothing)
    }

    pub(super) async fn probe_uncordoned(&self, machine: &LiveMachine) -> Result<Seen, StepError> {
        let doing = format!("look whether {} is cordoned", machine.name);
        let (client, node) = (self.cluster(&doing).await?, self.node_of(&doing, machine).await?);
        Ok(match client.cordon_of(&node).await.map_err(|error| by_kubernetes(&doing, error))? {
            Cordon::Marked { .. } => Seen::Missing,
            Cordon::Open => Seen::Done(Output::Nothing),
            Cordon::Theirs => Seen::NotNeeded,
        })
    }

    pub(super) async fn uncordon(&self, machine: &LiveMachine, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = format!("uncordon {}", machine.name);
        let (client, node) = (self.cluster(&doing).await?, self.node_of(&doing, machine).await?);
        if client.uncordon(&node).await.map_err(|error| by_kubernetes(&doing, error))? == Cordon::Theirs {
            cx.notice(format!("{node} was cordoned by somebody else, and stays so."));
        }
        Ok(Output::Nothing)
    }

    /// Nothing that could go is left, and no volume of such a pod is attached.
    pub(super) async fn probe_drained(&self, machine: &LiveMachine) -> Result<Seen, StepError> {
        let doing = format!("look what runs on {}", machine.name);
        let (client, node) = (self.cluster(&doing).await?, self.node_of(&doing, machine).await?);
        let failed = |error| by_kubernetes(&doing, error);
        let pods = client.pods_on(&node).await.map_err(failed)?;
        let empty = pods.iter().all(|pod| crate::k8s::drain::stays(pod).is_some());
        let done = empty && client.volumes_to_detach(&node).await.map_err(failed)?.is_empty();
        Ok(if done { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) async fn drain(
        &self,
        machine: &LiveMachine,
        within: u64,
        leftover: Leftover,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("drain {}", machine.name);
        let (client, node) = (self.cluster(&doing).await?, self.node_of(&doing, machine).await?);
        let limit = Duration::from_secs(within);
        let since = cx.elapsed();
        let left = self.empty(&doing, &client, &node, (Way::Evict, limit), cx).await?;
        if !left.is_empty() {
            if leftover == Leftover::Stay {
                return Err(stuck(&doing, within, &left));
            }
            cx.notice(format!("Not evicted from {node} within {within} s, and deleted as asked: {}", named(&left)));
            let left = self.empty(&doing, &client, &node, (Way::Delete, LAST), cx).await?;
            if !left.is_empty() {
                return Err(stuck(&doing, within + LAST.as_secs(), &left));
            }
        }
        self.detached(&doing, &client, &node, since + limit.max(LAST), cx).await
    }

    /// Round after round, until nothing is left or the time is over. An API that doesn't answer for a moment is waited
    /// for: its own pod may be the one that moves.
    async fn empty(
        &self,
        doing: &str,
        client: &Client,
        node: &str,
        (way, limit): (Way, Duration),
        cx: &StepCx<'_>,
    ) -> Result<Vec<Left>, StepError> {
        let since = cx.elapsed();
        loop {
            let over = cx.elapsed().saturating_sub(since) >= limit;
            match client.drain_round(node, way).await {
                Ok(left) if left.is_empty() || over => return Ok(left),
                Ok(left) => cx.waiting(&format!("{} pod(s) to leave {node}", left.len()), Some(&named(&left))),
                Err(error) if error.is_transient() && !over => {
                    cx.waiting("the Kubernetes API", Some(&error.to_string()));
                }
                Err(error) => return Err(by_kubernetes(doing, error)),
            }
            if cx.is_cancelled() {
                return Err(wrong(doing, "the run is asked to stop; pods that left have left"));
            }
            cx.sleep(LOOK).await;
        }
    }

    /// A volume that is still attached when its machine goes down is attached nowhere else for minutes.
    async fn detached(
        &self,
        doing: &str,
        client: &Client,
        node: &str,
        until: Duration,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        loop {
            let over = cx.elapsed() >= until;
            match client.volumes_to_detach(node).await {
                Ok(volumes) if volumes.is_empty() => return Ok(Output::Nothing),
                Ok(volumes) => {
                    let names = volumes.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
                    if over {
                        return Err(wrong(doing, format!("volumes are still attached to {node}: {names}")).hinted(
                            "look at the storage's CSI driver, then resume; the node stays cordoned meanwhile",
                        ));
                    }
                    cx.waiting("volumes to be detached", Some(&names));
                }
                Err(error) if error.is_transient() && !over => {
                    cx.waiting("the Kubernetes API", Some(&error.to_string()));
                }
                Err(error) => return Err(by_kubernetes(doing, error)),
            }
            if cx.is_cancelled() {
                return Err(wrong(doing, "the run is asked to stop; the pods have left"));
            }
            cx.sleep(LOOK).await;
        }
    }
}

fn named(left: &[Left]) -> String {
    let mut text = left.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if left.len() > NAMED {
        text.push_str(&format!("; and {} more", left.len() - NAMED));
    }
    text
}

fn stuck(doing: &str, seconds: u64, left: &[Left]) -> StepError {
    let error = wrong(doing, format!("{} pod(s) are left after {seconds} s: {}", left.len(), named(left)));
    if left.iter().any(|left| matches!(left.why, Why::Budget(_))) {
        error.hinted(
            "loosen the PodDisruptionBudget, or make its pods healthy elsewhere, then resume; the node stays cordoned \
             meanwhile",
        )
    } else {
        error.hinted("look what keeps these pods from ending, then resume; the node stays cordoned meanwhile")
    }
}
