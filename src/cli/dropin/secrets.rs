//! `recast secrets generate`, in the place of `talosctl gen secrets`.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;

use super::Done;
use super::output::{Existing, read, write};
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::config::Contract;
use crate::talos::secrets::Secrets;

/// Flags of `recast secrets generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Take them from a control plane's machine configuration
    #[arg(long, value_name = "FILE")]
    from_controlplane_config: Option<PathBuf>,
    /// Where they go, or - for stdout
    #[arg(short, long, value_name = "FILE", default_value = "secrets.yaml")]
    output_file: PathBuf,
    /// Talos version that they are for [default: the newest known]
    #[arg(long)]
    talos_version: Option<String>,
    /// Replace a file that is there
    #[arg(short, long)]
    force: bool,
}

impl Generate {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let now = Timestamp::now();
        let contract = self.talos_version.as_deref().map_or(Ok(Contract::NEWEST), str::parse).map_err(
            |error: crate::types::Malformed| Stop::because(ExitCode::Invalid, "--talos-version is no version", &error),
        )?;
        let secrets = match &self.from_controlplane_config {
            Some(path) => Secrets::from_machine_config(&read(path)?, now).map_err(|error| {
                Stop::because(ExitCode::Invalid, format!("no secrets can be taken from {}", path.display()), &error)
            })?,
            None => Secrets::generate(contract, now)
                .map_err(|error| Stop::because(ExitCode::Failed, "no secrets can be made", &error))?,
        };
        let text = secrets.to_yaml();
        if self.output_file == Path::new("-") {
            return Ok(Done { data: text.expose_secret().to_owned(), told: String::new() });
        }
        write(&self.output_file, &text, Existing::by(self.force))?;
        Ok(Done { data: String::new(), told: format!("Created {}\n", self.output_file.display()) })
    }
}
