//! Container images: `machine.ImageService` since 1.13, and the older calls for the same.

use futures_util::stream::{self, StreamExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::body::Ended;
use super::gate::{self, Need};
use super::node::Node;
use super::proto::common::{ContainerDriver, ContainerdInstance, ContainerdNamespace};
use super::proto::machine as api;
use super::proto::machine::image_service_server::ImageService;
use crate::world::machine::{Machine, Namespace, NoImage, PullError, Pulled, Reference};

/// Layers that a pull tells of.
const LAYERS: usize = 3;

/// Where images of an instance of containerd are kept.
pub(super) fn place(instance: Option<&ContainerdInstance>) -> Result<Namespace, Status> {
    let instance = instance.ok_or_else(|| Status::invalid_argument("containerd instance is required"))?;
    let driver = ContainerDriver::try_from(instance.driver)
        .map_err(|_| Status::invalid_argument(format!("unsupported driver {}", instance.driver)))?;
    match (driver, ContainerdNamespace::try_from(instance.namespace)) {
        (_, Ok(ContainerdNamespace::NsSystem)) => Ok(Namespace::System),
        (ContainerDriver::Cri, Ok(ContainerdNamespace::NsCri)) => Ok(Namespace::Cri),
        (ContainerDriver::Containerd, Ok(ContainerdNamespace::NsCri)) => {
            Err(Status::invalid_argument("CRI namespace is not supported for containerd driver"))
        }
        _ => Err(Status::invalid_argument("unsupported containerd namespace")),
    }
}

/// The same for the older calls, which name only the namespace.
pub(super) fn older_place(namespace: i32) -> Result<Namespace, Status> {
    match ContainerdNamespace::try_from(namespace) {
        Ok(ContainerdNamespace::NsSystem) => Ok(Namespace::System),
        Ok(ContainerdNamespace::NsCri) => Ok(Namespace::Cri),
        _ => Err(Status::invalid_argument(format!("unsupported namespace {namespace}"))),
    }
}

pub(super) fn listed(machine: &Machine, namespace: Namespace) -> Vec<(String, Pulled)> {
    machine.see(|state| {
        let mine = state.images.iter().filter(|((place, _), _)| *place == namespace.as_str());
        mine.map(|((_, name), pulled)| (name.clone(), pulled.clone())).collect()
    })
}

pub(super) async fn pull(machine: &Machine, namespace: Namespace, name: &str) -> Result<Pulled, Status> {
    machine.pull(namespace, name).await.map_err(|error| refusal(&error))
}

fn refusal(error: &PullError) -> Status {
    let text = format!("error pulling image: {error}");
    match error {
        PullError::NoImage(NoImage::Malformed { .. }) => Status::invalid_argument(text),
        PullError::NoImage(_) => Status::not_found(text),
        PullError::Silent(_) => Status::unavailable(text),
    }
}

impl Node {
    /// The machine that a call of a newer service goes to, if that has the service.
    pub(super) fn newer<T>(&self, request: &Request<T>, service: &str, need: Need) -> Result<Machine, Status> {
        if gate::peer(request)?.maintenance && !self.here.see(|state| state.version().full_maintenance_api()) {
            return Err(Status::unimplemented(format!("unknown service {service}")));
        }
        self.allow(request, need)?;
        let machine = gate::only(&self.here, request)?;
        if !machine.see(|state| state.version().has_lifecycle()) {
            return Err(Status::unimplemented(format!("unknown service {service}")));
        }
        Ok(machine)
    }
}

const SERVICE: &str = "machine.ImageService";

#[tonic::async_trait]
impl ImageService for Node {
    async fn list(
        &self,
        request: Request<api::ImageServiceListRequest>,
    ) -> Result<Response<BoxStream<api::ImageServiceListResponse>>, Status> {
        let machine = self.newer(&request, SERVICE, Need::Read)?;
        let namespace = place(request.get_ref().containerd.as_ref())?;
        let items: Vec<_> = listed(&machine, namespace)
            .into_iter()
            .map(|(name, pulled)| {
                Ok(api::ImageServiceListResponse {
                    name,
                    digest: pulled.digest,
                    size: pulled.bytes,
                    created_at: Some(pulled.at.into()),
                    labels: std::collections::HashMap::default(),
                })
            })
            .collect();
        Ok(Response::new(stream::iter(items).boxed()))
    }

    async fn pull(
        &self,
        request: Request<api::ImageServicePullRequest>,
    ) -> Result<Response<BoxStream<api::ImageServicePullResponse>>, Status> {
        let machine = self.newer(&request, SERVICE, Need::Operate)?;
        let api::ImageServicePullRequest { containerd, image_ref } = request.into_inner();
        let namespace = place(containerd.as_ref())?;
        if image_ref.is_empty() {
            return Err(Status::invalid_argument("image reference is required"));
        }
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let there = machine.pulled(namespace, &image_ref).is_some();
            let work = machine.pull(namespace, &image_ref);
            let result = tokio::select! {
                result = work => result,
                () = sender.closed() => return,
            };
            let answer = match result {
                Ok(pulled) => {
                    let fetched = if there { Vec::new() } else { progress(&pulled) };
                    for event in fetched {
                        let _ = sender.send(Ok(event));
                    }
                    let known = Reference::parse(&image_ref).map(|reference| reference.pinned());
                    let name = api::image_service_pull_response::Response::Name(known.unwrap_or(image_ref));
                    Ok(api::ImageServicePullResponse { response: Some(name) })
                }
                Err(error) => Err(refusal(&error)),
            };
            let _ = sender.send(answer);
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver).boxed()))
    }

    async fn import(
        &self,
        request: Request<Streaming<api::ImageServiceImportRequest>>,
    ) -> Result<Response<api::ImageServiceImportResponse>, Status> {
        use api::image_service_import_request::Request as Part;
        let machine = self.newer(&request, SERVICE, Need::Admin)?;
        let ended = request.extensions().get::<Ended>().cloned().unwrap_or_default();
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|part| part.request);
        let Some(Part::Containerd(instance)) = first else {
            return Err(Status::invalid_argument("the first message must contain the containerd instance"));
        };
        let namespace = place(Some(&instance))?;
        let mut head = Vec::new();
        let mut bytes = 0_usize;
        while let Some(part) = parts.message().await? {
            let Some(Part::ImageChunk(chunk)) = part.request else {
                return Err(Status::invalid_argument("unexpected message type"));
            };
            bytes += chunk.bytes.len();
            // The names stand in a small file of the archive; more than this is layers.
            if head.len() < 4 << 20 {
                head.extend(chunk.bytes);
            }
        }
        if !ended.cleanly() {
            return Err(Status::cancelled("the upload was broken off"));
        }
        let text = String::from_utf8_lossy(&head);
        let named = regex::Regex::new(r#""(?:RepoTags":\s*\[\s*"|io\.containerd\.image\.name":\s*")([^"]+)""#);
        let named = named.map_err(|error| Status::internal(error.to_string()))?;
        let name = named.captures(&text).and_then(|found| found.get(1)).map(|found| found.as_str().to_owned());
        let name = name.ok_or_else(|| {
            Status::invalid_argument(format!("failed to import image: no image in the archive of {bytes} bytes"))
        })?;
        machine.import_image(namespace, &name).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(api::ImageServiceImportResponse { name }))
    }

    async fn remove(&self, request: Request<api::ImageServiceRemoveRequest>) -> Result<Response<()>, Status> {
        let machine = self.newer(&request, SERVICE, Need::Admin)?;
        let api::ImageServiceRemoveRequest { containerd, image_ref } = request.into_inner();
        if machine.forget_image(place(containerd.as_ref())?, &image_ref) {
            return Ok(Response::new(()));
        }
        Err(Status::not_found(format!("image \"{image_ref}\": not found")))
    }
}

/// What a pull tells of the layers that it fetches.
fn progress(pulled: &Pulled) -> Vec<api::ImageServicePullResponse> {
    use api::image_service_pull_layer_progress::Status as Layer;
    let digits = pulled.digest.trim_start_matches("sha256:");
    let steps = [Layer::Downloading, Layer::DownloadComplete, Layer::Extracting, Layer::ExtractComplete];
    let total = pulled.bytes / i64::try_from(LAYERS).unwrap_or(1);
    let each = (0..LAYERS).flat_map(|layer| steps.map(|step| (layer, step)));
    each.map(|(layer, step)| {
        let offset = if step == Layer::Downloading { total / 2 } else { total };
        let status = api::ImageServicePullLayerProgress { status: step.into(), elapsed: None, offset, total };
        let layer_id = format!("sha256:{layer:02x}{}", digits.get(2..).unwrap_or_default());
        let progress = api::ImageServicePullProgress { layer_id, progress: Some(status) };
        let response = api::image_service_pull_response::Response::PullProgress(progress);
        api::ImageServicePullResponse { response: Some(response) }
    })
    .collect()
}
