//! Who is hit by what.
//!
//! Purpose: a scenario as the world's script: counts matches, says what goes wrong, how long things take, and tells
//! `events.rs` of matches it waits for. Must not know: what a protocol does about a fault. Start at [`Engine`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::mpsc;

use super::{Due, Event, Matcher, Rule, Scenario, ScenarioError, VmName};
use crate::world::rng::Rng;
use crate::world::script::{Ask, Fault, Flow, Script, Service, Takes};
use crate::world::{WeakWorld, World};

/// A scenario at work; clones are the same one.
#[derive(Clone, Debug)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    scenario: Scenario,
    world: OnceLock<WeakWorld>,
    counts: Mutex<Counts>,
    due: mpsc::UnboundedSender<usize>,
    waiting: Mutex<Option<mpsc::UnboundedReceiver<usize>>>,
}

#[derive(Debug)]
struct Counts {
    /// Matches and hits of each fault.
    faults: Vec<(u64, u64)>,
    /// Matches of each event, and how it went.
    events: Vec<(u64, Option<Result<(), String>>)>,
    rng: Rng,
}

/// What became of a fault or an event.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Its name in the file.
    pub name: String,
    /// How often its matcher fitted.
    pub matched: u64,
    /// How often it happened.
    pub happened: u64,
    /// Why it couldn't happen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

impl Engine {
    /// A scenario that hasn't begun; `rng_seed` decides what happens by chance.
    pub fn new(scenario: Scenario, rng_seed: u64) -> Self {
        let (due, waiting) = mpsc::unbounded_channel();
        let counts = Counts {
            faults: vec![(0, 0); scenario.faults.len()],
            events: vec![(0, None); scenario.events.len()],
            rng: Rng::new(rng_seed ^ 0x5CE7_A210),
        };
        let waiting = Mutex::new(Some(waiting));
        Self(Arc::new(Inner { scenario, world: OnceLock::new(), counts: Mutex::new(counts), due, waiting }))
    }

    /// Makes it a world's script. Refuses, with all reasons, what names nothing of that world.
    pub fn begin(&self, world: &World) -> Result<(), ScenarioError> {
        let wrong = self.misplaced(world);
        if !wrong.is_empty() {
            return Err(ScenarioError::Misplaced(wrong));
        }
        {
            let mut state = world.state();
            for (name, bytes) in &self.0.scenario.storages {
                if let Some(storage) = state.storages.get_mut(name) {
                    storage.capacity = *bytes;
                }
            }
        }
        if self.0.world.set(world.downgrade()).is_ok() {
            world.follow_script(Arc::new(self.clone()));
        }
        Ok(())
    }

    /// Storages and nodes that don't exist. VMs may still be made.
    fn misplaced(&self, world: &World) -> Vec<String> {
        use super::Happens::{NodeDies, NodeHangs, NodeReturns};
        let state = world.state();
        let Scenario { storages, faults, events, .. } = &self.0.scenario;
        let storages = storages.keys().filter(|name| !state.storages.contains_key(*name));
        let mut wrong: Vec<String> = storages.map(|name| format!("there is no storage {name}")).collect();
        let on = faults.iter().map(|rule| &rule.on).chain(events.iter().filter_map(|event| match &event.when {
            Due::After { on, .. } => Some(on),
            Due::At(_) => None,
        }));
        let named = on.filter_map(|on| on.node.as_ref()).chain(events.iter().filter_map(|event| match &event.deed {
            NodeDies(node) | NodeHangs(node) | NodeReturns(node) => Some(node),
            _ => None,
        }));
        wrong.extend(
            named.filter(|name| !state.nodes.contains_key(*name)).map(|name| format!("there is no node {name}")),
        );
        wrong.dedup();
        wrong
    }

    /// What became of each fault, then of each event.
    pub fn tally(&self) -> Vec<Tally> {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Scenario { faults, events, .. } = &self.0.scenario;
        let faults = faults.iter().zip(&counts.faults).map(|(rule, (matched, happened))| Tally {
            name: rule.name.clone(),
            matched: *matched,
            happened: *happened,
            failed: None,
        });
        let events = events.iter().zip(&counts.events).map(|(event, (matched, ended))| Tally {
            name: event.name.clone(),
            matched: *matched,
            happened: u64::from(matches!(ended, Some(Ok(())))),
            failed: ended.as_ref().and_then(|ended| ended.clone().err()),
        });
        faults.chain(events).collect()
    }

    /// What is to happen.
    pub(super) fn events(&self) -> &[Event] {
        &self.0.scenario.events
    }

    /// Numbers of events whose match came; the first caller gets them.
    pub(super) fn due(&self) -> Option<mpsc::UnboundedReceiver<usize>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// An event is over.
    pub(super) fn ended(&self, number: usize, how: Result<(), String>) {
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(event) = counts.events.get_mut(number) {
            event.1 = Some(how);
        }
    }

    fn fits(&self, on: &Matcher, ask: &Ask<'_>) -> bool {
        on.service == ask.service
            && on.step == ask.step
            && (on.verbs.is_empty() || on.verbs.iter().any(|verb| verb == ask.verb))
            && on.node.as_ref().is_none_or(|node| node == ask.node)
            && on.user.as_ref().is_none_or(|user| user.matches(ask.who))
            && on.path.matches(ask.path)
            && on.vm.as_ref().is_none_or(|vm| self.is_vm(vm, ask.vmid))
    }

    fn is_vm(&self, wanted: &VmName, asked: Option<u32>) -> bool {
        match (wanted, asked) {
            (VmName::Number(number), Some(asked)) => *number == asked,
            (VmName::Name(name), Some(asked)) => {
                let world = self.0.world.get().and_then(WeakWorld::upgrade);
                world.is_some_and(|world| {
                    world.state().vms.get(&asked).is_some_and(|vm| vm.config.get("name") == Some(name))
                })
            }
            (_, None) => false,
        }
    }
}

impl Script for Engine {
    fn meet(&self, ask: &Ask<'_>) -> Vec<Fault> {
        let Scenario { faults, events, .. } = &self.0.scenario;
        // The world is asked for names before anything is locked.
        let hit: Vec<usize> = (0..faults.len()).filter(|number| self.fits(&faults[*number].on, ask)).collect();
        let heard: Vec<(usize, u64)> = events
            .iter()
            .enumerate()
            .filter_map(|(number, event)| match &event.when {
                Due::After { on, nth, .. } => self.fits(on, ask).then_some((number, *nth)),
                Due::At(_) => None,
            })
            .collect();
        if hit.is_empty() && heard.is_empty() {
            return Vec::new();
        }
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, nth) in heard {
            counts.events[number].0 += 1;
            if counts.events[number].0 == nth {
                // Nobody carries out events any more: the world ends.
                let _ = self.0.due.send(number);
            }
        }
        let mut happens = Vec::new();
        for number in hit {
            let Rule { name, nth, times, then, .. } = &faults[number];
            let count = &mut counts.faults[number];
            count.0 += 1;
            if count.0 >= *nth && times.is_none_or(|times| count.0 < nth + times) {
                count.1 += 1;
                tracing::info!(name, verb = ask.verb, path = ask.path, "a fault of the scenario");
                happens.push(then.clone());
            }
        }
        happens
    }

    fn latency(&self, service: Service) -> f64 {
        let latency = &self.0.scenario.latency;
        let fixed = latency.services.get(service.as_str()).copied().unwrap_or_default();
        if latency.jitter <= 0.0 {
            return fixed;
        }
        #[expect(clippy::cast_precision_loss, reason = "a fraction")]
        let share = (self.chance() >> 11) as f64 / (1_u64 << 53) as f64;
        fixed + share * latency.jitter
    }

    fn takes(&self, what: Takes) -> Option<f64> {
        let latency = &self.0.scenario.latency;
        match what {
            Takes::Boot => latency.boot,
            Takes::Shutdown => latency.shutdown,
            #[expect(clippy::cast_precision_loss, reason = "a duration")]
            Takes::Copy(bytes) => latency.clone.or_else(|| latency.copy.map(|rate| bytes as f64 / rate.max(1.0))),
        }
    }

    fn flow(&self, flow: Flow) -> Option<f64> {
        match flow {
            Flow::Upload => self.0.scenario.latency.upload,
            Flow::Download => self.0.scenario.latency.download,
        }
    }

    fn chance(&self) -> u64 {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).rng.draw()
    }
}
