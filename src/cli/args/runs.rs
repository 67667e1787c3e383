//! Verbs about runs and plans that exist already: apply, resume, rollback, runs.
//!
//! Must not know: where runs are kept.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use crate::types::RunId;

/// `recast apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// A plan that `--plan-out` wrote
    pub plan: PathBuf,
    /// Print the plan, read its facts again and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast resume`.
#[derive(Debug, Args)]
pub struct Resume {
    /// The run [default: the newest unfinished one of this cluster]
    pub run: Option<RunId>,
    /// Print what is left and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The run [default: the newest unfinished one of this cluster]
    pub run: Option<RunId>,
    /// Bring these machines back to the Talos that they ran before, whatever run brought them where they are
    #[arg(long, value_name = "A,B", value_delimiter = ',', conflicts_with = "run", env = "RECAST_NODES", value_parser = NonEmptyStringValueParser::new())]
    pub nodes: Option<Vec<String>>,
    /// Print what would be done and stop
    #[arg(long)]
    pub dry_run: bool,
}

/// `recast runs`.
#[derive(Debug, Subcommand)]
pub enum Runs {
    /// List the runs of this cluster
    List,
    /// Show what a run did and where it stands
    Show {
        /// The run
        run: RunId,
    },
    /// Print a run's report, or write it in other formats
    Report(ReportOf),
}

/// `recast runs report`.
#[derive(Debug, Args)]
pub struct ReportOf {
    /// The run
    pub run: RunId,
    /// Write it as one HTML page
    #[arg(long, value_name = "FILE", env = "RECAST_HTML")]
    pub html: Option<PathBuf>,
    /// Write it as JUnit XML: a suite per phase, a case per step and gate
    #[arg(long, value_name = "FILE", env = "RECAST_JUNIT")]
    pub junit: Option<PathBuf>,
    /// Write it as Markdown, for a merge request or a CI job's summary
    #[arg(long, value_name = "FILE", env = "RECAST_MARKDOWN")]
    pub markdown: Option<PathBuf>,
}
