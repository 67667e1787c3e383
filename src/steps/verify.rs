//! What must be true at the end: the data are back, the machines are what they should be, nothing of the old lingers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::World;
use super::classify::{by_kubernetes, by_talos, refused, wrong};
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::k8s::workloads::{Workload, regressions};
use crate::k8s::{Client, objects::Deleted};
use crate::plan::step::ExpectedMachine;
use crate::plan::{Output, Step};
use crate::talos::client::Machine;
use crate::talos::client::etcd::{Ask, Member};
use crate::types::{MachineName, StepId};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// A kubelet renews its node's lease every ten seconds (kubelet, `nodeLeaseDurationSeconds` / 4): one that doesn't in
/// this time isn't there.
const LEASE_WATCH: Duration = Duration::from_secs(25);

/// How long workloads may take to be as ready as before.
const SETTLE: Duration = Duration::from_mins(3);

impl World {
    /// The snapshot's cluster, and not less of it than the snapshot held. A write that was acknowledged after the
    /// snapshot can't be missing: there was none.
    pub(super) async fn confirm_data(&self, restored: &StepId, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "confirm that the snapshot's data are back";
        let Some(Output::Restored { revision: wanted, namespace_uid, .. }) = cx.output_of(restored) else {
            return Err(wrong(doing, format!("{restored} has restored nothing")));
        };
        let client = self.kube(doing)?;
        self.await_api(doing, &client, cx).await?;
        if let Some(wanted) = namespace_uid {
            let found = client.namespace_uid("kube-system").await.map_err(|error| by_kubernetes(doing, error))?;
            if found.as_ref() != Some(wanted) {
                let found = found.as_deref().unwrap_or("none");
                return Err(refused(doing, format!("kube-system has the UID {found}, and the snapshot's is {wanted}"))
                    .hinted("the new control plane did not start from the snapshot: do not use it, and ask for help"));
            }
        }
        let revision = client.revision().await.map_err(|error| by_kubernetes(doing, error))?;
        if revision < i64::try_from(*wanted).unwrap_or(i64::MAX) {
            return Err(refused(doing, format!("etcd is at revision {revision}, and the snapshot was at {wanted}"))
                .hinted("the new control plane did not start from the snapshot: do not use it, and ask for help"));
        }
        Ok(Output::Nothing)
    }

    /// Node objects and members come back with the data; those of machines that are no more make every health check
    /// fail. Whatever shows life is left alone.
    pub(super) async fn remove_stale(
        &self,
        at: &StepId,
        controlplanes: &[MachineName],
        machines: &[MachineName],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "remove what belongs to no machine";
        let client = self.kube(doing)?;
        self.await_api(doing, &client, cx).await?;
        let machine = self.machine_at(doing, at, cx)?;
        let members = self.remove_members(doing, &machine, controlplanes, cx).await?;
        let nodes = self.remove_nodes(doing, &client, machines, cx).await?;
        if members.is_empty() && nodes.is_empty() {
            return Ok(Output::Nothing);
        }
        for (what, names) in [("Node", &nodes), ("etcd member", &members)] {
            if !names.is_empty() {
                cx.notice(format!("Removed, as no machine of the profile has this name: {what} {}.", names.join(", ")));
            }
        }
        Ok(Output::Removed { nodes, members })
    }

    /// Once all control planes vote, any other member goes; quorum never hangs on it.
    async fn remove_members(
        &self,
        doing: &str,
        machine: &Machine,
        controlplanes: &[MachineName],
        cx: &StepCx<'_>,
    ) -> Result<Vec<String>, StepError> {
        let wanted: BTreeSet<&str> = controlplanes.iter().map(MachineName::as_str).collect();
        let limit = Duration::from_secs(self.plan.limits.health);
        let since = cx.elapsed();
        let mut removed = Vec::new();
        loop {
            let members = match machine.etcd_members(Ask::Cluster).await {
                Ok(members) => members,
                Err(error) if error.is_transient() && cx.elapsed().saturating_sub(since) < limit => {
                    cx.waiting("etcd", Some(&error.to_string()));
                    cx.sleep(LOOK).await;
                    continue;
                }
                Err(error) => return Err(by_talos(doing, error)),
            };
            let voters: BTreeSet<&str> =
                members.iter().filter(|member| !member.is_learner).map(|member| member.name.as_str()).collect();
            let missing: Vec<&str> = wanted.difference(&voters).copied().collect();
            if missing.is_empty() {
                // One that has no name yet is on its way in.
                let strange: Vec<&Member> = members
                    .iter()
                    .filter(|member| !member.name.is_empty() && !wanted.contains(member.name.as_str()))
                    .collect();
                let Some(stranger) = strange.first() else { return Ok(removed) };
                machine.etcd_remove_member(stranger.id).await.map_err(|error| by_talos(doing, error))?;
                removed.push(stranger.name.clone());
                continue;
            }
            if cx.elapsed().saturating_sub(since) >= limit {
                return Err(refused(
                    doing,
                    format!("{} did not join etcd within {} s", missing.join(", "), limit.as_secs()),
                ));
            }
            cx.waiting("etcd's members", Some(&format!("{} has not joined", missing.join(", "))));
            cx.sleep(LOOK).await;
        }
    }

    async fn remove_nodes(
        &self,
        doing: &str,
        client: &Client,
        machines: &[MachineName],
        cx: &StepCx<'_>,
    ) -> Result<Vec<String>, StepError> {
        let failed = |error| by_kubernetes(doing, error);
        let nodes = client.nodes().await.map_err(failed)?;
        let ours = |name: &str| machines.iter().any(|machine| machine.as_str() == name);
        let strange: Vec<String> = nodes.into_iter().map(|node| node.name).filter(|name| !ours(name)).collect();
        if strange.is_empty() {
            return Ok(Vec::new());
        }
        let before = client.leases().await.map_err(failed)?;
        let since = cx.elapsed();
        while cx.elapsed().saturating_sub(since) < LEASE_WATCH {
            cx.waiting("a sign of life", Some(&strange.join(", ")));
            cx.sleep(LOOK).await;
        }
        let after = client.leases().await.map_err(failed)?;
        let mut removed = Vec::new();
        for name in strange {
            if is_alive(&name, &before, &after) {
                cx.notice(format!("Node {name} is no machine of the profile, and lives: it was left alone."));
                continue;
            }
            if client.delete_node(&name).await.map_err(failed)? == Deleted::Now {
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// What each machine says of itself.
    pub(super) async fn confirm_machines(
        &self,
        machines: &[ExpectedMachine],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "confirm what the machines run";
        let mut found = Vec::new();
        for expected in machines {
            let machine = self.machine_at(doing, &expected.at, cx)?;
            let name = &expected.machine;
            let release = machine.release().await.map_err(|error| by_talos(doing, error))?;
            if release.version != expected.version {
                found.push(format!("{name} runs Talos {}, not {}", release.version, expected.version));
            }
            match machine.extensions().await.map_err(|error| by_talos(doing, error))?.schematic {
                Some(schematic) if schematic == expected.schematic => {}
                Some(schematic) => {
                    found.push(format!("{name} was made from schematic {schematic}, not {}", expected.schematic));
                }
                None => found.push(format!("{name} does not say what schematic it was made from")),
            }
        }
        if found.is_empty() { Ok(Output::Nothing) } else { Err(refused(doing, found.join("; "))) }
    }

    /// What was saved before anything was touched; none where nothing was.
    fn workloads_before(&self) -> Result<Option<Vec<Workload>>, StepError> {
        let path = self.files.run.join("before").join("workloads.json");
        let Some(text) = super::files::read(&path)? else { return Ok(None) };
        let doing = format!("read {}", path.display());
        serde_json::from_str(&text).map(Some).map_err(|error| StepError::new(Class::Permanent, doing, error))
    }

    pub(super) fn probe_workloads(&self) -> Result<Seen, StepError> {
        Ok(if self.workloads_before()?.is_some() { Seen::Missing } else { Seen::NotNeeded })
    }

    /// Gives workloads a while, then lists what is still worse than before.
    pub(super) async fn compare_workloads(&self, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let doing = "compare the workloads with those from before";
        let Some(before) = self.workloads_before()? else { return Ok(Output::Nothing) };
        let client = self.kube(doing)?;
        let since = cx.elapsed();
        let worse = loop {
            let late = cx.elapsed().saturating_sub(since) >= SETTLE;
            let last = match client.workloads().await {
                Ok(now) => {
                    let worse: Vec<String> = regressions(&before, &now).iter().map(ToString::to_string).collect();
                    if worse.is_empty() || late {
                        break worse;
                    }
                    worse.join("; ")
                }
                Err(error) if error.is_transient() && !late => error.to_string(),
                Err(error) => return Err(by_kubernetes(doing, error)),
            };
            cx.waiting("workloads that were ready before", Some(&last));
            cx.sleep(LOOK).await;
        };
        if worse.is_empty() {
            return Ok(Output::Nothing);
        }
        cx.notice(format!("Ready before and not now: {}.", worse.join("; ")));
        Ok(Output::Workloads { regressions: worse })
    }

    /// Whether this run restored data, as the plan says.
    pub(super) fn restores(&self) -> bool {
        self.plan.steps().any(|planned| matches!(planned.step, Step::ConfirmData { .. }))
    }
}

/// Whether a node's lease was renewed between two looks.
fn is_alive(name: &str, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> bool {
    after.get(name).is_some_and(|renewed| before.get(name) != Some(renewed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_is_renewed_is_a_sign_of_life() {
        let leases = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, at)| ((*name).to_owned(), (*at).to_owned())).collect()
        };
        let (before, after) = (leases(&[("a", "1"), ("b", "1")]), leases(&[("a", "2"), ("b", "1"), ("c", "1")]));
        let alive = |name: &str| is_alive(name, &before, &after);
        assert!(alive("a") && alive("c") && !alive("b") && !alive("gone"));
    }
}
