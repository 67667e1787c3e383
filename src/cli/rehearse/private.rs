//! The private folder of a rehearsal: copies of what a run reads, and room for all that it writes.
//!
//! Purpose: nothing of the original is written, and nothing secret of it is read. Everything lies in one folder that
//! only its owner can enter and that goes away with the value.
//! Must not know: the double. Start reading at [`Private::of`].

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tempfile::TempDir;

use super::copy::{Copy, CopyError};
use crate::cli::env::Env;
use crate::profile::edit::{EditError, edit};
use crate::profile::lock::Lock;
use crate::profile::{PatchSource, Profile, SecretsFile};

/// The site file's name.
pub const SITE: &str = "site.yaml";

/// The shortest time in which anything can be seen to be steady.
const STEADY_AT_LEAST: Duration = Duration::from_secs(1);

/// Why there is no private folder.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// Something in it can't be made or written.
    #[error("{} can't be written", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An original can't be read.
    #[error("{} can't be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder of configuration can't be copied.
    #[error("the configuration can't be copied")]
    Copy(#[from] CopyError),
    /// The copy of the profile can't be adapted.
    #[error("the copy of the profile can't be adapted")]
    Edit(#[from] EditError),
}

/// A private folder.
#[derive(Debug)]
pub struct Private {
    root: TempDir,
    profile: PathBuf,
    secrets: Option<PathBuf>,
    lock: Lock,
    left_out: Vec<PathBuf>,
}

impl Private {
    /// Copies `profile`, which was read from `path` as `text`, with its lock and its configuration. `time_scale` divides
    /// its `steady`.
    pub fn of(profile: &Profile, path: &Path, text: &str, time_scale: f64) -> Result<Self, PrivateError> {
        let root = tempfile::Builder::new()
            .prefix("recast-rehearsal-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(|source| PrivateError::Write { path: std::env::temp_dir(), source })?;
        let folder = root.path().join("cluster");
        for dir in [&folder, &root.path().join("home")] {
            fs::create_dir_all(dir).map_err(|source| PrivateError::Write { path: dir.clone(), source })?;
        }
        let file = folder.join(path.file_name().unwrap_or_default());
        let mut private = Self { profile: file, root, secrets: None, lock: Lock::default(), left_out: Vec::new() };
        write(&private.profile, text.as_bytes())?;
        private.copy_lock(&path.with_extension("lock"))?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        private.copy_configuration(profile, parent.unwrap_or(Path::new(".")))?;
        if let Some(dir) = &profile.backup.dir {
            // Whether the real one is there is not rehearsed.
            let dir = folder.join(private.inside("backup.dir", dir, "backups")?);
            fs::create_dir_all(&dir).map_err(|source| PrivateError::Write { path: dir, source })?;
        }
        let steady = profile.steady.div_f64(time_scale).max(STEADY_AT_LEAST);
        private.edit(&[("steady", &format!("{}ms", steady.as_millis()))])?;
        Ok(private)
    }

    /// The lock's images are those of the real factory: the double's have other digests, so they are forgotten.
    fn copy_lock(&mut self, original: &Path) -> Result<(), PrivateError> {
        let text = match fs::read_to_string(original) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(PrivateError::Read { path: original.to_owned(), source }),
        };
        let text = match Lock::from_text(&text) {
            Ok(mut lock) => {
                lock.images.clear();
                self.lock = lock;
                self.lock.to_text()
            }
            // A lock that can't be read stays one: what it says to that is the rehearsed verb's affair.
            Err(_) => text,
        };
        write(&self.profile.with_extension("lock"), text.as_bytes())
    }

    /// Copies `config_dir` and what lies in it; a folder that is elsewhere gets a place inside, and the copy of the
    /// profile says so.
    fn copy_configuration(&mut self, profile: &Profile, from: &Path) -> Result<(), PrivateError> {
        let Some(talos) = &profile.talos else { return Ok(()) };
        let mut copy = talos.secrets_file_in(from).map_or_else(Copy::default, |file| Copy::without(&file));
        let config = self.inside("talos.config_dir", &talos.config_dir, "config")?;
        let to = self.folder().join(&config);
        copy.folder(&talos.config_dir_in(from), &to)?;
        if let (Some(patches), Some(original)) = (&talos.patches_dir, talos.patches_dir_in(from)) {
            let inside = self.inside("talos.patches_dir", patches, "patches")?;
            // Already there, unless it lies elsewhere.
            copy.folder(&original, &to.join(inside))?;
        }
        for (index, patch) in talos.config_patches.iter().enumerate() {
            let PatchSource::File(path) = &patch.source else { continue };
            let key = format!("talos.config_patches[{index}].file");
            let inside = to.join(self.inside(&key, path, &format!("patch-{index}.yaml"))?);
            make_parent(&inside)?;
            copy.one(&talos.config_dir_in(from).join(path), &inside)?;
            // One that isn't there, or holds secrets, counts as empty, as a missing folder does.
            if !inside.exists() {
                write(&inside, b"")?;
            }
        }
        let secrets = match &talos.secrets_file {
            SecretsFile::Path(path) => to.join(self.inside("talos.secrets_file", path, "secrets.yaml")?),
            // The real one is never run: the copy's prints the throw-away secrets.
            SecretsFile::Command(_) => {
                let printed = self.folder().join("secrets.yaml");
                self.edit(&[("talos.secrets_file.command", &format!("cat '{}'", printed.display()))])?;
                printed
            }
        };
        make_parent(&secrets)?;
        self.secrets = Some(secrets);
        self.left_out = copy.left_out;
        Ok(())
    }

    /// `path` if it leads nowhere but down, else `instead`, which the copy of the profile says then.
    fn inside(&self, key: &str, path: &Path, instead: &str) -> Result<PathBuf, PrivateError> {
        if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
            return Ok(path.to_owned());
        }
        self.edit(&[(key, instead)])?;
        Ok(PathBuf::from(instead))
    }

    /// Changes values of the copy of the profile.
    pub fn edit(&self, changes: &[(&str, &str)]) -> Result<(), PrivateError> {
        let read = |source| PrivateError::Read { path: self.profile.clone(), source };
        let text = edit(&fs::read_to_string(&self.profile).map_err(read)?, changes)?;
        write(&self.profile, text.as_bytes())
    }

    /// Writes the throw-away secrets to where the copy of the profile has them.
    pub fn write_secrets(&self, secrets: &SecretString) -> Result<(), PrivateError> {
        match &self.secrets {
            Some(path) => write_secret(path, secrets),
            None => Ok(()),
        }
    }

    /// Writes the token that the double takes, and says where.
    pub fn write_token(&self, token: &SecretString) -> Result<PathBuf, PrivateError> {
        let path = self.root.path().join("token");
        write_secret(&path, token)?;
        Ok(path)
    }

    /// Writes the site file of the rehearsal.
    pub fn write_site(&self, text: &str) -> Result<(), PrivateError> {
        write(&self.site(), text.as_bytes())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    fn folder(&self) -> PathBuf {
        self.root.path().join("cluster")
    }

    /// The copy of the profile.
    pub fn profile(&self) -> &Path {
        &self.profile
    }

    /// The throw-away secrets; none in a profile without a cluster.
    pub fn secrets(&self) -> Option<&Path> {
        self.secrets.as_deref()
    }

    /// The copied lock; empty where there was none.
    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// The site file of the rehearsal: beside the profile, where it is looked for.
    pub fn site(&self) -> PathBuf {
        self.folder().join(SITE)
    }

    /// The double's own folder.
    pub fn double(&self) -> PathBuf {
        self.root.path().join("double")
    }

    /// Files of the configuration that were not copied since they hold secrets.
    pub fn left_out(&self) -> &[PathBuf] {
        &self.left_out
    }

    /// An environment in which every default leads into the folder, and nothing is known of the real one.
    pub fn env(&self) -> Env {
        let inside = |name: &str| self.root.path().join(name).display().to_string();
        Env::only([
            ("HOME", inside("home")),
            ("XDG_STATE_HOME", inside("state")),
            ("XDG_CACHE_HOME", inside("cache")),
            ("KUBECONFIG", inside("kubeconfig")),
            ("TALOSCONFIG", inside("talosconfig")),
        ])
    }
}

fn make_parent(path: &Path) -> Result<(), PrivateError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(|source| PrivateError::Write { path: parent.to_owned(), source })
}

fn write(path: &Path, content: &[u8]) -> Result<(), PrivateError> {
    fs::write(path, content).map_err(|source| PrivateError::Write { path: path.to_owned(), source })
}

/// The file is new, so that it has these permissions from its first byte on.
fn write_secret(path: &Path, secret: &SecretString) -> Result<(), PrivateError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(secret.expose_secret().as_bytes()));
    written.map_err(|source| PrivateError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    use super::*;
    use crate::profile::load;

    /// Name → content and time of change, of everything below `dir`.
    fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            if path.is_dir() {
                found.extend(snapshot(&path));
                found.insert(path, (Vec::new(), changed));
            } else {
                found.insert(path.clone(), (fs::read(&path).unwrap(), changed));
            }
        }
        found
    }

    const CANARY: &str = "TheRealBootstrapToken.0123456789abcdef";

    fn original(talos: &str, secrets: &str) -> (TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let profiles = dir.path().join("profiles");
        fs::create_dir_all(profiles.join("conf/patches")).unwrap();
        let text = format!(
            "name: lab # ours\ntype: talos\ntags: [lab]\ntemplate: 101\nnetwork: {{api_endpoint: 10.0.0.5}}\n\
             talos: {{version: 1.13.9, kubernetes_version: 1.35.0, {talos}}}\n\
             nodes: {{controlplane: {{count: 1, name_prefix: cp-, cores: 2, memory: 4096, disk: 32G}}}}\n"
        );
        let path = profiles.join("lab.yaml");
        fs::write(&path, text).unwrap();
        fs::write(profiles.join("conf/patches/cp-01.yaml"), "machine: {network: {hostname: cp-01}}\n").unwrap();
        fs::write(profiles.join("conf/talosconfig"), format!("contexts: {{lab: {{token: {CANARY}}}}}\n")).unwrap();
        // Not even recognisable as what it is: the profile alone says that it is the secrets file.
        fs::write(dir.path().join(secrets), format!("sealed {CANARY}\n")).unwrap();
        fs::write(path.with_extension("lock"), lock()).unwrap();
        (dir, path)
    }

    fn lock() -> String {
        r#"{"format": 1, "images": [{"schematic": "ab", "version": "1.13.9", "file": "nocloud-amd64.raw.xz", "bytes": 7,
            "sha256": "0000000000000000000000000000000000000000000000000000000000000000", "trust": "pinned"}]}"#
            .to_owned()
    }

    fn private(path: &Path) -> Private {
        let loaded = load::profile_file(path).unwrap_or_else(|problems| panic!("{problems}"));
        Private::of(&loaded.value, path, loaded.source.text(), 20.0).unwrap()
    }

    #[test]
    fn nothing_secret_comes_in_and_nothing_outside_changes() {
        let layouts = [
            ("config_dir: conf, secrets_file: secrets.yaml, patches_dir: patches", "profiles/conf/secrets.yaml"),
            ("config_dir: ., secrets_file: secrets.yaml, patches_dir: conf/patches", "profiles/secrets.yaml"),
            ("config_dir: conf, secrets_file: ../../vault.yaml, patches_dir: patches", "vault.yaml"),
            (
                "config_dir: ../profiles/conf, secrets_file: patches/s.yaml, patches_dir: ../conf/patches",
                "profiles/conf/patches/s.yaml",
            ),
        ];
        for (talos, secrets) in layouts {
            let (dir, path) = original(talos, secrets);
            let before = snapshot(dir.path());
            let private = private(&path);
            private.write_secrets(&"throw-away".into()).unwrap();
            private.write_token(&"recast@pve!ci=x".into()).unwrap();
            assert_eq!(snapshot(dir.path()), before, "{talos}");
            for (file, (content, _)) in snapshot(private.root()) {
                assert!(!String::from_utf8_lossy(&content).contains(CANARY), "{talos}: {}", file.display());
            }
            let left_out: Vec<PathBuf> = private.left_out().iter().map(|path| path.canonicalize().unwrap()).collect();
            assert_eq!(left_out, [path.with_file_name("conf/talosconfig").canonicalize().unwrap()], "{talos}");
            let copied =
                load::profile_file(private.profile()).unwrap_or_else(|problems| panic!("{talos}: {problems}")).value;
            let (folder, talos) = (private.profile().parent().unwrap(), copied.talos.unwrap());
            assert_eq!(fs::read_to_string(talos.secrets_file_in(folder).unwrap()).unwrap(), "throw-away");
            assert!(talos.patches_dir_in(folder).unwrap().join("cp-01.yaml").is_file());
            assert!(talos.secrets_file_in(folder).unwrap().starts_with(private.root()));
        }
    }

    #[test]
    fn the_copy_is_the_profile_with_a_shorter_steady_and_a_lock_without_images() {
        let (_dir, path) = original("config_dir: conf, secrets_file: s.yaml", "profiles/conf/s.yaml");
        let private = private(&path);
        let text = fs::read_to_string(private.profile()).unwrap();
        assert!(text.starts_with("name: lab # ours\n") && text.ends_with("steady: 1500ms\n"), "{text}");
        let lock = Lock::from_text(&fs::read_to_string(private.profile().with_extension("lock")).unwrap()).unwrap();
        assert!(lock.images.is_empty());
    }

    #[test]
    fn secrets_are_for_their_owner_only_and_the_folder_goes_away() {
        let (_dir, path) = original("config_dir: conf, secrets_file: s.yaml", "profiles/conf/s.yaml");
        let private = private(&path);
        private.write_secrets(&"throw-away".into()).unwrap();
        let token = private.write_token(&"recast@pve!ci=x".into()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&token), mode(private.secrets().unwrap()), mode(private.root())), (0o600, 0o600, 0o700));
        let env = private.env();
        for place in [env.state_dir(), env.cache_dir(), env.kubeconfig(), env.talosconfig(), env.home().to_owned()] {
            assert!(place.starts_with(private.root()), "{}", place.display());
        }
        let root = private.root().to_owned();
        drop(private);
        assert!(!root.exists());
    }
}
