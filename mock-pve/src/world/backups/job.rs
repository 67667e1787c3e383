//! A backup of any number of VMs: `vzdump`.
//!
//! Purpose: who is backed up and where to, all checks that come first, and the task. Must not know: requests. Rules after
//! Proxmox VE 8.4 (PVE/API2/VZDump.pm, PVE/VZDump.pm). Start at [`World::back_up`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use super::guest::Dump;
use super::names;
use super::retention::Keep;
pub use crate::vma::Packing;
use crate::world::node_files::NodeFile;
use crate::world::refusal::{Refusal, Rule};
use crate::world::rights::Caller;
use crate::world::state::State;
use crate::world::stop::Words;
use crate::world::volume::Family;
use crate::world::work::Work;
use crate::world::{World, held};

/// What keeps backups of a node apart.
const LOCK: &str = "/var/run/vzdump.lock";

/// Which VMs are backed up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Guests {
    /// None: running backups are stopped, that is all.
    #[default]
    Nobody,
    /// These.
    Listed(Vec<u32>),
    /// Those of a pool.
    Pool(String),
    /// All but these.
    AllBut(Vec<u32>),
}

/// What happens to a VM that runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// It goes on.
    #[default]
    Snapshot,
    /// It stands still while the backup begins.
    Suspend,
    /// It is shut down and started again.
    Stop,
}

impl Mode {
    /// As logs show it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Suspend => "suspend",
            Self::Stop => "stop",
        }
    }
}

/// Where archives go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// On a storage.
    Storage(String),
    /// Into a folder of the node.
    Folder(String),
    /// Both were named, which the task refuses; with the storage whose rights are asked for all the same.
    Both(Option<String>),
}

/// What becomes of the VMs that are meant and are on other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Nobody thinks of them: the request names a node.
    Silent,
    /// They are left out, and the log tells of it.
    Told,
}

/// A backup that is asked for.
#[derive(Clone, Debug)]
pub struct Job {
    /// The node that makes it.
    pub node: String,
    /// Of whom.
    pub guests: Guests,
    /// Those of them that are on other nodes.
    pub elsewhere: Elsewhere,
    /// How.
    pub mode: Mode,
    /// Where to.
    pub target: Target,
    /// How archives are packed.
    pub packing: Packing,
    /// The command that packs them, as logs show it.
    pub packer: String,
    /// Template of the notes.
    pub notes: Option<String>,
    /// Whether the archives are protected.
    pub protected: bool,
    /// How many stay.
    pub keep: Option<Keep>,
    /// Whether those beyond are removed; else a backup beyond them is refused.
    pub remove: bool,
    /// Stop what runs first.
    pub stop: bool,
    /// `vzdump 100 --storage local`.
    pub command: String,
    /// KiB a second, as logs show it.
    pub bwlimit: Option<u64>,
    /// Priority, as logs show it.
    pub ionice: u64,
    /// Minutes to wait for a guest to shut down.
    pub stopwait: f64,
    /// Minutes to wait for other backups of the node.
    pub lockwait: f64,
    /// A folder for temporary files, which has to exist.
    pub tmpdir: Option<String>,
    /// A hook script, which has to exist.
    pub script: Option<String>,
}

/// Where archives really go.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The storage, if it is one.
    pub storage: Option<String>,
    /// The folder as the node shows it.
    pub shown: String,
    /// Where it really is.
    pub real: PathBuf,
    /// How many stay.
    pub keep: Keep,
    /// Whether those beyond are removed.
    pub remove: bool,
}

impl State {
    /// The VMs of a job: those that its node has or nobody has, and those of other nodes.
    fn chosen(&self, job: &Job) -> (Vec<u32>, Vec<u32>) {
        let wanted: BTreeSet<u32> = match &job.guests {
            Guests::Nobody => BTreeSet::new(),
            Guests::Listed(list) => list.iter().copied().collect(),
            Guests::Pool(pool) => self.pools.get(pool).map(|pool| pool.vms.clone()).unwrap_or_default(),
            Guests::AllBut(list) => self.vms.keys().copied().filter(|vmid| !list.contains(vmid)).collect(),
        };
        wanted.into_iter().partition(|vmid| self.vms.get(vmid).is_none_or(|vm| vm.node == job.node))
    }
}

impl World {
    /// Makes backups. Says the UPID, or `OK` where there is nothing to do.
    pub async fn back_up(&self, caller: &Caller, job: Job) -> Rule<String> {
        let (vmids, others) = self.state().chosen(&job);
        if job.stop {
            self.state().check(caller, &format!("/nodes/{}", job.node), &["Sys.Modify"])?;
            self.stop_backups(&job.node).await;
        }
        if vmids.is_empty() && (job.stop || !matches!(job.guests, Guests::AllBut(_))) {
            return Ok("OK".to_owned());
        }
        if let Target::Storage(storage) | Target::Both(Some(storage)) = &job.target {
            self.state().check(caller, &format!("/storage/{storage}"), &["Datastore.AllocateSpace"])?;
        }
        let id = if let [one] = vmids[..] { one.to_string() } else { String::new() };
        let (who, node) = (caller.clone(), job.node.clone());
        Ok(self.start_task(caller, &node, "vzdump", &id, |work| async move {
            let place = work.world().dump_place(&job)?;
            let _alone = match work.world().dump_lock(&work, &job).await {
                Ok(alone) => alone,
                Err(refusal) => {
                    // It goes without a last word.
                    work.log(format!("ERROR: can't acquire lock '{LOCK}' {}", refusal.text()));
                    let now = work.world().clock().unix();
                    work.world().state().tasks.vanish(work.upid(), now);
                    return Err(refusal);
                }
            };
            work.log(format!("INFO: starting new backup job: {}", job.command));
            if job.elsewhere == Elsewhere::Told && !others.is_empty() {
                let others: Vec<String> = others.iter().map(u32::to_string).collect();
                work.log(format!("INFO: skip external VMs: {}", others.join(", ")));
            }
            run(&work, &who, &job, &place, &vmids).await
        }))
    }

    /// Ends the backups that run on a node.
    async fn stop_backups(&self, node: &str) {
        let running: Vec<String> = {
            let state = self.state();
            let tasks = state.tasks.by_upid.values();
            let here = tasks.filter(|task| task.kind == "vzdump" && task.node == node && task.status.is_none());
            here.map(|task| task.upid.clone()).collect()
        };
        for upid in &running {
            self.stop_task(upid);
        }
        for upid in &running {
            self.task_end(upid, Duration::from_secs(15)).await;
        }
    }

    /// Where a job's archives go, or all that stands against it.
    fn dump_place(&self, job: &Job) -> Rule<Place> {
        if let Target::Both(_) = job.target {
            return Err(Refusal::failed("cannot use options 'storage' and 'dumpdir' at the same time\n"));
        }
        let mut errors: Vec<String> = Vec::new();
        if let Some(script) = &job.script {
            let there = self.is_there(&job.node, script, std::path::Path::is_file);
            let why = if there { "is not executable" } else { "does not exist" };
            errors.push(format!("Error: The hook script '{script}' {why}."));
        }
        let mut place = Place {
            storage: None,
            shown: String::new(),
            real: PathBuf::new(),
            keep: job.keep.clone().unwrap_or_else(|| Keep::of_count(0)),
            remove: job.remove,
        };
        match &job.target {
            Target::Storage(id) => {
                let state = self.state();
                if let Err(refusal) = state.storage_on(id, &job.node) {
                    errors.push(format!("could not activate storage '{id}': {}", refusal.text()));
                }
                match state.storages.get(id) {
                    None => {
                        let text = format!("storage '{id}' does not exist");
                        errors.push(format!("could not get storage information for '{id}': {text}"));
                    }
                    Some(storage) if !storage.holds("backup") => {
                        let text = format!("can't use storage '{id}' for backups - wrong content type");
                        errors.push(format!("could not get storage information for '{id}': {text}"));
                    }
                    Some(storage) if storage.family() != Family::Files => {
                        let server = storage.option("server").unwrap_or("localhost");
                        errors.push(format!(
                            "could not activate storage '{id}': {id}: error fetching datastores - 500 Can't connect to \
                             {server}:8007 (Connection refused)"
                        ));
                    }
                    Some(storage) => {
                        let own = storage.option("prune-backups").map(Keep::parse);
                        place.keep = job.keep.clone().or(own).unwrap_or_else(|| Keep::of_count(0));
                        let key = state.key_on(&job.node, id, "backup/vzdump-qemu-100.vma");
                        let shown = state.path_of(&key);
                        shown.rsplit_once('/').map_or("", |(folder, _)| folder).clone_into(&mut place.shown);
                        place.real = state.file_of(self.dir(), &key).parent().map(PathBuf::from).unwrap_or_default();
                        place.storage = Some(id.clone());
                    }
                }
            }
            Target::Folder(folder) => {
                let folder = folder.trim_end_matches('/');
                match self.node_file(&job.node, folder) {
                    Some(NodeFile::File { real, .. }) if real.is_dir() => {
                        (place.shown, place.real) = (folder.to_owned(), real);
                    }
                    _ => errors.push(format!("dumpdir '{folder}' does not exist")),
                }
            }
            Target::Both(_) => {}
        }
        if let Some(tmpdir) = &job.tmpdir
            && !self.is_there(&job.node, tmpdir, std::path::Path::is_dir)
        {
            errors.push(format!("tmpdir '{}' does not exist", tmpdir.trim_end_matches('/')));
        }
        place.remove &= !place.keep.keeps_all();
        if errors.is_empty() { Ok(place) } else { Err(Refusal::failed(format!("{}\n", errors.join("\n")))) }
    }

    fn is_there(&self, node: &str, path: &str, is: impl Fn(&std::path::Path) -> bool) -> bool {
        matches!(self.node_file(node, path), Some(NodeFile::File { real, .. }) if is(&real))
    }

    /// Waits for the other backups of a node. A refusal is the end of a sentence.
    async fn dump_lock(&self, work: &Work, job: &Job) -> Rule<OwnedMutexGuard<()>> {
        let lock = Arc::clone(held(&self.0.dumps).entry(job.node.clone()).or_default());
        if let Ok(free) = Arc::clone(&lock).try_lock_owned() {
            return Ok(free);
        }
        if job.lockwait == 0.0 {
            return Err(Refusal::failed("(wait = 0)"));
        }
        work.log("INFO: trying to get global lock - waiting...");
        let patience = self.clock().scaled(job.lockwait * 60.0).max(Duration::from_millis(50));
        let waiting = async {
            let taken = tokio::time::timeout(patience, lock.lock_owned()).await;
            taken.map_err(|_| Refusal::failed("got timeout\n"))
        };
        let taken = work.attempt(Words::Signal, waiting).await;
        let taken = taken.map_err(|refusal| Refusal::failed(format!("- {}\n", refusal.text())))?;
        work.log("INFO: got global lock");
        Ok(taken)
    }
}

async fn run(work: &Work, who: &Caller, job: &Job, place: &Place, vmids: &[u32]) -> Rule<()> {
    let world = work.world();
    let mut guests = Vec::new();
    {
        let state = world.state();
        for vmid in vmids {
            let path = format!("/vms/{vmid}");
            let unknown = !state.vms.contains_key(vmid);
            if unknown || state.may(who, &path, &["VM.Backup"]) {
                guests.push(*vmid);
            } else if !matches!(job.guests, Guests::AllBut(_)) {
                state.check(who, &path, &["VM.Backup"])?;
            }
        }
    }
    let mut failed = false;
    for vmid in guests {
        let began = world.clock().unix();
        let mut dump = Dump::new(work, who, job, place, vmid);
        let result = work.attempt(Words::Signal, dump.run()).await;
        let took = world.clock().unix().saturating_sub(began);
        match result {
            Ok(()) => {
                let (hours, minutes, seconds) = (took / 3600, took / 60 % 60, took % 60);
                dump.info(&format!("Finished Backup of VM {vmid} ({hours:02}:{minutes:02}:{seconds:02})"));
                work.log(format!("INFO: Backup finished at {}", names::shown(world.clock().unix())));
            }
            Err(refusal) => {
                failed = true;
                dump.error(&format!("Backup of VM {vmid} failed - {}", refusal.text()));
                work.log(format!("INFO: Failed at {}", names::shown(world.clock().unix())));
                if refusal.text() == "interrupted by signal" {
                    // Nobody wants the others either.
                    dump.keep_log();
                    work.log("ERROR: Backup job failed - interrupted by signal");
                    return Err(refusal);
                }
            }
        }
        dump.keep_log();
    }
    if failed {
        work.log("INFO: Backup job finished with errors");
        return Err(Refusal::failed("job errors\n"));
    }
    work.log("INFO: Backup job finished successfully");
    Ok(())
}
