//! Where results go: files that are never overwritten unasked, or stdout.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::talos::config::{Config, Patch};

/// Whether a file that is there may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    Keep,
    Replace,
}

impl Existing {
    pub(super) fn by(force: bool) -> Self {
        if force { Self::Replace } else { Self::Keep }
    }
}

/// Whether folders that are missing are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parents {
    Make,
    Expect,
}

/// Writes a secret text, for its owner only. talosctl's own files may be read by everybody.
pub(super) fn write(path: &Path, text: &SecretString, existing: Existing, parents: Parents) -> Result<(), Stop> {
    let parent = path.parent().filter(|parent| parents == Parents::Make && !parent.as_os_str().is_empty());
    if let Some(parent) = parent {
        fs::create_dir_all(parent).map_err(|error| failed(path, &error))?;
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match existing {
        Existing::Keep => options.create_new(true),
        Existing::Replace => options.create(true).truncate(true),
    };
    let written = options.open(path).and_then(|mut file| {
        // One that is replaced had a mode of its own.
        if existing == Existing::Replace && file.metadata()?.is_file() {
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
        }
        file.write_all(text.expose_secret().as_bytes())
    });
    written.map_err(|error| {
        if error.kind() == ErrorKind::AlreadyExists {
            return Stop::new(ExitCode::Invalid, format!("{} is there already", path.display()))
                .hinted("nothing was written to it; --force replaces it");
        }
        failed(path, &error)
    })
}

fn failed(path: &Path, error: &std::io::Error) -> Stop {
    Stop::because(ExitCode::Invalid, format!("{} can't be written", path.display()), error)
}

/// Reads a file that a flag names.
pub(in crate::cli) fn read(path: &Path) -> Result<String, Stop> {
    fs::read_to_string(path).map_err(|error| {
        let stop = Stop::because(ExitCode::Invalid, format!("{} can't be read", path.display()), &error);
        match error.kind() {
            ErrorKind::InvalidData => stop.hinted("it must be text: YAML, or PEM, into which openssl turns DER"),
            ErrorKind::IsADirectory => stop.hinted("name a file in it"),
            _ => stop,
        }
    })
}

/// Reads a patch as talosctl does: `@FILE`; a word that can't be a patch is a file as well; all else is the patch itself.
pub(super) fn patch(given: &str) -> Result<Patch, Stop> {
    let literal = given.contains(['\n', ' ']) || given.starts_with(['[', '{']);
    let file = given.strip_prefix('@').or((!literal).then_some(given));
    let (text, origin) = match file {
        Some(path) => (read(Path::new(path))?, path),
        None => (given.to_owned(), "on the command line"),
    };
    Patch::parse_strictly(&text, origin)
        .map_err(|error| Stop::because(ExitCode::Invalid, "a patch can't be used", &error))
}

/// Applies patches in their order.
pub(super) fn apply<'a>(config: &mut Config, patches: impl IntoIterator<Item = &'a Patch>) -> Result<(), Stop> {
    for patch in patches {
        config.apply(patch).map_err(|error| {
            Stop::because(ExitCode::Invalid, format!("patch {} can't be applied", patch.origin()), &error)
        })?;
    }
    Ok(())
}
