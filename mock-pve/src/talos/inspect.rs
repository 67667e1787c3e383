//! `inspect.InspectService`: which part of Talos reads and writes which resources; `schema/talos-controllers.txt` lists them.

use std::sync::LazyLock;

use tonic::{Request, Response, Status};

use super::gate::Need;
use super::node::Node;
use super::proto::inspect as api;
use super::proto::inspect::DependencyEdgeType as Edge;
use super::proto::inspect::inspect_service_server::InspectService;
use super::resources;
use crate::world::machine::Machine;

const TEXT: &str = include_str!("../../schema/talos-controllers.txt");

/// What a controller does with resources of a type.
struct Dependency {
    controller: &'static str,
    edge: Edge,
    resource: &'static str,
    /// A namespace that isn't the type's own.
    elsewhere: Option<&'static str>,
}

static DEPENDENCIES: LazyLock<Vec<Dependency>> = LazyLock::new(|| {
    let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
    lines
        .flat_map(|line| {
            let (controller, others) = line.split_once(' ').unwrap_or((line, ""));
            others.split(' ').filter_map(move |word| dependency(controller, word))
        })
        .collect()
});

fn dependency(controller: &'static str, word: &'static str) -> Option<Dependency> {
    let (how, resource) = word.split_once(':')?;
    let edge = match how {
        "in" => Edge::InputStrong,
        "weak" => Edge::InputWeak,
        "destroy" => Edge::InputDestroyReady,
        "out" => Edge::OutputExclusive,
        "shared" => Edge::OutputShared,
        _ => return None,
    };
    let (resource, elsewhere) = match resource.split_once('@') {
        Some((resource, namespace)) => (resource, Some(namespace)),
        None => (resource, None),
    };
    Some(Dependency { controller, edge, resource, elsewhere })
}

/// Who makes resources of that type: the one that nobody else may, or the first of those that share it.
pub(super) fn owner(kind: &str) -> &'static str {
    let makes = |edge: Edge| DEPENDENCIES.iter().find(|one| one.edge == edge && one.resource == kind);
    let found = makes(Edge::OutputExclusive).or_else(|| makes(Edge::OutputShared));
    found.map_or("", |one| one.controller)
}

/// What is between the controllers and the types that this Talos has.
fn edges(machine: &Machine) -> Vec<api::ControllerDependencyEdge> {
    let known = |one: &'static Dependency| Some((one, resources::kind_of(machine, one.resource)?));
    DEPENDENCIES
        .iter()
        .filter_map(known)
        .map(|(one, kind)| {
            let writes = matches!(one.edge, Edge::OutputExclusive | Edge::OutputShared);
            let namespace = if writes { "" } else { one.elsewhere.unwrap_or(kind.namespace) };
            api::ControllerDependencyEdge {
                controller_name: one.controller.to_owned(),
                edge_type: one.edge.into(),
                resource_namespace: namespace.to_owned(),
                resource_type: one.resource.to_owned(),
                resource_id: String::new(),
            }
        })
        .collect()
}

#[tonic::async_trait]
impl InspectService for Node {
    async fn controller_runtime_dependencies(
        &self,
        request: Request<()>,
    ) -> Result<Response<api::ControllerRuntimeDependenciesResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| {
            Ok(api::ControllerRuntimeDependency { metadata: None, edges: edges(machine) })
        })?;
        Ok(Response::new(api::ControllerRuntimeDependenciesResponse { messages }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_a_dependency() {
        let lines = TEXT.lines().filter(|line| !line.starts_with('#'));
        let words: usize = lines.map(|line| line.split(' ').count() - 1).sum();
        assert_eq!(DEPENDENCIES.len(), words);
    }

    #[test]
    fn a_type_has_a_maker() {
        assert_eq!(owner("Disks.block.talos.dev"), "block.DisksController");
        assert_eq!(owner("Members.cluster.talos.dev"), "cluster.MemberController");
        assert_eq!(owner("ResourceDefinitions.meta.cosi.dev"), "");
    }
}
