//! What may be needed to understand or repair the old cluster, kept in the run's folder.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;
use serde::Serialize;

use crate::engine::{Class, StepCx, StepError};
use crate::k8s;
use crate::plan::Output;
use crate::plan::data::OldMachine;
use crate::pve::vm::VmRef;
use crate::steps::World;
use crate::steps::classify::{by_pve, by_talos};
use crate::talos::access;
use crate::types::Role;

impl World {
    /// Versions, members, nodes, configurations, readiness: 0600, for whoever has to repair something later.
    pub(in crate::steps) async fn save_before(
        &self,
        machines: &[OldMachine],
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let doing = "save the state of the old cluster";
        let dir = self.files.run.join("before");
        let control: Vec<OldMachine> = machines.iter().filter(|old| old.role == Role::ControlPlane).cloned().collect();
        let members = self.sound(doing, &control, None, cx).await?;
        let listed: BTreeMap<&str, String> =
            members.iter().map(|member| (member.name.as_str(), format!("{:016x}", member.id))).collect();
        keep_json(&dir.join("members.json"), &listed)?;
        let mut versions = BTreeMap::new();
        for old in machines {
            let name = &old.vm.name;
            let at = VmRef::new(old.vm.node.clone(), old.vm.vmid);
            let config = self.pve.vm_config(&at).await.map_err(|error| by_pve(doing, error))?;
            keep_json(&dir.join("vms").join(format!("{}.json", old.vm.vmid)), &config.keys)?;
            let Some(address) = old.address else { continue };
            let machine = self.machine(doing, address)?;
            let release = machine.release().await.map_err(|error| by_talos(doing, error))?;
            versions.insert(name.clone(), release.version.to_string());
            if let Some(config) = machine.config().await.map_err(|error| by_talos(doing, error))? {
                keep(&dir.join("machines").join(format!("{name}.yaml")), &config)?;
            }
        }
        self.save_kubernetes(doing, &control, &dir, &mut versions).await?;
        keep_json(&dir.join("versions.json"), &versions)?;
        let members = members.iter().map(|member| format!("{:016x}", member.id)).collect();
        Ok(Output::Before { dir, members })
    }

    async fn save_kubernetes(
        &self,
        doing: &str,
        control: &[OldMachine],
        dir: &Path,
        versions: &mut BTreeMap<String, String>,
    ) -> Result<(), StepError> {
        let by_api = |error: k8s::K8sError| {
            let class = if error.is_transient() { Class::Transient } else { Class::Permanent };
            StepError::new(class, doing, error)
        };
        let Some(address) = control.iter().find_map(|old| old.address) else { return Ok(()) };
        let kubeconfig = self.machine(doing, address)?.kubeconfig().await.map_err(|error| by_talos(doing, error))?;
        let client = k8s::Client::new(&self.connector, &kubeconfig).map_err(by_api)?;
        versions.insert("kubernetes".to_owned(), client.version().await.map_err(by_api)?.to_string());
        let nodes = client.nodes().await.map_err(by_api)?;
        let nodes: Vec<_> = nodes
            .into_iter()
            .map(|node| {
                serde_json::json!({
                    "name": node.name,
                    "ready": node.ready.is_ok(),
                    "kubelet": node.kubelet,
                    "boot_id": node.boot_id,
                    "unschedulable": node.unschedulable,
                })
            })
            .collect();
        keep_json(&dir.join("nodes.json"), &nodes)?;
        keep_json(&dir.join("workloads.json"), &client.workloads().await.map_err(by_api)?)
    }
}

fn keep(path: &Path, text: &SecretString) -> Result<(), StepError> {
    let failed = |error| StepError::new(Class::Permanent, format!("write {}", path.display()), error);
    access::write_private(path, text).map(drop).map_err(failed)
}

fn keep_json(path: &Path, content: &impl Serialize) -> Result<(), StepError> {
    let text = serde_json::to_string_pretty(content)
        .map_err(|error| StepError::new(Class::Permanent, format!("write {}", path.display()), error))?;
    keep(path, &SecretString::from(text + "\n"))
}
