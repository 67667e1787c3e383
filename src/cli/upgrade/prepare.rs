//! From a session to the plan of an upgrade: versions made definite, the way found, installers looked for.

use std::collections::BTreeMap;

use super::edits;
use super::installers::Server;
use super::look::{Look, limits, look};
use super::manifests;
use super::migrations::migrations;
use crate::cli::args::{SchematicWish, Wishes};
use crate::cli::here;
use crate::cli::prepare::{keep, planned_is_sane, schematic};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::exit::ExitCode;
use crate::image::{self, Schematic};
use crate::plan::check::refuses;
use crate::plan::compatibility::Table;
use crate::plan::observed::{Finding, Observed};
use crate::plan::path::{Hop, Hops, What};
use crate::plan::upgrade::make::{UpgradeError, make, needed, way};
use crate::plan::upgrade::{Asked, Bound, KernelLog, Only, Parallel, Reboot, SeenCluster, Stage, gates};
use crate::plan::{Plan, Versions};
use crate::profile;
use crate::talos::secrets::Secrets;
use crate::types::{Role, RunId, SchematicId, Version, VersionWish};

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Order {
    /// Versions and schematic.
    pub wishes: Wishes,
    /// Talos, Kubernetes or both.
    pub only: Only,
    /// Only these machines' Talos.
    pub nodes: Option<Vec<String>>,
    /// How many workers at once.
    pub parallel: Parallel,
    /// When releases are written.
    pub stage: Stage,
    /// How machines reboot.
    pub reboot: Reboot,
    /// Whether kernel logs are kept.
    pub kernel_log: KernelLog,
    /// How many hops there may be.
    pub hops: Hops,
    /// What goes with what.
    pub table: Table,
}

/// Everything that the verb shows or carries out.
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

/// Looks at everything and plans what is asked for.
pub async fn prepare(session: &Session, order: &Order, run: RunId) -> Result<Prepared, Stop> {
    let secrets = session.secrets(jiff::Timestamp::now())?;
    let errands = here::errands(session)?;
    let Look { mut seen, mut running, vms, out_of_reach, endpoint, .. } = look(session, &secrets, &run).await?;
    let mut found = Vec::new();
    let mut here = here::look(session, &errands, None).await;
    here.out_of_reach = out_of_reach;
    here.backup = Some(here::backup(session, seen.cluster.as_ref().and_then(|cluster| cluster.database_bytes)));
    let released = session.factory.versions().await;
    let released = released.unwrap_or_else(|error| {
        seen.problems
            .push(Finding::refusal("the list of Talos releases could not be read", "try again later").because(&error));
        Vec::new()
    });
    let wanted = versions(session, order, &running, &released, &mut seen)?;
    let asked_for = wanted.clone();
    let mut asked = Asked {
        run,
        cluster: session.profile.value.name.clone(),
        profile: session.profile_digest(),
        secrets: secrets.fingerprint(),
        endpoint,
        wanted: wanted.unwrap_or_else(|| Versions { talos: Version::new(0, 0, 0), kubernetes: Version::new(0, 0, 0) }),
        schematics: BTreeMap::new(),
        extensions: BTreeMap::new(),
        recipes: BTreeMap::new(),
        installers: Vec::new(),
        vms,
        nodes: order.nodes.clone(),
        only: order.only,
        bound: Bound::Up,
        parallel: order.parallel,
        stage: order.stage,
        reboot: order.reboot,
        kernel_log: order.kernel_log,
        hops: order.hops,
        table: order.table.clone(),
        keep: keep(session),
        limits: limits(session),
        errands,
        edits: BTreeMap::new(),
    };
    let mut hops: Vec<Hop> = Vec::new();
    if asked_for.is_some() {
        let servers = sources(session, order, &running, &mut asked, &mut seen, &mut found).await?;
        match way(&asked, &running, &released) {
            Ok(way) => {
                hops = way;
                found.extend(unwritten(&asked, &hops));
            }
            Err(UpgradeError::NoPath(no)) => found.push(gates::no_path(&no)),
            // What could not be looked at is told by the gates.
            Err(UpgradeError::Unseen | UpgradeError::NoInstaller { .. }) => {}
        }
        let rises = |hop: &&Hop| hop.what == What::Os;
        if let (Some(first), Some(last)) = (hops.iter().find(rises), hops.iter().rfind(rises)) {
            let (whose, versions) = ((&asked, &running), (&first.from, &last.to));
            found.extend(migrations(session, &secrets, whose, versions).await?);
        }
        for (schematic, version) in needed(&asked, &running, &hops) {
            installer(&servers, &schematic, &version, &mut asked, &mut seen).await;
        }
    }
    found.extend(manifests::preview(session, &secrets, &hops, &mut running).await?);
    found.extend(gates::findings(&asked, &seen, &running, &here));
    found.extend(gates::on_the_way(&asked, &running, &hops));
    found.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    // Groups of machines with the same wish find the same.
    found.dedup();
    let plan = if refuses(&found) || asked_for.is_none() {
        None
    } else {
        let plan = make(&asked, &running, &hops)
            .map_err(|error| Stop::because(ExitCode::Refused, "no plan can be made", &error))?;
        Some(planned_is_sane(plan)?)
    };
    Ok(Prepared { seen, findings: found, plan, secrets })
}

/// What the profile would be told by a run, where none comes: machines run all of it already.
fn unwritten(asked: &Asked, hops: &[Hop]) -> Option<Finding> {
    let lines: Vec<String> = asked.edits.iter().map(|(key, value)| format!("{key}: {value}")).collect();
    (hops.is_empty() && !lines.is_empty()).then(|| {
        Finding::warning(
            "there is nothing to upgrade, so nothing is written into the profile",
            format!("what the machines run does not stand there yet: {}", lines.join(", ")),
        )
    })
}

/// What shall run: what is asked for, else what the profile says, but nothing older than what runs unless it was asked for.
/// None, with the reason among the problems, where a version can't be had.
fn versions(
    session: &Session,
    order: &Order,
    running: &SeenCluster,
    released: &[Version],
    seen: &mut Observed,
) -> Result<Option<Versions>, Stop> {
    let talos = session.talos()?;
    let now = running.versions(order.nodes.as_deref());
    let (to, kubernetes) = (&order.wishes.to, &order.wishes.kubernetes);
    let wish = to.as_ref().unwrap_or(&talos.version);
    let resolved = wish.resolve(released);
    let version = match (resolved, &now) {
        (Some(version), Some(now)) if to.is_none() && version < now.talos => now.talos.clone(),
        (Some(version), _) => version,
        // Nothing new is wanted: what runs need not be served any more.
        (None, Some(now)) if to.is_none() => now.talos.clone(),
        (None, _) => {
            let newest = released.iter().filter(|version| !version.is_prerelease()).max();
            seen.problems.push(Finding::refusal(
                format!("the Image Factory has no Talos {wish}"),
                newest.map_or_else(
                    || "look at the factory".to_owned(),
                    |newest| format!("its newest release is {newest}; --to latest means that"),
                ),
            ));
            return Ok(None);
        }
    };
    let wish = kubernetes.as_ref().unwrap_or(&talos.kubernetes_version);
    let patches: Vec<Version> = order.table.kubernetes.values().cloned().collect();
    let resolved = match wish {
        VersionWish::Exact(version) => Some(version.clone()),
        // The newest that the wanted Talos runs.
        VersionWish::Latest => {
            patches.iter().filter(|patch| order.table.runs(patch, &version) == Some(true)).max().cloned()
        }
        VersionWish::Minor(..) => wish.resolve(&patches),
    };
    let kubernetes = match (resolved, &now) {
        (Some(wanted), Some(now)) if kubernetes.is_none() && wanted < now.kubernetes => now.kubernetes.clone(),
        (Some(wanted), _) => wanted,
        (None, Some(now)) if kubernetes.is_none() => now.kubernetes.clone(),
        (None, _) => {
            seen.problems.push(Finding::refusal(
                format!("no release of Kubernetes {wish} is known"),
                "name the patch too, as in --kubernetes 1.35.0",
            ));
            return Ok(None);
        }
    };
    Ok(Some(Versions { talos: version, kubernetes }))
}

/// Where a schematic's installers come from.
type Servers = BTreeMap<SchematicId, Server>;

/// What each role is to be made from: what is asked for, else what the profile says, else what its machines are made from.
async fn sources(
    session: &Session,
    order: &Order,
    running: &SeenCluster,
    asked: &mut Asked,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<Servers, Stop> {
    let mut servers = Servers::new();
    for (role, _, group) in session.profile.value.nodes.iter() {
        let server = Server::of(session, group)?;
        let Server { factory, own } = &server;
        let runs = running_schematic(running, role);
        // What the command line asks for is the cluster's; a group that has its own keeps it.
        let made_from = if group.factory.is_some() { SchematicWish::default() } else { order.wishes.made_from.clone() };
        let says_nothing = made_from.says_nothing() && own.schematic_id.is_none() && own.extensions.is_empty();
        let (chosen, extensions) = if let Some(runs) = runs.filter(|_| says_nothing || order.only == Only::Kubernetes) {
            (Some(runs.clone()), None)
        } else {
            let (chosen, extensions) = schematic(factory, own, &made_from, &asked.wanted.talos, seen, found).await?;
            (chosen, Some(extensions))
        };
        let Some(chosen) = chosen else { continue };
        // What a schematic holds that nobody named is seen on the machines that run it.
        let extensions = extensions.into_iter().flatten().chain(held(running, &chosen));
        asked.extensions.insert(chosen.clone(), extensions.collect());
        for schematic in
            running.members.iter().filter(|seen| seen.member.role == role).filter_map(|seen| seen.schematic.clone())
        {
            servers.entry(schematic).or_insert_with(|| server.clone());
        }
        if !asked.recipes.contains_key(&chosen)
            && let Some(text) = yaml_of(factory, &chosen).await
        {
            asked.recipes.insert(chosen.clone(), text);
        }
        if group.factory.is_none() && order.only != Only::Kubernetes {
            let written = written(session, order, own, &chosen, asked.recipes.get(&chosen));
            asked.edits.extend(written.edits);
            found.extend(written.left);
        }
        servers.insert(chosen.clone(), server.clone());
        asked.schematics.insert(role, chosen);
    }
    Ok(servers)
}

fn running_schematic(running: &SeenCluster, role: Role) -> Option<&SchematicId> {
    running.members.iter().find(|seen| seen.member.role == role)?.schematic.as_ref()
}

/// The extensions of a schematic, as the machines that run it show them.
fn held(running: &SeenCluster, schematic: &SchematicId) -> impl Iterator<Item = String> {
    let of = running.members.iter().filter(move |seen| seen.schematic.as_ref() == Some(schematic));
    of.flat_map(|seen| seen.extensions.iter().cloned())
}

/// Whether the installer of a hop can be pulled; the factory builds it here and now, if need be.
async fn installer(
    servers: &Servers,
    schematic: &SchematicId,
    version: &Version,
    asked: &mut Asked,
    seen: &mut Observed,
) {
    let Some(server) = servers.get(schematic) else { return };
    let release = server.release(schematic, version);
    match server.look_for(&release).await {
        Ok(()) => asked.installers.push(release),
        Err(error) => seen.problems.push(server.missing(&release, &error)),
    }
}

/// What the profile is to say of the schematic that the command line asks for, and what is left to its owner.
fn written(
    session: &Session,
    order: &Order,
    own: &profile::Factory,
    chosen: &SchematicId,
    recipe: Option<&String>,
) -> edits::Written {
    if order.wishes.made_from.says_nothing() {
        return edits::Written::default();
    }
    // A part of the machines is not what the profile speaks of.
    if order.nodes.is_some() {
        let says = own.schematic_id.as_ref() == Some(chosen);
        return if says { edits::Written::default() } else { edits::Written::by_hand(chosen) };
    }
    let recipe = recipe.and_then(|text| Schematic::from_yaml(text).ok());
    let holds = recipe.map(|recipe| recipe.customization.system_extensions.official_extensions);
    edits::of_asked(session.profile.source.text(), own, &order.wishes.made_from, chosen, holds.as_deref())
}

/// What a schematic holds, for the lock, where the factory tells.
async fn yaml_of(factory: &image::Factory, id: &SchematicId) -> Option<String> {
    let text = factory.schematic(id).await.ok()?;
    Schematic::from_yaml(&text).is_ok().then_some(text)
}
