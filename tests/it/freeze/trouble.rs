//! What happens to a run, at the step that it is meant for.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use mock_pve::etcd::Lag;

use recast::engine::{Class, Perform, Seen, StepCx, StepError};
use recast::plan::{Output, Planned};
use recast::pve::ha::HaOrder;
use recast::steps::World;
use recast::types::VmId;

use super::scene::{Scene, vm};

/// What happens to a run, once.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
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

pub(super) struct Troubled<'a> {
    pub(super) world: World,
    pub(super) scene: &'a Scene,
    pub(super) trouble: RefCell<Option<Trouble>>,
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
