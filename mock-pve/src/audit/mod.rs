//! The auditor.
//!
//! Purpose: keeps every destructive act: who, what, when, and whether the VM was known from the seed or made by a
//! request. As JSON lines in the state folder, and in memory for tests. Must not know: any protocol. Start at
//! [`Audit::watch`].

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::world::World;
use crate::world::deed::Deed;

/// What was done so far.
#[derive(Clone, Debug)]
pub struct Audit {
    deeds: Arc<Mutex<Vec<Deed>>>,
    path: PathBuf,
}

impl Audit {
    /// Begins to watch a world; its deeds go to `audit.jsonl` in the state folder.
    pub fn watch(world: &World) -> Self {
        let audit = Self { deeds: Arc::default(), path: world.dir().join("audit.jsonl") };
        let mut coming = world.subscribe_deeds();
        let kept = audit.clone();
        tokio::spawn(async move {
            while let Some(deed) = coming.recv().await {
                if let Err(error) = append(&kept.path, &deed) {
                    tracing::warn!(path = %kept.path.display(), %error, "the audit log can't be written");
                }
                kept.deeds.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
            }
        });
        audit
    }

    /// All deeds since the watch began, oldest first.
    pub fn deeds(&self) -> Vec<Deed> {
        self.deeds.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file with the same, of all runs on that state folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn append(path: &Path, deed: &Deed) -> std::io::Result<()> {
    let line = serde_json::to_string(deed)?;
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}")
}
