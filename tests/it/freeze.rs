//! The freeze against a double with three control planes: not one acknowledged write is lost, whatever happens to the
//! old cluster meanwhile, and what can't be frozen is given back.
//!
//! A writer keeps on making `ConfigMaps` through the Kubernetes API while a rebuild goes on. What it was told to be there
//! must be there in the end, in the old cluster or in the new one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mock_pve::etcd::Lag;
use tokio::sync::Mutex;

use recast::cli::args::Wishes;
use recast::cli::carry_out;
use recast::cli::prepare::{DataWish, Order, prepare};
use recast::cli::session::Session;
use recast::engine::{Cancel, Class, Ended, Outcome, Perform, RealClock, Retry, Run, Seen, StepCx, StepError};
use recast::event::Unheard;
use recast::journal::{Entry, Journal, Memory, Opening, StateDir};
use recast::k8s::{Client, apply::Applier, manifest};
use recast::plan::{Output, Plan, Planned, Verb};
use recast::pve::ha::HaOrder;
use recast::pve::vm::{Change, VmRef};
use recast::pve::{Upid, Wait};
use recast::steps::World;
use recast::talos::client::Machine;
use recast::talos::client::health::Question;
use recast::types::{Sha256, VmId};

use crate::site::{Double, Folder, KUBERNETES, TALOS};

/// Three control planes and a worker on one PVE node.
const TRIO: &str = "
name: single
type: talos
talos:
  version: '1.12.4'
  kubernetes_version: '1.34.1'
  config_dir: single
  secrets_file: secrets.yaml
  factory:
    schematic_id: ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515
    extensions: [siderolabs/qemu-guest-agent]
network:
  api_endpoint: 192.168.178.41:6443
  gateway: 192.168.178.1
  prefix: 24
  nameservers: [192.168.178.1]
  pod_cidr: 10.244.0.0/16
  service_cidr: 10.96.0.0/12
nodes:
  controlplane:
    count: 3
    name_prefix: single-cp-
    cores: 2
    memory: 4096
    disk: 32G
    assignments:
      - {name: single-cp-01, node: pve1, vmid: 1100, ip: 192.168.178.41}
      - {name: single-cp-02, node: pve1, vmid: 1101, ip: 192.168.178.42}
      - {name: single-cp-03, node: pve1, vmid: 1102, ip: 192.168.178.43}
  workers:
    count: 1
    name_prefix: single-worker-
    cores: 2
    memory: 4096
    disk: 32G
    assignments:
      - {name: single-worker-01, node: pve1, vmid: 1110, ip: 192.168.178.51}
template: 101
tags: [talos, single]
steady: 1s
";

/// The VMs of the old cluster.
const OLD: [u32; 4] = [1100, 1101, 1102, 1110];

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 100.0;

/// A run that takes longer waits for something that never comes.
const TOO_LONG: Duration = Duration::from_mins(5);

struct Scene {
    // First, so that it writes nothing any more when its folder goes.
    double: Double,
    _folder: Folder,
    session: Session,
    plan: Plan,
    run: PathBuf,
    log: Memory,
    /// The names of `ConfigMaps` that the API said to be there.
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    over: Arc<AtomicBool>,
}

impl Scene {
    async fn new() -> Self {
        let folder = Folder::new();
        fs::write(folder.profile(), TRIO).unwrap();
        let double = Double::here(&folder, TIME_SCALE).await;
        let session = folder.session(double.site());
        let now = Timestamp::now();
        let state = StateDir::new(&folder.state(), "single");
        let wishes = Wishes {
            to: Some(TALOS.parse().unwrap()),
            kubernetes: Some(KUBERNETES.parse().unwrap()),
            ..Wishes::default()
        };
        let order = Order { verb: Verb::Rebuild, wishes, data: DataWish::Keep, back: None };
        let prepared = prepare(&session, &order, state.new_run_id(now), now).await;
        let prepared = prepared.unwrap_or_else(|stop| panic!("{stop:?}"));
        let plan = prepared.plan.unwrap_or_else(|| panic!("{:#?}", prepared.findings));
        let run = state.run(&plan.run);
        run.make().unwrap();
        let run = run.path().to_owned();
        let (acknowledged, over) = (Arc::default(), Arc::default());
        Self { double, _folder: folder, session, plan, run, log: Memory::default(), acknowledged, over }
    }

    fn machine(&self, address: &str) -> Machine {
        let secrets = self.session.secrets(Timestamp::now()).unwrap();
        let access = carry_out::access(&secrets, Timestamp::now()).unwrap();
        Machine::new(&self.session.connector, address, &access, Duration::from_secs(10)).unwrap()
    }

    async fn api(&self) -> Client {
        let kubeconfig = self.machine("192.168.178.41").kubeconfig().await.unwrap();
        Client::new(&self.session.connector, &kubeconfig).unwrap()
    }

    /// Makes one `ConfigMap` after another until the scene is over.
    async fn write(&self) {
        let client = self.api().await;
        for number in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let name = format!("write-{number:05}");
            let text = format!(
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{n: '{number}'}}\n"
            );
            let map = manifest::parse(&text).unwrap().remove(0);
            let applied = tokio::time::timeout(Duration::from_secs(2), Applier::new(&client).apply(&map)).await;
            if matches!(applied, Ok(Ok(()))) {
                self.acknowledged.lock().await.insert(name);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// One process of the run, with its writer.
    async fn live(&self, trouble: Trouble) -> Ended {
        let opening = Opening { run: self.plan.run.clone(), tool: "recast test".to_owned(), at: Timestamp::now() };
        let (path, digest) = (PathBuf::from("(memory)"), Sha256::of(b"the plan"));
        let log = Box::new(self.log.clone());
        let journal = Journal::over(path, log, self.log.records(), digest, &self.plan.phases, &opening).unwrap();
        let secrets = self.session.secrets(Timestamp::now()).unwrap();
        let world = carry_out::world(&self.session, self.plan.clone(), secrets, &self.run);
        let world = Troubled {
            world: world.unwrap_or_else(|stop| panic!("{stop:?}")),
            scene: self,
            trouble: RefCell::new(Some(trouble)),
        };
        let run = Run {
            id: &self.plan.run,
            cluster: &self.plan.cluster,
            verb: "rebuild",
            phases: &self.plan.phases,
            world: &world,
            clock: &RealClock::new(),
            events: &Unheard,
            cancel: &Cancel::new(),
            retry: Retry { first: Duration::from_millis(50), ..Retry::default() },
        };
        let ended = tokio::time::timeout(TOO_LONG, run.carry_out(journal)).await;
        ended.unwrap_or_else(|_| panic!("it hangs: {}", self.story())).unwrap()
    }

    /// The run from its begin, while somebody writes.
    async fn rebuild(&self, trouble: Trouble) -> Ended {
        let done = async {
            let ended = self.live(trouble).await;
            self.over.store(true, Ordering::SeqCst);
            ended
        };
        tokio::join!(done, self.write()).0
    }

    fn story(&self) -> String {
        let told = self.log.records();
        told.iter().map(|record| serde_json::to_string(record).unwrap()).collect::<Vec<_>>().join("\n")
    }

    fn count(&self, is: fn(&Entry) -> bool) -> usize {
        self.log.records().iter().filter(|record| is(&record.entry)).count()
    }

    fn reopened(&self) -> usize {
        self.count(|entry| matches!(entry, Entry::Reopened { .. }))
    }

    /// Every write that was acknowledged is there now.
    async fn assert_nothing_lost(&self) {
        let acknowledged = self.acknowledged.lock().await.clone();
        assert!(acknowledged.len() > 10, "the writer wrote {} times only", acknowledged.len());
        let client = self.api().await;
        let mut lost = Vec::new();
        for name in &acknowledged {
            if !client.exists(&format!("/api/v1/namespaces/default/configmaps/{name}")).await.unwrap() {
                lost.push(name);
            }
        }
        assert!(lost.is_empty(), "of {} writes these are lost: {lost:?}\n{}", acknowledged.len(), self.story());
    }

    /// The old cluster runs, is whole, and Talos calls it healthy.
    async fn assert_given_back(&self) {
        for vmid in OLD {
            let status = self.session.pve.vm_status(&vm(vmid)).await.unwrap();
            assert!(status.is_running(), "VM {vmid} is {}: {}", status.status, self.story());
        }
        let question = Question {
            control_planes: ["41", "42", "43"].map(|host| format!("192.168.178.{host}")).into(),
            workers: vec!["192.168.178.51".to_owned()],
            within: Duration::from_mins(1),
        };
        self.machine("192.168.178.42").check_health(&question, |_| ()).await.unwrap();
        let release = self.machine("192.168.178.41").release().await.unwrap();
        assert_eq!(release.version.to_string(), "1.12.4", "it is the old one");
        self.assert_nothing_destroyed();
    }

    fn destroyed(&self) -> Vec<u32> {
        let deeds = self.double.deeds();
        deeds.iter().filter(|deed| deed.what == "destroy").filter_map(|deed| deed.vmid).collect()
    }

    fn assert_nothing_destroyed(&self) {
        assert!(!self.destroyed().iter().any(|vmid| OLD.contains(vmid)), "{:?}", self.destroyed());
    }

    async fn assert_rebuilt(&self, ended: &Ended) {
        assert_eq!(ended.outcome, Outcome::Done, "{:#?}\n{}", ended.failures, self.story());
        let release = self.machine("192.168.178.43").release().await.unwrap();
        assert_eq!(release.version.to_string(), TALOS);
        self.assert_nothing_lost().await;
    }

    async fn finish(&self, upid: &Upid) {
        let wait = Wait { poll: Duration::from_millis(20), within: Duration::from_secs(20) };
        self.session.pve.wait(upid, wait).await.unwrap();
    }

    async fn start(&self, vmid: u32) {
        let upid = self.session.pve.start_vm(&vm(vmid)).await.unwrap();
        self.finish(&upid).await;
    }

    async fn attach_disk(&self, vmid: u32) {
        let set = [("scsi3".to_owned(), "local-lvm:1".to_owned())].into();
        let upid = self.session.pve.change_vm(&vm(vmid), &Change { set, ..Change::default() }).await;
        if let Some(upid) = upid.unwrap() {
            self.finish(&upid).await;
        }
    }
}

fn vm(vmid: u32) -> VmRef {
    VmRef::new("pve1".into(), VmId(vmid))
}

/// What happens to a run, once.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Nothing,
    /// This step fails although its effect came true.
    Fails(&'static str),
    /// Somebody starts this VM right before this step looks.
    Starts(&'static str, u32),
    /// Somebody attaches a disk to this VM right before this step looks.
    Attaches(&'static str, u32),
    /// Somebody starts this VM once that one is gone, before this step looks.
    StartsAfter(&'static str, u32, u32),
    /// Leadership is handed on all the time while this step goes on.
    Elections(&'static str),
    /// Somebody starts control planes that are stopped, that often, while this step goes on.
    Restarts(&'static str, u32),
    /// Somebody hands this VM to the HA manager, which starts it again and again, right before this step looks.
    Manages(&'static str, u32),
    /// A follower hears of and applies everything that many seconds of the double's late, from this step on.
    Lags(&'static str, f64),
}

struct Troubled<'a> {
    world: World,
    scene: &'a Scene,
    trouble: RefCell<Option<Trouble>>,
}

impl Troubled<'_> {
    fn take(&self, wanted: impl Fn(Trouble) -> bool) -> Option<Trouble> {
        let mut trouble = self.trouble.borrow_mut();
        if trouble.is_some_and(wanted) { trouble.take() } else { None }
    }

    /// Hands leadership on as often as the machines allow, for a while.
    async fn elections(&self) {
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(4) {
            for host in ["41", "42", "43"] {
                let machine = self.scene.machine(&format!("192.168.178.{host}")).waiting(Duration::from_millis(500));
                let _handed = machine.etcd_forfeit_leadership().await;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        std::future::pending::<()>().await;
    }

    async fn restarts(&self, times: u32) {
        let mut left = times;
        while left > 0 {
            for vmid in [1100, 1101, 1102] {
                let status = self.scene.session.pve.vm_status(&vm(vmid)).await;
                if left > 0 && status.is_ok_and(|status| status.is_stopped()) {
                    left -= 1;
                    let _started = self.scene.session.pve.start_vm(&vm(vmid)).await;
                    tokio::time::sleep(Duration::from_millis(400)).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::future::pending::<()>().await;
    }
}

impl Perform for Troubled<'_> {
    async fn probe(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Seen, StepError> {
        let id = step.id.as_str();
        let due = |trouble| match trouble {
            Trouble::Starts(at, _)
            | Trouble::Attaches(at, _)
            | Trouble::StartsAfter(at, ..)
            | Trouble::Manages(at, _)
            | Trouble::Lags(at, _) => at == id,
            _ => false,
        };
        match self.take(due) {
            Some(Trouble::Starts(_, vmid)) => self.scene.start(vmid).await,
            Some(Trouble::Attaches(_, vmid)) => self.scene.attach_disk(vmid).await,
            Some(Trouble::Manages(_, vmid)) => {
                let order = HaOrder { state: "started".to_owned(), ..HaOrder::default() };
                self.scene.session.pve.add_ha(VmId(vmid), &order).await.unwrap();
            }
            Some(Trouble::Lags(_, seconds)) => {
                let etcd = self.scene.double.world().etcds().remove(0);
                let leader = etcd.leader();
                let follower = etcd.running().into_iter().find(|id| Some(*id) != leader).unwrap();
                etcd.lag(follower, Lag { receive: seconds, apply: seconds });
            }
            Some(Trouble::StartsAfter(_, gone, vmid)) => {
                while self.scene.session.pve.vm_config(&vm(gone)).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                self.scene.start(vmid).await;
            }
            _ => {}
        }
        self.world.probe(step, cx).await
    }

    async fn apply(&self, step: &Planned, cx: &StepCx<'_>) -> Result<Output, StepError> {
        let id = step.id.as_str();
        let disturb =
            self.take(|trouble| matches!(trouble, Trouble::Elections(at) | Trouble::Restarts(at, _) if at == id));
        let done = match disturb {
            Some(Trouble::Elections(_)) => tokio::select! {
                done = self.world.apply(step, cx) => done,
                () = self.elections() => unreachable!(),
            },
            Some(Trouble::Restarts(_, times)) => tokio::select! {
                done = self.world.apply(step, cx) => done,
                () = self.restarts(times) => unreachable!(),
            },
            _ => self.world.apply(step, cx).await,
        };
        if self.take(|trouble| matches!(trouble, Trouble::Fails(at) if at == id)).is_some() {
            return Err(StepError::new(Class::Permanent, format!("do {id}"), "the test wants it"));
        }
        done
    }

    async fn api_up(&self) -> Option<bool> {
        self.world.api_up().await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_is_in_the_new_cluster() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Nothing).await;
    scene.assert_rebuilt(&ended).await;
    assert_eq!(scene.reopened(), 0);
    let outputs = ended.journal.state().outputs().clone();
    let Some(Output::Snapshot { revision: first, .. }) = outputs.get(&"backup/snapshot".into()) else { panic!() };
    let Some(Output::Snapshot { revision: last, file, .. }) = outputs.get(&"freeze/snapshot".into()) else { panic!() };
    assert!(last >= first, "{last} {first}");
    assert!(file.is_file());
    let Some(Output::Restored { revision, .. }) = outputs.get(&"bootstrap/etcd".into()) else { panic!() };
    assert_eq!(revision, last);
    for name in ["members.json", "nodes.json", "workloads.json", "versions.json", "machines/single-cp-01.yaml"] {
        let path = scene.run.join("before").join(name);
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "{}", path.display());
    }
}

/// A freeze that fails at this step gives the old cluster back and can be done again.
async fn fails_and_is_done_again(step: &'static str) {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Fails(step)).await;
    assert_eq!(ended.outcome, Outcome::Failed, "{:#?}\n{}", ended.failures, scene.story());
    scene.assert_given_back().await;
    scene.assert_nothing_lost().await;
    scene.over.store(false, Ordering::SeqCst);
    let ended = scene.rebuild(Trouble::Nothing).await;
    scene.assert_rebuilt(&ended).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_ha_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/ha").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_a_worker_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/single-worker-01/shutdown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_without_quorum_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/majority").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_its_snapshot_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/snapshot").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_that_fails_at_the_last_machine_gives_the_old_cluster_back_and_can_be_done_again() {
    fails_and_is_done_again("freeze/kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_machine_that_was_started_after_the_freeze_is_frozen_again() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Starts("retire/frozen", 1101)).await;
    scene.assert_rebuilt(&ended).await;
    assert_eq!(scene.reopened(), 1, "{}", scene.story());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_attached_after_the_freeze_is_never_destroyed() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Attaches("retire/frozen", 1102)).await;
    assert_eq!(ended.outcome, Outcome::Refused, "{:#?}\n{}", ended.failures, scene.story());
    assert!(format!("{:?}", ended.failures).contains("scsi3"), "{:?}", ended.failures);
    scene.assert_given_back().await;
    scene.assert_nothing_lost().await;
}

/// A run that froze the old cluster and stopped right before it deletes anything.
async fn stopped_when_frozen() -> Scene {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Fails("retire/frozen")).await;
    assert_eq!(ended.outcome, Outcome::Failed, "{:#?}\n{}", ended.failures, scene.story());
    for vmid in OLD {
        let status = scene.session.pve.vm_status(&vm(vmid)).await.unwrap();
        assert!(status.is_stopped(), "VM {vmid} is {}: {}", status.status, scene.story());
    }
    scene.assert_nothing_destroyed();
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_machine_that_was_started_before_a_resume_is_frozen_again() {
    let scene = stopped_when_frozen().await;
    scene.start(1101).await;
    let ended = scene.live(Trouble::Nothing).await;
    scene.assert_rebuilt(&ended).await;
    assert_eq!(scene.reopened(), 1, "{}", scene.story());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_was_attached_before_a_resume_is_never_destroyed() {
    let scene = stopped_when_frozen().await;
    scene.attach_disk(1102).await;
    let ended = scene.live(Trouble::Nothing).await;
    assert_eq!(ended.outcome, Outcome::Refused, "{:#?}\n{}", ended.failures, scene.story());
    assert!(format!("{:?}", ended.failures).contains("scsi3"), "{:?}", ended.failures);
    scene.assert_given_back().await;
    scene.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_something_is_deleted_a_started_machine_ends_the_run() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::StartsAfter("retire/single-cp-03/delete", 1100, 1102)).await;
    assert_eq!(ended.outcome, Outcome::Refused, "{:#?}\n{}", ended.failures, scene.story());
    let told = format!("{:?}", ended.failures);
    assert!(told.contains("deleted already") && told.contains("the final snapshot is"), "{told}");
    assert_eq!(scene.reopened(), 0);
    assert!(!scene.destroyed().contains(&1102));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_changes_all_the_time_is_still_the_one_that_is_kept() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Elections("freeze/majority")).await;
    scene.assert_rebuilt(&ended).await;
}

/// Leadership is handed on while this step goes on: either the cluster is rebuilt, or the old one is there as before.
async fn elections_lose_nothing(step: &'static str) {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Elections(step)).await;
    if ended.outcome == Outcome::Done {
        scene.assert_rebuilt(&ended).await;
    } else {
        let told = format!("{:#?}\n{}", ended.failures, scene.story());
        assert!(matches!(ended.outcome, Outcome::Failed | Outcome::Refused), "{told}");
        scene.assert_given_back().await;
        scene.assert_nothing_lost().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_before_the_freeze_lose_nothing() {
    elections_lose_nothing("freeze/sound").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_while_a_worker_goes_down_lose_nothing() {
    elections_lose_nothing("freeze/single-worker-01/shutdown").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_while_the_final_snapshot_is_saved_lose_nothing() {
    elections_lose_nothing("freeze/snapshot").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn elections_while_the_last_machine_goes_down_lose_nothing() {
    elections_lose_nothing("freeze/kept").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn machines_that_someone_restarts_during_the_freeze_lose_nothing() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Restarts("freeze/majority", 2)).await;
    scene.assert_rebuilt(&ended).await;
    // One that is restarted for ever can't be frozen; the old cluster goes on.
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Restarts("freeze/majority", 30)).await;
    assert!(matches!(ended.outcome, Outcome::Failed | Outcome::Done), "{:#?}\n{}", ended.failures, scene.story());
    if ended.outcome == Outcome::Failed {
        scene.assert_given_back().await;
    }
    scene.assert_nothing_lost().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_the_ha_manager_starts_again_loses_nothing() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Manages("freeze/majority", 1101)).await;
    let destroyed: Vec<u32> = scene.destroyed().into_iter().filter(|vmid| OLD.contains(vmid)).collect();
    if ended.outcome == Outcome::Done {
        scene.assert_rebuilt(&ended).await;
    } else if destroyed.is_empty() {
        // One that never stays down can't be frozen: the old cluster goes on.
        scene.assert_nothing_lost().await;
    } else {
        // It was started, or was still in the manager's care, after others were deleted: it is let alone, and named.
        assert!(!destroyed.contains(&1101), "{destroyed:?}\n{}", scene.story());
        let told = format!("{:?}", ended.failures);
        assert!(told.contains("single-cp-02"), "{told}");
        assert!(told.contains("the final snapshot is") || told.contains("ha-manager remove"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_lags_is_never_the_one_whose_data_are_kept() {
    let scene = Scene::new().await;
    let ended = scene.rebuild(Trouble::Lags("freeze/majority", 60.0)).await;
    if ended.outcome == Outcome::Done {
        scene.assert_rebuilt(&ended).await;
    } else {
        scene.assert_given_back().await;
        scene.assert_nothing_lost().await;
    }
}
