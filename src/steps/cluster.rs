//! Steps on the whole cluster: etcd's bootstrap, access, health, nodes.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use super::World;
use super::classify::{by_talos, refused, wrong};
use super::files::read;
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::k8s;
use crate::plan::{Output, Step};
use crate::talos::access::{self, AdminCertificate, Roles, YEAR_HOURS};
use crate::talos::client::health::{HealthError, Line, Question, Standing};
use crate::talos::client::{Attempt, Machine, Recovery};
use crate::types::{MachineName, Role, StepId, Version};

/// Between two looks at etcd or at nodes.
const LOOK: Duration = Duration::from_millis(250);

/// etcd's service on a machine.
const ETCD: &str = "etcd";

/// The address that step `at` waited for.
fn address_of(doing: &str, at: &StepId, cx: &StepCx<'_>) -> Result<IpAddr, StepError> {
    match cx.output_of(at) {
        Some(Output::Machine { address, .. }) => Ok(*address),
        _ => Err(wrong(doing, format!("{at} has not found its machine"))),
    }
}

impl World {
    pub(super) fn machine_at(&self, doing: &str, at: &StepId, cx: &StepCx<'_>) -> Result<Machine, StepError> {
        self.machine(doing, address_of(doing, at, cx)?)
    }

    /// Whether etcd runs on the machine.
    async fn etcd_up(&self, doing: &str, machine: &Machine) -> Result<bool, StepError> {
        let services = machine.services().await.map_err(|error| by_talos(doing, error))?;
        Ok(services.iter().any(|service| service.id == ETCD && service.is_up()))
    }

    pub(super) async fn probe_bootstrapped(&self, at: &StepId, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let doing = "look whether etcd runs";
        let machine = self.machine_at(doing, at, cx)?;
        Ok(if self.etcd_up(doing, &machine).await? { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    /// On exactly one machine, once. This run cloned the machine and only this run's configuration opens it, so data that
    /// are there already are those of an attempt whose answer was lost: hence `Attempt::Repeated`.
    pub(super) async fn bootstrap_etcd(
        &self,
        name: &MachineName,
        at: &StepId,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("bootstrap etcd on {name}");
        let machine = self.machine_at(&doing, at, cx)?;
        let limit = Duration::from_secs(self.plan.limits.boot);
        machine.bootstrap(Recovery::Fresh, Attempt::Repeated, limit).await.map_err(|error| by_talos(&doing, error))?;
        self.await_etcd(&doing, &machine, limit, cx).await?;
        Ok(Output::Nothing)
    }

    /// A bootstrap only says that etcd was told to start: a snapshot that it can't use shows in its service.
    pub(super) async fn await_etcd(
        &self,
        doing: &str,
        machine: &Machine,
        limit: Duration,
        cx: &StepCx<'_>,
    ) -> Result<(), StepError> {
        let since = cx.elapsed();
        while !self.etcd_up(doing, machine).await? {
            if cx.elapsed().saturating_sub(since) >= limit {
                let log = machine.log(ETCD, 5).await.unwrap_or_default();
                return Err(wrong(doing, format!("etcd does not run after {} s: {}", limit.as_secs(), log.trim())));
            }
            cx.waiting("etcd", None);
            cx.sleep(LOOK).await;
        }
        Ok(())
    }

    /// Fetches a kubeconfig, makes a talosconfig, keeps a copy of both with the run and merges both into the user's files.
    pub(super) async fn save_access(
        &self,
        name: &MachineName,
        at: &StepId,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = format!("fetch the kubeconfig from {name}");
        let failed =
            |error: access::AccessError| StepError::new(Class::Permanent, "write the client configurations", error);
        let kubeconfig =
            self.machine_at(&doing, at, cx)?.kubeconfig().await.map_err(|error| by_talos(&doing, error))?;
        let text = kubeconfig.expose_secret();
        access::write_private(&self.files.run.join("kubeconfig"), &kubeconfig).map_err(failed)?;
        let previous = read(&self.files.kubeconfig)?;
        let merged = access::kubeconfig::merge(previous.as_deref(), text, access::kubeconfig::Activate::IfNone)
            .map_err(failed)?;
        access::write_private(&self.files.kubeconfig, &merged).map_err(failed)?;
        let certificate = AdminCertificate::issue(&self.secrets, Roles::Admin, cx.now(), YEAR_HOURS).map_err(failed)?;
        let context = access::talosconfig::Context {
            name: self.plan.cluster.clone(),
            endpoints: self.addresses(Some(Role::ControlPlane), cx),
            nodes: self.addresses(None, cx),
            certificate,
        };
        let alone = access::talosconfig::merge(None, &context).map_err(failed)?;
        access::write_private(&self.files.run.join("talosconfig"), &alone).map_err(failed)?;
        let previous = read(&self.files.talosconfig)?;
        let merged = access::talosconfig::merge(previous.as_deref(), &context).map_err(failed)?;
        access::write_private(&self.files.talosconfig, &merged).map_err(failed)?;
        Ok(Output::Nothing)
    }

    /// Where the plan's machines answer, of one role or of all.
    fn addresses(&self, role: Option<Role>, cx: &StepCx<'_>) -> Vec<String> {
        let wanted = |name: &MachineName| {
            self.plan.vms.iter().any(|vm| vm.name == name.as_str() && role.is_none_or(|role| vm.role == role))
        };
        let waits = self.plan.steps().filter_map(|planned| match &planned.step {
            Step::AwaitMachine { machine, .. } if wanted(machine) => cx.output_of(&planned.id),
            Step::MeetMachine { machine, .. } if wanted(&machine.name) => cx.output_of(&planned.id),
            _ => None,
        });
        let found = waits.filter_map(|output| match output {
            Output::Machine { address, .. } => Some(address.to_string()),
            _ => None,
        });
        found.collect()
    }

    pub(super) async fn await_healthy(
        &self,
        controlplanes: &[StepId],
        workers: &[StepId],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "wait for Talos' health checks";
        let Some(first) = controlplanes.first() else { return Err(wrong(doing, "there is no control plane")) };
        let all = |steps: &[StepId]| -> Result<Vec<String>, StepError> {
            steps.iter().map(|step| Ok(address_of(doing, step, cx)?.to_string())).collect()
        };
        let within = Duration::from_secs(self.plan.limits.health);
        let question = Question { control_planes: all(controlplanes)?, workers: all(workers)?, within };
        let machine = self.machine_at(doing, first, cx)?;
        let heard = |line: &Line| {
            if let Line::Check { standing, .. } = line
                && !matches!(standing, Standing::Ok | Standing::Skipped)
            {
                cx.waiting(&line.to_string(), None);
            }
        };
        match machine.check_health(&question, heard).await {
            Ok(()) => Ok(Output::Nothing),
            Err(HealthError::Talos(error)) => Err(by_talos(doing, error)),
            Err(error) => Err(StepError::new(Class::Permanent, doing, error)
                .hinted("the cluster is up, but not well: look at it with talosctl, then resume")),
        }
    }

    /// Ready with the new machine's boot id and version, without a break for the steady time. A restored or stale Node
    /// object can look Ready for a while; its boot id gives it away.
    pub(super) async fn await_nodes_ready(
        &self,
        machines: &[MachineName],
        kubernetes: &Version,
        steady: u64,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "wait for the Kubernetes nodes";
        let client = self.kube(doing)?;
        let expected = self.expected_nodes(machines, kubernetes, cx);
        let mut watch = k8s::Steady::new(expected, Duration::from_secs(steady));
        let limit = Duration::from_secs(self.plan.limits.health + steady);
        let since = cx.elapsed();
        loop {
            let sample = client.nodes().await;
            let verdict = match sample {
                Ok(nodes) => watch.sample(cx.elapsed(), &nodes),
                Err(error) => watch.blind(error.to_string()),
            };
            match verdict {
                k8s::Verdict::Steady => return Ok(Output::Nothing),
                k8s::Verdict::Waiting { why } => cx.waiting("the Kubernetes nodes", Some(&why)),
            }
            if cx.elapsed().saturating_sub(since) > limit {
                return Err(refused(
                    doing,
                    format!("not Ready and steady within {} s: {}", limit.as_secs(), watch.last()),
                ));
            }
            cx.sleep(LOOK).await;
        }
    }
}

impl World {
    /// What the nodes must show: the boots that the machines had when they came up.
    fn expected_nodes(&self, machines: &[MachineName], kubernetes: &Version, cx: &StepCx<'_>) -> Vec<k8s::Expected> {
        let boot_of = |name: &MachineName| {
            self.plan.steps().find_map(|planned| match (&planned.step, cx.output_of(&planned.id)) {
                (Step::AwaitMachine { machine, .. }, Some(Output::Machine { boot_id, .. })) if machine == name => {
                    boot_id.clone()
                }
                _ => None,
            })
        };
        let expected = machines.iter().map(|name| k8s::Expected {
            name: name.to_string(),
            boot_id: boot_of(name).unwrap_or_default(),
            kubelet: kubernetes.tag(),
        });
        expected.collect()
    }
}
