//! The original: real etcd processes, one under each member that asks for one.
//!
//! Purpose: what only the real thing shows (elections, restarts, quorum as it is counted there) while machines come and
//! go. A process starts with its seat, comes back when it ends by itself, and is told to stop or is cut off; data lie in
//! the folder of its seat. Must not know: machines, worlds, what the simulated members hold.
//! Start at [`Originals`]; `program.rs` is one process, `talk.rs` one member's API, `seat.rs` one seat's life.
//!
//! All of it speaks plain HTTP on loopback, as nothing of it leaves the computer, and the JSON gateway that every etcd
//! since 3.4 has. The program's version is its own: Debian's 3.4 plays also where Talos says that it runs 3.6.

mod program;
mod seat;
mod talk;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

pub use program::{Program, ProgramError};
pub use seat::Standing;
pub use talk::{Listed, Said, Talk, TalkError};

/// The ports of every member, at its own address.
const CLIENTS: u16 = 2379;
const PEERS: u16 = 2380;

/// How etcd refuses to lose a member while not all have been connected for five seconds, which no time scale shortens.
const UNSETTLED: &str = "unhealthy cluster";
/// How long that is waited for, and how often it is tried.
const SETTLES: Duration = Duration::from_secs(8);
const TRY: Duration = Duration::from_millis(200);

/// How a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: it hands over what it leads; SIGKILL if that takes too long.
    InOrder,
    /// SIGKILL: the plug was pulled.
    Cut,
}

/// How a member comes to be, unless its data are there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// One of those that begin the cluster.
    First,
    /// Added to a cluster that runs, without a vote at first.
    Joins,
}

/// A member to be.
#[derive(Clone, Debug)]
pub struct Birth {
    /// What members of one cluster have in common.
    pub token: String,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: IpAddr,
    /// All members of its cluster, itself among them: name and address.
    pub all: Vec<(String, IpAddr)>,
    /// How it begins.
    pub entry: Entry,
}

/// One process, from its start to its end.
#[derive(Clone, Debug)]
pub struct Life {
    /// Whose.
    pub seat: u32,
    /// The process's number.
    pub pid: u32,
    /// When it was started.
    pub from: Instant,
    /// When it first answered a linearizable read.
    pub served: Option<Instant>,
    /// When it ended.
    pub till: Option<Instant>,
    /// How it was told to, if it was.
    pub told: Option<Stop>,
}

/// A member with a process under it.
#[derive(Clone, Debug)]
pub struct Original {
    talk: Talk,
    standing: watch::Receiver<Standing>,
}

impl Original {
    /// Its API.
    pub fn talk(&self) -> Talk {
        self.talk
    }

    /// Whether it answered a linearizable read just now.
    pub fn is_healthy(&self) -> bool {
        *self.standing.borrow() == Standing::Healthy
    }

    /// Whether it has a vote: its cluster made it one of those that count.
    pub fn votes(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Healthy | Standing::Sick)
    }

    /// Takes the member at that address out of the cluster; one that isn't in it is out already.
    pub async fn remove(&self, address: IpAddr) -> Result<(), TalkError> {
        let since = Instant::now();
        loop {
            let listed = self.talk.members().await?;
            let known = listed.iter().find(|member| member.address == Some(address)).map(|member| member.id);
            let Some(id) = known else { return Ok(()) };
            match self.talk.remove(id).await {
                Err(TalkError::Refused(why)) if why.contains(UNSETTLED) && since.elapsed() < SETTLES => {}
                answer => return answer,
            }
            tokio::time::sleep(TRY).await;
        }
    }

    /// Hands the leadership over, if it leads; to whom.
    pub async fn forfeit(&self) -> Result<Option<IpAddr>, TalkError> {
        let said = self.talk.status().await?;
        if said.leader != said.id {
            return Ok(None);
        }
        let mut refused = None;
        for member in self.talk.members().await? {
            let Some(address) = member.address.filter(|_| member.id != said.id && !member.learner) else { continue };
            match self.talk.hand_over(member.id).await {
                Ok(()) => return Ok(Some(address)),
                Err(error) => refused = Some(error),
            }
        }
        refused.map_or(Ok(None), Err)
    }
}

/// A seat that is taken.
struct Taken {
    original: Original,
    orders: mpsc::UnboundedSender<Stop>,
}

#[derive(Default)]
struct Seats {
    /// Those that run.
    taken: BTreeMap<u32, Taken>,
    /// Those that were told to stop; kept, as they may have to be cut off.
    leaving: BTreeMap<u32, Taken>,
}

struct Inner {
    program: Program,
    dir: PathBuf,
    seats: Mutex<Seats>,
    lives: Arc<Mutex<Vec<Life>>>,
}

/// All processes of one program, by seat. Clones are the same ones; with the last of them, all are cut off.
#[derive(Clone)]
pub struct Originals(Arc<Inner>);

impl std::fmt::Debug for Originals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Originals").field("program", &self.0.program).field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where members listen for those who ask, and for each other.
fn url(address: IpAddr, port: u16) -> String {
    format!("http://{}", SocketAddr::new(address, port))
}

impl Originals {
    /// No process yet; their data go below `dir`.
    pub fn new(program: Program, dir: PathBuf) -> Self {
        Self(Arc::new(Inner { program, dir, seats: Mutex::default(), lives: Arc::default() }))
    }

    /// The program.
    pub fn program(&self) -> &Program {
        &self.0.program
    }

    fn folder(&self, seat: u32) -> PathBuf {
        self.0.dir.join(seat.to_string())
    }

    /// Starts a process, and again whenever it ends by itself. Must be called inside a tokio runtime. A seat whose process
    /// runs is left alone.
    pub fn begin(&self, number: u32, birth: Birth) {
        let mut seats = held(&self.0.seats);
        if seats.taken.contains_key(&number) {
            return;
        }
        let before = seats.leaving.get(&number).map(|one| one.original.standing.clone());
        let (orders, told) = mpsc::unbounded_channel();
        let (says, standing) = watch::channel(Standing::Starting);
        let original = Original { talk: Talk::at(birth.address), standing };
        let seat = seat::Seat {
            number,
            program: self.0.program.clone(),
            folder: self.folder(number),
            birth,
            lives: Arc::clone(&self.0.lives),
            says,
        };
        tokio::spawn(seat.live(before, told));
        seats.taken.insert(number, Taken { original, orders });
    }

    /// The process of a seat, unless it was told to stop.
    pub fn get(&self, number: u32) -> Option<Original> {
        held(&self.0.seats).taken.get(&number).map(|one| one.original.clone())
    }

    /// Ends a seat's process.
    pub fn stop(&self, number: u32, how: Stop) {
        let mut seats = held(&self.0.seats);
        if let Some(one) = seats.taken.remove(&number) {
            // One that was told before has a successor only once it ended.
            seats.leaving.insert(number, one);
        }
        if let Some(one) = seats.leaving.get(&number) {
            // One that ended has nobody to listen.
            let _ = one.orders.send(how);
        }
    }

    /// Cuts all of them off.
    pub fn cut(&self) {
        let all: Vec<u32> = {
            let seats = held(&self.0.seats);
            seats.taken.keys().chain(seats.leaving.keys()).copied().collect()
        };
        for number in all {
            self.stop(number, Stop::Cut);
        }
    }

    /// Waits until the process of a seat that was told to stop is gone.
    pub async fn gone(&self, number: u32) {
        let leaving = held(&self.0.seats).leaving.get(&number).map(|one| one.original.standing.clone());
        if let Some(mut standing) = leaving {
            // Whoever spoke last is gone too, where nobody says so any more.
            let _ = standing.wait_for(|standing| *standing == Standing::Ended).await;
        }
    }

    /// Waits until all that were told to stop are gone.
    pub async fn all_gone(&self) {
        let all: Vec<u32> = held(&self.0.seats).leaving.keys().copied().collect();
        for number in all {
            self.gone(number).await;
        }
    }

    /// Cuts a seat's process off and removes its data: who begins there again is another member.
    pub async fn forget(&self, number: u32) {
        self.stop(number, Stop::Cut);
        self.gone(number).await;
        remove(&self.folder(number));
    }

    /// Every process so far, in the order of their starts.
    pub fn lives(&self) -> Vec<Life> {
        held(&self.0.lives).clone()
    }
}

fn remove(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "an etcd's data can't be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
