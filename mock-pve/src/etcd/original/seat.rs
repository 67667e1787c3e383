//! One seat: its process starts, is looked at, comes back when it ends by itself, and stops when it is told to.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::program::{Begin, Process, Program};
use super::talk::{Listed, Talk};
use super::{Birth, Entry, Life, PEERS, Stop, held, url};

/// Between a process that ended by itself and the next.
const AGAIN: Duration = Duration::from_millis(300);
/// Between two looks at a process that isn't well, and at one that is.
const LOOK: Duration = Duration::from_millis(50);
const WELL: Duration = Duration::from_millis(250);
/// A read that takes longer than that is no sign of health.
const HEALTH: Duration = Duration::from_secs(2);
/// How long a process that was asked to end may take.
const GRACE: Duration = Duration::from_secs(10);

/// How a seat's process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It doesn't answer, or has none yet.
    Starting,
    /// It has no vote yet.
    Learner,
    /// It answers linearizable reads.
    Healthy,
    /// It has a vote, and answers none.
    Sick,
    /// It was told to stop.
    Stopping,
    /// It is gone, and none comes after it.
    Ended,
}

/// Whether a process follows another one.
enum After {
    Another,
    Nothing,
}

/// What somebody who enters has to say of his cluster.
struct Way {
    initial: String,
    state: &'static str,
}

type Orders = mpsc::UnboundedReceiver<Stop>;

pub(super) struct Seat {
    pub(super) number: u32,
    pub(super) program: Program,
    pub(super) folder: PathBuf,
    pub(super) birth: Birth,
    pub(super) lives: Arc<Mutex<Vec<Life>>>,
    pub(super) says: watch::Sender<Standing>,
}

impl Seat {
    /// Until told to stop. Whoever had the seat before has to be gone first.
    pub(super) async fn live(self, before: Option<watch::Receiver<Standing>>, mut orders: Orders) {
        if let Some(mut before) = before {
            // One that says nothing any more is gone too.
            let _ = before.wait_for(|standing| *standing == Standing::Ended).await;
        }
        while let After::Another = self.once(&mut orders).await {
            self.says.send_replace(Standing::Starting);
            tokio::select! {
                _ = orders.recv() => break,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
        self.says.send_replace(Standing::Ended);
    }

    /// One process, from its start to its end.
    async fn once(&self, orders: &mut Orders) -> After {
        let way = tokio::select! {
            biased;
            _ = orders.recv() => return After::Nothing,
            way = self.enter() => way,
        };
        match way.and_then(|way| self.spawn(&way)) {
            Ok(process) => self.accompany(process, orders).await,
            Err(error) => {
                tracing::warn!(seat = self.number, %error, "an etcd can't be started");
                After::Another
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Says that this member is added to a cluster, from before it is until its data are forgotten.
    fn joins(&self) -> PathBuf {
        self.folder.join("joins")
    }

    /// What the process has to be told of its cluster: nothing where its data are there already.
    async fn enter(&self) -> io::Result<Way> {
        fs::create_dir_all(&self.folder)?;
        if self.data().join("member").exists() {
            let own = format!("{}={}", self.birth.name, url(self.birth.address, PEERS));
            return Ok(Way { initial: own, state: "existing" });
        }
        if self.birth.entry == Entry::First && !self.joins().exists() {
            let all = self.birth.all.iter().map(|(name, address)| format!("{name}={}", url(*address, PEERS)));
            return Ok(Way { initial: all.collect::<Vec<_>>().join(","), state: "new" });
        }
        fs::write(self.joins(), "")?;
        loop {
            for peer in self.peers() {
                match self.join(peer).await {
                    Ok(members) => {
                        let all = members.iter().filter_map(|member| self.names(member));
                        return Ok(Way { initial: all.collect::<Vec<_>>().join(","), state: "existing" });
                    }
                    Err(error) => tracing::debug!(seat = self.number, %error, "an etcd can't join yet"),
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    fn peers(&self) -> impl Iterator<Item = Talk> + '_ {
        let own = self.birth.address;
        self.birth.all.iter().filter(move |(_, address)| *address != own).map(|(_, address)| Talk::at(*address))
    }

    /// Joins the cluster of a peer, whose members it says. One that is listed and never started is this one; one that
    /// started had other data, and goes first.
    async fn join(&self, peer: Talk) -> Result<Vec<Listed>, super::TalkError> {
        let members = peer.members().await?;
        match members.iter().find(|member| member.address == Some(self.birth.address)) {
            Some(known) if known.name.is_empty() => return Ok(members),
            Some(known) => peer.remove(known.id).await?,
            None => {}
        }
        peer.add(self.birth.address).await
    }

    /// A member as etcd wants it listed; one without a name is this one.
    fn names(&self, member: &Listed) -> Option<String> {
        let address = member.address?;
        let name = if address == self.birth.address { &self.birth.name } else { &member.name };
        Some(format!("{name}={}", url(address, PEERS)))
    }

    fn spawn(&self, way: &Way) -> io::Result<Process> {
        let begin = Begin {
            name: &self.birth.name,
            address: self.birth.address,
            data: &self.data(),
            log: &self.folder.join("log"),
            token: &self.birth.token,
            initial: &way.initial,
            state: way.state,
        };
        Process::spawn(&self.program, &begin)
    }

    /// Looks after a process until it ends.
    async fn accompany(&self, mut process: Process, orders: &mut Orders) -> After {
        let life = {
            let mut lives = held(&self.lives);
            let (seat, pid) = (self.number, process.pid);
            lives.push(Life { seat, pid, from: Instant::now(), served: None, till: None, told: None });
            lives.len() - 1
        };
        let mut told: Option<Stop> = None;
        let mut grace = Instant::now();
        let looks = self.looks(life);
        tokio::pin!(looks);
        loop {
            tokio::select! {
                ended = process.ended() => {
                    tracing::debug!(seat = self.number, pid = process.pid, ?ended, ?told, "an etcd ended");
                    break;
                }
                order = orders.recv(), if told.is_none() || (told == Some(Stop::InOrder) && !orders.is_closed()) => {
                    let order = match (order, told) {
                        (Some(order), _) => order,
                        (None, None) => Stop::Cut,
                        // Whoever told it is gone; it goes on to end as it was told.
                        (None, Some(_)) => continue,
                    };
                    self.says.send_replace(Standing::Stopping);
                    match order {
                        Stop::InOrder => process.terminate(),
                        Stop::Cut => process.kill(),
                    }
                    if told.is_none() {
                        grace = Instant::now() + GRACE;
                    }
                    told = Some(order);
                }
                () = tokio::time::sleep_until(grace.into()), if told == Some(Stop::InOrder) => {
                    tracing::warn!(seat = self.number, pid = process.pid, "an etcd doesn't stop, and is killed");
                    process.kill();
                    told = Some(Stop::Cut);
                }
                never = &mut looks, if told.is_none() => match never {},
            }
        }
        {
            let mut lives = held(&self.lives);
            if let Some(life) = lives.get_mut(life) {
                (life.till, life.told) = (Some(Instant::now()), told);
            }
        }
        if told.is_some() { After::Nothing } else { After::Another }
    }

    /// Keeps its standing up to date, and asks for its vote.
    async fn looks(&self, life: usize) -> Infallible {
        loop {
            let standing = self.look().await;
            if standing == Standing::Healthy
                && let Some(life) = held(&self.lives).get_mut(life)
            {
                life.served.get_or_insert_with(Instant::now);
            }
            self.says.send_replace(standing);
            tokio::time::sleep(if standing == Standing::Healthy { WELL } else { LOOK }).await;
        }
    }

    async fn look(&self) -> Standing {
        let own = Talk::at(self.birth.address);
        let Ok(said) = own.status().await else { return Standing::Starting };
        if said.learner {
            for peer in self.peers() {
                // Refused until it has what the leader has.
                if peer.promote(said.id).await.is_ok() {
                    break;
                }
            }
            return Standing::Learner;
        }
        match tokio::time::timeout(HEALTH, own.get("health")).await {
            Ok(Ok(_)) => Standing::Healthy,
            _ => Standing::Sick,
        }
    }
}
