//! One machine's API: all its services, and how a call gets to the machines that it names.

use futures_util::stream::{self, StreamExt as _};
use tonic::codegen::BoxStream;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

use super::gate::{self, Need, Target};
use super::messages::Tagged;
use super::proto::cluster::cluster_service_server::ClusterServiceServer;
use super::proto::common;
use super::proto::cosi::resource::state_server::StateServer;
use super::proto::inspect::inspect_service_server::InspectServiceServer;
use super::proto::machine::image_service_server::ImageServiceServer;
use super::proto::machine::lifecycle_service_server::LifecycleServiceServer;
use super::proto::machine::machine_service_server::MachineServiceServer;
use super::proto::storage::storage_service_server::StorageServiceServer;
use super::proto::time::time_service_server::TimeServiceServer;
use crate::world::machine::{Api, Machine, MachineType, State};

/// Talos' limit on both sides.
const LARGEST: usize = 32 << 20;
/// Bytes of a message in a node's streams.
const CHUNK: usize = 1024;

/// The API of one machine.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) here: Machine,
}

/// All services of a machine.
pub(super) fn routes(machine: &Machine) -> Routes {
    let node = Node { here: machine.clone() };
    Routes::new(MachineServiceServer::new(node.clone()).max_decoding_message_size(LARGEST))
        .add_service(ClusterServiceServer::new(node.clone()))
        .add_service(StorageServiceServer::new(node.clone()))
        .add_service(ImageServiceServer::new(node.clone()).max_decoding_message_size(LARGEST))
        .add_service(LifecycleServiceServer::new(node.clone()))
        .add_service(InspectServiceServer::new(node.clone()))
        .add_service(TimeServiceServer::new(node.clone()))
        .add_service(StateServer::new(node))
        .prepare()
}

impl Node {
    /// Refuses callers without the role; in the maintenance mode before 1.13 nothing but the listed methods exists.
    pub(super) fn allow<T>(&self, request: &Request<T>, need: Need) -> Result<(), Status> {
        let peer = gate::peer(request)?;
        if peer.maintenance && !self.here.see(|state| state.version().full_maintenance_api()) {
            return Err(Status::unimplemented("API is not implemented in maintenance mode"));
        }
        peer.check(need)
    }

    /// Answers for every machine that the request names. Of several, a failure is part of the answer.
    pub(super) fn each<T, M: Tagged>(
        &self,
        request: &Request<T>,
        need: Need,
        answer: impl Fn(&Machine) -> Result<M, Status>,
    ) -> Result<Vec<M>, Status> {
        self.allow(request, need)?;
        let targets = gate::targets(&self.here, request)?.into_iter();
        targets
            .map(|target| {
                let answered = target.machine.clone().and_then(|machine| answer(&machine));
                tag(&target, answered)
            })
            .collect()
    }

    /// The same for answers that take time.
    pub(super) async fn each_in_turn<T, M: Tagged, F: Future<Output = Result<M, Status>>>(
        &self,
        request: &Request<T>,
        need: Need,
        answer: impl Fn(Machine) -> F,
    ) -> Result<Vec<M>, Status> {
        self.allow(request, need)?;
        let mut all = Vec::new();
        for target in gate::targets(&self.here, request)? {
            let answered = match target.machine.clone() {
                Ok(machine) => answer(machine).await,
                Err(status) => Err(status),
            };
            all.push(tag(&target, answered)?);
        }
        Ok(all)
    }

    /// The same for methods that stream.
    pub(super) fn stream<T, M: Tagged + Send + 'static>(
        &self,
        request: &Request<T>,
        need: Need,
        open: impl Fn(&Machine) -> Result<BoxStream<M>, Status>,
    ) -> Result<Response<BoxStream<M>>, Status> {
        self.allow(request, need)?;
        let mut all = Vec::new();
        for target in gate::targets(&self.here, request)? {
            let opened = target.machine.clone().and_then(|machine| Ok(while_up(&self.here, &machine, open(&machine)?)));
            match opened {
                Ok(stream) => {
                    let tagged = move |item: Result<M, Status>| match item {
                        Ok(mut message) => {
                            *message.metadata() = target.metadata(None);
                            Ok(message)
                        }
                        Err(status) => failed(&target, status),
                    };
                    all.push(stream.map(tagged).boxed());
                }
                Err(status) => {
                    let message = failed(&target, status)?;
                    all.push(stream::once(async { Ok(message) }).boxed());
                }
            }
        }
        Ok(Response::new(Box::pin(stream::select_all(all))))
    }
}

pub(super) fn tag<M: Tagged>(target: &Target, answered: Result<M, Status>) -> Result<M, Status> {
    match answered {
        Ok(mut message) => {
            *message.metadata() = target.metadata(None);
            Ok(message)
        }
        Err(status) => failed(target, status),
    }
}

/// A forwarded stream, which breaks when the machine behind it goes down. Without forwarding, the connection does.
pub(super) fn while_up<M: Send + 'static>(here: &Machine, machine: &Machine, stream: BoxStream<M>) -> BoxStream<M> {
    if here.vmid() == machine.vmid() {
        return stream;
    }
    let mut changes = machine.changes();
    let (machine, boot) = (machine.clone(), machine.see(|state| state.boot_id.clone()));
    let goes_down = async move {
        let is_up = || machine.see(|state| state.api != Api::Silent && state.boot_id == boot);
        while is_up() && changes.changed().await.is_ok() {}
        Status::unavailable("error reading from server: EOF")
    };
    let both = Some((stream, Box::pin(goes_down)));
    let next = |both| async move {
        let (mut stream, mut goes_down): (BoxStream<M>, _) = both?;
        tokio::select! {
            biased;
            item = stream.next() => Some((item?, Some((stream, goes_down)))),
            status = &mut goes_down => Some((Err(status), None)),
        }
    };
    stream::unfold(both, next).boxed()
}

fn failed<M: Tagged>(target: &Target, status: Status) -> Result<M, Status> {
    let Some(metadata) = target.metadata(Some(&status)) else { return Err(status) };
    let mut message = M::default();
    *message.metadata() = Some(metadata);
    Ok(message)
}

/// Refuses on machines that aren't control planes.
pub(super) fn control_plane(machine: &Machine, what: &str) -> Result<(), Status> {
    match machine.see(State::machine_type) {
        Some(MachineType::ControlPlane) => Ok(()),
        Some(MachineType::Worker) => {
            Err(Status::unimplemented(format!("{what} is only available on control plane nodes")))
        }
        None => Err(Status::unimplemented(format!("machine type is not set, cannot use {what} API"))),
    }
}

/// Bytes as a stream of messages of a node's size.
pub(super) fn chunks(bytes: &[u8]) -> BoxStream<common::Data> {
    let all: Vec<Result<common::Data, Status>> =
        bytes.chunks(CHUNK).map(|piece| Ok(common::Data { bytes: piece.to_vec(), ..Default::default() })).collect();
    stream::iter(all).boxed()
}
