//! The gate right before the first change: are the plan's facts still facts?

use super::World;
use super::classify::{by_pve, refused};
use crate::engine::StepError;
use crate::observe::identity::{differences, identity};
use crate::plan::Output;
use crate::pve::vm::VmRef;

impl World {
    /// Reads every listed fact again and refuses with all that drifted.
    pub(super) async fn confirm_facts(&self) -> Result<Output, StepError> {
        let doing = "confirm the facts that the plan stands on";
        let facts = &self.plan.facts;
        let mut drifted = Vec::new();
        for planned in &facts.victims {
            let at = VmRef::new(planned.node.clone(), planned.vmid);
            match self.pve.vm_config(&at).await {
                Ok(config) => {
                    let differences = differences(planned, &identity(&at, &config));
                    drifted.extend(
                        differences.into_iter().map(|what| format!("VM {} ({}): {what}", planned.vmid, planned.name)),
                    );
                }
                Err(error) if error.is_missing_vm(planned.vmid) => {
                    drifted.push(format!("VM {} ({}) is gone", planned.vmid, planned.name));
                }
                Err(error) => return Err(by_pve(doing, error)),
            }
        }
        let guests = self.pve.guests().await.map_err(|error| by_pve(doing, error))?;
        for free in &facts.free {
            if let Some(guest) = guests.iter().find(|guest| guest.vmid == *free) {
                let name = guest.name.as_deref().unwrap_or("a new guest");
                drifted.push(format!("number {free} is taken by {name} on {}", guest.node));
            }
        }
        for (template, node) in &facts.templates {
            match self.pve.vm_config(&VmRef::new(node.clone(), *template)).await {
                Ok(config) if config.is_template() => {}
                Ok(_) => drifted.push(format!("VM {template} on {node} is no template any more")),
                Err(error) if error.is_missing_vm(*template) => {
                    drifted.push(format!("template {template} on {node} is gone"));
                }
                Err(error) => return Err(by_pve(doing, error)),
            }
        }
        for (node, storage) in &facts.storages {
            let storages = self.pve.node_storages(node).await.map_err(|error| by_pve(doing, error))?;
            if !storages.iter().any(|seen| seen.storage == *storage && seen.takes("images")) {
                drifted.push(format!("storage {storage} on {node} takes no images any more"));
            }
        }
        if drifted.is_empty() {
            return Ok(Output::Nothing);
        }
        Err(refused(doing, format!("this changed since the plan was made: {}", drifted.join("; ")))
            .hinted("make a new plan"))
    }
}
