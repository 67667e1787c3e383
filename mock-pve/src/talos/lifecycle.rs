//! `machine.LifecycleService`, since 1.13: writes boot files, and leaves everything else to its caller.

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::gate::Need;
use super::images;
use super::node::Node;
use super::proto::machine as api;
use super::proto::machine::lifecycle_service_install_progress::Response as Progress;
use super::proto::machine::lifecycle_service_server::LifecycleService;
use crate::world::machine::{Machine, State};

const SERVICE: &str = "machine.LifecycleService";
const BUSY: &str = "install";

/// Gives the machine free again, however the work ended.
struct Busy(Machine);

impl Busy {
    fn take(machine: &Machine) -> Result<Self, Status> {
        let taken = machine.update(|state| {
            let free = state.busy.is_none() && state.sequence.is_none();
            if free {
                state.busy = Some(BUSY);
            }
            free
        });
        if taken {
            return Ok(Self(machine.clone()));
        }
        Err(Status::failed_precondition("another installation/upgrade is already in progress"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.update(|state| {
            if state.busy == Some(BUSY) {
                state.busy = None;
            }
        });
    }
}

#[tonic::async_trait]
impl LifecycleService for Node {
    async fn install(
        &self,
        request: Request<api::LifecycleServiceInstallRequest>,
    ) -> Result<Response<BoxStream<api::LifecycleServiceInstallResponse>>, Status> {
        let machine = self.newer(&request, SERVICE, Need::Admin)?;
        source(request.get_ref().source.as_ref())?;
        images::place(request.get_ref().containerd.as_ref())?;
        let tag = machine.see(|state| state.tag().to_owned());
        // Every disk image is an installed machine.
        Err(Status::already_exists(format!("machine is already installed ({tag})")))
    }

    async fn upgrade(
        &self,
        request: Request<api::LifecycleServiceUpgradeRequest>,
    ) -> Result<Response<BoxStream<api::LifecycleServiceUpgradeResponse>>, Status> {
        let machine = self.newer(&request, SERVICE, Need::Admin)?;
        let name = source(request.get_ref().source.as_ref())?;
        let namespace = images::place(request.get_ref().containerd.as_ref())?;
        let busy = Busy::take(&machine)?;
        let failed = |why: String| Status::internal(format!("upgrade failed: {why}"));
        if machine.pulled(namespace, &name).is_none() {
            return Err(failed(format!("image \"{name}\" not found in containerd store")));
        }
        let recipe = machine.world().registry().installer(&name).map_err(|error| failed(error.to_string()))?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let send = move |response: Progress| {
            let progress = Some(api::LifecycleServiceInstallProgress { response: Some(response) });
            // The work goes on without anybody who listens.
            let _ = sender.send(Ok(api::LifecycleServiceUpgradeResponse { progress }));
        };
        tokio::spawn(async move {
            let busy = busy;
            let said = |line: &str| send(Progress::Message(format!("{line}\n")));
            let code = match busy.0.install(&recipe, said).await {
                Ok(()) => 0,
                Err(error) => {
                    send(Progress::Message(format!("{error}\n")));
                    error.exit_code(busy.0.see(State::version))
                }
            };
            drop(busy);
            send(Progress::ExitCode(code));
        });
        Ok(Response::new(UnboundedReceiverStream::new(receiver).boxed()))
    }
}

fn source(source: Option<&api::InstallArtifactsSource>) -> Result<String, Status> {
    let name = source.map(|source| source.image_name.clone()).unwrap_or_default();
    if name.is_empty() { Err(Status::invalid_argument("installer image name is required")) } else { Ok(name) }
}
