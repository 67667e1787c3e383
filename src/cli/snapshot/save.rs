//! `recast snapshot save`: from a healthy control plane into the profile's folder, and on to its second copies.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::stream;

use super::{blocking, holds, row, told, unkept};
use crate::backup::copy::{self, Counts, Devices, Local, Way};
use crate::backup::proof::{Examined, examine};
use crate::backup::{Purpose, SnapshotName, Store, StoreError, Target};
use crate::cli::args::Global;
use crate::cli::carry_out::{access, unless_cancelled};
use crate::cli::session::Session;
use crate::cli::ssh::shells;
use crate::cli::stop::Stop;
use crate::cli::{Answer, Surroundings};
use crate::exit::ExitCode;
use crate::net::{Reach, Silent};
use crate::profile::CopyTarget;
use crate::report::document::{Ending, SnapshotCopy};
use crate::report::{Document, document, problem};
use crate::steps::Shells;
use crate::talos::client::etcd::Alarm;
use crate::talos::client::{Access, Download, Machine, TalosError};
use crate::types::Role;

/// How long a machine may take to answer, and to send the next piece.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long etcd may take to begin a snapshot of a big database.
const SNAPSHOT_PATIENCE: Duration = Duration::from_mins(2);

/// A control plane whose etcd is as it should be.
struct Healthy {
    address: String,
    machine: Machine,
    applied: u64,
    leads: bool,
}

/// `recast snapshot save`.
pub(in crate::cli) async fn save(global: &Global, dry_run: bool, surroundings: &Surroundings) -> Result<Answer, Stop> {
    let session = Session::open(&surroundings.place, global)?;
    let cluster = session.profile.value.name.clone();
    let now = jiff::Timestamp::now();
    let access = access(&session.secrets(now)?, now)?;
    let healthy = unless_cancelled(surroundings, healthy(&session, &access)).await?;
    let folder = session.profile.value.backup_dir_in(&session.folder());
    let name = SnapshotName { purpose: Purpose::Manual, taken: now, run: None };
    let (targets, shells) = (targets(&session), shells(&session)?);
    if dry_run {
        let from = healthy.first().map(|healthy| healthy.address.as_str()).unwrap_or_default();
        let mut text = format!("would save etcd of {from} to {}\n", folder.join(name.to_string()).display());
        for target in &targets {
            let _ = writeln!(text, "would copy it to {target} and read it back");
        }
        let document = Document::of_verb("snapshot", Some(&cluster), Ending::Pending);
        return Ok(Answer { code: ExitCode::Pending, document, text });
    }
    let store = Store::open(&folder).map_err(|error| unkept(&error))?;
    let path = unless_cancelled(surroundings, receive(&store, &name, healthy, surroundings, global)).await?;
    let found: Examined = {
        let path = path.clone();
        blocking(move || examine(&path)).await?.map_err(|error| super::unproven(&store.path_of(&name), &error))?
    };
    let mut row = document::Snapshot { holds: Some(holds(&found)), ..row(&path) };
    let mut text = told(&path, &found);
    let mut failed = None;
    for target in &targets {
        match unless_cancelled(surroundings, second(&session, &shells, &path, target)).await {
            Ok(copied) => {
                let how = match copied.counts {
                    Counts::Yes => "read back",
                    Counts::SameDevice => "read back, but from the same device: it doesn't count as a second place",
                    Counts::NotReadBack => "not read back, as no command says how: it doesn't count as a second place",
                };
                let _ = writeln!(text, "  copy      {}: {how}", copied.place);
                let counts = match copied.counts {
                    Counts::Yes => "yes",
                    Counts::SameDevice => "same-device",
                    Counts::NotReadBack => "not-read-back",
                };
                row.copies.push(SnapshotCopy { place: copied.place, sha256: copied.sha256, counts: counts.to_owned() });
            }
            Err(stop) => failed = Some(merged(failed, stop)),
        }
    }
    let second = row.copies.iter().any(|copy| copy.counts == "yes");
    if session.profile.value.guards.require_copy && !second {
        let stop = Stop::new(ExitCode::Refused, "no second copy counts, and guards.require_copy asks for one")
            .hinted(format!("the snapshot itself is kept: {}", path.display()));
        failed = Some(merged(failed, stop));
    }
    if let Some(stop) = failed {
        surroundings.console.tell(&text);
        return Err(stop);
    }
    let document = Document::of_verb("snapshot", Some(&cluster), Ending::Done).with_snapshots(vec![row]);
    Ok(Answer { code: ExitCode::Done, document, text })
}

/// All problems at once.
fn merged(before: Option<Stop>, stop: Stop) -> Stop {
    let Some(mut before) = before else { return stop };
    before.problems.extend(stop.problems);
    before
}

/// Control planes that can be asked, the one that is ahead first. Each that can't be is said.
async fn healthy(session: &Session, access: &Access) -> Result<Vec<Healthy>, Stop> {
    let mut found = Vec::new();
    let mut reasons = Vec::new();
    for address in addresses(session)? {
        match look(session, access, &address).await {
            Ok(Ok(healthy)) => found.push(healthy),
            Ok(Err(ill)) => reasons.push(format!("{address}: {ill}")),
            Err(error) => reasons.push(format!("{address}: {error}")),
        }
    }
    found.sort_by_key(|healthy| std::cmp::Reverse((healthy.leads, healthy.applied)));
    if found.is_empty() {
        let mut stop = Stop::new(ExitCode::Refused, "no control plane has a healthy etcd to take a snapshot from")
            .hinted("`recast check` looks at the whole cluster");
        stop.problems[0].causes = reasons;
        return Err(stop);
    }
    Ok(found)
}

/// The control planes' addresses; the API's own host where the profile has none.
fn addresses(session: &Session) -> Result<Vec<String>, Stop> {
    let profile = &session.profile.value;
    let mut addresses = Vec::new();
    for (_, _, group) in profile.nodes.iter().filter(|(role, _, _)| *role == Role::ControlPlane) {
        let names = (0..group.count).map(|index| group.member(index));
        addresses.extend(names.filter_map(|name| Some(group.assignment(&name)?.ip?.to_string())));
    }
    if addresses.is_empty() {
        let endpoint = profile.network.api_endpoint.as_ref();
        addresses.extend(endpoint.map(|endpoint| endpoint.host.clone()));
    }
    if addresses.is_empty() {
        return Err(Stop::new(ExitCode::Invalid, "the profile says no address of a control plane")
            .hinted("give nodes.controlplane.assignments[] their ip, or network.api_endpoint"));
    }
    Ok(addresses)
}

async fn look(session: &Session, access: &Access, address: &str) -> Result<Result<Healthy, String>, TalosError> {
    let machine = Machine::new(&session.connector, address, access, PATIENCE)?;
    let status = machine.etcd_status().await?;
    let corrupt = machine.etcd_alarms().await?.into_iter().any(|alarm| alarm == (status.id, Alarm::Corrupt));
    Ok(if corrupt {
        Err("its etcd raised the alarm that its data are corrupt".to_owned())
    } else if status.is_learner {
        Err("its etcd is a learner".to_owned())
    } else if status.leader == 0 {
        Err("its etcd sees no leader".to_owned())
    } else if !status.errors.is_empty() {
        Err(format!("its etcd complains: {}", status.errors.join("; ")))
    } else {
        let (applied, leads) = (status.applied, status.leader == status.id);
        Ok(Healthy { address: address.to_owned(), machine, applied, leads })
    })
}

/// From the first that sends a whole one.
async fn receive(
    store: &Store,
    name: &SnapshotName,
    healthy: Vec<Healthy>,
    surroundings: &Surroundings,
    global: &Global,
) -> Result<PathBuf, Stop> {
    let mut last = None;
    for Healthy { address, machine, .. } in healthy {
        let stop = match machine.waiting(SNAPSHOT_PATIENCE).etcd_snapshot().await {
            Ok(download) => match store.receive(name, chunks(download), &Silent).await {
                Ok((path, _)) => return Ok(path),
                // Another machine may do better at sending, and not at writing here.
                Err(error @ (StoreError::Sender { .. } | StoreError::Unproven(_))) => {
                    let code = ExitCode::Refused;
                    let stop = Stop::because(code, format!("the snapshot of {address} was not kept"), &error);
                    error.hints().into_iter().fold(stop, Stop::hinted)
                }
                Err(error) => return Err(unkept(&error)),
            },
            Err(error) => Stop::because(ExitCode::Failed, format!("{address} sends no snapshot"), &error),
        };
        if let Some(last) = last.replace(stop) {
            let told = last.problems.iter().map(|problem| problem.what.clone()).collect::<Vec<_>>().join("; ");
            surroundings.console.tell(&problem::warning(&told, surroundings.colour(global)));
        }
    }
    Err(last.unwrap_or_else(|| Stop::new(ExitCode::Internal, "there was nobody to ask")))
}

fn chunks(download: Download) -> impl stream::Stream<Item = Result<bytes::Bytes, TalosError>> {
    stream::try_unfold(download, async |mut download| Ok(download.chunk().await?.map(|chunk| (chunk, download))))
}

/// The profile's second places, with paths as they are meant.
fn targets(session: &Session) -> Vec<Target> {
    let target = |target: &CopyTarget| match target.clone() {
        CopyTarget::Path(folder) => Target::Path(session.folder().join(folder)),
        CopyTarget::Command { save, read } => Target::Command { save, read },
        CopyTarget::Ssh { host, path } => Target::Ssh { host, path },
    };
    session.profile.value.backup.copies.iter().map(target).collect()
}

async fn second(session: &Session, shells: &Shells, path: &Path, target: &Target) -> Result<copy::Copied, Stop> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Stop::because(ExitCode::Failed, format!("the snapshot has no copy at {target}"), error)
    };
    let local = Local::new(&session.folder()).of(path);
    let devices = match session.place.reach {
        Reach::LoopbackOnly => Devices::AllDiffer,
        Reach::Anywhere => Devices::Compare,
    };
    let remote = match target {
        Target::Ssh { host, .. } => {
            let remote = shells.host(&session.connector, host).await;
            Some(remote.map_err(|error| error.hint().into_iter().fold(failed(&error), Stop::hinted))?)
        }
        _ => None,
    };
    let way = Way { devices, local: &local, remote: remote.as_ref() };
    let copied = copy::copy(path, target, way).await;
    copied.map_err(|error| error.hints().into_iter().fold(failed(&error), Stop::hinted))
}
