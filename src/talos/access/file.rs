//! Writes a file that holds secrets: 0600 from the first byte, whole or not at all, the previous one kept beside it.
//!
//! Must not know: what is in the file.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::AccessError;

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
/// `.recast-backup` behind it, over an older backup.
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
        Ok(previous) => {
            let mut backup = path.clone().into_os_string();
            backup.push(".recast-backup");
            let backup = PathBuf::from(backup);
            replace(dir, &backup, &previous)?;
            Written::Replaced { backup }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Written::New,
        Err(error) => return Err(error),
    };
    replace(dir, &path, content)?;
    Ok(written)
}

/// A private file beside the target takes its place once it is on the disk. The folder is synced too, so that the name
/// survives a crash.
fn replace(dir: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(".recast-")
        .make_in(dir, |path| OpenOptions::new().write(true).create_new(true).mode(0o600).open(path))?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
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
