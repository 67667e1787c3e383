//! Steps on the user's own files: profile, lock, kubeconfig, talosconfig.
//!
//! Every write goes to a temporary file beside the target, is synced, and takes its place: a crash leaves the old file
//! or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::World;
use super::classify::wrong;
use crate::engine::{Class, Seen, StepCx, StepError};
use crate::plan::Output;
use crate::plan::step::Image;
use crate::profile::edit::edit;
use crate::profile::lock::{Lock, LockedImage, LockedTemplate, Trust};
use crate::types::{NodeName, Sha256, StepId, VmId};

/// The profile's name in the folder in which a run keeps what was before it.
pub const KEPT_PROFILE: &str = "profile.yaml";

/// The lock's name there.
pub const KEPT_LOCK: &str = "profile.lock";

/// The user's files that a run may write.
#[derive(Clone, Debug)]
pub struct Files {
    /// The profile.
    pub profile: PathBuf,
    /// The lock beside it.
    pub lock: PathBuf,
    /// The kubeconfig that the cluster's context is merged into.
    pub kubeconfig: PathBuf,
    /// The talosconfig that the cluster's context is merged into.
    pub talosconfig: PathBuf,
    /// The run's own directory, for copies of both.
    pub run: PathBuf,
}

/// What templates were made from.
#[derive(Clone, Copy)]
pub(super) struct MadeFrom<'a> {
    pub(super) image: &'a Image,
    /// The step that fetched it; none when its digest was known and only nodes did.
    pub(super) fetched: Option<&'a StepId>,
    /// Its schematic's YAML, where the factory told.
    pub(super) recipe: Option<&'a str>,
}

/// Puts `text` in the place of the file at `path`, or makes it.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    if let Ok(old) = fs::metadata(path) {
        file.as_file().set_permissions(old.permissions())?;
    } else {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    fs::File::open(dir)?.sync_all()
}

/// A file's text; none when there is no such file.
pub(super) fn read(path: &Path) -> Result<Option<String>, StepError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StepError::new(Class::Permanent, format!("read {}", path.display()), error)),
    }
}

/// The lock at `path`; an empty one where there is none yet.
pub fn read_lock(path: &Path) -> Result<Lock, StepError> {
    let doing = || format!("read {}", path.display());
    match fs::read_to_string(path) {
        Ok(text) => Lock::from_text(&text).map_err(|error| StepError::new(Class::Permanent, doing(), error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Lock::default()),
        Err(error) => Err(StepError::new(Class::Permanent, doing(), error)),
    }
}

impl World {
    fn edited(&self, set: &BTreeMap<String, String>) -> Result<(String, String), StepError> {
        let path = &self.files.profile;
        let doing = || format!("edit {}", path.display());
        let text = fs::read_to_string(path).map_err(|error| StepError::new(Class::Permanent, doing(), error))?;
        let changes: Vec<(&str, &str)> = set.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let edited = edit(&text, &changes).map_err(|error| {
            StepError::new(Class::Permanent, doing(), error)
                .hinted("the cluster is done; put the values in by hand, then resume")
        })?;
        Ok((text, edited))
    }

    pub(super) fn probe_profile(&self, set: &BTreeMap<String, String>) -> Result<Seen, StepError> {
        let (text, edited) = self.edited(set)?;
        Ok(if text == edited { Seen::Done(Output::Nothing) } else { Seen::Missing })
    }

    pub(super) fn edit_profile(&self, set: &BTreeMap<String, String>) -> Result<Output, StepError> {
        let (_, edited) = self.edited(set)?;
        let path = &self.files.profile;
        replace(path, &edited)
            .map_err(|error| StepError::new(Class::Permanent, format!("write {}", path.display()), error))?;
        Ok(Output::Nothing)
    }

    /// What profile and lock were before the run that kept them in `from`, each with its place; none = there was none.
    fn kept_files(&self, from: &Path) -> Result<[(&Path, Option<String>); 2], StepError> {
        let profile = read(&from.join(KEPT_PROFILE))?.ok_or_else(|| {
            let missing = format!("{} is not there any more", from.join(KEPT_PROFILE).display());
            wrong("put the profile back", missing).hinted("the cluster is done; write the profile by hand, then resume")
        })?;
        Ok([(&self.files.profile, Some(profile)), (&self.files.lock, read(&from.join(KEPT_LOCK))?)])
    }

    pub(super) fn probe_restored_files(&self, from: &Path) -> Result<Seen, StepError> {
        for (path, kept) in self.kept_files(from)? {
            if read(path)? != kept {
                return Ok(Seen::Missing);
            }
        }
        Ok(Seen::Done(Output::Nothing))
    }

    pub(super) fn restore_files(&self, from: &Path) -> Result<Output, StepError> {
        for (path, kept) in self.kept_files(from)? {
            let doing = || format!("write {}", path.display());
            let written = match kept {
                Some(text) => replace(path, &text),
                None if path.exists() => fs::remove_file(path),
                None => Ok(()),
            };
            written.map_err(|error| StepError::new(Class::Permanent, doing(), error))?;
        }
        Ok(Output::Nothing)
    }

    pub(super) fn write_lock(
        &self,
        made: MadeFrom<'_>,
        templates: &BTreeMap<NodeName, VmId>,
        fingerprint: Sha256,
        cx: &StepCx<'_>,
    ) -> Result<Output, StepError> {
        let path = &self.files.lock;
        let doing = || format!("write {}", path.display());
        let image = made.image;
        let (sha256, bytes) = match made.fetched {
            Some(fetched) => match cx.output_of(fetched) {
                Some(Output::Image { sha256, bytes, .. }) => (*sha256, *bytes),
                _ => return Err(wrong(doing(), format!("{fetched} has not been done"))),
            },
            None => match image.sha256 {
                Some(sha256) => (sha256, image.bytes),
                None => return Err(wrong(doing(), format!("nobody has seen {}", image.url))),
            },
        };
        let mut lock = read_lock(path)?;
        lock.note_image(LockedImage {
            schematic: image.schematic.clone(),
            version: image.version.clone(),
            file: file_of(&image.url).to_owned(),
            bytes,
            sha256,
            trust: if image.sha256.is_some() { Trust::Pinned } else { Trust::FirstUse },
        });
        if let Some(recipe) = made.recipe {
            lock.schematics.insert(image.schematic.clone(), recipe.to_owned());
        }
        for (node, vmid) in templates {
            let (version, schematic) = (image.version.clone(), image.schematic.clone());
            lock.note_template(node.clone(), LockedTemplate { vmid: *vmid, fingerprint, version, schematic });
        }
        replace(path, &lock.to_text()).map_err(|error| StepError::new(Class::Permanent, doing(), error))?;
        Ok(Output::Nothing)
    }
}

/// The last segment of a URL: which encoding of the disk it is.
pub fn file_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}
