//! What is looked at on this computer before a run: siblings, programs, the repository, the folder of snapshots, and where
//! the things live that recast needs itself.
//!
//! Purpose: fills [`Here`] for the gates. Reads only. A rehearsal looks at none of it but snapshots' places, which are its
//! own.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::session::Session;
use super::stop::Stop;
use crate::backup::Devices;
use crate::command::{Commands, Mode, find_program, git};
use crate::exit::ExitCode;
use crate::net::Reach;
use crate::plan::errands::{self, Errands};
use crate::plan::gates::{Backup, CopyState, Here, Host, Repository, SecondCopy, Service};
use crate::plan::observed::Finding;
use crate::plan::step::{ManifestFile, Manifests, Moment};
use crate::profile::problem::{Problem, Severity};
use crate::profile::{Apply, CopyTarget, load, siblings};
use crate::types::Sha256;

/// How long looking a name up may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// Everything but where the data come from, which depends on what is asked for.
pub async fn look(session: &Session, errands: &Errands, registry: Option<&str>) -> Here {
    let mut here = Here { services: services(session, errands, registry).await, ..Here::default() };
    if session.place.commands == Mode::Record {
        return here;
    }
    here.siblings = broken_rules(session);
    let path = session.place.env.get("PATH").unwrap_or_default();
    let missing = |(program, _): &(&str, &str)| find_program(program, path.as_ref()).is_none();
    let missing = errands.programs().into_iter().filter(missing);
    here.missing_programs = missing.map(|(program, why)| (program.to_owned(), why.to_owned())).collect();
    if errands.git.is_some() && !here.missing_programs.iter().any(|(program, _)| program == "git") {
        here.repository = Some(repository(session).await);
    }
    here
}

/// The profiles beside this one, as far as they can be read: one that can't is not this run's affair, but is told.
fn broken_rules(session: &Session) -> Vec<Finding> {
    let own = fs::canonicalize(&session.profile_path).ok();
    let mut others = Vec::new();
    let mut found = Vec::new();
    let entries = fs::read_dir(session.folder()).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "yaml")).collect();
    paths.sort();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_profile = fs::read_to_string(&path).is_ok_and(|text| looks_like_a_profile(&text));
        if !is_profile || fs::canonicalize(&path).ok() == own {
            continue;
        }
        match load::profile_file(&path) {
            Ok(loaded) => others.push((name, loaded.value)),
            Err(_) => found.push(Finding::warning(
                format!("{name} beside the profile is not valid, so it could not be compared"),
                "its VMIDs, tags and addresses may overlap with this cluster's",
            )),
        }
    }
    let placed = siblings::compare(&session.profile.value, &others);
    found.extend(placed.into_iter().map(|problem| of_problem(session.profile.source.place(problem))));
    found
}

/// Site files and others lie in the same folder.
fn looks_like_a_profile(text: &str) -> bool {
    let has = |key: &str| text.lines().any(|line| line.starts_with(key));
    has("name:") && has("nodes:")
}

fn of_problem(mut problem: Problem) -> Finding {
    let hint = problem.hint.take();
    problem.snippet = None;
    let what = problem.to_string();
    let hint = hint.unwrap_or_else(|| "clusters of one site must keep apart: change one of them".to_owned());
    match problem.severity {
        Severity::Error => Finding::refusal(what, hint),
        Severity::Warning => Finding::warning(what, hint),
    }
}

async fn repository(session: &Session) -> Repository {
    let (commands, folder) = (Commands::Real, session.folder());
    let repository = git::Repository::of(&commands, &folder);
    if !repository.exists().await.unwrap_or(false) {
        return Repository::Missing;
    }
    let files = [session.profile_path.clone(), session.lock_path()];
    let files = files.into_iter().filter(|path| path.exists()).map(|path| std::path::absolute(&path).unwrap_or(path));
    match repository.differ(&files.collect::<Vec<_>>()).await {
        Ok(false) => Repository::Clean,
        Ok(true) | Err(_) => Repository::Changed,
    }
}

/// What the profile asks for beside the cluster, with its files found and read.
pub fn errands(session: &Session) -> Result<Errands, Stop> {
    let (profile, folder) = (&session.profile.value, session.folder());
    let hooks = &profile.hooks;
    let hooks = [
        (Moment::BeforeRetire, &hooks.before_retire),
        (Moment::AfterBootstrap, &hooks.after_bootstrap),
        (Moment::Finished, &hooks.finished),
    ];
    let hooks = hooks.into_iter().filter_map(|(moment, command)| Some((moment, command.clone()?))).collect();
    let mut apply = Vec::new();
    for wanted in &profile.bootstrap.apply {
        apply.push(match wanted {
            Apply::Command(command) => errands::Apply::Command(command.clone()),
            Apply::Manifests(url) if url.starts_with("https://") => {
                errands::Apply::Manifests(Manifests::Url(url.clone()))
            }
            Apply::Manifests(path) => errands::Apply::Manifests(Manifests::Files(manifests(&folder.join(path))?)),
        });
    }
    let git = profile.finish.git.filter(|git| git.commit);
    let git = git.map(|git| if git.push { errands::Git::Push } else { errands::Git::Commit });
    let flux = profile.flux.as_ref().filter(|_| profile.finish.flux).map(|flux| errands::Flux {
        repo: flux.repo.clone(),
        path: flux.path.clone(),
        branch: flux.branch.clone(),
        secrets: profile.talos.as_ref().map(|talos| encrypted(&talos.config_dir_in(&folder))).unwrap_or_default(),
    });
    Ok(Errands { hooks, apply, git, flux })
}

/// A file of manifests, or all of a folder in the order of their names.
fn manifests(path: &Path) -> Result<Vec<ManifestFile>, Stop> {
    let unreadable = |path: &Path, error: &std::io::Error| {
        Stop::because(ExitCode::Invalid, format!("the manifests {} can't be read", path.display()), error)
            .hinted("bootstrap.apply names a file or folder relative to the profile's, or an https:// URL")
    };
    let mut files = Vec::new();
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
        let found = entries.flatten().map(|entry| entry.path());
        files.extend(found.filter(|file| is_yaml(file)));
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    let read = |file: PathBuf| {
        let text = fs::read(&file).map_err(|error| unreadable(&file, &error))?;
        let absolute = std::path::absolute(&file).unwrap_or(file);
        Ok(ManifestFile { path: absolute, sha256: Sha256::of(&text) })
    };
    files.into_iter().map(read).collect()
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known))
}

/// `<config_dir>/flux/*.sops.yaml`: the keys that Flux needs before it can read its repository.
fn encrypted(config: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(config.join("flux")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".sops.yaml")))
        .map(|path| std::path::absolute(&path).unwrap_or(path))
        .collect();
    found.sort();
    found
}

/// What recast needs while the cluster is away.
async fn services(session: &Session, errands: &Errands, registry: Option<&str>) -> Vec<Service> {
    let site = &session.site;
    let mut wanted: Vec<(String, Vec<String>)> = Vec::new();
    let endpoints: Vec<String> = site.endpoints.iter().filter_map(|url| host_of(url)).collect();
    wanted.push(("Proxmox VE".to_owned(), endpoints));
    let nodes = site.nodes.iter().filter_map(|node| Some((node.name.to_string(), host_of(node.api.as_ref()?)?)));
    wanted.extend(nodes.map(|(name, host)| (format!("the API of PVE node {name}"), vec![host])));
    let own = session.profile.value.talos.as_ref().and_then(|talos| talos.factory.url.as_deref());
    wanted.push(("the Image Factory".to_owned(), host_of(own.unwrap_or(&site.factory.url)).into_iter().collect()));
    if let Some(registry) = registry.and_then(host_of) {
        wanted.push(("the registry of the installer image".to_owned(), vec![registry]));
    }
    let nameservers = session.profile.value.network.nameservers.iter().map(ToString::to_string).collect();
    wanted.push(("the machines' DNS".to_owned(), nameservers));
    if let Some(flux) = &errands.flux {
        wanted.push(("Flux' repository".to_owned(), host_of(&flux.repo).into_iter().collect()));
    }
    if errands.git == Some(errands::Git::Push) && session.place.commands == Mode::Run {
        let upstream = git::Repository::of(&Commands::Real, &session.folder()).upstream().await.ok().flatten();
        wanted.push(("git's upstream".to_owned(), upstream.as_deref().and_then(host_of).into_iter().collect()));
    }
    for apply in &errands.apply {
        if let errands::Apply::Manifests(Manifests::Url(url)) = apply {
            wanted.push((format!("what {url} is fetched from"), host_of(url).into_iter().collect()));
        }
    }
    for copy in &session.profile.value.backup.copies {
        if let CopyTarget::Ssh { host, .. } = copy {
            wanted.push(("the host of second copies".to_owned(), host_of(host).into_iter().collect()));
        }
    }
    if session.place.commands == Mode::Run {
        let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let servers =
            text.lines().filter_map(|line| line.strip_prefix("nameserver")).map(|rest| rest.trim().to_owned());
        wanted.push(("this computer's DNS".to_owned(), servers.collect()));
    }
    let mut found = Vec::new();
    for (what, names) in wanted {
        let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        let mut hosts = Vec::new();
        for name in names {
            let addresses = addresses(session, &name).await;
            hosts.push(Host { name, addresses });
        }
        found.push(Service { what, hosts });
    }
    found
}

/// Names are looked up only where connections may leave this computer.
async fn addresses(session: &Session, host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    if session.place.commands == Mode::Record {
        return Vec::new();
    }
    match tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        // What doesn't resolve shows when it is called.
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// The host in a URL, in `host:port`, and in git's `user@host:path`.
fn host_of(text: &str) -> Option<String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.split('/').next()?;
    let bare = bare.rsplit_once('@').map_or(bare, |(_, host)| host);
    let host = match bare.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None if bare.parse::<IpAddr>().is_ok() => bare,
        None => bare.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_owned())
}

/// The folder of snapshots and the places of second copies, as they are before anything is written there.
pub fn backup(session: &Session, database: Option<u64>) -> Backup {
    let (profile, folder) = (&session.profile.value, session.folder());
    let dir = profile.backup_dir_in(&folder);
    // Where nothing but loopback can be reached, folders stand for devices.
    let devices = match session.place.reach {
        Reach::LoopbackOnly => Devices::AllDiffer,
        Reach::Anywhere => Devices::Compare,
    };
    let copies = profile.backup.copies.iter().map(|copy| second_copy(copy, &folder, &dir, devices));
    Backup {
        unusable: unusable(&dir).err(),
        free: free_bytes(&dir),
        database,
        copies: copies.collect(),
        required: profile.guards.require_copy,
        dir,
    }
}

fn second_copy(copy: &CopyTarget, folder: &Path, first: &Path, devices: Devices) -> SecondCopy {
    match copy {
        CopyTarget::Path(path) => {
            let path = folder.join(path);
            let device = |path: &Path| fs::metadata(path).ok().map(|found| found.dev());
            let state = match unusable(&path) {
                Err(why) => CopyState::Unusable(why),
                Ok(()) if devices == Devices::Compare && device(&path) == device(first) => CopyState::SameDevice,
                Ok(()) => CopyState::Counts,
            };
            SecondCopy { place: path.display().to_string(), state }
        }
        CopyTarget::Ssh { host, path } => SecondCopy { place: format!("{host}:{path}"), state: CopyState::Counts },
        CopyTarget::Command { save, read } => {
            let state = if read.is_some() { CopyState::Counts } else { CopyState::Unreadable };
            SecondCopy { place: format!("`{save}`"), state }
        }
    }
}

/// Whether a file can be made there: found out by making one that goes away by itself.
fn unusable(dir: &Path) -> Result<(), String> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err("it is no folder".to_owned()),
        Err(error) => return Err(error.to_string()),
    }
    tempfile::tempfile_in(dir).map(drop).map_err(|error| error.to_string())
}

/// What is left for this user on the file system.
fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_found_in_every_way_of_writing_them() {
        for (text, host) in [
            ("https://192.168.178.11:8006", "192.168.178.11"),
            ("192.168.178.11:8006", "192.168.178.11"),
            ("https://[fd00::1]:8006/", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("ssh://git@git.example.org:2222/a/b", "git.example.org"),
            ("git@git.example.org:a/b.git", "git.example.org"),
            ("factory.talos.dev/nocloud-installer/x:v1.13.9", "factory.talos.dev"),
            ("backup@nas.home:2200", "nas.home"),
        ] {
            assert_eq!(host_of(text).as_deref(), Some(host), "{text}");
        }
    }

    #[test]
    fn a_place_for_snapshots_must_be_a_folder_that_takes_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unusable(dir.path()), Ok(()));
        assert!(free_bytes(dir.path()).is_some());
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(unusable(&file), Err("it is no folder".to_owned()));
        assert!(unusable(&dir.path().join("gone")).unwrap_err().contains("No such file"));
        let copy = |target: CopyTarget| second_copy(&target, dir.path(), dir.path(), Devices::Compare).state;
        fs::create_dir(dir.path().join("b")).unwrap();
        assert_eq!(copy(CopyTarget::Path("b".into())), CopyState::SameDevice);
        assert!(matches!(copy(CopyTarget::Path("c".into())), CopyState::Unusable(_)));
        assert_eq!(copy(CopyTarget::Command { save: "x".to_owned(), read: None }), CopyState::Unreadable);
        if fs::metadata("/dev/shm").is_ok_and(|shm| shm.dev() != fs::metadata(dir.path()).unwrap().dev()) {
            assert_eq!(copy(CopyTarget::Path("/dev/shm".into())), CopyState::Counts);
        }
    }

    #[test]
    fn manifests_are_a_file_or_a_folders_files_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", "README.md"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let names = |files: Vec<ManifestFile>| {
            let names = files.into_iter().map(|file| file.path.file_name().unwrap().to_string_lossy().into_owned());
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(manifests(dir.path()).unwrap()), ["a.yml", "b.yaml"]);
        let one = manifests(&dir.path().join("b.yaml")).unwrap();
        assert_eq!(one[0].sha256, Sha256::of(b"b.yaml"));
        assert_eq!(manifests(&dir.path().join("gone")).unwrap_err().code, ExitCode::Invalid);
    }
}
