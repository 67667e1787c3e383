//! Where results go: files that are never overwritten unasked, or stdout.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

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
    let parent = path.parent().filter(|_| parents == Parents::Make).map(direct);
    if let Some(parent) = parent.filter(|parent| !parent.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(|error| failed(path, &error))?;
    }
    // A link that leads nowhere yet is written through.
    let led = (!path.exists()).then(|| fs::read_link(path).ok()).flatten();
    let led = led.map(|to| path.parent().unwrap_or(path).join(to));
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    match existing {
        Existing::Keep => options.create_new(true),
        Existing::Replace => options.create(true).truncate(true),
    };
    let written = options.open(led.as_deref().unwrap_or(path)).and_then(|mut file| {
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

/// A path without its detours: `a/../b` is `b`, whatever there is of `a`.
pub(super) fn direct(path: &Path) -> PathBuf {
    let mut direct = PathBuf::new();
    for part in path.components() {
        match (part, direct.components().next_back()) {
            (Component::CurDir, _) | (Component::ParentDir, Some(Component::RootDir)) => {}
            (Component::ParentDir, Some(Component::Normal(_))) => {
                direct.pop();
            }
            _ => direct.push(part),
        }
    }
    direct
}

fn failed(path: &Path, error: &std::io::Error) -> Stop {
    Stop::because(ExitCode::Invalid, format!("{} can't be written", path.display()), error)
}

/// Reads a file that a flag names: UTF-8, or UTF-16 behind its mark, which Windows' shell writes.
pub(in crate::cli) fn read(path: &Path) -> Result<String, Stop> {
    fs::read(path).and_then(text).map_err(|error| {
        let stop = Stop::because(ExitCode::Invalid, format!("{} can't be read", path.display()), &error);
        match error.kind() {
            ErrorKind::InvalidData => stop.hinted("it must be text: YAML, or PEM, into which openssl turns DER"),
            ErrorKind::IsADirectory => stop.hinted("name a file in it"),
            _ => stop,
        }
    })
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    let read = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        _ => return String::from_utf8(bytes).map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is no UTF-8")),
    };
    read.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "it begins as UTF-16 and is none"))
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Option<String> {
    let (units, rest) = bytes.as_chunks::<2>();
    let text = char::decode_utf16(units.iter().map(|bytes| unit(*bytes))).collect::<Result<String, _>>().ok();
    text.filter(|_| rest.is_empty())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_utf8_or_utf16_behind_its_mark() {
        let of = |bytes: &[u8]| text(bytes.to_vec()).map_err(|error| error.to_string());
        assert_eq!(of("a: ü\n".as_bytes()).as_deref(), Ok("a: ü\n"));
        assert_eq!(of(b"\xff\xfea\0=\xd8\0\xde").as_deref(), Ok("a😀"));
        assert_eq!(of(b"\xfe\xff\0a\xd8=\xde\0").as_deref(), Ok("a😀"));
        assert_eq!(of(b"\xff").unwrap_err(), "it is no UTF-8");
        for broken in [&b"\xff\xfea"[..], b"\xff\xfe\x3d\xd8", b"\xfe\xff\xde\x00\xd8\x3d"] {
            assert_eq!(of(broken).unwrap_err(), "it begins as UTF-16 and is none");
        }
    }

    #[test]
    fn detours_are_left_out() {
        for (given, wanted) in
            [("a/../b", "b"), ("./a/.", "a"), ("../a/b/../..", ".."), ("/../a", "/a"), ("a//b/", "a/b"), (".", "")]
        {
            assert_eq!(direct(Path::new(given)), Path::new(wanted), "{given}");
        }
    }
}
