//! Any verb against a double of the whole site, which can touch nothing real.
//!
//! Purpose: copies what a run reads into a private folder, seeds a double of Proxmox VE, the Image Factory and the
//! machines with the profile's cluster, and hands out paths and an environment that lead to them and nowhere else. The
//! second wall is the connector, which refuses whatever isn't loopback while a rehearsal runs.
//! Must not know: what the rehearsed verb does. Start reading at [`start`] and [`stage::Stage`]; `verb.rs` is the verb.

pub mod addresses;
pub mod copy;
pub mod onto;
pub mod place;
pub mod private;
pub mod releases;
pub mod seed;
pub mod stage;
pub mod subnet;
mod verb;
pub mod writer;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use mock_pve::serve::{self, Ready, Running, StartError};
use mock_pve::world::PveVersion;
use mock_pve::world::machine::{self, State};
use secrecy::SecretString;
use tokio::net::TcpStream;

use self::place::{Door, Doors};
use self::private::PrivateError;
use self::subnet::Subnet;
use super::env::Env;
use crate::net::{ConnectError, Connector, DialError, DialMap, Options, Reach};

pub use seed::Contents;
pub use stage::{Order, Stage, StageError};
pub use verb::rehearse;
pub use writer::{Verdict, Writer, WriterError};

/// Why a rehearsal can't begin.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// It can't be prepared.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The preparation came to no end: the program is shutting down, or it has a mistake.
    #[error("the preparation was interrupted")]
    Interrupted,
    /// The double doesn't start.
    #[error("the double can't be started")]
    Double(#[from] StartError),
    /// The double has no token for us.
    #[error("the double has no token {0}")]
    NoToken(String),
    /// The files that lead to the double can't be written.
    #[error("the rehearsal's files can't be written")]
    Private(#[from] PrivateError),
    /// Nobody can reach the machines.
    #[error("the machines' addresses can't be mapped")]
    Dial(#[from] DialError),
    /// The same, for another reason.
    #[error("connections can't be set up")]
    Connect(#[from] ConnectError),
    /// Nobody can write to the cluster.
    #[error("the cluster can't be written to")]
    Writer(#[from] WriterError),
}

/// A double that runs, and the private folder that leads to it. Dropping it ends both.
#[derive(Debug)]
pub struct Rehearsal {
    // First, so that the double is gone before its folder is.
    running: Running,
    stage: Stage,
    site: PathBuf,
}

/// How long the old cluster may take until it stands. One that never does is the rehearsed verb's affair.
const STANDS_WITHIN: Duration = Duration::from_secs(30);

/// The port of the Talos API.
const TALOS: u16 = 50000;

/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// Begins a rehearsal. When it answers, everything listens, and the old cluster stands.
pub async fn start(order: Order) -> Result<Rehearsal, RehearsalError> {
    let (time_scale, rng_seed) = (order.time_scale, order.rng_seed);
    let now = Timestamp::now();
    let stage = tokio::task::spawn_blocking(move || Stage::set(&order, now));
    let stage = stage.await.map_err(|_| RehearsalError::Interrupted)??;
    let options = serve::Options {
        seed: stage.seed.clone(),
        state: Some(stage.private.double()),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        time_scale,
        rng_seed,
        pve: PveVersion::V8,
        scenario: stage.scenario.clone(),
        log: None,
        etcd: None,
    };
    let running = serve::start(options).await?;
    let site = open_doors(&stage, &running.ready)?;
    if stage.running.is_some() {
        // One that never stands is found ill by what is rehearsed.
        let _late = tokio::time::timeout(STANDS_WITHIN, stands(&running, stage.seed.machines.len())).await;
    }
    Ok(Rehearsal { running, stage, site })
}

/// Waits until so many machines run, call themselves ready, and listen.
async fn stands(running: &Running, machines: usize) {
    let ready = |state: &State| state.stage == machine::Stage::Running && state.status().ready;
    loop {
        let all = running.room().machines();
        if all.len() >= machines && all.iter().all(|machine| machine.see(ready)) {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    for machine in &running.ready.machines {
        while TcpStream::connect((machine.dialled, TALOS)).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Writes the files that lead to the double.
fn open_doors(stage: &Stage, ready: &Ready) -> Result<PathBuf, RehearsalError> {
    let private = &stage.private;
    let id = format!("{}!{}", seed::USER, seed::TOKEN);
    let secret = ready.tokens.get(&id).ok_or_else(|| RehearsalError::NoToken(id.clone()))?;
    let doors = Doors {
        pve: ready.pve.clone(),
        ca_file: ready.ca_file.clone(),
        factory: ready.factory.clone(),
        nodes: ready
            .nodes
            .iter()
            .map(|node| Door { name: node.name.clone(), api: node.api.clone(), fingerprint: node.fingerprint.clone() })
            .collect(),
        token_file: private.write_token(&SecretString::from(format!("{id}={secret}\n")))?,
        dial: stage.dial.clone(),
    };
    if let (true, Some(factory)) = (stage.own_factory, &doors.factory) {
        private.edit(&[("talos.factory.url", factory)])?;
    }
    private.write_site(&stage.place.file(&doors))?;
    Ok(private.site())
}

impl Rehearsal {
    /// The copy of the profile.
    pub fn profile(&self) -> &Path {
        self.stage.private.profile()
    }

    /// The site file that leads to the double.
    pub fn site(&self) -> &Path {
        &self.site
    }

    /// Where runs are kept.
    pub fn state_dir(&self) -> PathBuf {
        self.env().state_dir()
    }

    /// Where images are kept.
    pub fn cache_dir(&self) -> PathBuf {
        self.env().cache_dir()
    }

    /// An environment in which every default leads into the private folder.
    pub fn env(&self) -> Env {
        self.stage.private.env()
    }

    /// What is different from life and should be known, one sentence each.
    pub fn notices(&self) -> &[String] {
        &self.stage.notices
    }

    /// Somebody who writes to the cluster from now on; nobody where no cluster runs.
    pub fn writer(&self) -> Result<Option<Writer>, RehearsalError> {
        let Some((endpoint, secrets)) = &self.stage.running else { return Ok(None) };
        let mut dial = DialMap::default();
        for map in &self.stage.dial {
            dial.push(map.from, map.to)?;
        }
        let connector = Connector::new(Options { dial, reach: Reach::LoopbackOnly, ..Options::default() })?;
        Ok(Some(Writer::start(&connector, endpoint, secrets)?))
    }

    /// The loopback networks that machines listen in.
    pub fn networks(&self) -> &[Subnet] {
        &self.stage.networks
    }

    /// The double itself.
    pub fn double(&self) -> &Running {
        &self.running
    }

    /// Ends the double and removes the private folder.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::load;

    #[tokio::test]
    async fn a_rehearsal_leads_to_loopback_and_leaves_nothing_behind() {
        let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles/single.yaml");
        let order = Order {
            profile,
            site: None,
            contents: Contents::Running,
            asked: Vec::new(),
            time_scale: 20.0,
            rng_seed: 2,
            scenario: None,
            inventory: None,
        };
        let rehearsal = start(order).await.unwrap();
        let site = load::site_file(rehearsal.site()).unwrap_or_else(|problems| panic!("{problems}")).value;
        assert!(site.endpoints.iter().all(|endpoint| endpoint.starts_with("https://127.0.0.1:")));
        assert!(site.nodes.iter().all(|node| node.api.as_deref().is_some_and(|api| api.starts_with("127.0.0.1:"))));
        assert_eq!(site.dial[0].to.to_string(), rehearsal.networks()[0].net().to_string());
        assert_eq!(rehearsal.double().world().seed().vms.len(), 2);
        let root = rehearsal.profile().parent().and_then(Path::parent).unwrap().to_owned();
        assert!(rehearsal.state_dir().starts_with(&root) && rehearsal.cache_dir().starts_with(&root));
        rehearsal.stop().await;
        assert!(!root.exists());
    }
}
