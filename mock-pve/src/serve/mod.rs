//! Listeners, TLS, and the files that tell clients where everything is.
//!
//! Purpose: puts a world behind sockets. Must not know: rules. Start at [`start`].

pub mod certificates;
pub mod inspect;
mod log;
pub mod loopback;
mod node;
mod opening;
mod page;
pub mod profile;
pub mod ready;
mod rooms;
mod timetable;
pub mod view;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

pub use self::certificates::Authority;
pub use self::ready::{Ready, ReadyMachine, ReadyNode, ReadySsh};

use self::certificates::CertificateError;
use self::node::OnNode;
use self::opening::Opening;
use crate::audit::Audit;
use crate::pve::auth::Auth;
use crate::pve::{Api, ApiError};
use crate::scenario::{self, Engine, Scenario, ScenarioError, Tally, Wire};
use crate::ssh::{KeyError, Keys};
use crate::world::machine::{Program, Room};
use crate::world::script::Flow;
use crate::world::seed::Seed;
use crate::world::{PveVersion, SEED, Settings, World, WorldError};

/// What is to be served, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What the world contains at its beginning.
    pub seed: Seed,
    /// The state folder; a temporary one when absent.
    pub state: Option<PathBuf>,
    /// Where the first node's API listens; port 0 takes a free one. Other nodes take free ports on the same address.
    pub listen: SocketAddr,
    /// What delays are divided by.
    pub time_scale: f64,
    /// Seed of everything random.
    pub rng_seed: u64,
    /// The release that is played, unless the seed names one.
    pub pve: PveVersion,
    /// What goes wrong and what happens, if anything.
    pub scenario: Option<Scenario>,
    /// A second place for the log of requests.
    pub log: Option<PathBuf>,
    /// A program that every control plane runs under its member of etcd: the original.
    pub etcd: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: Seed::single_node(),
            state: None,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            time_scale: 1.0,
            rng_seed: 0,
            pve: PveVersion::V8,
            scenario: None,
            log: None,
            etcd: None,
        }
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The world can't begin.
    #[error("the world can't begin")]
    World(#[from] WorldError),
    /// No certificates.
    #[error("there are no certificates")]
    Certificates(#[from] CertificateError),
    /// The API can't be served.
    #[error("the API can't be served")]
    Api(#[from] ApiError),
    /// No keys.
    #[error("there are no SSH keys")]
    Keys(#[from] KeyError),
    /// The factory can't be served.
    #[error("the Image Factory can't be served")]
    Factory(#[from] crate::factory::FactoryError),
    /// The seeded machines can't be made.
    #[error("the seeded machines can't be made")]
    Machines(#[from] crate::world::machine::SeedingError),
    /// The program that was named as etcd can't be used.
    #[error("there is no etcd")]
    Etcd(#[from] crate::world::machine::ProgramError),
    /// The scenario can't be followed.
    #[error("the scenario can't be followed")]
    Scenario(#[from] ScenarioError),
    /// An address can't be listened on.
    #[error("can't listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file can't be written.
    #[error("can't write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// A mock that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Running {
    /// Where everything is.
    pub ready: Ready,
    world: World,
    audit: Audit,
    apis: Vec<Api>,
    engine: Option<Engine>,
    room: Room,
    tasks: JoinSet<()>,
    /// Removed when the mock stops.
    temporary: Option<tempfile::TempDir>,
}

impl Running {
    /// The world behind it.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The machines that are up.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// What was destroyed, and by whom.
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// What became of each fault and event of the scenario.
    pub fn tally(&self) -> Vec<Tally> {
        self.engine.as_ref().map(Engine::tally).unwrap_or_default()
    }

    /// How many API requests were answered.
    pub fn requests(&self) -> u64 {
        self.apis.iter().map(Api::requests).sum()
    }

    /// Runs a part of the mock (the factory, the machines) for as long as the mock runs.
    pub fn also(&mut self, part: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(part);
    }

    /// Closes all sockets and saves the state.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
        self.world.hang_up();
        self.world.end_etcd().await;
        if self.temporary.is_none()
            && let Err(error) = self.world.save()
        {
            tracing::warn!(%error, "the state can't be saved");
        }
    }

    /// Writes the ready file: the last thing before clients are told to go.
    pub fn write_ready(&self, path: &Path) -> Result<(), StartError> {
        let text = serde_json::to_string_pretty(&self.ready).unwrap_or_default();
        let part = path.with_extension("part");
        write_private(&part, &text)?;
        std::fs::rename(&part, path).map_err(|source| StartError::File { path: path.to_owned(), source })
    }

    /// Writes the site file anew; whoever adds a factory to [`Running::ready`] calls it.
    pub fn write_site(&self) -> Result<(), StartError> {
        let token_file = self.world.dir().join("token");
        write_private(&self.ready.site_file, &self.ready.site(&token_file))
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), StartError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let open = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
        .map_err(|source| StartError::File { path: path.to_owned(), source })
}

/// A path that means the same in every folder: what is written about it is read elsewhere.
fn absolute(path: &Path) -> Result<PathBuf, StartError> {
    if path.as_os_str().is_empty() {
        return Ok(PathBuf::new());
    }
    std::path::absolute(path).map_err(|source| StartError::File { path: path.to_owned(), source })
}

/// Who signs tickets: the same over restarts, so that those that were given out hold on.
fn tickets(dir: &Path) -> Result<Auth, StartError> {
    let path = dir.join("ticket.key");
    let kept = std::fs::read_to_string(&path).ok().filter(|text| !text.is_empty());
    let key = if let Some(key) = kept {
        key
    } else {
        let key = hex::encode(Auth::secret());
        write_private(&path, &key)?;
        key
    };
    Ok(Auth::signing_with(key.as_bytes()))
}

/// The secrets of all tokens, by their whole names.
fn tokens(world: &World) -> BTreeMap<String, String> {
    let state = world.state();
    let users = state.access.users.iter();
    users
        .flat_map(|(user, known)| {
            known.tokens.iter().map(move |(name, token)| (format!("{user}!{name}"), token.secret.clone()))
        })
        .collect()
}

/// The state folder; a temporary one is removed when the mock stops.
fn folder(state: Option<PathBuf>) -> Result<(PathBuf, Option<tempfile::TempDir>), StartError> {
    if let Some(dir) = state {
        return Ok((absolute(&dir)?, None));
    }
    let made = tempfile::Builder::new()
        .prefix("mock-pve-")
        .tempdir()
        .map_err(|source| StartError::File { path: std::env::temp_dir(), source })?;
    Ok((made.path().to_owned(), Some(made)))
}

/// Makes the world of the options and serves its API. Answers once all sockets listen.
pub async fn start(options: Options) -> Result<Running, StartError> {
    let Options { mut seed, state, listen, time_scale, rng_seed, pve, scenario, log, etcd } = options;
    for cluster in &mut seed.clusters {
        cluster.secrets_file = absolute(&cluster.secrets_file)?;
    }
    let program = match etcd {
        Some(path) => Some(Program::find(&path).await?),
        None => None,
    };
    let (dir, temporary) = folder(state)?;
    let world = World::new(seed, Settings { dir: dir.clone(), time_scale, rng_seed, pve })?;
    if let Some(program) = program {
        world.use_etcd(program);
    }
    let engine = scenario.map(|scenario| Engine::new(scenario, rng_seed));
    if let Some(engine) = &engine {
        engine.begin(&world)?;
    }
    let authority = Authority::open(&dir)?;
    let keys = Keys::open(&dir)?;
    let audit = Audit::watch(&world);
    let auth = Arc::new(tickets(&dir)?);
    let mut tasks = JoinSet::new();
    let logs = std::iter::once(dir.join("requests.jsonl")).chain(log).collect();
    tasks.spawn(log::keep(logs, world.subscribe_answers()));
    let mut apis = Vec::new();
    let mut nodes = Vec::new();
    let names: Vec<(String, String)> = {
        let state = world.state();
        let local = state.local.clone();
        let mut names: Vec<_> = state.nodes.iter().map(|(name, node)| (name.clone(), node.ip.clone())).collect();
        names.sort_by_key(|(name, _)| *name != local);
        names
    };
    for (name, ip) in names {
        let address = if nodes.is_empty() { listen } else { SocketAddr::new(listen.ip(), 0) };
        let addresses: Vec<IpAddr> = ip.parse().into_iter().chain([listen.ip()]).collect();
        let leaf = authority.leaf(&name, &addresses)?;
        let listener = TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })?;
        let bound = listener.local_addr().map_err(|source| StartError::Listen { address, source })?;
        if let Some(node) = world.state().nodes.get_mut(&name) {
            node.fingerprint.clone_from(&leaf.fingerprint);
        }
        let api = Api::new(world.clone(), name.clone(), Arc::clone(&auth))?;
        let node = OnNode { world: world.clone(), name: name.clone() };
        let ssh = rooms::ssh(node.clone(), &api, &keys, listen.ip(), &mut tasks).await?;
        tasks.spawn(accept(listener, TlsAcceptor::from(leaf.config), api.clone(), node));
        apis.push(api);
        nodes.push(ReadyNode { name, api: bound.to_string(), fingerprint: leaf.fingerprint, ssh });
    }
    tasks.spawn(timetable::keep(world.clone(), apis.clone()));
    let tokens = tokens(&world);
    let machines = world
        .seed()
        .machines
        .iter()
        .map(|machine| ReadyMachine {
            name: machine.name.clone(),
            address: machine.address.addr(),
            dialled: world.dial_map(machine.address.addr()),
        })
        .collect();
    let factory = rooms::factory(&world, &authority, listen.ip(), &mut tasks).await?;
    let room = rooms::machines(&world, &mut tasks)?;
    let viewed =
        page::Viewed { world: world.downgrade(), room: room.clone(), engine: engine.clone(), audit: audit.clone() };
    for api in &apis {
        api.show(viewed.pages());
    }
    if let (Some(engine), Some(api)) = (&engine, apis.first()) {
        tasks.spawn(scenario::play(engine.clone(), world.downgrade(), rooms::Root(api.clone())));
    }
    let first = nodes.first().cloned().unwrap_or_default();
    let ready = Ready {
        pve: format!("https://{}", first.api),
        fingerprint: first.fingerprint,
        ca_file: authority.ca_file(),
        tokens,
        factory: Some(factory),
        ssh: first.ssh,
        nodes,
        machines,
        dial: world.seed().dial.clone(),
        site_file: dir.join("site.yaml"),
    };
    let preferred = ready.tokens.get_key_value("recast@pve!ci").or_else(|| ready.tokens.iter().next());
    if let Some((id, secret)) = preferred {
        write_private(&dir.join("token"), &format!("{id}={secret}\n"))?;
    }
    let kept = dir.join(SEED);
    if !kept.exists() {
        write_private(&kept, &serde_json::to_string(world.seed()).unwrap_or_default())?;
    }
    let running = Running { ready, world, audit, apis, engine, room, tasks, temporary };
    rooms::heard(&running.room).await;
    running.write_site()?;
    running.write_ready(&dir.join("ready.json"))?;
    Ok(running)
}

/// Serves one node's API; while the node has no power, nobody listens.
async fn accept(listener: TcpListener, acceptor: TlsAcceptor, api: Api, node: OnNode) {
    let place = node.clone();
    let serve = move |stream| {
        let (acceptor, api, place) = (acceptor.clone(), api.clone(), place.clone());
        async move {
            let Some(opening) = Opening::of(&stream).await else { return };
            let wire = Wire::new(stream).reading_at(place.world.flow(Flow::Upload));
            let cut = wire.cut();
            if place.turns_away().await {
                return cut.now();
            }
            if opening == Opening::Plain {
                return api.redirect(wire).await;
            }
            let handshake = tokio::time::timeout(Duration::from_secs(10), acceptor.accept(wire));
            match handshake.await {
                Ok(Ok(stream)) => api.serve(stream, cut).await,
                Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                Err(_) => tracing::debug!("a TLS handshake took too long"),
            }
        }
    };
    node.listen(listener, serve).await;
}
