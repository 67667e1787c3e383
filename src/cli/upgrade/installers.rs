//! Where the installers of a role come from, and whether one is there: asked before anything is drained.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cli::prepare::{arch, boot, no_image, own_server};
use crate::cli::session::Session;
use crate::cli::stop::Stop;
use crate::image::{self, Build, FactoryError};
use crate::plan::observed::Finding;
use crate::plan::upgrade::descent::Way;
use crate::plan::upgrade::{By, Release};
use crate::profile::{self, Group};
use crate::types::{Role, SchematicId, Version};

/// Where installers come from.
#[derive(Clone)]
pub(super) struct Server {
    /// The factory.
    pub(super) factory: image::Factory,
    /// What the profile says of its images.
    pub(super) own: profile::Factory,
}

impl Server {
    /// The one of a group of machines.
    pub(super) fn of(session: &Session, group: &Group) -> Result<Self, Stop> {
        let talos = session.talos()?;
        let factory = match &group.factory {
            Some(own) => own_server(session, talos, own)?.unwrap_or_else(|| session.factory.clone()),
            None => session.factory.clone(),
        };
        Ok(Self { factory, own: group.factory.clone().unwrap_or_else(|| talos.factory.clone()) })
    }

    /// Those of all roles.
    pub(super) fn all(session: &Session) -> Result<BTreeMap<Role, Self>, Stop> {
        session.profile.value.nodes.iter().map(|(role, _, group)| Ok((role, Self::of(session, group)?))).collect()
    }

    fn build(&self, schematic: &SchematicId, version: &Version) -> Build {
        let (arch, boot) = (arch(&self.own), boot(&self.own));
        Build { schematic: schematic.clone(), version: version.clone(), arch, boot }
    }

    /// The release of a schematic and version.
    pub(super) fn release(&self, schematic: &SchematicId, version: &Version) -> Release {
        let image = self.factory.installer(&self.build(schematic, version));
        Release { version: version.clone(), schematic: schematic.clone(), image }
    }

    /// Whether its installer can be pulled; the factory builds it here and now, if need be.
    pub(super) async fn look_for(&self, release: &Release) -> Result<(), FactoryError> {
        self.factory.head_installer(&self.build(&release.schematic, &release.version)).await.map(drop)
    }

    /// That there is none.
    pub(super) fn missing(&self, release: &Release, error: &FactoryError) -> Finding {
        no_image("installer", &self.build(&release.schematic, &release.version), error)
    }
}

/// Looks for the installers of all hops by which machines go back: those that go by one, and those that kept nothing
/// themselves. Which do, is known only when they are told, and their pods have left by then: so one that the registry says
/// it hasn't is found out here.
pub(super) async fn look_for_all(servers: &BTreeMap<Role, Server>, way: &Way) -> Vec<Finding> {
    let mut wanted: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
    for fall in way.falls() {
        let (Some(release), Some(server)) = (&fall.to, servers.get(&fall.role)) else { continue };
        let one = wanted.entry(&release.image);
        let one = one.or_insert_with(|| Wanted { release, server, names: Vec::new(), by: By::OtherSlot });
        one.names.push(fall.machine.as_str());
        if fall.by == By::Installer {
            one.by = By::Installer;
        }
    }
    let looks = wanted.into_values().map(async |wanted| {
        match tokio::time::timeout(AT_MOST, wanted.server.look_for(wanted.release)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(absent(&wanted.whose(), &error)),
            Err(_) => Some(unknown(&wanted.whose()).because(&Silent)),
        }
    });
    futures_util::future::join_all(looks).await.into_iter().flatten().collect()
}

/// An installer that machines may need or do need.
struct Wanted<'a> {
    release: &'a Release,
    server: &'a Server,
    names: Vec<&'a str>,
    by: By,
}

impl Wanted<'_> {
    fn whose(&self) -> Whose<'_> {
        let Release { image, version, .. } = self.release;
        Whose { image, names: self.names.join(", "), version, by: self.by }
    }
}

/// The same in words.
struct Whose<'a> {
    image: &'a str,
    names: String,
    version: &'a Version,
    /// Whether one of them goes back by it alone.
    by: By,
}

/// How long a registry is asked for an installer: a way back is in a hurry, and may not need it.
const AT_MOST: Duration = Duration::from_secs(30);

/// It said nothing.
#[derive(Debug, thiserror::Error)]
#[error("the registry gave no answer within {} s", AT_MOST.as_secs())]
struct Silent;

fn unknown(whose: &Whose<'_>) -> Finding {
    let Whose { image, names, version, by } = whose;
    Finding::warning(
        format!("whether the installer {image} of Talos {version} is there could not be found out"),
        match by {
            By::OtherSlot => {
                format!(
                    "{names} need it only where their disks hold no other release; such a machine would be left as it is"
                )
            }
            By::Installer => format!("{names} go back by it, and pull it before the first of them is drained"),
        },
    )
}

/// What it means that an installer was not found. A registry that could not be asked stops nobody: a machine that kept the
/// release needs nothing from it.
fn absent(whose: &Whose<'_>, error: &FactoryError) -> Finding {
    let Whose { image, names, version, .. } = whose;
    let is_gone = matches!(
        error,
        FactoryError::UnknownVersion { .. }
            | FactoryError::UnknownSchematic { .. }
            | FactoryError::Refused { status: 404 | 410, .. }
    );
    let finding = if is_gone {
        Finding::refusal(
            format!("{names} ran Talos {version} before, and its installer {image} is not there any more"),
            match whose.by {
                By::OtherSlot => {
                    "a machine that kept no other release goes back by that image alone: let the factory have it again (a \
                     schematic is submitted with `recast schematic --submit`); one whose disk holds the release needs no \
                     image: `talosctl rollback` takes it there without these gates"
                }
                By::Installer => {
                    "their disks do not hold that release, so they go back by that image alone: let the factory have it \
                     again (a schematic is submitted with `recast schematic --submit`)"
                }
            },
        )
    } else {
        unknown(whose)
    };
    finding.because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::observed::Severity;

    #[test]
    fn an_installer_that_is_gone_refuses_by_name_and_a_registry_that_is_away_only_warns() {
        let error = |status: u16| {
            let (what, text, request) = ("the installer".to_owned(), "no".to_owned(), "r-1".to_owned());
            match status {
                404 | 405 => FactoryError::Refused { what, status, text, request },
                _ => FactoryError::Unavailable { what, status, text, request, retry_after: None },
            }
        };
        let (image, version) = ("factory.example/nocloud-installer/s:v1.12.4", Version::new(1, 12, 4));
        let by = By::OtherSlot;
        let whose = Whose { image, names: "cp-01, cp-02".to_owned(), version: &version, by };
        let of = |status| absent(&whose, &error(status));
        let gone = of(404);
        assert_eq!(gone.severity, Severity::Refusal);
        assert!(gone.what.contains(image) && gone.what.contains("cp-01, cp-02"), "{gone:?}");
        for away in [405, 503] {
            assert_eq!(of(away).severity, Severity::Warning, "{away}");
        }
    }
}
