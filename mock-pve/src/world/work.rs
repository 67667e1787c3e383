//! Long work: tasks that run, and the locks they hold.
//!
//! Purpose: [`World::start_task`] runs a future as a task that can be watched and stopped; [`World::flock`] is the lock
//! file of a VM's config. Must not know: what the work is.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::refusal::{Refusal, Rule};
use super::rights::Caller;
use super::script::{Ask, Fault, Service, Step};
use super::stop::{Stop, Words};
use super::{World, held};

/// A running task, as its own work sees it.
#[derive(Clone, Debug)]
pub struct Work {
    world: World,
    upid: String,
    doomed: bool,
    stop: Arc<Stop>,
}

impl Work {
    /// Does something that has to be tidied up after: who stops the task ends this alone, in those words, and what comes
    /// after it still happens.
    pub(super) async fn attempt<T>(&self, words: Words, part: impl Future<Output = Rule<T>>) -> Rule<T> {
        match self.stop.part(Some(words), part).await {
            Ok(result) => result,
            Err(words) => Err(Refusal::failed(format!("{words}\n"))),
        }
    }

    /// Waits for a program that a task runs; `Err`: who stops the task ended it, in these words, which are those of the
    /// part around it unless it has its own.
    pub(super) async fn program<T>(
        &self,
        words: Option<Words>,
        part: impl Future<Output = T>,
    ) -> Result<T, &'static str> {
        self.stop.part(words, part).await
    }

    /// Whether the script lets it fail without its work done: whoever has begun something takes it back.
    pub fn is_doomed(&self) -> bool {
        self.doomed
    }

    /// Adds a line to the log.
    pub fn log(&self, line: impl Into<String>) {
        self.world.state().tasks.log(&self.upid, line);
    }

    /// Adds a warning to the log; the task ends `WARNINGS: n`.
    pub fn warn(&self, text: &str) {
        self.world.state().tasks.warn(&self.upid, text);
    }

    /// Takes the lock of a VM's config; the log tells of a wait.
    pub async fn flock(&self, vmid: u32, mode: Mode, seconds: f64) -> Rule<Flock> {
        if let Some(free) = self.world.flock_if_free(vmid, mode) {
            return Ok(free);
        }
        self.log("trying to acquire lock...");
        let taken = self.world.flock(vmid, mode, seconds).await;
        if taken.is_ok() {
            self.log(" OK");
        }
        taken
    }

    /// The world it works in.
    pub fn world(&self) -> &World {
        &self.world
    }
}

/// The lock file of a VM's config, held.
#[derive(Debug)]
pub enum Flock {
    /// By one.
    Exclusive(OwnedRwLockWriteGuard<()>),
    /// By several readers.
    Shared(OwnedRwLockReadGuard<()>),
}

/// Which kind of [`Flock`] is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Alone.
    Exclusive,
    /// With other readers: clones of one template.
    Shared,
}

impl World {
    /// Registers a task and runs its work in the background. Says the UPID.
    pub fn start_task<F, W>(&self, caller: &Caller, node: &str, kind: &str, id: &str, work: W) -> String
    where
        W: FnOnce(Work) -> F,
        F: Future<Output = Rule<()>> + Send + 'static,
    {
        let (now, ticks) = (self.clock().unix(), ticks());
        let upid = self.state().tasks.begin(node, kind, id, &caller.identity, now, ticks);
        let stop = Arc::new(Stop::default());
        held(&self.0.stops).insert(upid.clone(), Arc::clone(&stop));
        let fate = self.fate(kind, node, id, &caller.identity);
        let doomed = fate.iter().any(|fault| matches!(fault, Fault::Task { done: false, .. }));
        let future = work(Work { world: self.clone(), upid: upid.clone(), doomed, stop: Arc::clone(&stop) });
        let kind = kind.to_owned();
        let (world, id) = (self.clone(), upid.clone());
        tokio::spawn(async move {
            let result = tokio::select! {
                result = fated(&world, fate, &kind, future) => result,
                words = stop.reaches_the_task() => Err(Refusal::failed(words)),
            };
            held(&world.0.stops).remove(&id);
            let now = world.clock().unix();
            let mut state = world.state();
            match result {
                _ if stop.is_killed() => state.tasks.vanish(&id, now),
                Ok(()) => state.tasks.end(&id, Ok(()), now),
                Err(refusal) => state.tasks.end(&id, Err(&refusal.text()), now),
            }
            drop(state);
            world.0.ended.notify_waiters();
        });
        upid
    }

    /// What the script has in store for a task.
    fn fate(&self, kind: &str, node: &str, id: &str, who: &str) -> Vec<Fault> {
        let (service, vmid) = (Service::Pve, id.parse().ok());
        self.meet(&Ask { service, step: Step::Task, verb: kind, path: id, who, node, vmid })
    }

    /// Asks a task to stop; nothing happens to one that has ended.
    pub fn stop_task(&self, upid: &str) {
        if let Some(stop) = held(&self.0.stops).get(upid) {
            stop.ask();
        }
    }

    /// Ends a task where it stands: its node has no power, and tidies nothing up.
    pub(super) fn kill_task(&self, upid: &str) {
        if let Some(stop) = held(&self.0.stops).get(upid) {
            stop.kill();
        }
    }

    /// Waits until a task has ended, at most that long. Says how it ended.
    pub async fn task_end(&self, upid: &str, at_most: Duration) -> Option<String> {
        let deadline = tokio::time::Instant::now() + at_most;
        loop {
            let ended = self.0.ended.notified();
            if let Some(status) = self.state().tasks.by_upid.get(upid).and_then(|task| task.status.clone()) {
                return Some(status);
            }
            // The short turns make up for an end between the look and the wait.
            let turn = tokio::time::Instant::now() + Duration::from_millis(100);
            if tokio::time::timeout_at(deadline.min(turn), ended).await.is_err()
                && tokio::time::Instant::now() >= deadline
            {
                return None;
            }
        }
    }

    fn flock_if_free(&self, vmid: u32, mode: Mode) -> Option<Flock> {
        let lock = Arc::clone(held(&self.0.flocks).entry(vmid).or_insert_with(|| Arc::new(RwLock::new(()))));
        match mode {
            Mode::Exclusive => lock.try_write_owned().ok().map(Flock::Exclusive),
            Mode::Shared => lock.try_read_owned().ok().map(Flock::Shared),
        }
    }

    /// Takes the lock of a VM's config, or refuses after that many seconds of real life.
    pub async fn flock(&self, vmid: u32, mode: Mode, seconds: f64) -> Rule<Flock> {
        let lock = Arc::clone(held(&self.0.flocks).entry(vmid).or_insert_with(|| Arc::new(RwLock::new(()))));
        let patience = self.clock().scaled(seconds).max(Duration::from_millis(50));
        let taken = async move {
            match mode {
                Mode::Exclusive => Flock::Exclusive(lock.write_owned().await),
                Mode::Shared => Flock::Shared(lock.read_owned().await),
            }
        };
        tokio::time::timeout(patience, taken).await.map_err(|_| {
            Refusal::failed(format!("can't lock file '/var/lock/qemu-server/lock-{vmid}.conf' - got timeout\n"))
        })
    }
}

/// Does a task's work, unless the script wants it otherwise.
async fn fated(world: &World, fate: Vec<Fault>, kind: &str, work: impl Future<Output = Rule<()>>) -> Rule<()> {
    for fault in fate {
        match fault {
            Fault::Stall(seconds) => world.stall(seconds).await,
            Fault::Task { text, done: false } => {
                // A VM that was registered before the task began is taken back by its work, which fails in its own words.
                if ["qmclone", "qmcreate", "qmrestore"].contains(&kind) {
                    let _ = work.await;
                }
                return Err(Refusal::failed(text));
            }
            Fault::Task { text, done: true } => return work.await.and(Err(Refusal::failed(text))),
            // The rest is about connections.
            Fault::Refuse | Fault::Reset(_) | Fault::Status { .. } | Fault::Corrupt(_) | Fault::Short { .. } => {}
        }
    }
    work.await
}

/// Hundredths of a second since the machine started, as the kernel counts.
fn ticks() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let digits: String = uptime.split(' ').next().unwrap_or_default().chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(100_000)
}

impl Work {
    /// Its task's id.
    pub fn upid(&self) -> &str {
        &self.upid
    }
}
