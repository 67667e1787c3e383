//! Which function does which step: the compiler keeps this table whole.

use super::World;
use super::files::MadeFrom;
use super::finish::Source;
use super::freeze::HandBack;
use super::image::Target;
use super::machine::Expected;
use super::ours::Origin;
use super::pull::Pull;
use super::upgrade::Job;
use crate::engine::{Perform, Seen, StepCx, StepError};
use crate::plan::{Output, Planned, Step};
use crate::pve::vm::Forget;

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
            | Step::StreamImage { .. }
            | Step::WriteLock { .. }
            | Step::SaveBefore { .. }
            | Step::SaveSnapshot { .. }
            | Step::CopySnapshot { .. }
            | Step::ConfirmProof { .. }
            | Step::ConfirmOld { .. }
            | Step::IgnoreHa { .. }
            | Step::RestoreHa { .. }
            | Step::StopMajority { .. }
            | Step::StartOld { .. }
            | Step::ConfirmFrozen { .. }
            | Step::RunHook { .. }
            | Step::ApplyManifests { .. }
            | Step::RunCommand { .. }
            | Step::ConfirmData { .. }
            | Step::RemoveStale { .. }
            | Step::ConfirmMachines { .. }
            | Step::CompareTalosctl { .. }
            | Step::OpenAccess { .. }
            | Step::MeetMachine { .. }
            | Step::ConfirmEtcd { .. }
            | Step::PullInstaller { .. }
            | Step::WriteRelease { .. }
            | Step::AwaitUpgraded { .. }
            | Step::ConfirmKubernetes { .. }
            | Step::PullImages { .. }
            | Step::SyncManifests { .. }
            | Step::AwaitKubernetes { .. } => Ok(Seen::Missing),
            Step::UpgradeMachine { .. } | Step::RollBackMachine { .. } => match Job::of(&planned.step) {
                Some(job) => self.probe_upgraded(&job, cx).await,
                None => Ok(Seen::Missing),
            },
            Step::LockSchematics { schematics } => self.probe_schematics(schematics),
            Step::ForgetSchematics { schematics } => self.probe_forgotten(schematics),
            Step::CordonNode { machine } => self.probe_cordoned(machine, cx).await,
            Step::DrainNode { machine, .. } => self.probe_drained(machine).await,
            Step::UncordonNode { machine } => self.probe_uncordoned(machine).await,
            Step::SetStaticPod { machine, component, image } => self.probe_static_pod(machine, *component, image).await,
            Step::SetProxyImage { machine, image } => self.probe_proxy_image(machine, image).await,
            Step::SetKubelet { machine, image, version } => self.probe_kubelet(machine, image, version).await,
            Step::ShutdownKept { kept, machines, .. } => self.probe_kept_stopped(kept, machines, cx).await,
            Step::RecoverEtcd { at, snapshot, .. } => self.probe_recovered(at, snapshot, cx).await,
            Step::CompareWorkloads => self.probe_workloads(),
            Step::CleanContexts { which } => self.probe_contexts(*which),
            Step::CommitFiles { push, .. } => self.probe_commit(*push).await,
            Step::InstallFlux { .. } => self.probe_flux(cx).await,
            Step::AllocateVolume { fetched, volume } => self.probe_allocated(fetched, volume, cx).await,
            Step::FreeVolume { volume } => self.probe_freed(volume).await,
            Step::UploadImage { node, storage, file, .. } | Step::PullImage { node, storage, file, .. } => {
                self.probe_upload(Target { node, storage, file }, cx).await
            }
            Step::RemoveUpload { node, storage, file } => self.probe_removal(Target { node, storage, file }).await,
            Step::CreateTemplate { vm, .. } | Step::CloneVm { vm, .. } => {
                self.probe_made(&planned.step.title(), vm, cx).await
            }
            Step::PassTemplate { vm } => self.probe_passed(vm).await,
            Step::SealTemplate { vm, fingerprint } => self.probe_sealed(vm, *fingerprint, cx).await,
            Step::MigrateVm { vm, target } => self.probe_migrated(vm, target, cx).await,
            Step::SetFirewall { vm, options, rules } => self.probe_firewall(vm, options, rules).await,
            Step::AddHa { vm, care } => self.probe_ha(vm, care).await,
            Step::SetHardware { vm, set, delete } => self.probe_hardware(vm, set, delete).await,
            Step::GrowDisk { vm, disk, gib } => self.probe_size(vm, disk, *gib).await,
            Step::StartVm { vm } => self.probe_running(vm, cx).await,
            Step::DeleteOurVm { vm } => self.probe_deleted(vm, cx).await,
            Step::ShutdownMachine { vm, .. } => self.probe_stopped(vm, cx).await,
            Step::RetireVm { vm, .. } => self.probe_retired(vm, cx).await,
            Step::ApplyConfig { found, machine } => self.probe_applied(found, machine, cx).await,
            Step::BootstrapEtcd { at, .. } => self.probe_bootstrapped(at, cx).await,
            Step::EditProfile { set } => self.probe_profile(set),
            Step::RestoreFiles { from } => self.probe_restored_files(from),
        }
    }

    #[expect(clippy::too_many_lines, reason = "one table: which step does what")]
    async fn apply(&self, planned: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        match &planned.step {
            Step::ConfirmFacts => self.confirm_facts().await,
            Step::FetchImage { image } => self.fetch_image(image, cx).await,
            Step::UploadImage { fetched, node, storage, file } => {
                self.upload(fetched, Target { node, storage, file }, cx).await
            }
            Step::PullImage { image, fetched, node, storage, file, instead } => {
                let pull = Pull { image, fetched: fetched.as_ref(), instead: instead.as_ref() };
                self.pull(pull, Target { node, storage, file }, cx).await
            }
            Step::RemoveUpload { node, storage, file } => self.remove_upload(Target { node, storage, file }, cx).await,
            Step::AllocateVolume { fetched, volume } => self.allocate(fetched, volume, cx).await,
            Step::StreamImage { fetched, volume, unwritten } => {
                self.stream_image(fetched, volume, *unwritten, cx).await
            }
            Step::FreeVolume { volume } => self.free_volume(volume).await,
            Step::CreateTemplate { vm, hardware } => self.create_template(vm, hardware, cx).await,
            Step::PassTemplate { vm } => self.pass_template(vm).await,
            Step::SealTemplate { vm, fingerprint } => self.seal_template(vm, *fingerprint, cx).await,
            Step::CloneVm { template, from, vm, storage, pool } => {
                let source = Origin { template: *template, node: from.as_ref().unwrap_or(&vm.node), storage };
                self.clone_vm(source, vm, pool.as_deref(), cx).await
            }
            Step::MigrateVm { vm, target } => self.migrate_vm(vm, target, cx).await,
            Step::SetFirewall { vm, options, rules } => self.set_firewall(vm, options, rules).await,
            Step::AddHa { vm, care } => self.add_ha(vm, care).await,
            Step::SetHardware { vm, set, delete } => self.set_hardware(vm, set, delete).await,
            Step::GrowDisk { vm, disk, gib } => self.grow_disk(vm, disk, *gib, cx).await,
            Step::StartVm { vm } => self.start_vm(vm, cx).await,
            Step::FindMachine { vm, mac, discovery } => self.find_machine(vm, *mac, discovery, cx).await,
            Step::ProveCanary { found, version, schematic, install_disk, configs } => {
                self.prove_canary(found, Expected { version, schematic, install_disk, configs }, cx).await
            }
            Step::DeleteOurVm { vm } => self.delete_ours(vm, cx).await,
            Step::SaveBefore { machines } => self.save_before(machines, cx).await,
            Step::SaveSnapshot { purpose, from, dir, since } => {
                self.save_snapshot(*purpose, from, dir, since.as_ref(), cx).await
            }
            Step::CopySnapshot { snapshot, to } => self.copy_snapshot(snapshot, to, cx).await,
            Step::ConfirmProof { snapshot, max_age } => Self::confirm_proof(snapshot, *max_age, cx),
            Step::ConfirmOld { machines } => self.confirm_old(machines, cx).await,
            Step::IgnoreHa { resources, machines } => self.ignore_ha(resources, machines).await,
            Step::RestoreHa { resources, machines } => self.restore_ha(HandBack { resources, machines }, cx).await,
            Step::StopMajority { machines, grace, .. } => self.stop_majority(machines, *grace, cx).await,
            Step::ShutdownKept { kept, snapshot, machines, grace } => {
                self.shut_down_kept(kept, snapshot, machines, *grace, cx).await
            }
            Step::StartOld { machines } => self.start_old(machines, cx).await,
            Step::ConfirmFrozen { .. } => self.confirm_frozen(cx).await,
            Step::RecoverEtcd { machine, at, snapshot } => self.recover_etcd(machine, at, snapshot, cx).await,
            Step::ShutdownMachine { vm, address, grace } => self.shut_down(vm, *address, *grace, cx).await,
            Step::RetireVm { vm, purge } => {
                self.retire(vm, if *purge { Forget::References } else { Forget::Nothing }, cx).await
            }
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
            Step::RunHook { moment, command } => self.run_hook(*moment, command, cx).await,
            Step::ApplyManifests { from } => self.apply_manifests(from, cx).await,
            Step::RunCommand { command } => self.run_on_new_cluster(command, cx).await,
            Step::ConfirmData { restored } => self.confirm_data(restored, cx).await,
            Step::RemoveStale { at, controlplanes, machines } => {
                self.remove_stale(at, controlplanes, machines, cx).await
            }
            Step::ConfirmMachines { machines } => self.confirm_machines(machines, cx).await,
            Step::CompareWorkloads => self.compare_workloads(cx).await,
            Step::CleanContexts { which } => self.clean_contexts(*which),
            Step::CommitFiles { message, push } => self.commit_files(message, *push, cx).await,
            Step::InstallFlux { repo, path, branch, secrets } => {
                self.install_flux(Source { repo, path, branch: branch.as_deref(), secrets }, cx).await
            }
            Step::CompareTalosctl { version } => Ok(self.compare_talosctl(version, cx).await),
            Step::EditProfile { set } => self.edit_profile(set),
            Step::OpenAccess { controlplanes } => self.open_access(controlplanes).await,
            Step::MeetMachine { machine, version } => self.meet(machine, version).await,
            Step::ConfirmEtcd { control } => self.confirm_etcd(control, cx).await,
            Step::PullInstaller { machine, release } => self.pull_installer(machine, release, cx).await,
            Step::WriteRelease { machine, release } => self.write_release(machine, release, cx).await,
            Step::UpgradeMachine { .. } | Step::RollBackMachine { .. } => match Job::of(&planned.step) {
                Some(job) => self.upgrade_machine(&job, cx).await,
                None => Ok(Output::Nothing),
            },
            Step::AwaitUpgraded { machine, upgraded, control, steady } => {
                self.await_upgraded(machine, upgraded, control, *steady, cx).await
            }
            Step::LockSchematics { schematics } => self.lock_schematics(schematics),
            Step::ForgetSchematics { schematics } => self.forget_schematics(schematics),
            Step::CordonNode { machine } => self.cordon(machine, cx).await,
            Step::DrainNode { machine, within, leftover } => self.drain(machine, *within, *leftover, cx).await,
            Step::UncordonNode { machine } => self.uncordon(machine, cx).await,
            Step::ConfirmKubernetes { machines, from, to, runs } => {
                self.confirm_kubernetes(machines, from, to, *runs, cx).await
            }
            Step::PullImages { machine, images } => self.pull_images(machine, images, cx).await,
            Step::SetStaticPod { machine, component, image } => {
                self.set_static_pod(machine, *component, image, cx).await
            }
            Step::SetProxyImage { machine, image } => self.set_proxy_image(machine, image, cx).await,
            Step::SetKubelet { machine, image, version } => self.set_kubelet(machine, image, version, cx).await,
            Step::SyncManifests { machine, way, proxy, prune, expected: _ } => {
                self.sync_manifests(machine, *way, proxy, prune, cx).await
            }
            Step::AwaitKubernetes { machines, version, steady } => {
                self.await_kubernetes(machines, version, *steady, cx).await
            }
            Step::RestoreFiles { from } => self.restore_files(from),
            Step::WriteLock { fetched, image, templates, fingerprint, recipe } => {
                let made = MadeFrom { image, fetched: fetched.as_ref(), recipe: recipe.as_deref() };
                self.write_lock(made, templates, *fingerprint, cx)
            }
        }
    }

    async fn api_up(&self) -> Option<bool> {
        match &self.readyz {
            Some(readyz) => Some(readyz.is_up().await),
            None => None,
        }
    }

    fn requests(&self) -> u64 {
        self.pve.requests() + self.http.requests()
    }
}
