//! From a session to a plan: what is asked for made definite, what is there looked at, both compared.
//!
//! Purpose: the order of questions. Reads only; whatever stands in the way comes out as a list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::args::Wishes;
use super::carry_out::access;
use super::here;
use super::patches::Patches;
use super::session::Session;
use super::stop::Stop;
use super::waiting::patiently;
use super::way_back::Before;
use crate::backup::{self, SnapshotName};
use crate::command::Mode;
use crate::exit::ExitCode;
use crate::image::{self, Arch, Boot, Bootloader, Build, Encoding, FactoryError, Schematic};
use crate::journal::StateDir;
use crate::observe::{self, Ask};
use crate::plan::data::{CopyTo, Keep, Proven};
use crate::plan::errands::Errands;
use crate::plan::gates::{self, Snapshot, Source};
use crate::plan::make::inherit;
use crate::plan::observed::{Finding, Observed};
use crate::plan::step::{Discovery, Hardware, Image, MachineSpec};
use crate::plan::wanted::OtherImage;
use crate::plan::{ClusterConfig, Data, Limits, Plan, PlannedVm, Verb, Versions, Wanted, check, lint, make, sources};
use crate::profile::expand::{Taken, WantedVm, expand};
use crate::profile::{self, CopyTarget, DiscoveryMode, Inherit, Talos, Transport};
use crate::pve::PveError;
use crate::pve::vm::{Guest, GuestKind};
use crate::steps::config;
use crate::talos::secrets::Secrets;
use crate::types::{MachineName, NodeName, Role, RunId, SchematicId, Sha256, Version, VersionWish, VmId};

/// Hardware of all VMs, before the site's and the profile's own keys.
const HARDWARE: &str = include_str!("../../templates/vm-hardware.json");

/// The schematic of a profile that names none.
const SCHEMATIC: &str = include_str!("../../templates/schematic.yaml");

/// The extension without which a guest agent is never there.
const AGENT: &str = "siderolabs/qemu-guest-agent";

/// Everything that a verb about a rebuild shows or carries out.
pub struct Prepared {
    /// What was seen.
    pub seen: Observed,
    /// What stands in the way or should be known.
    pub findings: Vec<Finding>,
    /// The plan; none when something refuses the run.
    pub plan: Option<Plan>,
    /// The cluster's secrets.
    pub secrets: Secrets,
}

/// What a verb asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// What is done.
    pub verb: Verb,
    /// What the new cluster shall be.
    pub wishes: Wishes,
    /// What becomes of the data.
    pub data: DataWish,
    /// What was kept of the cluster that is to come back as it was.
    pub back: Option<Before>,
}

/// What becomes of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataWish {
    /// The running cluster's are kept.
    Keep,
    /// None are.
    Fresh,
    /// Those of this file are restored.
    Restore(PathBuf),
}

/// Looks at everything and plans what is asked for.
pub async fn prepare(session: &Session, order: &Order, run: RunId, now: jiff::Timestamp) -> Result<Prepared, Stop> {
    let talos = session.talos()?;
    let secrets = session.secrets(now)?;
    let errands = here::errands(session)?;
    let mut found = Vec::new();
    let guests = session.pve.guests().await.map_err(|error| unreachable(&error))?;
    let rows = rows(session, &guests)?;
    let half_made = order.back.as_ref().map(|before| before.half_made.clone()).unwrap_or_default();
    let ask = Ask { half_made, ..ask(session, &rows) };
    let mut seen = observe::pve::observe(&session.pve, &ask).await.map_err(|error| unreachable(&error))?;
    session.pve.caller().clone_into(&mut seen.caller);
    seen.missing_rights =
        observe::rights::missing(&session.pve, &ask, &seen).await.map_err(|error| unreachable(&error))?;
    let release = match order.verb {
        Verb::Teardown | Verb::Upgrade | Verb::GoBack => Some(Release::nothing(talos)),
        Verb::Rebuild | Verb::Create | Verb::TemplateBuild | Verb::Rollback => {
            release(session, talos, &order.wishes, &mut seen, &mut found).await?
        }
    };
    seen.may_migrate = observe::rights::may_migrate(&session.pve, &ask).await.map_err(|error| unreachable(&error))?;
    let planned_rows = planned_vms(&rows);
    let planned_rows = order.back.as_ref().map_or(planned_rows.clone(), |before| before.addressed(planned_rows));
    let vms = inherit(&planned_rows, &run, &seen, &inheritance(&rows));
    let access = access(&secrets, now)?;
    seen.cluster =
        observe::cluster::observe(&session.connector, &secrets, &access, &vms, &endpoint(session)?, now).await;
    if order.verb.makes_templates() {
        seen.shells = shells(session, &seen).await?;
    }
    let Some(release) = release else {
        let scope = check::Scope {
            verb: order.verb,
            vms: &vms,
            tags: &session.profile.value.tags,
            storage: &session.site.defaults.storage,
            max_destroy: session.profile.value.guards.max_destroy,
            destroy_disks: &order.wishes.destroy_disks.iter().cloned().collect(),
        };
        found.extend(check::around(&scope, &seen));
        return Ok(Prepared { seen, findings: found, plan: None, secrets });
    };
    if order.verb == Verb::TemplateBuild {
        let wanted = wanted(session, order, run, release, &rows, vms, &secrets)?;
        found.extend(check::findings(&wanted, &seen));
        found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        let plan = if check::refuses(&found) { None } else { Some(planned(&wanted, &seen)?) };
        return Ok(Prepared { seen, findings: found, plan, secrets });
    }
    let mut here = here::look(session, &errands, Some(&release.installer)).await;
    here.out_of_reach = out_of_reach(session, &guests, &seen);
    let data;
    (data, here.data) = data_of(session, &order.data).await?;
    if order.data == DataWish::Keep {
        here.backup = Some(here::backup(session, seen.cluster.as_ref().and_then(|cluster| cluster.database_bytes)));
    }
    let destroy_disks = order.wishes.destroy_disks.iter().cloned().collect();
    let wanted = Wanted { data, errands, destroy_disks, ..wanted(session, order, run, release, &rows, vms, &secrets)? };
    let mut findings = check::findings(&wanted, &seen);
    findings.extend(order.back.as_ref().map(Before::warning));
    findings.extend(gates::findings(&wanted, &seen, &here));
    findings.extend(super::patches::migration(&wanted, &seen));
    findings.splice(0..0, found);
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let plan = if check::refuses(&findings) { None } else { Some(planned(&wanted, &seen)?) };
    Ok(Prepared { seen, findings, plan, secrets })
}

fn planned(wanted: &Wanted, seen: &Observed) -> Result<Plan, Stop> {
    let plan =
        make::make(wanted, seen).map_err(|error| Stop::because(ExitCode::Refused, "no plan can be made", &error))?;
    planned_is_sane(plan)
}

/// A plan that breaks a rule is never shown, let alone carried out.
pub(super) fn planned_is_sane(plan: Plan) -> Result<Plan, Stop> {
    let notes = lint::lint(&plan);
    if notes.is_empty() {
        return Ok(plan);
    }
    let text = notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(Stop::new(ExitCode::Internal, format!("the plan breaks its own rules: {text}")).hinted("please report this"))
}

/// How images come to the nodes, as asked for.
fn transport(session: &Session) -> Transport {
    session.profile.value.transport.unwrap_or(session.site.defaults.transport)
}

/// Whether the nodes that may have to be used over SSH can be: those that take no uploads, or all where that is asked for.
async fn shells(session: &Session, seen: &Observed) -> Result<BTreeMap<NodeName, Option<Finding>>, Stop> {
    let transport = transport(session);
    let mut found = BTreeMap::new();
    for (node, login) in super::ssh::nodes(session)? {
        let online = seen.nodes.iter().any(|other| other.name == node && other.online);
        if online && sources::may_need_ssh(transport, seen, &node) {
            let problem = observe::shell::look(&session.connector, &login).await;
            found.insert(node, problem);
        }
    }
    Ok(found)
}

/// What becomes of the data, for the plan and for the gates; a file is proven here and now.
async fn data_of(session: &Session, data: &DataWish) -> Result<(Data, Source), Stop> {
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
pub(super) fn keep(session: &Session) -> Keep {
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
        let plan: Plan = serde_json::from_slice(&dir.plan_bytes().ok()?).ok()?;
        Some(plan.before?.kubernetes)
    });
    let of_profile = || match &session.profile.value.talos.as_ref()?.kubernetes_version {
        VersionWish::Exact(version) => Some(version.clone()),
        VersionWish::Minor(..) | VersionWish::Latest => None,
    };
    of_run.or_else(of_profile)
}

/// The cluster's VMs on nodes that are down, by tags, else by number.
pub(super) fn out_of_reach(session: &Session, guests: &[Guest], seen: &Observed) -> Vec<(VmId, String, NodeName)> {
    let tags = &session.profile.value.tags;
    let down = |node: &NodeName| seen.nodes.iter().any(|other| other.name == *node && !other.online);
    let ours = guests.iter().filter(|guest| {
        let tagged = guest.tags().contains_all(tags.iter().map(String::as_str));
        guest.kind == GuestKind::Qemu && guest.template != Some(true) && tagged && down(&guest.node)
    });
    ours.map(|guest| (guest.vmid, guest.name.clone().unwrap_or_default(), guest.node.clone())).collect()
}

/// PVE can't be read: nothing else can be said.
pub fn unreachable(error: &PveError) -> Stop {
    let stop = Stop::because(ExitCode::Refused, "Proxmox VE could not be read", error);
    match error {
        PveError::Pin { .. } => stop.hinted(
            "if the node's certificate was renewed, compare the fingerprint on its console and put the new one into the site file",
        ),
        PveError::Untrusted(_) => stop.hinted(
            "give the site file tls.ca with /etc/pve/pve-root-ca.pem of a PVE node, or the node's fingerprint",
        ),
        PveError::Unauthorized { .. } => stop.hinted("check the token's id and secret in the site file"),
        _ => stop,
    }
}

/// Whether any VM of the cluster is there, by its tags.
pub async fn any_member(session: &Session) -> Result<bool, Stop> {
    let tags = &session.profile.value.tags;
    let guests = session.pve.guests().await.map_err(|error| unreachable(&error))?;
    Ok(guests.iter().any(|guest| {
        guest.kind == GuestKind::Qemu
            && guest.template != Some(true)
            && guest.tags().contains_all(tags.iter().map(String::as_str))
    }))
}

/// The profile's VMs with names, numbers and nodes spelled out.
pub(super) fn rows(session: &Session, guests: &[Guest]) -> Result<Vec<WantedVm>, Stop> {
    let profile = &session.profile.value;
    let member = |guest: &&Guest| {
        guest.kind == GuestKind::Qemu
            && guest.template != Some(true)
            && guest.tags().contains_all(profile.tags.iter().map(String::as_str))
    };
    let assignments = profile.nodes.iter().flat_map(|(_, _, group)| &group.assignments);
    let assigned: BTreeSet<VmId> = assignments.filter_map(|assignment| assignment.vmid).collect();
    let taken = Taken {
        // A number that the profile assigns and a stranger has is `check`'s to refuse: it can name the stranger.
        on_pve: guests.iter().map(|guest| guest.vmid).filter(|vmid| !assigned.contains(vmid)).collect(),
        replaced: guests.iter().filter(member).map(|guest| guest.vmid).collect(),
        siblings: BTreeSet::new(),
        room_mb: BTreeMap::new(),
    };
    Ok(expand(profile, &session.site, &taken)?)
}

pub(super) fn ask(session: &Session, rows: &[WantedVm]) -> Ask {
    let profile = &session.profile.value;
    let ranges = &session.site.vmid_ranges;
    let mut nodes: Vec<NodeName> = rows.iter().map(|vm| vm.node.clone()).collect();
    nodes.sort();
    nodes.dedup();
    Ask {
        cluster: profile.name.clone(),
        tags: profile.tags.clone(),
        half_made: BTreeSet::new(),
        names: rows.iter().map(|vm| vm.name.to_string()).collect(),
        vmids: rows.iter().map(|vm| vm.vmid).collect::<Vec<VmId>>(),
        template_ids: ranges.templates.first.0..=ranges.templates.last.0,
        nodes,
        storage: session.site.defaults.storage.clone(),
        transport: transport(session),
        bridge: profile.network.bridge.clone().unwrap_or_else(|| session.site.defaults.bridge.clone()),
        vlan: profile.network.vlan.or(session.site.defaults.vlan),
        inherits: rows.iter().flat_map(|vm| vm.inherit.iter().copied()).collect(),
        pool: session.site.defaults.pool.clone(),
        cloud_init: profile.address_discovery.mode == DiscoveryMode::CloudInit,
    }
}

/// What each VM takes over.
pub(super) fn inheritance(rows: &[WantedVm]) -> BTreeMap<String, BTreeSet<Inherit>> {
    rows.iter().map(|vm| (vm.name.to_string(), vm.inherit.clone())).collect()
}

pub(super) fn endpoint(session: &Session) -> Result<String, Stop> {
    let endpoint = session.profile.value.network.api_endpoint.as_ref();
    let endpoint = endpoint.ok_or_else(|| Stop::new(ExitCode::Invalid, "the profile has no network.api_endpoint"))?;
    Ok(endpoint.url())
}

pub(super) fn planned_vms(rows: &[WantedVm]) -> Vec<PlannedVm> {
    let planned = rows.iter().map(|vm| PlannedVm {
        name: vm.name.to_string(),
        role: vm.role,
        vmid: vm.vmid,
        node: vm.node.clone(),
        address: vm.address,
        cores: vm.cores,
        memory_mb: vm.memory_mb,
        disk_gib: vm.disk_gib,
        mac: vm.mac,
        replaces: None,
    });
    planned.collect()
}

/// What will be installed.
struct Release {
    versions: Versions,
    schematic: SchematicId,
    installer: String,
    extensions: Vec<String>,
    /// Roles with a factory of their own.
    others: BTreeMap<Role, OtherRelease>,
}

/// What is installed on the machines of one role, where it isn't what the others have.
struct OtherRelease {
    schematic: SchematicId,
    installer: String,
    extensions: Vec<String>,
}

impl Release {
    /// What a teardown installs. The versions are the profile's, as far as it names them; none of this is carried out.
    fn nothing(talos: &Talos) -> Self {
        let version = |wish: &VersionWish| match wish {
            VersionWish::Exact(version) => version.clone(),
            VersionWish::Minor(major, minor) => Version::new(*major, *minor, 0),
            VersionWish::Latest => Version::new(1, 0, 0),
        };
        let versions = Versions { talos: version(&talos.version), kubernetes: version(&talos.kubernetes_version) };
        Self {
            versions,
            schematic: SchematicId::new(""),
            installer: String::new(),
            extensions: Vec::new(),
            others: BTreeMap::new(),
        }
    }
}

/// Resolves versions and schematic with the factory, and looks whether it has the image. None when it has not.
async fn release(
    session: &Session,
    talos: &Talos,
    wishes: &Wishes,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<Option<Release>, Stop> {
    let factory = &session.factory;
    let wish = wishes.to.as_ref().unwrap_or(&talos.version);
    let version = match factory.resolve(wish).await {
        Ok(version) => version,
        Err(error) => {
            seen.problems.push(
                Finding::refusal(
                    format!("Talos {wish} can't be had"),
                    "`recast check --to latest` shows the newest release",
                )
                .because(&error),
            );
            return Ok(None);
        }
    };
    let kubernetes = kubernetes(wishes.kubernetes.as_ref().unwrap_or(&talos.kubernetes_version))?;
    let main = installed(session, factory, &talos.factory, wishes, &version, seen, found).await?;
    let mut others = BTreeMap::new();
    let mut complete = true;
    for (role, _, group) in session.profile.value.nodes.iter() {
        let Some(own) = group.factory.as_ref().filter(|own| **own != talos.factory && group.count > 0) else {
            continue;
        };
        let server = own_server(session, talos, own)?;
        let factory = server.as_ref().unwrap_or(factory);
        // What the command line asks for is the cluster's; a group that has its own keeps it.
        match installed(session, factory, own, &Wishes::default(), &version, seen, found).await? {
            Some(other) => drop(others.insert(role, other)),
            None => complete = false,
        }
    }
    let Some(OtherRelease { schematic, installer, extensions }) = main.filter(|_| complete) else { return Ok(None) };
    Ok(Some(Release { versions: Versions { talos: version, kubernetes }, schematic, installer, extensions, others }))
}

/// The factory of a group that names another one than the cluster's.
pub(super) fn own_server(
    session: &Session,
    talos: &Talos,
    own: &profile::Factory,
) -> Result<Option<image::Factory>, Stop> {
    let Some(url) = own.url.as_ref().filter(|_| own.url != talos.factory.url) else { return Ok(None) };
    let made = image::Factory::new(session.http.clone(), url, session.site.factory.registry.as_deref());
    made.map(Some)
        .map_err(|error| Stop::because(ExitCode::Invalid, "the URL of a group's Image Factory is wrong", &error))
}

/// The schematic of what `own` says, and whether there are images of it. None when there can't be.
async fn installed(
    session: &Session,
    factory: &image::Factory,
    own: &profile::Factory,
    wishes: &Wishes,
    version: &Version,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<Option<OtherRelease>, Stop> {
    let (schematic, extensions) = schematic(factory, own, wishes, version, seen, found).await?;
    let Some(schematic) = schematic else { return Ok(None) };
    let build = Build { schematic: schematic.clone(), version: version.clone(), arch: arch(own), boot: boot(own) };
    let what = format!("the image of Talos {version}");
    match patiently(&what, factory.head_image(&build, Encoding::RawXz)).await {
        Ok(head) => {
            let url = factory.image_url(&build, Encoding::RawXz);
            let sha256 = session.pinned(&schematic, version, &url)?;
            if seen.image_of(&schematic).is_none() {
                let (schematic, version) = (schematic.clone(), version.clone());
                seen.images.push(Image { url, schematic, version, sha256, bytes: head.bytes });
            }
        }
        Err(error) => seen.problems.push(no_image("image", &build, &error)),
    }
    pulled(session, factory, &build, seen).await?;
    let what = format!("the installer of Talos {version}");
    if let Err(error) = patiently(&what, factory.head_installer(&build)).await {
        seen.problems.push(no_image("installer", &build, &error));
    }
    let installer = factory.installer(&build);
    Ok(Some(OtherRelease { schematic, installer, extensions }))
}

/// Looks at the encoding that nodes fetch themselves, where that is asked for, or could be done since its digest is known.
async fn pulled(session: &Session, factory: &image::Factory, build: &Build, seen: &mut Observed) -> Result<(), Stop> {
    let url = factory.image_url(build, Encoding::Qcow2);
    let sha256 = session.pinned(&build.schematic, &build.version, &url)?;
    let asked = match transport(session) {
        Transport::Pull => true,
        Transport::Auto => sha256.is_some(),
        Transport::Upload | Transport::Ssh => false,
    };
    if !asked || seen.pull_of(&build.schematic).is_some() {
        return Ok(());
    }
    match patiently("the image as .qcow2", factory.head_image(build, Encoding::Qcow2)).await {
        Ok(head) => {
            let (schematic, version) = (build.schematic.clone(), build.version.clone());
            seen.pulls.push(Image { url, schematic, version, sha256, bytes: head.bytes });
        }
        Err(error) if transport(session) == Transport::Pull => {
            seen.problems.push(no_image("qcow2 image", build, &error));
        }
        // There are other ways.
        Err(error) => tracing::debug!(%error, "the factory has no qcow2 image"),
    }
    let nodes: Vec<NodeName> = seen.nodes.iter().filter(|node| node.online).map(|node| node.name.clone()).collect();
    for node in nodes {
        if seen.routes.contains_key(&node) || !sources::may_pull(transport(session), seen, &node) {
            continue;
        }
        let Some(image) = seen.pulls.first() else { break };
        let no = if factory.wants_credentials() {
            Some("the factory wants credentials, and a node has none".to_owned())
        } else {
            observe::route::look(&session.pve, &node, &image.url).await
        };
        seen.routes.insert(node, no);
    }
    Ok(())
}

pub(super) fn arch(own: &profile::Factory) -> Arch {
    match own.arch {
        profile::Arch::Amd64 => Arch::Amd64,
        profile::Arch::Arm64 => Arch::Arm64,
    }
}

pub(super) fn boot(own: &profile::Factory) -> Boot {
    if own.secureboot { Boot::Secure } else { Boot::Plain }
}

pub(super) fn no_image(what: &str, build: &Build, error: &FactoryError) -> Finding {
    Finding::refusal(
        format!("the factory has no {what} for Talos {} and schematic {}", build.version, build.schematic),
        "check the version and the schematic; `recast schematic` computes an ID",
    )
    .because(error)
}

/// Kubernetes releases aren't listed by anything recast talks to, so the patch has to be named.
fn kubernetes(wish: &VersionWish) -> Result<Version, Stop> {
    match wish {
        VersionWish::Exact(version) => Ok(version.clone()),
        other => Err(Stop::new(ExitCode::Invalid, format!("Kubernetes {other} is not an exact version"))
            .hinted("name the patch too, as in --kubernetes 1.35.0")),
    }
}

pub(super) async fn schematic(
    factory: &image::Factory,
    own: &profile::Factory,
    wishes: &Wishes,
    version: &Version,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<(Option<SchematicId>, Vec<String>), Stop> {
    let names = wishes
        .extensions
        .clone()
        .unwrap_or_else(|| if wishes.schematic.is_some() { Vec::new() } else { own.extensions.clone() });
    if !names.is_empty() {
        match factory.extensions(version).await {
            Ok(available) => {
                let unknown = crate::image::check_extensions(&names, version, &available);
                let none_missing = unknown.is_empty();
                for unknown in unknown {
                    let hint = unknown.nearest.as_ref().map_or_else(
                        || "the factory lists them at /version/…/extensions/official".to_owned(),
                        |nearest| format!("did you mean {nearest}?"),
                    );
                    seen.problems
                        .push(Finding::refusal(format!("Talos {version} has no extension {}", unknown.name), hint));
                }
                if !none_missing {
                    // No factory has an image with it: asking for one says the same in other words.
                    return Ok((None, names));
                }
            }
            Err(error) => seen.problems.push(
                Finding::refusal("the factory's extensions could not be read", "try again, or name a schematic")
                    .because(&error),
            ),
        }
    }
    let chosen_id =
        wishes.schematic.clone().or_else(|| own.schematic_id.clone().filter(|_| wishes.extensions.is_none()));
    let was_named = chosen_id.is_some();
    let chosen = match chosen_id {
        Some(id) => id,
        None => match factory.submit(&schematic_of(&names)?).await {
            Ok(submitted) => submitted.id,
            Err(error) => {
                seen.problems.push(
                    Finding::refusal("the factory did not take the schematic", "try again later").because(&error),
                );
                return Ok((None, names));
            }
        },
    };
    // Not every factory hands schematics out again; what the image really holds is shown by the canary.
    let held = factory.schematic(&chosen).await.ok().and_then(|yaml| Schematic::from_yaml(&yaml).ok());
    if was_named && !names.is_empty() && !makes(&names, &chosen, held.as_ref()) {
        found.push(Finding::warning(
            format!("the extensions listed in the profile are not those of schematic {chosen}"),
            "the schematic_id counts; correct the list or the id",
        ));
    }
    let Some(held) = held else { return Ok((Some(chosen), names)) };
    if held.customization.bootloader == Some(Bootloader::SdBoot) || boot(own) == Boot::Secure {
        seen.uefi_only.insert(chosen.clone());
    }
    Ok((Some(chosen), held.customization.system_extensions.official_extensions))
}

/// Whether a schematic has these extensions, whatever else is in it; by its ID where the factory does not show it.
fn makes(names: &[String], chosen: &SchematicId, held: Option<&Schematic>) -> bool {
    let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    match held {
        Some(held) => sorted(&held.customization.system_extensions.official_extensions) == sorted(names),
        None => Schematic::with_extensions(names.to_vec()).id().is_ok_and(|computed| computed == *chosen),
    }
}

/// The schematic of these extensions; without any, the one of a profile that names nothing.
fn schematic_of(extensions: &[String]) -> Result<Schematic, Stop> {
    if !extensions.is_empty() {
        return Ok(Schematic::with_extensions(extensions.iter().cloned()));
    }
    Schematic::from_yaml(SCHEMATIC).map_err(|error| {
        Stop::because(ExitCode::Internal, "the schematic of profiles that name none is damaged", &error)
    })
}

/// The hardware that all VMs have before the site's and the profile's own keys.
fn preset() -> Hardware {
    serde_json::from_str(HARDWARE).expect("it is part of the program, and a test reads it")
}

fn wanted(
    session: &Session,
    order: &Order,
    run: RunId,
    release: Release,
    rows: &[WantedVm],
    vms: Vec<PlannedVm>,
    secrets: &Secrets,
) -> Result<Wanted, Stop> {
    let profile = &session.profile.value;
    let talos = session.talos()?;
    let config = ClusterConfig {
        endpoint: endpoint(session)?,
        pod_cidr: profile.network.pod_cidr.to_string(),
        service_cidr: profile.network.service_cidr.to_string(),
        install_disk: talos.install_disk.clone(),
        schematic: release.schematic.clone(),
        installer: release.installer,
        mtu: profile.network.mtu,
        vip: talos.vip.as_ref().map(|vip| vip.ip),
    };
    let installs = order.verb != Verb::Teardown;
    let installers = release.others.iter().map(|(role, other)| (*role, other.installer.clone())).collect();
    let shared = Shared { config: &config, versions: &release.versions, installers };
    let machines =
        if installs { machines(session, talos, &shared, order.back.as_ref(), &vms, secrets)? } else { BTreeMap::new() };
    let (discovery, canary_discovery) = if installs { discovery(session, &vms)? } else { (Vec::new(), Vec::new()) };
    let ranges = &session.site.vmid_ranges;
    Ok(Wanted {
        verb: order.verb,
        run,
        cluster: profile.name.clone(),
        profile: session.profile_digest(),
        secrets: secrets.fingerprint(),
        talos: release.versions.talos,
        kubernetes: release.versions.kubernetes,
        schematic: release.schematic,
        tags: profile.tags.clone(),
        machines,
        storage: session.site.defaults.storage.clone(),
        nic: nic(session),
        hardware: hardware(session, &release.extensions),
        extensions: release.extensions,
        others: release
            .others
            .into_iter()
            .map(|(role, other)| {
                let hardware = hardware(session, &other.extensions);
                (role, OtherImage { schematic: other.schematic, hardware })
            })
            .collect(),
        extra: rows
            .iter()
            .map(|vm| {
                let before = order.back.as_ref().map(|before| before.hardware(vm.name.as_str()));
                (vm.name.to_string(), before.unwrap_or_default().into_iter().chain(vm.vm.clone()).collect())
            })
            .collect(),
        before: order.back.as_ref().map(|before| before.folder.clone()),
        inherit: inheritance(rows),
        pool: session.site.defaults.pool.clone(),
        transport: transport(session),
        template_ids: ranges.templates.first.0..=ranges.templates.last.0,
        discovery,
        canary_discovery,
        cloud_init: profile.address_discovery.mode == DiscoveryMode::CloudInit,
        limits: Limits {
            shutdown: profile.timeouts.shutdown.as_secs(),
            boot: profile.timeouts.boot.as_secs(),
            health: profile.timeouts.health.as_secs(),
            task: profile.timeouts.task.as_secs(),
            steady: profile.steady.as_secs(),
            drain: profile.timeouts.drain.as_secs(),
        },
        max_destroy: profile.guards.max_destroy,
        destroy_disks: BTreeSet::new(),
        data: Data::Fresh,
        errands: Errands::default(),
        config,
        vms,
    })
}

/// What the configurations of all machines are made from.
struct Shared<'a> {
    config: &'a ClusterConfig,
    versions: &'a Versions,
    /// Installers of roles that have their own.
    installers: BTreeMap<Role, String>,
}

fn machines(
    session: &Session,
    talos: &Talos,
    shared: &Shared<'_>,
    back: Option<&Before>,
    vms: &[PlannedVm],
    secrets: &Secrets,
) -> Result<BTreeMap<MachineName, MachineSpec>, Stop> {
    let network = &session.profile.value.network;
    let folder = session.folder();
    let patches = Patches { talos, profile: &session.profile_path, folder: &folder };
    // That nobody takes a file is `config check`'s to tell; a folder that isn't there would leave all patches out.
    patches.stray(vms.iter().map(|vm| (vm.name.as_str(), vm.role)))?;
    let mut machines = BTreeMap::new();
    for vm in vms {
        let own = patches.own(&vm.name);
        let address = match (vm.address, network.prefix.or_else(|| network.subnet().map(|subnet| subnet.prefix_len())))
        {
            (Some(address), Some(prefix)) => Some(format!("{address}/{prefix}")),
            (Some(address), None) if own.is_empty() => {
                return Err(Stop::new(ExitCode::Invalid, format!("the prefix length of {}'s address {address} is not known", vm.name))
                    .hinted("give network.prefix and network.gateway in the profile, or a patch of that name in talos.patches_dir"));
            }
            // The user's own patch sets the address.
            _ => None,
        };
        let Some(mac) = vm.mac else { continue };
        let mut spec = MachineSpec {
            name: MachineName::new(&vm.name),
            role: vm.role,
            mac,
            gateway: address.as_ref().and(network.gateway),
            nameservers: network.nameservers.clone(),
            address,
            installer: shared.installers.get(&vm.role).cloned(),
            patches: patches.shared(vm.role).into_iter().chain(own).collect(),
            whole: back.and_then(|before| before.config(&vm.name)),
            digest: Sha256::of(b""),
        };
        let rendered = config::render(secrets, &session.profile.value.name, shared.config, shared.versions, &spec)
            .map_err(|error| {
                Stop::because(ExitCode::Invalid, format!("the configuration of {} can't be rendered", vm.name), &error)
            })?;
        spec.digest = rendered.digest;
        machines.insert(spec.name.clone(), spec);
    }
    Ok(machines)
}

fn nic(session: &Session) -> String {
    let network = &session.profile.value.network;
    let defaults = &session.site.defaults;
    let mut nic = format!("virtio,bridge={}", network.bridge.as_ref().unwrap_or(&defaults.bridge));
    if let Some(vlan) = network.vlan.or(defaults.vlan) {
        let _ = write!(nic, ",tag={vlan}");
    }
    if let Some(mtu) = network.mtu {
        let _ = write!(nic, ",mtu={mtu}");
    }
    nic
}

fn hardware(session: &Session, extensions: &[String]) -> Hardware {
    let defaults = &session.site.defaults;
    let mut hardware = preset();
    for (key, value) in [
        ("bios", &defaults.bios),
        ("machine", &defaults.machine),
        ("cpu", &defaults.cpu),
        ("scsihw", &defaults.scsihw),
        ("ostype", &defaults.ostype),
    ] {
        hardware.insert(key.to_owned(), value.clone());
    }
    // An agent that is configured and not there makes every shutdown wait for it.
    if defaults.agent && extensions.iter().any(|name| name == AGENT) {
        hardware.insert("agent".to_owned(), "enabled=1".to_owned());
    }
    hardware
}

/// Where to look for machines without a configuration beside their assigned addresses, and where to look for canaries,
/// which have none: the guest agent is asked, and the subnet of the profile, or the one that its addresses lie in, is
/// scanned.
fn discovery(session: &Session, vms: &[PlannedVm]) -> Result<(Vec<Discovery>, Vec<Discovery>), Stop> {
    let profile = &session.profile.value;
    let mode = profile.address_discovery.mode;
    if mode == DiscoveryMode::Agent {
        return Ok((vec![Discovery::Agent], vec![Discovery::Agent]));
    }
    let subnet = profile.address_discovery.subnet.or_else(|| profile.network.subnet()).or_else(|| {
        // A /24 around the first address: what a homelab has.
        let address = vms.iter().find_map(|vm| vm.address)?;
        ipnet::IpNet::new(address, 24).ok().map(|net| net.trunc())
    });
    let subnet = subnet.ok_or_else(|| {
        Stop::new(ExitCode::Invalid, "it is not known where new machines come up")
            .hinted("give address_discovery.subnet in the profile: the network in which they get their DHCP addresses")
    })?;
    let scan = Discovery::Scan(subnet.trunc().to_string());
    let both = vec![Discovery::Agent, scan.clone()];
    Ok(match mode {
        DiscoveryMode::Auto => (both.clone(), both),
        DiscoveryMode::Static | DiscoveryMode::CloudInit => (Vec::new(), both),
        _ => (vec![scan.clone()], vec![scan]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_of_the_program_are_sound() {
        assert_eq!(preset().get("scsihw").map(String::as_str), Some("virtio-scsi-single"));
        let empty = schematic_of(&[]).unwrap().id().unwrap();
        assert_eq!(empty.as_str(), "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba");
        let one = schematic_of(&["siderolabs/qemu-guest-agent".to_owned()]).unwrap().id().unwrap();
        assert_eq!(one.as_str(), "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515");
    }
}
