//! Where the data of the new cluster come from, and where snapshots go.
//!
//! Must not know: how the cluster is made.

use std::path::{Path, PathBuf};

use super::DataWish;
use crate::backup::{self, SnapshotName};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::command::Mode;
use crate::exit::ExitCode;
use crate::journal::StateDir;
use crate::plan::Data;
use crate::plan::data::{CopyTo, Keep, Proven};
use crate::plan::gates::{Snapshot, Source};
use crate::profile::CopyTarget;
use crate::types::{Version, VersionWish};

/// What becomes of the data, for the plan and for the gates; a file is proven here and now.
pub(super) async fn data_of(session: &Session, data: &DataWish) -> Result<(Data, Source), Stop> {
    Ok(match data {
        DataWish::Fresh => (Data::Fresh, Source::Nothing),
        DataWish::Keep => (Data::Keep(keep(session)), Source::Running),
        DataWish::Restore(file) => {
            let (proof, snapshot) = snapshot(session, file).await?;
            // A file that proves nothing is refused by its gate, and nothing is planned with it.
            let data = proof.map_or(Data::Fresh, |proof| Data::Restore { file: snapshot.file.clone(), proof });
            (data, Source::File(snapshot))
        }
    })
}

/// Where snapshots go. Paths are made absolute: a plan may be carried out from elsewhere.
pub(in crate::cli) fn keep(session: &Session) -> Keep {
    let (profile, folder) = (&session.profile.value, session.folder());
    let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
    let copies = profile.backup.copies.iter().enumerate().map(|(number, copy)| match copy.clone() {
        // A rehearsal's folder is private, and so are the folders that stand for other devices.
        CopyTarget::Path(_) if session.place.commands == Mode::Record => {
            CopyTo::Path(absolute(folder.join(format!("copy-{}", number + 1))))
        }
        CopyTarget::Path(path) => CopyTo::Path(absolute(folder.join(path))),
        CopyTarget::Ssh { host, path } => CopyTo::Ssh { host, path },
        CopyTarget::Command { save, read } => CopyTo::Command { save, read },
    });
    Keep {
        dir: absolute(profile.backup_dir_in(&folder)),
        copies: copies.collect(),
        max_age: profile.guards.snapshot_max_age.as_secs(),
        require_copy: profile.guards.require_copy,
    }
}

async fn snapshot(session: &Session, file: &Path) -> Result<(Option<Proven>, Snapshot), Stop> {
    let path = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let kubernetes = written_by(session, &path);
    let read = path.clone();
    let proof = tokio::task::spawn_blocking(move || backup::proof::prove(&read)).await;
    let proof = proof.map_err(|error| Stop::because(ExitCode::Internal, "the snapshot's proof broke off", &error))?;
    Ok(match proof {
        Ok(proof) => {
            let proven = Proven {
                sha256: proof.sha256,
                bytes: proof.bytes,
                revision: u64::try_from(proof.revision).unwrap_or_default(),
                keys: proof.keys,
                namespace_uid: proof.namespace_uid.clone(),
            };
            let (namespace_uid, etcd) = (proof.namespace_uid, proof.cluster_version);
            (Some(proven), Snapshot { file: path, damage: None, namespace_uid, etcd, kubernetes })
        }
        Err(error) => {
            let stop = Stop::because(ExitCode::Refused, "", &error);
            let damage = stop.problems[0].causes.join(": ");
            (None, Snapshot { damage: Some((damage, error.hints())), file: path, ..Snapshot::default() })
        }
    })
}

/// The Kubernetes that wrote a snapshot: what ran before the run that took it, else what the profile says ran.
fn written_by(session: &Session, file: &Path) -> Option<Version> {
    let name = file.file_name()?.to_string_lossy().parse::<SnapshotName>().ok();
    let of_run = name.and_then(|name| {
        let dir = StateDir::new(&session.state_root(), &session.profile.value.name).run(&name.run?);
        Some(dir.plan().ok()?.before?.kubernetes)
    });
    let of_profile = || match &session.profile.value.talos.as_ref()?.kubernetes_version {
        VersionWish::Exact(version) => Some(version.clone()),
        VersionWish::Minor(..) | VersionWish::Latest => None,
    };
    of_run.or_else(of_profile)
}
