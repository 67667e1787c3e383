//! Which function does which step: the compiler keeps this table whole.

use super::World;
use super::image::Target;
use super::machine::Expected;
use crate::engine::{Perform, Seen, StepCx, StepError};
use crate::plan::{Output, Planned, Step};

impl Perform for World {
    async fn probe(&self, planned: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        match &planned.step {
            // These look and wait rather than change, or are as cheap as looking.
            Step::ConfirmFacts
            | Step::FetchImage { .. }
            | Step::FindMachine { .. }
            | Step::ProveCanary { .. }
            | Step::ConfirmGone { .. }
            | Step::AwaitMachine { .. }
            | Step::SaveAccess { .. }
            | Step::AwaitHealthy { .. }
            | Step::AwaitNodesReady { .. }
            | Step::WriteLock { .. } => Ok(Seen::Missing),
            Step::UploadImage { node, storage, file, .. } => {
                self.probe_upload(Target { node, storage, file }, cx).await
            }
            Step::RemoveUpload { node, storage, file } => self.probe_removal(Target { node, storage, file }).await,
            Step::CreateTemplate { vm, .. } | Step::CloneVm { vm, .. } => {
                self.probe_made(&planned.step.title(), vm, cx).await
            }
            Step::SealTemplate { vm, fingerprint } => self.probe_sealed(vm, *fingerprint, cx).await,
            Step::SetHardware { vm, set, delete } => self.probe_hardware(vm, set, delete).await,
            Step::GrowDisk { vm, disk, gib } => self.probe_size(vm, disk, *gib).await,
            Step::StartVm { vm } => self.probe_running(vm, cx).await,
            Step::DeleteOurVm { vm } => self.probe_deleted(vm, cx).await,
            Step::ShutdownMachine { vm, .. } => self.probe_stopped(vm, cx).await,
            Step::RetireVm { vm } => self.probe_retired(vm, cx).await,
            Step::ApplyConfig { found, machine } => self.probe_applied(found, machine, cx).await,
            Step::BootstrapEtcd { at, .. } => self.probe_bootstrapped(at, cx).await,
            Step::EditProfile { set } => self.probe_profile(set),
        }
    }

    async fn apply(&self, planned: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        match &planned.step {
            Step::ConfirmFacts => self.confirm_facts().await,
            Step::FetchImage { image } => self.fetch_image(image, cx).await,
            Step::UploadImage { fetched, node, storage, file } => {
                self.upload(fetched, Target { node, storage, file }, cx).await
            }
            Step::RemoveUpload { node, storage, file } => self.remove_upload(Target { node, storage, file }, cx).await,
            Step::CreateTemplate { vm, hardware } => self.create_template(vm, hardware, cx).await,
            Step::SealTemplate { vm, fingerprint } => self.seal_template(vm, *fingerprint, cx).await,
            Step::CloneVm { template, vm, storage, pool } => {
                self.clone_vm(*template, vm, storage, pool.as_deref(), cx).await
            }
            Step::SetHardware { vm, set, delete } => self.set_hardware(vm, set, delete).await,
            Step::GrowDisk { vm, disk, gib } => self.grow_disk(vm, disk, *gib, cx).await,
            Step::StartVm { vm } => self.start_vm(vm, cx).await,
            Step::FindMachine { vm, mac, discovery } => self.find_machine(vm, *mac, discovery, cx).await,
            Step::ProveCanary { found, version, schematic, install_disk, configs } => {
                self.prove_canary(found, Expected { version, schematic, install_disk, configs }, cx).await
            }
            Step::DeleteOurVm { vm } => self.delete_ours(vm, cx).await,
            Step::ShutdownMachine { vm, address, grace } => self.shut_down(vm, *address, *grace, cx).await,
            Step::RetireVm { vm } => self.retire(vm, cx).await,
            Step::ConfirmGone { vmids } => self.confirm_gone(vmids, cx).await,
            Step::ApplyConfig { found, machine } => self.apply_config(found, machine, cx).await,
            Step::AwaitMachine { machine, found, address, version } => {
                self.await_machine(machine, found, *address, version, cx).await
            }
            Step::BootstrapEtcd { machine, at } => self.bootstrap_etcd(machine, at, cx).await,
            Step::SaveAccess { machine, at } => self.save_access(machine, at, cx).await,
            Step::AwaitHealthy { controlplanes, workers } => self.await_healthy(controlplanes, workers, cx).await,
            Step::AwaitNodesReady { machines, kubernetes, steady } => {
                self.await_nodes_ready(machines, kubernetes, *steady, cx).await
            }
            Step::EditProfile { set } => self.edit_profile(set),
            Step::WriteLock { fetched, templates, fingerprint } => {
                self.write_lock(fetched, templates, *fingerprint, cx)
            }
        }
    }

    async fn api_up(&self) -> Option<bool> {
        match &self.readyz {
            Some(readyz) => Some(readyz.is_up().await),
            None => None,
        }
    }
}
