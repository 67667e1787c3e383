//! `machine.MachineService`: one method after the other, each by its rules.

use std::time::SystemTime;

use futures_util::stream::{self, StreamExt as _};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::body::Ended;
use super::gate::{self, Need};
use super::node::{Node, chunks, tag};
use super::proto::machine::machine_service_server::MachineService;
use super::proto::{common, machine as api};
use super::{access, apply, archive, containers, etcd, files, images, life, logs, netstat, pcap, stats, turn};
use crate::world::machine::{Machine, Service, State};

#[tonic::async_trait]
impl MachineService for Node {
    async fn apply_configuration(
        &self,
        request: Request<api::ApplyConfigurationRequest>,
    ) -> Result<Response<api::ApplyConfigurationResponse>, Status> {
        let peer = gate::peer(&request)?;
        let messages = if peer.maintenance {
            vec![apply::in_maintenance(&self.here, request.get_ref())?]
        } else {
            let wanted = request.get_ref();
            self.each_in_turn(&request, Need::Admin, |machine| apply::configured(machine, wanted.clone())).await?
        };
        Ok(Response::new(api::ApplyConfigurationResponse { messages }))
    }

    async fn bootstrap(
        &self,
        request: Request<api::BootstrapRequest>,
    ) -> Result<Response<api::BootstrapResponse>, Status> {
        let messages = self.each(&request, Need::Admin, |machine| etcd::bootstrap(machine, *request.get_ref()))?;
        Ok(Response::new(api::BootstrapResponse { messages }))
    }

    async fn version(&self, request: Request<()>) -> Result<Response<api::VersionResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(version(machine)))?;
        Ok(Response::new(api::VersionResponse { messages }))
    }

    async fn hostname(&self, request: Request<()>) -> Result<Response<api::HostnameResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| {
            Ok(api::Hostname { hostname: machine.see(State::hostname), ..Default::default() })
        })?;
        Ok(Response::new(api::HostnameResponse { messages }))
    }

    async fn reboot(&self, request: Request<api::RebootRequest>) -> Result<Response<api::RebootResponse>, Status> {
        let messages = self.each(&request, Need::Operate, |machine| Ok(life::reboot(machine, *request.get_ref())))?;
        Ok(Response::new(api::RebootResponse { messages }))
    }

    async fn shutdown(
        &self,
        request: Request<api::ShutdownRequest>,
    ) -> Result<Response<api::ShutdownResponse>, Status> {
        let messages = self.each(&request, Need::Operate, |machine| Ok(life::shutdown(machine, *request.get_ref())))?;
        Ok(Response::new(api::ShutdownResponse { messages }))
    }

    async fn reset(&self, request: Request<api::ResetRequest>) -> Result<Response<api::ResetResponse>, Status> {
        let messages = self.each(&request, Need::Admin, |machine| life::reset(machine, request.get_ref()))?;
        Ok(Response::new(api::ResetResponse { messages }))
    }

    async fn rollback(
        &self,
        request: Request<api::RollbackRequest>,
    ) -> Result<Response<api::RollbackResponse>, Status> {
        let messages = self.each(&request, Need::Admin, life::rollback)?;
        Ok(Response::new(api::RollbackResponse { messages }))
    }

    async fn upgrade(&self, request: Request<api::UpgradeRequest>) -> Result<Response<api::UpgradeResponse>, Status> {
        let wanted = request.get_ref();
        let messages =
            self.each_in_turn(&request, Need::Admin, |machine| life::upgrade(machine, wanted.clone())).await?;
        Ok(Response::new(api::UpgradeResponse { messages }))
    }

    async fn image_list(
        &self,
        request: Request<api::ImageListRequest>,
    ) -> Result<Response<BoxStream<api::ImageListResponse>>, Status> {
        let namespace = images::older_place(request.get_ref().namespace)?;
        self.stream(&request, Need::Read, |machine| {
            let items: Vec<_> = images::listed(machine, namespace)
                .into_iter()
                .map(|(name, pulled)| {
                    Ok(api::ImageListResponse {
                        metadata: None,
                        name,
                        digest: pulled.digest,
                        size: pulled.bytes,
                        created_at: Some(pulled.at.into()),
                    })
                })
                .collect();
            Ok(stream::iter(items).boxed())
        })
    }

    async fn image_pull(
        &self,
        request: Request<api::ImagePullRequest>,
    ) -> Result<Response<api::ImagePullResponse>, Status> {
        let namespace = images::older_place(request.get_ref().namespace)?;
        let reference = &request.get_ref().reference;
        let messages = self
            .each_in_turn(&request, Need::Operate, |machine| async move {
                images::pull(&machine, namespace, reference).await.map(|_| api::ImagePull::default())
            })
            .await?;
        Ok(Response::new(api::ImagePullResponse { messages }))
    }

    async fn service_list(&self, request: Request<()>) -> Result<Response<api::ServiceListResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| {
            let services = machine.see(|state| state.services.iter().map(|(id, one)| service(id, one)).collect());
            Ok(api::ServiceList { services, ..Default::default() })
        })?;
        Ok(Response::new(api::ServiceListResponse { messages }))
    }

    async fn events(&self, request: Request<api::EventsRequest>) -> Result<Response<BoxStream<api::Event>>, Status> {
        self.stream(&request, Need::Read, |machine| life::events(machine, request.get_ref()))
    }

    async fn etcd_member_list(
        &self,
        request: Request<api::EtcdMemberListRequest>,
    ) -> Result<Response<api::EtcdMemberListResponse>, Status> {
        let source = if request.get_ref().query_local { etcd::Source::Own } else { etcd::Source::Cluster };
        let messages = self.each(&request, Need::Backup, |machine| etcd::members(machine, source))?;
        Ok(Response::new(api::EtcdMemberListResponse { messages }))
    }

    async fn etcd_remove_member_by_id(
        &self,
        request: Request<api::EtcdRemoveMemberByIdRequest>,
    ) -> Result<Response<api::EtcdRemoveMemberByIdResponse>, Status> {
        let id = request.get_ref().member_id;
        let messages = self.each_in_turn(&request, Need::Admin, |machine| etcd::remove(machine, id)).await?;
        Ok(Response::new(api::EtcdRemoveMemberByIdResponse { messages }))
    }

    async fn etcd_forfeit_leadership(
        &self,
        request: Request<api::EtcdForfeitLeadershipRequest>,
    ) -> Result<Response<api::EtcdForfeitLeadershipResponse>, Status> {
        let messages = self.each_in_turn(&request, Need::Admin, etcd::forfeit).await?;
        Ok(Response::new(api::EtcdForfeitLeadershipResponse { messages }))
    }

    async fn etcd_status(&self, request: Request<()>) -> Result<Response<api::EtcdStatusResponse>, Status> {
        let messages = self.each_in_turn(&request, Need::Backup, etcd::status).await?;
        Ok(Response::new(api::EtcdStatusResponse { messages }))
    }

    async fn etcd_alarm_list(&self, request: Request<()>) -> Result<Response<api::EtcdAlarmListResponse>, Status> {
        let messages = self.each(&request, Need::Backup, etcd::alarm_list)?;
        Ok(Response::new(api::EtcdAlarmListResponse { messages }))
    }

    async fn etcd_alarm_disarm(&self, request: Request<()>) -> Result<Response<api::EtcdAlarmDisarmResponse>, Status> {
        let messages = self.each_in_turn(&request, Need::Operate, etcd::disarm).await?;
        Ok(Response::new(api::EtcdAlarmDisarmResponse { messages }))
    }

    async fn etcd_defragment(&self, request: Request<()>) -> Result<Response<api::EtcdDefragmentResponse>, Status> {
        // A database that is written anew for every reader has no holes.
        let messages = self.each(&request, Need::Operate, |machine| {
            etcd::membership(machine, "etcd defragment").map(|_| api::EtcdDefragment::default())
        })?;
        Ok(Response::new(api::EtcdDefragmentResponse { messages }))
    }

    async fn etcd_leave_cluster(
        &self,
        request: Request<api::EtcdLeaveClusterRequest>,
    ) -> Result<Response<api::EtcdLeaveClusterResponse>, Status> {
        let messages = self.each_in_turn(&request, Need::Admin, etcd::leave).await?;
        Ok(Response::new(api::EtcdLeaveClusterResponse { messages }))
    }

    async fn etcd_snapshot(
        &self,
        request: Request<api::EtcdSnapshotRequest>,
    ) -> Result<Response<BoxStream<common::Data>>, Status> {
        self.stream(&request, Need::Snapshot, |machine| Ok(chunks(&etcd::snapshot(machine)?)))
    }

    async fn etcd_recover(
        &self,
        request: Request<Streaming<common::Data>>,
    ) -> Result<Response<api::EtcdRecoverResponse>, Status> {
        self.allow(&request, Need::Admin)?;
        let mut targets = gate::targets(&self.here, &request)?;
        let target = targets.pop().filter(|_| targets.is_empty());
        let target =
            target.ok_or_else(|| Status::invalid_argument("one-2-many proxying is not supported for EtcdRecover"))?;
        let machine = target.machine.clone()?;
        let ended = request.extensions().get::<Ended>().cloned().unwrap_or_default();
        let answered = match etcd::begin_upload(&machine) {
            Ok(()) => received(request.into_inner(), &ended).await,
            Err(status) => Err(status),
        };
        let answered = answered.and_then(|snapshot| etcd::end_upload(&machine, &snapshot));
        Ok(Response::new(api::EtcdRecoverResponse { messages: vec![tag(&target, answered)?] }))
    }

    async fn copy(&self, request: Request<api::CopyRequest>) -> Result<Response<BoxStream<common::Data>>, Status> {
        self.stream(&request, Need::Admin, |machine| {
            let path = &request.get_ref().root_path;
            if !path.starts_with('/') {
                return Err(Status::unknown(format!("path is not absolute {path}")));
            }
            Ok(chunks(&archive::packed(&files::copied(machine, path)?)))
        })
    }

    async fn kubeconfig(&self, request: Request<()>) -> Result<Response<BoxStream<common::Data>>, Status> {
        self.stream(&request, Need::Admin, |machine| {
            let bytes = archive::kubeconfig(machine)?;
            // Talos sends it as one message.
            Ok(stream::once(async { Ok(common::Data { bytes, ..Default::default() }) }).boxed())
        })
    }

    async fn read(&self, request: Request<api::ReadRequest>) -> Result<Response<BoxStream<common::Data>>, Status> {
        self.stream(&request, Need::Admin, |machine| Ok(chunks(&files::read(machine, &request.get_ref().path)?)))
    }

    async fn dmesg(&self, request: Request<api::DmesgRequest>) -> Result<Response<BoxStream<common::Data>>, Status> {
        self.stream(&request, Need::Read, |machine| Ok(logs::dmesg(machine, *request.get_ref())))
    }

    async fn logs(&self, request: Request<api::LogsRequest>) -> Result<Response<BoxStream<common::Data>>, Status> {
        self.stream(&request, Need::Read, |machine| logs::logs(machine, request.get_ref()))
    }

    async fn list(&self, request: Request<api::ListRequest>) -> Result<Response<BoxStream<api::FileInfo>>, Status> {
        self.stream(&request, Need::Read, |machine| files::list(machine, request.get_ref()))
    }

    async fn disk_usage(
        &self,
        request: Request<api::DiskUsageRequest>,
    ) -> Result<Response<BoxStream<api::DiskUsageInfo>>, Status> {
        self.stream(&request, Need::Read, |machine| Ok(files::usage(machine, request.get_ref())))
    }

    async fn packet_capture(
        &self,
        request: Request<api::PacketCaptureRequest>,
    ) -> Result<Response<BoxStream<common::Data>>, Status> {
        self.stream(&request, Need::Operate, |machine| pcap::capture(machine, request.get_ref()))
    }

    async fn logs_containers(&self, request: Request<()>) -> Result<Response<api::LogsContainersResponse>, Status> {
        let messages = self
            .each(&request, Need::Read, |machine| Ok(api::LogsContainer { metadata: None, ids: logs::ids(machine) }))?;
        Ok(Response::new(api::LogsContainersResponse { messages }))
    }

    async fn memory(&self, request: Request<()>) -> Result<Response<api::MemoryResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::memory(machine)))?;
        Ok(Response::new(api::MemoryResponse { messages }))
    }

    async fn load_avg(&self, request: Request<()>) -> Result<Response<api::LoadAvgResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::load(machine)))?;
        Ok(Response::new(api::LoadAvgResponse { messages }))
    }

    async fn system_stat(&self, request: Request<()>) -> Result<Response<api::SystemStatResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::system(machine)))?;
        Ok(Response::new(api::SystemStatResponse { messages }))
    }

    async fn cpu_info(&self, request: Request<()>) -> Result<Response<api::CpuInfoResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::cpus(machine)))?;
        Ok(Response::new(api::CpuInfoResponse { messages }))
    }

    async fn disk_stats(&self, request: Request<()>) -> Result<Response<api::DiskStatsResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::disks(machine)))?;
        Ok(Response::new(api::DiskStatsResponse { messages }))
    }

    async fn network_device_stats(
        &self,
        request: Request<()>,
    ) -> Result<Response<api::NetworkDeviceStatsResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::network(machine)))?;
        Ok(Response::new(api::NetworkDeviceStatsResponse { messages }))
    }

    async fn netstat(&self, request: Request<api::NetstatRequest>) -> Result<Response<api::NetstatResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| netstat::netstat(machine, request.get_ref()))?;
        Ok(Response::new(api::NetstatResponse { messages }))
    }

    async fn mounts(&self, request: Request<()>) -> Result<Response<api::MountsResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::mounts(machine)))?;
        Ok(Response::new(api::MountsResponse { messages }))
    }

    async fn processes(&self, request: Request<()>) -> Result<Response<api::ProcessesResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| Ok(stats::processes(machine)))?;
        Ok(Response::new(api::ProcessesResponse { messages }))
    }

    async fn containers(
        &self,
        request: Request<api::ContainersRequest>,
    ) -> Result<Response<api::ContainersResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| containers::listed(machine, request.get_ref()))?;
        Ok(Response::new(api::ContainersResponse { messages }))
    }

    async fn stats(&self, request: Request<api::StatsRequest>) -> Result<Response<api::StatsResponse>, Status> {
        let messages = self.each(&request, Need::Read, |machine| containers::usage(machine, request.get_ref()))?;
        Ok(Response::new(api::StatsResponse { messages }))
    }

    async fn restart(&self, request: Request<api::RestartRequest>) -> Result<Response<api::RestartResponse>, Status> {
        let messages =
            self.each(&request, Need::Operate, |machine| turn::restart_container(machine, request.get_ref()))?;
        Ok(Response::new(api::RestartResponse { messages }))
    }

    async fn service_start(
        &self,
        request: Request<api::ServiceStartRequest>,
    ) -> Result<Response<api::ServiceStartResponse>, Status> {
        let messages = self.each(&request, Need::Operate, |machine| turn::start(machine, &request.get_ref().id))?;
        Ok(Response::new(api::ServiceStartResponse { messages }))
    }

    async fn service_stop(
        &self,
        request: Request<api::ServiceStopRequest>,
    ) -> Result<Response<api::ServiceStopResponse>, Status> {
        let messages = self.each(&request, Need::Operate, |machine| turn::stop(machine, &request.get_ref().id))?;
        Ok(Response::new(api::ServiceStopResponse { messages }))
    }

    async fn service_restart(
        &self,
        request: Request<api::ServiceRestartRequest>,
    ) -> Result<Response<api::ServiceRestartResponse>, Status> {
        let messages = self.each(&request, Need::Operate, |machine| turn::restart(machine, &request.get_ref().id))?;
        Ok(Response::new(api::ServiceRestartResponse { messages }))
    }

    async fn generate_client_configuration(
        &self,
        request: Request<api::GenerateClientConfigurationRequest>,
    ) -> Result<Response<api::GenerateClientConfigurationResponse>, Status> {
        let messages = self.each(&request, Need::Admin, |machine| access::generate(machine, request.get_ref()))?;
        Ok(Response::new(api::GenerateClientConfigurationResponse { messages }))
    }

    async fn meta_write(
        &self,
        request: Request<api::MetaWriteRequest>,
    ) -> Result<Response<api::MetaWriteResponse>, Status> {
        let messages = self.each(&request, Need::Meta, |machine| access::meta_write(machine, request.get_ref()))?;
        Ok(Response::new(api::MetaWriteResponse { messages }))
    }

    async fn meta_delete(
        &self,
        request: Request<api::MetaDeleteRequest>,
    ) -> Result<Response<api::MetaDeleteResponse>, Status> {
        let messages = self.each(&request, Need::Meta, |machine| access::meta_delete(machine, *request.get_ref()))?;
        Ok(Response::new(api::MetaDeleteResponse { messages }))
    }

    async fn etcd_downgrade_validate(
        &self,
        request: Request<api::EtcdDowngradeValidateRequest>,
    ) -> Result<Response<api::EtcdDowngradeValidateResponse>, Status> {
        let messages =
            self.each(&request, Need::Admin, |machine| etcd::downgrade_validate(machine, &request.get_ref().version))?;
        Ok(Response::new(api::EtcdDowngradeValidateResponse { messages }))
    }

    async fn etcd_downgrade_enable(
        &self,
        request: Request<api::EtcdDowngradeEnableRequest>,
    ) -> Result<Response<api::EtcdDowngradeEnableResponse>, Status> {
        let messages =
            self.each(&request, Need::Admin, |machine| etcd::downgrade_enable(machine, &request.get_ref().version))?;
        Ok(Response::new(api::EtcdDowngradeEnableResponse { messages }))
    }

    async fn etcd_downgrade_cancel(
        &self,
        request: Request<()>,
    ) -> Result<Response<api::EtcdDowngradeCancelResponse>, Status> {
        let messages = self.each(&request, Need::Admin, etcd::downgrade_cancel)?;
        Ok(Response::new(api::EtcdDowngradeCancelResponse { messages }))
    }
}

/// What is uploaded, if it arrives whole.
async fn received(mut parts: Streaming<common::Data>, ended: &Ended) -> Result<Vec<u8>, Status> {
    let mut whole = Vec::new();
    while let Some(part) = parts.message().await? {
        whole.extend(part.bytes);
    }
    if ended.cleanly() { Ok(whole) } else { Err(Status::cancelled("the upload was broken off")) }
}

fn version(machine: &Machine) -> api::Version {
    let (tag, configured) = machine.see(|state| (state.tag().to_owned(), state.config.is_some()));
    api::Version {
        metadata: None,
        version: Some(api::VersionInfo {
            tag,
            sha: "0123abcd".to_owned(),
            built: String::new(),
            go_version: "go1.26.1".to_owned(),
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
        }),
        platform: Some(api::PlatformInfo { name: "nocloud".to_owned(), mode: "cloud".to_owned() }),
        features: configured.then_some(api::FeaturesInfo { rbac: true }),
    }
}

fn service(id: &str, service: &Service) -> api::ServiceInfo {
    let events = service.events.iter().map(|(state, said, at)| api::ServiceEvent {
        msg: said.clone(),
        state: state.as_str().to_owned(),
        ts: Some((*at).into()),
    });
    let last = service.events.last().map_or_else(SystemTime::now, |(_, _, at)| *at);
    api::ServiceInfo {
        id: id.to_owned(),
        state: service.state.as_str().to_owned(),
        events: Some(api::ServiceEvents { events: events.collect() }),
        health: Some(api::ServiceHealth {
            unknown: service.healthy.is_none(),
            healthy: service.healthy == Some(true),
            last_message: String::new(),
            last_change: Some(last.into()),
        }),
    }
}
