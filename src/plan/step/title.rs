//! Every step in words: a line of the plan, and of what is told while it goes on.
//!
//! Must not know: what came of the step.

use super::{Contexts, Manifests, Step, Unwritten};
use crate::plan::data::SnapshotSource;
use crate::plan::kubernetes::Leftover;
use crate::plan::upgrade::By;
use crate::types::VmId;

impl Step {
    /// What it does, in the imperative, for the plan and the progress lines.
    #[expect(clippy::too_many_lines, reason = "one line for each step: a table")]
    pub fn title(&self) -> String {
        match self {
            Self::ConfirmFacts => "confirm that nothing changed since the plan was made".to_owned(),
            Self::FetchImage { image } => format!(
                "fetch Talos {} ({})",
                image.version.tag(),
                &image.schematic.as_str()[..8.min(image.schematic.as_str().len())]
            ),
            Self::UploadImage { node, storage, file, .. } => format!("upload {file} to {storage} on {node}"),
            Self::PullImage { node, storage, file, .. } => format!("let {node} fetch {file} to {storage}"),
            Self::AllocateVolume { volume, .. } => format!("allocate {} on {}", volume.volume, volume.node),
            Self::StreamImage { volume, unwritten, .. } => match unwritten {
                Unwritten::Zeros => format!("write the image to {} on {}", volume.volume, volume.node),
                Unwritten::Garbage => format!("zero {} on {} and write the image to it", volume.volume, volume.node),
            },
            Self::FreeVolume { volume } => format!("free {} on {}", volume.volume, volume.node),
            Self::CreateTemplate { vm, .. } => {
                format!("create VM {} ({}) on {} from the image", vm.vmid, vm.name, vm.node)
            }
            Self::SealTemplate { vm, .. } => format!("seal template {} and read it back", vm.vmid),
            Self::PassTemplate { vm } => format!("mark template {} as one whose canary was right", vm.vmid),
            Self::RemoveUpload { node, storage, file } => format!("remove {file} from {storage} on {node}"),
            Self::CloneVm { template, vm, .. } => {
                format!("clone template {template} to VM {} ({}) on {}", vm.vmid, vm.name, vm.node)
            }
            Self::MigrateVm { vm, target } => format!("move VM {} ({}) from {} to {target}", vm.vmid, vm.name, vm.node),
            Self::SetFirewall { vm, rules, .. } => {
                format!("give VM {} ({}) its firewall, {} rule(s)", vm.vmid, vm.name, rules.len())
            }
            Self::AddHa { vm, care } => format!("put VM {} ({}) under HA, {}", vm.vmid, vm.name, care.state),
            Self::SetHardware { vm, .. } => format!("set the hardware of VM {} ({})", vm.vmid, vm.name),
            Self::GrowDisk { vm, disk, gib } => format!("grow {disk} of VM {} to {gib} GiB", vm.vmid),
            Self::StartVm { vm } => format!("start VM {} ({})", vm.vmid, vm.name),
            Self::FindMachine { vm, mac, .. } => format!("find the machine of VM {} by its MAC {mac}", vm.vmid),
            Self::ProveCanary { version, .. } => {
                format!("prove that the canary is Talos {} as the configs expect", version.tag())
            }
            Self::DeleteOurVm { vm } => format!("delete VM {} ({}), made by this run", vm.vmid, vm.name),
            Self::SaveBefore { .. } => {
                "save versions, members, configurations and readiness of the old cluster".to_owned()
            }
            Self::SaveSnapshot { purpose, .. } => format!("save etcd's {purpose} snapshot and prove it"),
            Self::CopySnapshot { to, .. } => format!("copy the snapshot to {to} and read it back"),
            Self::ConfirmProof { max_age, .. } => format!("confirm that the backup is younger than {max_age} s"),
            Self::ConfirmOld { .. } => "confirm that the old cluster is all there and sound".to_owned(),
            Self::IgnoreHa { resources, .. } if resources.is_empty() => {
                "confirm that HA leaves the old VMs alone".to_owned()
            }
            Self::IgnoreHa { resources, .. } => format!("make HA ignore {} old VM(s)", resources.len()),
            Self::RestoreHa { .. } => "wait until the old cluster is healthy again".to_owned(),
            Self::StopMajority { machines, .. } if machines.len() == 1 => "look at etcd's only member".to_owned(),
            Self::StopMajority { machines, .. } => {
                format!("shut down {} of {} control planes, etcd's leader stays", machines.len() - 1, machines.len())
            }
            Self::ShutdownKept { .. } => "shut down the last control plane".to_owned(),
            Self::StartOld { machines } => {
                format!("start {} again", list(&machines.iter().map(|machine| machine.vm.vmid).collect::<Vec<_>>()))
            }
            Self::ConfirmFrozen { .. } => {
                "confirm that no old VM was started or changed since the final snapshot".to_owned()
            }
            Self::ShutdownMachine { vm, .. } => format!("shut down VM {} ({})", vm.vmid, vm.name),
            Self::RetireVm { vm, .. } => format!("DELETE VM {} ({}) on {} with its disks", vm.vmid, vm.name, vm.node),
            Self::ConfirmGone { vmids } => format!("confirm on all nodes that {} is gone", list(vmids)),
            Self::ApplyConfig { machine, .. } => format!("apply the {} config to {}", machine.role, machine.name),
            Self::AwaitMachine { machine, version, .. } => {
                format!("wait for {machine} to come up with Talos {}", version.tag())
            }
            Self::BootstrapEtcd { machine, .. } => format!("bootstrap etcd on {machine}"),
            Self::RecoverEtcd { machine, snapshot: SnapshotSource::Step(_), .. } => {
                format!("recover etcd on {machine} from the final snapshot")
            }
            Self::RecoverEtcd { machine, snapshot: SnapshotSource::File { path, .. }, .. } => {
                format!("recover etcd on {machine} from {}", path.display())
            }
            Self::SaveAccess { machine, .. } => format!("fetch kubeconfig and talosconfig from {machine}"),
            Self::AwaitHealthy { .. } => "wait for Talos' health checks".to_owned(),
            Self::AwaitNodesReady { machines, steady, .. } => {
                format!("wait until {} Kubernetes node(s) are Ready for {steady} s", machines.len())
            }
            Self::RunHook { moment, command } => format!("run the hook {moment}: {command}"),
            Self::ApplyManifests { from: Manifests::Url(url) } => format!("apply {url}"),
            Self::ApplyManifests { from: Manifests::Files(files) } => {
                let names = files.iter().map(|file| file.path.display().to_string());
                format!("apply {}", names.collect::<Vec<_>>().join(", "))
            }
            Self::RunCommand { command } => format!("run {command}"),
            Self::ConfirmData { .. } => "confirm that the snapshot's data are back".to_owned(),
            Self::RemoveStale { .. } => "remove nodes and etcd members that are no machine of the profile".to_owned(),
            Self::ConfirmMachines { machines } => {
                format!("confirm version and extensions of {} machine(s)", machines.len())
            }
            Self::CompareWorkloads => "compare the workloads with those from before".to_owned(),
            Self::CleanContexts { which: Contexts::Superseded } => "clean old contexts from the kubeconfig".to_owned(),
            Self::CleanContexts { which: Contexts::All } => {
                "remove the cluster's contexts from kubeconfig and talosconfig".to_owned()
            }
            Self::CommitFiles { message, push } => {
                format!("commit{} profile and lock: {message}", if *push { " and push" } else { "" })
            }
            Self::InstallFlux { repo, path, .. } => format!("bootstrap Flux from {repo}, {path}"),
            Self::CompareTalosctl { version } => {
                format!("look whether this computer's talosctl is older than {version}")
            }
            Self::EditProfile { .. } => "write the new versions into the profile".to_owned(),
            Self::RestoreFiles { .. } => "put the profile and its lock back as they were".to_owned(),
            Self::WriteLock { .. } => "write the lock file".to_owned(),
            Self::OpenAccess { .. } => "fetch credentials for the Kubernetes API".to_owned(),
            Self::MeetMachine { machine, version } => format!("see {} run Talos {version}", machine.name),
            Self::ConfirmEtcd { .. } => "confirm that etcd is sound and its members have caught up".to_owned(),
            Self::PullInstaller { machine, release } => {
                format!("pull the installer of Talos {} onto {}", release.version, machine.name)
            }
            Self::WriteRelease { machine, release } => {
                format!("write Talos {} beside what {} runs", release.version, machine.name)
            }
            Self::UpgradeMachine { machine, from, release, .. } if *from == release.version => {
                format!("REBOOT {} into Talos {from} of another schematic", machine.name)
            }
            Self::UpgradeMachine { machine, from, release, .. } => {
                format!("REBOOT {} from Talos {from} into {}", machine.name, release.version)
            }
            Self::RollBackMachine { machine, from, release: Some(release), by, .. } => {
                let by = match by {
                    By::OtherSlot => "",
                    By::Installer => ", by its installer",
                };
                format!("REBOOT {} from Talos {from} back into {}{by}", machine.name, release.version)
            }
            Self::RollBackMachine { machine, from, release: None, .. } => {
                format!("REBOOT {} from Talos {from} back into what it ran before", machine.name)
            }
            Self::AwaitUpgraded { machine, steady, .. } => {
                format!("wait until {} is Ready for {steady} s and etcd is sound", machine.name)
            }
            Self::LockSchematics { .. } => "write the schematics into the lock file".to_owned(),
            Self::ForgetSchematics { .. } => "take the run's schematics out of the lock file".to_owned(),
            Self::CordonNode { machine } => format!("cordon {}", machine.name),
            Self::DrainNode { machine, leftover: Leftover::Stay, .. } => format!("drain {}", machine.name),
            Self::DrainNode { machine, leftover: Leftover::Delete, within } => {
                format!("drain {}, and delete what is left after {within} s", machine.name)
            }
            Self::UncordonNode { machine } => format!("uncordon {}", machine.name),
            Self::ConfirmKubernetes { from, to, .. } => format!("confirm that Kubernetes can go from {from} to {to}"),
            Self::PullImages { machine, images } => format!("pull {} image(s) onto {}", images.len(), machine.name),
            Self::SetStaticPod { machine, image, .. } | Self::SetKubelet { machine, image, .. } => {
                format!("move {} to {image}", machine.name)
            }
            Self::SetProxyImage { machine, image } => {
                format!("write {image} into the configuration of {}", machine.name)
            }
            Self::SyncManifests { machine, prune, .. } if prune.is_empty() => {
                format!("bring the bootstrap manifests to those of {}", machine.name)
            }
            Self::SyncManifests { machine, prune, .. } => format!(
                "bring the bootstrap manifests to those of {}, and DELETE what left them: {}",
                machine.name,
                prune.join(", ")
            ),
            Self::AwaitKubernetes { machines, version, steady } => {
                format!("wait until {} node(s) are Ready with {} for {steady} s", machines.len(), version.tag())
            }
        }
    }
}

fn list(vmids: &[VmId]) -> String {
    vmids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
