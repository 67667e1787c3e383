//! `recast config patch`, in the place of `talosctl machineconfig patch`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret as _, SecretString};

use super::Done;
use super::output::{Existing, Parents, apply, patch, read, write};
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
    output: Option<OsString>,
    /// A patch: @FILE, or the patch itself; several are applied in their order.
    ///
    /// As with talosctl, a patch with nothing in it is a JSON patch without operations: it sorts a configuration of one
    /// document, and can't be applied to others. Unlike with talosctl, a document that is to be deleted has to be there,
    /// and dates in kubelet's configuration and the like are quoted.
    #[arg(short = 'p', long = "patch", value_name = "PATCH", allow_hyphen_values = true)]
    given: Vec<String>,
}

impl Patch {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let given = read(&self.file)?;
        let patches = self.given.iter().map(|given| patch(given)).collect::<Result<Vec<_>, _>>()?;
        let unfit = |error: &(dyn std::error::Error + 'static)| {
            Stop::because(ExitCode::Invalid, format!("{} is no configuration", self.file.display()), error)
        };
        // The real tool's JSON patches work on the text, which need be no configuration, and sort it.
        let is_json = crate::talos::config::Patch::is_json;
        let text = if patches.is_empty() {
            SecretString::from(given)
        } else {
            let mut config = if patches.first().is_some_and(is_json) {
                Config::parse_whole(&given).map_err(|error| unfit(&error))?
            } else {
                Config::read(&given).map_err(|error| unfit(&error))?
            };
            apply(&mut config, &patches)?;
            if patches.last().is_some_and(is_json) { config.to_sorted_yaml() } else { config.to_yaml() }
        };
        match &self.output {
            Some(path) if !path.is_empty() && path != "-" => {
                let path = Path::new(path);
                write(path, &text, Existing::Replace, Parents::Make)?;
                Ok(Done { data: String::new(), told: format!("Created {}\n", path.display()) })
            }
            // The real tool ends what it prints with a line of its own.
            _ => Ok(Done { data: format!("{}\n", text.expose_secret()), told: String::new() }),
        }
    }
}
