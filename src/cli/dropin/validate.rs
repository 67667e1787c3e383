//! `recast config validate`, in the place of `talosctl validate`.

use std::path::PathBuf;

use clap::Args;

use super::Done;
use super::output::read;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::config::validate::{Mode, validate};

/// Flags of `recast config validate`.
#[derive(Debug, Args)]
pub struct Validate {
    /// The configuration
    #[arg(short, long, value_name = "FILE")]
    config: PathBuf,
    /// Where it will be used: metal, cloud or container; on Proxmox VE with Talos' nocloud image, cloud
    #[arg(short, long, value_name = "MODE")]
    mode: String,
    /// Warnings are errors
    #[arg(long)]
    strict: bool,
}

impl Validate {
    pub(super) fn run(self) -> Result<Done, Stop> {
        let path = self.config.display();
        let mode = match self.mode.as_str() {
            "metal" => Mode::Metal,
            // An agent that is no metal asks for the same; talosctl takes it without a word of it.
            "cloud" | "metal-agent" => Mode::Cloud,
            "container" => Mode::Container,
            other => {
                return Err(Stop::new(ExitCode::Invalid, format!("there is no mode '{other}'"))
                    .hinted("--mode takes metal, cloud or container"));
            }
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
