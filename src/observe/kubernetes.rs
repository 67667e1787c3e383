//! What the running cluster shows through the Kubernetes API: which cluster it is, whether its nodes are Ready, and which
//! addresses lead into it.

use std::time::Duration;

use crate::k8s;
use crate::net::Connector;
use crate::plan::observed::{Complaint, SeenCluster, SeenVolume};
use crate::talos::client::Machine;

/// How long all of it may take together.
const WITHIN: Duration = Duration::from_secs(20);

fn seen_volume(volume: k8s::LocalVolume) -> SeenVolume {
    SeenVolume { name: volume.name, path: volume.path, machines: volume.nodes, claim: volume.claim }
}

/// Looks with the credentials that a control plane gives; what can't be seen is a complaint.
pub async fn observe(connector: &Connector, control_plane: &Machine, seen: &mut SeenCluster) {
    let looked = tokio::time::timeout(WITHIN, look(connector, control_plane, seen)).await;
    let complaint = match looked {
        Ok(Ok(())) => return,
        Ok(Err(why)) => why,
        Err(_) => format!("no answer within {} s", WITHIN.as_secs()),
    };
    seen.unhealthy.push(Complaint::of_cluster(format!("the Kubernetes API can't be looked at: {complaint}")));
}

async fn look(connector: &Connector, control_plane: &Machine, seen: &mut SeenCluster) -> Result<(), String> {
    // The innermost cause says most, and one line is all there is room for.
    let told = |error: &dyn std::error::Error| {
        let mut text = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            text = cause.to_string();
            next = cause.source();
        }
        text
    };
    let kubeconfig = control_plane.kubeconfig().await.map_err(|error| told(&error))?;
    let client = k8s::Client::new(connector, &kubeconfig).map_err(|error| told(&error))?;
    seen.namespace_uid = client.namespace_uid("kube-system").await.map_err(|error| told(&error))?;
    for node in client.nodes().await.map_err(|error| told(&error))? {
        if let Err(why) = node.ready {
            let what = format!("Kubernetes node {} is not Ready: {why}", node.name);
            seen.unhealthy.push(Complaint::of(&node.name, what));
        }
    }
    let volumes = client.local_volumes().await.map_err(|error| told(&error))?;
    seen.local_volumes = Some(volumes.into_iter().map(seen_volume).collect());
    seen.services = client.service_addresses().await.map_err(|error| told(&error))?;
    Ok(())
}
