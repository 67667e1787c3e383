//! `PersistentVolume`s that live on a machine's own disk: what a rebuild of that machine would destroy.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::client::{Client, K8sError};

/// A `PersistentVolume` of type `local` or `hostPath`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalVolume {
    /// Its name.
    pub name: String,
    /// The path on the node.
    pub path: String,
    /// The nodes that its affinity names; none for one that is wherever its pod is.
    pub nodes: BTreeSet<String>,
    /// `namespace/name` of the claim that it is bound to.
    pub claim: Option<String>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    local: Option<Place>,
    host_path: Option<Place>,
    claim_ref: Option<Claim>,
    node_affinity: Option<Affinity>,
}

#[derive(Deserialize)]
struct Place {
    #[serde(default)]
    path: String,
}

#[derive(Deserialize)]
struct Claim {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Affinity {
    required: Option<Required>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Required {
    #[serde(default)]
    node_selector_terms: Vec<Term>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Term {
    #[serde(default)]
    match_expressions: Vec<Expression>,
    #[serde(default)]
    match_fields: Vec<Expression>,
}

#[derive(Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

fn local(object: Object) -> Option<LocalVolume> {
    let Spec { local, host_path, claim_ref, node_affinity } = object.spec;
    let path = local.or(host_path)?.path;
    let terms = node_affinity.and_then(|affinity| affinity.required).map(|required| required.node_selector_terms);
    let expressions =
        terms.into_iter().flatten().flat_map(|term| [term.match_expressions, term.match_fields]).flatten();
    let names = expressions
        .filter(|expression| ["kubernetes.io/hostname", "metadata.name"].contains(&expression.key.as_str()))
        .filter(|expression| expression.operator == "In");
    Some(LocalVolume {
        name: object.metadata.name,
        path,
        nodes: names.flat_map(|expression| expression.values).collect(),
        claim: claim_ref.map(|claim| format!("{}/{}", claim.namespace, claim.name)),
    })
}

impl Client {
    /// The volumes that lie on machines' own disks.
    pub async fn local_volumes(&self) -> Result<Vec<LocalVolume>, K8sError> {
        let objects: Vec<Object> = self.list("/api/v1/persistentvolumes").await?;
        Ok(objects.into_iter().filter_map(local).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_volumes_on_a_machines_own_disk_are_local_and_their_node_is_found() {
        let read = |text: &str| local(serde_json::from_str(text).unwrap());
        let volume = read(
            r#"{"metadata":{"name":"pv1"},"spec":{"local":{"path":"/var/mnt/data"},"claimRef":{"namespace":"db","name":"data-0"},
               "nodeAffinity":{"required":{"nodeSelectorTerms":[{"matchExpressions":[
               {"key":"kubernetes.io/hostname","operator":"In","values":["lab-worker-01"]},
               {"key":"zone","operator":"In","values":["x"]}]}]}}}}"#,
        )
        .unwrap();
        assert_eq!((volume.path.as_str(), volume.claim.as_deref()), ("/var/mnt/data", Some("db/data-0")));
        assert_eq!(volume.nodes, BTreeSet::from(["lab-worker-01".to_owned()]));
        assert_eq!(read(r#"{"metadata":{"name":"pv2"},"spec":{"hostPath":{"path":"/x"}}}"#).unwrap().nodes.len(), 0);
        assert_eq!(read(r#"{"metadata":{"name":"pv3"},"spec":{"nfs":{"server":"a","path":"/x"}}}"#), None);
    }
}
