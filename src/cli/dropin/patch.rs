//! `recast config patch`, in the place of `talosctl machineconfig patch`.

use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::ExposeSecret as _;

use super::Done;
use super::output::{Existing, apply, patch, read, write};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::config::Config;

/// Flags of `recast config patch`.
#[derive(Debug, Args)]
pub struct Patch {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the result goes [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A patch: @FILE, or the patch itself; several are applied in their order
    #[arg(short = 'p', long = "patch", value_name = "PATCH")]
    given: Vec<String>,
}

impl Patch {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let mut config = Config::parse(&read(&self.file)?).map_err(|error| {
            Stop::because(ExitCode::Invalid, format!("{} is no configuration", self.file.display()), &error)
        })?;
        let patches = self.given.iter().map(|given| patch(given)).collect::<Result<Vec<_>, _>>()?;
        apply(&mut config, &patches)?;
        // The real tool's JSON patches go through JSON, which sorts.
        let sorted = patches.last().is_some_and(crate::talos::config::Patch::is_json);
        let text = if sorted { config.to_sorted_yaml() } else { config.to_yaml() };
        match &self.output {
            Some(path) if path != Path::new("-") => {
                write(path, &text, Existing::Replace)?;
                Ok(Done { data: String::new(), told: format!("Created {}\n", path.display()) })
            }
            _ => Ok(Done { data: text.expose_secret().to_owned(), told: String::new() }),
        }
    }
}
