//! `recast snapshot`: take, prove, list and prune snapshots of etcd.
//!
//! `save` needs the cluster, `verify` nothing but the files, `list` and `prune` the profile and the state folder.

mod prune;
mod save;

pub(super) use self::save::save;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::args::{Global, Snapshot};
use super::session::{profile, state_root};
use super::stop::Stop;
use super::{Answer, Surroundings};
use crate::backup::proof::{Examined, examine};
use crate::backup::{Listed, ProofError, Store, StoreError, Trailer};
use crate::exit::ExitCode;
use crate::journal::{RunDir, RunStatus, StateDir};
use crate::report::document::{Ending, Kind, Problem, SnapshotHolds};
use crate::report::{Document, document, problem};
use crate::types::RunId;

/// `recast snapshot`.
pub async fn snapshot(global: &Global, asked: &Snapshot, surroundings: &Surroundings) -> Result<Answer, Stop> {
    match asked {
        Snapshot::Save { dry_run } => Box::pin(save::save(global, *dry_run, surroundings)).await,
        Snapshot::Verify { files } => verify(global, files.clone(), surroundings).await,
        Snapshot::List => list(global, surroundings),
        Snapshot::Prune { keep, dry_run } => prune::prune(global, *keep, *dry_run, surroundings).await,
    }
}

/// Every file is looked at, also after one that is damaged.
async fn verify(global: &Global, files: Vec<PathBuf>, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let (mut rows, mut problems, mut text) = (Vec::new(), Vec::new(), String::new());
    let mut code = ExitCode::Done;
    for file in files {
        let path = file.clone();
        let found = blocking(move || examine(&path)).await?;
        let mut row = row(&file);
        match found {
            Ok(found) => {
                text.push_str(&told(&file, &found));
                row.holds = Some(holds(&found));
            }
            Err(error) => {
                let unread = matches!(error, ProofError::Io { .. });
                if !unread {
                    code = ExitCode::Refused;
                } else if code == ExitCode::Done {
                    code = ExitCode::Failed;
                }
                let stop = unproven(&file, &error);
                surroundings.console.tell(&problem::text(&stop.problems, None, surroundings.colour(global)));
                let kind = if unread { Kind::Failed } else { Kind::Refused };
                problems.extend(
                    stop.problems.iter().map(|failure| Problem::new(kind, failure).at(file.display().to_string())),
                );
            }
        }
        rows.push(row);
    }
    let ending = match code {
        ExitCode::Done => Ending::Done,
        ExitCode::Refused => Ending::Refused,
        _ => Ending::Failed,
    };
    let document = Document::of_verb("snapshot", None, ending).with_snapshots(rows).with_problems(problems);
    Ok(Answer { code, document, text })
}

fn list(global: &Global, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let there = There::look(global, surroundings)?;
    let mut text = String::new();
    let mut rows = Vec::new();
    for listed in there.listed {
        let row = listed_row(&listed, there.needed.get(&listed.path));
        let needed = match &*row.needed_by {
            [] => String::new(),
            runs => format!("  needed by {}", runs.iter().map(RunId::as_str).collect::<Vec<_>>().join(", ")),
        };
        let _ = writeln!(text, "{}  {} bytes{needed}", listed.path.display(), listed.bytes);
        rows.push(row);
    }
    let document = Document::of_verb("snapshot", Some(&there.cluster), Ending::Done).with_snapshots(rows);
    Ok(Answer { code: ExitCode::Done, document, text })
}

/// The profile's snapshots, and who needs them. Nothing is contacted.
struct There {
    cluster: String,
    keep: Option<u32>,
    state: PathBuf,
    /// None while there is no such folder.
    store: Option<Store>,
    listed: Vec<Listed>,
    needed: BTreeMap<PathBuf, Vec<RunId>>,
}

impl There {
    fn look(global: &Global, surroundings: &Surroundings) -> Result<Self, Stop> {
        let (path, profile) = profile(global)?;
        let profile = profile.value;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = profile.backup_dir_in(parent);
        let state = state_root(&surroundings.place, global);
        let store = if folder.exists() { Some(Store::open(&folder).map_err(|error| unkept(&error))?) } else { None };
        let listed = store.as_ref().map_or(Ok(Vec::new()), Store::list).map_err(|error| unkept(&error))?;
        let needed = needed(&state, &listed)?;
        Ok(Self { cluster: profile.name, keep: profile.backup.keep, state, store, listed, needed })
    }
}

/// Which runs need which snapshots: one that isn't done needs those that it took, and those that its plan or its journal
/// names; of those that are done, each cluster's newest that took any needs its own, for the way back. Clusters may share a folder of snapshots, so all clusters' runs are asked; one that can't be read stops this.
fn needed(state: &Path, listed: &[Listed]) -> Result<BTreeMap<PathBuf, Vec<RunId>>, Stop> {
    let unknown = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Refused, "it isn't known which snapshots runs need", error)
            .hinted("nothing was taken away")
    };
    let mut needed: BTreeMap<PathBuf, Vec<RunId>> = BTreeMap::new();
    let clusters = match fs::read_dir(state) {
        Ok(clusters) => clusters,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(needed),
        Err(error) => return Err(unknown(&error)),
    };
    for cluster in clusters {
        let cluster = cluster.map_err(|error| unknown(&error))?.file_name();
        let mut goes_back = false;
        // The newest first.
        for run in StateDir::new(state, &cluster.to_string_lossy()).list().map_err(|error| unknown(&error))? {
            let done = run.status().map_err(|error| unknown(&error))? == RunStatus::Done;
            if done && goes_back {
                continue;
            }
            let said = if done { String::new() } else { said(&run).map_err(|error| unknown(&error))? };
            for listed in listed {
                let own = listed.name.run.as_ref() == Some(run.id());
                if own || said.contains(&listed.name.to_string()) {
                    needed.entry(listed.path.clone()).or_default().push(run.id().clone());
                    goes_back |= done;
                }
            }
        }
    }
    Ok(needed)
}

/// All that a run's plan and journal say.
fn said(run: &RunDir) -> std::io::Result<String> {
    let mut said = String::new();
    for file in [run.plan_file(), run.journal_file()] {
        match fs::read(&file) {
            Ok(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(said)
}

/// What is known of a file by its name and its size.
fn row(file: &Path) -> document::Snapshot {
    let name = file.file_name().and_then(|name| name.to_str()?.parse::<crate::backup::SnapshotName>().ok());
    document::Snapshot {
        file: file.display().to_string(),
        bytes: fs::metadata(file).ok().map(|metadata| metadata.len()),
        purpose: name.as_ref().map(|name| name.purpose.to_string()),
        taken: name.as_ref().map(|name| name.taken.to_string()),
        run: name.and_then(|name| name.run),
        ..document::Snapshot::default()
    }
}

fn listed_row(listed: &Listed, needed_by: Option<&Vec<RunId>>) -> document::Snapshot {
    document::Snapshot { needed_by: needed_by.cloned().unwrap_or_default(), ..row(&listed.path) }
}

/// What was found, for the document.
fn holds(found: &Examined) -> SnapshotHolds {
    let Examined { proof, contents, database_bytes } = found;
    SnapshotHolds {
        sha256: proof.sha256,
        trailer: match proof.trailer {
            Trailer::Etcd => "etcd".to_owned(),
            Trailer::Ours => "ours".to_owned(),
        },
        revision: proof.revision,
        compacted: contents.compacted,
        keys: proof.keys,
        leases: contents.leases,
        namespace_uid: proof.namespace_uid.clone(),
        etcd: proof.cluster_version.clone(),
        members: contents.members.clone(),
        consistent_index: proof.consistent_index,
        term: proof.term,
        hash: format!("{:08x}", contents.hash),
        total_keys: contents.entries,
        total_size: *database_bytes,
    }
}

/// What was found, for people.
fn told(file: &Path, found: &Examined) -> String {
    let holds = holds(found);
    let mut text = String::new();
    let _ = writeln!(text, "{}: proven", file.display());
    let compacted = if holds.compacted > 0 { format!(", compacted up to {}", holds.compacted) } else { String::new() };
    let _ = writeln!(text, "  etcd      revision {}{compacted}; {} keys", holds.revision, holds.keys);
    let cluster = [
        holds.etcd.map(|version| format!("etcd {version}")),
        Some(holds.members.join(", "))
            .filter(|members| !members.is_empty())
            .map(|members| format!("members {members}")),
        Some(
            holds
                .namespace_uid
                .map_or("no readable namespace kube-system".to_owned(), |uid| format!("kube-system {uid}")),
        ),
    ];
    let _ = writeln!(text, "  cluster   {}", cluster.into_iter().flatten().collect::<Vec<_>>().join("; "));
    let trailer = match found.proof.trailer {
        Trailer::Etcd => "by etcd's snapshot API",
        Trailer::Ours => "added by recast to a database file",
    };
    let _ = writeln!(text, "  sha256    {} ({trailer}); {} bytes", holds.sha256, found.proof.bytes);
    let _ = writeln!(
        text,
        "  etcdctl   hash {}, revision {}, total keys {}, total size {}",
        holds.hash, found.contents.newest, holds.total_keys, holds.total_size
    );
    text
}

fn unproven(file: &Path, error: &ProofError) -> Stop {
    let what = format!("{} can't be relied on", file.display());
    error.hints().into_iter().fold(Stop::because(ExitCode::Refused, what, error), Stop::hinted)
}

fn unkept(error: &StoreError) -> Stop {
    let what = "the folder of snapshots can't be used";
    error.hints().into_iter().fold(Stop::because(ExitCode::Failed, what, error), Stop::hinted)
}

/// Reads big files off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Stop> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Stop::because(ExitCode::Internal, "reading was given up", &error))
}
