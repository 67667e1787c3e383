//! `cosi.resource.State`: resources by type and id, as YAML.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use sha2::{Digest as _, Sha256};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::gate::{self, Need, Peer};
use super::inspect;
use super::node::{Node, while_up};
use super::proto::cosi::resource as api;
use super::proto::cosi::resource::state_server::State as CosiState;
use super::resources::{self, Item, Type};
use crate::world::machine::Machine;

/// The type of a request, if this Talos has it and the caller may see it.
fn kind(machine: &Machine, peer: &Peer, namespace: &str, name: &str) -> Result<&'static Type, Status> {
    let Some(kind) = resources::kind_of(machine, name) else {
        return Err(Status::permission_denied(format!("resource type \"{name}\" is not supported")));
    };
    if kind.is_sensitive && !peer.is_admin() {
        return Err(Status::permission_denied("not authorized"));
    }
    if !resources::is_namespace(machine, namespace) {
        return Err(Status::permission_denied(format!("namespace \"{namespace}\" is not supported")));
    }
    Ok(kind)
}

/// What a caller wants of a list. No resource here carries labels.
struct Filter {
    id: Option<regex::Regex>,
    /// Some query holds without any label.
    unlabelled: bool,
}

impl Filter {
    fn new(id: Option<&api::IdQuery>, labels: &[api::LabelQuery]) -> Result<Self, Status> {
        let id = id.map(|query| query.regexp.as_str()).filter(|text| !text.is_empty());
        let id = id.map(regex::Regex::new).transpose();
        let id = id.map_err(|error| Status::invalid_argument(format!("failed to compile regexp: {error}")))?;
        let holds =
            |term: &api::LabelTerm| (term.op == i32::from(api::label_term::Operation::NotExists)) != term.invert;
        let unlabelled = labels.is_empty() || labels.iter().any(|query| query.terms.iter().all(holds));
        Ok(Self { id, unlabelled })
    }

    fn takes(&self, id: &str) -> bool {
        self.unlabelled && self.id.as_ref().is_none_or(|wanted| wanted.is_match(id))
    }
}

fn open<T>(node: &Node, request: &Request<T>) -> Result<(Machine, Peer), Status> {
    let peer = gate::peer(request)?;
    peer.check(Need::Read)?;
    Ok((gate::only(&node.here, request)?, peer))
}

fn all(machine: &Machine, kind: &'static Type, namespace: &str) -> Vec<Item> {
    let mut items = resources::list(machine, kind);
    items.retain(|item| item.namespace == namespace);
    items
}

fn wire(machine: &Machine, item: &Item) -> api::Resource {
    let booted = machine.see(|state| state.booted);
    let what = format!("{} {}/{}", item.kind, item.namespace, item.id);
    let revision = machine.revision(&what, Sha256::digest(&item.yaml).into());
    let version = item.version.unwrap_or(revision.count);
    api::Resource {
        metadata: Some(api::Metadata {
            namespace: item.namespace.to_owned(),
            r#type: item.kind.to_owned(),
            id: item.id.clone(),
            version: version.to_string(),
            owner: inspect::owner(item.kind).to_owned(),
            phase: "running".to_owned(),
            created: Some(booted.into()),
            updated: Some(revision.at.into()),
            finalizers: Vec::new(),
            labels: HashMap::default(),
            annotations: item
                .annotations
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }),
        spec: Some(api::Spec { proto_spec: item.proto.clone(), yaml_spec: item.yaml.clone() }),
    }
}

fn event(kind: api::EventType, resource: Option<api::Resource>) -> api::WatchResponse {
    let event = api::Event { resource, event_type: kind.into(), ..Default::default() };
    api::WatchResponse { event: vec![event] }
}

#[tonic::async_trait]
impl CosiState for Node {
    async fn get(&self, request: Request<api::GetRequest>) -> Result<Response<api::GetResponse>, Status> {
        let (machine, peer) = open(self, &request)?;
        let api::GetRequest { namespace, r#type, id, .. } = request.into_inner();
        let kind = kind(&machine, &peer, &namespace, &r#type)?;
        let found = all(&machine, kind, &namespace).into_iter().find(|item| item.id == id);
        let item = found
            .ok_or_else(|| Status::not_found(format!("resource {type}({namespace}/{id}@undefined) doesn't exist")))?;
        Ok(Response::new(api::GetResponse { resource: Some(wire(&machine, &item)) }))
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Result<Response<BoxStream<api::ListResponse>>, Status> {
        let (machine, peer) = open(self, &request)?;
        let wanted = request.into_inner();
        let kind = kind(&machine, &peer, &wanted.namespace, &wanted.r#type)?;
        let options = wanted.options.unwrap_or_default();
        let filter = Filter::new(options.id_query.as_ref(), &options.label_query)?;
        let items: Vec<Result<api::ListResponse, Status>> = all(&machine, kind, &wanted.namespace)
            .iter()
            .filter(|item| filter.takes(&item.id))
            .map(|item| Ok(api::ListResponse { resource: Some(wire(&machine, item)) }))
            .collect();
        Ok(Response::new(stream::iter(items).boxed()))
    }

    async fn watch(
        &self,
        request: Request<api::WatchRequest>,
    ) -> Result<Response<BoxStream<api::WatchResponse>>, Status> {
        let (machine, peer) = open(self, &request)?;
        let wanted = request.into_inner();
        let kind = kind(&machine, &peer, &wanted.namespace, &wanted.r#type)?;
        let contents = wanted.options.as_ref().is_some_and(|options| options.bootstrap_contents);
        if contents && wanted.id.is_some() {
            return Err(Status::unimplemented("watching a single resource with bootstrap contents is not supported"));
        }
        let options = wanted.options.clone().unwrap_or_default();
        let filter = Arc::new(Filter::new(options.id_query.as_ref(), &options.label_query)?);
        let (namespace, id) = (wanted.namespace.clone(), wanted.id.clone());
        let look = move |machine: &Machine| -> BTreeMap<String, api::Resource> {
            let items = all(machine, kind, &namespace).into_iter();
            let items = items.filter(|item| id.as_ref().map_or_else(|| filter.takes(&item.id), |id| *id == item.id));
            items.map(|item| (item.id.clone(), wire(machine, &item))).collect()
        };
        // Some resources tell of other machines.
        let changes = machine.room().changes();
        let seen = look(&machine);
        let mut begin = vec![api::WatchResponse::default()];
        if let Some(id) = &wanted.id {
            let tombstone = || api::Resource {
                metadata: Some(api::Metadata {
                    namespace: wanted.namespace.clone(),
                    r#type: wanted.r#type.clone(),
                    id: id.clone(),
                    version: "undefined".to_owned(),
                    phase: "running".to_owned(),
                    ..Default::default()
                }),
                spec: Some(api::Spec::default()),
            };
            begin.push(match seen.get(id) {
                Some(resource) => event(api::EventType::Created, Some(resource.clone())),
                None => event(api::EventType::Destroyed, Some(tombstone())),
            });
        } else if contents {
            begin.extend(seen.values().map(|resource| event(api::EventType::Created, Some(resource.clone()))));
            if wanted.api_version >= 1 {
                begin.push(event(api::EventType::Bootstrapped, None));
            }
        }
        let behind = machine.clone();
        let follow = stream::unfold((machine, changes, seen), move |(machine, mut changes, seen)| {
            let look = look.clone();
            async move {
                changes.changed().await.ok()?;
                let now = look(&machine);
                let items = differences(&seen, &now);
                Some((stream::iter(items), (machine, changes, now)))
            }
        });
        let all = stream::iter(begin.into_iter().map(Ok)).chain(follow.flatten()).boxed();
        Ok(Response::new(while_up(&self.here, &behind, all)))
    }

    async fn create(&self, request: Request<api::CreateRequest>) -> Result<Response<api::CreateResponse>, Status> {
        Err(read_only(&request))
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> Result<Response<api::UpdateResponse>, Status> {
        Err(read_only(&request))
    }

    async fn destroy(&self, request: Request<api::DestroyRequest>) -> Result<Response<api::DestroyResponse>, Status> {
        Err(read_only(&request))
    }
}

fn read_only<T>(request: &Request<T>) -> Status {
    let allowed = gate::peer(request).and_then(|peer| peer.check(Need::Admin));
    allowed.err().unwrap_or_else(|| Status::permission_denied("write access is not allowed"))
}

fn differences(
    before: &BTreeMap<String, api::Resource>,
    now: &BTreeMap<String, api::Resource>,
) -> Vec<Result<api::WatchResponse, Status>> {
    let mut events = Vec::new();
    for (id, resource) in now {
        match before.get(id) {
            None => events.push(Ok(event(api::EventType::Created, Some(resource.clone())))),
            Some(old) if old.spec != resource.spec => {
                let mut updated = event(api::EventType::Updated, Some(resource.clone()));
                updated.event[0].old = Some(old.clone());
                events.push(Ok(updated));
            }
            Some(_) => {}
        }
    }
    for (id, resource) in before {
        if !now.contains_key(id) {
            events.push(Ok(event(api::EventType::Destroyed, Some(resource.clone()))));
        }
    }
    events
}
