//! The process environment, read once.
//!
//! Purpose: everything that depends on variables, home or working directory takes an [`Env`], so that a rehearsal can
//! run the same code with an environment of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A snapshot of the variables.
#[derive(Clone, Debug, Default)]
pub struct Env {
    vars: BTreeMap<String, String>,
}

impl Env {
    /// The process's own.
    pub fn of_process() -> Self {
        Self { vars: std::env::vars().collect() }
    }

    /// Only these variables.
    pub fn only<const N: usize>(vars: [(&str, String); N]) -> Self {
        Self { vars: vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The home directory; the working directory where there is none.
    pub fn home(&self) -> &Path {
        Path::new(self.get("HOME").unwrap_or("."))
    }

    /// `$XDG_STATE_HOME/recast`, else `~/.local/state/recast`.
    pub fn state_dir(&self) -> PathBuf {
        self.xdg("XDG_STATE_HOME", ".local/state")
    }

    /// `$XDG_CACHE_HOME/recast`, else `~/.cache/recast`.
    pub fn cache_dir(&self) -> PathBuf {
        self.xdg("XDG_CACHE_HOME", ".cache")
    }

    /// `$KUBECONFIG` (its first file), else `~/.kube/config`.
    pub fn kubeconfig(&self) -> PathBuf {
        let first = self.get("KUBECONFIG").and_then(|paths| paths.split(':').find(|path| !path.is_empty()));
        first.map_or_else(|| self.home().join(".kube/config"), PathBuf::from)
    }

    /// `$TALOSCONFIG`, else `$TALOS_HOME/config`, else `~/.talos/config`, as talosctl looks for it.
    pub fn talosconfig(&self) -> PathBuf {
        if let Some(path) = self.get("TALOSCONFIG") {
            return PathBuf::from(path);
        }
        let home = self.get("TALOS_HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        home.unwrap_or_else(|| self.home().join(".talos")).join("config")
    }

    /// By the XDG rules a relative path in these variables is ignored.
    fn xdg(&self, name: &str, below_home: &str) -> PathBuf {
        let set = self.get(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        set.unwrap_or_else(|| self.home().join(below_home)).join("recast")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_follow_the_variables_and_ignore_relative_xdg_ones() {
        let env = Env::only([
            ("HOME", "/home/u".into()),
            ("XDG_STATE_HOME", "rel".into()),
            ("KUBECONFIG", ":/k/a:/k/b".into()),
        ]);
        assert_eq!(env.state_dir(), Path::new("/home/u/.local/state/recast"));
        assert_eq!(env.kubeconfig(), Path::new("/k/a"));
        assert_eq!(env.talosconfig(), Path::new("/home/u/.talos/config"));
    }
}
