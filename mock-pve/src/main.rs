//! The command line of mock-pve.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use mock_pve::scenario::{self, Scenario};
use mock_pve::serve::inspect::{self, Of};
use mock_pve::serve::loopback::Loopback;
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Options, Running};
use mock_pve::world::seed::Seed;
use mock_pve::world::{PveVersion, SEED};

/// A Proxmox VE, Talos and Kubernetes double that real clients can rehearse against.
///
/// `mock-pve serve` plays a whole site on loopback: the PVE REST API, SSH on the nodes, an Image Factory, and machines
/// that boot Talos from the bytes of their disks, with etcd and Kubernetes over them. Nothing leaves the computer.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 120, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "Examples:
  mock-pve serve                                        one node, on https://127.0.0.1:8006; a page at /
  mock-pve serve --profile lab.yaml --state ./lab       the running cluster of a recast profile, kept over restarts
  mock-pve serve --seed inventory.json --time-scale 20  what `recast inventory` wrote, 20 times as fast as life
  mock-pve serve --scenario flaky.yaml                  with faults and events
  mock-pve scenario check flaky.yaml                    is it right?
  mock-pve inspect --state ./lab                        what is there now";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve a world until told to stop (Ctrl-C)
    #[command(after_help = scenario::EXAMPLE)]
    Serve(Serve),
    /// Print a world: nodes, storages, VMs, machines, etcd, tasks, destructive acts
    Inspect(Inspect),
    /// Check scenario files, or print their JSON Schema
    #[command(subcommand, after_help = scenario::EXAMPLE)]
    Scenario(About),
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// What the world contains at its beginning (JSON); one node with the usual storages when absent
    #[arg(long, value_name = "INVENTORY.json")]
    seed: Option<PathBuf>,
    /// Play the cluster of this profile, running; names, VMIDs and addresses must be spelled out in it
    #[arg(long, value_name = "CLUSTER.yaml", conflicts_with = "seed")]
    profile: Option<PathBuf>,
    /// What goes wrong, how long things take, and what happens when (YAML)
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Where the API of the first node listens; other nodes, SSH and the factory take free ports
    #[arg(long, default_value = "127.0.0.1:8006")]
    listen: SocketAddr,
    /// Keep the world here, also over restarts; a temporary folder when absent
    ///
    /// A folder that holds a world already goes on with it: the seed or profile only counts for the first start.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Divide the delays of real life (boot 25 s, clone 20 s …)
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    time_scale: f64,
    /// Write this, as JSON, once everything answers: URLs, fingerprint, CA, tokens, SSH, machines
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Log every request to this file too, as JSON lines (always in requests.jsonl of the state folder)
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Run this program, a real etcd, under every control plane's member: ports 2379 and 2380 of its machine. Recovering
    /// from a snapshot is refused then
    #[arg(long, value_name = "PROGRAM")]
    etcd: Option<PathBuf>,
    /// The release that is played, unless the seed names one
    #[arg(long, value_enum, default_value_t = Release::Eight)]
    pve: Release,
    /// Make MACs, UUIDs, secrets and all chance repeatable
    #[arg(long, value_name = "N", default_value_t = 0)]
    rng_seed: u64,
    /// What is told on stderr: `info`, `mock_pve=debug` …
    #[arg(long, default_value = "warn")]
    log_level: String,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Where {
    /// The state folder of a mock, running or not
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The API of a running mock on this computer; its certificate isn't checked
    #[arg(long, value_name = "https://127.0.0.1:8006")]
    url: Option<String>,
}

#[derive(Debug, clap::Args)]
struct Inspect {
    #[command(flatten)]
    place: Where,
    /// How
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Tables.
    Text,
    /// Everything, configurations and volumes included.
    Json,
}

#[derive(Debug, Subcommand)]
enum About {
    /// Say everything that is wrong with scenario files, with line and column
    Check {
        /// The files
        #[arg(required = true)]
        files: Vec<PathBuf>,
    },
    /// Print the JSON Schema of scenario files, for editors
    Schema,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Release {
    /// 8.4
    #[value(name = "8")]
    Eight,
    /// 9.1
    #[value(name = "9")]
    Nine,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Serve(arguments) => serve(arguments),
        Verb::Inspect(arguments) => inspect(&arguments),
        Verb::Scenario(About::Schema) => {
            say(&mut std::io::stdout(), scenario::SCHEMA.trim_end());
            Ok(())
        }
        Verb::Scenario(About::Check { files }) => check(&files),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("mock-pve: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            say(&mut std::io::stderr(), &text);
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

/// A closed pipe is the reader's choice.
fn say(to: &mut dyn std::io::Write, text: &str) {
    let _ = writeln!(to, "{text}");
}

fn check(files: &[PathBuf]) -> Result<(), Failure> {
    let wrong: Vec<String> =
        files.iter().filter_map(|path| Scenario::load(path).err()).map(|e| e.to_string()).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn inspect(arguments: &Inspect) -> Result<(), Failure> {
    let of = match (&arguments.place.state, &arguments.place.url) {
        (Some(dir), _) => Of::Folder(dir),
        (None, Some(url)) => Of::Url(url),
        (None, None) => return Err("name a state folder or a URL".into()),
    };
    let document = inspect::document(of)?;
    let text = match arguments.output {
        Output::Json => serde_json::to_string_pretty(&document)?,
        Output::Text => serve::view::text(&document).trim_end().to_owned(),
    };
    say(&mut std::io::stdout(), &text);
    Ok(())
}

/// What the world begins with, and what must be held while it is served.
fn beginning(arguments: &Serve) -> Result<(Seed, Vec<Loopback>), Failure> {
    if let Some(kept) = arguments.state.as_ref().map(|dir| dir.join(SEED)).filter(|kept| kept.exists()) {
        let seed = Seed::load(&kept)?;
        let networks = Loopback::hold(&std::env::temp_dir(), &seed)?;
        return Ok((seed, networks));
    }
    Ok(match (&arguments.seed, &arguments.profile) {
        (Some(path), _) => (Seed::load(path)?, Vec::new()),
        (None, Some(path)) => {
            let Profiled { seed, networks } = Profiled::load(path, &std::env::temp_dir())?;
            (seed, networks)
        }
        (None, None) => (Seed::single_node(), Vec::new()),
    })
}

fn serve(arguments: Serve) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&arguments.log_level))
        .with_writer(std::io::stderr)
        .init();
    let scenario = arguments.scenario.as_deref().map(Scenario::load).transpose()?;
    let (seed, _networks) = beginning(&arguments)?;
    let options = Options {
        seed,
        state: arguments.state,
        listen: arguments.listen,
        time_scale: arguments.time_scale,
        rng_seed: arguments.rng_seed,
        pve: match arguments.pve {
            Release::Eight => PveVersion::V8,
            Release::Nine => PveVersion::V9,
        },
        scenario,
        log: arguments.log,
        etcd: arguments.etcd,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let running = serve::start(options).await?;
        if let Some(path) = &arguments.ready_file {
            running.write_ready(path)?;
        }
        greet(&running);
        stopped().await;
        say(&mut std::io::stderr(), &tally(&running));
        running.stop().await;
        Ok(())
    })
}

/// Where everything is, for whoever started it by hand.
fn greet(running: &Running) {
    let ready = &running.ready;
    let mut lines = vec![
        format!("pve          {}   (a page that shows all of it: {}/)", ready.pve, ready.pve),
        format!("fingerprint  {}", ready.fingerprint),
        format!("ca           {}", ready.ca_file.display()),
        format!("ssh          ssh -i {} -p {} root@{}", ready.ssh.key.display(), ready.ssh.port, ready.ssh.host),
    ];
    lines.extend(ready.factory.iter().map(|url| format!("factory      {url}")));
    // The secret itself is in a file: a terminal's history is no place for it.
    lines.extend(ready.tokens.keys().map(|id| format!("token        {id}")));
    let machine = |one: &serve::ReadyMachine| format!("machine      {} {} at {}", one.name, one.address, one.dialled);
    lines.extend(ready.machines.iter().map(machine));
    lines.push(format!("site         {}", ready.site_file.display()));
    lines.push(format!("ready        {}", running.world().dir().join("ready.json").display()));
    say(&mut std::io::stdout(), &lines.join("\n"));
}

/// What became of the scenario: a fault that never happened is a test that tested nothing.
fn tally(running: &Running) -> String {
    let tally = running.tally();
    let lines = tally.iter().map(|one| match &one.failed {
        Some(why) => format!("{}: failed: {why}", one.name),
        None if one.happened == 0 => format!("{}: never happened ({} matches)", one.name, one.matched),
        None => format!("{}: happened {} times ({} matches)", one.name, one.happened, one.matched),
    });
    lines.map(|line| format!("scenario: {line}")).collect::<Vec<_>>().join("\n")
}

/// Waits for Ctrl-C or SIGTERM.
async fn stopped() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without a handler the default applies: the process ends.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}
