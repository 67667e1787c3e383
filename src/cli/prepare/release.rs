//! What will be installed: versions made definite, images and installers looked for, for each role.
//!
//! Must not know: which machine gets what.

use std::collections::BTreeMap;

use super::look::transport;
use super::schematic::schematic;
use crate::cli::args::{SchematicWish, Wishes};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::cli::waiting::patiently;
use crate::exit::ExitCode;
use crate::image::{self, Arch, Boot, Build, Encoding, FactoryError};
use crate::observe;
use crate::plan::observed::{Finding, Observed};
use crate::plan::step::Image;
use crate::plan::{Versions, sources};
use crate::profile::{self, Talos, Transport};
use crate::types::{NodeName, Role, SchematicId, Version, VersionWish};

/// What will be installed.
pub(super) struct Release {
    pub(super) versions: Versions,
    pub(super) schematic: SchematicId,
    pub(super) installer: String,
    pub(super) extensions: Vec<String>,
    /// Roles with a factory of their own.
    pub(super) others: BTreeMap<Role, OtherRelease>,
}

/// What is installed on the machines of one role, where it isn't what the others have.
pub(super) struct OtherRelease {
    pub(super) schematic: SchematicId,
    pub(super) installer: String,
    pub(super) extensions: Vec<String>,
}

impl Release {
    /// What a teardown installs. The versions are the profile's, as far as it names them; none of this is carried out.
    pub(super) fn nothing(talos: &Talos) -> Self {
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
pub(super) async fn release(
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
    let main = installed(session, factory, &talos.factory, &wishes.made_from, &version, seen, found).await?;
    let mut others = BTreeMap::new();
    let mut complete = true;
    for (role, _, group) in session.profile.value.nodes.iter() {
        let Some(own) = group.factory.as_ref().filter(|own| **own != talos.factory && group.count > 0) else {
            continue;
        };
        let server = own_server(session, talos, own)?;
        let factory = server.as_ref().unwrap_or(factory);
        // What the command line asks for is the cluster's; a group that has its own keeps it.
        match installed(session, factory, own, &SchematicWish::default(), &version, seen, found).await? {
            Some(other) => drop(others.insert(role, other)),
            None => complete = false,
        }
    }
    let Some(OtherRelease { schematic, installer, extensions }) = main.filter(|_| complete) else { return Ok(None) };
    Ok(Some(Release { versions: Versions { talos: version, kubernetes }, schematic, installer, extensions, others }))
}

/// The factory of a group that names another one than the cluster's.
pub(in crate::cli) fn own_server(
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
    made_from: &SchematicWish,
    version: &Version,
    seen: &mut Observed,
    found: &mut Vec<Finding>,
) -> Result<Option<OtherRelease>, Stop> {
    let (schematic, extensions) = schematic(factory, own, made_from, version, seen, found).await?;
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

pub(in crate::cli) fn arch(own: &profile::Factory) -> Arch {
    match own.arch {
        profile::Arch::Amd64 => Arch::Amd64,
        profile::Arch::Arm64 => Arch::Arm64,
    }
}

pub(in crate::cli) fn boot(own: &profile::Factory) -> Boot {
    if own.secureboot { Boot::Secure } else { Boot::Plain }
}

pub(in crate::cli) fn no_image(what: &str, build: &Build, error: &FactoryError) -> Finding {
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
