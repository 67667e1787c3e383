//! What each machine of a running cluster is: release, schematic, extensions, platform, and its node.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;

use crate::k8s;
use crate::net::Connector;
use crate::plan::PlannedVm;
use crate::plan::observed::Complaint;
use crate::plan::upgrade::{Member, SeenMember};
use crate::talos::client::{Access, Machine, TalosError};
use crate::types::{Cordon, MachineName, Role};

/// How long a machine may take to answer a question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Machines that answered, and the names of those that did not, with the reason.
#[derive(Debug, Default)]
pub struct Members {
    /// They.
    pub members: Vec<SeenMember>,
    /// Name and reason.
    pub silent: Vec<(String, String)>,
    /// Workers that are not up. What is wrong with control planes is found with the cluster.
    pub down: Vec<Complaint>,
}

/// Looks at all machines of the profile at once.
pub async fn observe(connector: &Connector, access: &Access, vms: &[PlannedVm]) -> Members {
    let looked = join_all(vms.iter().map(async |vm| (vm, look(connector, access, vm).await))).await;
    let mut found = Members::default();
    for (vm, looked) in looked {
        match looked {
            Ok((member, complaint)) => {
                found.members.push(member);
                found.down.extend(complaint);
            }
            Err(why) => found.silent.push((vm.name.clone(), why)),
        }
    }
    nodes(connector, access, &mut found.members).await;
    found
}

async fn look(
    connector: &Connector,
    access: &Access,
    vm: &PlannedVm,
) -> Result<(SeenMember, Option<Complaint>), String> {
    let address = vm.address.ok_or("its address is not known: give it one in nodes.…assignments[].ip")?;
    let told = |error: &TalosError| {
        let mut text = error.to_string();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            text = cause.to_string();
            next = cause.source();
        }
        text
    };
    let machine = Machine::new(connector, &address.to_string(), access, PATIENCE).map_err(|error| told(&error))?;
    let release = machine.release().await.map_err(|error| told(&error))?;
    let extensions = machine.extensions().await.map_err(|error| told(&error))?;
    let status = if vm.role == Role::Worker { machine.status().await.ok().flatten() } else { None };
    let complaint = status.filter(|status| !status.is_up()).map(|status| {
        let unmet: Vec<String> = status.unmet.iter().map(|unmet| format!("{}: {}", unmet.name, unmet.reason)).collect();
        let why = if unmet.is_empty() { "it is not ready".to_owned() } else { unmet.join(", ") };
        Complaint::of(&vm.name, format!("{} is {}; {why}", vm.name, status.stage))
    });
    let member = SeenMember {
        member: Member { name: MachineName::new(&vm.name), role: vm.role, address },
        version: release.version,
        schematic: extensions.schematic,
        extensions: extensions.installed.into_iter().map(|extension| extension.name).collect::<BTreeSet<_>>(),
        platform: release.platform,
        kubelet: None,
        cordon: Cordon::Open,
    };
    Ok((member, complaint))
}

/// Fills in what the nodes show; a cluster whose API does not answer is found unhealthy elsewhere.
async fn nodes(connector: &Connector, access: &Access, members: &mut [SeenMember]) {
    let control = members.iter().filter(|seen| seen.member.role == Role::ControlPlane);
    let mut nodes = Vec::new();
    for address in control.map(|seen| seen.member.address.to_string()).collect::<Vec<_>>() {
        let Ok(machine) = Machine::new(connector, &address, access, PATIENCE) else { continue };
        let Ok(kubeconfig) = machine.kubeconfig().await else { continue };
        let Ok(client) = k8s::Client::new(connector, &kubeconfig) else { continue };
        if let Ok(found) = cordons(&client).await {
            nodes = found;
            break;
        }
    }
    for seen in members {
        let Some((node, cordon)) = nodes.iter().find(|(node, _)| node.name == seen.member.name.as_str()) else {
            continue;
        };
        seen.kubelet = node.kubelet.parse().ok();
        seen.cordon.clone_from(cordon);
    }
}

/// All nodes, each with who keeps pods off it.
async fn cordons(client: &k8s::Client) -> Result<Vec<(k8s::Node, Cordon)>, k8s::K8sError> {
    let mut found = Vec::new();
    for node in client.nodes().await? {
        let cordon = if node.unschedulable { client.cordon_of(&node.name).await? } else { Cordon::Open };
        found.push((node, cordon));
    }
    Ok(found)
}
