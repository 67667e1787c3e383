//! Reads profile and site: all problems at once, each with line, column and snippet.
//!
//! Purpose: [`profile`] and [`site`] are pure; [`profile_file`] and [`site_file`] only read the file for them.
//! Must not know: what the values are used for. Start reading at [`profile`].

mod fields;
mod read_after;
mod read_profile;
mod read_site;

use std::fs;
use std::path::Path;

pub(in crate::profile) use fields::Log;

use super::problem::{Problem, Problems};
use super::tree::Source;
use super::{Profile, Site, check};

/// A file that was read, and where everything stands in it.
#[derive(Clone, Debug)]
pub struct Loaded<T> {
    /// What it says.
    pub value: T,
    /// What is worth knowing and stops nothing.
    pub warnings: Vec<Problem>,
    /// Its text and places: for problems that are found later, and for edits.
    pub source: Source,
}

/// Reads a profile from its text; `file` names it in messages and must be the cluster's name and `.yaml`.
pub fn profile(file: &str, text: &str) -> Result<Loaded<Profile>, Problems> {
    load(file, text, read_profile::profile, |value, log| check::profile(value, file, log))
}

/// Reads a site from its text; `file` names it in messages.
pub fn site(file: &str, text: &str) -> Result<Loaded<Site>, Problems> {
    load(file, text, read_site::site, check::site)
}

/// Reads a profile's file.
pub fn profile_file(path: &Path) -> Result<Loaded<Profile>, Problems> {
    profile(&path.display().to_string(), &read(path, "name the profile with --profile FILE")?)
}

/// Reads a site's file.
pub fn site_file(path: &Path) -> Result<Loaded<Site>, Problems> {
    let hint = "write one (`recast schema site` says what is in it), or name it with --site FILE";
    site(&path.display().to_string(), &read(path, hint)?)
}

fn read(path: &Path, hint: &str) -> Result<String, Problems> {
    fs::read_to_string(path).map_err(|error| {
        let mut problem = Problem::at("", format!("could not be read: {error}")).hinted(hint);
        problem.file = path.display().to_string();
        Problems(vec![problem])
    })
}

fn load<T>(
    file: &str,
    text: &str,
    read: impl FnOnce(fields::Fields<'_>) -> T,
    check: impl FnOnce(&T, &Log<'_>),
) -> Result<Loaded<T>, Problems> {
    let source = Source::parse(file, text)?;
    let log = Log::new(&source);
    let value = read(log.root());
    check(&value, &log);
    let (errors, warnings) = log.finish();
    if errors.is_empty() { Ok(Loaded { value, warnings, source }) } else { Err(Problems(errors)) }
}
