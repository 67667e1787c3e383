//! A cluster of three control planes, a run that rebuilds it, and somebody who writes meanwhile.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;

use recast::cli::args::Wishes;
use recast::cli::carry_out;
use recast::cli::prepare::{DataWish, Order, prepare};
use recast::cli::session::Session;
use recast::engine::{Cancel, Ended, Outcome, RealClock, Retry, Run};
use recast::event::Unheard;
use recast::journal::{Entry, Journal, Memory, Opening, StateDir};
use recast::k8s::apply::Applier;
use recast::k8s::{Client, manifest};
use recast::plan::{Plan, Verb};
use recast::pve::vm::{Change, VmRef};
use recast::pve::{Upid, Wait};
use recast::talos::client::Machine;
use recast::talos::client::health::Question;
use recast::types::{Sha256, VmId};

use super::trouble::{Trouble, Troubled};
use crate::site::{Double, Folder, KUBERNETES, Spot, TALOS, profile_of};

/// Three control planes on one PVE node.
const TRIO: [Spot; 3] =
    [("pve1", 1100, "192.168.178.41"), ("pve1", 1101, "192.168.178.42"), ("pve1", 1102, "192.168.178.43")];

/// Their worker, on the same node.
const WORKER: Spot = ("pve1", 1110, "192.168.178.51");

/// The VMs of the old cluster.
pub(super) const OLD: [u32; 4] = [1100, 1101, 1102, 1110];

/// How much faster than life the doubles are.
const TIME_SCALE: f64 = 100.0;

/// A run that takes longer waits for something that never comes.
const TOO_LONG: Duration = Duration::from_mins(5);

pub(super) struct Scene {
    // First, so that it writes nothing any more when its folder goes.
    pub(super) double: Double,
    _folder: Folder,
    pub(super) session: Session,
    plan: Plan,
    pub(super) run: PathBuf,
    log: Memory,
    /// The names of `ConfigMaps` that the API said to be there.
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    pub(super) over: Arc<AtomicBool>,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let folder = Folder::with(&profile_of(&TRIO, &[WORKER]));
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

    pub(super) fn machine(&self, address: &str) -> Machine {
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
    pub(super) async fn live(&self, trouble: Trouble) -> Ended {
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
    pub(super) async fn rebuild(&self, trouble: Trouble) -> Ended {
        let done = async {
            let ended = self.live(trouble).await;
            self.over.store(true, Ordering::SeqCst);
            ended
        };
        tokio::join!(done, self.write()).0
    }

    pub(super) fn story(&self) -> String {
        let told = self.log.records();
        told.iter().map(|record| serde_json::to_string(record).unwrap()).collect::<Vec<_>>().join("\n")
    }

    fn count(&self, is: fn(&Entry) -> bool) -> usize {
        self.log.records().iter().filter(|record| is(&record.entry)).count()
    }

    pub(super) fn reopened(&self) -> usize {
        self.count(|entry| matches!(entry, Entry::Reopened { .. }))
    }

    /// Every write that was acknowledged is there now.
    pub(super) async fn assert_nothing_lost(&self) {
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
    pub(super) async fn assert_given_back(&self) {
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

    pub(super) fn destroyed(&self) -> Vec<u32> {
        let deeds = self.double.deeds();
        deeds.iter().filter(|deed| deed.what == "destroy").filter_map(|deed| deed.vmid).collect()
    }

    pub(super) fn assert_nothing_destroyed(&self) {
        assert!(!self.destroyed().iter().any(|vmid| OLD.contains(vmid)), "{:?}", self.destroyed());
    }

    pub(super) async fn assert_rebuilt(&self, ended: &Ended) {
        assert_eq!(ended.outcome, Outcome::Done, "{:#?}\n{}", ended.failures, self.story());
        let release = self.machine("192.168.178.43").release().await.unwrap();
        assert_eq!(release.version.to_string(), TALOS);
        self.assert_nothing_lost().await;
    }

    async fn finish(&self, upid: &Upid) {
        let wait = Wait { poll: Duration::from_millis(20), within: Duration::from_secs(20) };
        self.session.pve.wait(upid, wait).await.unwrap();
    }

    pub(super) async fn start(&self, vmid: u32) {
        let upid = self.session.pve.start_vm(&vm(vmid)).await.unwrap();
        self.finish(&upid).await;
    }

    pub(super) async fn attach_disk(&self, vmid: u32) {
        let set = [("scsi3".to_owned(), "local-lvm:1".to_owned())].into();
        let upid = self.session.pve.change_vm(&vm(vmid), &Change { set, ..Change::default() }).await;
        if let Some(upid) = upid.unwrap() {
            self.finish(&upid).await;
        }
    }
}

pub(super) fn vm(vmid: u32) -> VmRef {
    VmRef::new("pve1".into(), VmId(vmid))
}
