//! Writes a file that holds secrets: 0600 from the first byte, whole or not at all, every previous one kept beside it.
//!
//! Must not know: what is in the file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use tempfile::NamedTempFile;

use super::AccessError;

/// What stands behind the name of a file that was replaced.
const BACKUP: &str = ".recast-backup";
/// So many backups are looked through at most.
const MOST: u32 = 10_000;

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was there already, byte for byte.
    Unchanged,
    /// It is new.
    New,
    /// It replaced another, which is kept here.
    Replaced {
        /// The copy of the previous file, 0600.
        backup: PathBuf,
    },
}

/// Writes `text` to `path`, through a symbolic link if it is one. The previous content goes to `path` with
/// `.recast-backup` behind it, and a number where that has something else already: no backup is ever replaced.
pub fn write_private(path: &Path, text: &SecretString) -> Result<Written, AccessError> {
    write(path, text.expose_secret().as_bytes()).map_err(|source| AccessError::Io { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> io::Result<Written> {
    let path = match fs::canonicalize(path) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(error),
    };
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let written = match fs::read(&path) {
        Ok(previous) if previous == content => {
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            return Ok(Written::Unchanged);
        }
        Ok(previous) => Written::Replaced { backup: keep(dir, &path, &previous)? },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Written::New,
        Err(error) => return Err(error),
    };
    replace(dir, &path, content)?;
    Ok(written)
}

/// Puts a file's content beside it, under the first name that is free or has it already.
fn keep(dir: &Path, path: &Path, content: &[u8]) -> io::Result<PathBuf> {
    let mut number = 1_u32;
    loop {
        let mut name = path.as_os_str().to_owned();
        name.push(BACKUP);
        if number > 1 {
            name.push(format!(".{number}"));
        }
        let backup = PathBuf::from(name);
        match fs::read(&backup) {
            Ok(there) if there == content => {
                fs::set_permissions(&backup, Permissions::from_mode(0o600))?;
                return Ok(backup);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match private(dir, content)?.persist_noclobber(&backup) {
                    Ok(_) => return File::open(dir)?.sync_all().map(|()| backup),
                    // Someone else took the name since: the next one, then.
                    Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error.error),
                }
            }
            // The name is taken by something that can't be compared.
            Err(_) if number < MOST => {}
            Err(error) => return Err(error),
        }
        number += 1;
    }
}

/// A private file beside the target takes its place once it is on the disk. The folder is synced too, so that the name
/// survives a crash.
fn replace(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    private(dir, content)?.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// A file of some name for its owner only, with its content on the disk.
fn private(dir: &Path, content: &[u8]) -> io::Result<NamedTempFile<File>> {
    let mut file = tempfile::Builder::new()
        .prefix(".recast-")
        .make_in(dir, |path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_whole_and_backed_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/config");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(write_private(&path, &"one".into()).unwrap(), Written::New);
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(write_private(&path, &"one".into()).unwrap(), Written::Unchanged);
        assert_eq!(mode(&path), 0o600);
        let Written::Replaced { backup } = write_private(&path, &"two".into()).unwrap() else { panic!("not replaced") };
        assert_eq!(fs::read_to_string(&backup).unwrap(), "one");
        assert_eq!((mode(&path), mode(&backup)), (0o600, 0o600));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 2);
    }

    #[test]
    fn no_backup_is_ever_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let backup = |text: &str| match write_private(&path, &text.into()).unwrap() {
            Written::Replaced { backup } => backup.file_name().unwrap().to_str().unwrap().to_owned(),
            other => panic!("{other:?}"),
        };
        fs::write(&path, "the user's").unwrap();
        assert_eq!(backup("one"), "config.recast-backup");
        assert_eq!(backup("two"), "config.recast-backup.2");
        assert_eq!(backup("one"), "config.recast-backup.3");
        // What is kept already is not kept twice, and from then on is nobody else's to read.
        let kept_before = dir.path().join("config.recast-backup.2");
        fs::set_permissions(&kept_before, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(backup("three"), "config.recast-backup.2");
        assert_eq!(fs::metadata(&kept_before).unwrap().permissions().mode() & 0o777, 0o600);
        // A name that is taken by something else is passed over.
        fs::create_dir(dir.path().join("config.recast-backup.4")).unwrap();
        fs::write(&path, "another").unwrap();
        assert_eq!(backup("three"), "config.recast-backup.5");
        let kept = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(kept("config.recast-backup"), "the user's");
        assert_eq!(kept("config.recast-backup.2"), "one");
        assert_eq!(kept("config.recast-backup.3"), "two");
        assert_eq!(kept("config"), "three");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6, "nothing else is left");
    }

    #[test]
    fn a_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "one").unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        write_private(&link, &"two".into()).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&target).unwrap(), "two");
    }
}
