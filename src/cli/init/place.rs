//! The files, made aside and put in their places together.
//!
//! Purpose: nothing half-written, nothing overwritten, secrets never readable by others. Must not know: what is in them.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;

use crate::cli::stop::Stop;
use crate::exit::ExitCode;

/// A folder beside the places that the files will have.
pub(super) struct Stage {
    out: PathBuf,
    name: String,
    folder: TempDir,
    files: Mutex<BTreeSet<String>>,
}

impl Stage {
    /// In `out`, which is made where it isn't there.
    pub(super) fn new(out: &Path, name: &str) -> Result<Self, Stop> {
        let usable = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-');
        if !usable {
            return Err(Stop::new(ExitCode::Refused, format!("the cluster's name '{name}' can't be a file's"))
                .hinted("a profile is named by letters, digits and dashes, and so is its cluster"));
        }
        let failed = |error: &io::Error| {
            Stop::because(ExitCode::Invalid, format!("{} can't be written to", out.display()), error)
        };
        fs::create_dir_all(out).map_err(|error| failed(&error))?;
        let folder = tempfile::Builder::new().prefix(".recast-init-").tempdir_in(out);
        let folder = folder.map_err(|error| failed(&error))?;
        Ok(Self { out: out.to_owned(), name: name.to_owned(), folder, files: Mutex::default() })
    }

    /// The profile's file name.
    pub(super) fn profile(&self) -> String {
        format!("{}.yaml", self.name)
    }

    /// Where a file is until all are done.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Every place that is taken, at once. A folder of patches that is there would be read as well, so it counts.
    pub(super) fn refuse_existing(&self, with_site: bool) -> Result<(), Stop> {
        let mut wanted = vec![self.profile(), format!("{}.lock", self.name), format!("{}/secrets.yaml", self.name)];
        wanted.push(format!("{}/patches", self.name));
        if with_site {
            wanted.push("site.yaml".to_owned());
        }
        let taken: Vec<String> = wanted.into_iter().filter(|file| self.out.join(file).exists()).collect();
        if taken.is_empty() {
            return Ok(());
        }
        let mut stop: Option<Stop> = None;
        for file in taken {
            let shown = self.out.join(&file);
            let hint = if file == "site.yaml" {
                format!("--site {} takes it as it is", shown.display())
            } else {
                "nothing was written; move it away, or name another folder with --out".to_owned()
            };
            let one = Stop::new(ExitCode::Refused, format!("{} is there already", shown.display())).hinted(hint);
            match &mut stop {
                Some(stop) => stop.problems.extend(one.problems),
                None => stop = Some(one),
            }
        }
        stop.map_or(Ok(()), Err)
    }

    /// Writes a file aside. All of them are for their owner only; what isn't secret may be opened to others later.
    pub(super) fn put(&self, file: &str, text: &SecretString) -> Result<(), Stop> {
        let path = self.path(file);
        Self::write(&path, text).map_err(|error| {
            Stop::because(ExitCode::Failed, format!("{} can't be written", self.out.join(file).display()), &error)
        })?;
        let mut files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        files.insert(file.to_owned());
        Ok(())
    }

    fn write(path: &Path, text: &SecretString) -> io::Result<()> {
        folders(path)?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.expose_secret().as_bytes())?;
        file.sync_all()
    }

    /// Puts all files in their places, the profile last; a place that was taken meanwhile takes back the others.
    pub(super) fn publish(&self) -> Result<Vec<PathBuf>, Stop> {
        let files = self.files.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let profile = self.profile();
        let mut ordered: Vec<&String> = files.iter().filter(|file| **file != profile).collect();
        ordered.extend(files.get(&profile));
        let mut done: Vec<PathBuf> = Vec::new();
        for file in ordered {
            let place = self.out.join(file);
            // A link to a place that is taken fails; a rename would overwrite it.
            let placed = folders(&place).and_then(|()| fs::hard_link(self.path(file), &place));
            if let Err(error) = placed {
                for path in &done {
                    let _gone = fs::remove_file(path);
                }
                return Err(Stop::because(ExitCode::Failed, format!("{} can't be written", place.display()), &error)
                    .hinted("nothing was left behind"));
            }
            done.push(place);
        }
        done.reverse();
        Ok(done)
    }
}

/// The folders above a file.
fn folders(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(0o700).create(parent),
        None => Ok(()),
    }
}

/// A site file as a profile in `out` names it; none for `site.yaml` beside it.
pub(super) fn relative(site: &Path, out: &Path) -> Option<String> {
    let whole =
        |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_owned());
    let (site, out) = (whole(site), whole(out));
    let shown = site.strip_prefix(&out).map_or_else(|_| site.clone(), Path::to_path_buf);
    (shown != Path::new("site.yaml")).then(|| shown.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_come_together_private_and_over_nothing() {
        let root = tempfile::tempdir().unwrap();
        let out = root.path().join("new");
        let stage = Stage::new(&out, "lab").unwrap();
        stage.refuse_existing(true).unwrap();
        for file in ["lab/secrets.yaml", "site.yaml", "lab.yaml", "lab/patches/all/1-remove.yaml"] {
            stage.put(file, &file.to_owned().into()).unwrap();
        }
        assert!(!out.join("lab.yaml").exists(), "nothing is there before all is");
        let files = stage.publish().unwrap();
        drop(stage);
        assert_eq!(files[0], out.join("lab.yaml"));
        let mode = fs::metadata(out.join("lab/secrets.yaml")).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode, files.len()), (0o600, 4));
        assert_eq!(fs::read_dir(&out).unwrap().count(), 3, "nothing else is left");

        let again = Stage::new(&out, "lab").unwrap();
        let stop = again.refuse_existing(true).unwrap_err();
        assert_eq!((stop.code, stop.problems.len()), (ExitCode::Refused, 4), "{stop:?}");
        assert_eq!(again.refuse_existing(false).unwrap_err().problems.len(), 3);
    }

    #[test]
    fn a_place_taken_meanwhile_takes_back_the_others() {
        let out = tempfile::tempdir().unwrap();
        let stage = Stage::new(out.path(), "lab").unwrap();
        for file in ["lab/secrets.yaml", "lab.yaml"] {
            stage.put(file, &"new".to_owned().into()).unwrap();
        }
        fs::write(out.path().join("lab.yaml"), "old").unwrap();
        assert_eq!(stage.publish().unwrap_err().code, ExitCode::Failed);
        assert_eq!(fs::read_to_string(out.path().join("lab.yaml")).unwrap(), "old");
        assert!(!out.path().join("lab/secrets.yaml").exists());
    }

    #[test]
    fn names_that_are_no_files_are_refused() {
        let out = tempfile::tempdir().unwrap();
        for name in ["", "../x", "a/b", "a b"] {
            assert_eq!(Stage::new(out.path(), name).err().map(|stop| stop.code), Some(ExitCode::Refused), "{name}");
        }
    }
}
