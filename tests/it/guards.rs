//! Steps that destroy, stop or overwrite refuse the wrong target, and leave it as it was.
//!
//! Each case plans a real rebuild, lets something happen to the world behind recast's back, and performs the one step.

use std::collections::BTreeMap;
use std::time::Duration;

use recast::cli::args::Wishes;
use recast::cli::carry_out::world;
use recast::cli::prepare::{DataWish, Order, prepare};
use recast::cli::session::Session;
use recast::engine::{Cancel, Class, Ended, RealClock, Retry, Run};
use recast::event::{Outcome, Unheard};
use recast::journal::{Journal, Opening};
use recast::net::Silent;
use recast::plan::step::OurVm;
use recast::plan::{Phase, Plan, Planned, Step, Undo, Verb};
use recast::pve::storage::{Upload, UploadKind};
use recast::pve::vm::{Change, VmRef, WaitingShutdown};
use recast::pve::{Upid, Wait};
use recast::types::{NodeName, StepId, StorageId, VmId};

use crate::site::{Double, Folder, KUBERNETES, TALOS, VM};

/// A rebuild that was planned, on a site where nothing has been done yet.
struct Scene {
    session: Session,
    plan: Plan,
    folder: Folder,
    double: Double,
}

/// The VM that the rebuild replaces.
fn old() -> VmRef {
    VmRef::new("pve1".into(), VmId(VM))
}

impl Scene {
    async fn new() -> Self {
        let folder = Folder::new();
        let double = Double::here(&folder, 100.0).await;
        let session = folder.session(double.site());
        let wishes = Wishes {
            to: Some(TALOS.parse().unwrap()),
            kubernetes: Some(KUBERNETES.parse().unwrap()),
            ..Wishes::default()
        };
        let order = Order { verb: Verb::Rebuild, wishes, data: DataWish::Fresh, back: None };
        let prepared = prepare(&session, &order, "2026-11-20T22-31-05".into(), jiff::Timestamp::now()).await;
        let prepared = prepared.unwrap_or_else(|stop| panic!("{stop:?}"));
        let plan = prepared.plan.unwrap_or_else(|| panic!("{:?}", prepared.findings));
        Self { session, plan, folder, double }
    }

    async fn finish(&self, upid: &Upid) {
        let wait = Wait { poll: Duration::from_millis(20), within: Duration::from_secs(20) };
        self.session.pve.wait(upid, wait).await.unwrap();
    }

    async fn stop(&self, vm: &VmRef) {
        let upid = self.session.pve.stop_vm(vm, WaitingShutdown::Respect).await.unwrap();
        self.finish(&upid).await;
    }

    async fn set(&self, vm: &VmRef, key: &str, value: &str) {
        let set = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        self.session.pve.change_vm_now(vm, &Change { set, ..Change::default() }).await.unwrap();
    }

    /// Performs one step of the plan, or one made up from it.
    async fn perform(&self, step: Step) -> Ended {
        let run = self.folder.path("run");
        std::fs::create_dir_all(&run).unwrap();
        let secrets = self.session.secrets(jiff::Timestamp::now()).unwrap();
        let world = world(&self.session, self.plan.clone(), secrets, &run).unwrap_or_else(|stop| panic!("{stop:?}"));
        let planned = Planned { id: StepId::new("guard/step"), step, after: Vec::new(), undo: Undo::Nothing };
        let phases = vec![Phase { name: "guard".to_owned(), steps: vec![planned], width: 1 }];
        let opening = Opening { run: self.plan.run.clone(), tool: "test".to_owned(), at: jiff::Timestamp::now() };
        let journal = Journal::in_memory(&phases, &opening).unwrap();
        let run = Run {
            id: &self.plan.run,
            cluster: "single",
            verb: "rebuild",
            phases: &phases,
            world: &world,
            clock: &RealClock::new(),
            events: &Unheard,
            cancel: &Cancel::new(),
            retry: Retry::default(),
        };
        run.carry_out(journal).await.unwrap()
    }

    /// The plan's own step that `wanted` picks.
    fn step(&self, wanted: impl Fn(&Step) -> bool) -> Step {
        self.plan.steps().find(|planned| wanted(&planned.step)).unwrap().step.clone()
    }

    fn retire(&self) -> Step {
        self.step(|step| matches!(step, Step::RetireVm { .. }))
    }

    fn shutdown(&self) -> Step {
        self.step(|step| matches!(step, Step::ShutdownMachine { .. }))
    }

    /// The step was refused with these words, and the old VM is there.
    async fn refused(&self, step: Step, words: &str) {
        let before: Vec<String> = self.destroyed();
        let ended = self.perform(step).await;
        assert_eq!(ended.outcome, Outcome::Refused, "{:?}", ended.failures);
        let failed = &ended.failures[0];
        assert_eq!(failed.class, Class::Refused);
        let told = format!("{:?}", failed.failure);
        assert!(told.contains(words), "{words:?} is not in {told}");
        assert!(self.session.pve.vm_config(&old()).await.is_ok(), "the VM is gone");
        assert_eq!(self.destroyed(), before, "something was destroyed");
    }

    fn destroyed(&self) -> Vec<String> {
        self.double
            .deeds()
            .iter()
            .filter(|deed| deed.what == "destroy")
            .map(|deed| format!("{:?}", deed.vmid))
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_vm_that_changed_since_the_plan_is_neither_stopped_nor_deleted() {
    let scene = Scene::new().await;
    let old = old();
    scene.refused(scene.retire(), "someone started it").await;
    for (key, value, back, words) in [
        ("name", "someone-elses", "single-cp-01", "its name is someone-elses"),
        ("tags", "talos;single;controlplane;prod", "talos;single;controlplane", "its list of tags is"),
        ("smbios1", "uuid=5f3f1d0e-0000-4000-8000-000000004711", "", "its SMBIOS UUID is"),
    ] {
        let was = scene.session.pve.vm_config(&old).await.unwrap().get(key).unwrap_or_default().to_owned();
        scene.set(&old, key, value).await;
        scene.refused(scene.shutdown(), words).await;
        scene.set(&old, key, if back.is_empty() { &was } else { back }).await;
    }
    scene.stop(&old).await;
    let added = BTreeMap::from([("scsi1".to_owned(), "local-lvm:1".to_owned())]);
    let upid = scene.session.pve.change_vm(&old, &Change { set: added, ..Change::default() }).await.unwrap();
    if let Some(upid) = upid {
        scene.finish(&upid).await;
    }
    scene.refused(scene.retire(), "it has a disk that was not there: scsi1").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_vm_that_became_a_template_is_not_deleted() {
    let scene = Scene::new().await;
    let old = old();
    scene.stop(&old).await;
    let upid = scene.session.pve.make_template(&old).await.unwrap();
    scene.finish(&upid).await;
    scene.refused(scene.retire(), "is a template by now").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_without_this_runs_mark_is_never_deleted_as_ours() {
    let scene = Scene::new().await;
    let mark = "recast: run=2026-11-20T22-31-05 step=canary/pve1/clone cluster=single".to_owned();
    let vm = OurVm { node: "pve1".into(), vmid: VmId(VM), name: "single-cp-01".to_owned(), mark };
    scene.refused(Step::DeleteOurVm { vm: vm.clone() }, "is not the one that this run made").await;
    let set = BTreeMap::from([("cores".to_owned(), "1".to_owned())]);
    scene
        .refused(Step::SetHardware { vm: vm.clone(), set, delete: Vec::new() }, "is not the one that this run made")
        .await;
    scene.refused(Step::GrowDisk { vm: vm.clone(), disk: "scsi0".to_owned(), gib: 64 }, "is not the one").await;
    scene
        .refused(
            Step::CloneVm { template: VmId(101), from: None, vm, storage: "local-lvm".into(), pool: None },
            "is not the one",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uploaded_file_of_somebody_else_is_never_removed() {
    let scene = Scene::new().await;
    let (node, storage) = (NodeName::new("pve1"), StorageId::new("local"));
    let upload = Upload {
        node: node.clone(),
        storage: storage.clone(),
        kind: UploadKind::Import,
        file: "talos-of-someone.raw".to_owned(),
        size: 512,
        sha256: None,
    };
    let bytes = futures_util::stream::iter([Ok(bytes::Bytes::from_static(&[0; 512]))]);
    let upid = scene.session.pve.upload(&upload, bytes, &Silent).await.unwrap();
    scene.finish(&upid).await;
    scene
        .refused(
            Step::RemoveUpload { node: node.clone(), storage: storage.clone(), file: upload.file.clone() },
            "does not carry this run's id",
        )
        .await;
    let held = scene.session.pve.volumes(&node, &storage, Some("import"), None).await.unwrap();
    assert!(held.iter().any(|volume| volume.volid == upload.volume()), "it was removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_drifted_since_the_plan_is_named_before_the_first_change() {
    let scene = Scene::new().await;
    scene.set(&old(), "name", "renamed").await;
    scene.refused(Step::ConfirmFacts, "its name is renamed, and was single-cp-01").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_right_vm_is_shut_down_and_deleted() {
    let scene = Scene::new().await;
    let ended = scene.perform(scene.shutdown()).await;
    assert_eq!(ended.outcome, Outcome::Done, "{:?}", ended.failures);
    let ended = scene.perform(scene.retire()).await;
    assert_eq!(ended.outcome, Outcome::Done, "{:?}", ended.failures);
    assert_eq!(scene.destroyed(), [format!("{:?}", Some(VM))]);
    // A second time there is nothing left to do, and nothing else is touched.
    let ended = scene.perform(scene.retire()).await;
    assert_eq!(ended.outcome, Outcome::Done, "{:?}", ended.failures);
    assert_eq!(scene.destroyed().len(), 1);
}
