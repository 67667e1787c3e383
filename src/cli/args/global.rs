//! Flags of all verbs.
//!
//! Must not know: the verbs.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Flags of all verbs. Each is also an environment variable `RECAST_<FLAG>`, except `--confirm` and `--break-lock`.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of all verbs")]
pub struct Global {
    /// The cluster's profile
    #[arg(short, long, global = true, value_name = "FILE", env = "RECAST_PROFILE")]
    pub profile: Option<PathBuf>,
    /// The site file [default: `site` of the profile, else site.yaml beside it]
    #[arg(long, global = true, value_name = "FILE", env = "RECAST_SITE")]
    pub site: Option<PathBuf>,
    /// Where runs are kept [default: recast in the XDG state folder]
    #[arg(long, global = true, value_name = "DIR", env = "RECAST_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Where images are kept [default: recast in the XDG cache folder]
    #[arg(long, global = true, value_name = "DIR", env = "RECAST_CACHE_DIR")]
    pub cache_dir: Option<PathBuf>,
    /// Write the report here, also after a refusal: report.json, .txt, .md and .html, and junit.xml
    #[arg(long, global = true, value_name = "DIR", env = "RECAST_REPORT_DIR")]
    pub report_dir: Option<PathBuf>,
    /// What stdout carries
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text", env = "RECAST_OUTPUT")]
    pub output: OutputFormat,
    /// Write events as JSON lines to this file, or - for stdout
    #[arg(long, global = true, value_name = "FILE", env = "RECAST_EVENTS")]
    pub events: Option<String>,
    /// What goes into the run's log
    #[arg(long, global = true, value_name = "FILTER", default_value = "recast=debug", env = "RECAST_LOG_LEVEL")]
    pub log_level: String,
    /// The cluster's name, where nobody is there to type it
    #[arg(long, global = true, value_name = "CLUSTER")]
    pub confirm: Option<String>,
    /// Take over a run whose process is gone although its lock is held elsewhere
    #[arg(long, global = true)]
    pub break_lock: bool,
    /// No progress bars
    #[arg(long, global = true, env = "RECAST_NO_PROGRESS")]
    pub no_progress: bool,
    /// Colour on stderr
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", env = "RECAST_COLOR")]
    pub color: Color,
}

/// What stdout carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// The verb's own text.
    #[default]
    Text,
    /// One versioned JSON document.
    Json,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
