//! `recast config validate`, in the place of `talosctl validate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Done;
use super::output::read;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::config::validate::{Mode, validate};

/// Where the configuration will be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Where {
    Metal,
    Cloud,
    Container,
}

/// Flags of `recast config validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// The configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Where it will be used: on Proxmox VE with Talos' nocloud image, cloud
    #[arg(short, long)]
    mode: Where,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let path = self.config.display();
        let mode = match self.mode {
            Where::Metal => Mode::Metal,
            Where::Cloud => Mode::Cloud,
            Where::Container => Mode::Container,
        };
        let mut found = validate(&read(&self.config)?, mode)
            .map_err(|error| Stop::because(ExitCode::Invalid, format!("{path} is no configuration"), &error))?;
        if self.strict {
            found.errors.append(&mut found.warnings);
        }
        let warnings: Vec<String> = found.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        if found.errors.is_empty() {
            let told = warnings.iter().fold(String::new(), |told, warning| told + warning + "\n");
            return Ok(Done { data: String::new(), told: format!("{told}{path} is valid\n") });
        }
        let mut stop = Stop::new(ExitCode::Invalid, format!("{path} is not valid: {} problem(s)", found.errors.len()));
        stop.problems[0].causes = found.errors.iter().map(ToString::to_string).chain(warnings).collect();
        Err(stop)
    }
}
