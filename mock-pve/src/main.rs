//! The command line of mock-pve.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use mock_pve::serve::profile::Profiled;
use mock_pve::serve::{self, Options};
use mock_pve::world::PveVersion;
use mock_pve::world::seed::Seed;

/// A Proxmox VE and Talos double that real clients can rehearse against.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serves a world until it is told to stop.
    Serve(Serve),
    /// Prints the world that a state folder holds, as JSON.
    Inspect {
        /// The state folder of a mock, running or not.
        state: PathBuf,
    },
}

#[derive(Debug, clap::Args)]
struct Serve {
    /// What the world contains at its beginning (JSON); one node with the usual storages when absent.
    #[arg(long, value_name = "INVENTORY.json")]
    seed: Option<PathBuf>,
    /// Plays the cluster of this profile, running; names, VMIDs and addresses must be spelled out in it.
    #[arg(long, value_name = "CLUSTER.yaml", conflicts_with = "seed")]
    profile: Option<PathBuf>,
    /// Where the API of the first node listens.
    #[arg(long, default_value = "127.0.0.1:8006")]
    listen: SocketAddr,
    /// Keeps the world here, also over restarts; a temporary folder when absent.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Divides the delays of real life.
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    time_scale: f64,
    /// Written, as JSON, once everything answers.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// The release that is played, unless the seed names one.
    #[arg(long, value_enum, default_value_t = Release::Eight)]
    pve: Release,
    /// Makes MACs, UUIDs and secrets repeatable.
    #[arg(long, value_name = "N", default_value_t = 0)]
    rng_seed: u64,
    /// What is logged on stderr: `info`, `mock_pve=debug` …
    #[arg(long, default_value = "warn")]
    log_level: String,
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
        Verb::Inspect { state } => inspect(&state.join("state.json")),
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

fn inspect(path: &std::path::Path) -> Result<(), Failure> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let world: serde_json::Value = serde_json::from_slice(&text)?;
    say(&mut std::io::stdout(), &serde_json::to_string_pretty(&hide_secrets(world))?);
    Ok(())
}

/// Passwords and token secrets are nobody's business who looks at the world.
fn hide_secrets(mut world: serde_json::Value) -> serde_json::Value {
    if let Some(users) = world.pointer_mut("/access/users").and_then(serde_json::Value::as_object_mut) {
        for user in users.values_mut() {
            user["password"] = serde_json::Value::Null;
            let tokens = user.get_mut("tokens").and_then(serde_json::Value::as_object_mut);
            for token in tokens.into_iter().flat_map(serde_json::Map::values_mut) {
                token["secret"] = serde_json::Value::Null;
            }
        }
    }
    world
}

fn serve(arguments: Serve) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(&arguments.log_level))
        .with_writer(std::io::stderr)
        .init();
    let (seed, _networks) = match (&arguments.seed, &arguments.profile) {
        (Some(path), _) => (Seed::load(path)?, Vec::new()),
        (None, Some(path)) => {
            let Profiled { seed, networks } = Profiled::load(path, &std::env::temp_dir())?;
            (seed, networks)
        }
        (None, None) => (Seed::single_node(), Vec::new()),
    };
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
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async move {
        let running = serve::start(options).await?;
        if let Some(path) = &arguments.ready_file {
            running.write_ready(path)?;
        }
        let mut stdout = std::io::stdout();
        say(&mut stdout, &format!("pve          {}", running.ready.pve));
        say(&mut stdout, &format!("fingerprint  {}", running.ready.fingerprint));
        say(&mut stdout, &format!("ca           {}", running.ready.ca_file.display()));
        say(&mut stdout, &format!("site         {}", running.ready.site_file.display()));
        let _ = stdout.flush();
        stopped().await;
        running.stop().await;
        Ok(())
    })
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
