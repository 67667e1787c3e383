//! Steps that move Kubernetes to another version: one component on one machine at a time.
//!
//! Whatever waits here waits for states, never for events: a run that was killed looks again and goes on, and there is no
//! event that it could miss. `plan/phases/kubernetes.rs` says in which order.

mod component;
mod hop;
mod manifests;

use std::time::Duration;

use super::World;
use super::classify::{by_talos, wrong};
use super::files::read;
use crate::engine::{Class, StepError};
use crate::k8s::Client;
use crate::talos::access;
use crate::types::Role;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

impl World {
    /// The API of the cluster that runs, by the run's own kubeconfig; it is fetched from a control plane where there is
    /// none yet.
    pub(super) async fn cluster(&self, doing: &str) -> Result<Client, StepError> {
        let path = self.files.run.join("kubeconfig");
        if read(&path)?.is_some() {
            return self.kube(doing);
        }
        let mut last = wrong(doing, "the plan has no control plane with an address");
        for vm in self.plan.vms.iter().filter(|vm| vm.role == Role::ControlPlane) {
            let Some(address) = vm.address else { continue };
            match self.machine(doing, address)?.kubeconfig().await {
                Ok(text) => {
                    access::write_private(&path, &text)
                        .map_err(|error| StepError::new(Class::Permanent, "keep the kubeconfig with the run", error))?;
                    return self.kube(doing);
                }
                Err(error) => last = by_talos(doing, error),
            }
        }
        Err(last)
    }
}
