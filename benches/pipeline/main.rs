//! Side by side: how an image comes from its URL into a template's volume, by recast and by the ways people use.
//!
//! `cargo bench --bench pipeline -- [--rounds N] [--disks t19,t111] [--folder DIR] [--only NAME,…] [--docs DIR]`
//!
//! Makes the disks, serves them on loopback (redirects and all), starts OpenSSH's own server as the node and mock-pve as
//! its API, runs every way in turn, round by round, and compares the whole result with the disk after the clock has
//! stopped. Client and node are one computer, so nothing overlaps as well as it would on two: ratios count, seconds don't.

mod disks;
mod node;
mod part;
mod report;
mod server;
mod ways;

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// What was asked for.
struct Asked {
    rounds: usize,
    disks: Vec<String>,
    folder: PathBuf,
    only: Vec<String>,
    docs: Option<PathBuf>,
}

fn asked() -> Result<Asked, Failure> {
    let mut asked = Asked {
        rounds: 5,
        disks: vec!["t19".to_owned(), "t111".to_owned()],
        folder: std::env::temp_dir().join("recast-pipeline"),
        only: Vec::new(),
        docs: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        // What cargo itself says to a bench.
        if word == "--bench" {
            continue;
        }
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--rounds" => asked.rounds = value()?.parse()?,
            "--disks" => asked.disks = value()?.split(',').map(str::to_owned).collect(),
            "--folder" => asked.folder = value()?.into(),
            "--only" => asked.only = value()?.split(',').map(str::to_owned).collect(),
            "--docs" => asked.docs = Some(value()?.into()),
            other => return Err(format!("unknown: {other}").into()),
        }
    }
    Ok(asked)
}

/// Tells how far it is.
pub(crate) fn say(text: &str) {
    // Nobody is left to hear that a pipe is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn run() -> Result<(), Failure> {
    let asked = asked()?;
    std::fs::create_dir_all(&asked.folder)?;
    let server = server::Server::start(&asked.folder)?;
    let node = node::Node::start(&asked.folder)?;
    let mut measured = Vec::new();
    for name in &asked.disks {
        let disk = disks::make(name, &asked.folder)?;
        say(&format!("{name}: {} bytes, {} packed by xz", disk.bytes, disk.packed));
        let mut rows = ways::Rows::new(&disk, &asked.only);
        for round in 1..=asked.rounds {
            rows.round(round, &disk, &server, &node)?;
        }
        measured.push((disk, rows));
    }
    let text = report::markdown(&measured, asked.rounds);
    let _ = std::io::stdout().write_all(text.as_bytes());
    if let Some(docs) = &asked.docs {
        std::fs::create_dir_all(docs)?;
        std::fs::write(docs.join("pipeline.md"), text)?;
        std::fs::write(docs.join("pipeline.svg"), report::svg(&measured))?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let done = if words.next().as_deref() == Some("part") { part::run(words.collect()) } else { run() };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("pipeline: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                text = format!("{text}: {error}");
                cause = error.source();
            }
            say(&text);
            ExitCode::FAILURE
        }
    }
}
